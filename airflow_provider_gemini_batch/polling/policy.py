"""Waiting: deadlines, how often to look, when a job counts as stuck, and which errors are waited out.

All times are seconds since the epoch by our own wall clock, given by the caller: a wait goes on in another process,
hours later. The service's times are compared only with the service's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    JobGone,
    NotFound,
    QuotaExceeded,
)
from airflow_provider_gemini_batch.api.models import BatchJob, JobProgress, JobSnapshot, JobState, Service
from airflow_provider_gemini_batch.api.states import NEVER_STARTED

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.errors import GeminiBatchError

_HOUR: Final = 3600.0
_LONGEST: Final = {Service.GEMINI: 49 * _HOUR, Service.VERTEX: 97 * _HOUR}
_YOUNG: Final = 300.0
_SHORTEST_LOOK: Final = 5.0
_OLD: Final = 6 * _HOUR
_LONGEST_BACKOFF: Final = 600.0
_LONGEST_RETRY_AFTER: Final = _HOUR
#: How far apart two refusals must be before they are believed, in seconds.
BELIEVED_AFTER: Final = 60.0


# -- deadlines ---------------------------------------------------------------------------------------------------------


def longest_wait(service: Service) -> float:
    """Give the longest time that a job can take, in seconds, with an hour to spare.

    The Gemini API ends a job after 48 hours; Vertex keeps it up to 72 hours in its queue and runs it for 24.
    """
    return _LONGEST[service]


def job_age(job: BatchJob | JobSnapshot) -> float | None:
    """Tell a job's age in seconds from the service's clock alone; None when the service does not say enough."""
    if job.create_time is None or job.as_of is None:
        return None
    return max(0.0, (job.as_of - job.create_time).total_seconds())


def submitted_at(job: BatchJob, *, now: float, recorded: float | None = None) -> float:
    """Give the moment of submission by our clock: as recorded, else from the age that the service tells, else now."""
    if recorded is not None:
        return recorded
    return now - (job_age(job) or 0.0)


# -- how often ---------------------------------------------------------------------------------------------------------


def poll_delay(
    age: float | None, poll_interval: float, *, failures: int = 0, retry_after: float | None = None
) -> float:
    """Give the pause before the next look, in seconds.

    A young job is looked at more often, since small batches end within minutes: from a sixth of ``poll_interval`` (at
    least 5 s, and never more often than asked for) the pause grows to ``poll_interval`` over the first 5 minutes.
    From the sixth hour on it grows with the age, to twice the interval at the twelfth: a minute more does not matter
    then. Each failure in a row doubles it, up to 10 minutes; ``retry_after`` is honoured up to an hour.
    """
    delay = poll_interval * _stretch(age, poll_interval)
    if failures > 0:
        delay = max(delay, min(delay * 2.0 ** min(failures, 30), _LONGEST_BACKOFF))
    if retry_after is not None:
        delay = max(delay, min(retry_after, _LONGEST_RETRY_AFTER))
    return delay


def _stretch(age: float | None, poll_interval: float) -> float:
    if age is None or poll_interval <= 0:
        return 1.0
    if age < _YOUNG:
        shortest = max(_SHORTEST_LOOK, poll_interval / 6) / poll_interval
        start = min(1.0, shortest)
        return start + (1.0 - start) * max(age, 0.0) / _YOUNG
    return min(2.0, max(1.0, age / _OLD))


# -- what was seen -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, well or not."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """Our own deadline has come, and the job had not ended when it was last seen."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Stalled:
    """The job does not move: ``kind`` is ``queue`` or ``progress``, ``stuck_for`` in seconds."""

    kind: str
    stuck_for: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Look again in ``delay`` seconds, with ``watch``. ``moved``: the counts changed since the last look."""

    watch: Watch
    delay: float
    moved: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """What must be known to judge the next look at one job. ``queue_timeout`` and ``progress_timeout`` in seconds.

    ``progress`` and ``progress_at`` are remembered by this process alone: a restart begins to count anew.
    """

    deadline: float
    poll_interval: float = 60.0
    submitted: float | None = None
    queue_timeout: float | None = None
    progress_timeout: float | None = None
    progress: tuple[int, int] | None = None
    progress_at: float | None = None

    def saw(self, snapshot: JobSnapshot, now: float) -> Waiting | Ended | Stalled | DeadlineReached:
        """Judge a look: a terminal state beats the deadline, the deadline a stall; unknown states are waited for."""
        if snapshot.seen.state.is_terminal:
            return Ended()
        if now >= self.deadline:
            return DeadlineReached(self.deadline)
        queued_for = self._queued_for(snapshot, now)
        if self.queue_timeout is not None and queued_for is not None and queued_for >= self.queue_timeout:
            return Stalled("queue", queued_for)
        progress = _progress(snapshot.seen)
        since = self.progress_at if progress == self.progress and self.progress_at is not None else now
        unchanged = now - since
        # A job that tells no counts cannot be told to stand still.
        if self.progress_timeout is not None and progress is not None and unchanged >= self.progress_timeout:
            return Stalled("progress", unchanged)
        watch = replace(self, progress=progress, progress_at=since)
        return Waiting(watch, self.pause(snapshot, now), moved=progress is not None and progress != self.progress)

    def pause(self, snapshot: JobSnapshot, now: float) -> float:
        """Give the pause before the next look, which never goes beyond the deadline."""
        age = job_age(snapshot)
        if age is None and self.submitted is not None:
            age = now - self.submitted
        return max(0.0, min(poll_delay(age, self.poll_interval), self.deadline - now))

    def overdue(self, now: float) -> bool:
        """Whether the deadline has come: for looks that brought no answer."""
        return now >= self.deadline

    def _queued_for(self, snapshot: JobSnapshot, now: float) -> float | None:
        if snapshot.seen.state not in NEVER_STARTED or snapshot.start_time is not None:
            return None
        age = job_age(snapshot)
        if age is None and self.submitted is not None:
            return now - self.submitted
        return age


def _progress(seen: JobProgress) -> tuple[int, int] | None:
    """Give what must grow while a job runs; nothing is expected of one that waits in the queue or is being stopped."""
    if not seen.counted or seen.state in NEVER_STARTED or seen.state is JobState.CANCELLING:
        return None
    return (seen.success, seen.failure)


# -- errors on the way -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LookAgain:
    """The error passes: look again in ``delay`` seconds, and judge the next error with ``trouble``."""

    trouble: Trouble
    delay: float


@dataclass(frozen=True, slots=True)
class GoneForGood:
    """The service said twice, a minute apart, that it does not know the job."""


@dataclass(frozen=True, slots=True)
class WillNotPass:
    """The error will not pass by waiting."""

    error: GeminiBatchError


@dataclass(frozen=True, slots=True)
class Trouble:
    """The errors of one job since it was last seen. After a good look, start with a fresh one."""

    failures: int = 0
    missing_since: float | None = None
    refused_since: float | None = None

    def saw(
        self, error: GeminiBatchError, now: float, *, poll_interval: float = 60.0
    ) -> LookAgain | GoneForGood | WillNotPass:
        """Judge an error.

        A refused key and a wrong setting end the wait at once. An unknown job and any other refusal (4xx) must be
        said twice, a minute apart. Everything else (429, 5xx, resets, time-outs, answers that cannot be read) is
        waited out: the caller stops at the deadline.
        """
        if isinstance(error, (AccessDenied, ConfigurationError)):
            return WillNotPass(error)
        if isinstance(error, (NotFound, JobGone)):
            since = now if self.missing_since is None else self.missing_since
            if now - since >= BELIEVED_AFTER:
                return GoneForGood()
            return self._again(replace(self, missing_since=since), BELIEVED_AFTER - (now - since))
        if isinstance(error, ApiError) and not error.retryable:
            since = now if self.refused_since is None else self.refused_since
            if now - since >= BELIEVED_AFTER:
                return WillNotPass(error)
            return self._again(replace(self, refused_since=since), BELIEVED_AFTER - (now - since))
        retry_after = error.retry_after if isinstance(error, QuotaExceeded) else None
        delay = poll_delay(None, poll_interval, failures=self.failures + 1, retry_after=retry_after)
        return self._again(self, delay)

    @staticmethod
    def _again(trouble: Trouble, delay: float) -> LookAgain:
        return LookAgain(replace(trouble, failures=trouble.failures + 1), delay)


# -- looking for a job whose creation was not answered -----------------------------------------------------------------


def next_look(waited: float, *, lookup_timeout: float, in_flight: float = 0.0) -> float | None:
    """Give the pause before the next look into the service's list, in seconds; None when the job can no longer appear.

    Pauses grow as the wait grows (looks at 0, 1, 2, 4, 8 ... seconds), and the last look is at the very end.

    :param waited: seconds since the create call was sent, at the moment of the last look.
    :param lookup_timeout: how long a made job may take to show up in the list.
    :param in_flight: how long after sending the service may still have acted: the request's own time-out.
    """
    left = in_flight + lookup_timeout - waited
    # Less than a hundredth of a second is what adding up the pauses leaves.
    return None if left <= 0.01 else min(max(1.0, waited), left)  # noqa: PLR2004


# -- stuck jobs --------------------------------------------------------------------------------------------------------


def may_resubmit(on_stall: str, *, resubmitted: int, max_resubmits: int) -> bool:
    """Whether a stalled job is replaced by a new one, once it has ended without rows."""
    return on_stall == "resubmit" and resubmitted < max_resubmits
