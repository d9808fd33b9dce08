"""A deployment that gets another name, or another address, while its tasks are under way: their jobs stay theirs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from dag_runs import Run
from runtime.tasks import create, jobs, needs_notes
from task_context import task_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator


def pairs() -> list[dict[str, Any]]:
    return [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


@pytest.fixture(params=["AIRFLOW__GEMINI_BATCH__DEPLOYMENT_ID", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"])
def rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return partial(monkeypatch.setenv, request.param, "http://another.example/execution/")


def a_run(path: str) -> Run:
    with DAG("renamed", schedule=None) as dag:
        create("t", inlined_requests=pairs, prompt_template="{text}", carry=["n"], output_path=path, retries=1)
    return Run(dag)


def test_a_deferred_task_lands_its_own_job(service: Emulator, rename: Callable[[], None], tmp_path: Path) -> None:
    result = a_run(f"{tmp_path}/out.jsonl").attempt("t", meanwhile=rename)
    assert (result.state, result.message) == ("success", "")
    assert len(jobs(service)) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@needs_notes
def test_a_retry_and_a_cleared_task_continue_with_it(
    service: Emulator, rename: Callable[[], None], tmp_path: Path
) -> None:
    run = a_run(f"{tmp_path}/out.jsonl")
    run.attempt("t", dies_waiting=True)
    rename()
    assert run.attempt("t").state == "success"
    assert len(jobs(service)) == 1
    run.clear("t")
    result = run.attempt("t")
    assert (result.state, result.message) == ("success", "")  # the output is its own, and not that of another task


def test_without_notes_the_event_says_whose_the_job_is(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    task = create("t", inlined_requests=["x"])
    with pytest.raises(TaskDeferred) as deferred, task.task_run(task_context()) as run:
        run.begin()
    emulator.control.advance(3600)
    monkeypatch.setenv("AIRFLOW__GEMINI_BATCH__DEPLOYMENT_ID", "another")
    with task.task_run(task_context()) as run:
        assert run.resume(None, (deferred.value.kwargs or {})["memo"])["counts"]["succeeded"] == 1
    assert len(jobs(emulator)) == 1
