"""A task that is told to stop, at moments when it knows little: what is cancelled, and that nothing is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from task_context import task_context

from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.create_task import Killed

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


def operator(**arguments: Any) -> GeminiCreateBatchJobOperator:
    given = {"inlined_requests": ["One."], "model": "gemini-2.5-flash", **arguments}
    return GeminiCreateBatchJobOperator(task_id="t", **given)


def states(emulator: Emulator) -> list[str]:
    return [job["state"].rpartition("STATE_")[2] for job in emulator.control.books()["jobs"]]


@pytest.fixture
def held(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection())
    gemini_batch_emulator.control.faults(hold_pending=True)
    return gemini_batch_emulator


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
def test_a_kill_between_two_waits_cancels_what_nobody_else_would_adopt(
    held: Emulator, tries_left: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = operator()
    now = task_context(max_tries=tries_left)
    with pytest.raises(TaskDeferred) as deferred, task.task_run(now) as run:
        run.begin()
    memo = deferred.value.kwargs["memo"] if deferred.value.kwargs else ""
    again = task.task_run(now)
    monkeypatch.setattr(task, "defer", lambda **_: again.kill())
    with pytest.raises(Killed), again:
        again.resume(None, memo)
    held.control.advance(60)
    assert states(held) == [state]
