"""Time-outs of a try: how long to wait for an error to pass, for a stalled job and for the end, and what follows."""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.errors import ApiError, QuotaExceeded, UnexpectedResponse
from airflow_provider_gemini_batch.batch.ports import TaskFailed
from airflow_provider_gemini_batch.batch.verdict import Deadline, Refused, Stalled, judge, judge_all
from airflow_provider_gemini_batch.polling.policy import poll_delay
from airflow_provider_gemini_batch.polling.report import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_gemini_batch.api.errors import GeminiBatchError
    from airflow_provider_gemini_batch.batch.cancelling import Canceller
    from airflow_provider_gemini_batch.batch.ports import TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState, JobRecord
    from airflow_provider_gemini_batch.polling.report import WaitReport

log = logging.getLogger(__name__)

_TOO_LATE: Final = (
    "Timed out before all rows were submitted: {why}. Raise `timeout`, or clear the task later: what is done already "
    "is used."
)
# Transient errors are waited out at growing pauses; this is the first, in seconds.
_FIRST_PAUSE: Final = 15.0
# After so many unreadable answers in a row, the cause is probably a change of the service and not a proxy's failure.
_UNREADABLE_ANSWERS: Final = 5
# For so long after its create call, a job that may exist is looked for past the deadline, to be cancelled.
_LOOKING_ON: Final = 3600.0
# A triggerer that ends a wait earlier than by so many seconds has a clock that is ahead of ours.
_EARLY: Final = 5.0
# One that ends it later than by so many has a clock that is behind, or less far ahead than was guessed.
_LATE: Final = 600.0
# So much of a delay may be Airflow's own: a wait that makes up for all of it ends early, and the guess doubles again.
_SPARE: Final = 300.0


