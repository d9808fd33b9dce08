"""One round under way: its threads, and the bundles of answers that they hand over to the event loop."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, UnexpectedAnswer
from airflow_provider_gemini_batch.polling.poll_plan import Round

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.polling.job_wait import Entry
    from airflow_provider_gemini_batch.polling.poll_plan import Answer, JobReader
    from airflow_provider_gemini_batch.polling.poller import JobPoller

THREADS: Final = 4
# Answers go to the loop in bundles: a page of the list, or what single gets brought in a moment. Larger ones would
# only live long enough to burden the garbage collector, which stops everybody.
_BUNDLE: Final = 100
_BUNDLE_SECONDS: Final = 0.1


class Flight:
    """One round under way: its threads, and the bundles that they hand over."""

    def __init__(self, watcher: JobPoller, client: JobReader, entries: list[Entry], *, last_call: float) -> None:
        self.entries = entries
        self.began = watcher.loop_time()
        self.last_call = last_call
        targets = {entry.name: entry for entry in entries}
        self.round = Round(client, targets.values(), watched=watcher.watched, report=self.report)
        self._watcher = watcher
        self._threads = 1
        self._lock = Lock()
        self._answers: list[Answer] = []
        self._handed_over = time.monotonic()

    def begin(self) -> None:
        """Read the list, then ask for single jobs, with other threads where that is worth it."""
        try:
            left = self.round.read_list(self._watcher.habit)
            # Also for few jobs: one whose answer does not come must not keep its neighbours waiting.
            helpers = max(0, min(THREADS, left) - 1)
            with self._lock:
                self._threads += helpers
            for _ in range(helpers):
                self._watcher.threads.submit(self.go_on)
        except Exception as error:  # noqa: BLE001  a thread that dies in silence would end all waiting
            self.round.give_up(_unexpected(error))
        self.go_on()

    def go_on(self) -> None:
        """Ask for single jobs until none is left."""
        try:
            self.round.read_single()
        except Exception as error:  # noqa: BLE001  as above
            self.round.give_up(_unexpected(error))
        with self._lock:
            self._threads -= 1
            last = not self._threads
        self._hand_over()
        if last:
            self._watcher.post(self._watcher.received, self, [None])

    def report(self, answers: list[Answer]) -> None:
        """Collect answers; called in any of the round's threads."""
        with self._lock:
            self._answers.extend(answers)
            small = len(self._answers) < _BUNDLE
            young = time.monotonic() - self._handed_over < _BUNDLE_SECONDS
        if not (small and young):
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
            self._handed_over = time.monotonic()
        if answers and not self._watcher.post(self._watcher.received, self, answers):
            self.round.give_up(UnexpectedAnswer("The event loop has ended"))


def _unexpected(error: Exception) -> GeminiBatchError:
    return UnexpectedAnswer(f"Looking failed with {type(error).__name__}")
