"""Cancelling: asking the service to end jobs, and writing down that it was this task that asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.batch.state import JobEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_gemini_batch.batch.adoption import Cleanup
    from airflow_provider_gemini_batch.batch.ports import TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState

log = logging.getLogger(__name__)

_PAUSES: Final = (1.0, 3.0, 10.0)
# Without notes, the next try cannot tell our cancellation from a person's: wait until the job has ended.
_POLLS: Final = 10
_POLL_PAUSE: Final = 3.0


class Canceller:
    """Cancels jobs of one try."""

    def __init__(self, task: TaskTry, state: BatchState) -> None:
        self._task = task
        self._state = state
        self._asked: set[str] = set()

    def clean_up(self, cleanup: Cleanup) -> None:
        """Cancel duplicate and stale jobs, and log a warning for each job that is left running."""
        for warning in cleanup.warnings:
            log.warning("%s", warning)
        for name in (*cleanup.duplicates, *cleanup.stale):
            log.warning("Cancelling %s: another job of this task is used in its place.", name)
            self.cancel(name)

    def cancel(self, name: str, *, keep_notes: bool = True) -> bool:
        """Request cancellation of a job, and return whether the service accepted it.

        :param keep_notes: save at once that this task asked; otherwise the next try would mistake the cancellation
            for a person's decision.
        """
        if name in self._asked:
            return True
        if not self._state.records[name].cancelled_by_us:
            self._state.happened(JobEvent.CANCEL_ASKED, name)
            if keep_notes:
                self._task.save(self._state)
        error = self._cancel_with_retries(name)
        if error is None:
            self._asked.add(name)
            return True
        log.warning("Could not cancel %s: %s", name, error)
        if not error.retryable:
            # The service refused for good, so the job runs on, and a later try may use it.
            self._state.happened(JobEvent.CANCEL_REFUSED, name)
            self._task.save(self._state)
        return False

    def wait_for_ends(self, names: Iterable[str]) -> None:
        """Wait a little until cancelled jobs have ended."""
        left = list(names)
        for _ in range(_POLLS):
            try:
                left = [name for name in left if not self._task.service.get(name).is_done]
            except GeminiBatchError:
                return
            if not left:
                return
            self._task.clock.sleep(_POLL_PAUSE)

    def abandon(self, names: Iterable[str]) -> None:
        """Cancel every job that nobody needs any more: the task has failed for good."""
        running = [name for name in dict.fromkeys(names) if not self._state.records[name].is_done]
        for name in running:
            if name not in self._asked:
                log.warning("Cancelling %s: the task has failed and no longer needs it.", name)
                # Saved only once, below: the store may be what failed.
                self.cancel(name, keep_notes=False)
        if running:
            # Only then: a try that could not read its notes must not overwrite them with empty ones.
            self._task.save(self._state)

    def _cancel_with_retries(self, name: str) -> GeminiBatchError | None:
        for pause in _PAUSES:
            error = self._try(name)
            if error is None or not error.retryable:
                return error
            self._task.clock.sleep(pause)
        return self._try(name)

    def _try(self, name: str) -> GeminiBatchError | None:
        try:
            self._task.service.cancel(name)
        except GeminiBatchError as error:
            return error
        return None
