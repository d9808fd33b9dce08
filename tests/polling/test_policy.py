"""Deadlines, pauses, stalls and errors on the way."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from batch.made_up_jobs import NOON, job
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedAnswer,
)
from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobSnapshot, JobState, Service
from airflow_provider_gemini_batch.polling.policy import (
    DeadlineReached,
    Ended,
    GoneForGood,
    LookAgain,
    Stalled,
    Trouble,
    Waiting,
    Watch,
    WillNotPass,
    job_age,
    longest_wait,
    may_resubmit,
    next_look,
    poll_delay,
    submitted_at,
)

HOUR = 3600.0
T = 1_800_000_000.0
ages = st.floats(0, 200 * HOUR)
intervals = st.floats(0.1, 3600)
waiting_states = st.sampled_from([state for state in JobState if not state.is_terminal])
terminal_states = st.sampled_from([state for state in JobState if state.is_terminal])


def aged(state: JobState, age: float | None = None) -> BatchJob:
    return job(state, as_of=None if age is None else NOON + timedelta(seconds=age))


def seen(state: JobState, *, age: float | None = None, done: int | None = None) -> JobSnapshot:
    stats = None if done is None else CompletionStats(total=100, success=done)
    return JobSnapshot.of(aged(state, age).model_copy(update={"completion_stats": stats}))


# -- deadlines


def test_a_job_may_take_the_services_longest_time_and_an_hour() -> None:
    assert longest_wait(Service.GEMINI) == 49 * HOUR
    assert longest_wait(Service.VERTEX) == 97 * HOUR


def test_an_age_is_told_from_the_services_clock_alone() -> None:
    two_hours = aged(JobState.RUNNING, 2 * HOUR)
    assert job_age(two_hours) == 2 * HOUR
    assert submitted_at(two_hours, now=T) == T - 2 * HOUR
    assert submitted_at(two_hours, now=T, recorded=T - 5) == T - 5
    assert job_age(seen(JobState.RUNNING)) is None
    assert submitted_at(aged(JobState.RUNNING), now=T) == T
    assert job_age(seen(JobState.RUNNING, age=-30)) == 0


# -- how often


def test_the_pauses_of_a_minutes_interval() -> None:
    assert [poll_delay(age, 60) for age in (0, 150, 300, 6 * HOUR)] == [10, 35, 60, 60]
    assert [poll_delay(age, 60) for age in (9 * HOUR, 12 * HOUR, 40 * HOUR)] == [90, 120, 120]
    assert poll_delay(None, 60) == 60


@given(ages, intervals)
def test_a_pause_is_between_a_sixth_and_twice_of_what_was_asked_for(age: float, interval: float) -> None:
    delay = poll_delay(age, interval)
    assert delay <= interval * 2 + 1e-6
    assert delay >= min(interval, max(5.0, interval / 6)) - 1e-6


@given(ages, ages, intervals)
def test_an_older_job_is_never_looked_at_more_often(one: float, two: float, interval: float) -> None:
    assert poll_delay(min(one, two), interval) <= poll_delay(max(one, two), interval) + 1e-6


@given(ages, intervals, st.integers(0, 10_000))
def test_failures_only_lengthen_a_pause_and_not_without_end(age: float, interval: float, failures: int) -> None:
    delay = poll_delay(age, interval, failures=failures)
    assert poll_delay(age, interval) <= delay <= max(600.0, 2 * interval)
    assert delay <= poll_delay(age, interval, failures=failures + 1)


def test_the_services_own_word_on_when_to_come_back_is_kept_up_to_an_hour() -> None:
    assert poll_delay(None, 60, failures=1, retry_after=500) == 500
    assert poll_delay(None, 60, failures=1, retry_after=5) == 120
    assert poll_delay(None, 60, failures=1, retry_after=1e9) == HOUR


# -- what was seen


@given(terminal_states, st.floats(0, 2 * T))
def test_a_job_that_ends_exactly_at_the_deadline_or_later_counts_as_ended(state: JobState, now: float) -> None:
    assert Watch(T).saw(seen(state), now) == Ended()
    assert Watch(T, queue_timeout=0, progress_timeout=0).saw(seen(state), T) == Ended()


@given(waiting_states, st.floats(0, 1e6))
def test_no_state_is_waited_for_beyond_the_deadline(state: JobState, late: float) -> None:
    assert Watch(T).saw(seen(state), T + late) == DeadlineReached(T)
    assert Watch(T).overdue(T + late)


@given(waiting_states, st.floats(1e-3, 100 * HOUR), st.none() | ages, intervals)
def test_the_next_look_is_never_beyond_the_deadline(
    state: JobState, early: float, age: float | None, interval: float
) -> None:
    outcome = Watch(T, poll_interval=interval).saw(seen(state, age=age), T - early)
    assert isinstance(outcome, Waiting)
    assert 0 <= outcome.delay <= early + 1e-3
    assert not outcome.watch.overdue(T - early)


def test_an_unknown_state_is_waited_for() -> None:
    assert isinstance(Watch(T).saw(seen(JobState.UNKNOWN), T - 1), Waiting)


def test_a_job_that_never_left_the_queue_is_stuck_by_the_services_own_times() -> None:
    watch = Watch(math.inf, queue_timeout=HOUR)
    for state in (JobState.PENDING, JobState.QUEUED):
        assert watch.saw(seen(state, age=HOUR), T) == Stalled("queue", HOUR)
        assert isinstance(watch.saw(seen(state, age=HOUR - 1), T), Waiting)
    assert isinstance(watch.saw(seen(JobState.RUNNING, age=9 * HOUR), T), Waiting)
    started = seen(JobState.PENDING, age=9 * HOUR)._replace(start_time=NOON)
    assert isinstance(watch.saw(started, T), Waiting)


def test_our_own_clock_serves_where_the_service_does_not_tell_the_time() -> None:
    pending = seen(JobState.PENDING)
    assert isinstance(Watch(math.inf, queue_timeout=HOUR).saw(pending, T), Waiting)
    assert Watch(math.inf, queue_timeout=HOUR, submitted=T - HOUR).saw(pending, T) == Stalled("queue", HOUR)


def test_counts_that_do_not_change_are_a_stall_after_the_time_given() -> None:
    outcome = Watch(math.inf, progress_timeout=600).saw(seen(JobState.RUNNING, done=1), T)
    assert isinstance(outcome, Waiting)
    assert outcome.moved
    outcome = outcome.watch.saw(seen(JobState.RUNNING, done=1), T + 599)
    assert isinstance(outcome, Waiting)
    assert not outcome.moved
    assert outcome.watch.saw(seen(JobState.RUNNING, done=1), T + 600) == Stalled("progress", 600)
    outcome = outcome.watch.saw(seen(JobState.RUNNING, done=2), T + 600)
    assert isinstance(outcome, Waiting)
    assert outcome.moved
    assert isinstance(outcome.watch.saw(seen(JobState.RUNNING, done=2), T + 1199), Waiting)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.QUEUED, JobState.CANCELLING, JobState.RUNNING])
def test_no_progress_is_asked_of_jobs_that_wait_stop_or_tell_no_counts(state: JobState) -> None:
    done = None if state is JobState.RUNNING else 1
    watch, now = Watch(math.inf, progress_timeout=60), T
    for _ in range(5):
        outcome = watch.saw(seen(state, done=done), now)
        assert isinstance(outcome, Waiting)
        watch, now = outcome.watch, now + 1000


def test_progress_is_counted_from_the_moment_a_job_leaves_the_queue() -> None:
    watch = Watch(math.inf, progress_timeout=600)
    queued = watch.saw(seen(JobState.PENDING, done=0), T)
    assert isinstance(queued, Waiting)
    running = queued.watch.saw(seen(JobState.RUNNING, done=0), T + 9000)
    assert isinstance(running, Waiting)
    assert running.watch.saw(seen(JobState.RUNNING, done=0), T + 9600) == Stalled("progress", 600)


# -- errors on the way

PASSING: list[GeminiBatchError] = [
    QuotaExceeded("429", http_status=429),
    ServiceUnavailable("503", http_status=503),
    TransportError("reset", sent=True),
    TransportError("refused", sent=False),
    UnexpectedAnswer("a login page"),
]


@given(st.lists(st.tuples(st.sampled_from(PASSING), st.floats(0, 1e5)), max_size=50))
def test_passing_errors_never_end_a_wait(errors: list[tuple[GeminiBatchError, float]]) -> None:
    trouble, now = Trouble(), T
    for count, (error, passed) in enumerate(errors, start=1):
        now += passed
        outcome = trouble.saw(error, now)
        assert isinstance(outcome, LookAgain)
        assert 0 < outcome.delay <= 600
        trouble = outcome.trouble
        assert trouble.failures == count


@pytest.mark.parametrize("error", [AccessDenied("key", http_status=401), ConfigurationError("no project")])
def test_a_refused_key_ends_the_wait_at_once(error: GeminiBatchError) -> None:
    assert Trouble().saw(error, T) == WillNotPass(error)


def test_a_job_is_gone_when_the_service_says_so_twice_a_minute_apart() -> None:
    missing = NotFound("no such job", http_status=404)
    first = Trouble().saw(missing, T)
    assert isinstance(first, LookAgain)
    assert first.delay == 60
    soon = first.trouble.saw(missing, T + 30)
    assert isinstance(soon, LookAgain)
    assert soon.delay == 30
    between = soon.trouble.saw(PASSING[1], T + 45)
    assert isinstance(between, LookAgain)
    assert between.trouble.saw(missing, T + 60) == GoneForGood()


def test_any_other_refusal_is_believed_when_it_is_said_twice_a_minute_apart() -> None:
    refusal = ApiError("failed precondition", http_status=400)
    first = Trouble().saw(refusal, T)
    assert isinstance(first, LookAgain)
    assert isinstance(first.trouble.saw(refusal, T + 59), LookAgain)
    assert first.trouble.saw(refusal, T + 60) == WillNotPass(refusal)


def test_how_long_the_service_asks_to_wait_is_kept() -> None:
    outcome = Trouble().saw(QuotaExceeded("429", http_status=429, retry_after=333), T, poll_interval=10)
    assert isinstance(outcome, LookAgain)
    assert outcome.delay == 333


# -- looking for a job whose creation was not answered


def lookup_pauses(lookup_timeout: float, *, in_flight: float = 0.0) -> list[float]:
    """All pauses between looks, from the moment of sending."""
    pauses: list[float] = []
    while (pause := next_look(sum(pauses), lookup_timeout=lookup_timeout, in_flight=in_flight)) is not None:
        pauses.append(pause)
    return pauses


@given(st.floats(0.1, 10_000), st.floats(0, 600))
def test_looks_are_spread_over_the_whole_time_in_which_a_job_may_appear(timeout: float, in_flight: float) -> None:
    pauses = lookup_pauses(timeout, in_flight=in_flight)
    assert sum(pauses) == pytest.approx(timeout + in_flight, abs=0.02)
    assert all(pause > 0 for pause in pauses)
    assert pauses[1:-1] == sorted(pauses[1:-1])
    assert len(pauses) <= 3 + math.log2(max(2.0, timeout + in_flight))


def test_the_looks_for_two_minutes() -> None:
    assert lookup_pauses(120) == [1, 1, 2, 4, 8, 16, 32, 56]
    assert next_look(120, lookup_timeout=120) is None
    assert next_look(120, lookup_timeout=120, in_flight=60) == 60


def test_a_stuck_job_is_replaced_only_where_the_author_wants_it_and_so_many_times() -> None:
    assert may_resubmit("resubmit", resubmitted=0, max_resubmits=1)
    assert not may_resubmit("resubmit", resubmitted=1, max_resubmits=1)
    assert not may_resubmit("fail", resubmitted=0, max_resubmits=1)
