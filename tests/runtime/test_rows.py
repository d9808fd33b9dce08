"""Rows through a task: what is sent again and what is not, what is kept for it, and what is told of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset
from dag_runs import Run
from pydantic import BaseModel

from airflow_provider_gemini_batch.api.errors import QuotaExceeded
from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.operators import (
    GeminiCreateBatchJobOperator,
    GeminiCreateEmbeddingsBatchJobOperator,
)
from airflow_provider_gemini_batch.staging.job_service import ClientJobService
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "gemini-2.5-flash"
TEXTS = [f"Text {number}." for number in range(1, 9)]
ONCE = {"times": 1}


# On Airflow 3.2 nobody knows who cancelled a job, and it is taken for the task's own doing.


def one(**arguments: Any) -> Run:
    with DAG("rows", schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="t",
            retry_delay=timedelta(hours=1),
            **{"model": MODEL, "poll_interval": 0.1, "lookup_timeout": 1.0, "inlined_requests": TEXTS, **arguments},
        )
    return Run(dag)


def sizes(service: Emulator) -> list[int]:
    """Rows of each job, oldest first."""
    return [job["rows"] for job in service.control.books()["jobs"]]


def calls(service: Emulator, operation: str) -> int:
    return int(service.control.books()["requests"].get(operation, 0))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def statuses(rows: list[dict[str, Any]]) -> list[str]:
    return [row["status"] for row in rows]


def columns_file(folder: Path, count: int = 8) -> str:
    path = folder / "in.csv"
    lines = [f"row-{number},{number},Text {number}." for number in range(1, count + 1)]
    path.write_text("\n".join(["name,size,body", *lines]) + "\n", encoding="utf-8")
    return str(path)


# What is sent again


@pytest.mark.parametrize(
    "fault",
    [
        {"truncated_every": {"value": 4, **ONCE}},
        {"missing_every": {"value": 4, **ONCE}},
        {"row_error_every": {"value": 4, **ONCE}, "row_error_code": 13},
        {"row_error_every": {"value": 4, **ONCE}, "row_error_code": 8, "row_error_message": None},
    ],
    ids=["truncated", "missing", "error 13", "error 8"],
)
def test_rows_that_failed_for_a_passing_reason_are_sent_again_and_take_their_places(
    fault: dict[str, Any], service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(shuffle=True, **fault)
    run = one(output_path=f"{tmp_path}/out.jsonl", repair_rounds=2, max_failed_rows=0)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(service) == [8, 2]
    rows = read_lines(tmp_path / "out.jsonl")
    assert [row["key"] for row in rows] == [str(number) for number in range(8)]
    assert [row["text"].partition("] ")[2] for row in rows] == TEXTS
    result = run.xcom("t")
    assert result["counts"] == {"total": 8, "succeeded": 8, "failed": 0}
    assert len(result["job_names"]) == len(outcome.deferrals) == 2


class Verdict(BaseModel):
    good: bool


@pytest.fixture
def stammering(_airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run a model that answers each request with no JSON at first, and as asked when it is asked again."""
    heard: set[str] = set()

    def answer(request: dict[str, Any], _key: str | None) -> str:
        text = request["contents"][0]["parts"][0]["text"]
        if text in heard or text.endswith(("1.", "2.")):
            return '{"good": true}'
        heard.add(text)
        return "Well, it depends."

    with Emulator(port=0, responder=answer, speed=60) as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", emulator.connection())
        yield emulator


def test_answers_that_do_not_fit_the_schema_are_asked_for_again(stammering: Emulator) -> None:
    run = one(output_schema=Verdict, repair_rounds=1)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(stammering) == [8, 6]
    assert [row["parsed"] for row in run.xcom("t")["responses"]] == [{"good": True}] * 8


