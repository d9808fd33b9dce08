"""What a task hands on, and that none of it can fail what has been paid for."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.observability.stats import Stats
from task_context import StateStore, task_context

from airflow_provider_gemini_batch.operators import (
    GeminiCreateBatchJobOperator,
    GeminiGetBatchJobOperator,
    GeminiGetBatchResponsesOperator,
)
from airflow_provider_gemini_batch.runtime import create_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

ASSET = Asset(name="answers", uri="s3://bucket/answers")
ALIAS = AssetAlias("any-answers")


class Dataset:
    """Stands for OpenLineage's, which is not an asset."""

    namespace = "s3"
    name = "answers"


def context(store: StateStore | None = None, **more: Any) -> Any:
    return {**task_context(store), "outlet_events": OutletEventAccessors(), **more}


def operator(**arguments: Any) -> GeminiCreateBatchJobOperator:
    with DAG("d", schedule=None):
        given = {"model": "gemini-2.5-flash", "inlined_requests": ["x"], **arguments}
        return GeminiCreateBatchJobOperator(task_id="t", **given)


def through(emulator: Emulator, task: GeminiCreateBatchJobOperator, make: Callable[[], Any]) -> tuple[Any, Any]:
    """Run a task over its wait, in a context of its own on each side; return its result and the last context."""
    with pytest.raises(TaskDeferred) as deferred, task.task_run(make()) as run:
        run.begin()
    emulator.control.advance(3600)
    last = make()
    with task.task_run(last) as run:
        return run.resume(None, (deferred.value.kwargs or {})["memo"]), last


