"""How many jobs a try may create under its connection's ``max_active_jobs``, and what it waits for if it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.polling.report import Reason
from airflow_provider_gemini_batch.polling.turns import TurnRequest

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.batch.ports import TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState
    from airflow_provider_gemini_batch.polling.report import WaitReport

# For so many of the jobs that wait for their turn, the input is brought to the service in advance, so that it need not
# be read again.
KEPT_AHEAD: Final = 2


class Turns:
    """The turns of one try, each of which allows it to create one job."""

    def __init__(self, task: TaskTry, state: BatchState, report: WaitReport) -> None:
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
            # Count once more: another triggerer may have let other tasks through at the same time.
            room = limit - self._task.service.count_active(limit) if self._brought else 0
            self._left = min(self._brought, room)
        self._left -= 1
        return self._left >= 0

    def give_up_place(self) -> None:
        """Leave the queue, after a job was created: for the next job, the task queues at its end."""
        self._state.turn_since = None

    def request(self, jobs: int) -> TurnRequest:
        """Return the request to wait for, in order to create so many jobs."""
        state = self._state
        state.turn_since = self._task.clock.now() if state.turn_since is None else state.turn_since
        return TurnRequest(self._task.policy.max_active_jobs_of_connection, state.turn_since, jobs)
