"""The report of a wait, and the event that carries it from a trigger to its task: the one writer and the one reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobState, Service, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 1
_MAX_ERROR = 500
_MAX_MESSAGE = 1000


class Reason(str, Enum):
    """Why a wait is over."""

    ENDED = "ended"
    DEADLINE = "deadline"
    QUEUE_TIMEOUT = "queue_timeout"
    PROGRESS_TIMEOUT = "progress_timeout"
    REFUSED = "refused"
    GONE = "gone"
    TURN = "turn"
    """The task may create jobs: it had to wait for room."""
    WAKE = "wake"
    """The report says nothing about a job: its reader has to ask the service."""


@dataclass(frozen=True, slots=True)
class WaitReport:
    """Why a wait is over, and what is known of its jobs.

    The jobs hold name, service, state, counts and error; everything else about them stays with the service. ``memo`` is
    the operator's own short text, returned unread. ``stalled`` names the stalled jobs. ``turns``: how many jobs the
    task may create. ``running_since``: when a job was first seen to run, by the clock of the process that waited; None
    if none was.
    """

    reason: Reason
    jobs: tuple[BatchJob, ...] = ()
    message: str = ""
    memo: str = ""
    stalled: tuple[str, ...] = ()
    turns: int = 0
    running_since: float | None = field(default=None, compare=False)


def to_event(report: WaitReport) -> dict[str, Any]:
    """Return a report as plain JSON values: small, without results, and without anything of the rows."""
    return {
        "version": VERSION,
        "reason": report.reason.value,
        "jobs": [_written(job) for job in report.jobs],
        "message": report.message[:_MAX_MESSAGE],
        "memo": report.memo,
        "stalled": list(report.stalled),
        "turns": report.turns,
        "running_since": report.running_since,
    }


def from_event(event: object) -> WaitReport:
    """Return the report in an event.

    Whatever is not a readable event of ours (another trigger's event, or another version's during an upgrade) becomes
    :attr:`Reason.WAKE`: a running job must not be lost because of a format, and the task can always ask the service.
    """
    if not isinstance(event, dict):
        return WaitReport(Reason.WAKE)
    memo = event.get("memo")
    memo = memo if isinstance(memo, str) else ""
    try:
        if event["version"] != VERSION:
            return WaitReport(Reason.WAKE, message=f"Event of version {event['version']!s:.20}", memo=memo)
        jobs = tuple(_read(job) for job in event["jobs"])
        stalled = tuple(str(name) for name in event.get("stalled") or ())
        turns = int(event.get("turns") or 0)
        since = event.get("running_since")
        since = float(since) if isinstance(since, int | float) else None
        return WaitReport(Reason(event["reason"]), jobs, str(event.get("message") or ""), memo, stalled, turns, since)
    except (KeyError, TypeError, ValueError, AttributeError):
        return WaitReport(Reason.WAKE, message="Event that cannot be read", memo=memo)


def _written(job: BatchJob) -> dict[str, Any]:
    error = job.error
    return {
        "name": job.name,
        "state": job.state.value,
        "raw_state": job.raw_state,
        "counts": job.completion_stats.model_dump() if job.completion_stats else None,
        "error": {"code": error.code, "message": error.message[:_MAX_ERROR]} if error else None,
    }


def _read(job: Mapping[str, Any]) -> BatchJob:
    state, counts, error = job["state"], job.get("counts"), job.get("error")
    return BatchJob(
        name=job["name"],
        service=Service.of_job(job["name"]),
        # A later version may know a state that this one does not: its raw name is kept, and it ends nothing.
        state=JobState(state) if state in JobState.__members__ else JobState.UNKNOWN,
        raw_state=job.get("raw_state") or state,
        completion_stats=CompletionStats(**counts) if counts else None,
        error=ServiceError(**error) if error else None,
    )
