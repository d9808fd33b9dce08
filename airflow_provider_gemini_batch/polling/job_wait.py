"""The one judge of a wait: what is known of the jobs, and what follows from an answer, an error or the clock.

Theory. A wait is for one or several jobs and has a policy. Its driver (the poller of a triggerer, the blocking wait of
a worker or of ``BatchClient.wait``, a sensor) marks the jobs that it asks about, records each answer with the time, and
polls the job again after the pause that recording returns. When no question is open, the driver asks whether the wait
is over, and passes the report on. Drivers know sockets, threads and clocks, but decide nothing.

What follows for one job; the first row that fits applies:

=====================================================  =================================================================
answer                                                 what follows
=====================================================  =================================================================
the job has ended, well or not                         ENDED, whatever the clock says
anything else, at the deadline or later                DEADLINE, with the state last seen or the error
in the service's queue for ``queue_timeout``           QUEUE_TIMEOUT
running, same counts for ``progress_timeout``          PROGRESS_TIMEOUT; not for a job that is being cancelled or does
                                                       not count
any other state, also an unknown one                   poll again: young jobs sooner, old ones later
a setting that cannot work                             REFUSED
credentials refused (401, 403, a bad key)              poll again soon, after looking the connection up again where
                                                       there is one; REFUSED when its credentials are refused, too,
                                                       and again a minute later if the job has been seen before
404                                                    poll again; GONE when repeated a minute later (two minutes for a
                                                       job that was never seen: it may have been created just now;
                                                       ten for a 404 that is a gateway's, not in the service's form)
any other 4xx                                          poll again; REFUSED when repeated a minute later
such a refusal that is not in the service's form       the same, but REFUSED when repeated ten minutes later
429, 5xx, no answer, an unreadable answer              poll again at growing pauses, or when the service says
=====================================================  =================================================================

A good answer clears the errors before it. For several jobs: any reason but ENDED ends the wait for all of them, since
the task has to decide what to do; of several such reasons, the report has the first of REFUSED, GONE, DEADLINE,
QUEUE_TIMEOUT and PROGRESS_TIMEOUT. Otherwise the wait is over when all jobs have ended, or the first
(``until="any"``). There is no report while an answer is outstanding, so that it does not depend on which answer came
first.

Rules of this file: no clock, no network, no thread, no Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    JobGone,
    NotFound,
    QuotaExceeded,
)
from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobProgress, JobState, Service
from airflow_provider_gemini_batch.api.states import NEVER_STARTED
from airflow_provider_gemini_batch.polling.policy import doubt, job_age, poll_delay
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_gemini_batch.api.models import JobSnapshot
    from airflow_provider_gemini_batch.polling.policy import WaitPolicy

#: After so many failures in a row, the task's log says so.
LOGGED_FAILURES: Final = 3
#: The same for refusals of the credentials, once they have been looked up again.
LOGGED_REFUSALS: Final = 2
#: The pause before credentials that were refused are tried again, in seconds.
_RENEWED_AFTER: Final = 5.0
# Which reason ends a wait for several jobs with different ones: what no waiting can repair comes first.
_GRAVITY: Final = (Reason.REFUSED, Reason.GONE, Reason.DEADLINE, Reason.QUEUE_TIMEOUT, Reason.PROGRESS_TIMEOUT)
_STALLS: Final = frozenset({Reason.QUEUE_TIMEOUT, Reason.PROGRESS_TIMEOUT})
_MOST_NAMED: Final = 5


class JobReport(NamedTuple):
    """Why nobody needs to poll a job any more; ``error`` is what ended the wait, if an error did."""

    reason: Reason
    message: str
    error: GeminiBatchError | None = None


class ErrorStreak:
    """The errors of one job since its last good answer."""

    __slots__ = ("failures", "last", "missing_since", "refused_credentials", "refused_since")

    def __init__(self) -> None:
        self.failures = 0
        self.last: GeminiBatchError | None = None
        self.missing_since: float | None = None
        self.refused_since: float | None = None
        #: The number of the first credentials that were refused.
        self.refused_credentials: int | None = None

    @property
    def is_logged(self) -> bool:
        """Whether the task's log should mention it: refused credentials sooner than errors that may pass."""
        return self.failures >= (LOGGED_FAILURES if self.refused_credentials is None else LOGGED_REFUSALS)

    @property
    def is_in_doubt(self) -> bool:
        """Whether an answer is believed only when it is given again."""
        return not (self.missing_since is None and self.refused_since is None and self.refused_credentials is None)

    def record(
        self, error: GeminiBatchError, policy: WaitPolicy, now: float, *, credentials: int, never_seen: bool
    ) -> float | Reason:
        """Record one more error; return the pause in seconds, or the reason why the wait for the job is over."""
        self.failures += 1
        self.last = error
        if isinstance(error, ConfigurationError):
            return Reason.REFUSED
        vague = isinstance(error, ApiError) and error.is_vague
        if isinstance(error, AccessDenied):
            if self.refused_credentials is None or credentials <= self.refused_credentials:
                self.refused_credentials = credentials
                return min(_RENEWED_AFTER, policy.poll_interval)
            if never_seen and not vague:
                return Reason.REFUSED
            self.refused_credentials = credentials
        if isinstance(error, (NotFound, JobGone)):
            self.missing_since = now if self.missing_since is None else self.missing_since
            return doubt(self.missing_since, now, never_seen=never_seen, vague=vague) or Reason.GONE
        if isinstance(error, ApiError) and not error.retryable:
            self.refused_since = now if self.refused_since is None else self.refused_since
            return doubt(self.refused_since, now, never_seen=False, vague=vague) or Reason.REFUSED
        retry_after = error.retry_after if isinstance(error, QuotaExceeded) else None
        return poll_delay(None, policy.poll_interval, failures=self.failures, retry_after=retry_after)


