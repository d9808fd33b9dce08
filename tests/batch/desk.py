"""One task instance over made-up ports: a service, a store, a clock and rows that do as they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from batch.made_up_jobs import INPUT, TASK, job, slot

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputUnavailable, NotFound, ResultsGone
from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.batch.ports import Landing, Plan, Policy, SleepUntil, TaskTry, WaitForJobs
from airflow_provider_gemini_batch.batch.run import BatchRun
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_gemini_batch.batch.tag import Tag

NOON = 1_800_000_000.0


def moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)


@dataclass
class Service:
    """A batch service whose answers are laid out before."""

    jobs: dict[str, BatchJob] = field(default_factory=dict)
    lost: list[Exception] = field(default_factory=list)
    down: Exception | None = None
    created: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    kept_inputs: list[str] = field(default_factory=list)
    sent_input: list[str | None] = field(default_factory=list)
    discarded: list[str | None] = field(default_factory=list)
    unsendable: set[int] = field(default_factory=set)
    hidden: bool = False
    state_of_new: JobState = JobState.RUNNING
    clock: Clock | None = None
    #: By how much the service's own clock, and that of a gateway's ``Date`` header, are ahead of the true time.
    ahead: float = 0.0
    date_ahead: float = 0.0

    def get(self, name: str) -> BatchJob:
        if name not in self.jobs:
            raise NotFound("no such job", http_status=404, status="NOT_FOUND")
        return self._dated(self.jobs[name])

    @property
    def listed_at(self) -> float | None:
        return None if self.clock is None else self.clock.true + self.date_ahead

    def find(self, identity: str) -> Iterable[BatchJob]:  # noqa: ARG002
        if self.down is not None:
            raise self.down
        return [] if self.hidden else [self._dated(one) for one in self.jobs.values()]

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)

    def end(self, name: str, state: JobState) -> None:
        self.jobs[name] = self.jobs[name].model_copy(update={"state": state})

    def _dated(self, one: BatchJob) -> BatchJob:
        if self.clock is None:
            return one
        return one.model_copy(update={"as_of": moment(self.clock.true + self.date_ahead)})

    def prepare(
        self,
        tag: Tag,
        rows: Sequence[int] | None,  # noqa: ARG002
        *,
        reuse: bool,  # noqa: ARG002
        completes: Sequence[str] = (),  # noqa: ARG002
    ) -> None:
        """Nothing is uploaded, and rows of some shards cannot be read."""
        if tag.shard in self.unsendable and tag.fingerprint == INPUT:
            raise InputUnavailable("The input reads differently.")

    def count_active(self, most: int) -> int:
        return min(most, sum(not one.is_done for one in self.jobs.values()))

    def keep(self, prepared: None, tag: Tag) -> str:  # noqa: ARG002
        self.kept_inputs.append(str(tag))
        return f"files/{len(self.kept_inputs)}"

    def kept(self, name: str, tag: Tag) -> str | None:  # noqa: ARG002
        return name

    def create(self, prepared: str | None, tag: Tag) -> BatchJob:
        self.sent_input.append(prepared)
        self.created.append(str(tag))
        if self.lost:
            raise self.lost.pop(0)
        made = job(
            self.state_of_new,
            name=f"batches/{len(self.created)}",
            submission=tag.submission,
            at=slot(clear_count=tag.clear_count, shard=tag.shard, round=tag.round, fingerprint=tag.fingerprint),
        )
        if self.clock is not None:
            made = made.model_copy(update={"create_time": moment(self.clock.true + self.ahead)})
        self.jobs[made.name] = made
        return self._dated(made)

    def discard(self, prepared: str | None) -> None:
        """Note what is removed."""
        self.discarded.append(prepared)

    def remove_inputs(self, jobs: Sequence[BatchJob]) -> None:
        """Nothing is left over."""


@dataclass
class Store:
    """Notes that outlive a process, or do not."""

    lasting: bool = True
    text: str | None = None
    broken: bool = False

    def load(self) -> str | None:
        if self.broken:
            raise ConnectionError("the metadata database is not there")
        return self.text

    def save(self, text: str) -> None:
        if self.lasting:
            self.text = text


@dataclass
class Clock:
    """Time that passes only when somebody waits. ``ahead``: of the true time, by this worker's clock."""

    time: float = NOON
    ahead: float = 0.0

    @property
    def true(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time + self.ahead

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Work:
    """Rows whose answers are all good."""

    fingerprint: str = INPUT
    shards: int = 1
    told: bool | Collection[str] | None = None
    forgotten: bool = False
    unreadable: bool = False
    read: int = 0
    #: Jobs whose results are no longer kept.
    gone: set[str] = field(default_factory=set)
    landed: list[str] = field(default_factory=list)

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        if self.unreadable:
            raise ConfigurationError("no such file")
        if not note:
            self.read += 1
        fingerprint = note.get("fingerprint", self.fingerprint)
        return Plan(fingerprint, self.shards, can_resend=True, note={"fingerprint": fingerprint})

    def forget_input(self) -> Plan:
        self.forgotten = True
        return Plan(None, self.shards, can_resend=False)

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:  # noqa: ARG002
        self._check_kept(jobs)
        undone = tuple(range(10)) if any(one.cancelled for one in jobs) else ()
        return Landing(10, 10 - len(undone), len(undone), repairable=undone)

    def _check_kept(self, jobs: Sequence[BatchJob]) -> None:
        if self.gone.intersection(one.name for one in jobs):
            raise ResultsGone("no longer kept")

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        self._check_kept(jobs)
        self.landed = [one.name for one in jobs]
        return Landing(10, 10, 0, responses=[])

    def was_delivered(self, job_name: str) -> bool | None:
        return self.told if self.told is None or isinstance(self.told, bool) else job_name in self.told


@dataclass
class Desk:
    """All that one task instance has to do with."""

    service: Service = field(default_factory=Service)
    store: Store = field(default_factory=Store)
    clock: Clock = field(default_factory=Clock)
    work: Work = field(default_factory=Work)

    def run(
        self,
        *,
        clear_count: int = 0,
        first_try: bool = True,
        last_try: bool = False,
        try_number: int = 0,
        **policy: Any,
    ) -> BatchRun:
        return BatchRun(
            TaskTry(
                identity=TASK.digest,
                clear_count=clear_count,
                try_number=try_number or (1 if first_try else 2),
                last_try=last_try,
                policy=Policy(service_wait=49 * 3600.0, **policy),
                service=self.service,
                store=self.store,
                clock=self.clock,
                rows=self.work,
            )
        )


def until_it_waits(desk: Desk, **arguments: Any) -> WaitForJobs:
    """Run a try until it waits for its jobs; whatever it sleeps passes."""
    report: WaitReport | None = None
    for _ in range(100):
        step = desk.run(**arguments).advance(report)
        if isinstance(step, WaitForJobs):
            return step
        assert isinstance(step, SleepUntil)
        desk.clock.time = max(desk.clock.time, step.at)
        report = WaitReport(Reason.WAKE, memo=step.memo)
    raise AssertionError("it sleeps for ever")
