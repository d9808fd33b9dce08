"""A connection's ``max_active_jobs``: jobs wait for their turn before they are created, their input at the service."""

from __future__ import annotations

from typing import Any

import pytest
from batch.desk import Clock, Desk, Service, Work
from batch.made_up_jobs import job

from airflow_provider_gemini_batch.api.errors import QuotaExceeded
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.ports import Done, SleepUntil, TaskFailed, WaitForJobs
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, from_event, to_event
from airflow_provider_gemini_batch.polling.turns import TurnRequest


def turn(step: SleepUntil | WaitForJobs, jobs: int = 1) -> WaitReport:
    return from_event(to_event(WaitReport(Reason.TURN, memo=step.memo, turns=jobs)))


def test_a_job_is_not_created_before_its_turn_but_its_input_is_uploaded() -> None:
    desk = Desk()
    step = desk.run(max_active_jobs_of_connection=4).advance(None)
    assert isinstance(step, SleepUntil)
    assert step.turn == TurnRequest(4, desk.clock.now(), 1)
    assert "quota" in step.reason
    assert desk.service.created == []
    desk.clock.sleep(500.0)
    waits = desk.run(max_active_jobs_of_connection=4).advance(turn(step))
    assert isinstance(waits, WaitForJobs)
    assert waits.turn is None
    assert len(desk.service.created) == 1
    assert desk.service.sent_input == ["files/1"]
    assert desk.work.read == 1


def test_the_list_is_looked_at_again_and_who_finds_it_full_keeps_its_place() -> None:
    desk = Desk(service=Service(jobs={f"batches/o{n}": job(JobState.RUNNING, name=f"batches/o{n}") for n in range(2)}))
    began = desk.clock.now()
    first = desk.run(max_active_jobs_of_connection=2).advance(None)
    assert isinstance(first, SleepUntil)
    desk.clock.sleep(60.0)
    second = desk.run(max_active_jobs_of_connection=2).advance(turn(first))
    assert isinstance(second, SleepUntil)
    assert second.turn == TurnRequest(2, began, 1)
    assert desk.service.created == []
    desk.service.end("batches/o1", JobState.SUCCEEDED)
    assert isinstance(desk.run(max_active_jobs_of_connection=2).advance(turn(second)), WaitForJobs)
    assert len(desk.service.created) == 1


def test_many_jobs_take_as_many_turns_as_they_get_and_the_others_wait_on() -> None:
    desk = Desk(work=Work(shards=5))
    step = desk.run(max_active_jobs_of_connection=3).advance(None)
    assert isinstance(step, SleepUntil)
    assert step.turn is not None
    assert step.turn.jobs == 5
    assert len(desk.service.kept_inputs) == 2, "the next ones: what is uploaded early may expire"
    desk.clock.sleep(10.0)
    step = desk.run(max_active_jobs_of_connection=3).advance(turn(step, 2))
    assert isinstance(step, WaitForJobs)
    assert len(desk.service.created) == 2
    assert (step.until, step.turn) == ("all", TurnRequest(3, desk.clock.now(), 3))
    step = desk.run(max_active_jobs_of_connection=3).advance(turn(step, 3))
    assert isinstance(step, WaitForJobs)
    assert len(desk.service.created) == 3
    for name in list(desk.service.jobs):
        desk.service.end(name, JobState.SUCCEEDED)
    step = desk.run(max_active_jobs_of_connection=3).advance(turn(step, 2))
    assert isinstance(step, WaitForJobs)
    assert step.turn is None
    for name in list(desk.service.jobs):
        desk.service.end(name, JobState.SUCCEEDED)
    ended = WaitReport(Reason.ENDED, memo=step.memo)
    assert isinstance(desk.run(max_active_jobs_of_connection=3).advance(ended), Done)


def test_a_task_asks_for_no_more_turns_than_its_own_limit_allows() -> None:
    step = Desk(work=Work(shards=5)).run(max_active_jobs_of_connection=9, max_active_jobs=2).advance(None)
    assert isinstance(step, SleepUntil)
    assert step.turn is not None
    assert step.turn.jobs == 2


