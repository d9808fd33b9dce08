"""The batch service of the simulation: jobs that live on their own, lists that lag, answers that get lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ResultsGone,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobState, Service, ServiceError
from simulation.clockwork import RIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation.clockwork import Clockwork, Skew

NEVER = float("inf")
_ANSWERED = frozenset({JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED, JobState.EXPIRED, JobState.CANCELLED})


@dataclass(frozen=True)
class Weather:
    """How the service behaves in one schedule. Times in seconds, the rest are chances."""

    lost: float = 0.0
    """A create call has no readable answer; half of them were acted on, at once or late."""
    quota: float = 0.0
    refused: float = 0.0
    """Any other call fails for a while."""
    flaky_404: float = 0.0
    lag: float = 0.0
    """The longest time until a job shows up in the list."""
    late: float = 0.0
    """The longest time after sending at which a call is still acted on."""
    duration: float = 600.0
    failing: float = 0.0
    """A job fails, of the service's own fault."""
    hopeless: float = 0.0
    """A job fails, and would fail again."""
    expiring: float = 0.0
    stuck: float = 0.0
    """A job never leaves the queue; its successors do."""
    bad_rows: float = 0.0
    cancel_delay: float = 30.0
    cancel_in_vain: float = 0.0
    """A cancelled job succeeds all the same."""
    says_cancelling: bool = False
    retention: float = NEVER
    longest: float = 48 * 3600.0


@dataclass(eq=False)
class Job:
    """A job as the service knows it."""

    name: str
    display_name: str
    rows: tuple[int, ...]
    made: float
    listed: float
    started: float
    ends: float
    ending: JobState
    code: int | None = None
    good: dict[int, bool] = field(default_factory=dict)
    finished: dict[int, float] = field(default_factory=dict)
    cancel_asked: float | None = None
    deleted: bool = False
    denied: float = 0.0

    def state(self, now: float) -> JobState:
        """Tell the state at a time."""
        if now >= self.ends:
            return self.ending
        return JobState.RUNNING if now >= self.started else JobState.PENDING

    def answers(self, now: float) -> dict[int, bool]:
        """Tell which rows are done by now, and whether well: what is paid for."""
        if self.ending is JobState.FAILED and now >= self.ends:
            return {}
        return {row: self.good[row] for row, when in self.finished.items() if when <= min(now, self.ends)}

    def good_rows(self, now: float) -> set[int]:
        """Tell which rows have a good answer."""
        return {row for row, good in self.answers(now).items() if good}


