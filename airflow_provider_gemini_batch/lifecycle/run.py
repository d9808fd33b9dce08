"""One task's batch from rows to results: the single procedure that first execution, resume and retry share.

:meth:`BatchRun.advance` looks at what there is (the ledger, the jobs, the input), does what is due (adopt, submit,
cancel, land) and says how to go on: :class:`Watch` jobs, :class:`Wake` later, or :class:`Done`. It may be called again
at any time, in another process, after a crash between any two of its steps: it finds its jobs by name or by tag and
goes on from there. It knows neither Airflow nor a clock of its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    InputError,
    NotFound,
    ResultsGone,
)
from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.lifecycle import adoption, waiting
from airflow_provider_gemini_batch.lifecycle.events import Reason, WatchReport
from airflow_provider_gemini_batch.lifecycle.identity import tag_of
from airflow_provider_gemini_batch.lifecycle.judge import (
    Counts,
    Deadline,
    Ended,
    Gone,
    Limits,
    Refused,
    ResultsMissing,
    Stalled,
    Verdict,
    judge,
    judge_all,
)
from airflow_provider_gemini_batch.lifecycle.ledger import Ledger
from airflow_provider_gemini_batch.lifecycle.ports import Done, Landing, Plan, Wake, Watch
from airflow_provider_gemini_batch.lifecycle.submitting import UNRECORDED, Postponed, Submitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_gemini_batch.lifecycle.ports import Clock, JobService, Policy, Store, Work

log = logging.getLogger(__name__)

# A job that the service denies once may be there all the same; twice, a minute apart, it is gone.
_GONE_AFTER = 60.0
# Without a lasting store the next try could not tell our own cancellation from a person's: wait for it to show.
_CANCEL_LOOKS = 10
_CANCEL_PAUSE = 3.0
_NO_QUOTA = "The service's quota left no room for the job until the deadline. Nothing was submitted."


class TaskFailed(Exception):
    """The batch ends without success. ``verdict`` says whether Airflow may try again; ``landing`` what was kept."""

    def __init__(self, verdict: Verdict, *, landing: Landing | None = None) -> None:
        """Keep the verdict."""
        super().__init__(verdict.message)
        self.verdict = verdict
        self.landing = landing


class _Round:
    """What one round (0: the shards, later: repairs) has come to."""

    def __init__(self) -> None:
        self.active: list[BatchJob] = []
        self.ended: list[BatchJob] = []
        self.over_capacity = False
        self.postponed: Postponed | None = None


class BatchRun:
    """Drives the batch of one task instance over its ports. One object serves one process."""

    def __init__(
        self,
        *,
        identity: str,
        generation: int,
        first_try: bool,
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
        :param on_job: called with each job that comes into use, as soon as it exists.
        """
        self._identity = identity
        self._generation = generation
        self._first_try = first_try
        self._policy = policy
        self._service = service
        self._store = store
        self._clock = clock
        self._work = work
        self._on_job = on_job
        self._ledger = Ledger()
        self._submitter = self._make_submitter()
        self._report = WatchReport(Reason.WAKE)
        self._jobs: dict[str, BatchJob] = {}
        self._known_before = False
        self._shards = 1
        self._resumed = False
        self._announced: set[str] = set()

    def advance(self, report: WatchReport | None) -> Watch | Wake | Done:
        """Do what is due and say how to go on.

        :param report: what the wait brought; None when a try begins.
        :raises TaskFailed: the batch has ended without success.
        :raises InputError: the input cannot be sent; nothing has been.
        :raises GeminiBatchError: a call failed that may work in another try.
        """
        self._open(report)
        if self._report.reason is Reason.REFUSED:
            raise TaskFailed(judge(Refused(self._report.message)))
        try:
            plan = self._plan(resumed=report is not None)
            self._gather(plan, resumed=report is not None)
            return self._go_on(plan)
        except Postponed as wait:
            log.info("Waiting: %s.", wait.reason)
            return Wake(at=min(wait.until, self._limit()), memo=self._ledger.to_json(), reason=wait.reason)

    # -- what is there

    def _make_submitter(self) -> Submitter:
        return Submitter(
            identity=self._identity,
            service=self._service,
            store=self._store,
            clock=self._clock,
            policy=self._policy,
            ledger=self._ledger,
        )

    def _open(self, report: WatchReport | None) -> None:
        self._resumed = report is not None
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
        self._submitter = self._make_submitter()

    def _plan(self, *, resumed: bool) -> Plan:
        known = self._ledger.fingerprint
        plan = self._read_input(again=resumed and bool(known))
        for warning in plan.warnings:
            log.warning("%s", warning)
        if plan.fingerprint is None and not known:
            raise InputError("The input cannot be read, and no job of this task is known that could be used.")
        if resumed and known and plan.fingerprint not in (None, known):
            log.warning(
                "The input has changed since its job was submitted. The job's results are used; whether every row has "
                "its answer, and their order, could not be checked against the input."
            )
            plan = self._work.forget_input()
        if plan.fingerprint is not None:
            self._ledger.fingerprint = plan.fingerprint
        return plan

    def _read_input(self, *, again: bool) -> Plan:
        try:
            return self._work.plan(again=again)
        except ConfigurationError as error:
            if not again:
                raise
            log.warning("The input cannot be read any more (%s); the jobs that were made from it are used.", error)
            return self._work.forget_input()

    def _gather(self, plan: Plan, *, resumed: bool) -> None:
        """Bring the jobs of this task to mind: those in the ledger by name, unanswered create calls by tag."""
        self._jobs = {}
        names = list(self._ledger.jobs)
        for name in names:
            self._ask(name)
        if resumed or not self._policy.reattach:
            pass
        elif not self._first_try and not self._ledger.looked_up and (not self._known_before or not self._store.lasting):
            self._remember(self._service.find(self._identity))
            self._ledger.looked_up = True
        self._submitter.enough = plan.shards
        for wanted in list(self._ledger.intents):
            found = self._submitter.look_up(wanted)
            if found is not None:
                log.info("Found %s for a create call whose answer was lost.", found.name)
                if resumed:
                    # This very try sent the call: its job is used even where those of earlier tries are not.
                    self._ledger.watching.append(found.name)
        self._remember(self._submitter.seen.values())
        tags = [tag_of(job) for job in self._jobs.values()]
        known = max((tag.shard for tag in tags if tag is not None), default=0) + 1
        self._shards = known if plan.fingerprint is None else plan.shards

    def _ask(self, name: str) -> None:
        now = self._clock.now()
        try:
            job = self._service.get(name)
        except NotFound as error:
            since = self._ledger.gone.setdefault(name, now)
            if self._report.reason is not Reason.GONE and now - since < _GONE_AFTER:
                self._submitter.save()
                raise Postponed(
                    since + _GONE_AFTER, f"the service says that it does not know {name}: asking again"
                ) from error
            self._ledger.jobs.remove(name)
            if name in self._ledger.watching:
                self._submitter.save()
                raise TaskFailed(judge(Gone(name))) from error
            log.warning("The service no longer knows %s: it is not counted on.", name)
            return
        self._ledger.gone.pop(name, None)
        self._jobs[name] = job

    def _remember(self, jobs: Iterable[BatchJob]) -> None:
        for job in jobs:
            tag = tag_of(job)
            if tag is not None and tag.identity == self._identity:
                self._jobs.setdefault(job.name, job)

    # -- what is due

    def _go_on(self, plan: Plan) -> Watch | Wake | Done:
        used: list[BatchJob] = []
        rows: Sequence[int] | None = None
        round_ = 0
        self._tidy_up(
            adoption.leftovers(self._jobs.values(), self._identity, shards=self._shards, made_by_us=self._ledger.made)
        )
        while True:
            state = self._settle(plan, round_, rows, used)
            if state.active or state.postponed or state.over_capacity:
                return self._wait(state)
            self._raise_bad_ending(used)
            used.extend(state.ended)
            rows = self._rows_to_repair(plan, round_ + 1, used)
            if rows is None:
                break
            round_ += 1
        return self._deliver(plan, used)

    def _settle(self, plan: Plan, round_: int, rows: Sequence[int] | None, used: list[BatchJob]) -> _Round:
        """Find or make the jobs of a round. A bad ending stops new submissions, not the waiting for others."""
        state = _Round()
        bad = self._bad_endings()
        for shard in range(self._shards if round_ == 0 else 1):
            place = adoption.Place(
                self._identity, self._generation, shard, round_, plan.fingerprint or self._ledger.fingerprint or None
            )
            job = self._watched_at(place)
            if job is None and not bad:
                job = self._adopt_or_submit(plan, place, rows, used, state)
            if job is None:
                continue
            self._use(job)
            (state.ended if job.is_done else state.active).append(job)
        state.ended = [job for job in state.ended if job not in bad]
        return state

    def _watched_at(self, place: adoption.Place) -> BatchJob | None:
        """Give the job that this try uses at a place, unless this task cancelled it and it has ended without use."""
        for name in reversed(self._ledger.watching):
            job = self._jobs.get(name)
            tag = tag_of(job) if job is not None else None
            if job is None or tag is None or (tag.shard, tag.round) != (place.shard, place.round):
                continue
            spent = job.is_done and not job.succeeded and name in self._ledger.cancelled
            return None if spent else job
        return None

    def _adopt_or_submit(
        self, plan: Plan, place: adoption.Place, rows: Sequence[int] | None, used: list[BatchJob], state: _Round
    ) -> BatchJob | None:
        decision = adoption.decide(
            self._jobs.values(),
            place,
            reattach=self._policy.reattach or bool(self._ledger.watching),
            can_resend=plan.can_resend,
            delivered=self._was_delivered,
            made_by_us=self._ledger.made,
            cancelled_by_us=self._ledger.cancelled if self._store.lasting else None,
        )
        self._tidy_up(decision.tidying)
        partial = [job for job in decision.rows_from if job not in used]
        if isinstance(decision, adoption.Adopt):
            log.info("Using %s: %s.", decision.job.name, decision.why)
            used.extend(partial)
            self._ledger.note_job(decision.job.name, made=False)
            return decision.job
        if self._policy.max_active_jobs is not None and len(state.active) >= self._policy.max_active_jobs:
            state.over_capacity = True
            return None
        if state.postponed is not None:
            return None
        if partial:
            used.extend(partial)
            survey = self._work.survey(partial, shard=place.shard if place.round == 0 else None)
            rows = survey.repairable
            if not rows:
                return None
            log.info("%d rows are done already; %d are sent again.", survey.succeeded, len(rows))
        log.info("Submitting a job: %s.", decision.why)
        try:
            job = self._submitter.submit(
                place.tag(decision.submission), rows, reuse=not self._first_try or self._resumed
            )
        except Postponed as wait:
            if self._ledger.began is None:
                self._ledger.began = self._clock.now()
            state.postponed = wait
            return None
        self._jobs[job.name] = job
        return job

    def _use(self, job: BatchJob) -> None:
        now = self._clock.now()
        if job.name not in self._ledger.watching:
            self._ledger.watching.append(job.name)
            began = self._submitted(job) if not job.is_done else now
            self._ledger.began = min(began, self._ledger.began) if self._ledger.began is not None else began
            self._ledger.note_job(job.name, made=False)
            self._submitter.save()
        if job.name not in self._announced:
            self._announced.add(job.name)
            self._on_job(job)

    def _submitted(self, job: BatchJob) -> float:
        """Tell when a job was submitted, by our clock, from its age by the service's: clocks are never compared."""
        recorded = self._ledger.began if waiting.job_age(job) is None else None
        return waiting.submitted_at(job, now=self._clock.now(), recorded=recorded)

    def _was_delivered(self, name: str) -> bool:
        if name in self._ledger.delivered:
            return True
        told = self._work.was_delivered(name)
        # Nobody kept a note: a person who clears such a task wants it run anew.
        return told if told is not None else not self._known_before

    def _tidy_up(self, tidying: adoption.Tidying) -> None:
        for warning in tidying.warnings:
            log.warning("%s", warning)
        for job in (*tidying.duplicates, *tidying.stale):
            log.warning("Cancelling %s: another job of this task is used in its place.", job.name)
            self._cancel(job)

    def _cancel(self, job: BatchJob) -> None:
        if job.name in self._ledger.cancelled:
            return
        # Written down first: a cancelled job that nobody owns up to would be taken for a person's decision.
        self._ledger.cancelled.append(job.name)
        self._submitter.save()
        try:
            self._service.cancel(job.name)
        except GeminiBatchError as error:
            log.warning("Could not cancel %s: %s", job.name, error)

    # -- waiting

    def _wait(self, state: _Round) -> Watch | Wake:
        now = self._clock.now()
        self._handle_stalls(state.active, now)
        limit = self._limit(state.active)
        if now >= limit:
            self._time_out(state.active)
        if not state.active:
            if state.postponed is None:  # pragma: no cover  (capacity is only used up by active jobs)
                raise GeminiBatchError("Nothing to wait for")
            raise state.postponed
        more_to_submit = state.over_capacity or state.postponed is not None
        end_time = limit if state.postponed is None else min(limit, state.postponed.until)
        self._submitter.save()
        return Watch(
            job_names=tuple(job.name for job in state.active),
            end_time=end_time,
            until="any" if more_to_submit else "all",
            stalls_count=not any(job.name in self._ledger.cancelled for job in state.active),
            memo=self._ledger.to_json(),
        )

    def _limit(self, active: Sequence[BatchJob] = ()) -> float:
        """Tell the moment at which the waiting ends, in seconds since the epoch."""
        began = self._ledger.began if self._ledger.began is not None else self._clock.now()
        if self._policy.timeout is not None:
            return began + self._policy.timeout
        return min((self._submitted(job) for job in active), default=began) + self._policy.service_wait

    def _handle_stalls(self, active: Sequence[BatchJob], now: float) -> None:
        stalled = [job for job in active if self._is_stalled(job, now) and job.name not in self._ledger.cancelled]
        if not stalled:
            return
        names = ", ".join(job.name for job in stalled)
        resubmitted, most = self._ledger.stalled, self._policy.max_resubmits
        if not waiting.may_resubmit(self._policy.on_stall, resubmitted=resubmitted, max_resubmits=most):
            for job in active:
                self._cancel(job)
            raise TaskFailed(judge_all([self._stall(job, now) for job in stalled]))
        self._ledger.stalled += 1
        log.warning("%s does not move: cancelling, and submitting again when the cancellation has ended it.", names)
        for job in stalled:
            self._cancel(job)

    def _is_stalled(self, job: BatchJob, now: float) -> bool:
        limit = self._policy.queue_timeout
        if limit is not None and job.never_started and now - self._submitted(job) >= limit:
            return True
        return self._report.reason is Reason.PROGRESS_TIMEOUT and job.name in {one.name for one in self._report.jobs}

    def _stall(self, job: BatchJob, now: float) -> Stalled:
        return Stalled(job.name, "queue" if job.never_started else "progress", now - self._submitted(job))

    def _time_out(self, active: Sequence[BatchJob]) -> None:
        if self._policy.cancel_on_timeout:
            for job in active:
                self._cancel(job)
            if not self._store.lasting:
                self._see_cancelled(active)
        now = self._clock.now()
        cancelled = self._policy.cancel_on_timeout
        late = [Deadline(job.name, now - self._submitted(job), cancelled) for job in active]
        verdict = judge_all(late) if late else judge(Refused(_NO_QUOTA, retry=True))
        raise TaskFailed(verdict)

    def _see_cancelled(self, active: Sequence[BatchJob]) -> None:
        left = [job.name for job in active]
        for _ in range(_CANCEL_LOOKS):
            try:
                left = [name for name in left if not self._service.get(name).is_done]
            except GeminiBatchError:
                return
            if not left:
                return
            self._clock.sleep(_CANCEL_PAUSE)

    # -- endings

    def _bad_endings(self) -> list[BatchJob]:
        """Give the jobs that ended badly while this try waited for them, our own cancellations aside."""
        good = (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)
        watched = [self._jobs[name] for name in self._ledger.watching if name in self._jobs]
        return [
            job for job in watched if job.is_done and job.state not in good and job.name not in self._ledger.cancelled
        ]

    def _raise_bad_ending(self, used: Sequence[BatchJob]) -> None:
        bad = self._bad_endings()
        if not bad:
            return
        self._service.ended([*used, *bad])
        raise TaskFailed(judge_all([Ended(job) for job in bad]))

    def _rows_to_repair(self, plan: Plan, round_: int, used: Sequence[BatchJob]) -> Sequence[int] | None:
        """Give the rows of the next round, or None when there is none."""
        if any(self._belongs(job, round_) for job in self._jobs.values()):
            return ()
        if not plan.can_resend:
            return None
        if round_ > self._policy.repair_rounds and (self._first_try or self._ledger.rounds is not None):
            return None
        survey = self._work.survey(used, shard=None)
        if not survey.repairable:
            return None
        if round_ > self._policy.repair_rounds:
            # A retry may mend what made the try before it fail, once.
            if self._judge_rows(used, survey, can_repair=True).success:
                return None
            self._ledger.rounds = round_
        log.info(
            "%d of %d rows failed in a way that a second try can mend: sending them again.",
            len(survey.repairable),
            survey.total,
        )
        return survey.repairable

    def _belongs(self, job: BatchJob, round_: int) -> bool:
        tag = tag_of(job)
        return (
            tag is not None
            and (tag.identity, tag.round, tag.fingerprint) == (self._identity, round_, self._ledger.fingerprint)
            and (tag.generation == self._generation or not self._was_delivered(job.name))
            and job.state is not JobState.FAILED
        )

    def _judge_rows(self, used: Sequence[BatchJob], landing: Landing, *, can_repair: bool) -> Verdict:
        return judge(
            # What became of each job is settled: here the rows of all of them together are judged.
            Ended(used[-1].model_copy(update={"state": JobState.SUCCEEDED})),
            counts=Counts(landing.total, landing.succeeded, landing.failed),
            limits=Limits(self._policy.max_failed_rows, self._policy.max_failure_rate),
            can_repair=can_repair,
        )

    def _deliver(self, plan: Plan, used: Sequence[BatchJob]) -> Watch | Wake | Done:
        try:
            landing = self._work.land(used)
        except ResultsGone as error:
            return self._without_results(plan, used, error)
        self._service.ended(used)
        verdict = self._judge_rows(used, landing, can_repair=plan.can_resend and bool(landing.repairable))
        names = [job.name for job in used]
        if verdict.success or not plan.can_resend:
            self._ledger.delivered.extend(name for name in names if name not in self._ledger.delivered)
            self._submitter.save()
        if not verdict.success:
            raise TaskFailed(verdict, landing=landing)
        return Done(jobs=tuple(used), landing=landing, memo=self._ledger.to_json())

    def _without_results(self, plan: Plan, used: Sequence[BatchJob], error: ResultsGone) -> Watch | Wake | Done:
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
