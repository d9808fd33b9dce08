"""A task that is told to stop, at moments when it knows little: what is cancelled, and that nothing is asked for."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferred
from dag_runs import Run
from task_context import task_context

from airflow_provider_gemini_batch.api.credentials import GoogleCredential
from airflow_provider_gemini_batch.api.google.bigquery import _table_errors
from airflow_provider_gemini_batch.api.google.storage import _storage_errors
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.best_effort import best_effort
from airflow_provider_gemini_batch.runtime.client import airflow_errors
from airflow_provider_gemini_batch.runtime.create_task import Killed
from airflow_provider_gemini_batch.runtime.state_store import WallClock
from airflow_provider_gemini_batch.staging.job_service import ClientJobService
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


def operator(**arguments: Any) -> GeminiCreateBatchJobOperator:
    given = {"inlined_requests": ["One."], "model": "gemini-2.5-flash", **arguments}
    return GeminiCreateBatchJobOperator(task_id="t", **given)


def states(emulator: Emulator) -> list[str]:
    return [job["state"].rpartition("STATE_")[2] for job in emulator.control.books()["jobs"]]


@pytest.fixture
def held(emulator: Emulator) -> Emulator:
    emulator.control.faults(hold_pending=True)
    return emulator


def test_a_kill_while_the_connection_is_looked_up_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    run = operator().task_run(task_context())

    def look_up(_: Any, conn_id: str) -> Any:
        asked.append(conn_id)
        run.kill()

    monkeypatch.setattr(GeminiBatchHook, "get_connection", look_up)
    with pytest.raises(Killed), run:
        raise AssertionError
    assert asked == ["gemini_batch_default"]


@pytest.mark.parametrize(("tries_left", "state"), [(0, "CANCELLED"), (1, "PENDING")])
def test_a_kill_while_a_resumed_task_asks_for_its_job_cancels_what_nobody_else_would_adopt(
    held: Emulator, monkeypatch: pytest.MonkeyPatch, tries_left: int, state: str
) -> None:
    task = operator()
    now = task_context(max_tries=tries_left)
    with pytest.raises(TaskDeferred) as deferred, task.task_run(now) as run:
        run.begin()
    memo = deferred.value.kwargs["memo"] if deferred.value.kwargs else ""
    again = task.task_run(now)
    monkeypatch.setattr(ClientJobService, "get", lambda *_: again.kill())
    with pytest.raises(Killed), again:
        again.resume(None, memo)
    held.control.advance(60)
    assert states(held) == [state]


def test_a_task_that_is_resumed_where_airflow_keeps_no_notes_goes_on_waiting(held: Emulator) -> None:
    task, now = operator(), task_context()
    with pytest.raises(TaskDeferred) as deferred, task.task_run(now) as run:
        run.begin()
    memo = deferred.value.kwargs["memo"] if deferred.value.kwargs else ""
    with pytest.raises(TaskDeferred), task.task_run(now) as run:
        run.resume(None, memo)
    assert states(held) == ["PENDING"]


@pytest.mark.parametrize(("tries_left", "state"), [(0, "CANCELLED"), (1, "PENDING")])
@pytest.mark.usefixtures("service")
def test_an_execution_timeout_in_the_worker_reaches_callbacks_as_airflows_own_error(
    held: Emulator, monkeypatch: pytest.MonkeyPatch, tries_left: int, state: str
) -> None:
    # Airflow's alarm goes off while the worker waits.
    monkeypatch.setattr(WallClock, "sleep", lambda *_: signal.raise_signal(signal.SIGALRM))
    errors: list[Any] = []
    with DAG("timed_out", schedule=None) as dag:
        operator(
            deferrable=False,
            retries=tries_left,
            execution_timeout=timedelta(hours=1),
            on_failure_callback=lambda context: errors.append(context.get("exception")),
            on_retry_callback=lambda context: errors.append(context.get("exception")),
        )
    outcome = Run(dag).attempt("t")
    assert outcome.state == ("up_for_retry" if tries_left else "failed")
    assert type(outcome.error) is AirflowTaskTimeout
    # Airflow 3.2 tells callbacks of the error only where a task has a process of its own.
    assert errors == [outcome.error if HAS_STORE else None]
    held.control.advance(60)
    assert states(held) == [state]


def test_after_a_kill_no_create_call_is_sent(held: Emulator) -> None:
    with operator().task_run(task_context(max_tries=1)) as run:
        with pytest.raises(Killed):
            run.kill()
        with pytest.raises(Killed, match="was not sent"):
            run.begin()
    assert states(held) == []


@pytest.mark.parametrize(("tries_left", "state"), [(0, "CANCELLED"), (1, "PENDING")])
def test_a_kill_of_a_task_that_waits_in_the_worker_cancels_what_nobody_else_would_adopt(
    held: Emulator, monkeypatch: pytest.MonkeyPatch, tries_left: int, state: str
) -> None:
    run = operator(deferrable=False).task_run(task_context(max_tries=tries_left))
    monkeypatch.setattr(WallClock, "sleep", lambda *_: run.kill())
    with pytest.raises(Killed), run:
        run.begin()
    held.control.advance(60)
    assert states(held) == [state]


@pytest.mark.parametrize("error", [Killed("stop"), AirflowTaskTimeout("late"), KeyboardInterrupt()], ids=repr)
def test_what_stops_a_task_passes_through_everything_that_handles_failures(error: BaseException) -> None:
    def tell(*_: Any, **__: Any) -> Any:
        raise error

    def looked_up() -> None:
        GoogleCredential(tell).headers("create")

    def told() -> None:
        with best_effort("an asset"):
            tell()

    def stored() -> None:
        with _storage_errors("read", "gs://b/a"):
            tell()

    def read_from_a_table() -> None:
        with _table_errors("bq://p.d.t"):
            tell()

    def stopped() -> None:
        with airflow_errors():
            tell()

    for act in (looked_up, told, stored, read_from_a_table, stopped):
        with pytest.raises(type(error)) as passed:
            act()
        assert passed.value is error
