"""The rules of a wait in numbers: how long, how often, and how long an answer is doubted.

All times are seconds; moments are seconds since the epoch by our own wall clock, given by the caller, since a wait may
continue in another process hours later. The service's times are compared only with the service's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_gemini_batch.api.models import Service

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.models import BatchJob, JobSnapshot

_HOUR: Final = 3600.0
_LONGEST: Final = {Service.GEMINI: 49 * _HOUR, Service.VERTEX: 97 * _HOUR}
_YOUNG: Final = 300.0
_SHORTEST_POLL: Final = 5.0
_OLD: Final = 6 * _HOUR
_LONGEST_BACKOFF: Final = 600.0
_LONGEST_RETRY_AFTER: Final = _HOUR
#: How far apart two refusals must be before they are believed, in seconds.
BELIEVED_AFTER: Final = 60.0
#: How many times longer a "not found" is doubted for a job that was never seen: it may just have been created.
UNSEEN_FACTOR: Final = 2.0
#: The same for one that is not in the service's form: a gateway says so for minutes while what is behind it restarts.
VAGUE_FACTOR: Final = 10.0
#: The part of its pause by which a job may be polled early, together with others.
RIDE_ALONG: Final = 0.1


class WaitPolicy(NamedTuple):
    """What a wait was asked to do.

    ``deadline``: moment at which it ends (``math.inf``: never). ``until``: ``all`` jobs, or ``any`` for the first that
    ends. ``queue_timeout`` and ``progress_timeout`` in seconds; None: never.
    """

    deadline: float
    poll_interval: float = 60.0
    queue_timeout: float | None = None
    progress_timeout: float | None = None
    until: str = "all"


# -- deadlines ---------------------------------------------------------------------------------------------------------


def longest_wait(service: Service) -> float:
    """Return the longest time that a job can take, in seconds, with an hour to spare.

    The Gemini API ends a job after 48 hours; Vertex keeps it up to 72 hours in its queue and runs it for 24.
    """
    return _LONGEST[service]


def job_age(job: BatchJob | JobSnapshot) -> float | None:
    """Return a job's age in seconds by the service's clock alone; None when the service does not say enough."""
    if job.create_time is None or job.as_of is None:
        return None
    return max(0.0, (job.as_of - job.create_time).total_seconds())


def doubt(since: float, now: float, *, never_seen: bool, vague: bool = False) -> float:
    """Return for how many more seconds an answer first given at ``since`` is doubted; 0 when it is believed.

    :param never_seen: the service has not shown the job yet; it may just have been created.
    :param vague: an answer that is not in the service's form.
    """
    patience = BELIEVED_AFTER * (VAGUE_FACTOR if vague else UNSEEN_FACTOR if never_seen else 1.0)
    # At most a minute, so that the question is repeated that often, and a clock that was set back delays nothing.
    return min(BELIEVED_AFTER, max(0.0, patience - max(0.0, now - since)))


# -- how often ---------------------------------------------------------------------------------------------------------


def poll_delay(
    age: float | None, poll_interval: float, *, failures: int = 0, retry_after: float | None = None
) -> float:
    """Return the pause before the next poll, in seconds.

    A young job is polled more often, since small batches end within minutes: from a sixth of ``poll_interval`` (at
    least 5 s, and never more often than asked for) the pause grows to ``poll_interval`` over the first 5 minutes.
    From the sixth hour on it grows with the age, to twice the interval at the twelfth hour, when another minute no
    longer matters. Each failure in a row doubles it, up to 10 minutes; ``retry_after`` is honoured up to an hour.
    """
    delay = poll_interval * _interval_factor(age, poll_interval)
    if failures > 0:
        delay = max(delay, min(delay * 2.0 ** min(failures, 30), _LONGEST_BACKOFF))
    if retry_after is not None:
        delay = max(delay, min(retry_after, _LONGEST_RETRY_AFTER))
    return delay


def _interval_factor(age: float | None, poll_interval: float) -> float:
    if age is None or poll_interval <= 0:
        return 1.0
    if age < _YOUNG:
        shortest = max(_SHORTEST_POLL, poll_interval / 6) / poll_interval
        start = min(1.0, shortest)
        return start + (1.0 - start) * max(age, 0.0) / _YOUNG
    return min(2.0, max(1.0, age / _OLD))


# -- looking for a job whose creation was not answered -----------------------------------------------------------------


def next_lookup(waited: float, *, lookup_timeout: float, in_flight: float = 0.0) -> float | None:
    """Return the pause before the next search of the service's list, in seconds; None if the job cannot appear later.

    Pauses grow as the wait grows (searches at 0, 1, 2, 4, 8 ... seconds), and the last search is at the very end.

    :param waited: seconds since the create call was sent, at the moment of the last search.
    :param lookup_timeout: how long a job that was created may take to show up in the list.
    :param in_flight: how long after sending the service may still have acted: the request's own time-out.
    """
    left = in_flight + lookup_timeout - waited
    # Adding up the pauses leaves a rounding error of less than a hundredth of a second.
    return None if left <= 0.01 else min(max(1.0, waited), left)  # noqa: PLR2004
