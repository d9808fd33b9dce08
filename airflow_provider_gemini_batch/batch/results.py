"""The results of a task's jobs: whether the service keeps them, whether they were delivered, and landing them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, ResultsGone
from airflow_provider_gemini_batch.batch.ports import Done, TaskFailed
from airflow_provider_gemini_batch.batch.repair import judge_rows
from airflow_provider_gemini_batch.batch.state import JobEvent
from airflow_provider_gemini_batch.batch.verdict import Ended, Refused, ResultsMissing, judge, judge_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.batch.adoption import Slot
    from airflow_provider_gemini_batch.batch.ports import Landing, Plan, TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState, JobRecord

log = logging.getLogger(__name__)


class Results:
    """The results of the jobs of one try; ``used`` names the jobs whose responses count, in the order of their use."""

    def __init__(self, task: TaskTry, state: BatchState) -> None:
        self._task = task
        self._state = state

    def find_delivered(self) -> None:
        """Find out whether jobs from before a clear had their results delivered, where no notes say so."""
        state = self._state
        for record in state.seen():
            if record.tag is not None and record.tag.clear_count < state.clear_count and not record.was_delivered:
                state.records[record.name] = replace(record, found_delivered=self._seems_delivered(record))

    def _seems_delivered(self, record: JobRecord) -> bool:
        delivered = self._task.rows.was_delivered(record.name)
        if record.tag is None or delivered:
            return bool(delivered)
        others = [(other, other.tag) for other in self._state.seen() if other.tag is not None]
        if delivered is None:
            # There is no output to look at. A person who clears such a task wants it to run again if it had finished,
            # that is, if no job that was created together with this one still runs.
            made_of = (record.tag.clear_count, record.tag.fingerprint)
            return not any(other.is_active and (tag.clear_count, tag.fingerprint) == made_of for other, tag in others)
        # If the output came from a job that was created after a later clear, or from another job for the very same
        # rows, this job's results are out of date. Otherwise two jobs would replace each other at every clear.
        mine = (record.tag.clear_count, record.tag.slot)
        instead = [
            other.name
            for other, tag in others
            if tag.clear_count > record.tag.clear_count or (tag.clear_count, tag.slot) == mine
        ]
        return any(self._task.rows.was_delivered(name) for name in instead)

    def are_kept(self, name: str) -> bool:
        """Return whether the service still keeps the responses of a job that was cut short."""
        if not self._state.records[name].results_expired:
            try:
                self._task.rows.survey(self._state.jobs([name]), shard=None)
            except ResultsGone:
                log.warning("The finished rows of %s are no longer kept: they are sent again.", name)
                self._state.happened(JobEvent.RESULTS_EXPIRED, name)
        return not self._state.records[name].results_expired

    def missing_rows(self, slot: Slot, used: Sequence[str], parts: Sequence[str]) -> Sequence[int]:
        """Return the rows that no ended job has finished: of one shard, or after all rounds so far.

        :param parts: the jobs of the slot that were cut short.
        """
        jobs, shard = (used, None) if slot.round else (parts, slot.shard)
        survey = self._task.rows.survey(self._state.jobs(jobs), shard=shard)
        log.info("%d rows are done already; %d are sent again.", survey.succeeded, len(survey.repairable))
        return survey.repairable

    def check_endings(self, used: Sequence[str]) -> None:
        """Raise TaskFailed if a job of this try ended badly."""
        state, bad = self._state, self._state.bad_endings()
        if not bad:
            return
        everything = list(dict.fromkeys([*used, *bad]))
        self._task.service.remove_inputs(state.jobs(everything))
        verdict = judge_all([Ended(job) for job in state.jobs(bad)])
        landing = self._land_remains(everything) if self._task.last_try or not verdict.retry else None
        raise TaskFailed(verdict, landing=landing)

    def failure(self, what: str, used: Sequence[str]) -> TaskFailed:
        """Return the failure of a task that cannot go on now; what there is, is landed if no further try will."""
        landing = self._land_remains(used) if self._task.last_try else None
        return TaskFailed(judge(Refused(what, retry=True)), landing=landing)

    def _land_remains(self, names: Sequence[str]) -> Landing | None:
        """Land the finished rows where no further try will, since they are paid for; return None if there are none."""
        remains = [name for name in names if self._state.records[name].has_finished_rows]
        try:
            return self._task.rows.land(self._state.jobs(remains)) if remains else None
        except GeminiBatchError as error:
            log.warning("The finished rows could not be landed: %s", error)
            return None

    def deliver(self, plan: Plan, used: Sequence[str], landing: Landing) -> Done:
        """Return the end of a batch whose rows have been landed.

        :raises TaskFailed: more rows failed than may.
        """
        task, state = self._task, self._state
        jobs = state.jobs(used)
        task.service.remove_inputs(jobs)
        verdict = judge_rows(task, jobs, landing, can_repair=plan.can_resend and bool(landing.repairable))
        reached = landing.output is not None or landing.responses is not None
        if reached and (verdict.success or not plan.can_resend):
            for name in used:
                state.happened(JobEvent.DELIVERED, name)
            task.save(state)
        if not verdict.success:
            raise TaskFailed(verdict, landing=landing)
        return Done(jobs=tuple(jobs), landing=landing, memo=state.to_json())

    def give_up_lost(self, used: Sequence[str], error: ResultsGone) -> None:
        """Record which results the service no longer keeps, so that their rows are sent again.

        :raises TaskFailed: the results are needed.
        """
        state = self._state
        cut_short = [name for name in used if state.records[name].was_cut_short]
        kept = [name for name in cut_short if self.are_kept(name)]
        if len(kept) == len(cut_short):
            older = [
                record.name
                for record in (state.records[name] for name in used)
                if record.tag is not None
                and record.tag.clear_count < state.clear_count
                and not record.results_expired
                and not self.are_kept(record.name)
            ]
            if not older:
                raise TaskFailed(judge_all([ResultsMissing(name) for name in used])) from error
            for name in older:
                if state.records[name].in_use:
                    state.happened(JobEvent.RELEASED, name)
        self._task.save(state)