def test_without_repair_an_answer_that_does_not_fit_keeps_its_text(stammering: Emulator) -> None:
    run = one(output_schema=Verdict)
    assert run.attempt("t").state == "success"
    assert sizes(stammering) == [8]
    result = run.xcom("t")
    assert result["counts"] == {"total": 8, "succeeded": 2, "failed": 6, "invalid_output": 6}
    bad = result["responses"][2]
    assert (bad["status"], bad["text"], bad["parsed"]) == ("invalid_output", "Well, it depends.", None)
    assert "schema" in bad["error"]["message"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"row_error_every": 4, "row_error_code": 3}, "error"),
        ({"row_error_every": 4, "row_error_code": 7}, "error"),
        ({"blocked_every": 4}, "blocked"),
    ],
    ids=["error 3", "error 7", "blocked"],
)
def test_rows_that_failed_for_good_are_not_sent_again(fault: dict[str, Any], status: str, service: Emulator) -> None:
    service.control.faults(**fault)
    run = one(repair_rounds=2)
    assert run.attempt("t").state == "success"
    assert sizes(service) == [8]
    assert statuses(run.xcom("t")["responses"]) == ["ok", "ok", "ok", status] * 2


def test_rows_that_fail_every_time_are_given_up_after_the_last_round(service: Emulator) -> None:
    service.control.faults(row_error_every=1, row_error_message="Try later.")
    run = one(repair_rounds=2, max_failure_rate=1)
    assert run.attempt("t").state == "success"
    assert sizes(service) == [8, 8, 8]
    rows = run.xcom("t")["responses"]
    assert [row["error"] for row in rows] == [{"code": 13, "message": "Try later."}] * 8


