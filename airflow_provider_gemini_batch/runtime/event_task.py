"""What a running event trigger does: list the jobs of a connection, and fire one event for each that has ended.

One stream for each connection lists the jobs (:func:`rounds_of_ended_jobs`); each trigger picks those it is for
(:func:`events`) and keeps a cursor, so that after a restart of the triggerer no end is missed or reported again.

The cursor is a time of ending by the service's clock, with the jobs reported in the quarter of an hour before it, since
ends may show up late and out of order. It is saved a round after the events were handed to Airflow, which needs a
moment to store them: a triggerer that is killed in between fires them again, but never leaves one out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from airflow_provider_gemini_batch.api.errors import AccessDenied, GeminiBatchError
from airflow_provider_gemini_batch.api.paging import pages_of
from airflow_provider_gemini_batch.polling.policy import job_age, poll_delay
from airflow_provider_gemini_batch.polling.within import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob, BatchJobPage
    from airflow_provider_gemini_batch.polling.lease import PollerLease

log = logging.getLogger(__name__)

_EPOCH: Final = datetime.fromtimestamp(0, tz=timezone.utc)
CURSOR_KEY: Final = "gemini_batch_ended_jobs"
# No job takes longer than four days; a triggerer that was down for that long still finds its end.
_OLDEST: Final = timedelta(days=8)
# How late the end of a job may show up after its time of ending.
_LATE: Final = timedelta(minutes=15)
_PAGE_SIZE: Final = 100
# The first request of a triggerer after its start can take long, and without the cursor ends would be missed.
_STORE_PATIENCE: Final = 60.0
_STORE_TRIES: Final = 5
_STORE_PAUSE: Final = 5.0


class JobLister(Protocol):
    """What the stream needs of a client."""

    def list(self, *, page_size: int = _PAGE_SIZE, page_token: str | None = None, brief: bool = False) -> BatchJobPage:
        """Return one page of jobs, newest first."""


class CursorStore(Protocol):
    """Where Airflow keeps the cursor of a trigger: the state store of its asset (Airflow 3.3)."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""

    async def aset(self, key: str, value: Any) -> None:
        """Store a value."""


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a trigger is for. Names may hold ``*`` and ``?``; an empty member matches all."""

    display_name: str = ""
    model: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    states: Sequence[str] = ()

    def matches(self, job: BatchJob) -> bool:
        """Return whether the trigger is for a job that has ended."""
        return (
            (not self.display_name or _fits(job.display_name, self.display_name))
            and (not self.model or _fits(job.model, self.model.removeprefix("models/")))
            and all(job.labels.get(key) == value for key, value in self.labels.items())
            and (not self.states or job.state.value in self.states)
        )


class EndedJobs:
    """The jobs of a connection that are known to have ended, and those that have not."""

    def __init__(self) -> None:
        self.ended: dict[str, BatchJob] = {}
        # By the service's clock, when it last responded.
        self._now: datetime | None = None
        self._open: set[str] = set()

    def read(self, client: JobLister) -> tuple[BatchJob, ...]:
        """Return all jobs that are known to have ended, the first to end first; called in a thread.

        The list is read, newest first, until all further jobs are known to have ended.
        """
        known = set(self.ended)
        left = set(self._open)
        for page in pages_of(lambda token: client.list(page_size=_PAGE_SIZE, page_token=token, brief=True)):
            self._now = page.as_of or self._now
            for job in page.batch_jobs:
                left.discard(job.name)
                if job.is_done:
                    self.ended[job.name] = job
                    self._open.discard(job.name)
                else:
                    self._open.add(job.name)
            last = page.batch_jobs[-1] if page.batch_jobs else None
            if last is not None and (_is_old(last) or (not left and last.name in known)):
                break
        self._open -= left  # deleted, or too old to end
        if self._now is not None and len(self.ended) > len(known):
            oldest = self._now - _OLDEST
            self.ended = {name: job for name, job in self.ended.items() if ended_at(job) > oldest}
        return tuple(sorted(self.ended.values(), key=ended_at))


@dataclass
class Cursor:
    """How far a trigger has come: the time of the last end it reported, and the jobs that ended shortly before."""

    since: datetime
    reported: dict[str, datetime] = field(default_factory=dict)

    @classmethod
    def after(cls, jobs: Iterable[BatchJob]) -> Cursor:
        """Return the cursor of a new trigger: jobs that have ended already are not reported."""
        cursor = cls(_EPOCH)
        for job in jobs:
            cursor.note(job)
        return cursor

    def is_new(self, job: BatchJob) -> bool:
        """Return whether the end of a job has not been reported."""
        return ended_at(job) > self.since - _LATE and _digest(job.name) not in self.reported

    def note(self, job: BatchJob) -> None:
        """Record that the end of a job was reported."""
        self.reported[_digest(job.name)] = ended_at(job)
        self.since = max(self.since, ended_at(job))
        self.reported = {name: at for name, at in self.reported.items() if at > self.since - _LATE}

    def to_value(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"since": self.since.isoformat(), "told": {name: at.isoformat() for name, at in self.reported.items()}}

    @classmethod
    def read(cls, value: object) -> Cursor | None:
        """Return the cursor in a stored value; None for anything else."""
        try:
            since, told = value["since"], value["told"]  # type: ignore[index]  # whatever it is
            cursor = cls(_moment(since), {name: _moment(at) for name, at in told.items()})
        except (TypeError, KeyError, ValueError, AttributeError):
            return None
        return cursor


async def rounds_of_ended_jobs(lease: PollerLease, poll_interval: float) -> AsyncIterator[tuple[BatchJob, ...]]:
    """Yield, again and again, all jobs that are known to have ended; errors are waited out, however long they last."""
    jobs, failures = EndedJobs(), 0
    try:
        while True:
            try:
                ended = await lease.poller.call(lambda client: jobs.read(cast("JobLister", client)))
            except GeminiBatchError as error:
                failures += 1
                if failures == 1:
                    log.warning("Could not list the jobs (%s); will keep trying.", error)
                if isinstance(error, AccessDenied):
                    lease.poller.renew()
            else:
                if failures:
                    log.info("Listing the jobs works again after %d failures.", failures)
                failures = 0
                yield ended
            await asyncio.sleep(poll_delay(None, poll_interval, failures=failures))
    finally:
        lease.release()


async def events(
    rounds: AsyncIterator[tuple[BatchJob, ...]], wanted: JobFilter, store: CursorStore | None
) -> AsyncIterator[dict[str, Any]]:
    """Yield the payload of an event for each job that ends and that the trigger is for.

    :param store: keeps the cursor; without one, jobs that end while no triggerer runs are not reported.
    """
    cursor = await _load(store)
    is_saved = cursor is not None
    async for ended in rounds:
        if cursor is None:
            cursor = Cursor.after(ended)
        if not is_saved:
            is_saved = await _save(store, cursor)
        for job in ended:
            if cursor.is_new(job):
                cursor.note(job)
                is_saved = False
                if wanted.matches(job):
                    yield payload_of(job)


def payload_of(job: BatchJob) -> dict[str, Any]:
    """Return what an event says of a job: names, numbers and times, and nothing of its rows."""
    stats = job.completion_stats
    return {
        "job_name": job.name,
        "state": job.state.value,
        "model": job.model,
        "display_name": job.display_name,
        "labels": dict(job.labels),
        "counts": {"total": stats.total, "succeeded": stats.success, "failed": stats.failure} if stats else None,
        "error": {"code": job.error.code, "message": job.error.message} if job.error else None,
        "ended_at": ended_at(job).isoformat(),
    }


def ended_at(job: BatchJob) -> datetime:
    """Return when a job ended, by the service's clock, as precisely as the service says."""
    return job.end_time or job.update_time or job.create_time or _EPOCH


