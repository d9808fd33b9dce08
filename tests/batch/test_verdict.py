"""Every row of the judge's table, and what holds for all endings."""

from __future__ import annotations

import pytest
from batch.made_up_jobs import job
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobState, ServiceError
from airflow_provider_gemini_batch.batch.verdict import (
    Counts,
    Deadline,
    Ended,
    Ending,
    Gone,
    Limits,
    Refused,
    ResultsMissing,
    Stalled,
    judge,
    judge_all,
)

NAME = "batches/one"
ALL_GOOD, ALL_BAD, SOME_BAD = Counts(10, 10, 0), Counts(10, 0, 10), Counts(10, 7, 3)
TERMINAL = [state for state in JobState if state.is_terminal]


def failed(code: int | None, message: str = "") -> Ended:
    return Ended(job(JobState.FAILED, error=None if code is None else ServiceError(code=code, message=message)))


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED])
@pytest.mark.parametrize("counts", [ALL_GOOD, SOME_BAD, Counts(0, 0, 0)])
def test_a_job_that_succeeded_with_failed_rows_within_limits_is_a_success(state: JobState, counts: Counts) -> None:
    verdict = judge(Ended(job(state)), counts=counts)
    assert (verdict.success, verdict.retry) == (True, False)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED])
@pytest.mark.parametrize(
    ("counts", "limits"),
    [
        (ALL_BAD, Limits()),
        (SOME_BAD, Limits(max_failed_rows=2)),
        (SOME_BAD, Limits(max_failure_rate=0.29)),
        (SOME_BAD, Limits(max_failed_rows=5, max_failure_rate=0.1)),
        (SOME_BAD, Limits(max_failed_rows=0)),
    ],
)
@pytest.mark.parametrize("can_repair", [True, False])
def test_too_many_failed_rows_are_retried_only_where_they_can_be_sent_again(
    state: JobState, counts: Counts, limits: Limits, *, can_repair: bool
) -> None:
    verdict = judge(Ended(job(state)), counts=counts, limits=limits, can_repair=can_repair)
    assert (verdict.success, verdict.retry) == (False, can_repair)
    assert f"{counts.failed} of 10 rows" in verdict.message


@pytest.mark.parametrize("limits", [Limits(max_failed_rows=3), Limits(max_failure_rate=0.3), Limits(3, 0.3)])
def test_a_limit_that_is_just_met_is_kept(limits: Limits) -> None:
    assert judge(Ended(job(JobState.SUCCEEDED)), counts=SOME_BAD, limits=limits).success


@pytest.mark.parametrize("code", [8, 13, 14, 4, 2, None, 1, 10, 15, 99])
def test_a_job_that_the_service_failed_for_reasons_of_its_own_is_retried(code: int | None) -> None:
    verdict = judge(failed(code))
    assert (verdict.success, verdict.retry) == (False, True)


@pytest.mark.parametrize("code", [3, 5, 7, 9, 11, 12, 16])
def test_a_job_that_would_fail_again_is_not_retried(code: int) -> None:
    verdict = judge(failed(code))
    assert (verdict.success, verdict.retry) == (False, False)
    assert f"code {code}" in verdict.message


def test_a_job_that_somebody_cancelled_is_not_retried() -> None:
    verdict = judge(Ended(job(JobState.CANCELLED)))
    assert (verdict.success, verdict.retry) == (False, False)
    assert "somebody else" in verdict.message


def test_an_expired_job_is_retried_at_once() -> None:
    verdict = judge(Ended(job(JobState.EXPIRED)), counts=ALL_GOOD)
    assert (verdict.success, verdict.retry, verdict.retry_at_once) == (False, True, True)


@pytest.mark.parametrize(
    ("ending", "retry", "says"),
    [
        (Deadline(NAME, 49 * 3600.0), True, "within 49 h and was cancelled"),
        (Deadline(NAME, 90.0, cancelled=False), True, "within 90 s; it was left running"),
        (Stalled(NAME, "queue", 7200.0), True, "never left the service's queue for 2 h"),
        (Stalled(NAME, "progress", 1800.0), True, "made no progress for 30 min"),
        (Gone(NAME), True, "does not know"),
        (ResultsMissing(NAME), False, "clear the task to run it again"),
        (Refused(f"{NAME}: API key not valid"), False, "API key not valid"),
        (Refused(f"{NAME}: no quota", retry=True), True, "no quota"),
    ],
)
def test_endings_without_a_state_say_what_happened_to_which_job(ending: Ending, says: str, *, retry: bool) -> None:
    verdict = judge(ending)
    assert (verdict.success, verdict.retry) == (False, retry)
    assert says in verdict.message
    assert NAME in verdict.message


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_terminal])
def test_a_state_that_is_not_an_end_is_not_judged(state: JobState) -> None:
    with pytest.raises(ValueError, match="has not ended"):
        judge(Ended(job(state)))


def test_without_landed_rows_the_services_counters_are_believed_when_they_are_complete() -> None:
    bad = job(JobState.SUCCEEDED).model_copy(update={"completion_stats": CompletionStats(total=10, failure=10)})
    lagging = bad.model_copy(update={"completion_stats": CompletionStats(total=10, failure=1, pending=9)})
    assert not judge(Ended(bad)).success
    assert judge(Ended(lagging), limits=Limits(max_failed_rows=0)).success
    assert judge(Ended(job(JobState.SUCCEEDED)), limits=Limits(max_failed_rows=0)).success


counts_strategy = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda c: Counts(sum(c), *c))
limits_strategy = st.builds(
    Limits,
    max_failed_rows=st.none() | st.integers(0, 60),
    max_failure_rate=st.none() | st.floats(0, 1),
)


@given(st.sampled_from(TERMINAL), st.none() | counts_strategy, limits_strategy, st.booleans())
def test_only_a_job_that_succeeded_makes_a_success_and_a_success_is_never_retried(
    state: JobState,
    counts: Counts | None,
    limits: Limits,
    can_repair: bool,  # noqa: FBT001
) -> None:
    verdict = judge(Ended(job(state)), counts=counts, limits=limits, can_repair=can_repair)
    if verdict.success:
        assert state in {JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED}
        assert not verdict.retry
    assert NAME in verdict.message


@given(counts_strategy, limits_strategy, st.integers(1, 10))
def test_more_failed_rows_never_turn_a_failure_into_a_success(counts: Counts, limits: Limits, more: int) -> None:
    worse = Counts(counts.total + more, counts.succeeded, counts.failed + more)
    if limits.exceeded_by(counts):
        same_total = Counts(counts.total, max(0, counts.succeeded - more), min(counts.total, counts.failed + more))
        assert limits.exceeded_by(same_total)
    if limits.max_failure_rate is None and limits.exceeded_by(counts):
        assert limits.exceeded_by(worse)


def test_the_worst_of_several_jobs_decides() -> None:
    good: BatchJob = job(JobState.SUCCEEDED)
    expired, cancelled = job(JobState.EXPIRED, name="batches/two"), job(JobState.CANCELLED, name="batches/three")
    assert judge_all([Ended(good), Ended(good)]).success
    verdict = judge_all([Ended(good), Ended(expired)])
    assert (verdict.success, verdict.retry) == (False, True)
    verdict = judge_all([Ended(expired), Ended(good), Ended(cancelled)])
    assert not verdict.retry
    assert "batches/two" in verdict.message
    assert "batches/three" in verdict.message


def test_nothing_is_judged_from_nothing() -> None:
    with pytest.raises(ValueError, match="Nothing has ended"):
        judge_all([])
