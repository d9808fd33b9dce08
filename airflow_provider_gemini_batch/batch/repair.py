"""Repair rounds: which rows are sent once more, and what all rows together mean for the task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.batch import adoption
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.batch.verdict import Counts, Ended, Limits, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.batch.known import KnownJobs
    from airflow_provider_gemini_batch.batch.ports import Landing, Plan, Policy, Work
    from airflow_provider_gemini_batch.batch.state import Ledger

log = logging.getLogger(__name__)


class Repairs:
    """Decides after each round whether there is another."""

    def __init__(
        self,
        *,
        identity: str,
        generation: int,
        first_try: bool,
        policy: Policy,
        ledger: Ledger,
        known: KnownJobs,
        work: Work,
    ) -> None:
        """Take what the run shares."""
        self._identity = identity
        self._generation = generation
        self._first_try = first_try
        self._policy = policy
        self._ledger = ledger
        self._known = known
        self._work = work

    def rows_for(
        self, plan: Plan, round_: int, used: Sequence[BatchJob], *, too_late: bool = False
    ) -> Sequence[int] | None:
        """Give the rows of the next round: None when there is none, empty when jobs of it or of a later one exist.

        :param too_late: the task's time is over: nothing more is sent.
        """
        base = self.generation_of(used)
        self._known.tidy_up(adoption.outdated_repairs(self._known.all, self._identity, base=base))
        if any(self._belongs(job, round_, base) for job in self._known.all):
            return ()
        if too_late or not plan.can_resend:
            return None
        if round_ > self._policy.repair_rounds and (self._first_try or self._ledger.rounds is not None):
            return None
        survey = self._work.survey(used, shard=None)
        if not survey.repairable:
            return None
        if round_ > self._policy.repair_rounds:
            # A retry may mend what made the try before it fail, once.
            if self.judge_rows(used, survey, can_repair=True).success:
                return None
            self._ledger.rounds = round_
        log.info(
            "%d of %d rows failed in a way that a second try can mend: sending them again.",
            len(survey.repairable),
            survey.total,
        )
        return survey.repairable

    def generation_of(self, used: Sequence[BatchJob]) -> int:
        """Give the generation that the rows come from: repairs of an older one are not for these."""
        tags = [tag for job in used if (tag := tag_of(job)) is not None and tag.round == 0]
        return max((tag.generation for tag in tags), default=self._generation)

    def judge_rows(self, used: Sequence[BatchJob], landing: Landing, *, can_repair: bool) -> Verdict:
        """Judge the rows of all jobs together; what became of each job is settled."""
        return judge(
            Ended(used[-1].model_copy(update={"state": JobState.SUCCEEDED})),
            counts=Counts(landing.total, landing.succeeded, landing.failed),
            limits=Limits(self._policy.max_failed_rows, self._policy.max_failure_rate),
            can_repair=can_repair,
        )

    def _belongs(self, job: BatchJob, round_: int, base: int) -> bool:
        tag = tag_of(job)
        return (
            tag is not None
            and (tag.identity, tag.fingerprint) == (self._identity, self._ledger.fingerprint)
            and tag.round >= round_
            and base <= tag.generation
            and (tag.generation == self._generation or not self._known.was_delivered(job.name))
            and job.state is not JobState.FAILED
        )
