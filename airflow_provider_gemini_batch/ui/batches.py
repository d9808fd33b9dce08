"""From rows of Airflow's database to what is shown of a batch: its state in words, its numbers, its times."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.api.states import NEVER_STARTED, JobState
from airflow_provider_gemini_batch.batch.overview import (
    LARGEST,
    JobOverview,
    Overview,
    Progress,
    read_overview,
    read_progress,
)
from airflow_provider_gemini_batch.ui.addresses import Place
from airflow_provider_gemini_batch.ui.queries import ACTIVE
from airflow_provider_gemini_batch.ui.texts import moment

if TYPE_CHECKING:
    from datetime import datetime

_MOST_MEASURED: Final = 500
_LONGEST: Final = 300
_DAY, _WEEK = timedelta(days=1), timedelta(days=7)
_ACTIVE: Final = frozenset(ACTIVE)
# By dialect.
_TRUE: Final = (True, 1, "1", "true")


class State(str, Enum):
    """The state of a batch in words, the same on the page, in the log and on the command line."""

    SCHEDULED = "scheduled"
    SUBMITTING = "submitting"
    WAITING_FOR_QUOTA = "waiting for quota"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    REPAIRING = "repairing"
    LANDING = "landing"
    RETRYING = "retrying"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_active(self) -> bool:
        """True while something may still change."""
        return self not in _ENDED

    @property
    def tone(self) -> str:
        """The name of the colour for the state."""
        return _TONES.get(self, "blue")


_ENDED: Final = frozenset({State.SUBMITTED, State.SUCCEEDED, State.FAILED, State.SKIPPED})
_TONES: Final = {
    State.SCHEDULED: "grey",
    State.WAITING_FOR_QUOTA: "amber",
    State.WAITING: "amber",
    State.QUEUED: "violet",
    State.RETRYING: "amber",
    State.SUBMITTED: "grey",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.SKIPPED: "grey",
}
# Of jobs.
_JOB_TONES: Final[dict[str, str]] = {
    JobState.QUEUED: "violet",
    JobState.PENDING: "violet",
    JobState.SUCCEEDED: "green",
    JobState.PARTIALLY_SUCCEEDED: "amber",
    JobState.FAILED: "red",
    JobState.EXPIRED: "red",
    JobState.CANCELLED: "grey",
}
_BY_TASK: Final = {
    "success": State.SUCCEEDED,
    "failed": State.FAILED,
    "upstream_failed": State.FAILED,
    "skipped": State.SKIPPED,
    "removed": State.SKIPPED,
    "restarting": State.RETRYING,
    "up_for_retry": State.RETRYING,
    "up_for_reschedule": State.RETRYING,
}
_BY_PHASE: Final = {
    "submitting": State.SUBMITTING,
    "waiting for quota": State.WAITING_FOR_QUOTA,
    "waiting": State.WAITING,
    "landing": State.LANDING,
    "repairing": State.REPAIRING,
}


def job_tone(job_state: str) -> str:
    """Return the name of the colour for the state of a job."""
    return _JOB_TONES.get(job_state, "blue")


def state_of(task_state: str | None, phase: str, *, has_started: bool) -> State:
    """Return the state of a batch.

    :param task_state: Airflow's own: it decides whether the batch has ended.
    :param phase: what the task last did, from its overview.
    :param has_started: whether the service has begun with any of its jobs.
    """
    if task_state in _BY_TASK:
        known = _BY_TASK[task_state]
        return State.SUBMITTED if known is State.SUCCEEDED and phase == "submitted" else known
    if task_state not in ("running", "deferred"):
        return State.SCHEDULED
    return _BY_PHASE.get(phase) or (State.RUNNING if has_started else State.QUEUED)


class Short:
    """A row of a scan: the few values of a batch that are needed to filter, add up and sort.

    There are thousands, and most are only needed for their state, so the numbers are read when they are asked for.
    """

    __slots__ = ("_row", "state")

    def __init__(self, row: Any) -> None:
        self._row = row
        # Only of active tasks: a scan with ``costs`` does not read when the jobs of others began.
        has_started = row.state in _ACTIVE and _has_started(row)
        self.state = state_of(row.state, row.phase or "", has_started=has_started)

    @property
    def key(self) -> tuple[int, str, int]:
        """Run, task and map index."""
        return self._row.dag_run_id, self._row.task_id, self._row.map_index

    @property
    def dag_id(self) -> str:
        """The Dag."""
        found: str = self._row.dag_id
        return found

    @property
    def is_found(self) -> bool:
        """Whether its names contain the text of the search."""
        return bool(self._row.found)

    @property
    def model(self) -> str:
        """The model; empty where it is not known."""
        return str(self._row.model or "")[:_LONGEST]

    @property
    def began(self) -> datetime | None:
        """When the try began."""
        return moment(self._row.start_date)

    @property
    def ended(self) -> datetime | None:
        """When it ended; None while it is active."""
        return moment(self._row.end_date) if self._row.state not in _ACTIVE else None

    @property
    def rows(self) -> int | None:
        """Rows of the whole batch."""
        return _int(self._row.total) or _int(self._row.progress_total)

    @property
    def usd(self) -> float | None:
        """The cost; None without a price."""
        return _float(self._row.usd)

    @property
    def is_upper_bound(self) -> bool:
        """Whether the cost is an upper bound."""
        return self._row.is_upper_bound in _TRUE

    @property
    def is_open_bound(self) -> bool:
        """Whether the cost may be more, since something that is billed is missing from it."""
        return self._row.is_open_bound in _TRUE

    @property
    def queue_seconds(self) -> float | None:
        """How long the first job waited at the service."""
        submitted = _float(self._row.submitted_at)
        started = _float(self._row.started_at) or _float(self._row.progress_started_at)
        return started - submitted if started and submitted and started >= submitted else None

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens in and out, thinking included; only in a scan with ``costs``."""
        row = self._row
        return _int(row.input_tokens) or 0, (_int(row.output_tokens) or 0) + (_int(row.thinking_tokens) or 0)