class World:
    """The service: all jobs there are, and every call that can be made."""

    def __init__(self, clock: Clockwork, weather: Weather, own: Skew = RIGHT, gateway: Skew = RIGHT) -> None:
        """Start without jobs.

        :param own: the service's clock.
        :param gateway: the clock behind the ``Date`` header.
        """
        self._clock = clock
        self._own = own
        self._gateway = gateway
        self.weather = weather
        self.jobs: dict[str, Job] = {}
        #: Rows that were uploaded, by the name of the upload.
        self.files: dict[str, tuple[int, ...]] = {}
        self.locked_out = False
        self.on_made: Callable[[Job, str], None] = lambda _job, _by: None
        self.on_stop: Callable[[Job, str], None] = lambda _job, _by: None
        self._random = clock.random

    # -- jobs

    def make(self, display_name: str, rows: Sequence[int], *, by: str) -> Job:
        """Make a job and decide its whole life."""
        rnd, weather, now = self._random, self.weather, self._clock.now
        duration = weather.duration * rnd.uniform(0.3, 1.7)
        started = now + duration * rnd.uniform(0.0, 0.5)
        ending, code, dice = JobState.SUCCEEDED, None, rnd.random()
        if dice < weather.failing:
            ending, code = JobState.FAILED, rnd.choice([8, 13, 14, 4, 2, None])
        elif dice < weather.failing + weather.hopeless:
            ending, code = JobState.FAILED, rnd.choice([3, 5, 7, 9])
        elif dice < weather.failing + weather.hopeless + weather.expiring:
            ending = rnd.choice([JobState.EXPIRED, JobState.EXPIRED, JobState.PARTIALLY_SUCCEEDED])
        elif dice < weather.failing + weather.hopeless + weather.expiring + weather.stuck:
            ending, started, duration = JobState.EXPIRED, NEVER, weather.longest
        ends = now + max(duration, 1.0)
        job = Job(
            name=f"batches/{len(self.jobs):03d}",
            display_name=display_name,
            rows=tuple(rows),
            made=now,
            listed=now + (rnd.uniform(0.0, weather.lag) if rnd.random() < 0.5 else 0.0),
            started=started,
            ends=ends,
            ending=ending,
            code=code,
        )
        cut = ending in (JobState.EXPIRED, JobState.PARTIALLY_SUCCEEDED)
        for row in job.rows:
            job.good[row] = rnd.random() >= weather.bad_rows
            if started < ends and not (cut and rnd.random() < 0.4):
                job.finished[row] = rnd.uniform(started, ends)
        self.jobs[job.name] = job
        self._clock.note(f"service: {job.name} made by {by} as {display_name} for {list(rows)}; will be {ending.value}")
        self.on_made(job, by)
        return job

    def stop(self, job: Job, by: str) -> None:
        """Have a job cancelled, which takes time and may come too late."""
        now = self._clock.now
        if job.state(now).is_terminal or job.cancel_asked is not None:
            return
        job.cancel_asked = now
        self.on_stop(job, by)
        self._clock.note(f"service: {by} asks for the end of {job.name}")
        end = now + self._random.uniform(0.0, self.weather.cancel_delay)
        if end >= job.ends:
            return
        if job.started <= end and self._random.random() < self.weather.cancel_in_vain:
            job.ends, job.ending = end, JobState.SUCCEEDED
            for row in job.rows:
                # What was not served is answered with an error.
                if job.finished.get(row, NEVER) > end:
                    job.good[row] = False
                job.finished[row] = min(job.finished.get(row, end), end)
        else:
            job.ends, job.ending = end, JobState.CANCELLED
        job.code = None

    def shown(self, job: Job) -> BatchJob:
        """Write a job as the service shows it now, by its own clock."""
        now, weather = self._clock.now, self.weather
        state = job.state(now)
        if weather.says_cancelling and job.cancel_asked is not None and not state.is_terminal:
            state = JobState.CANCELLING
        answers = job.answers(now)
        good = sum(answers.values())
        started = job.started <= min(now, job.ends)
        return BatchJob(
            name=job.name,
            service=Service.GEMINI,
            state=state,
            raw_state=state.value,
            display_name=job.display_name,
            model="gemini-2.5-flash",
            create_time=self._time(job.made),
            start_time=self._time(job.started) if started else None,
            end_time=self._time(job.ends) if state.is_terminal else None,
            as_of=datetime.fromtimestamp(self.date(), tz=timezone.utc),
            completion_stats=CompletionStats(
                total=len(job.rows),
                success=good,
                failure=len(answers) - good,
                pending=len(job.rows) - len(answers),
            ),
            error=ServiceError(code=job.code, message="told by the service") if state is JobState.FAILED else None,
        )

    def date(self) -> float:
        """Tell the time of the ``Date`` header, which is a gateway's."""
        return self._gateway.at(self._clock.now)

    def _time(self, when: float) -> datetime:
        return datetime.fromtimestamp(self._own.at(when), tz=timezone.utc)

    # -- calls

    def weather_check(self) -> None:
        """Fail as any call may fail."""
        if self.locked_out:
            raise AccessDenied("key refused", http_status=401)
        if self._clock.chance(self.weather.refused):
            raise self._random.choice(
                [
                    ServiceUnavailable("503", http_status=503),
                    TransportError("reset", sent=True),
                    QuotaExceeded("429", http_status=429, retry_after=self._random.choice([None, 3.0])),
                ]
            )

    def get(self, name: str) -> BatchJob:
        """Show one job."""
        self.weather_check()
        job = self.jobs.get(name)
        if job is None or job.deleted or self._denied(job):
            raise NotFound("no such job", http_status=404, status="NOT_FOUND")
        return self.shown(job)

    def _denied(self, job: Job) -> bool:
        """Whether the service denies a job for a moment: never twice within minutes."""
        if self._clock.now - job.denied < 600.0 or not self._clock.chance(self.weather.flaky_404):
            return False
        job.denied = self._clock.now
        return True

    def listed(self) -> list[BatchJob]:
        """Show the list, newest first, without what does not show up yet."""
        self.weather_check()
        now = self._clock.now
        jobs = [job for job in self.jobs.values() if job.listed <= now and not job.deleted]
        return [self.shown(job) for job in reversed(jobs)]

    def cancel(self, name: str, by: str) -> None:
        """Take a wish to cancel."""
        self.weather_check()
        job = self.jobs.get(name)
        if job is not None and not job.deleted:
            self.stop(job, by)

    def answers(self, name: str) -> dict[int, bool]:
        """Give the answers of an ended job."""
        self.weather_check()
        job = self.jobs[name]
        now = self._clock.now
        if job.deleted:
            raise NotFound("no such job", http_status=404, status="NOT_FOUND")
        if job.ending not in _ANSWERED or now - job.ends > self.weather.retention:
            raise ResultsGone(f"{name}: no results")
        return job.answers(now)

    def fate_of_create(self) -> tuple[str, float, GeminiBatchError | None]:
        """Decide about one create call: whether and when it is acted on, and what the caller hears.

        Returns ``(acted, delay, error)``: acted is ``now``, ``late`` or ``never``; ``delay`` is how late.
        """
        rnd, weather = self._random, self.weather
        if self.locked_out:
            return "never", 0.0, AccessDenied("key refused", http_status=401)
        if self._clock.chance(weather.quota):
            return "never", 0.0, QuotaExceeded("429", http_status=429, retry_after=rnd.choice([None, 5.0, 90.0]))
        if not self._clock.chance(weather.lost):
            return "now", 0.0, None
        error: GeminiBatchError = rnd.choice(
            [
                TransportError("reset", sent=True),
                ServiceUnavailable("503", http_status=503, status="UNAVAILABLE"),
                UnexpectedResponse("not JSON"),
                TransportError("refused", sent=False),
                ApiError("bad request", http_status=400),
            ]
        )
        if not error.may_have_acted:
            # A refusal that stays would be the author's mistake; here it is a proxy's bad minute.
            return (
                "never",
                0.0,
                error if isinstance(error, TransportError) else ServiceUnavailable("502", http_status=502),
            )
        return rnd.choice(["now", "late", "never"]), rnd.uniform(0.0, weather.late), error
