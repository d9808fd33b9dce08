"""The judge of a wait: looks, errors, the clock and credentials in; pauses and reports out."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from batch.made_up_jobs import NOON, job
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    JobGone,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import CompletionStats, JobSnapshot, JobState
from airflow_provider_gemini_batch.api.responses.refusal import error_from_response
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

HOUR = 3600.0
T = 1_800_000_000.0
NAME = job(JobState.RUNNING).name
DENIED = AccessDenied("key refused", http_status=401, status="UNAUTHENTICATED")
FORBIDDEN = AccessDenied("not yours", http_status=403, status="PERMISSION_DENIED")
MISSING = NotFound("no such job", http_status=404, status="NOT_FOUND")
REFUSAL = ApiError("failed precondition", http_status=400, status="FAILED_PRECONDITION")
PASSING: list[GeminiBatchError] = [
    QuotaExceeded("429", http_status=429),
    ServiceUnavailable("503", http_status=503),
    TransportError("reset", sent=True),
    TransportError("refused", sent=False),
    UnexpectedResponse("a login page"),
]
waiting_states = st.sampled_from([state for state in JobState if not state.is_terminal])
terminal_states = st.sampled_from([state for state in JobState if state.is_terminal])
any_error = st.sampled_from([DENIED, FORBIDDEN, MISSING, REFUSAL, ConfigurationError("no project"), *PASSING])


def seen(state: JobState, *, age: float | None = None, done: int | None = None, name: str = NAME) -> JobSnapshot:
    stats = None if done is None else CompletionStats(total=100, success=done)
    as_of = None if age is None else NOON + timedelta(seconds=age)
    known = JobSnapshot.of(job(state, as_of=as_of).model_copy(update={"completion_stats": stats}))
    return structs.replace(known, name=name)


class One:
    """A wait for one job."""

    def __init__(self, deadline: float = math.inf, **policy: Any) -> None:
        self.wait = JobWait([NAME], WaitPolicy(deadline, **policy))
        (self.job,) = self.wait.jobs

    def take(self, answer: JobSnapshot | GeminiBatchError, now: float = T, *, credentials: int = 0) -> float:
        return self.wait.record(self.job, answer, now, credentials=credentials)

    @property
    def report(self) -> WaitReport | None:
        return self.wait.report()

    @property
    def reason(self) -> Reason | None:
        return None if self.report is None else self.report.reason


# -- snapshots


@given(terminal_states, st.floats(0, 2 * T))
def test_a_job_that_ends_exactly_at_the_deadline_or_later_counts_as_ended(state: JobState, now: float) -> None:
    one = One(T, queue_timeout=0, progress_timeout=0)
    one.take(seen(state, age=1, done=1), now)
    assert one.reason is Reason.ENDED


@given(what=waiting_states | any_error, late=st.floats(0, 1e6), failed_before=st.booleans())
def test_nothing_is_waited_for_beyond_the_deadline_and_only_an_end_beats_it(
    what: JobState | GeminiBatchError, late: float, *, failed_before: bool
) -> None:
    one = One(T, queue_timeout=0, progress_timeout=0)
    if failed_before:
        one.take(DENIED, T - 1)
    one.take(what if isinstance(what, GeminiBatchError) else seen(what, age=1, done=1), T + late, credentials=1)
    assert one.reason is Reason.DEADLINE


@given(waiting_states | st.sampled_from(PASSING), st.floats(1e-3, 100 * HOUR), st.floats(0.1, 3600))
def test_the_next_poll_is_never_beyond_the_deadline(
    what: JobState | GeminiBatchError, early: float, interval: float
) -> None:
    one = One(T, poll_interval=interval)
    pause = one.take(what if isinstance(what, GeminiBatchError) else seen(what), T - early)
    assert 0 <= pause <= early + 1e-3
    assert one.report is None


def test_an_unknown_state_is_waited_for() -> None:
    one = One(T)
    one.take(seen(JobState.UNKNOWN), T - 1)
    assert one.report is None


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.QUEUED])
def test_a_job_that_never_left_the_queue_is_stuck_by_the_services_own_times(state: JobState) -> None:
    one = One(queue_timeout=HOUR)
    one.take(seen(state, age=HOUR - 1))
    assert not one.wait.is_over
    one.take(seen(JobState.RUNNING, age=9 * HOUR))
    one.take(structs.replace(seen(state, age=9 * HOUR), start_time=NOON))
    assert not one.wait.is_over
    one.take(seen(state, age=HOUR))
    assert one.reason is Reason.QUEUE_TIMEOUT
    assert one.report is not None
    assert one.report.stalled == (NAME,)


def test_our_own_clock_serves_where_the_service_does_not_tell_the_time() -> None:
    one = One(queue_timeout=HOUR)
    one.take(seen(JobState.PENDING), T)
    one.take(seen(JobState.PENDING), T + HOUR - 1)
    assert not one.wait.is_over
    one.take(seen(JobState.PENDING), T + HOUR)
    assert one.reason is Reason.QUEUE_TIMEOUT


def test_counts_that_do_not_change_are_a_stall_after_the_time_given() -> None:
    one = One(progress_timeout=600)
    one.take(seen(JobState.RUNNING, done=1), T)
    one.take(seen(JobState.RUNNING, done=1), T + 599)
    one.take(seen(JobState.RUNNING, done=2), T + 600)
    one.take(seen(JobState.RUNNING, done=2), T + 1199)
    assert one.report is None
    one.take(seen(JobState.RUNNING, done=2), T + 1200)
    assert one.reason is Reason.PROGRESS_TIMEOUT


def test_a_clock_that_is_set_back_starts_the_count_again() -> None:
    one = One(progress_timeout=600)
    for now in (T, T - 9000, T - 8500):
        one.take(seen(JobState.RUNNING, done=1), now)
    assert one.report is None
    one.take(seen(JobState.RUNNING, done=1), T - 8400)
    assert one.reason is Reason.PROGRESS_TIMEOUT


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.QUEUED, JobState.CANCELLING, JobState.RUNNING])
def test_no_progress_is_asked_of_jobs_that_wait_stop_or_tell_no_counts(state: JobState) -> None:
    one = One(progress_timeout=60)
    for number in range(5):
        one.take(seen(state, done=None if state is JobState.RUNNING else 1), T + 1000 * number)
    assert one.report is None


def test_progress_is_counted_from_the_moment_a_job_leaves_the_queue() -> None:
    one = One(progress_timeout=600)
    one.take(seen(JobState.PENDING, done=0), T)
    one.take(seen(JobState.RUNNING, done=0), T + 9000)
    assert one.report is None
    one.take(seen(JobState.RUNNING, done=0), T + 9600)
    assert one.reason is Reason.PROGRESS_TIMEOUT


# -- errors


@given(st.lists(st.tuples(st.sampled_from(PASSING), st.floats(0, 1e5)), max_size=50))
def test_passing_errors_never_end_a_wait(errors: list[tuple[GeminiBatchError, float]]) -> None:
    one, now = One(), T
    for count, (error, passed) in enumerate(errors, start=1):
        now += passed
        assert 0 < one.take(error, now) <= 600
        assert one.job.errors is not None
        assert one.job.errors.failures == count
        assert one.job.has_news == (count == 3), "once, when it is worth telling"
    assert one.report is None


def test_a_setting_that_cannot_work_ends_the_wait_at_once() -> None:
    one = One()
    one.take(ConfigurationError("no project"))
    assert one.reason is Reason.REFUSED


@pytest.mark.parametrize("error", [DENIED, FORBIDDEN])
def test_credentials_are_refused_for_good_only_when_they_have_been_looked_up_since(error: AccessDenied) -> None:
    one = One()
    assert one.take(error, credentials=7) == 5
    assert one.job.refused_credentials == 7
    one.take(error, T + 500, credentials=7)
    assert one.report is None
    one.take(error, T + 501, credentials=8)
    assert one.reason is Reason.REFUSED
    assert one.job.report is not None
    assert one.job.report.error is error


@pytest.mark.parametrize("error", [DENIED, FORBIDDEN])
def test_credentials_that_worked_are_refused_for_good_a_minute_later(error: AccessDenied) -> None:
    """An outage of what checks keys or permissions is no reason to give up a job that runs, and is paid for."""
    one = One()
    one.take(seen(JobState.RUNNING), T - 60)
    assert one.take(error, T, credentials=1) == 5
    assert one.take(error, T + 5, credentials=2) == 60
    assert one.job.has_news  # now the log says so
    assert one.take(error, T + 64, credentials=3) == 1
    assert one.report is None
    one.take(error, T + 65, credentials=4)
    assert one.reason is Reason.REFUSED


@pytest.mark.parametrize("status", [400, 401, 403, 405, 451])
@pytest.mark.parametrize("was_seen", [False, True])
def test_a_refusal_of_a_gateway_is_doubted_for_ten_minutes(status: int, *, was_seen: bool) -> None:
    said = error_from_response(status, {}, b"<html>No.</html>", what="get")
    one = One()
    if was_seen:
        one.take(seen(JobState.RUNNING), T)
    for lookups in range(1, 11):
        assert 0 < one.take(said, T + 60 * lookups, credentials=lookups) <= 60
    one.take(said, T + 780, credentials=11)
    assert one.reason is Reason.REFUSED


def test_a_good_answer_forgets_the_errors_before_it() -> None:
    one = One()
    for error in (DENIED, MISSING, REFUSAL):
        one.take(error, T)
    one.take(seen(JobState.RUNNING), T + 1)
    for error in (DENIED, MISSING, REFUSAL):
        one.take(error, T + 1000, credentials=5)
    assert one.report is None


@pytest.mark.parametrize("error", [MISSING, JobGone("no more")])
def test_a_job_is_gone_when_the_service_says_so_again_a_minute_later(error: GeminiBatchError) -> None:
    one = One()
    one.take(seen(JobState.RUNNING))
    assert one.take(error, T) == 60
    assert one.take(error, T + 30) == 30
    one.take(PASSING[1], T + 45)
    assert one.report is None
    one.take(error, T + 60)
    assert one.reason is Reason.GONE


def test_a_job_that_was_never_seen_may_be_unknown_for_two_minutes() -> None:
    one = One()
    assert one.take(MISSING, T) == 60
    assert one.take(MISSING, T + 60) == 60
    assert one.report is None
    one.take(MISSING, T + 120)
    assert one.reason is Reason.GONE


def test_a_gateway_may_say_for_ten_minutes_that_it_does_not_know_a_job() -> None:
    one, gateway = One(), NotFound("404 and no message", http_status=404)
    one.take(seen(JobState.RUNNING))
    for minute in range(10):
        assert one.take(gateway, T + 60 * minute) == 60
    assert one.report is None
    one.take(gateway, T + 600)
    assert one.reason is Reason.GONE


def test_any_other_refusal_is_believed_when_it_is_said_again_a_minute_later() -> None:
    one = One()
    one.take(REFUSAL, T)
    one.take(REFUSAL, T + 59)
    assert one.report is None
    one.take(REFUSAL, T + 60)
    assert one.reason is Reason.REFUSED


def test_how_long_the_service_asks_to_wait_is_kept() -> None:
    assert One(poll_interval=10).take(QuotaExceeded("429", http_status=429, retry_after=333)) == 333


# -- several jobs


def several(count: int, **policy: Any) -> JobWait:
    return JobWait([f"batches/{number}" for number in range(count)], WaitPolicy(math.inf, **policy))


def test_no_report_is_given_while_an_answer_is_outstanding() -> None:
    wait = several(2, progress_timeout=0)
    first, second = wait.jobs
    first.is_asked = second.is_asked = True
    wait.record(first, seen(JobState.RUNNING, done=1), T)
    assert wait.is_settled, "nobody needs to be asked any more"
    assert wait.report() is None
    wait.record(second, ConfigurationError("no project"), T)
    report = wait.report()
    assert report is not None
    assert report.reason is Reason.REFUSED, "the gravest speaks, whichever came first"
    assert report.stalled == ("batches/0",)


def test_a_question_that_was_not_asked_after_all_holds_nothing_up() -> None:
    wait = several(2, until="any")
    first, second = wait.jobs
    first.is_asked = second.is_asked = True
    wait.record(first, seen(JobState.FAILED), T)
    wait.record(second, None, T)
    report = wait.report()
    assert report is not None
    assert report.reason is Reason.ENDED


def test_many_jobs_make_no_long_message() -> None:
    wait = several(500)
    for each in wait.jobs:
        wait.record(each, ConfigurationError("no project"), T)
    report = wait.report()
    assert report is not None
    assert report.message.endswith("; and the same for 495 more jobs")
    assert len(report.message) < 1000


answers = st.one_of(
    st.builds(seen, st.sampled_from(JobState), age=st.none() | st.floats(0, 1e6), done=st.none() | st.integers(0, 100)),
    any_error,
    st.none(),
)


@given(
    st.integers(1, 4),
    st.sampled_from(["all", "any"]),
    st.none() | st.floats(0, 5000),
    st.none() | st.floats(0, 5000),
    st.floats(0, 1e5),
    st.lists(st.tuples(st.integers(0, 3), answers, st.floats(-100, 5000), st.integers(0, 3)), max_size=40),
)
def test_whatever_comes_a_wait_stays_sane(  # noqa: PLR0917
    count: int,
    until: str,
    queue_timeout: float | None,
    progress_timeout: float | None,
    timeout: float,
    steps: list[tuple[int, Any, float, int]],
) -> None:
    policy = WaitPolicy(T + timeout, queue_timeout=queue_timeout, progress_timeout=progress_timeout, until=until)
    wait, now = JobWait([f"batches/{number}" for number in range(count)], policy), T
    for number, answer, passed, credentials in steps:
        now += passed
        each = wait.jobs[number % count]
        before = each.report
        pause = wait.record(each, answer, now, credentials=credentials)
        assert 0 <= pause <= max(HOUR, 2 * 60, 0)
        assert before is None or each.report is before, "what is over stays over"
        assert each.report is not None or answer is None or now < policy.deadline, "nobody waits beyond the deadline"
    report = wait.report()
    assert (report is not None) == wait.is_settled
    if report is not None:
        assert report.message
        assert [one.name for one in report.jobs] == [each.name for each in wait.jobs]
        assert (report.reason is Reason.ENDED) == all(
            each.report is None or each.report.reason is Reason.ENDED for each in wait.jobs
        )