def _has_started(row: Any) -> bool:
    started = _float(row.started_at) or _float(row.progress_started_at) or _int(row.progress_done)
    return bool(started) or _has_begun(row.progress_state or "")


@dataclass
class Tiles:
    """The numbers above the list: what is active, what failed within a day, and what the batches of a week cost."""

    now: datetime
    active: int = 0
    rows: int = 0
    failed: int = 0
    usd: float | None = None
    is_upper_bound: bool = False
    is_open_bound: bool = False
    _seen: int = 0
    _waited: list[float] = field(default_factory=list)

    def add(self, batch: Short) -> None:
        """Count a batch; the newest come first."""
        self._seen += 1
        if self._seen <= _MOST_MEASURED and (waited := batch.queue_seconds) is not None:
            self._waited.append(waited)
        if batch.state.is_active:
            self.active += 1
            self.rows += batch.rows or 0
        ended = batch.ended
        if ended is None or (age := self.now - ended) > _WEEK:
            return
        self.failed += batch.state is State.FAILED and age <= _DAY
        if (usd := batch.usd) is not None:
            self.usd = (self.usd or 0.0) + usd
            self.is_upper_bound |= batch.is_upper_bound
            self.is_open_bound |= batch.is_open_bound

    @property
    def queue_seconds(self) -> float | None:
        """The median time in the queue."""
        return median(self._waited) if self._waited else None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, as a list and its own page show it."""

    place: Place
    label: str
    run_date: datetime | None
    task_state: str
    try_number: int
    tries: int
    began: datetime | None
    ended: datetime | None
    state: State
    overview: Overview
    progress: Progress
    now: float

    @property
    def total(self) -> int | None:
        """Rows of the whole batch."""
        return self.overview.total if self.overview.total is not None else self.progress.total

    @property
    def is_landed(self) -> bool:
        """Whether rows were landed, so that their numbers are final."""
        return self.overview.succeeded is not None

    @property
    def failed(self) -> int | None:
        """Failed rows: as landed, else as the service counts them."""
        return self.overview.failed if self.is_landed else self.progress.failed

    @property
    def good(self) -> int | None:
        """Successful rows: as landed, else as the service counts them."""
        if self.is_landed:
            return self.overview.succeeded
        return None if self.progress.done is None else max(0, self.progress.done - (self.progress.failed or 0))

    @property
    def rows_text(self) -> str:
        """The rows in words, for the text beside the bar."""
        total, good, failed = self.total, self.good, self.failed
        if self.is_landed and not self.state.is_active:
            return f"{good or 0:,} ok" + (f", {failed:,} failed" if failed else "")
        if total is None:
            return "" if good is None else f"{good:,} done"
        return f"{good or 0:,} of {total:,}" + (f", {failed:,} failed" if failed else "")

    @property
    def queue_seconds(self) -> float | None:
        """How long the first job waited until the service started it, or has waited so far."""
        submitted = self.overview.submitted_at
        if submitted is None:
            return None
        if self.started_at is not None:
            return max(0.0, self.started_at - submitted)
        return max(0.0, self.now - submitted) if self.state is State.QUEUED else None

    @property
    def started_at(self) -> float | None:
        """When the service started the first job."""
        return self.overview.started_at or self.progress.started_at

    @property
    def running_seconds(self) -> float | None:
        """How long the service has worked on it, or worked until its end."""
        if self.started_at is None:
            return None
        ends = [job.ended_at for job in self.overview.jobs]
        known = [end for end in ends if end is not None]
        if known and len(known) == len(ends):
            return max(0.0, max(known) - self.started_at)
        end = self.now if self.state.is_active else self.ended.timestamp() if self.ended else None
        return None if end is None else max(0.0, end - self.started_at)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until all rows are done, at the pace so far."""
        left, at = self.progress.seconds_left, self.progress.at
        if left is None or self.state not in (State.RUNNING, State.REPAIRING):
            return None
        return max(0.0, left - (self.now - at if at is not None and at <= self.now else 0.0))

    @property
    def is_late(self) -> bool:
        """Whether the batch is still running after its estimated end."""
        return self.seconds_left == 0.0

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Tokens in and out; thinking counts as output."""
        seen = self.overview
        if seen.input_tokens is None and seen.output_tokens is None:
            return None, None
        return seen.input_tokens, (seen.output_tokens or 0) + (seen.thinking_tokens or 0)

    @property
    def jobs(self) -> tuple[JobOverview, ...]:
        """The jobs; those that run have the trigger's last snapshot."""
        return tuple(self._now(job) for job in self.overview.jobs)

    def _now(self, job: JobOverview) -> JobOverview:
        seen = self.progress.jobs.get(job.name)
        if seen is None or job.ended_at is not None:
            return job
        state, total, done, failed = seen
        total = job.total if total is None else total
        return replace(job, state=state or job.state, total=total, done=done, failed=failed)


