"""One task's batch from rows to results: the single procedure that first execution, resume and retry share.

:meth:`BatchRun.advance` looks at what there is (the state, the jobs, the input), does what is due (adopt, submit,
cancel, land) and returns the next step: :class:`WaitForJobs`, :class:`SleepUntil` a moment, or :class:`Done`. It may be
called again at any time, in another process, after a crash between any two of its steps: it finds its jobs by name or
by tag and continues from there. It knows neither Airflow nor a clock of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    GeminiBatchError,
    InputUnavailable,
    NotFound,
    QuotaExceeded,
    ResultsGone,
)
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch import adoption
from airflow_provider_gemini_batch.batch.cancelling import Canceller
from airflow_provider_gemini_batch.batch.input_choice import InputChanged, InputChoice
from airflow_provider_gemini_batch.batch.ports import Done, Plan, SleepUntil, TaskFailed, WaitForJobs
from airflow_provider_gemini_batch.batch.repair import rows_to_repair, source_clear_count
from airflow_provider_gemini_batch.batch.results import Results
from airflow_provider_gemini_batch.batch.state import UNRECORDED, BatchState, JobEvent, PendingCreate
from airflow_provider_gemini_batch.batch.submit import Postponed, Submitter, possible_jobs
from airflow_provider_gemini_batch.batch.timeouts import Timeouts
from airflow_provider_gemini_batch.batch.turns import KEPT_AHEAD, Turns
from airflow_provider_gemini_batch.batch.verdict import Gone, Refused, judge
from airflow_provider_gemini_batch.polling.policy import doubt
from airflow_provider_gemini_batch.polling.progress import until_words
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.batch.ports import TaskTry
    from airflow_provider_gemini_batch.batch.tag import Tag
    from airflow_provider_gemini_batch.polling.turns import TurnRequest

log = logging.getLogger(__name__)

_LONGEST_REASON: Final = 500

Step = WaitForJobs | SleepUntil | Done


class BatchRun:
    """Drives the batch of one task instance. One object serves one process."""

    def __init__(self, task: TaskTry) -> None:
        self._task = task
        self._announced: set[str] = set()

    def advance(self, report: WaitReport | None) -> Step:
        """Do what is due, and return the next step.

        :param report: how the last wait ended; None when a try begins.
        :raises TaskFailed: the batch has ended without success.
        :raises InputError: the input cannot be sent; nothing has been.
        :raises GeminiBatchError: a call failed that may work in another try.
        """
        memo = BatchState.from_json(report.memo) if report is not None else None
        # If the store fails, the memo at least says which jobs run.
        advance = _Advance(self._task, memo or BatchState(), report, self._announced)
        try:
            stored = BatchState.from_json(self._task.store.load())
            advance = _Advance(
                self._task,
                self._first_state(stored) if report is None else stored or memo or self._fresh_state(),
                report,
                self._announced,
                has_notes=stored is not None,
            )
            return advance.take_step()
        except TaskFailed as failure:
            if failure.refused:
                advance.leave_running()
            elif self._task.last_try or not failure.verdict.retry:
                advance.give_up(deadline=failure.deadline)
            raise
        except AccessDenied:
            advance.leave_running()
            raise
        except Exception:
            if self._task.last_try:
                advance.give_up()
            raise

    def _fresh_state(self) -> BatchState:
        return BatchState(clear_count=self._task.clear_count)

    def _first_state(self, stored: BatchState | None) -> BatchState:
        """Return the state with which a try begins."""
        task = self._task
        state = (stored or self._fresh_state()).next_try(task.clear_count)
        if not task.policy.reattach:
            state.pending.clear()
        elif not task.is_first and stored is None and not task.store.lasting:
            state.pending[UNRECORDED] = PendingCreate(task.clock.now())
        return state


@dataclass
class _Round:
    """How far one round has come: round 0 holds the shards, later ones are repairs."""

    active: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    over_capacity: bool = False
    lacks_turns: int = 0
    too_late: bool = False
    unsendable: bool = False
    postponed: Postponed | None = None


class _Advance:
    """One advance of a batch: the state is loaded, and everything here works on it."""

    def __init__(
        self,
        task: TaskTry,
        state: BatchState,
        report: WaitReport | None,
        announced: set[str],
        *,
        has_notes: bool = False,
    ) -> None:
        self._task = task
        self._state = state
        self._is_resumed = report is not None
        self._report = report or WaitReport(Reason.WAKE)
        self._announced = announced
        self._has_notes = has_notes
        self._canceller = Canceller(task, state)
        self._input = InputChoice(task, state)
        self._submitter = Submitter(task, state)
        self._results = Results(task, state)
        self._timeouts = Timeouts(task, state, self._canceller)
        self._shards = 1
        self._turns = Turns(task, state, self._report)

    def take_step(self) -> Step:
        """Do what is due, and return the next step."""
        state = self._state
        if self._report.reason is Reason.REFUSED:
            raise TaskFailed(judge(Refused(self._report.message)), refused=True)
        self._timeouts.learn_from(self._report)
        try:
            plan = self._prepare()
            step = self._go_on(plan)
        except InputChanged as changed:
            log.warning("%s Nothing was bought for it: the input is read again.", changed)
            self._input.forget()
            return self.take_step()
        except Postponed as wait:
            limit, now = self._timeouts.limit(), self._task.clock.now()
            # A job that may still appear is looked for after the deadline, too: then the wait has its own end.
            until = min(wait.until, limit) if limit > now else wait.until
            log.info("Waiting%s: %s.", until_words(until, now), wait.reason)
            return self._sleep(until, wait.reason, wait.turn)
        except GeminiBatchError as error:
            return self._wait_out(error)
        if state.errors and isinstance(step, WaitForJobs):
            state.errors = state.unreadable = 0
            step = replace(step, memo=state.to_json())
        return step

    def give_up(self, *, deadline: bool = False) -> None:
        """Cancel every job that this task no longer needs; failures here are only logged."""
        if deadline and not self._task.policy.cancel_on_timeout:
            return
        state = self._state
        try:
            suspects = [record.name for wanted in state.pending for record in possible_jobs(wanted, state)]
            self._canceller.abandon([*self._unfinished(), *suspects])
            self._submitter.discard_kept()
        except Exception:
            log.warning("Could not cancel what still runs.", exc_info=True)

    def leave_running(self) -> None:
        """Say which jobs may still run: a refusal says nothing of them, and they are paid for."""
        names = ", ".join(self._unfinished())
        if names:
            log.warning("Left running: %s. Clear the task when access is restored: it continues from there.", names)

    def _unfinished(self) -> tuple[str, ...]:
        """Return the jobs that nobody else needs if this task ends now."""
        return self._state.unfinished(of_all_tries=self._task.policy.reattach)

    def _wait_out(self, error: GeminiBatchError) -> SleepUntil:
        """Return a wait until the error may have passed, or raise it: a brief outage must not cost a paid job."""
        at = self._timeouts.resume_at(error)
        if at is None:
            if not error.retryable and not isinstance(error, AccessDenied):
                self.give_up()
            raise error
        log.warning("A call failed; trying again in %.0f s: %s", at - self._task.clock.now(), error)
        return replace(self._sleep(at, str(error)), for_quota=isinstance(error, QuotaExceeded))

    def _sleep(self, at: float, reason: str, turn: TurnRequest | None = None) -> SleepUntil:
        state = self._state
        state.wait_until, state.is_sleeping, state.waited_for = at, True, reason[:_LONGEST_REASON]
        # Otherwise the next process would read the state as the last try left it, without what this one has learnt.
        self._task.save(self._state)
        return SleepUntil(
            at,
            memo=state.to_json(),
            reason=reason,
            job_names=self._unfinished(),
            ahead=state.trigger_ahead,
            turn=turn,
            for_quota=turn is not None,
        )

    # -- the input and the jobs

    def _prepare(self) -> Plan:
        """Return the plan, once the jobs of this task are known: by name, or by tag for unanswered create calls."""
        state, task = self._state, self._task
        plan = self._input.read()
        for name in list(state.records):
            self._ask(name)
        # A job that an earlier try created in its last moment has a tag that this try must not use for another one.
        unknown = not self._has_notes or not task.store.lasting or not task.policy.reattach
        if not self._is_resumed and not task.is_first and not state.looked_up and unknown:
            state.record_listed(task.service.find(task.identity), task.identity, task.clock.now())
            state.looked_up = True
        plan = self._input.settle(plan)
        state.fingerprint = state.fingerprint or state.newest_fingerprint()
        for wanted in list(state.pending):
            self._submitter.look_up(wanted, plan)
        state.fingerprint = state.fingerprint or state.newest_fingerprint()
        self._shards = (state.shards or state.shards_seen()) if plan.fingerprint is None else plan.shards
        if not self._has_notes:
            self._results.find_delivered()
        return plan

    def _ask(self, name: str) -> None:
        """Update the record of a job that is known by name.

        :raises Postponed: the service does not know the job; it is asked again a minute later.
        :raises TaskFailed: it still does not know the job, and this try waited for it.
        """
        state, now = self._state, self._task.clock.now()
        try:
            state.observe(self._task.service.get(name), now)
        except NotFound as error:
            record = state.record_missing(name, now)
            since = record.missing_since or now
            # A trigger that says "gone" has asked twice already.
            left = doubt(since, now, never_seen=False, vague=error.is_vague) if now >= since else 0.0
            if self._report.reason is not Reason.GONE and left:
                self._task.save(self._state)
                what = f"the service says that it does not know {name}: asking again"
                raise Postponed(now + left, what) from error
            del state.records[name]
            if record.in_use and record.tag is not None:
                # It may come back, as from behind a gateway with several keys: the next try looks for it first.
                state.pending[str(record.tag)] = PendingCreate(now, answered=True)
            self._task.save(self._state)
            if record.in_use:
                raise TaskFailed(judge(Gone(name))) from error
            log.warning("The service no longer knows %s: it is not counted on.", name)

    # -- what is due

    def _go_on(self, plan: Plan) -> Step:
        used: list[str] = []
        rows: Sequence[int] | None = None
        round_ = 0
        state = self._state
        self._canceller.clean_up(adoption.orphaned_shards(state.seen(), self._task.identity, shards=self._shards))
        while True:
            found = self._serve_round(plan, round_, rows, used)
            if found.active or found.postponed or found.over_capacity or found.too_late or found.lacks_turns:
                return self._wait(found)
            self._results.check_endings(used + found.ended)
            used.extend(found.ended)
            if found.unsendable and not round_:
                if not state.seen() and self._input.unreadable is not None:
                    raise self._input.unreadable
                why = self._input.unreadable or "the input has changed"
                what = f"Rows that still need a response cannot be sent: {why}"
                raise self._results.failure(what, used) from self._input.unreadable
            if found.unsendable:
                # The rows that a repair round would have sent again count as failed.
                plan = replace(plan, can_resend=False)
                break
            base = source_clear_count(state, used)
            self._canceller.clean_up(adoption.outdated_repairs(state.seen(), self._task.identity, base=base))
            round_ += 1
            try:
                rows = rows_to_repair(self._task, state, plan, round_, used, too_late=self._timeouts.is_over())
            except ResultsGone as error:
                return self._continue_without(plan, used, error)
            if rows is None:
                break
        if plan.incomplete:
            why = self._input.unreadable or plan.incomplete
            what = f"Columns to be carried into the output are out of reach: {why}"
            raise self._results.failure(what, used) from self._input.unreadable
        try:
            landing = self._task.rows.land(state.jobs(used))
        except ResultsGone as error:
            return self._continue_without(plan, used, error)
        return self._results.deliver(plan, used, landing)

    def _continue_without(self, plan: Plan, used: Sequence[str], error: ResultsGone) -> Step:
        """Do what is due, now that the service no longer keeps some of the results."""
        self._results.give_up_lost(used, error)
        return self._go_on(plan)

    def _serve_round(self, plan: Plan, round_: int, rows: Sequence[int] | None, used: list[str]) -> _Round:
        """Find or create the jobs of a round. A bad ending stops new submissions, but not the wait for other jobs."""
        found, state = _Round(), self._state
        bad = state.bad_endings()
        for shard in range(self._shards if round_ == 0 else 1):
            fingerprint = plan.fingerprint or state.fingerprint or None
            slot = adoption.Slot(self._task.identity, state.clear_count, shard, round_, fingerprint)
            name = self._job_of_slot(slot)
            if name is not None:
                beside = adoption.partial_results_for(state.seen(), slot, name)
                used.extend(one for one in beside if one not in used)
            elif not bad:
                name = self._adopt_or_submit(plan, slot, rows, used, found)
            if name is not None:
                self._use(name)
                (found.ended if state.records[name].is_done else found.active).append(name)
        found.ended = [name for name in found.ended if name not in bad]
        return found

    def _job_of_slot(self, slot: adoption.Slot) -> str | None:
        """Return the job that this try uses for a slot; one that we cancelled and that ended unused is released."""
        for record in self._state.in_use():
            if record.job is None or record.tag is None or not slot.has(record.tag):
                continue
            if record.is_done and not record.ended_well and record.cancelled_by_us:
                self._state.happened(JobEvent.RELEASED, record.name)
                continue
            return record.name
        return None

    def _adopt_or_submit(
        self, plan: Plan, slot: adoption.Slot, rows: Sequence[int] | None, used: list[str], found: _Round
    ) -> str | None:
        state, policy = self._state, self._task.policy
        base = source_clear_count(state, used) if slot.round else 0
        decision = adoption.decide(
            [record for record in state.seen() if record.tag is not None and record.tag.clear_count >= base],
            slot,
            reattach=policy.reattach,
            can_resend=plan.can_resend,
            has_notes=self._task.store.lasting,
        )
        self._canceller.clean_up(decision.cleanup)
        parts = [
            name
            for name in decision.rows_from
            if name not in used and (not plan.by_row or self._results.are_kept(name))
        ]
        used.extend(parts)
        if isinstance(decision, adoption.Adopt):
            log.info("Adopted %s: %s.", decision.job_name, decision.why)
            return decision.job_name
        if rows is not None and not rows and not parts:
            return None  # this round's job is gone, but a later round has one
        if plan.fingerprint is None or found.unsendable:
            # Other jobs may be running and are paid for: adopt and await them first.
            found.unsendable = True
        elif plan.outdated:
            self._lose_rows(plan.fingerprint, InputUnavailable(plan.outdated), found)
        elif len(found.active) + found.lacks_turns >= (policy.max_active_jobs or inf):
            found.over_capacity = True
        elif self._timeouts.is_over():
            found.too_late = True
        elif found.postponed is None:
            if parts:
                rows = self._results.missing_rows(slot, used, parts) if plan.by_row else None
            if rows is None or rows:
                completes = used if slot.round else decision.completes
                return self._submit(slot.tag(decision.submission), rows, found, why=decision.why, completes=completes)
        return None

    def _await_turn(self, tag: Tag, rows: Sequence[int] | None, found: _Round, *, completes: Sequence[str]) -> None:
        """Record that a job waits for its turn, and bring the input of the first such jobs to the service."""
        found.lacks_turns += 1
        self._start_clock()
        if found.lacks_turns > KEPT_AHEAD:
            return
        try:
            self._submitter.keep(tag, rows, reuse=self._may_reuse, completes=completes)
        except InputUnavailable as error:
            found.lacks_turns -= 1
            self._lose_rows(tag.fingerprint, error, found)

    def _lose_rows(self, fingerprint: str, error: InputUnavailable, found: _Round) -> None:
        self._input.note_lost_rows(fingerprint, error)
        found.unsendable = True

    @property
    def _may_reuse(self) -> bool:
        return not self._task.is_first or self._is_resumed

    def _start_clock(self) -> None:
        """Let the task's own time begin now, unless it has begun."""
        if self._state.began is None:
            self._state.began = self._task.clock.now()
            self._task.save(self._state)

    def _submit(
        self, tag: Tag, rows: Sequence[int] | None, found: _Round, *, why: str, completes: Sequence[str]
    ) -> str | None:
        if not self._turns.take():
            self._await_turn(tag, rows, found, completes=completes)
            return None
        if why:
            log.info("Submitting a new job: %s.", why)
        try:
            name = self._submitter.submit(tag, rows, reuse=self._may_reuse, completes=completes).name
        except Postponed as wait:
            self._start_clock()
            found.postponed = wait
        except InputUnavailable as error:
            self._lose_rows(tag.fingerprint, error, found)
        else:
            self._turns.give_up_place()
            return name
        return None

    # -- using jobs

    def _use(self, name: str) -> None:
        if not self._state.records[name].in_use:
            self._choose(name)
        job = self._state.records[name].job
        if job is not None and name not in self._announced:
            self._announced.add(name)
            self._task.on_job(job)

    def _choose(self, name: str) -> None:
        """Record that this try waits for a job, and since when its time counts."""
        state, now = self._state, self._task.clock.now()
        record = state.happened(JobEvent.CHOSEN, name)
        is_older = record.tag is not None and record.tag.clear_count < state.clear_count
        if is_older:
            record = state.happened(JobEvent.INHERITED, name)
        began = now
        if record.job is not None and not record.is_done:
            if is_older and record.job.state is JobState.CANCELLING and not record.cancelled_by_us:
                # It was stopped before the task was cleared: await its end, but do not judge the task by it.
                record = state.happened(JobEvent.CANCEL_ASKED, name)
            age = record.least_age(now)
            is_over = age >= self._timeouts.longest and self._task.policy.cancel_on_timeout
            if (is_over and not record.created_this_try) or record.cancelled_by_us:
                # An earlier try gave this job up, perhaps killed before it could save that. Await its end.
                self._canceller.cancel(name)
            else:
                began = now - age
        state.began = began if state.began is None else min(began, state.began)
        self._task.save(self._state)

    # -- waiting

    def _wait(self, found: _Round) -> Step:
        state, now = self._state, self._task.clock.now()
        active = [state.records[name] for name in found.active]
        self._timeouts.check_stalls(active, self._report)
        active = [state.records[name] for name in found.active]
        limit = self._timeouts.limit(active)
        is_looking = found.postponed is not None and bool(state.pending)
        if now >= limit and not is_looking:
            self._timeouts.time_out(active)
        turn = found.postponed.turn if found.postponed is not None else None
        if found.lacks_turns and found.postponed is None:
            turn = self._turns.request(found.lacks_turns)
        if not active:
            if found.postponed is not None:
                raise found.postponed
            if turn is None:  # pragma: no cover  (capacity is only used up by active jobs)
                raise GeminiBatchError("Nothing to wait for")
            what = f"at most {turn.limit} jobs of the connection may run at once (its quota, max_active_jobs)"
            raise Postponed(limit, what, turn)
        end_time = limit
        if found.postponed is not None:
            # A job may exist whose name is not known yet: it is looked for past the deadline, to be cancelled.
            end_time = found.postponed.until if is_looking else min(limit, found.postponed.until)
        lacks_jobs = bool(found.over_capacity or found.postponed or found.lacks_turns or found.unsendable)
        stalls_count = not any(record.cancelled_by_us for record in active)
        all_created = stalls_count and not lacks_jobs and not found.too_late and not state.bad_endings()
        if stalls_count and self._report.reason is Reason.QUEUE_TIMEOUT:
            # By our clock it has not been queued for that long yet: check again when it has.
            stalls_count, end_time = False, min(end_time, self._timeouts.queue_ends(active))
        state.wait_until, state.is_sleeping = end_time, False
        self._task.save(self._state)
        return WaitForJobs(
            job_names=tuple(found.active),
            end_time=end_time,
            until="any" if found.over_capacity or found.postponed is not None else "all",
            stalls_count=stalls_count,
            memo=state.to_json(),
            ahead=state.trigger_ahead,
            turn=turn,
            all_created=all_created,
        )
