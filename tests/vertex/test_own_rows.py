"""Rows of the author's own on Vertex AI: staged, answered, landed, and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet
from pydantic import BaseModel
from vertex.bench import EMBEDDING, LEGACY, rows_of

if TYPE_CHECKING:
    from vertex.bench import Bench


def test_rows_are_staged_answered_and_landed_and_nothing_is_left(bench: Bench) -> None:
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(inlined_requests=["One.", {"key": "two", "text": "Two."}], output_path=str(output))
    rows = rows_of(output.read_bytes())
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [row["key"] for row in rows][1] == "two"
    assert summary["counts"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert summary["output"] == str(output)
    assert bench.objects() == []


def test_staged_objects_stay_when_the_author_says_so(bench: Bench) -> None:
    bench.go(inlined_requests=["One."], output_path=str(bench.folder / "out.jsonl"), keep_input=True)
    staged, answers = bench.objects()
    tag = staged.partition("/")[0]
    assert tag.startswith("gb1-")
    assert staged == f"{tag}/input.jsonl"
    assert answers.startswith(f"{tag}/output/prediction-model-")


def test_without_an_output_path_the_answers_stay_where_the_service_wrote_them(bench: Bench) -> None:
    _, summary = bench.go(inlined_requests=["One."])
    assert [row["status"] for row in summary["responses"]] == ["ok"]
    (answers,) = bench.objects()
    assert answers.endswith("/predictions.jsonl")


def test_a_callable_is_called_once_and_its_rows_are_dropped_with_the_rest(bench: Bench) -> None:
    calls: list[int] = []

    def prompts() -> list[str]:
        calls.append(len(bench.objects()))
        return ["One.", "Two.", "Three."]

    output = f"{bench.stage}-out/rows.jsonl"
    _, summary = bench.go(inlined_requests=prompts, output_path=output)
    assert calls == [0]
    assert summary["counts"]["succeeded"] == 3
    assert bench.objects() == []
    assert bench.objects(f"{bench.stage}-out") == ["_rows.jsonl.manifest.json", "rows.jsonl"]
    assert len(rows_of(bench.read(output))) == 3


def test_rows_of_several_jobs_come_back_in_the_order_of_the_input(bench: Bench) -> None:
    bench.emulator.control.faults(shuffle=True)
    texts = [{"text": f"Row {n}.", "n": n} for n in range(7)]
    output = bench.folder / "out.jsonl"
    source = bench.folder / "in.csv"
    source.write_text("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in texts))
    _, summary = bench.go(
        input_path=str(source),
        output_path=str(output),
        max_rows_per_job=3,
        carry=["n"],
        destination="gs://data/answers",
        keep_input=True,
    )
    assert [row["n"] for row in rows_of(output.read_bytes())] == list("0123456")
    assert len(summary["job_names"]) == 3
    # One folder for each job: the service names its own by the time, which two jobs may share.
    folders = {job["output"]["gcsOutputDirectory"].rpartition("/")[0] for job in bench.jobs}
    assert len(folders) == 3
    assert all(folder.startswith("gs://data/answers/gb1-") for folder in folders)


def test_input_and_output_may_lie_on_cloud_storage_without_a_further_connection(bench: Bench) -> None:
    bench.put("gs://data/own/in.jsonl", b'{"key": "a", "text": "One."}\n{"key": "b", "text": "Two."}\n')
    output = "gs://data/own/out.parquet"
    _, summary = bench.go(input_path="gs://data/own/in.jsonl", output_path=output)
    assert summary["output"] == output
    with bench.store.open(output) as handle:
        assert parquet.read_table(handle).column("key").to_pylist() == ["a", "b"]
    assert bench.objects() == []


def test_rows_that_failed_are_repaired_in_a_second_job(bench: Bench) -> None:
    bench.emulator.control.faults(row_error_every=2, row_error_rounds=r"-0\.0\.0-")
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(inlined_requests=[f"Row {n}." for n in range(6)], output_path=str(output), repair_rounds=1)
    assert summary["counts"] == {"total": 6, "succeeded": 6, "failed": 0}
    assert [job["rows"] for job in bench.jobs] == [6, 3]
    assert bench.objects() == []


def test_failed_rows_are_told_with_code_and_message(bench: Bench) -> None:
    bench.emulator.control.faults(row_error_every=2, row_error_code=3, row_error_message="No such thing.")
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(inlined_requests=["One.", "Two."], output_path=str(output))
    assert summary["counts"]["failed"] == 1
    bad = next(row for row in rows_of(output.read_bytes()) if row["status"] == "error")
    assert bad["error"]["code"] == 3
    assert "No such thing." in bad["error"]["message"]


class Colour(BaseModel):
    name: str
    warm: bool


def test_answers_fit_a_schema_and_files_go_with_their_rows(bench: Bench) -> None:
    bench.put("gs://data/pictures/red.png", b"red")
    local = bench.folder / "blue.png"
    local.write_bytes(b"blue")
    output = bench.folder / "out.jsonl"
    bench.go(
        inlined_requests=[
            {"text": "What colour?", "picture": "gs://data/pictures/red.png"},
            {"text": "What colour?", "picture": str(local)},
        ],
        media_field="picture",
        media_root=["gs://data/pictures", str(bench.folder)],
        output_schema=Colour,
        output_path=str(output),
        keep_input=True,
    )
    rows = rows_of(output.read_bytes())
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all(isinstance(row["parsed"]["warm"], bool) for row in rows)
    (staged,) = [name for name in bench.objects() if name.endswith("input.jsonl")]
    sent = rows_of(bench.read(f"{bench.stage}/{staged}"))
    files = [line["request"]["contents"][0]["parts"][0]["fileData"]["fileUri"] for line in sent]
    assert files[0] == "gs://data/pictures/red.png"
    assert files[1].startswith(f"{bench.stage}/media/")
    assert bench.read(files[1]) == b"blue"


@pytest.mark.parametrize("model", [EMBEDDING, LEGACY])
def test_embeddings_come_back_to_their_rows_in_either_shape(bench: Bench, model: str) -> None:
    bench.emulator.control.faults(shuffle=True)
    texts = ["Red.", "Green.", "Red.", "Blue.", "Black."]
    output = bench.folder / "out.jsonl"
    rows = [{"key": f"k{n}", "text": text} for n, text in enumerate(texts)]
    _, summary = bench.go(model=model, inlined_requests=rows, task_type="RETRIEVAL_DOCUMENT", output_path=str(output))
    found = rows_of(output.read_bytes())
    assert [row["key"] for row in found] == ["k0", "k1", "k2", "k3", "k4"]
    assert found[0]["embedding"] == found[2]["embedding"]
    assert len({tuple(row["embedding"]) for row in found}) == 4
    assert summary["usage"]["input_tokens"] > 0
    assert bench.objects() == []


def test_what_an_older_embedding_model_cannot_do_is_refused_before_a_job_is_made(bench: Bench) -> None:
    run = bench.run(model=LEGACY, inlined_requests=["Red."], output_dimensionality=64)
    result = run.attempt("batch")
    assert result.state == "failed"
    assert "takes no output_dimensionality" in result.message
    assert bench.jobs == []


def test_answers_that_lost_their_keys_do_not_land_in_the_rows_of_others(bench: Bench) -> None:
    """The order of the output is not that of the input."""
    bench.emulator.control.faults(shuffle=True, missing_key_every=1)
    output = bench.folder / "out.jsonl"
    texts = [f"Row {n}." for n in range(7)]
    result = bench.run(inlined_requests=texts, output_path=str(output)).attempt("batch")
    assert "7 of 7 rows failed" in str(result.error)
    rows = rows_of(output.read_bytes())
    assert [row["status"] for row in rows] == ["missing"] * 7
    assert len(rows_of((bench.folder / "_out.jsonl.aside.jsonl").read_bytes())) == 7