def read_batch(row: Any, *, now: float) -> Batch:
    """Return the batch in a row of :func:`.queries.load` or :func:`.queries.find`.

    :param now: seconds since the epoch.
    """
    overview = read_overview(row.overview) or Overview(phase="")
    progress = read_progress(row.progress)
    # Times and counts prove a start, even if the trigger's last snapshot before the task resumed has an older state.
    begun = bool(overview.started_at or progress.started_at or progress.done) or _has_begun(progress.state)
    return Batch(
        place=Place(row.dag_id, row.run_id, row.task_id, row.map_index),
        label=(row.rendered_map_index or str(row.map_index)) if row.map_index >= 0 else "",
        run_date=row.logical_date or row.run_after,
        task_state=row.state or "none",
        try_number=row.try_number,
        tries=row.max_tries + 1,
        began=row.start_date,
        ended=None if row.state in ACTIVE else row.end_date,
        state=state_of(row.state, overview.phase, has_started=begun),
        overview=overview,
        progress=progress,
        now=now,
    )


def _has_begun(job_state: str) -> bool:
    return bool(job_state) and job_state not in NEVER_STARTED


def _float(value: object) -> float | None:
    """Return a number from JSON in the database: some dialects return a number, others its text."""
    if value is None:
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # anything may stand there
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < LARGEST else None


def _int(value: object) -> int | None:
    found = _float(value)
    return None if found is None else int(found)