def _fits(name: str, pattern: str) -> bool:
    """Return whether a name fits a pattern in which only ``*`` and ``?`` are special."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _moment(text: str) -> datetime:
    """Return a time that a cursor can calculate with, or raise ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or moment.year < _EPOCH.year:
        raise ValueError(text)
    return moment


def _is_old(job: BatchJob) -> bool:
    return (job_age(job) or 0.0) > _OLDEST.total_seconds()


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


async def _load(store: CursorStore | None) -> Cursor | None:
    if store is None:
        return None
    for _ in range(_STORE_TRIES):
        try:
            kept = await within(_STORE_PATIENCE, store.aget(CURSOR_KEY), cancels=False)
        except Exception as error:  # noqa: BLE001, PERF203  whatever it is, it may pass
            last = type(error).__name__
            await asyncio.sleep(_STORE_PAUSE)
        else:
            cursor = Cursor.read(kept)
            if cursor is not None or kept is None:
                return cursor
            last = "the stored value is damaged"
            break
    log.warning("Could not read how far this trigger had come (%s); jobs that ended meanwhile fire no event.", last)
    return None


async def _save(store: CursorStore | None, cursor: Cursor) -> bool:
    """Return whether the cursor need not be saved again."""
    if store is None:
        return True
    try:
        await within(_STORE_PATIENCE, store.aset(CURSOR_KEY, cursor.to_value()), cancels=False)
    except Exception as error:  # noqa: BLE001  as above
        log.warning(
            "Could not save how far this trigger has come (%s); it may fire events twice.", type(error).__name__
        )
        return False
    return True
