"""When waiting has gone on for too long: jobs that do not move, and the deadline, and what is done about them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.lifecycle.events import Reason
from airflow_provider_gemini_batch.lifecycle.judge import Deadline, Refused, Stalled, judge, judge_all
from airflow_provider_gemini_batch.lifecycle.ports import TaskFailed
from airflow_provider_gemini_batch.lifecycle.waiting import may_resubmit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.lifecycle.events import WatchReport
    from airflow_provider_gemini_batch.lifecycle.known import KnownJobs
    from airflow_provider_gemini_batch.lifecycle.ledger import Ledger
    from airflow_provider_gemini_batch.lifecycle.ports import Policy

log = logging.getLogger(__name__)

_NO_QUOTA = "The service's quota left no room for the job until the deadline. Nothing was submitted."


class Patience:
    """What a run does when a wait brought no ending."""

    def __init__(self, *, policy: Policy, ledger: Ledger, known: KnownJobs, lasting: bool) -> None:
        """Take what the run shares.

        :param lasting: whether the next try can read that this one cancelled a job.
        """
        self._policy = policy
        self._ledger = ledger
        self._known = known
        self._lasting = lasting

    def check_stalls(self, active: Sequence[BatchJob], report: WatchReport, now: float) -> None:
        """Cancel jobs that do not move, to be submitted again when they have ended.

        :raises TaskFailed: they may not be submitted again, or not once more; everything is cancelled then.
        """
        stalled = [
            job for job in active if self._is_stalled(job, report, now) and job.name not in self._ledger.cancelled
        ]
        if not stalled:
            return
        resubmitted, most = self._ledger.stalled, self._policy.max_resubmits
        if may_resubmit(self._policy.on_stall, resubmitted=resubmitted, max_resubmits=most):
            self._ledger.stalled += 1
            names = ", ".join(job.name for job in stalled)
            log.warning("Not moving: %s. Cancelled, to be submitted again when the cancellation has ended it.", names)
            for job in stalled:
                self._known.cancel(job)
            return
        stopped = {job.name: self._known.cancel(job) for job in active}
        raise TaskFailed(judge_all([self._stall(job, now, stopped=stopped[job.name]) for job in stalled]))

    def _is_stalled(self, job: BatchJob, report: WatchReport, now: float) -> bool:
        limit = self._policy.queue_timeout
        queued = job.never_started and job.start_time is None
        if limit is not None and queued and now - self._known.submitted(job) >= limit:
            return True
        return report.reason is Reason.PROGRESS_TIMEOUT and job.name in report.stalled

    def _stall(self, job: BatchJob, now: float, *, stopped: bool) -> Stalled:
        kind = "queue" if job.never_started else "progress"
        return Stalled(job.name, kind, now - self._known.submitted(job), cancelled=stopped)

    def time_out(self, active: Sequence[BatchJob], now: float) -> None:
        """End the task at its deadline.

        :raises TaskFailed: always.
        """
        stopped: dict[str, bool] = {}
        if self._policy.cancel_on_timeout:
            stopped = {job.name: self._known.cancel(job) for job in active}
            if not self._lasting:
                # The next try could not tell our own cancellation from a person's.
                self._known.see_cancelled(active)
        late = [Deadline(job.name, now - self._known.submitted(job), stopped.get(job.name, False)) for job in active]
        raise TaskFailed(judge_all(late) if late else judge(Refused(_NO_QUOTA, retry=True)), deadline=True)
