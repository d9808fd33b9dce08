"""One task's batch from rows to results: the single procedure that first execution, resume and retry share.

:meth:`BatchRun.advance` looks at what there is (the ledger, the jobs, the input), does what is due (adopt, submit,
cancel, land) and says how to go on: :class:`Watch` jobs, :class:`Wake` later, or :class:`Done`. It may be called again
at any time, in another process, after a crash between any two of its steps: it finds its jobs by name or by tag and
goes on from there. It knows neither Airflow nor a clock of its own.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    InputUnavailable,
    ResultsGone,
)
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch import adoption
from airflow_provider_gemini_batch.batch.known import KnownJobs
from airflow_provider_gemini_batch.batch.ports import Done, Landing, Plan, TaskFailed, Wake, Watch
from airflow_provider_gemini_batch.batch.repair import Repairs
from airflow_provider_gemini_batch.batch.state import Ledger
from airflow_provider_gemini_batch.batch.submit import UNRECORDED, Postponed, Submitter
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.batch.timeouts import Patience
from airflow_provider_gemini_batch.batch.verdict import (
    Ended,
    Refused,
    ResultsMissing,
    judge,
    judge_all,
)
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Clock, JobService, Policy, Store, Work
    from airflow_provider_gemini_batch.batch.tag import Tag

log = logging.getLogger(__name__)


class _Round:
    """What one round (0: the shards, later: repairs) has come to."""

    def __init__(self) -> None:
        self.active: list[BatchJob] = []
        self.ended: list[BatchJob] = []
        self.over_capacity = False
        self.too_late = False
        self.unsendable = False
        self.postponed: Postponed | None = None


class _ReadAnew(Exception):
    """The input reads differently than when it was checked, and nothing of what it was then has been paid for."""


class BatchRun:
    """Drives the batch of one task instance over its ports. One object serves one process."""

    def __init__(
        self,
        *,
        identity: str,
        generation: int,
        first_try: bool,
        last_try: bool,
        policy: Policy,
        service: JobService,
        store: Store,
        clock: Clock,
        work: Work,
        on_job: Callable[[BatchJob], None] = lambda _job: None,
    ) -> None:
        """Take the ports.

        :param identity: :attr:`TaskIdentity.digest`.
        :param generation: grows when a person clears the task, not on a retry.
        :param first_try: True when nothing of this task instance can have run before.
        :param last_try: True when Airflow will not try again by itself: what then still runs is cancelled on failure.
        :param on_job: called with each job that comes into use, as soon as it exists.
        """
        self._identity = identity
        self._generation = generation
        self._first_try = first_try
        self._last_try = last_try
        self._policy = policy
        self._service = service
        self._store = store
        self._clock = clock
        self._work = work
        self._on_job = on_job
        self._ledger = Ledger()
        self._known_before = False
        self._share_ledger()
        self._report = WaitReport(Reason.WAKE)
        self._shards = 1
        self._resumed = False
        self._announced: set[str] = set()
        self._unreadable: ConfigurationError | None = None
        self._has_read_anew = False

    def advance(self, report: WaitReport | None) -> Watch | Wake | Done:
        """Do what is due and say how to go on.

        :param report: what the wait brought; None when a try begins.
        :raises TaskFailed: the batch has ended without success.
        :raises InputError: the input cannot be sent; nothing has been.
        :raises GeminiBatchError: a call failed that may work in another try.
        """
        try:
            self._open(report)
            return self._step()
        except TaskFailed as failure:
            if self._last_try or not failure.verdict.retry:
                self._give_up(deadline=failure.deadline)
            raise
        except Exception:
            if self._last_try:
                self._give_up()
            raise

    def _step(self) -> Watch | Wake | Done:
        if self._report.reason is Reason.REFUSED:
            raise TaskFailed(judge(Refused(self._report.message)))
        try:
            plan = self._plan()
            self._gather(plan)
            step = self._go_on(plan)
        except _ReadAnew as changed:
            log.warning("%s Nothing was bought for it: the input is read anew.", changed)
            self._has_read_anew = True
            self._ledger.input, self._ledger.fingerprint = {}, ""
            return self._step()
        except Postponed as wait:
            log.info("Waiting: %s.", wait.reason)
            limit = self._known.limit()
            # What has to be seen to after the deadline (a job that may still appear) has its own time.
            return self._wake(min(wait.until, limit) if limit > self._clock.now() else wait.until, wait.reason)
        except GeminiBatchError as error:
            return self._sit_out(error)
        if self._ledger.troubles and isinstance(step, Watch):
            self._ledger.troubles = 0
            step = replace(step, memo=self._ledger.to_json())
        return step

    def _sit_out(self, error: GeminiBatchError) -> Wake:
        """Wait until an error has passed: a paid job must not be lost over a bad minute."""
        at = self._patience.resume_at(error, self._clock.now())
        if at is None:
            if not error.retryable:
                self._give_up()
            raise error
        log.warning("Going on in %.0f s, since a call failed: %s", at - self._clock.now(), error)
        return self._wake(at, str(error))

    def _wake(self, at: float, reason: str) -> Wake:
        # What this try has learnt so far (the input's fingerprint, say) must not be read back as the last try left it.
        self._submitter.save()
        return Wake(at=at, memo=self._ledger.to_json(), reason=reason, job_names=self._known.unfinished())

    def _give_up(self, *, deadline: bool = False) -> None:
        """Leave nothing running that nobody waits for; what stands in the way of that is no news any more."""
        if deadline and not self._policy.cancel_on_timeout:
            return
        try:
            self._known.abandon(self._submitter.suspects())
        except Exception:
            log.warning("Could not cancel what still runs.", exc_info=True)

    # -- what is there

    def _share_ledger(self) -> None:
        """Give the ledger to those who write in it."""
        self._submitter = Submitter(
            identity=self._identity,
            service=self._service,
            store=self._store,
            clock=self._clock,
            policy=self._policy,
            ledger=self._ledger,
        )
        self._known = KnownJobs(
            identity=self._identity,
            generation=self._generation,
            ledger=self._ledger,
            save=self._submitter.save,
            policy=self._policy,
            service=self._service,
            clock=self._clock,
            work=self._work,
            known_before=self._known_before,
        )
        self._repairs = Repairs(
            identity=self._identity,
            generation=self._generation,
            first_try=self._first_try,
            policy=self._policy,
            ledger=self._ledger,
            known=self._known,
            work=self._work,
        )
        self._patience = Patience(
            policy=self._policy, ledger=self._ledger, known=self._known, lasting=self._store.lasting
        )

    def _open(self, report: WaitReport | None) -> None:
        self._resumed = report is not None
        if report is not None:
            # Should the store fail, the memo says at least what runs.
            self._ledger = Ledger.from_json(report.memo) or self._ledger
            self._share_ledger()
        stored = Ledger.from_json(self._store.load())
        self._known_before = stored is not None
        if report is None:
            self._ledger = (stored or Ledger()).next_try(self._generation)
            unwritten = not self._first_try and stored is None and not self._store.lasting
            if not self._policy.reattach:
                self._ledger.intents.clear()
            elif unwritten:
                self._ledger.intents[UNRECORDED] = self._clock.now()
        else:
            carried = stored or Ledger.from_json(report.memo)
            self._ledger = carried or Ledger(generation=self._generation)
            self._report = report
        self._share_ledger()

    def _plan(self) -> Plan:
        known = self._ledger.fingerprint
        plan = self._read_input(known=bool(known))
        for warning in plan.warnings:
            log.warning("%s", warning)
        if self._resumed and known and plan.fingerprint not in (None, known):
            log.warning(
                "The input has changed since its job was submitted. The job's results are used; whether every row has "
                "its answer, and their order, could not be checked against the input."
            )
            plan = self._work.forget_input()
        if plan.fingerprint is not None:
            self._ledger.fingerprint = plan.fingerprint
            self._ledger.shards = plan.shards
            self._ledger.input = dict(plan.note)
        return plan

    def _read_input(self, *, known: bool) -> Plan:
        try:
            return self._work.plan(again=self._resumed and known, note=self._ledger.input)
        except ConfigurationError as error:
            if self._first_try and not known:
                raise
            log.warning("The input cannot be read (%s): only jobs that were made before can be used.", error)
            self._unreadable = error
            return self._work.forget_input()

    def _gather(self, plan: Plan) -> None:
        """Bring the jobs of this task to mind: those in the ledger by name, unanswered create calls by tag."""
        for name in list(self._ledger.jobs):
            self._known.ask(name, self._report.reason)
        unknown = not self._known_before or not self._store.lasting
        if not self._resumed and not self._first_try and not self._ledger.looked_up and unknown:
            self._known.remember(self._service.find(self._identity))
            self._ledger.looked_up = True
        if not self._ledger.fingerprint:
            self._ledger.fingerprint = self._known.newest_fingerprint()
        self._submitter.are_all = partial(self._are_all, plan)
        for wanted in list(self._ledger.intents):
            found = self._submitter.look_up(wanted)
            if found is not None:
                log.info("Found %s for a create call whose answer was lost.", found.name)
        self._known.remember(self._submitter.seen.values())
        if not self._ledger.fingerprint:
            self._ledger.fingerprint = self._known.newest_fingerprint()
        noted = self._ledger.shards or self._known.shards()
        self._shards = noted if plan.fingerprint is None else plan.shards

    def _are_all(self, plan: Plan, jobs: Sequence[BatchJob]) -> bool:
        """Tell whether these must be all jobs that earlier tries made: no step was due that could have made another."""
        tags = {job.name: tag for job in jobs if (tag := tag_of(job)) is not None}
        newest = max((tag.round for tag in tags.values()), default=0)
        usable = [job for job in jobs if tags[job.name].round == newest and (not job.is_done or job.succeeded)]
        shards = {tags[job.name].shard for job in usable}
        whole = newest > 0 or len(shards) >= (self._known.shards() if plan.fingerprint is None else plan.shards)
        # A repair comes after all jobs of the round before it have ended.
        return whole and (any(not job.is_done for job in usable) or not plan.can_resend)

    # -- what is due

    def _go_on(self, plan: Plan) -> Watch | Wake | Done:
        used: list[BatchJob] = []
        rows: Sequence[int] | None = None
        round_ = 0
        self._known.tidy_up(
            adoption.leftovers(self._known.all, self._identity, shards=self._shards, made_by_us=self._ledger.made)
        )
        while True:
            state = self._settle(plan, round_, rows, used)
            if state.active or state.postponed or state.over_capacity or state.too_late:
                return self._wait(state)
            self._raise_bad_ending(used + state.ended)
            used.extend(state.ended)
            if state.unsendable and not round_:
                self._raise_unsendable(used)
            if state.unsendable:
                # What a repair would have mended counts as failed.
                plan = replace(plan, can_resend=False)
                break
            try:
                rows = self._repairs.rows_for(
                    plan, round_ + 1, used, too_late=self._patience.is_over(self._clock.now())
                )
            except ResultsGone as error:
                return self._without_results(plan, used, error)
            if rows is None:
                break
            round_ += 1
        return self._deliver(plan, used)

    def _settle(self, plan: Plan, round_: int, rows: Sequence[int] | None, used: list[BatchJob]) -> _Round:
        """Find or make the jobs of a round. A bad ending stops new submissions, not the waiting for others."""
        state = _Round()
        bad = self._known.bad_endings()
        for shard in range(self._shards if round_ == 0 else 1):
            place = adoption.Place(
                self._identity, self._generation, shard, round_, plan.fingerprint or self._ledger.fingerprint or None
            )
            job = self._known.watched_at(place)
            if job is not None:
                beside = adoption.rows_beside(self._known.all, place, job, delivered=self._known.was_delivered)
                used.extend(one for one in beside if one not in used and one.name not in self._ledger.lost)
            elif not bad and not state.unsendable:
                job = self._adopt_or_submit(plan, place, rows, used, state)
            if job is None:
                continue
            self._use(job)
            (state.ended if job.is_done else state.active).append(job)
        state.ended = [job for job in state.ended if job not in bad]
        return state

    def _adopt_or_submit(
        self, plan: Plan, place: adoption.Place, rows: Sequence[int] | None, used: list[BatchJob], state: _Round
    ) -> BatchJob | None:
        base = self._repairs.generation_of(used) if place.round else 0
        decision = adoption.decide(
            [job for job in self._known.all if (tag := tag_of(job)) is not None and tag.generation >= base],
            place,
            reattach=self._policy.reattach,
            own=self._known.own,
            can_resend=plan.can_resend,
            delivered=self._known.was_delivered,
            made_by_us=self._ledger.made,
            cancelled_by_us=self._ledger.cancelled if self._store.lasting else None,
        )
        self._known.tidy_up(decision.tidying)
        parts = [job for job in decision.rows_from if job not in used and self._is_kept(job)]
        used.extend(parts)
        if isinstance(decision, adoption.Adopt):
            log.info("Using %s: %s.", decision.job.name, decision.why)
            return decision.job
        if rows is not None and not rows and not parts:
            return None  # this round's job is gone, but a later round's is there
        if plan.fingerprint is None:
            # Others may be running, whose answers are paid for: they are waited for first.
            state.unsendable = True
            return None
        if self._policy.max_active_jobs is not None and len(state.active) >= self._policy.max_active_jobs:
            state.over_capacity = True
        elif self._patience.is_over(self._clock.now()):
            state.too_late = True
        elif state.postponed is None:
            log.info("Submitting a job: %s.", decision.why)
            missing = self._missing(place, used, parts) if parts else rows
            if missing is None or missing:
                return self._submit(place.tag(decision.submission), missing, state)
        return None

    def _is_kept(self, job: BatchJob) -> bool:
        """Tell whether the service still has what an ended job answered before it was cut short."""
        if job.name in self._ledger.lost:
            return False
        try:
            self._work.survey([job], shard=None)
        except ResultsGone:
            log.warning("The finished rows of %s are no longer kept: they are sent again.", job.name)
            self._ledger.lost.append(job.name)
            return False
        return True

    def _missing(self, place: adoption.Place, used: Sequence[BatchJob], parts: Sequence[BatchJob]) -> Sequence[int]:
        """Tell which rows ended jobs have not finished: of a shard, or after all rounds so far."""
        survey = self._work.survey(used, shard=None) if place.round else self._work.survey(parts, shard=place.shard)
        log.info("%d rows are done already; %d are sent again.", survey.succeeded, len(survey.repairable))
        return survey.repairable

    def _submit(self, tag: Tag, rows: Sequence[int] | None, state: _Round) -> BatchJob | None:
        try:
            job = self._submitter.submit(tag, rows, reuse=not self._first_try or self._resumed)
        except Postponed as wait:
            if self._ledger.began is None:
                self._ledger.began = self._clock.now()
                self._submitter.save()
            state.postponed = wait
            return None
        except InputUnavailable as error:
            self._go_without_rows(tag, state, error)
            return None
        self._known.see(job)
        return job

    def _go_without_rows(self, tag: Tag, state: _Round, error: InputUnavailable) -> None:
        """Note that rows cannot be sent; what others of the same input were paid for is used and never bought again."""
        paid = [
            job
            for job in self._known.all
            if (its := tag_of(job)) is not None
            and its.fingerprint == tag.fingerprint
            and (not job.is_done or adoption.has_finished_rows(job))
        ]
        if not paid and not self._has_read_anew:
            raise _ReadAnew(str(error)) from error
        log.warning("%s", error)
        self._unreadable = error
        state.unsendable = True

    def _use(self, job: BatchJob) -> None:
        self._known.use(job)
        if job.name not in self._announced:
            self._announced.add(job.name)
            self._on_job(job)

    # -- waiting

    def _wait(self, state: _Round) -> Watch | Wake:
        now = self._clock.now()
        self._patience.check_stalls(state.active, self._report, now)
        limit = self._known.limit(state.active)
        looking = state.postponed is not None and bool(self._ledger.intents)
        if now >= limit and not looking:
            self._patience.time_out(state.active, now)
        if not state.active:
            if state.postponed is None:  # pragma: no cover  (capacity is only used up by active jobs)
                raise GeminiBatchError("Nothing to wait for")
            raise state.postponed
        more_to_submit = state.over_capacity or state.postponed is not None
        end_time = limit
        if state.postponed is not None:
            # A job may exist whose name is not known yet: the deadline waits for it, so that it can be cancelled.
            end_time = state.postponed.until if looking else min(limit, state.postponed.until)
        self._submitter.save()
        return Watch(
            job_names=tuple(job.name for job in state.active),
            end_time=end_time,
            until="any" if more_to_submit else "all",
            stalls_count=not any(job.name in self._ledger.cancelled for job in state.active),
            memo=self._ledger.to_json(),
        )

    # -- endings

    def _raise_bad_ending(self, used: Sequence[BatchJob]) -> None:
        bad = self._known.bad_endings()
        if not bad:
            return
        self._service.ended([*used, *bad])
        verdict = judge_all([Ended(job) for job in bad])
        remains = [job for job in [*used, *bad] if adoption.has_finished_rows(job)]
        landing = self._land_remains(remains) if self._last_try or not verdict.retry else None
        raise TaskFailed(verdict, landing=landing)

    def _land_remains(self, jobs: Sequence[BatchJob]) -> Landing | None:
        """Give the author the rows that are there, when no further try will: they are paid for."""
        try:
            return self._work.land(jobs) if jobs else None
        except GeminiBatchError as error:
            log.warning("The rows that had been answered could not be landed: %s", error)
            return None

    def _raise_unsendable(self, used: Sequence[BatchJob]) -> None:
        """Say that rows are left which cannot be sent, since the input cannot be read."""
        if not self._known.all and self._unreadable is not None:
            raise self._unreadable
        what = f"Rows that still need an answer cannot be sent: {self._unreadable or 'the input cannot be read'}"
        remains = [job for job in used if adoption.has_finished_rows(job)]
        landing = self._land_remains(remains) if self._last_try else None
        raise TaskFailed(judge(Refused(what, retry=True)), landing=landing) from self._unreadable

    def _deliver(self, plan: Plan, used: Sequence[BatchJob]) -> Watch | Wake | Done:
        if plan.incomplete:
            what = f"Columns to be carried into the output are out of reach: {self._unreadable or plan.incomplete}"
            landing = self._land_remains(used) if self._last_try else None
            raise TaskFailed(judge(Refused(what, retry=True)), landing=landing) from self._unreadable
        try:
            landing = self._work.land(used)
        except ResultsGone as error:
            return self._without_results(plan, used, error)
        self._service.ended(used)
        verdict = self._repairs.judge_rows(used, landing, can_repair=plan.can_resend and bool(landing.repairable))
        names = [job.name for job in used]
        reached = landing.output is not None or landing.responses is not None
        if reached and (verdict.success or not plan.can_resend):
            self._ledger.delivered.extend(name for name in names if name not in self._ledger.delivered)
            self._submitter.save()
        if not verdict.success:
            raise TaskFailed(verdict, landing=landing)
        return Done(jobs=tuple(used), landing=landing, memo=self._ledger.to_json())

    def _without_results(self, plan: Plan, used: Sequence[BatchJob], error: ResultsGone) -> Watch | Wake | Done:
        cut_short = [job for job in used if job.state in (JobState.EXPIRED, JobState.CANCELLED)]
        kept = [job for job in cut_short if self._is_kept(job)]
        if len(kept) < len(cut_short):
            self._submitter.save()
            return self._go_on(plan)
        older = [job.name for job in used if (tag := tag_of(job)) is not None and tag.generation < self._generation]
        fresh = [name for name in older if name not in self._ledger.delivered]
        if not fresh:
            raise TaskFailed(judge_all([ResultsMissing(job.name) for job in used])) from error
        log.warning(
            "The results of %s are no longer kept; the task was cleared, so the rows are sent anew.", ", ".join(fresh)
        )
        self._ledger.delivered.extend(fresh)
        self._ledger.watching = [name for name in self._ledger.watching if name not in fresh]
        self._submitter.save()
        return self._go_on(plan)
