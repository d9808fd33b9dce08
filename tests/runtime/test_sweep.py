"""``gemini-batch sweep``: what tasks left behind, told by Airflow's database and the tags of jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from dag_runs import Run

from airflow_provider_gemini_batch.batch.tag import Tag
from airflow_provider_gemini_batch.cli.parser import main
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.fixture
def submitted(service: Emulator) -> tuple[Run, str]:
    """A task that has submitted a job which does not end."""
    return submit(service)


def submit(service: Emulator, **arguments: Any) -> tuple[Run, str]:
    service.control.faults(hold_running=True)
    rows: Any = {"inlined_requests": ["Hello?"], "wait_for_completion": False}
    with DAG("sweeping", schedule=None) as dag:
        GeminiCreateBatchJobOperator(task_id="submit", model="gemini-2.5-flash", **rows, **arguments)
    run = Run(dag)
    assert run.attempt("submit").state == "success"
    return run, run.xcom("submit", "job_name")


def sweep(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["sweep", "--output", "json", *words]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def state_of(job_name: str) -> str:
    with GeminiBatchHook() as hook:
        return hook.get(job_name).state.value


def test_a_job_whose_task_succeeded_is_left_alone(submitted: tuple[Run, str], capsys: Any) -> None:
    _, job_name = submitted
    assert sweep(capsys, "--yes", "--unknown")[job_name]["result"].startswith("left alone")
    assert state_of(job_name) == "RUNNING"


def test_a_job_whose_task_failed_is_named_and_cancelled_when_told_to(submitted: tuple[Run, str], capsys: Any) -> None:
    run, job_name = submitted
    run._update(run.instance("submit"), state="failed")
    found = sweep(capsys)[job_name]
    assert found["task"].startswith("sweeping.submit")
    assert (found["task_state"], found["result"]) == ("failed", "would be cancelled")
    assert state_of(job_name) == "RUNNING"
    assert sweep(capsys, "--yes")[job_name]["result"] == "cancelled"
    assert state_of(job_name) != "RUNNING"


def test_a_job_whose_task_may_still_want_it_is_not_named(submitted: tuple[Run, str], capsys: Any) -> None:
    run, job_name = submitted
    run._update(run.instance("submit"), state="deferred")
    assert job_name not in sweep(capsys, "--yes", "--unknown")


def test_a_job_is_known_where_workers_have_had_another_name_for_this_airflow(
    submitted: tuple[Run, str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job_name = submitted
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://another.example/execution/")
    run._update(run.instance("submit"), state="deferred")
    assert job_name not in sweep(capsys, "--yes", "--unknown")
    run._update(run.instance("submit"), state="failed")
    assert sweep(capsys)[job_name]["task"].startswith("sweeping.submit")


@pytest.mark.usefixtures("impatient")
def test_a_job_of_a_datasets_part_is_known_by_the_parts_key(service: Emulator, capsys: Any) -> None:
    run, job_name = submit(service, part_key="00000-abc", lookup_timeout=0.0)
    assert sweep(capsys, "--yes", "--unknown")[job_name]["result"].startswith("left alone")
    run._update(run.instance("submit"), state="failed")
    assert sweep(capsys)[job_name]["task"].startswith("sweeping.submit")


def test_a_job_of_a_task_that_nobody_knows_is_touched_only_on_demand(service: Emulator, capsys: Any) -> None:
    service.control.faults(hold_running=True)
    with GeminiBatchHook() as hook:
        # As another Airflow makes it.
        tag = Tag("abcdefghij", 0, 0, 0, 0, "0123456789ab")
        job_name = hook.create("gemini-2.5-flash", inlined_requests=["Hello?"], display_name=str(tag)).name
    assert sweep(capsys, "--yes")[job_name]["result"] == "left alone: add --unknown"
    assert [job["cancel_calls"] for job in service.control.books()["jobs"]] == [0]
    assert sweep(capsys, "--yes", "--unknown")[job_name]["result"] == "cancelled"


def test_an_upload_whose_task_failed_is_deleted(service: Emulator, capsys: Any) -> None:
    with DAG("sweeping_uploads", schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="submit",
            model="gemini-2.5-flash",
            inlined_requests=[f"Count to {number}." for number in range(600)],
            wait_for_completion=False,
            keep_input=True,
        )
    run = Run(dag)
    assert run.attempt("submit").state == "success"
    service.control.advance(600)
    run._update(run.instance("submit"), state="failed")
    with GeminiBatchHook() as hook:
        (name,) = [file.name for file in hook.list_files().files]
        assert sweep(capsys, "--yes")[name]["result"] == "deleted"
        assert list(hook.list_files().files) == []
