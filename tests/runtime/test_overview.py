"""What a task tells the page of its batch, in Airflow's own task runner."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.xcom import BaseXCom
from dag_runs import Run
from runtime.tasks import needs_notes

from airflow_provider_gemini_batch.batch.overview import (
    OVERVIEW_KEY,
    Overview,
    read_overview,
    read_progress,
)
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

pytestmark = pytest.mark.slow
ROWS = ["One.", "Two.", "Three.", "Four."]


def one(**arguments: Any) -> Run:
    values = {"model": "models/gemini-2.5-flash", "inlined_requests": ROWS, "poll_interval": 0.1, **arguments}
    with DAG("seen", schedule=None) as dag:
        GeminiCreateBatchJobOperator(task_id="t", retry_delay=timedelta(hours=1), **values)
    return Run(dag)


def seen(run: Run) -> Overview:
    overview = read_overview(run.xcom("t", OVERVIEW_KEY))
    assert overview is not None
    return overview


def texts(overview: Overview) -> list[str]:
    names = {job.name: f"JOB{number}" for number, job in enumerate(overview.jobs)}
    found = [event.text for event in overview.events]
    for name, short in names.items():
        found = [text.replace(name, short) for text in found]
    return found


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_batch_that_went_well_tells_its_whole_story(service: Emulator, tmp_path: Path, *, deferrable: bool) -> None:
    run = one(output_path=f"{tmp_path}/out.jsonl", deferrable=deferrable)
    assert run.attempt("t").state == "success"
    overview = seen(run)
    assert texts(overview)[:2] == ["Read 4 rows.", "Submitted JOB0."]
    assert texts(overview)[-1] == f"Landed 4 rows to {tmp_path}/out.jsonl: 4 ok, 0 failed."
    assert (overview.phase, overview.why) == ("succeeded", "")
    assert (overview.model, overview.service) == ("gemini-2.5-flash", "gemini")
    assert (overview.total, overview.succeeded, overview.failed) == (4, 4, 0)
    assert overview.by_status == {"ok": 4}
    assert overview.output == f"{tmp_path}/out.jsonl"
    assert overview.input_tokens
    assert overview.output_tokens
    (job,) = overview.jobs
    assert (job.state, job.adopted, job.round) == ("SUCCEEDED", False, 0)
    assert None not in (job.submitted_at, job.ended_at, overview.ended_at)
    assert (job.total, job.done, job.failed) == (4, 4, 0)
    assert service.control.books()["created"] == 1


def test_while_a_task_waits_the_overview_says_for_what(service: Emulator) -> None:
    service.control.faults(hold_pending=True)
    run = one(wait_for_completion=False)
    run.attempt("t")
    overview = seen(run)
    assert overview.phase == "submitted"
    assert [job.ended_at for job in overview.jobs] == [None]
    assert run.xcom("t", PROGRESS_KEY) == {"done": 0, "failed": 0, "samples": []}


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_path": "/not/there.jsonl", "inlined_requests": None},
        {"gemini_conn_id": "not_there"},
        {"model": "no model!"},
    ],
)
def test_a_task_that_fails_before_it_has_a_job_says_why_and_logs_no_missing_xcom(
    service: Emulator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], arguments: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    run = one(**arguments)
    assert run.attempt("t").state == "failed"
    overview = seen(run)
    assert overview.phase == "failed"
    assert overview.why
    assert texts(overview)[-1].startswith("Failed: ")
    assert not overview.jobs
    output = capfd.readouterr()
    assert "XCom not found" not in caplog.text + output.out + output.err
    assert service.control.books()["created"] == 0


def test_rows_that_failed_are_told_by_status_and_the_task_by_its_reason(service: Emulator) -> None:
    service.control.faults(row_error_every=2, row_error_code=3, row_error_message="swordfish")
    run = one(max_failed_rows=0)
    assert run.attempt("t").state == "failed"
    overview = seen(run)
    assert (overview.succeeded, overview.failed) == (2, 2)
    assert overview.by_status == {"ok": 2, "error": 2}
    assert overview.reasons == {"error": {"3": 2}}
    assert len(overview.failed_keys) == 2
    assert "2 of 4 rows failed" in overview.why
    assert "batches/" not in overview.why
    assert "swordfish" not in str(overview.to_value())


def test_a_quota_that_is_used_up_is_waited_for_in_so_many_words(service: Emulator) -> None:
    service.control.faults(http={"operation": "create", "status": 429, "times": 2, "retry_after": 1})
    run = one()
    result = run.attempt("t")
    assert result.state == "success"
    (told,) = [text for text in texts(seen(run)) if text.startswith("Waiting: ")]
    assert "quota" in told


def test_what_a_task_waits_for_before_it_has_a_job_is_its_phase(service: Emulator) -> None:
    service.control.faults(http={"operation": "create", "status": 429, "times": 1, "retry_after": 60})
    run = one()
    run.attempt("t", dies_waiting=True)
    assert seen(run).phase == "waiting for quota"


def test_a_repair_is_a_job_of_its_own_round(service: Emulator) -> None:
    service.control.faults(row_error_every=2, row_error_rounds=r"-[0-9]\.0\.0-")
    run = one(repair_rounds=1, max_failed_rows=0)
    assert run.attempt("t").state == "success"
    overview = seen(run)
    assert [job.round for job in overview.jobs] == [0, 1]
    assert "Submitted JOB1, repair round 1." in texts(overview)
    assert overview.failed == 0


@needs_notes
def test_a_retry_that_adopts_a_job_says_so(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one(retries=1)
    with monkeypatch.context() as broken:
        broken.setattr(GeminiCreateBatchJobOperator, "execute_complete", _die)
        assert run.attempt("t").state == "up_for_retry"
    assert run.attempt("t").state == "success"
    overview = seen(run)
    assert [job.adopted for job in overview.jobs] == [True]
    assert texts(overview)[:2] == ["Try 2 began.", "Adopted JOB0."]
    assert service.control.books()["created"] == 1


def _die(*_: Any, **__: Any) -> None:
    raise RuntimeError("the worker broke")


def test_an_overview_that_cannot_be_written_stops_no_task(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = BaseXCom.set

    def refuse(key: str, value: Any, **place: Any) -> None:
        if key == OVERVIEW_KEY:
            raise OSError("no database")
        pushed(key, value, **place)

    monkeypatch.setattr(BaseXCom, "set", refuse)
    assert one().attempt("t").state == "success"
    assert service.control.books()["created"] == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_how_far_the_jobs_are_is_told_while_they_run(service: Emulator, *, deferrable: bool) -> None:
    run = one(deferrable=deferrable)
    assert run.attempt("t").state == "success"
    progress = read_progress(run.xcom("t", PROGRESS_KEY))
    (job,) = seen(run).jobs
    # In a test, a trigger runs without Airflow around it and has nowhere to push to.
    assert set(progress.jobs) == (set() if deferrable else {job.name})
    assert service.control.books()["created"] == 1
