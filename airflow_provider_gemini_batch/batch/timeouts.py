"""How long to wait: for errors to pass, for jobs that do not move, and for the end at most; and what follows then."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import QuotaExceeded, UnexpectedAnswer
from airflow_provider_gemini_batch.batch.ports import TaskFailed
from airflow_provider_gemini_batch.batch.verdict import Deadline, Refused, Stalled, judge, judge_all
from airflow_provider_gemini_batch.polling.policy import may_resubmit, poll_delay
from airflow_provider_gemini_batch.polling.report import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.errors import GeminiBatchError
    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.known import KnownJobs
    from airflow_provider_gemini_batch.batch.ports import Policy
    from airflow_provider_gemini_batch.batch.state import Ledger
    from airflow_provider_gemini_batch.polling.report import WaitReport

log = logging.getLogger(__name__)

_TOO_LATE = (
    "The time was over before all rows could be submitted: the service's quota left no room, or calls failed (see the "
    "log above). Raise `timeout`, or clear the task later: what is done already is used."
)
# Errors that pass are sat out at growing pauses from this one on, in seconds.
_FIRST_PAUSE = 15.0
# An answer that cannot be read may be a proxy's, and pass; or it may be the service's new way, and stay.
_UNREADABLE_ANSWERS = 5
# A job that may have been made is looked for beyond the deadline, to be cancelled, even if calls fail for so long.
_LOOKING_ON = 3600.0


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

    def resume_at(self, error: GeminiBatchError, now: float) -> float | None:
        """Tell when to go on after an error; None when it does not pass by waiting, or not in time."""
        ledger = self._ledger
        if ledger.began is None:
            ledger.began = now
        limit = self._known.limit()
        if ledger.intents and now >= limit:
            limit = max(limit, max(ledger.intents.values()) + _LOOKING_ON)
        passes = error.retryable or (isinstance(error, UnexpectedAnswer) and ledger.troubles < _UNREADABLE_ANSWERS)
        if not passes or now >= limit:
            return None
        ledger.troubles += 1
        retry_after = error.retry_after if isinstance(error, QuotaExceeded) else None
        return min(now + poll_delay(None, _FIRST_PAUSE, failures=ledger.troubles, retry_after=retry_after), limit)

    def is_over(self, now: float) -> bool:
        """Tell whether the task's own time has passed, so that nothing more may be sent."""
        began = self._ledger.began
        return self._policy.timeout is not None and began is not None and now >= began + self._policy.timeout

    def check_stalls(self, active: Sequence[BatchJob], report: WaitReport, now: float) -> None:
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

    def _is_stalled(self, job: BatchJob, report: WaitReport, now: float) -> bool:
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
        raise TaskFailed(judge_all(late) if late else judge(Refused(_TOO_LATE, retry=True)), deadline=True)