def test_responses_that_no_row_takes_are_told_with_their_place(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    emulator.control.faults(extra_rows=1, duplicate_every=1)
    through(emulator, operator(output_path=f"{tmp_path}/out.jsonl"), context)
    aside = tmp_path / "_out.jsonl.aside.jsonl"
    assert f"belong to no row (1), or to one that has another (1), are in {aside}." in caplog.text
    assert len(aside.read_text().splitlines()) == 2
    through(emulator, operator(), context)
    assert "belong to no row (1), or to one that has another (1), are left out." in caplog.text


def test_rows_that_go_neither_into_xcom_nor_to_a_path_are_not_lost_without_a_word(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    through(emulator, operator(do_xcom_push=False), context)
    assert "The result rows do not go into XCom (do_xcom_push=False) and there is no output_path" in caplog.text


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a listener that fails")


def test_what_others_are_told_cannot_fail_a_paid_task(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = operator(outlets=[Dataset(), ASSET])
    monkeypatch.setattr(Stats, "incr", fail)
    monkeypatch.setattr(create_task, "lineage_of", fail)
    monkeypatch.setattr("airflow_provider_gemini_batch.runtime.summary.cost_of", fail)
    with caplog.at_level(logging.DEBUG):
        summary, last = through(emulator, task, context)
    assert summary["counts"]["succeeded"] == 1
    assert last["outlet_events"][ASSET].extra["job_name"] == summary["job_name"]
    told = [record for record in caplog.records if "Could not report" in record.getMessage()]
    assert {record.levelno for record in told} == {logging.DEBUG}
    assert {"an asset", "metrics", "lineage", "the cost"} <= {
        record.getMessage().split("report ")[1].split(":")[0] for record in told
    }


def test_a_job_name_that_cannot_be_pushed_costs_no_job(emulator: Emulator) -> None:
    broken = context()
    broken["ti"].xcom_push = fail
    with pytest.raises(TaskDeferred), operator().task_run(broken) as run:
        run.begin()
    assert len(emulator.control.books()["jobs"]) == 1


@pytest.mark.usefixtures("emulator")
def test_assets_are_told_of_a_job_that_is_only_submitted() -> None:
    now = context()
    with operator(wait_for_completion=False, outlets=[ASSET]).task_run(now) as run:
        summary = run.begin()
    assert now["outlet_events"][ASSET].extra["job_name"] == summary["job_name"]
    assert now["outlet_events"][ASSET].extra["job_names"] == summary["job_names"]


def test_assets_are_told_of_responses_that_a_later_task_reads(emulator: Emulator, tmp_path: Path) -> None:
    with operator(wait_for_completion=False).task_run(context()) as run:
        name = run.begin()["job_name"]
    emulator.control.advance(3600)
    now, path = context(), f"{tmp_path}/out.jsonl"
    read = GeminiGetBatchResponsesOperator(task_id="read", job_name=name, output_path=path, outlets=[ASSET])
    summary = read.execute(now)
    extra = now["outlet_events"][ASSET].extra
    assert (extra["job_name"], extra["output"], extra["counts"]) == (name, path, summary["counts"])


@pytest.mark.parametrize("kept_by", ["store", "XCom"])
def test_what_a_function_leaves_in_the_context_is_there_after_the_wait(
    kept_by: str, emulator: Emulator, tmp_path: Path
) -> None:
    current: list[Any] = []
    pushed: dict[str, Any] = {}
    store = StateStore() if kept_by == "store" else None

    def make() -> Any:
        made = context(store, map_index_template="{{ customer }}")
        made["ti"].xcom_push = lambda *, key, value: pushed.__setitem__(key, value)
        made["ti"].xcom_pull = lambda *, key, **_: pushed.get(key)
        current.append(made)
        return made

    def rows() -> Iterator[str]:
        current[-1]["customer"] = "ACME"
        current[-1]["a_client"] = object()  # nothing that could be kept
        current[-1]["outlet_events"][ASSET].extra = {"customers": 3}
        current[-1]["outlet_events"][ALIAS].add(Asset(name="part", uri="s3://bucket/part"), extra={"rows": 1})
        if hasattr(current[-1]["outlet_events"][ASSET], "add_partitions"):  # Airflow 3.3
            current[-1]["outlet_events"][ASSET].add_partitions(["us", "eu"])
        yield "x"

    task = operator(inlined_requests=rows, output_path=f"{tmp_path}/out.jsonl", outlets=[ASSET, ALIAS])
    summary, last = through(emulator, task, make)
    assert last["customer"] == "ACME"
    assert "a_client" not in last
    extra = last["outlet_events"][ASSET].extra
    assert (extra["customers"], extra["job_name"]) == (3, summary["job_name"])
    assert getattr(last["outlet_events"][ASSET], "partition_keys", {"eu", "us"}) == {"eu", "us"}
    (event,) = last["outlet_events"][ALIAS].asset_alias_events
    assert (event.dest_asset_key.uri, event.extra) == ("s3://bucket/part", {"rows": 1})


def test_a_label_whose_names_are_lost_is_empty_and_fails_nothing(emulator: Emulator) -> None:
    _, last = through(emulator, operator(), lambda: context(map_index_template="{{ customer }} {{ ti.map_index }}"))
    assert last["customer"] == ""


def nothing() -> list[str]:
    return []


EMPTY: list[Any] = [[], nothing, lambda: iter(())]


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("rows", EMPTY)
def test_input_without_rows_fails_unless_the_author_says_otherwise(rows: Any, tmp_path: Path) -> None:
    output = {"output_path": f"{tmp_path}/out.jsonl"}
    failed = pytest.raises(AirflowFailException, match="on_empty to 'skip' or 'succeed'")
    with failed, operator(inlined_requests=rows, **output).task_run(context()) as run:
        run.begin()
    skipped = pytest.raises(AirflowSkipException, match="no rows")
    with skipped, operator(inlined_requests=rows, on_empty="skip", **output).task_run(context()) as run:
        run.begin()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("rows", EMPTY)
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", None])
def test_input_without_rows_can_succeed_with_an_output_that_holds_none(
    rows: Any, name: str | None, emulator: Emulator, tmp_path: Path
) -> None:
    output = {} if name is None else {"output_path": f"{tmp_path}/{name}"}
    now = context()
    with operator(inlined_requests=rows, on_empty="succeed", outlets=[ASSET], **output).task_run(now) as run:
        summary = run.begin()
    assert (summary["state"], summary["job_names"], summary["counts"]["total"]) == ("EMPTY", [], 0)
    assert now["outlet_events"][ASSET].extra["job_names"] == []
    assert not emulator.control.books()["jobs"]
    json.dumps(summary)
    if name == "out.jsonl":
        assert (tmp_path / name).read_bytes() == b""
    if name is None:
        assert summary["responses"] == []


@pytest.mark.usefixtures("emulator")
def test_a_file_without_rows_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    given = {"inlined_requests": None, "input_path": f"{tmp_path}/in.csv"}
    with pytest.raises(AirflowSkipException), operator(on_empty="skip", **given).task_run(context()) as run:
        run.begin()


def begun(conn_id: str) -> None:
    with operator(gemini_conn_id=conn_id).task_run(context()) as run:
        run.begin()


def asked(conn_id: str) -> None:
    GeminiGetBatchJobOperator(task_id="g", job_name="batches/a", gemini_conn_id=conn_id).execute(context())


@pytest.mark.parametrize("act", [begun, asked])
def test_a_refused_key_is_an_error_that_names_the_connection_and_the_field(
    act: Callable[[str], None], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_GEMINI", emulator.connection(password="bad-key"))
    with pytest.raises(AirflowFailException) as refused:
        act("my_gemini")
    said = str(refused.value)
    assert "Connection 'my_gemini': The API key was refused; paste a valid one into the field API key." in said
    assert "bad-key" not in said


def test_a_source_that_another_task_left_empty_is_told_in_words_that_fit() -> None:
    task = operator(inlined_requests="{{ rows }}")
    task.inlined_requests = None
    with pytest.raises(AirflowFailException, match="the source is None: the task or template"):
        task.task_run(context())
