"""How many jobs a try may create under the ``max_active_jobs`` of its connection, and what it waits for else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.polling.report import Reason
from airflow_provider_gemini_batch.polling.turns import TurnRequest

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.batch.ports import TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState
    from airflow_provider_gemini_batch.polling.report import WaitReport


class Turns:
    """The turns that a wait has brought, one for each job that may be created."""

    def __init__(self, task: TaskTry, state: BatchState, report: WaitReport) -> None:
        """Take the try, its state, and what the wait brought."""
        self._task = task
        self._state = state
        self._brought = report.turns if report.reason is Reason.TURN else 0
        self._left: int | None = None

    def take(self) -> bool:
        """Return whether one more job may be created now."""
        limit = self._task.policy.max_active_jobs_of_connection
        if limit is None:
            return True
        if self._left is None:
            # Who was let through by one triggerer looks itself: another may have let others through.
            room = limit - self._task.service.count_active(limit) if self._brought else 0
            self._left = min(self._brought, room)
        self._left -= 1
        return self._left >= 0

    def used(self) -> None:
        """Note that a job was created: whoever has had its turn goes to the end of the queue."""
        self._state.turn_since = None

    def request(self, jobs: int) -> TurnRequest:
        """Return what the try waits for, to create so many jobs."""
        state = self._state
        state.turn_since = self._task.clock.now() if state.turn_since is None else state.turn_since
        return TurnRequest(self._task.policy.max_active_jobs_of_connection, state.turn_since, jobs)
