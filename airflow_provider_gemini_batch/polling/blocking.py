"""Waiting in the calling thread: for tasks that do not defer, for sensors in a worker, and for ``BatchClient.wait``."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.api.models import JobSnapshot
from airflow_provider_gemini_batch.polling.policy import RIDE_ALONG
from airflow_provider_gemini_batch.polling.progress import WaitLog
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.polling.job_wait import JobWait


class BlockingWait:
    """Drives a :class:`~.job_wait.JobWait` from one thread.

    :param read: returns one job; raises errors of :mod:`~airflow_provider_gemini_batch.api.errors`.
    :param now: the clock of the wait's deadline, in seconds.
    :param renew: looks the credentials up again, for ``read`` to use; called when they were refused.
    :param log: called with the level and the text of each line of the wait's log.
    :param on_progress: called with a job whose state or counts have changed.
    """

    def __init__(
        self,
        wait: JobWait,
        read: Callable[[str], BatchJob],
        *,
        now: Callable[[], float],
        renew: Callable[[], None] | None = None,
        log: Callable[[int, str], None] | None = None,
        on_progress: Callable[[BatchJob], None] | None = None,
    ) -> None:
        self.wait = wait
        self._read = read
        self._now = now
        self._renew = renew
        self._log = log
        self._on_progress = on_progress
        self._words = WaitLog(wait)
        self._credentials = 0
        self._broke_off: float | None = None
        #: By job: the pause before its next poll, and how much of it is left, in seconds.
        self._pauses = {job.name: (0.0, 0.0) for job in wait.jobs}

    @property
    def pause(self) -> float:
        """Seconds until the next job is due."""
        return min((self._pauses[job.name][1] for job in self.wait.jobs if job.report is None), default=0.0)

    @property
    def is_in_doubt(self) -> bool:
        """Whether the service gave an answer that is believed only when it gives it again."""
        return any(job.report is None and job.errors is not None and job.errors.is_in_doubt for job in self.wait.jobs)

    def poll(self, *, all_jobs: bool = False) -> None:
        """Ask about each job that is due, or nearly so, or about all that have not ended."""
        due = [job for job in self.wait.jobs if job.report is None and (all_jobs or self._is_due(job.name))]
        for job in due:
            job.is_asked = True
        for job in due:
            found: BatchJob | None = None
            answer: JobSnapshot | GeminiBatchError
            try:
                found = self._read(job.name)
                answer = JobSnapshot.of(found)
            except GeminiBatchError as error:
                answer = error
            before = job.progress
            pause = self.wait.record(job, answer, self._now(), credentials=self._credentials)
            self._pauses[job.name] = (pause, pause)
            if self._on_progress is not None and found is not None and job.progress != before:
                self._on_progress(found)
        if any(job.refused_credentials == self._credentials for job in self.wait.jobs):
            if self._renew is not None:
                self._renew()
            self._credentials += 1
        for level, line in self._words.new_lines(self._now()):
            if self._log is not None:
                self._log(level, line)

    def _is_due(self, name: str) -> bool:
        pause, left = self._pauses[name]
        return left <= RIDE_ALONG * pause

    @property
    def text(self) -> str:
        """How far the jobs have come, in one line."""
        return self._words.text(self._now())

    @property
    def numbers(self) -> dict[str, Any] | None:
        """What the page shows of the wait, as plain values; None before the first answer."""
        return self._words.numbers(self._now())

    def pass_time(self, seconds: float) -> None:
        """Let the pauses until the next polls become shorter by the seconds that have passed."""
        self._pauses = {name: (pause, left - seconds) for name, (pause, left) in self._pauses.items()}

    def run(self, sleep: Callable[[float], None], *, memo: str = "", breaks_at: float = inf) -> WaitReport:
        """Poll until the wait is over, and return the report that a trigger would send.

        :param breaks_at: when to return, with the reason TURN, although the wait goes on: at the next ``run``.
        """
        if self._broke_off is not None:
            self.pass_time(max(0.0, self._now() - self._broke_off))
            self._broke_off = None
        while True:
            self.poll()
            report = self.wait.report(memo)
            if report is not None:
                return replace(report, running_since=self._words.running_since)
            now = self._now()
            left = breaks_at - now
            if left <= 0:
                self._broke_off = now
                return WaitReport(Reason.TURN, memo=memo, turns=1, running_since=self._words.running_since)
            pause = min(self.pause, left)
            sleep(pause)
            self.pass_time(pause)
