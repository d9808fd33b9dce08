"""Datasets: parts that keep their identity, an output that other engines read, and nothing bought twice."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Asset, Param
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from datasets.board import CARRY, MODEL, Board, write_part
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet
from task_context import task_context

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.datasets import GeminiBatchDataset, GeminiCommitPartsOperator
from airflow_provider_gemini_batch.runtime.arguments import CommitArguments, PlanArguments, argument_names

PARTS = 16


def test_sixteen_parts_are_one_dataset_that_other_engines_read(board: Board) -> None:
    for number in range(PARTS):
        write_part(board.source / f"file-{number:02d}.parquet", 500, notes=number != 3)
    parts = board.plan()
    assert len(parts) == PARTS
    assert board.run_all(parts) == [None] * PARTS
    board.end_all()
    assert all(done is not None and done["counts"]["succeeded"] == 500 for done in board.run_all(parts))
    assert not (board.target / "_SUCCESS").exists()
    totals = board.commit(parts)
    assert totals["counts"] == {"total": 8000, "succeeded": 8000, "failed": 0}
    assert totals["parts"] == PARTS
    assert totals["usage"]["input_tokens"] > 0
    found = arrow_dataset.dataset(board.target)
    assert found.count_rows() == 8000
    types = {name: str(found.schema.field(name).type) for name in CARRY}
    assert types == {"id": "string", "day": "date32[day]", "price": "decimal128(8, 2)", "note": "string"}
    schemas = {parquet.read_schema(path).remove_metadata() for path in board.target.glob("*.parquet")}
    assert len(schemas) == 1
    rows = {row["id"]: row for row in found.to_table().to_pylist()}
    assert (rows["file-05-7"]["day"], rows["file-05-7"]["price"]) == (date(2026, 1, 8), Decimal("1.75"))
    assert rows["file-03-7"]["note"] is None
    assert "Text 7 of file-05." in rows["file-05-7"]["text"]
    assert sorted(path.name for path in board.target.iterdir() if not path.name.startswith("part-")) == [
        "_SUCCESS",
        "_gemini_batch",
    ]


def test_the_same_is_read_by_duckdb(board: Board) -> None:
    duckdb = pytest.importorskip("duckdb")
    for number in range(3):
        write_part(board.source / f"file-{number:02d}.parquet", 5, notes=number != 1)
    parts = board.plan()
    board.run_all(parts)
    board.end_all()
    board.run_all(parts)
    board.commit(parts)
    query = "SELECT count(*), sum(price), max(day), count(note) FROM read_parquet(?)"
    assert duckdb.execute(query, [f"{board.target}/*.parquet"]).fetchone() == (
        15,
        Decimal("7.50"),
        date(2026, 1, 5),
        10,
    )


def test_a_late_file_that_sorts_first_costs_one_job_and_cancels_none(board: Board) -> None:
    for number in range(PARTS):
        write_part(board.source / f"file-{number:02d}.parquet", 3)
    board.run_all(board.plan())
    assert len(board.states()) == PARTS
    write_part(board.source / "a-late-one.parquet", 3)
    board.clear()
    parts = board.plan()
    assert len(parts) == PARTS + 1
    assert board.run_all(parts) == [None] * (PARTS + 1)
    board.end_all()
    done = board.run_all(parts)
    assert all(one is not None and one["counts"]["succeeded"] == 3 for one in done)
    assert len(board.states()) == PARTS + 1
    assert not any("CANCEL" in state for state in board.states())
    assert board.commit(parts)["counts"]["total"] == 3 * (PARTS + 1)


def test_a_second_run_buys_nothing_and_a_changed_part_that_part_alone(board: Board) -> None:
    for number in range(4):
        write_part(board.source / f"file-{number:02d}.parquet", 3)
    parts = board.plan()
    board.run_all(parts)
    board.end_all()
    board.run_all(parts)
    before = board.commit(parts)
    second = board.again("second")
    parts = second.plan()
    assert all(done is not None and done["state"] == "WHOLE" for done in second.run_all(parts))
    assert second.commit(parts) == before
    assert len(board.states()) == 4
    write_part(board.source / "file-02.parquet", 3, text="Another text")
    third = board.again("third")
    parts = third.plan()
    assert [done is None for done in third.run_all(parts)] == [False, False, True, False]
    third.end_all()
    assert third.run_part(2, parts[2]) is not None
    assert third.commit(parts)["counts"]["total"] == 12
    assert len(board.states()) == 5
    texts = arrow_dataset.dataset(board.target).to_table(columns=["text"]).column("text").to_pylist()
    assert sum("Another text" in text for text in texts) == 3


def test_parts_that_the_plan_no_longer_has_go_and_others_files_stay(board: Board) -> None:
    for number in range(2):
        write_part(board.source / f"file-{number:02d}.parquet", 3)
    parts = board.plan()
    board.run_all(parts)
    board.end_all()
    board.run_all(parts)
    board.commit(parts)
    write_part(board.target / "part-of-somebody-else.parquet", 1)
    (board.source / "file-00.parquet").unlink()
    left = board.plan()
    assert board.commit(left)["counts"]["total"] == 3
    assert sorted(path.name for path in board.target.glob("*.parquet")) == [
        f"part-{left[0]['part_key']}.parquet",
        "part-of-somebody-else.parquet",
    ]
    assert sorted(path.name for path in (board.target / "_gemini_batch").iterdir()) == [
        "dataset.json",
        f"part-{left[0]['part_key']}.json",
    ]


@pytest.mark.parametrize("dies", [False, True], ids=["whole", "killed before its manifest"])
def test_a_dataset_leaves_the_parts_of_another_in_its_folder_alone(
    board: Board, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, dies: bool
) -> None:
    write_part(board.source / "x.parquet", 3)
    board.run_whole()
    if dies:
        (manifest,) = (board.target / "_gemini_batch").glob("part-*.json")
        manifest.write_text(json.dumps({"version": 1, "whole": False, "part": "p", "writer": "d.part"}))
    other = replace(board, source=tmp_path / "other", instances={}, task_id="other.part")
    write_part(other.source / "y.parquet", 2)
    assert other.run_whole()["counts"]["total"] == 2
    assert "is of another dataset (d.part), which should have a folder of its own" in caplog.text
    assert arrow_dataset.dataset(board.target).count_rows() == 5


def test_a_dataset_with_a_part_missing_or_too_many_failed_rows_is_not_whole(board: Board) -> None:
    for number in range(2):
        write_part(board.source / f"file-{number:02d}.parquet", 4)
    board.service.control.faults(blocked_every=4)
    parts = board.plan()
    board.run_all(parts)
    board.end_all()
    board.run_part(0, parts[0])
    with pytest.raises(AirflowFailException, match="1 of 2 parts are not whole"):
        board.commit(parts)
    board.run_part(1, parts[1])
    with pytest.raises(AirflowFailException, match=r"2 of 8 rows"):
        board.commit(parts, max_failed_rows="1")  # as a template renders it
    with pytest.raises(AirflowFailException, match=r"2 of 8 rows"):
        board.commit(parts, max_failure_rate="0.2")
    assert not (board.target / "_SUCCESS").exists()
    assert board.commit(parts, max_failed_rows=2)["counts"]["failed"] == 2
    assert (board.target / "_SUCCESS").exists()


# The plan


def test_parquet_is_cut_between_row_groups_and_what_is_appended_changes_no_earlier_part(board: Board) -> None:
    rows = [{"text": str(number)} for number in range(10)]
    board.arguments = {"key_field": None}
    board.source.mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), board.source / "x.parquet", row_group_size=2)
    parts = board.plan(rows_per_part=5, carry=[])
    assert [part["input_path"][0].rpartition("#")[2].partition(",")[0] for part in parts] == [
        "row_groups=0-1",
        "row_groups=2-3",
        "row_groups=4-4",
    ]
    parquet.write_table(pa.Table.from_pylist(rows * 2), board.source / "x.parquet", row_group_size=2)
    longer = board.plan(rows_per_part=5, carry=[])
    assert longer[:2] == parts[:2]
    assert len(longer) == 5
    assert [len(board.plan(carry=[], bytes_per_part=size)) for size in (1, 10**9)] == [10, 1]


def test_json_lines_say_no_types_so_that_the_author_has_to(board: Board) -> None:
    board.source.mkdir()
    for number in range(2):
        (board.source / f"{number}.jsonl").write_text(json.dumps({"text": "a", "size": number or None}) + "\n")
    with pytest.raises(AirflowFailException, match="give carry_types for size"):
        board.plan(carry="size")
    parts = board.plan(carry="size", carry_types={"size": "int"})
    assert [part["carry_types"] for part in parts] == [{"size": "int"}] * 2
    with pytest.raises(AirflowFailException, match="unknown type 'whole'"):
        board.plan(carry="size", carry_types={"size": "whole"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"carry": ["none"]}, "carry: there is no column none"),
        ({"input_path": "{}/none/"}, "cannot list"),
        (
            {"max_cost_usd": 1e-12, "part_arguments": {"generation_config": {"maxOutputTokens": 10}}},
            "above max_cost_usd",
        ),
        ({"input_path": []}, "the input has no files"),
        ({"output_path": "{}/out/"}, "output_path: input_path also reads it"),
        ({"carry": ["id", "id"]}, "carry names a column twice"),
        ({"carry": ["status"]}, "carry cannot take status"),
        ({"carry": ["Text"]}, "carry cannot take text"),
        ({"carry": ["id", "ID"]}, "carry names a column twice"),
        ({"carry_types": {"pirce": "int"}}, "carry_types: pirce is not in carry"),
        ({"carry_types": {"price": "integer"}}, "carry_types: unknown type 'integer'"),
        ({"input_path": "{}/**/*.parquet", "output_path": "{}/day=1/"}, "output_path: input_path also reads it"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_work_is_refused_before_anything_is_sent(
    given: dict[str, Any], words: str, board: Board
) -> None:
    write_part(board.source / "x.parquet", 3)
    filled = {name: value.format(board.source) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(AirflowFailException, match=words):
        board.plan(**filled)
    assert board.service.control.books()["requests"] == {}


GOOD = "id,text,n\n1,One.,1\n"


@pytest.mark.parametrize(
    ("bad", "given", "words"),
    [
        ("id,text\n2,Two.\n", {}, "carry: there is no column 'n'"),
        ("id,txt,n\n2,Two.,2\n", {}, "prompt_template: there is no column 'text'"),
        ("text,n\nTwo.,2\n", {}, "key_field: there is no column 'id'"),
        ("id;text,n\n2;Two.,2\n", {}, "the columns may be separated by"),
        ("id,text,n\n2,Caf\xe9,2\n", {}, "not UTF-8; if a spreadsheet has written it, give encoding='cp1252'"),
        ("id,n\n1,1\n", {"prompt_template": None}, "say with prompt_template"),
        (GOOD, {"prompt_template": "{}"}, "names no column"),
        (GOOD, {"embeddings": True, "part_arguments": {"title_field": "title"}}, "title_field: there is no column"),
        (GOOD, {"part_arguments": {"media_field": "file"}}, "media_field: there is no column 'file'"),
        (GOOD, {"part_arguments": {"generation_config": {"temperatur": 1}}}, "temperatur"),
    ],
    ids=str,
)
def test_a_file_that_its_part_would_refuse_is_refused_by_the_plan(
    bad: str, given: dict[str, Any], words: str, board: Board
) -> None:
    board.source.mkdir()
    (board.source / "a.csv").write_text(GOOD)
    (board.source / "b.csv").write_bytes(bad.encode("latin-1"))
    with pytest.raises(AirflowFailException, match=words) as refused:
        board.plan(**{"carry": ["n"], **given})
    assert bad == GOOD or f"{board.source}/b.csv: " in str(refused.value)
    assert board.service.control.books()["requests"] == {}


def test_a_parquet_file_without_a_column_of_the_template_is_refused_by_the_plan(board: Board) -> None:
    board.arguments = {"prompt_template": "{words}"}
    board.source.mkdir()
    for name, columns in (("a", ["id", "words"]), ("b", ["id", "body"])):
        parquet.write_table(pa.table({column: ["x"] for column in columns}), board.source / f"{name}.parquet")
    with pytest.raises(AirflowFailException, match=r"b\.parquet: prompt_template: there is no column 'words'"):
        board.plan(carry=[])
    with pytest.raises(AirflowFailException, match=r"b\.parquet: key_field: there is no column 'words'"):
        board.plan(carry=["words"], part_arguments={"key_field": "words"})
    assert len(board.plan(carry=["words"])) == 2  # null in one of them


@pytest.mark.parametrize("argument", ["staging_path", "media_path", "destination", "connection"])
def test_a_folder_of_the_parts_that_the_input_also_reads_is_refused_by_the_plan(
    argument: str, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(board.source / "x.parquet", 3)
    folder = f"{board.source}/kept"
    if argument == "connection":
        connection = board.service.connection(staging_path=folder)
        monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", connection)
    of_parts = {} if argument == "connection" else {argument: folder}
    words = f"input_path also reads what is written to {folder}"
    with pytest.raises(AirflowFailException, match=words):
        board.plan(part_arguments=of_parts, input_path=[f"{board.source}/", "gs://bucket/in/"])


@pytest.mark.parametrize(
    ("of_parts", "words"),
    [
        ({"request_defaults": {"tools": [{"googleSearch": {}}]}}, "cannot be checked: searches are billed"),
        ({"request_defaults": {"cachedContent": "cachedContents/a"}}, "the size of cachedContent is not known"),
        ({"media_field": "note"}, "the size or length of 3 files is not known"),
        ({"generation_config": {"maxOutputTokens": 9, "candidateCount": 8}}, r"above max_cost_usd=0\.0002"),
        ({"generation_config": {}}, "which nothing bounds"),
    ],
    ids=str,
)
def test_a_budget_knows_all_that_the_parts_are_billed_for(of_parts: dict[str, Any], words: str, board: Board) -> None:
    write_part(board.source / "x.parquet", 3)
    bounded = {"generation_config": {"maxOutputTokens": 9}}
    assert board.plan(max_cost_usd=0.0002, part_arguments=bounded)
    with pytest.raises(AirflowFailException, match=words):
        board.plan(max_cost_usd=0.0002, part_arguments={**bounded, **of_parts})


def test_more_parts_than_airflow_maps_are_refused(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    for number in range(3):
        write_part(board.source / f"{number}.parquet", 1)
    with pytest.raises(AirflowFailException, match=r"3 parts, and \[core\] max_map_length is 2: raise rows_per_part"):
        board.plan()


# The group


def test_the_group_is_three_tasks_and_its_budget_and_limits_are_those_of_the_whole() -> None:
    with DAG("d", schedule=None) as dag:
        group = GeminiBatchDataset(
            group_id="g",
            model=MODEL,
            input_path="/in/",
            output_path="/out/",
            max_cost_usd=3,
            max_failed_rows=7,
            carry="id",
            prompt_template="{text}",
            key_field="id",
            repair_rounds=1,
            outlets=[Asset("made")],
        )
    assert sorted(dag.task_dict) == ["g.commit", "g.part", "g.plan"]
    assert (group.plan.max_cost_usd, group.plan.output_path) == (3, "/out/")
    assert group.commit.max_failed_rows == 7
    assert "max_cost_usd" not in group.part.partial_kwargs
    assert group.part.partial_kwargs["repair_rounds"] == 1
    assert (group.plan.prompt_template, group.plan.part_arguments) == ("{text}", {"key_field": "id"})
    assert group.commit.outlets == [Asset("made")]
    assert group.commit.upstream_task_ids == {"g.plan", "g.part"}


def test_the_arguments_of_a_task_group_are_the_groups_own() -> None:
    with DAG("d", schedule=None) as dag:
        GeminiBatchDataset(
            group_id="g",
            model=MODEL,
            input_path="/in/",
            output_path="/out/",
            tooltip="Summaries",
            default_args={"retries": 3},
            prefix_group_id=False,
        )
    assert {name: task.retries for name, task in dag.task_dict.items()} == {"plan": 3, "part": 3, "commit": 3}


def test_connections_of_the_dag_are_those_of_a_group_that_names_none() -> None:
    shared = {"gemini_conn_id": "vertex", "output_conn_id": "my_aws"}
    with DAG("d", schedule=None, default_args=shared) as dag:
        group = GeminiBatchDataset(group_id="g", model=MODEL, input_path="/in/", output_path="s3://bucket/out/")
    assert list(dag.task_dict) == ["g.plan", "g.part", "g.commit"]
    part = group.part.unmap({"part_key": "a", "input_path": ["/in/a.csv"]})
    for task in (group.plan, part, group.commit):
        assert {name: getattr(task, name) for name in shared} == shared


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"output_path": "/out"}, "give it as a text with a slash at its end"),
        ({"wait_for_completion": False}, "a dataset waits for its parts"),
        ({"dry_run": True}, "a dataset waits for its parts"),
        ({"rows_per_part": 0}, "must be at least 1"),
        ({"bytes_per_part": 0}, "must be at least 1"),
        ({"output_path": Path("/out")}, r"'g.plan' \(test_parts.py, line \d+\): output_path of a dataset is a folder"),
        ({"output_path": None}, "output_path is empty"),
        ({"input_path": None}, "input_path is empty"),
        ({"input_path": ["/in/a.csv", ""]}, "input_path is empty"),
        pytest.param({"rows_per_part": Param(3)}, "rows_per_part must be a whole number, not Param", id="a Param"),
        ({"carry": {"id"}}, "carry must be a list of column names, not set"),
        ({"max_failure_rate": 5}, "max_failure_rate must be between 0 and 1"),
        ({"on_empty": "panic"}, "on_empty must be 'fail' or 'skip' or 'succeed', not 'panic'"),
        ({"wait_for_completion": "False"}, "a dataset waits for its parts"),
        ({"dry_run": "{{ params.dry }}"}, "a dataset waits for its parts"),
        ({"poll_interval": "often"}, r"GeminiBatchDataset 'g' \(test_parts.py, line \d+\): poll_interval must be"),
        ({"part_key": "a"}, "leave part_key out"),
        ({"file_name": "files/a"}, "leave file_name out"),
        ({"embeddings": "{{ params.embed }}"}, "embeddings must be True or False"),
    ],
    ids=str,
)
def test_a_group_that_cannot_work_is_refused_when_the_dag_is_parsed(wrong: dict[str, Any], words: str) -> None:
    given = {"model": MODEL, "input_path": "/in/", "output_path": "/out/", **wrong}
    with DAG("d", schedule=None), pytest.raises(ConfigurationError, match=words):
        GeminiBatchDataset(group_id="g", **given)


def test_a_group_takes_templates_and_what_other_tasks_return_in_any_argument() -> None:
    with DAG("d", schedule=None) as dag:
        given: Any = PythonOperator(task_id="given", python_callable=list).output
        texts: Any = {"rows_per_part": "{{ params.rows }}", "max_failed_rows": "{{ params.most }}"}
        group = GeminiBatchDataset(
            group_id="g",
            model="{{ params.model }}",
            input_path=given,
            output_path=given,
            carry=given,
            max_cost_usd=given,
            map_index_template="{{ ti.map_index }}",
            **texts,
        )
    assert DagSerialization.to_dict(dag)
    for task, form in ((group.plan, PlanArguments), (group.commit, CommitArguments)):
        assert set(task.template_fields) == set(argument_names(form)) - {"prompt_template", "output_schema"}
        assert "given" in task.upstream_task_ids


def test_the_plan_takes_templates_of_the_parts() -> None:
    with DAG("d", schedule=None):
        given: Any = PythonOperator(task_id="given", python_callable=list).output
        group = GeminiBatchDataset(
            group_id="g",
            model=MODEL,
            input_path="/in/",
            output_path="/out/",
            prompt_template="{text} {{ task.part_key }}",
            media_path="/media/{{ task.part_key }}",
            poll_interval=5,
        )
        other = GeminiBatchDataset(
            group_id="h", model=MODEL, input_path="/in/", output_path="/out/", system_instruction=given
        )
    group.plan.render_template_fields({"task": group.plan})
    assert group.plan.part_arguments == {"media_path": "/media/"}
    assert group.plan.prompt_template == "{text} {{ task.part_key }}"
    assert other.plan.upstream_task_ids == {"given"}


@pytest.mark.parametrize("parts", [None, "", "a", ["a"], [{}], {"part_key": "a"}, [{"part_key": None}]], ids=str)
def test_parts_that_no_plan_returned_are_refused_in_words(parts: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"parts (must be what the plan returns|is empty)"):
        GeminiCommitPartsOperator(task_id="commit", parts=parts, output_path="/out/")


def test_the_event_of_the_dataset_has_the_sums_and_the_runs_partition(board: Board) -> None:
    write_part(board.source / "x.parquet", 2)
    parts = board.plan()
    board.run_all(parts)
    board.end_all()
    board.run_all(parts)
    made = Asset("made")
    event = SimpleNamespace(extra={}, keys=[])
    event.add_partitions = event.keys.append
    task = GeminiCommitPartsOperator(
        task_id="commit", parts=parts, output_path=f"{board.target}/", model=MODEL, outlets=[made]
    )
    context: Any = {**task_context(), "outlet_events": {made: event}}
    context["dag_run"] = SimpleNamespace(partition_key="2026-01-01")
    totals = task.execute(context)
    assert event.extra == totals
    assert event.keys == ["2026-01-01"]


def test_files_and_row_groups_without_rows_are_not_parts(board: Board) -> None:
    write_part(board.source / "b.parquet", 3)
    table = parquet.read_table(board.source / "b.parquet")
    parquet.write_table(table.slice(0, 0), board.source / "a.parquet")
    with parquet.ParquetWriter(board.source / "c.parquet", table.schema) as writer:
        for piece in (table.slice(0, 0), table, table.slice(0, 0)):
            writer.write_table(piece)
    assert len(board.plan(rows_per_part=1)) == 2
    (board.source / "d.parquet").write_bytes(b"")
    assert board.run_whole()["counts"] == {"total": 6, "succeeded": 6, "failed": 0}
    assert len(board.states()) == 2


def test_a_group_with_limits_leaves_it_to_the_commit_whether_too_many_rows_failed() -> None:
    for limits, rate in (({}, None), ({"max_failed_rows": 5}, 1.0), ({"max_failure_rate": 0.1}, 1.0)):
        with DAG("d", schedule=None):
            group = GeminiBatchDataset(group_id="g", model=MODEL, input_path="/in/", output_path="/out/", **limits)
        assert group.part.partial_kwargs["max_failure_rate"] == rate


def test_a_dataset_may_lie_on_an_object_store(board: Board, bucket: Any, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet", "_c.parquet"):
        write_part(tmp_path / "local" / name, 3)
    bucket.put(f"{tmp_path}/local", "/bucket/in/day=2026-01-01", recursive=True)
    remote: Any = Board(board.service, "memory://bucket/in", "memory://bucket/out")  # type: ignore[arg-type]
    totals = remote.run_whole()
    assert totals["counts"] == {"total": 6, "succeeded": 6, "failed": 0}
    first, second = remote.plan()
    assert first["input_path"] == ["memory://bucket/in/day=2026-01-01/a.parquet"]
    found = arrow_dataset.dataset("/bucket/out", filesystem=bucket, format="parquet").to_table()
    assert min(found.column("id").to_pylist()) == "a-0"
    bucket.rm("/bucket/in/day=2026-01-01/b.parquet")
    again = remote.again("again")
    assert again.run_whole()["counts"]["total"] == 3
    names = {name.rpartition("/")[2] for name in bucket.find("/bucket/out")}
    assert f"part-{second['part_key']}.parquet" not in names
    assert {"_SUCCESS", "dataset.json", f"part-{first['part_key']}.parquet"} < names
    assert len(board.states()) == 2
