"""Ages, pauses, and how long an answer is doubted."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from batch.made_up_jobs import NOON, job
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobSnapshot, JobState, Service
from airflow_provider_gemini_batch.polling.policy import (
    doubt,
    job_age,
    longest_wait,
    next_lookup,
    poll_delay,
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
    assert job_age(seen(JobState.RUNNING)) is None
    assert job_age(seen(JobState.RUNNING, age=-30)) == 0


# -- how often


def test_pauses_grow_with_the_age_of_a_job() -> None:
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


# -- how long an answer is doubted


@given(st.floats(0, 1e9), st.floats(-1e6, 1e6))
def test_a_doubt_lasts_a_minute_two_for_a_job_that_was_never_seen_and_a_clock_that_goes_back_delays_nothing(
    since: float, passed: float
) -> None:
    left, unseen = (doubt(since, since + passed, never_seen=never) for never in (False, True))
    assert 0 <= left <= unseen <= 60
    assert (left == 0) == (since + passed - since >= 60)
    assert (unseen == 0) == (since + passed - since >= 120)


# -- looking for a job whose creation was not answered


def lookup_pauses(lookup_timeout: float, *, in_flight: float = 0.0) -> list[float]:
    """All pauses between looks, from the moment of sending."""
    pauses: list[float] = []
    while (pause := next_lookup(sum(pauses), lookup_timeout=lookup_timeout, in_flight=in_flight)) is not None:
        pauses.append(pause)
    return pauses


@given(st.floats(0.1, 10_000), st.floats(0, 600))
def test_looks_are_spread_over_the_whole_time_in_which_a_job_may_appear(timeout: float, in_flight: float) -> None:
    pauses = lookup_pauses(timeout, in_flight=in_flight)
    assert sum(pauses) == pytest.approx(timeout + in_flight, abs=0.02)
    assert all(pause > 0 for pause in pauses)
    assert pauses[1:-1] == sorted(pauses[1:-1])
    assert len(pauses) <= 3 + math.log2(max(2.0, timeout + in_flight))


def test_looks_come_at_growing_pauses_until_the_time_is_over() -> None:
    assert lookup_pauses(120) == [1, 1, 2, 4, 8, 16, 32, 56]
    assert next_lookup(120, lookup_timeout=120) is None
    assert next_lookup(120, lookup_timeout=120, in_flight=60) == 60
