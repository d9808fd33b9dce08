"""Sources that lie on Google Cloud already: one object, several, a wildcard, a table; and where their answers go."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet
from vertex.bench import LEGACY, rows_of

if TYPE_CHECKING:
    from vertex.bench import Bench


def lines(*keys: str) -> bytes:
    contents = [{"role": "user", "parts": [{"text": "Row."}]}]
    return b"".join(json.dumps({"request": {"contents": contents}, "custom_id": key}).encode() + b"\n" for key in keys)


@pytest.fixture
def folder(bench: Bench) -> str:
    """A folder with two objects of rows."""
    name = f"gs://data/{bench.folder.name}"
    bench.put(f"{name}/in/one.jsonl", lines("a", "b"))
    bench.put(f"{name}/in/two.jsonl", lines("c"))
    return name


@pytest.mark.parametrize(
    ("names", "keys"),
    [("in/one.jsonl", "ab"), (["in/one.jsonl", "in/two.jsonl"], "abc"), ("in/*.jsonl", "abc")],
)
def test_objects_go_as_they_are_and_stay(bench: Bench, folder: str, names: Any, keys: str) -> None:
    uris = f"{folder}/{names}" if isinstance(names, str) else [f"{folder}/{name}" for name in names]
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(gcs_uri=uris, destination=f"{folder}/answers", output_path=str(output))
    assert sorted(row["key"] for row in rows_of(output.read_bytes())) == list(keys)
    assert summary["counts"]["total"] == len(keys)
    left = bench.objects(folder)
    assert left[-2:] == ["in/one.jsonl", "in/two.jsonl"]
    assert left[0].startswith("answers/prediction-model-")


def test_answers_in_three_objects_are_landed_whole(bench: Bench, folder: str) -> None:
    bench.put(f"{folder}/in/many.jsonl", lines(*[f"k{n:02}" for n in range(30)]))
    bench.emulator.control.faults(output_layout={"layout": "shards", "count": 3})
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(gcs_uri=f"{folder}/in/many.jsonl", destination=f"{folder}/answers", output_path=str(output))
    names = [name.rpartition("/")[2] for name in bench.objects(f"{folder}/answers")]
    assert names == [f"predictions.jsonl-{n:05}-of-00003" for n in range(3)]
    assert sorted(row["key"] for row in rows_of(output.read_bytes())) == [f"k{n:02}" for n in range(30)]
    assert summary["counts"] == {"total": 30, "succeeded": 30, "failed": 0}


def test_carried_columns_of_objects_have_the_types_that_the_author_gives(bench: Bench, folder: str) -> None:
    request = {"contents": [{"role": "user", "parts": [{"text": "Row."}]}]}
    rows = [{"request": request, "id": "a", "size": 5, "day": "2026-01-01", "tags": ["x"], "name": 7}]
    bench.put(f"{folder}/in/types.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    output = bench.folder / "out.parquet"
    bench.go(
        gcs_uri=f"{folder}/in/types.jsonl",
        output_path=str(output),
        carry=["size", "day", "tags", "name"],
        carry_types={"size": "int", "day": "date", "tags": "json"},
    )
    (found,) = parquet.read_table(output).select(["key", "size", "day", "tags", "name"]).to_pylist()
    assert found == {"key": "a", "size": 5, "day": date(2026, 1, 1), "tags": '["x"]', "name": "7"}


def test_without_a_destination_answers_go_under_the_staging_path_and_leave_it_when_landed(
    bench: Bench, folder: str
) -> None:
    _, summary = bench.go(gcs_uri=f"{folder}/in/*")
    assert len(summary["responses"]) == 3
    (answers,) = bench.objects()
    assert "/output/prediction-model-" in answers
    bench.go(gcs_uri=f"{folder}/in/*", output_path=str(bench.folder / "out.jsonl"))
    assert bench.objects() == [answers]
    assert bench.objects(folder) == ["in/one.jsonl", "in/two.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gcs_uri": "gs://data/in/*", "destination": "gs://data/in/out"}, r"inside the input gs://data/in/\*"),
        ({"gcs_uri": "gs://stage/*.jsonl"}, "give another destination"),
        ({"inlined_requests": ["One."], "destination": "bq://p.d.t"}, "read back, which a table does not allow"),
        ({"inlined_requests": ["One."], "staging_path": "/tmp/here"}, "give staging_path"),  # noqa: S108
        ({"gcs_uri": "gs://data/x.jsonl", "generation_config": {"temperature": 0}}, "no effect on gcs_uri"),
        ({"gcs_uri": "gs://data/x.jsonl", "carry": ["a"], "carry_types": {"a": "text"}}, "unknown type 'text'"),
        ({"file_name": "files/abc"}, "cannot be read by Vertex AI"),
        ({"gcs_uri": "s3://data/x.jsonl"}, "expected 'gs://bucket/object'"),
        ({"inlined_requests": ["One."], "labels": {"Team": "a"}}, "label 'Team': a key is a letter"),
        ({"inlined_requests": ["One."], "labels": {"team": "A"}}, "label 'team': a value is up to 63"),
        ({"inlined_requests": ["One."], "labels": {"airflow-dag-id": "x"}}, "choose another name"),
        ({"inlined_requests": ["One."], "labels": {f"l{n}": "" for n in range(60)}}, "65 labels are too many"),
        ({"inlined_requests": ["One."], "priority": 1}, "priority: Vertex AI has none"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    bench: Bench, arguments: dict[str, Any], words: str
) -> None:
    result = bench.run(**arguments).attempt("batch")
    assert result.state == "failed"
    assert words.replace("\\", "") in result.message
    assert bench.jobs == []
    assert bench.objects() == []


def test_a_table_gives_table_and_counts(bench: Bench) -> None:
    bench.emulator.control.faults(bigquery_rows=7, row_error_every=5)
    _, summary = bench.go(bigquery_uri="bq://p.texts.inbox", destination="bq://p.texts.answers")
    assert summary["output"] == "bq://p.texts.answers"
    assert summary["counts"] == {"total": 7, "succeeded": 6, "failed": 1}
    assert summary["state"] == "SUCCEEDED"


def test_a_table_of_embeddings_is_landed_as_vectors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bench.emulator.url)
    texts = [{"content": f"Text {n}.", "title": f"t{n}"} for n in range(3)]
    bench.emulator.control.put_table("p.d.texts", {"content": "STRING", "title": "STRING"}, texts)
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(
        model=LEGACY,
        bigquery_uri="bq://p.d.texts",
        destination="bq://p.d.vectors",
        key_field="title",
        output_path=str(output),
    )
    rows = rows_of(output.read_bytes())
    assert sorted(row["key"] for row in rows) == ["t0", "t1", "t2"]
    assert {(row["status"], len(row["embedding"])) for row in rows} == {("ok", 768)}
    assert summary["usage"]["input_tokens"] == bench.emulator.control.bill()["tokens"]["input_text"]


def test_a_table_without_a_destination_gets_a_table_beside_it(bench: Bench) -> None:
    _, summary = bench.go(bigquery_uri="bq://p.texts.inbox")
    assert summary["output"].startswith("bq://p.texts.inbox_gb1_")
    _, summary = bench.go(bigquery_uri="bq://p.texts.inbox", destination="bq://p.texts")
    assert summary["output"].startswith("bq://p.texts.predictions_")
