"""A run over made-up ports: what it writes down, and what it leaves alone when its time is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from batch.desk import NOON, Desk, Service, Work, until_it_waits
from batch.made_up_jobs import INPUT, OTHER_INPUT, job, slot

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    NotFound,
    QuotaExceeded,
    ResultsGone,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import CompletionStats, JobState
from airflow_provider_gemini_batch.api.responses.refusal import error_from_response
from airflow_provider_gemini_batch.batch.ports import (
    Done,
    Landing,
    SleepUntil,
    TaskFailed,
    WaitForJobs,
)
from airflow_provider_gemini_batch.batch.state import BatchState, JobRecord, PendingCreate
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob


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
    with pytest.raises(TaskFailed, match="Timed out before all rows were submitted: the job of a create call without"):
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
    waiting = until_it_waits(desk, clear_count=1, first_try=False)
    assert waiting.job_names == (stopping.name,)
    desk.service.jobs[stopping.name] = job(JobState.CANCELLED, name="batches/old", clear_count=0)
    step = desk.run(clear_count=1, first_try=False).advance(WaitReport(Reason.ENDED, memo=waiting.memo))
    assert isinstance(step, WaitForJobs)
    assert step.job_names == ("batches/1",)


class HalfGood(Work):
    """Rows of which half failed in a way that a repair can mend."""

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:  # noqa: ARG002
        return Landing(10, 5, 5, repairable=(5, 6, 7, 8, 9))


def test_a_repair_job_that_expired_without_a_response_is_made_again_by_a_retry(desk: Desk) -> None:
    desk.work = HalfGood()
    untouched = CompletionStats(total=5, pending=5)
    desk.service.jobs = {
        "batches/a": job(JobState.SUCCEEDED, name="batches/a"),
        "batches/r": job(JobState.EXPIRED, name="batches/r", at=slot(round=1)).model_copy(
            update={"completion_stats": untouched}
        ),
    }
    step = desk.run(first_try=False, repair_rounds=1).advance(None)
    assert isinstance(step, WaitForJobs)
    (made,) = desk.service.created
    assert "-0.1.1-" in made


def test_without_notes_the_rows_of_an_interrupted_batch_are_used_after_a_clear(desk: Desk) -> None:
    desk.store.lasting = False
    desk.work.shards = 2
    ended = job(JobState.SUCCEEDED, name="batches/a", at=slot(shard=0))
    running = job(JobState.RUNNING, name="batches/b", at=slot(shard=1))
    desk.service.jobs = {one.name: one for one in (ended, running)}
    waiting = until_it_waits(desk, clear_count=1, first_try=False)
    desk.service.jobs["batches/b"] = job(JobState.SUCCEEDED, name="batches/b", at=slot(shard=1))
    step = desk.run(clear_count=1, first_try=False).advance(WaitReport(Reason.ENDED, memo=waiting.memo))
    assert isinstance(step, Done)
    assert desk.work.landed == ["batches/a", "batches/b"]
    assert desk.service.created == []


def test_without_notes_of_two_jobs_for_the_same_rows_neither_is_delivered_twice(desk: Desk) -> None:
    desk.store.lasting = False
    twins = [job(JobState.SUCCEEDED, name=name) for name in ("batches/a", "batches/b")]
    desk.service.jobs = {one.name: one for one in twins}
    for clear_count, delivered in enumerate(("batches/a", "batches/b"), start=1):
        desk.work.told = [delivered]
        step = until_it_waits(desk, clear_count=clear_count, first_try=False)
        assert step.job_names == (f"batches/{clear_count}",)
        assert desk.work.landed == []
        del desk.service.jobs[step.job_names[0]]


def test_after_a_clear_only_the_rows_whose_results_are_gone_are_sent_again(desk: Desk) -> None:
    desk.work.shards = 2
    desk.work.told = False
    desk.work.gone = {"batches/old0"}
    ended = [job(JobState.SUCCEEDED, name=f"batches/old{shard}", at=slot(shard=shard)) for shard in range(2)]
    desk.service.jobs = {one.name: one for one in ended}
    waiting = until_it_waits(desk, clear_count=1, first_try=False)
    desk.service.end("batches/1", JobState.SUCCEEDED)
    step = desk.run(clear_count=1, first_try=False).advance(WaitReport(Reason.ENDED, memo=waiting.memo))
    assert isinstance(step, Done)
    assert len(desk.service.created) == 1
    assert sorted(desk.work.landed) == ["batches/1", "batches/old1"]


def test_a_job_that_runs_is_waited_for_though_the_rows_of_another_can_no_longer_be_sent(desk: Desk) -> None:
    desk.work.shards = 2
    desk.work.unreadable = True
    failed = job(JobState.FAILED, name="batches/a", at=slot(shard=0))
    running = job(JobState.RUNNING, name="batches/b", at=slot(shard=1))
    desk.service.jobs = {one.name: one for one in (failed, running)}
    step = until_it_waits(desk, clear_count=1, first_try=False)
    assert step.job_names == ("batches/b",)


def test_what_was_planned_is_planned_again_by_its_note_until_the_task_is_cleared(desk: Desk) -> None:
    step = desk.run().advance(None)
    desk.work.fingerprint = OTHER_INPUT
    step = desk.run().advance(woken(step))
    step = desk.run(first_try=False).advance(None)
    assert isinstance(step, WaitForJobs)
    assert (desk.work.read, len(desk.service.created)) == (1, 1)
    desk.run(clear_count=1, first_try=False).advance(None)
    assert [OTHER_INPUT in tag for tag in desk.service.created] == [False, True]


def test_input_that_reads_differently_before_anything_was_bought_is_planned_again(desk: Desk) -> None:
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


def test_pauses_for_the_quota_are_as_long_as_told_and_not_the_same_each_time(desk: Desk) -> None:
    desk.service.lost = [QuotaExceeded("429", http_status=429, retry_after=100.0)] * 5
    step = desk.run().advance(None)
    pauses = []
    while isinstance(step, SleepUntil):
        pauses.append(step.at - desk.clock.time)
        desk.clock.time = step.at
        step = desk.run().advance(woken(step))
    assert isinstance(step, WaitForJobs)
    assert len(pauses) == len(set(pauses)) == 5
    assert all(100.0 <= pause < 150.0 for pause in pauses)


@pytest.mark.parametrize(
    ("error", "for_quota"),
    [
        (QuotaExceeded("429", http_status=429), True),
        (ServiceUnavailable("503", http_status=503), False),
        (TransportError("reset", sent=True), False),
    ],
)
@pytest.mark.parametrize("asks", ["get", "find"])
def test_a_question_that_is_refused_for_the_quota_is_a_wait_for_it(
    desk: Desk, asks: str, error: Exception, *, for_quota: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = until_it_waits(desk)

    def refuse(_: str) -> None:
        raise error

    if asks == "find":
        desk.store.lasting, desk.store.text = False, None
    monkeypatch.setattr(desk.service, asks, refuse)
    step = desk.run(first_try=False).advance(None if asks == "find" else woken(waiting))
    assert isinstance(step, SleepUntil)
    assert step.for_quota is for_quota


def test_what_fails_after_the_rows_have_landed_does_not_send_them_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ResultsGone("of something else")

    waiting = until_it_waits(desk)
    desk.service.end("batches/1", JobState.SUCCEEDED)
    monkeypatch.setattr(desk.service, "remove_inputs", fail)
    with pytest.raises(ResultsGone, match="of something else"):
        desk.run().advance(WaitReport(Reason.ENDED, memo=waiting.memo))
    assert desk.work.landed == ["batches/1"]


def refuse_questions(desk: Desk, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise error

    monkeypatch.setattr(desk.service, "get", refuse)


@pytest.mark.parametrize("clear_count", [0, 1], ids=["retry", "clear"])
@pytest.mark.parametrize(
    ("error", "last_try"),
    [
        (ApiError("400", http_status=400, status="FAILED_PRECONDITION"), False),
        (RuntimeError("a defect"), True),
    ],
    ids=["no_other_try_helps", "last_try"],
)
def test_a_task_that_fails_for_good_before_it_has_come_to_the_jobs_of_earlier_tries_cancels_them(
    desk: Desk, error: Exception, monkeypatch: pytest.MonkeyPatch, *, last_try: bool, clear_count: int
) -> None:
    desk.work.shards = 2
    until_it_waits(desk)
    refuse_questions(desk, error, monkeypatch)
    with pytest.raises(type(error)):
        desk.run(first_try=False, last_try=last_try, clear_count=clear_count).advance(None)
    assert desk.service.cancelled == ["batches/1", "batches/2"]


@pytest.mark.parametrize("last_try", [False, True])
def test_a_task_that_may_not_ask_for_its_jobs_leaves_them_running_and_a_clear_uses_them(
    desk: Desk, caplog: pytest.LogCaptureFixture, *, last_try: bool
) -> None:
    desk.work.shards = 2
    until_it_waits(desk)
    error = AccessDenied("403", http_status=403, status="PERMISSION_DENIED")
    with pytest.MonkeyPatch.context() as patch:
        refuse_questions(desk, error, patch)
        with pytest.raises(AccessDenied):
            desk.run(first_try=False, last_try=last_try).advance(None)
    assert "Left running: batches/1, batches/2. Clear the task when access is restored" in caplog.text
    assert until_it_waits(desk, clear_count=1, first_try=False).job_names == ("batches/1", "batches/2")
    assert (desk.service.cancelled, len(desk.service.created)) == ([], 2)


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_the_page_of_a_gateway_costs_no_job_that_runs(desk: Desk, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    page = error_from_response(status, {}, b"<html>No.</html>", what="get")
    with pytest.raises(type(page)):
        # Where nothing was created yet, the connection is wrong.
        Desk(Service(lost=[page])).run().advance(None)
    desk.work.shards = 2
    desk.service.lost = []
    step = until_it_waits(desk)
    with monkeypatch.context() as patch:
        refuse_questions(desk, page, patch)
        paused = desk.run().advance(woken(step))
        assert isinstance(paused, SleepUntil)
    desk.clock.time = paused.at
    assert isinstance(desk.run().advance(woken(paused)), WaitForJobs)
    assert desk.service.cancelled == []


@pytest.mark.parametrize(
    "last", [UnexpectedResponse("not JSON"), ApiError("a page", http_status=403)], ids=["200", "403"]
)
def test_a_gateway_that_is_back_after_a_long_outage_may_not_speak_clearly_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, last: Exception
) -> None:
    step: SleepUntil | WaitForJobs | Done = until_it_waits(desk)
    for error in [*[ServiceUnavailable("503", http_status=503)] * 7, *[last] * 5]:
        with monkeypatch.context() as patch:
            refuse_questions(desk, error, patch)
            step = desk.run().advance(woken(step))
        assert isinstance(step, SleepUntil)
        desk.clock.time = step.at
    with monkeypatch.context() as patch:
        refuse_questions(desk, last, patch)
        with pytest.raises(type(last)):
            desk.run().advance(woken(step))
    # Five in a row are believed; a good answer forgets them.
    assert isinstance(desk.run().advance(woken(step)), WaitForJobs)


@pytest.mark.parametrize("first_try", [True, False])
@pytest.mark.parametrize("status", [403, 404])
def test_the_page_of_a_gateway_does_not_end_the_search_for_a_job(desk: Desk, status: int, *, first_try: bool) -> None:
    page = error_from_response(status, {}, b"<html>No.</html>", what="list")
    desk.service.lost, desk.service.down = [TransportError("reset", sent=True)], page
    step = desk.run(first_try=first_try).advance(None)
    assert isinstance(step, SleepUntil)
    desk.service.down = None
    desk.clock.time = step.at
    assert not isinstance(desk.run(first_try=first_try).advance(woken(step)), Done)


def test_a_task_that_fails_for_good_leaves_alone_what_is_not_its_own_any_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.store.text = BatchState(
        records={
            "batches/delivered": JobRecord("batches/delivered", created=True, delivered=True),
            "batches/stranger": JobRecord("batches/stranger"),
        }
    ).to_json()
    refuse_questions(desk, RuntimeError("a defect"), monkeypatch)
    with pytest.raises(RuntimeError):
        desk.run(first_try=False, last_try=True).advance(None)
    assert desk.service.cancelled == []


def test_without_reattaching_a_task_that_fails_for_good_leaves_the_jobs_of_earlier_tries_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_it_waits(desk, reattach=False)
    refuse_questions(desk, RuntimeError("a defect"), monkeypatch)
    with pytest.raises(RuntimeError):
        desk.run(first_try=False, last_try=True, reattach=False).advance(None)
    assert desk.service.cancelled == []


def test_without_reattaching_a_job_that_a_try_created_in_its_last_moment_is_not_taken_for_this_try_s(
    desk: Desk,
) -> None:
    desk.store.text = BatchState(fingerprint=INPUT, pending={str(slot().tag(0)): PendingCreate(NOON)}).to_json()
    earlier = desk.service.create(None, slot().tag(0))
    desk.service.lost = [TransportError("reset", sent=True)]
    step = desk.run(first_try=False, reattach=False).advance(None)
    assert isinstance(step, SleepUntil)
    assert step.job_names == ()
    assert desk.service.created == [str(slot().tag(0)), str(slot().tag(1))]
    assert desk.service.jobs.keys() == {earlier.name}


def test_a_pause_names_the_jobs_of_earlier_tries_so_that_they_are_cancelled_if_a_person_ends_the_task(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_it_waits(desk)
    refuse_questions(desk, ServiceUnavailable("503", http_status=503), monkeypatch)
    step = desk.run(first_try=False).advance(None)
    assert isinstance(step, SleepUntil)
    assert step.job_names == ("batches/1",)


class Nameless(Service):
    """A service that leaves out the metadata, and so the display name, of a job that has ended."""

    def get(self, name: str) -> BatchJob:
        return self._shown(super().get(name))

    def find(self, identity: str) -> Iterable[BatchJob]:
        return [self._shown(one) for one in super().find(identity)]

    @staticmethod
    def _shown(one: BatchJob) -> BatchJob:
        return one.model_copy(update={"display_name": ""}) if one.is_done else one


@pytest.mark.parametrize("lasting", [True, False])
def test_a_job_that_ends_without_its_name_is_not_bought_again(desk: Desk, *, lasting: bool) -> None:
    desk.service, desk.store.lasting = Nameless(), lasting
    step = until_it_waits(desk)
    desk.service.end("batches/1", JobState.SUCCEEDED)
    assert isinstance(desk.run().advance(woken(step)), Done)
    assert len(desk.service.created) == 1
    assert desk.work.landed == ["batches/1"]


def test_a_job_that_only_a_gateway_does_not_know_is_not_bought_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    step: SleepUntil | WaitForJobs | Done = until_it_waits(desk)
    restarting = NOON + 300.0
    known = desk.service.get

    def get(name: str) -> BatchJob:
        if desk.clock.now() < restarting:
            raise NotFound("404 and no message", http_status=404)
        return known(name)

    monkeypatch.setattr(desk.service, "get", get)
    desk.service.end("batches/1", JobState.SUCCEEDED)
    while not isinstance(step, Done):
        desk.clock.time = step.at if isinstance(step, SleepUntil) else desk.clock.time
        step = desk.run().advance(woken(step))
    assert desk.clock.time == restarting
    assert len(desk.service.created) == 1


@pytest.mark.parametrize("lasting", [True, False])
def test_a_job_that_was_gone_and_comes_back_is_used_by_the_retry(desk: Desk, *, lasting: bool) -> None:
    """A gateway with the keys of several projects, say, knows a job only now and then."""
    desk.store.lasting = lasting
    step = until_it_waits(desk)
    away = desk.service.jobs.pop("batches/1")
    with pytest.raises(TaskFailed, match="does not know"):
        desk.run().advance(WaitReport(Reason.GONE, memo=step.memo))
    desk.service.jobs["batches/1"] = away
    assert until_it_waits(desk, first_try=False).job_names == ("batches/1",)
    assert (len(desk.service.created), desk.service.cancelled) == (1, [])


def test_a_job_that_stays_gone_is_replaced_once_it_was_looked_for(desk: Desk) -> None:
    step = until_it_waits(desk)
    desk.service.jobs.clear()
    with pytest.raises(TaskFailed, match="does not know"):
        desk.run().advance(WaitReport(Reason.GONE, memo=step.memo))
    began = desk.clock.time
    assert until_it_waits(desk, first_try=False, lookup_timeout=120.0).job_names == ("batches/2",)
    assert desk.clock.time - began == pytest.approx(120.0, abs=2.0)