def test_a_job_that_is_there_needs_no_turn() -> None:
    desk = Desk()
    desk.run().advance(None)
    step = desk.run(max_active_jobs_of_connection=1, first_try=False).advance(None)
    assert isinstance(step, WaitForJobs)
    assert step.turn is None
    assert len(desk.service.created) == 1


def test_a_refused_job_waits_for_the_end_of_another_and_is_made_of_the_same_upload() -> None:
    desk = Desk(service=Service(lost=[QuotaExceeded("full", http_status=429)]))
    step = desk.run().advance(None)
    assert isinstance(step, SleepUntil)
    assert step.turn == TurnRequest(None, desk.clock.now())
    assert isinstance(desk.run().advance(turn(step)), WaitForJobs)
    assert desk.service.sent_input == [None, "files/1"]


def test_input_that_waited_for_too_long_is_uploaded_again() -> None:
    desk = Desk(clock=Clock())
    step = desk.run(max_active_jobs_of_connection=1).advance(None)
    assert isinstance(step, SleepUntil)
    desk.clock.sleep(30 * 3600.0)
    assert isinstance(desk.run(max_active_jobs_of_connection=1).advance(turn(step)), WaitForJobs)
    assert desk.service.sent_input == [None]


def test_a_task_that_gives_up_its_turn_removes_what_it_uploaded() -> None:
    desk = Desk()
    step = desk.run(max_active_jobs_of_connection=1, timeout=100.0).advance(None)
    assert isinstance(step, SleepUntil)
    desk.clock.sleep(200.0)
    run = desk.run(max_active_jobs_of_connection=1, timeout=100.0, last_try=True)
    with pytest.raises(TaskFailed, match="Timed out before all rows were submitted"):
        run.advance(WaitReport(Reason.WAKE, memo=step.memo))
    assert desk.service.discarded == ["files/1"]


def test_without_a_timeout_the_time_in_the_queue_counts_from_the_last_job_that_was_created() -> None:
    desk = Desk(work=Work(shards=3))
    step = desk.run(max_active_jobs_of_connection=1).advance(None)
    for name in ("batches/1", "batches/2"):
        step = desk.run(max_active_jobs_of_connection=1).advance(turn(step))  # type: ignore[arg-type]
        assert isinstance(step, WaitForJobs)
        desk.clock.sleep(30 * 3600.0)
        desk.service.end(name, JobState.SUCCEEDED)
        step = desk.run(max_active_jobs_of_connection=1).advance(WaitReport(Reason.ENDED, memo=step.memo))
        assert isinstance(step, SleepUntil)
        assert step.at == desk.clock.now() + 19 * 3600.0
    desk.clock.sleep(20 * 3600.0)
    with pytest.raises(TaskFailed, match="Timed out before all rows were submitted"):
        desk.run(max_active_jobs_of_connection=1).advance(WaitReport(Reason.WAKE, memo=step.memo))


@pytest.mark.parametrize("ending", [JobState.FAILED, JobState.RUNNING])
def test_a_wait_tells_whether_all_jobs_are_created_that_are_needed(ending: JobState) -> None:
    desk = Desk(work=Work(shards=3))
    step = desk.run(max_active_jobs=2).advance(None)
    assert isinstance(step, WaitForJobs)
    assert not step.all_created
    desk.service.end("batches/1", JobState.SUCCEEDED)
    step = desk.run(max_active_jobs=2).advance(WaitReport(Reason.ENDED, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert step.all_created
    desk.service.end("batches/2", ending)
    step = desk.run(max_active_jobs=2).advance(WaitReport(Reason.WAKE, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert step.all_created == (ending is JobState.RUNNING)


def test_a_wait_for_a_job_that_is_being_cancelled_tells_that_another_is_needed() -> None:
    desk = Desk()
    policy: dict[str, Any] = {"on_stall": "resubmit", "queue_timeout": 60.0}
    desk.service.state_of_new = JobState.PENDING
    step = desk.run(**policy).advance(None)
    assert isinstance(step, WaitForJobs)
    assert step.all_created
    desk.clock.sleep(100.0)
    step = desk.run(**policy).advance(WaitReport(Reason.QUEUE_TIMEOUT, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert not step.all_created
