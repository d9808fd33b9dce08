"""A run over made-up ports: what it writes down, and what it leaves alone when its time is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from batch.made_up_jobs import INPUT, OTHER_INPUT, TASK, job, slot

from airflow_provider_gemini_batch.api.errors import InputUnavailable, ServiceUnavailable, TransportError
from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.batch.ports import (
    Done,
    Landing,
    Plan,
    Policy,
    SleepUntil,
    TaskFailed,
    TaskTry,
    WaitForJobs,
)
from airflow_provider_gemini_batch.batch.run import BatchRun
from airflow_provider_gemini_batch.batch.state import BatchState, JobRecord, PendingCreate
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_gemini_batch.batch.tag import Tag

NOON = 1_800_000_000.0


@dataclass
class Service:
    """A batch service whose answers are laid out before."""

    jobs: dict[str, BatchJob] = field(default_factory=dict)
    lost: list[Exception] = field(default_factory=list)
    down: Exception | None = None
    created: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    unsendable: set[int] = field(default_factory=set)

    def get(self, name: str) -> BatchJob:
        return self.jobs[name]

    def find(self, identity: str) -> Iterable[BatchJob]:  # noqa: ARG002
        if self.down is not None:
            raise self.down
        return list(self.jobs.values())

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)

    def prepare(self, tag: Tag, rows: Sequence[int] | None, *, reuse: bool) -> None:  # noqa: ARG002
        """Nothing is uploaded, and rows of some shards cannot be read."""
        if tag.shard in self.unsendable and tag.fingerprint == INPUT:
            raise InputUnavailable("The input reads differently.")

    def create(self, prepared: None, tag: Tag) -> BatchJob:  # noqa: ARG002
        self.created.append(str(tag))
        if self.lost:
            raise self.lost.pop(0)
        made = job(
            JobState.RUNNING,
            name=f"batches/{len(self.created)}",
            submission=tag.submission,
            at=slot(clear_count=tag.clear_count, shard=tag.shard, fingerprint=tag.fingerprint),
        )
        self.jobs[made.name] = made
        return made

    def discard(self, prepared: None) -> None:
        """Nothing was uploaded."""

    def ended(self, jobs: Sequence[BatchJob]) -> None:
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
    """Time that passes only when somebody waits."""

    time: float = NOON

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Work:
    """Rows whose answers are all good."""

    fingerprint: str = INPUT
    shards: int = 1
    told: bool | None = None
    forgotten: bool = False
    read: int = 0
    landed: list[str] = field(default_factory=list)

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        if not note:
            self.read += 1
        fingerprint = note.get("fingerprint", self.fingerprint)
        return Plan(fingerprint, self.shards, can_resend=True, note={"fingerprint": fingerprint})

    def forget_input(self) -> Plan:
        self.forgotten = True
        return Plan(None, self.shards, can_resend=False)

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:  # noqa: ARG002
        undone = tuple(range(10)) if any(one.cancelled for one in jobs) else ()
        return Landing(10, 10 - len(undone), len(undone), repairable=undone)

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        self.landed = [one.name for one in jobs]
        return Landing(10, 10, 0, responses=[])

    def was_delivered(self, job_name: str) -> bool | None:  # noqa: ARG002
        return self.told


@dataclass
class Desk:
    """All that one task instance has to do with."""

    service: Service = field(default_factory=Service)
    store: Store = field(default_factory=Store)
    clock: Clock = field(default_factory=Clock)
    work: Work = field(default_factory=Work)

    def run(self, *, clear_count: int = 0, first_try: bool = True, last_try: bool = False, **policy: Any) -> BatchRun:
        return BatchRun(
            TaskTry(
                identity=TASK.digest,
                clear_count=clear_count,
                try_number=1 if first_try else 2,
                last_try=last_try,
                policy=Policy(service_wait=49 * 3600.0, **policy),
                service=self.service,
                store=self.store,
                clock=self.clock,
                rows=self.work,
            )
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


def woken(step: SleepUntil | WaitForJobs | Done) -> WaitReport:
    assert isinstance(step, (SleepUntil, WaitForJobs))
    return WaitReport(Reason.WAKE, memo=step.memo)


def until_it_ends(desk: Desk, **policy: Any) -> Done:
    step = desk.run(**policy).advance(None)
    while not isinstance(step, Done):
        desk.clock.time = step.at if isinstance(step, SleepUntil) else step.end_time
        step = desk.run(**policy).advance(woken(step))
    return step


def test_what_a_try_learnt_before_a_pause_is_not_read_back_as_the_try_before_left_it(desk: Desk) -> None:
    # A create call of the old input has no answer yet, when the input changes and the task is cleared.
    desk.store.text = BatchState(fingerprint=OTHER_INPUT, pending={"gb1-some-other": PendingCreate(NOON)}).to_json()
    step = desk.run(clear_count=1, first_try=False).advance(None)
    assert isinstance(step, SleepUntil)
    desk.clock.time = step.at
    while isinstance(step, SleepUntil):
        desk.clock.time = step.at
        step = desk.run(clear_count=1, first_try=False).advance(woken(step))
    assert not desk.work.forgotten
    assert [INPUT in tag for tag in desk.service.created] == [True]


def test_nothing_is_submitted_when_the_time_is_over(desk: Desk) -> None:
    desk.work.shards = 2
    desk.service.lost = [TransportError("reset", sent=True)]
    with pytest.raises(TaskFailed, match="Timed out before all rows"):
        until_it_ends(desk, timeout=60.0)
    first = [tag for tag in desk.service.created if "-0.0.0-" in tag]
    assert len(first) == 1, "the call was sent again after the time was over"


def test_a_lost_call_is_looked_for_beyond_the_time_although_the_list_fails(desk: Desk) -> None:
    desk.service.lost = [TransportError("reset", sent=True)]
    step = desk.run(timeout=60.0, last_try=True).advance(None)
    assert isinstance(step, SleepUntil)
    desk.clock.time = NOON + 150.0
    desk.service.down = ServiceUnavailable("503", http_status=503)
    step = desk.run(timeout=60.0, last_try=True).advance(woken(step))
    assert isinstance(step, SleepUntil)
    desk.service.down = None
    made = desk.service.create(None, slot().tag(0))
    desk.clock.time = step.at
    with pytest.raises(TaskFailed):
        desk.run(timeout=60.0, last_try=True).advance(woken(step))
    assert desk.service.cancelled == [made.name]


def test_a_try_that_cannot_read_its_notes_does_not_write_empty_ones(desk: Desk) -> None:
    desk.store.text = before = BatchState(fingerprint=INPUT, records={"batches/1": JobRecord("batches/1")}).to_json()
    desk.store.broken = True
    with pytest.raises(ConnectionError):
        desk.run(first_try=False, last_try=True).advance(None)
    assert desk.store.text == before


def test_a_job_that_a_person_stopped_before_clearing_is_waited_for_and_judges_nothing(desk: Desk) -> None:
    stopping = job(JobState.CANCELLING, name="batches/old", clear_count=0)
    desk.service.jobs[stopping.name] = stopping
    step = desk.run(clear_count=1, first_try=False).advance(None)
    while isinstance(step, SleepUntil):
        desk.clock.time = step.at
        step = desk.run(clear_count=1, first_try=False).advance(woken(step))
    assert isinstance(step, WaitForJobs)
    assert step.job_names == (stopping.name,)
    desk.service.jobs[stopping.name] = job(JobState.CANCELLED, name="batches/old", clear_count=0)
    step = desk.run(clear_count=1, first_try=False).advance(WaitReport(Reason.ENDED, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert step.job_names == ("batches/1",)


def test_without_notes_the_rows_of_an_interrupted_batch_are_used_after_a_clear(desk: Desk) -> None:
    desk.store.lasting = False
    desk.work.shards = 2
    ended = job(JobState.SUCCEEDED, name="batches/a", at=slot(shard=0))
    running = job(JobState.RUNNING, name="batches/b", at=slot(shard=1))
    desk.service.jobs = {one.name: one for one in (ended, running)}
    step = desk.run(clear_count=1, first_try=False).advance(None)
    while isinstance(step, SleepUntil):
        desk.clock.time = step.at
        step = desk.run(clear_count=1, first_try=False).advance(woken(step))
    assert isinstance(step, WaitForJobs)
    desk.service.jobs["batches/b"] = job(JobState.SUCCEEDED, name="batches/b", at=slot(shard=1))
    step = desk.run(clear_count=1, first_try=False).advance(WaitReport(Reason.ENDED, memo=step.memo))
    assert isinstance(step, Done)
    assert desk.work.landed == ["batches/a", "batches/b"]
    assert desk.service.created == []


def test_what_was_planned_is_planned_again_by_its_note_until_the_task_is_cleared(desk: Desk) -> None:
    step = desk.run().advance(None)
    desk.work.fingerprint = OTHER_INPUT
    step = desk.run().advance(woken(step))
    step = desk.run(first_try=False).advance(None)
    assert isinstance(step, WaitForJobs)
    assert (desk.work.read, len(desk.service.created)) == (1, 1)
    desk.run(clear_count=1, first_try=False).advance(None)
    assert [OTHER_INPUT in tag for tag in desk.service.created] == [False, True]


def test_input_that_reads_differently_before_anything_was_bought_is_planned_anew(desk: Desk) -> None:
    desk.store.text = BatchState(fingerprint=INPUT, input={"fingerprint": INPUT}).to_json()
    desk.service.unsendable, desk.work.fingerprint = {0}, OTHER_INPUT
    step = desk.run(first_try=False).advance(None)
    assert isinstance(step, WaitForJobs)
    assert [OTHER_INPUT in tag for tag in desk.service.created] == [True]


@pytest.mark.parametrize("last_try", [True, False])
def test_rows_that_cannot_be_sent_fail_the_task_and_what_was_paid_for_is_kept(desk: Desk, *, last_try: bool) -> None:
    desk.work.shards = 2
    desk.service.unsendable = {1}
    step = desk.run(last_try=last_try).advance(None)
    assert isinstance(step, WaitForJobs)
    (name,) = step.job_names
    desk.service.jobs[name] = job(JobState.SUCCEEDED, name=name, at=slot(shard=0))
    with pytest.raises(TaskFailed, match="reads differently") as failed:
        desk.run(last_try=last_try).advance(WaitReport(Reason.ENDED, memo=step.memo))
    assert len(desk.service.created) == 1
    assert desk.service.cancelled == []
    assert desk.work.landed == ([name] if last_try else [])
    assert failed.value.verdict.retry