class Timeouts:
    """The time-outs of one try, and what it does when one has passed."""

    def __init__(self, task: TaskTry, state: BatchState, canceller: Canceller) -> None:
        self._task = task
        self._state = state
        self._canceller = canceller

    @property
    def longest(self) -> float:
        """How many seconds the task waits for a job at most."""
        policy = self._task.policy
        return policy.service_wait if policy.timeout is None else policy.timeout

    def limit(self, active: Iterable[JobRecord] = ()) -> float:
        """Return the moment at which the waiting ends, in seconds since the epoch."""
        state, policy = self._state, self._task.policy
        began = state.began if state.began is not None else self._task.clock.now()
        if policy.timeout is not None:
            return began + policy.timeout
        if state.turn_since is not None:
            began = max(began, state.turn_since)
        submitted = [one.submitted_at for one in active if not one.cancelled_by_us and one.submitted_at is not None]
        return min(submitted, default=began) + policy.service_wait

    def resume_at(self, error: GeminiBatchError) -> float | None:
        """Return when to try again after an error; None when waiting does not help, or the deadline has passed."""
        state, now = self._state, self._task.clock.now()
        if state.began is None:
            state.began = now
        limit = self.limit()
        if state.pending and now >= limit:
            limit = max(limit, max(one.sent for one in state.pending.values()) + _LOOKING_ON)
        # A page of a gateway that let calls through before; otherwise it is the connection that is wrong.
        has_begun = bool(state.records or state.pending or self._task.try_number > 1)
        is_page = isinstance(error, ApiError) and error.is_vague and has_begun
        unreadable = not error.retryable and (is_page or isinstance(error, UnexpectedResponse))
        passes = error.retryable or (unreadable and state.unreadable < _UNREADABLE_ANSWERS)
        if not passes or now >= limit:
            return None
        state.errors += 1
        state.unreadable += unreadable
        retry_after = error.retry_after if isinstance(error, QuotaExceeded) else None
        return min(now + poll_delay(None, _FIRST_PAUSE, failures=state.errors, retry_after=retry_after), limit)

    def is_over(self) -> bool:
        """Return whether the task's own time has passed, so that nothing more may be sent."""
        timeout, began = self._task.policy.timeout, self._state.began
        return timeout is not None and began is not None and self._task.clock.now() >= began + timeout

    def learn_from(self, report: WaitReport) -> None:
        """Record by how much the triggerer's clock is ahead of ours, if it ended a wait too early or too late.

        Otherwise it would end wait after wait so. After an early end it is ahead by that much or more, so the guess
        doubles each time; a late end shows by how much the guess was too high.
        """
        state = self._state
        ahead, early = state.trigger_ahead, state.wait_until - self._task.clock.now()
        awaited = Reason.WAKE if state.is_sleeping else Reason.DEADLINE
        if state.wait_until and report.reason is awaited and not -_LATE <= early <= _EARLY:
            if early > 0:
                state.trigger_ahead = max(2 * ahead, ahead + early, 0.0)
            else:
                # Late with a guess below 0, it may be another worker whose clock differs: the guessing begins again.
                state.trigger_ahead = ahead + early + _SPARE if ahead >= 0 else 0.0
            what = f"{abs(early):.0f} s too {'early' if early > 0 else 'late'}"
            log.warning("By this worker's clock, the wait ended %s: the next one makes up for it.", what)
        state.wait_until = 0.0

    def check_stalls(self, active: Sequence[JobRecord], report: WaitReport) -> None:
        """Cancel stalled jobs, which are submitted again when they have ended.

        :raises TaskFailed: no further resubmission is allowed; then all active jobs are cancelled.
        """
        stalled = [one for one in active if not one.cancelled_by_us and self._is_stalled(one, report)]
        if not stalled:
            return
        if self._state.stall_resubmits < self._task.policy.resubmits:
            self._state.stall_resubmits += 1
            names = ", ".join(one.name for one in stalled)
            log.warning("Not moving: %s. Cancelled, to be submitted again when the cancellation has ended it.", names)
            for one in stalled:
                self._canceller.cancel(one.name)
            return
        stopped = {one.name: self._canceller.cancel(one.name) for one in active}
        raise TaskFailed(judge_all([self._stall(one, stopped=stopped[one.name]) for one in stalled]))

    def queue_ends(self, active: Iterable[JobRecord]) -> float:
        """Return when the first of the queued jobs will have been queued for too long, by our clock."""
        now, limit = self._task.clock.now(), self._task.policy.queue_timeout
        left = [limit - one.age(now) for one in active if limit is not None and _is_queued(one)]
        return now + max(_EARLY, min(left, default=inf))

    def _is_stalled(self, record: JobRecord, report: WaitReport) -> bool:
        limit = self._task.policy.queue_timeout
        if limit is not None and _is_queued(record) and record.age(self._task.clock.now()) >= limit:
            return True
        return report.reason is Reason.PROGRESS_TIMEOUT and record.name in report.stalled

    def _stall(self, record: JobRecord, *, stopped: bool) -> Stalled:
        kind = "queue" if record.job is not None and record.job.never_started else "progress"
        return Stalled(record.name, kind, record.age(self._task.clock.now()), cancelled=stopped)

    def time_out(self, active: Sequence[JobRecord]) -> None:
        """End the task at its deadline.

        :raises TaskFailed: always.
        """
        stopped: dict[str, bool] = {}
        if self._task.policy.cancel_on_timeout:
            stopped = {one.name: self._canceller.cancel(one.name) for one in active}
            if not self._task.store.lasting:
                # The next try cannot tell our cancellation from a person's.
                self._canceller.wait_for_ends(stopped)
        now = self._task.clock.now()
        late = [Deadline(one.name, one.age(now), stopped.get(one.name, False)) for one in active]
        too_late = _TOO_LATE.format(why=self._state.waited_for.rstrip(".") or "calls took too long")
        raise TaskFailed(judge_all(late) if late else judge(Refused(too_late, retry=True)), deadline=True)


def _is_queued(record: JobRecord) -> bool:
    job = record.job
    return job is not None and job.never_started and job.start_time is None
