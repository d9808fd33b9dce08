"""What `docs/never-pays-twice.md` promises, in small: each of these is broken on purpose by `make faults`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from batch.desk import NOON, Desk, Service, Work, until_it_waits
from batch.made_up_jobs import INPUT, OTHER_INPUT, TASK, job, slot

from airflow_provider_gemini_batch.api.errors import (
    GeminiBatchError,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.ports import Done, Landing, Plan, SleepUntil, TaskFailed, WaitForJobs
from airflow_provider_gemini_batch.batch.state import BatchState, PendingCreate
from airflow_provider_gemini_batch.batch.tag import Tag, TaskIdentity
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob

RESET = TransportError("reset", sent=True)
BROKEN = ServiceUnavailable("500", http_status=500, status="INTERNAL")
LONG: dict[str, Any] = {"request_timeout": 300.0, "lookup_timeout": 120.0}


class Late(Service):
    """A service that acts on a call whose answer is lost, and lists the job only after ``delay`` seconds."""

    delay: float = 0.0

    def create(self, prepared: str | None, tag: Tag) -> BatchJob:
        lost = self.lost.pop(0) if self.lost else None
        made = super().create(prepared, tag)
        if lost is not None:
            raise lost
        return made

    def find(self, identity: str) -> Iterable[BatchJob]:
        assert self.clock is not None
        return super().find(identity) if self.clock.true >= NOON + self.delay else []


def late(delay: float, *lost: GeminiBatchError, lasting: bool = True) -> Desk:
    service = Late(lost=list(lost))
    service.delay = delay
    desk = Desk(service=service)
    service.clock, desk.store.lasting = desk.clock, lasting
    return desk


def ended(step: WaitForJobs) -> WaitReport:
    return WaitReport(Reason.ENDED, memo=step.memo)


def finish(desk: Desk, step: WaitForJobs, **arguments: Any) -> Done:
    for name in step.job_names:
        desk.service.end(name, JobState.SUCCEEDED)
    done = desk.run(**arguments).advance(ended(step))
    assert isinstance(done, Done)
    return done


# -- the create call


def test_a_call_whose_answer_is_lost_is_looked_for_before_it_is_sent_again() -> None:
    desk = Desk()
    desk.service.lost = [RESET]
    until_it_waits(desk, **LONG)
    assert len(desk.service.created) == 2
    assert desk.clock.time - NOON >= 420.0


@pytest.mark.parametrize(
    "error",
    [
        RESET,
        TransportError("no response within 60 s", sent=True),
        BROKEN,
        ServiceUnavailable("502", http_status=502),
        UnexpectedResponse("not JSON"),
    ],
    ids=["reset", "time_out", "500", "502", "unreadable"],
)
def test_a_job_whose_answer_was_lost_is_found_and_used(error: GeminiBatchError) -> None:
    desk = late(0.0, error)
    step = until_it_waits(desk, **LONG)
    assert (step.job_names, len(desk.service.created)) == (("batches/1",), 1)


@pytest.mark.parametrize(
    "error",
    [RESET, ServiceUnavailable("502", http_status=502), ServiceUnavailable("a page", http_status=500)],
    ids=["no_answer", "gateway", "page"],
)
def test_a_job_that_is_created_long_after_the_call_is_found(error: GeminiBatchError) -> None:
    desk = late(410.0, error)
    until_it_waits(desk, **LONG)
    assert len(desk.service.created) == 1


def test_a_job_that_shows_up_in_the_list_late_is_found() -> None:
    desk = late(110.0, BROKEN)
    until_it_waits(desk, **LONG)
    assert len(desk.service.created) == 1


def test_a_call_that_created_nothing_is_sent_again() -> None:
    desk = Desk()
    desk.service.lost = [BROKEN]
    done = finish(desk, until_it_waits(desk, **LONG), **LONG)
    assert ([one.name for one in done.jobs], len(desk.service.created)) == (["batches/2"], 2)


def test_calls_that_create_nothing_are_sent_again_at_growing_pauses() -> None:
    desk = Desk()
    desk.service.lost = [BROKEN] * 3
    until_it_waits(desk, **LONG)
    assert len(desk.service.created) == 4
    # Three times lookup_timeout, and after the second and the third call a pause.
    assert desk.clock.time - NOON >= 3 * 120.0 + 60.0 + 300.0


def test_a_quota_is_waited_out_for_as_long_as_the_service_says() -> None:
    desk = Desk()
    desk.service.lost = [QuotaExceeded("429", http_status=429, retry_after=500.0)]
    step = desk.run().advance(None)
    assert isinstance(step, SleepUntil)
    # And a little more, so that tasks that were refused together do not come back together.
    assert NOON + 500.0 <= step.at <= NOON + 750.0
    assert until_it_waits(desk).job_names == ("batches/2",)


def test_a_list_that_cannot_be_read_is_read_later() -> None:
    desk = late(0.0, RESET)
    desk.service.down = ServiceUnavailable("503", http_status=503)
    step = desk.run(**LONG).advance(None)
    assert isinstance(step, SleepUntil)
    desk.service.down = None
    until_it_waits(desk, **LONG)
    assert len(desk.service.created) == 1


def test_jobs_of_others_with_similar_names_are_left_alone() -> None:
    desk = Desk()
    other = TaskIdentity("here", "dag", "task", "another run")
    for number in range(3):
        tag = str(slot().tag(0)).replace(TASK.digest, other.digest)
        desk.service.jobs[f"batches/o{number}"] = job(JobState.RUNNING, name=f"batches/o{number}").model_copy(
            update={"display_name": tag}
        )
    desk.service.lost = [RESET]
    step = until_it_waits(desk, **LONG)
    assert step.job_names == ("batches/2",)
    assert desk.service.cancelled == []
    assert list(BatchState.from_json(desk.store.text).records) == ["batches/2"]  # type: ignore[union-attr]


# -- workers that die


def test_a_retry_sends_what_was_never_sent() -> None:
    desk = Desk()
    desk.store.text = BatchState(fingerprint=INPUT).to_json()
    assert until_it_waits(desk, first_try=False).job_names == ("batches/1",)


def test_a_retry_uses_an_upload_that_is_there() -> None:
    reused: list[bool] = []
    desk = Desk()
    desk.service.prepare = lambda *_, reuse, **__: reused.append(reuse)  # type: ignore[method-assign]
    until_it_waits(desk, first_try=False)
    assert reused == [True]


def test_a_retry_looks_for_the_call_that_was_in_flight_when_its_worker_died() -> None:
    desk = late(60.0)
    desk.service.create(None, slot().tag(0))
    pending = {str(slot().tag(0)): PendingCreate(NOON)}
    desk.store.text = BatchState(fingerprint=INPUT, pending=pending).to_json()
    step = until_it_waits(desk, first_try=False, **LONG)
    assert (step.job_names, len(desk.service.created)) == (("batches/1",), 1)


@pytest.mark.parametrize("lasting", [True, False], ids=["by_notes", "by_list"])
def test_a_retry_goes_on_with_the_job_that_is_there(*, lasting: bool) -> None:
    desk = late(0.0, lasting=lasting)
    until_it_waits(desk)
    step = until_it_waits(desk, first_try=False)
    assert (step.job_names, len(desk.service.created)) == (("batches/1",), 1)


def test_a_retry_keeps_the_deadline() -> None:
    desk = late(0.0)
    first = until_it_waits(desk, timeout=3600.0)
    desk.clock.time += 600.0
    assert until_it_waits(desk, first_try=False, timeout=3600.0).end_time == first.end_time


def test_results_that_could_not_be_landed_are_landed_by_the_retry() -> None:
    desk = late(0.0)
    step = until_it_waits(desk)
    desk.service.end("batches/1", JobState.SUCCEEDED)

    def fail(jobs: Sequence[BatchJob]) -> Landing:  # noqa: ARG001
        raise OSError("disk full")

    land, desk.work.land = desk.work.land, fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk full"):
        desk.run().advance(ended(step))
    desk.work.land = land  # type: ignore[method-assign]
    assert isinstance(desk.run(first_try=False).advance(None), Done)
    assert (desk.work.landed, len(desk.service.created)) == (["batches/1"], 1)


# -- people


def test_a_job_that_runs_when_the_task_is_cleared_is_used() -> None:
    desk = late(0.0)
    until_it_waits(desk)
    step = until_it_waits(desk, clear_count=1, first_try=False)
    assert (step.job_names, desk.service.cancelled) == (("batches/1",), [])


@pytest.mark.parametrize("lasting", [True, False], ids=["by_notes", "by_output"])
def test_a_clear_after_success_buys_a_new_job(*, lasting: bool) -> None:
    desk = late(0.0, lasting=lasting)
    finish(desk, until_it_waits(desk))
    desk.work.told = ["batches/1"]
    assert until_it_waits(desk, clear_count=1, first_try=False).job_names == ("batches/2",)


def test_a_clear_lands_results_that_were_never_delivered() -> None:
    desk = late(0.0)
    until_it_waits(desk)
    desk.service.end("batches/1", JobState.SUCCEEDED)
    assert isinstance(desk.run(clear_count=1, first_try=False).advance(None), Done)
    assert desk.work.landed == ["batches/1"]


@pytest.mark.parametrize("lasting", [True, False], ids=["by_notes", "by_list"])
def test_input_that_reads_differently_on_a_retry_buys_nothing_again(*, lasting: bool) -> None:
    desk = late(0.0, lasting=lasting)
    until_it_waits(desk)
    desk.service.end("batches/1", JobState.SUCCEEDED)
    desk.work.fingerprint = OTHER_INPUT
    report: WaitReport | None = None
    step: Any = None
    while not isinstance(step, Done):
        step = desk.run(first_try=False).advance(report)
        if isinstance(step, SleepUntil):
            desk.clock.time = step.at
            report = WaitReport(Reason.WAKE, memo=step.memo)
    assert (desk.work.landed, len(desk.service.created)) == (["batches/1"], 1)


class NamedRows(Work):
    """Rows that only the service reads: each try plans them by their name as it is now."""

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        return Plan(self.fingerprint, self.shards, can_resend=False)


def test_input_that_has_another_name_on_a_retry_after_a_clear_buys_nothing_again() -> None:
    desk = late(0.0)
    desk.work = NamedRows()
    until_it_waits(desk)
    until_it_waits(desk, clear_count=1, first_try=False)
    desk.work.fingerprint = OTHER_INPUT
    assert until_it_waits(desk, clear_count=1, first_try=False).job_names == ("batches/1",)
    assert (desk.service.cancelled, len(desk.service.created)) == ([], 1)


# -- waiting


def test_a_refused_key_fails_without_a_retry_and_a_clear_goes_on_with_the_job() -> None:
    desk = late(0.0)
    step = until_it_waits(desk)
    with pytest.raises(TaskFailed, match="key refused") as failed:
        desk.run().advance(WaitReport(Reason.REFUSED, message="key refused", memo=step.memo))
    assert not failed.value.verdict.retry
    assert until_it_waits(desk, clear_count=1, first_try=False).job_names == ("batches/1",)
    assert (desk.service.cancelled, len(desk.service.created)) == ([], 1)


def test_a_deadline_cancels_the_job_and_the_retry_buys_a_new_one() -> None:
    desk = late(0.0)
    step = until_it_waits(desk, timeout=60.0)
    desk.clock.time = step.end_time
    with pytest.raises(TaskFailed, match="did not end within 60 s and was cancelled") as failed:
        desk.run(timeout=60.0).advance(WaitReport(Reason.DEADLINE, memo=step.memo))
    assert failed.value.verdict.retry
    assert desk.service.cancelled == ["batches/1"]
    desk.service.end("batches/1", JobState.CANCELLED)
    assert until_it_waits(desk, first_try=False, timeout=60.0).job_names == ("batches/2",)
