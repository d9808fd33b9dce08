"""Repair rounds: which rows are sent once more, and what all rows together mean for the task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.verdict import Ended, Limits, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Landing, Plan, TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState, JobRecord

log = logging.getLogger(__name__)


def rows_to_repair(
    task: TaskTry, state: BatchState, plan: Plan, round_: int, used: Sequence[str], *, too_late: bool
) -> Sequence[int] | None:
    """Return the rows that a round sends again: None if the round does not exist, empty if it or a later one has jobs.

    :param used: the jobs whose responses count so far.
    :param too_late: the task's time is over, so nothing more is sent.
    """
    base = source_clear_count(state, used)
    if any(_belongs(record, state, round_, base) for record in state.seen()):
        return ()
    if too_late or not plan.can_resend:
        return None
    asked_for = round_ <= task.policy.repair_rounds
    # Under the identity of a part, the first try may also continue with what another task instance left.
    is_own = task.is_first or (task.try_number <= 1 and all(state.records[name].created_this_try for name in used))
    if not asked_for and (is_own or state.extra_round is not None):
        return None
    jobs = state.jobs(used)
    survey = task.rows.survey(jobs, shard=None)
    if not survey.repairable:
        return None
    if not asked_for:
        # A retry may add one round, to repair what made the previous try fail.
        if judge_rows(task, jobs, survey, can_repair=True).success:
            return None
        state.extra_round = round_
    log.info(
        "%d of %d rows failed in a way that a second try may fix: sending them again.",
        len(survey.repairable),
        survey.total,
    )
    return survey.repairable


def source_clear_count(state: BatchState, used: Iterable[str]) -> int:
    """Return the clear count of the jobs that the rows come from; repairs of an earlier one are for other rows."""
    tags = [state.records[name].tag for name in used]
    return max((tag.clear_count for tag in tags if tag is not None and tag.round == 0), default=state.clear_count)


def judge_rows(task: TaskTry, jobs: Sequence[BatchJob], landing: Landing, *, can_repair: bool) -> Verdict:
    """Return the verdict on the rows of all jobs together; how each job ended has been judged before."""
    return judge(
        Ended(jobs[-1].model_copy(update={"state": JobState.SUCCEEDED})),
        counts=landing,
        limits=Limits(task.policy.max_failed_rows, task.policy.max_failure_rate),
        can_repair=can_repair,
    )


def _belongs(record: JobRecord, state: BatchState, round_: int, base: int) -> bool:
    tag = record.tag
    return (
        tag is not None
        and tag.fingerprint == state.fingerprint
        and tag.round >= round_
        and base <= tag.clear_count
        and (tag.clear_count == state.clear_count or not record.was_delivered)
        and (not record.is_done or record.ended_well or record.has_finished_rows)
    )