def test_rows_of_several_jobs_are_mended_together(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(row_error_every=2, row_error_rounds=r"-[0-9]\.0\.0-")
    run = one(max_rows_per_job=4, repair_rounds=1, max_failed_rows=0, output_path=f"{tmp_path}/out.jsonl")
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(service) == [4, 4, 4]
    assert [row["text"].partition("] ")[2] for row in read_lines(tmp_path / "out.jsonl")] == TEXTS


def test_more_rows_than_one_job_holds_are_mended_round_by_round(
    service: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    service.control.faults(row_error_every=1, row_error_rounds=r"-[0-9]\.0\.0-")
    run = one(max_rows_per_job=4, repair_rounds=2, max_failed_rows=0)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(service) == [4, 4, 4, 4]
    assert "One job holds 4 of the 8 rows" in caplog.text


# What a retry of Airflow sends


@pytest.mark.usefixtures("impatient")
def test_a_retry_sends_only_what_failed_too_often(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(row_error_every={"value": 4, **ONCE})
    run = one(retries=1, max_failed_rows=1, output_path=f"{tmp_path}/out.jsonl")
    first = run.attempt("t")
    assert first.state == "up_for_retry"
    assert "2 of 8 rows failed" in first.message
    assert statuses(read_lines(tmp_path / "out.jsonl")).count("ok") == 6
    second = run.attempt("t")
    assert second.state == "success", second.message
    assert sizes(service) == [8, 2]
    assert statuses(read_lines(tmp_path / "out.jsonl")) == ["ok"] * 8


@pytest.mark.usefixtures("impatient")
def test_rows_still_bad_after_all_rounds_are_judged_and_a_retry_takes_up_from_there(service: Emulator) -> None:
    service.control.faults(row_error_every={"value": 2, "times": 2})
    run = one(retries=1, max_failure_rate=0, repair_rounds=1)
    first = run.attempt("t")
    assert first.state == "up_for_retry", first.message
    assert sizes(service) == [8, 4]
    second = run.attempt("t")
    assert second.state == "success", second.message
    assert sizes(service) == [8, 4, 2]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("state", ["EXPIRED", "CANCELLED"])
def test_rows_that_a_stopped_job_finished_are_not_paid_for_again(state: str, service: Emulator) -> None:
    service.control.faults(hold_running=True)
    run = one(retries=1)
    first = run.attempt("t", dies_waiting=True)
    assert first.state == "deferred", first.message
    service.control.set_job(service.control.books()["jobs"][0]["name"], state=state, rows=6)
    service.control.clear_faults()
    second = run.attempt("t")
    if state == "CANCELLED" and HAS_STORE:
        # Somebody decided to cancel: a person has to say that it shall run all the same.
        assert second.state == "failed"
        run.clear("t")
        second = run.attempt("t")
    assert second.state == "success", second.message
    assert sizes(service) == [8, 2]
    result = run.xcom("t")
    assert [row["text"].partition("] ")[2] for row in result["responses"]] == TEXTS
    assert len(result["job_names"]) == 2


@pytest.mark.usefixtures("impatient")
def test_an_upload_whose_job_was_not_made_is_used_by_the_next_try(service: Emulator) -> None:
    texts = [f"Text {number}." for number in range(600)]
    service.control.faults(http={"operation": "create", "status": 429, "retry_after": 60})
    run = one(inlined_requests=texts, retries=1)
    first = run.attempt("t", dies_waiting=True)
    assert first.state == "deferred", first.message
    (left,) = service.control.books()["files"]
    service.control.clear_faults()
    second = run.attempt("t")
    assert second.state == "success", second.message
    (job,) = service.control.books()["jobs"]
    assert job["input"]["fileName"] == left["name"]
    assert calls(service, "upload_start") == 1
    assert service.control.books()["files"] == []


# Rows of a function


class Author:
    """A function that gives rows and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        self.asked += 1
        for number, text in enumerate(TEXTS, start=1):
            yield {"key": f"row-{number}", "text": text}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", ["staging", "output"])
def test_a_function_is_called_once_for_a_submission_and_its_rows_are_kept_until_delivery(
    place: str, service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(row_error_every={"value": 4, **ONCE}, hold_running=True)
    author = Author()
    places: dict[str, Any] = {"output_path": f"{tmp_path}/output/out.jsonl"}
    if place == "staging":
        places["staging_path"] = f"{tmp_path}/staging"
    run = one(
        inlined_requests=author,
        repair_rounds=1,
        max_failed_rows=0,
        retries=1,
        **places,
    )
    assert run.attempt("t", dies_waiting=True).state == "deferred"
    assert len(list((tmp_path / place).glob("*.rows*"))) == 1
    service.control.clear_faults()
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(service) == [8, 2]
    assert author.asked == 1
    assert [path.name for path in tmp_path.rglob("*.rows*")] == []
    assert [row["key"] for row in read_lines(tmp_path / "output" / "out.jsonl")] == [f"row-{n}" for n in range(1, 9)]


@pytest.mark.usefixtures("impatient")
def test_rows_that_version_0_1_kept_beside_an_output_are_found_after_the_upgrade(
    service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(row_error_every={"value": 4, **ONCE}, hold_running=True)
    author = Author()
    run = one(
        inlined_requests=author, repair_rounds=1, max_failed_rows=0, retries=1, output_path=f"{tmp_path}/out.jsonl"
    )
    assert run.attempt("t", dies_waiting=True).state == "deferred"
    (kept,) = tmp_path.glob("*.rows")
    kept.rename(tmp_path / f"{kept.name}.jsonl")
    service.control.clear_faults()
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(service) == [8, 2]
    assert author.asked == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_out.jsonl.manifest.json", "out.jsonl"]


@pytest.mark.parametrize("argument", [{"carry": ["key"]}, {"repair_rounds": 1}])
def test_what_needs_a_functions_rows_again_is_refused_without_a_place_for_them(
    argument: dict[str, Any], service: Emulator
) -> None:
    author = Author()
    outcome = one(inlined_requests=author, **argument).attempt("t")
    assert outcome.state == "failed"
    assert "give staging_path or output_path" in outcome.message
    assert (author.asked, service.control.books()["requests"]) == (0, {})


def test_a_function_without_a_place_for_its_rows_is_still_called_once(service: Emulator) -> None:
    author = Author()
    run = one(inlined_requests=author)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert (author.asked, sizes(service)) == (1, [8])
    assert [row["key"] for row in run.xcom("t")["responses"]] == [f"row-{number}" for number in range(1, 9)]


# Columns


def test_columns_are_carried_into_json_lines_also_beside_rows_without_an_answer(
    service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(shuffle=True, missing_every=4)
    run = one(
        inlined_requests=None,
        input_path=columns_file(tmp_path),
        output_path=f"{tmp_path}/out.jsonl",
        prompt_template="{body}",
        key_field="name",
        carry=["size", "name"],
    )
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    rows = read_lines(tmp_path / "out.jsonl")
    assert [(row["key"], row["size"], row["name"]) for row in rows] == [
        (f"row-{number}", str(number), f"row-{number}") for number in range(1, 9)
    ]
    assert statuses(rows) == ["ok", "ok", "ok", "missing"] * 2


def test_columns_are_carried_into_parquet_with_their_types(service: Emulator, tmp_path: Path) -> None:
    from pyarrow import parquet

    rows = [{"text": text, "name": f"row-{n}", "size": n, "more": {"n": n}} for n, text in enumerate(TEXTS)]
    with DAG("vectors", schedule=None) as dag:
        GeminiCreateEmbeddingsBatchJobOperator(
            task_id="t",
            model="gemini-embedding-001",
            inlined_requests=rows,
            key_field="name",
            carry=["size", "more", "text"],
            output_dimensionality=4,
            output_path=f"{tmp_path}/out.parquet",
            poll_interval=0.1,
        )
    outcome = Run(dag).attempt("t")
    assert outcome.state == "success", outcome.message
    table = parquet.read_table(tmp_path / "out.parquet")
    assert [str(field.type) for field in table.schema if field.name in {"size", "more", "key"}] == [
        "string",
        "int64",
        "string",
    ]
    found = table.to_pylist()
    assert [(row["key"], row["size"], json.loads(row["more"])) for row in found] == [
        (f"row-{n}", n, {"n": n}) for n in range(8)
    ]
    assert {len(row["embedding"]) for row in found} == {4}
    assert [row["text"] for row in found] == TEXTS
    assert sizes(service) == [8]


# Limits, prices, events


def test_a_batch_above_max_cost_usd_is_not_sent(service: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    outcome = one(max_cost_usd=1).attempt("t")
    assert outcome.state == "failed"
    assert "give generation_config with a maxOutputTokens; nothing was sent" in outcome.message
    bounded = {"generation_config": {"max_output_tokens": 100}}
    outcome = one(max_cost_usd=1e-9, **bounded).attempt("t")
    assert outcome.state == "failed"
    assert "above max_cost_usd=1e-09; nothing was sent" in outcome.message
    assert service.control.books()["requests"] == {}
    run = one(max_cost_usd=1, **bounded)
    assert run.attempt("t").state == "success"
    assert "USD (max_cost_usd=1)" in caplog.text
    cost = run.xcom("t")["cost"]
    assert 0 < cost["usd"] < 0.001


def test_the_events_of_the_tasks_outlets_say_what_was_made(service: Emulator, tmp_path: Path) -> None:
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    run = one(output_path=f"{tmp_path}/out.jsonl", outlets=[Asset(f"file://{tmp_path}/out.jsonl")])
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    extra = run.session.scalars(select(AssetEvent.extra).where(AssetEvent.source_run_id == run.dag_run.run_id)).one()
    result = run.xcom("t")
    names = ("job_name", "job_names", "counts", "usage", "output")
    assert {name: extra[name] for name in names} == {name: result[name] for name in names}
    assert not any(text in json.dumps(extra) for text in TEXTS)
    assert sizes(service) == [8]


# Several jobs at a time


def test_no_more_jobs_run_at_a_time_than_allowed_and_each_place_is_filled_as_it_frees(service: Emulator) -> None:
    seen: list[int] = []
    run = one(max_rows_per_job=1, max_active_jobs=3)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    seen += [
        len(deferral.kwargs["job_name"])
        for deferral in outcome.deferrals
        if isinstance(deferral.kwargs["job_name"], list)
    ]
    assert max(seen) == 3
    assert sizes(service) == [1] * 8
    assert [row["key"] for row in run.xcom("t")["responses"]] == [str(number) for number in range(8)]


def test_a_quota_that_is_used_up_between_two_jobs_is_waited_out(
    service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first job runs until the second was refused.
    service.control.faults(max_active=1)
    service.control.speed(0)
    create = ClientJobService.create

    def create_and_go_on(*arguments: Any) -> Any:
        try:
            return create(*arguments)
        except QuotaExceeded:
            service.control.speed(60)
            raise

    monkeypatch.setattr(ClientJobService, "create", create_and_go_on)
    run = one(max_rows_per_job=3)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert sizes(service) == [3, 3, 2]
    assert calls(service, "create") > 3
    assert [row["text"].partition("] ")[2] for row in run.xcom("t")["responses"]] == TEXTS