class WatchedJob:
    """One job of a wait, as far as it is known. Read by everybody, written by its :class:`JobWait` alone."""

    __slots__ = (
        "_counts",
        "_counts_since",
        "_queued_since",
        "errors",
        "has_news",
        "is_asked",
        "name",
        "progress",
        "report",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress: JobProgress | None = None
        self.errors: ErrorStreak | None = None
        self.report: JobReport | None = None
        #: Whether an answer is outstanding.
        self.is_asked = False
        #: Whether the last answer changed something that the log should say.
        self.has_news = False
        self._counts: tuple[int, int] | None = None
        self._counts_since = 0.0
        self._queued_since: float | None = None

    @property
    def refused_credentials(self) -> int | None:
        """The number of the credentials that the service refused, until a good answer; None: none were."""
        return self.errors.refused_credentials if self.errors is not None else None

    def as_job(self) -> BatchJob:
        """Return what is known of the job: name, state, counts and error."""
        seen = self.progress or JobProgress()
        stats = CompletionStats(total=seen.total, success=seen.success, failure=seen.failure)
        return BatchJob(
            name=self.name,
            service=Service.of_job(self.name),
            state=seen.state,
            raw_state=seen.raw_state,
            completion_stats=stats if seen.counted else None,
            error=seen.error,
        )

    def _record_snapshot(self, snapshot: JobSnapshot, policy: WaitPolicy, now: float) -> float:
        before, self.progress = self.progress, snapshot.progress
        self.has_news = self.progress != before or (self.errors is not None and self.errors.is_logged)
        self.errors = None
        state = self.progress.state
        if state.is_terminal:
            return self._end(Reason.ENDED, f"{self.name} has ended: {self.progress.words}")
        if now >= policy.deadline:
            return self._end(
                Reason.DEADLINE, f"{self.name} had not ended at the deadline; it was {self.progress.words}"
            )
        age = job_age(snapshot)
        if self._is_stuck_in_queue(snapshot, age, policy.queue_timeout, now):
            return self._end(
                Reason.QUEUE_TIMEOUT,
                f"{self.name} is still in the queue of the service after queue_timeout={policy.queue_timeout:g} s",
            )
        if self._is_stuck(policy.progress_timeout, now):
            return self._end(
                Reason.PROGRESS_TIMEOUT,
                f"{self.name} has made no progress for progress_timeout={policy.progress_timeout:g} s",
            )
        return poll_delay(age, policy.poll_interval)

    def _is_stuck_in_queue(self, snapshot: JobSnapshot, age: float | None, timeout: float | None, now: float) -> bool:
        """Return whether the job was queued for too long, by its age or else since it was first seen queued."""
        if snapshot.progress.state not in NEVER_STARTED or snapshot.start_time is not None:
            self._queued_since = None
            return False
        if self._queued_since is None or now < self._queued_since:
            self._queued_since = now
        queued_for = now - self._queued_since if age is None else age
        return timeout is not None and queued_for >= timeout

    def _is_stuck(self, timeout: float | None, now: float) -> bool:
        """Record the counts; return whether they stood still for too long in a job that runs and is not cancelled."""
        seen = self.progress
        running = seen is not None and seen.state not in NEVER_STARTED and seen.state is not JobState.CANCELLING
        counts = (seen.success, seen.failure) if seen is not None and seen.counted and running else None
        if counts is None or counts != self._counts or now < self._counts_since:
            self._counts, self._counts_since = counts, now
        return timeout is not None and counts is not None and now - self._counts_since >= timeout

    def _record_error(self, error: GeminiBatchError, policy: WaitPolicy, now: float, credentials: int) -> float:
        if now >= policy.deadline:
            return self._end(
                Reason.DEADLINE, f"{self.name} was not seen to end before the deadline; the last poll failed: {error}"
            )
        streak = self.errors = self.errors or ErrorStreak()
        was_logged = streak.is_logged
        result = streak.record(error, policy, now, credentials=credentials, never_seen=self.progress is None)
        if not isinstance(result, Reason):
            self.has_news = streak.is_logged and not was_logged
            return result
        what = f"The service does not know {self.name}" if result is Reason.GONE else f"Could not poll {self.name}"
        return self._end(result, f"{what}: {error}", error)

    def _end(self, reason: Reason, message: str, error: GeminiBatchError | None = None) -> float:
        self.report = JobReport(reason, message, error)
        self.has_news = True
        return 0.0


class JobWait:
    """A wait for one or several jobs: answers in, pauses and in the end a report out.

    :param names: the jobs; one that is named twice counts once.
    """

    __slots__ = ("jobs", "policy")

    def __init__(self, names: Iterable[str], policy: WaitPolicy) -> None:
        self.jobs: Sequence[WatchedJob] = tuple(WatchedJob(name) for name in dict.fromkeys(names))
        self.policy = policy

    def record(
        self, job: WatchedJob, answer: JobSnapshot | GeminiBatchError | None, now: float, *, credentials: int = 0
    ) -> float:
        """Record the answer about a job; return the pause before the next poll of it, in seconds.

        :param answer: None: the question was not asked after all.
        :param now: the wall clock, in seconds since the epoch.
        :param credentials: how often the connection had been looked up when the question was asked.
        """
        job.is_asked = job.has_news = False
        if answer is None or job.report is not None:
            return 0.0
        if isinstance(answer, GeminiBatchError):
            pause = job._record_error(answer, self.policy, now, credentials)  # noqa: SLF001  one judge in two classes
        else:
            pause = job._record_snapshot(answer, self.policy, now)  # noqa: SLF001
        return max(0.0, min(pause, self.policy.deadline - now))

    def is_overdue(self, now: float) -> bool:
        """Whether the deadline has come."""
        return now >= self.policy.deadline

    @property
    def is_settled(self) -> bool:
        """Whether no further question can change the report, although answers to open questions may."""
        ended = 0
        for job in self.jobs:
            if job.report is not None:
                if job.report.reason is not Reason.ENDED:
                    return True
                ended += 1
        return ended == len(self.jobs) or (ended > 0 and self.policy.until == "any")

    @property
    def is_over(self) -> bool:
        """Whether there is a report."""
        return self.is_settled and not any(job.is_asked and job.report is None for job in self.jobs)

    def report(self, memo: str = "") -> WaitReport | None:
        """Return why the wait is over, and what is known of the jobs; None while it goes on.

        :param memo: goes into the report as it is.
        """
        if not self.is_over:
            return None
        reports = [job.report for job in self.jobs if job.report is not None]
        reason = next((grave for grave in _GRAVITY if any(one.reason is grave for one in reports)), Reason.ENDED)
        messages = [one.message for one in reports if one.reason is reason]
        more = len(messages) - _MOST_NAMED
        if more > 0:
            messages[_MOST_NAMED:] = [f"and the same for {more} more jobs"]
        return WaitReport(
            reason,
            tuple(job.as_job() for job in self.jobs),
            "; ".join(messages),
            memo,
            tuple(job.name for job in self.jobs if job.report is not None and job.report.reason in _STALLS),
        )
