"""What a run knows of its task's jobs, and what it does to them besides making them: remember, use, cancel, give up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, NotFound
from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.batch.ports import TaskFailed
from airflow_provider_gemini_batch.batch.submit import Postponed
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.batch.verdict import Gone, judge
from airflow_provider_gemini_batch.polling import policy
from airflow_provider_gemini_batch.polling.report import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_gemini_batch.batch.adoption import Place, Tidying
    from airflow_provider_gemini_batch.batch.ports import Clock, JobService, Policy, Work
    from airflow_provider_gemini_batch.batch.state import Ledger

log = logging.getLogger(__name__)

_CANCEL_PAUSES = (1.0, 3.0, 10.0)
# Without a lasting store the next try could not tell our own cancellation from a person's: wait for it to show.
_CANCEL_LOOKS = 10
_CANCEL_PAUSE = 3.0


class KnownJobs:
    """The jobs of one task instance as one process sees them."""

    def __init__(
        self,
        *,
        identity: str,
        generation: int,
        ledger: Ledger,
        save: Callable[[], None],
        policy: Policy,
        service: JobService,
        clock: Clock,
        work: Work,
        known_before: bool,
    ) -> None:
        """Take what the run shares.

        :param save: keeps the ledger.
        :param known_before: whether an earlier try or process left a ledger.
        """
        self._identity = identity
        self._generation = generation
        self._ledger = ledger
        self._save = save
        self._policy = policy
        self._service = service
        self._clock = clock
        self._work = work
        self._known_before = known_before
        self._jobs: dict[str, BatchJob] = {}
        self._seen_at: dict[str, float] = {}
        self._told_to_stop: set[str] = set()

    # -- remembering

    @property
    def all(self) -> list[BatchJob]:
        """All jobs of the task, in the order of becoming known."""
        return list(self._jobs.values())

    @property
    def own(self) -> list[str]:
        """The names of the jobs that belong to this try, whoever made them."""
        return [*self._ledger.watching, *self._ledger.fresh]

    def see(self, job: BatchJob) -> None:
        """Remember a job as it is now."""
        self._jobs[job.name] = job
        self._seen_at[job.name] = self._clock.now()

    def remember(self, jobs: Iterable[BatchJob]) -> None:
        """Remember what a list showed, where nothing is known yet; later processes must know of it, too."""
        for job in jobs:
            tag = tag_of(job)
            if tag is not None and tag.identity == self._identity and job.name not in self._jobs:
                self.see(job)
                self._ledger.note_job(job.name, made=False)

    def ask(self, name: str, reason: Reason) -> None:
        """Ask for a job of the ledger.

        :param reason: what the last wait brought: a trigger that says "gone" has asked twice already.
        :raises Postponed: the service does not know the job; it will be asked again, a minute later.
        :raises TaskFailed: it still does not know it, and this try waited for the job.
        """
        now = self._clock.now()
        try:
            self.see(self._service.get(name))
        except NotFound as error:
            since = self._ledger.gone.setdefault(name, now)
            if reason is not Reason.GONE and now - since < policy.BELIEVED_AFTER:
                self._save()
                what = f"the service says that it does not know {name}: asking again"
                raise Postponed(since + policy.BELIEVED_AFTER, what) from error
            self._ledger.jobs.remove(name)
            self._save()
            if name in self._ledger.watching:
                raise TaskFailed(judge(Gone(name))) from error
            log.warning("The service no longer knows %s: it is not counted on.", name)
            return
        self._ledger.gone.pop(name, None)

    def shards(self) -> int:
        """Tell into how many jobs the rows were divided, as far as the jobs show it."""
        tags = [tag_of(job) for job in self.all]
        return max((tag.shard for tag in tags if tag is not None), default=0) + 1

    def newest_fingerprint(self) -> str:
        """Give the fingerprint of the newest job; empty without jobs."""
        tags = [tag for job in self.all if (tag := tag_of(job)) is not None]
        newest = max(tags, key=lambda tag: (tag.generation, tag.round, tag.submission), default=None)
        return newest.fingerprint if newest is not None else ""

    # -- using

    def watched_at(self, place: Place) -> BatchJob | None:
        """Give the job that this try uses at a place, unless this task cancelled it and it has ended without use."""
        for name in reversed(self._ledger.watching):
            job = self._jobs.get(name)
            tag = tag_of(job) if job is not None else None
            if job is None or tag is None or (tag.shard, tag.round) != (place.shard, place.round):
                continue
            spent = job.is_done and not job.succeeded and name in self._ledger.cancelled
            return None if spent else job
        return None

    def use(self, job: BatchJob) -> None:
        """Note that this try waits for a job, and from when its time counts."""
        if job.name in self._ledger.watching:
            return
        if self._is_inherited(job) and job.name not in self._ledger.taken:
            self._ledger.taken.append(job.name)
        self._ledger.watching.append(job.name)
        self._ledger.note_job(job.name, made=False)
        began = now = self._clock.now()
        if not job.is_done:
            if self._is_inherited(job) and job.state is JobState.CANCELLING and job.name not in self._ledger.cancelled:
                # Whoever stopped it did so before the task was cleared: its end is awaited, and judges nothing.
                self._ledger.cancelled.append(job.name)
            over = self.submitted(job) + self._longest <= now and self._policy.cancel_on_timeout
            if over or job.name in self._ledger.cancelled:
                # An earlier try was done with this job, perhaps killed before it could say so. Its end is awaited.
                self.cancel(job)
            else:
                began = self.submitted(job)
        self._ledger.began = began if self._ledger.began is None else min(began, self._ledger.began)
        self._save()

    def _is_inherited(self, job: BatchJob) -> bool:
        tag = tag_of(job)
        return tag is not None and tag.generation < self._generation

    def submitted(self, job: BatchJob) -> float:
        """Tell when a job was submitted, by our clock, from its age by the service's: clocks are never compared."""
        recorded = self._ledger.began if policy.job_age(job) is None else None
        seen = self._seen_at.get(job.name, self._clock.now())
        return policy.submitted_at(job, now=seen, recorded=recorded)

    def limit(self, active: Iterable[BatchJob] = ()) -> float:
        """Tell the moment at which the waiting ends, in seconds since the epoch."""
        began = self._ledger.began if self._ledger.began is not None else self._clock.now()
        if self._policy.timeout is not None:
            return began + self._policy.timeout
        counted = [job for job in active if job.name not in self._ledger.cancelled]
        return min((self.submitted(job) for job in counted), default=began) + self._policy.service_wait

    @property
    def _longest(self) -> float:
        return self._policy.service_wait if self._policy.timeout is None else self._policy.timeout

    def was_delivered(self, name: str) -> bool:
        """Tell whether a job's results reached the author before this generation."""
        if name in self._ledger.taken:
            return False  # this generation uses it: what lies at the output may be its own
        if name in self._ledger.delivered:
            return True
        if self._known_before:
            return False  # the notes were kept, and say nothing of it
        told = self._work.was_delivered(name)
        if told is None:
            # Nobody kept a note: a person who clears such a task wants it run anew, if it ever came to its end.
            return not self._was_interrupted(name)
        return told or self._was_followed(name)

    def _was_interrupted(self, name: str) -> bool:
        """Tell whether a job that was made together with this one still runs: nothing was delivered then."""
        tag = tag_of(self._jobs[name]) if name in self._jobs else None
        return tag is not None and any(
            (other := tag_of(job)) is not None
            and (other.generation, other.fingerprint) == (tag.generation, tag.fingerprint)
            for job in self.all
            if not job.is_done and job.state is not JobState.CANCELLING
        )

    def _was_followed(self, name: str) -> bool:
        """Tell whether the output came from a later generation than this job, whose own results are history then."""
        tag = tag_of(self._jobs[name]) if name in self._jobs else None
        later = [
            job.name
            for job in self.all
            if tag is not None and (other := tag_of(job)) is not None and other.generation > tag.generation
        ]
        return any(self._work.was_delivered(other) for other in later)

    def unfinished(self) -> tuple[str, ...]:
        """Give the names of this try's jobs that have not been seen to end."""
        jobs = ((name, self._jobs.get(name)) for name in dict.fromkeys(self.own) if name in self._ledger.jobs)
        return tuple(name for name, job in jobs if job is None or not job.is_done)

    def bad_endings(self) -> list[BatchJob]:
        """Give the jobs that ended badly while this try waited for them, our own cancellations aside."""
        good = (JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED)
        watched = [self._jobs[name] for name in self._ledger.watching if name in self._jobs]
        return [
            job for job in watched if job.is_done and job.state not in good and job.name not in self._ledger.cancelled
        ]

    # -- cancelling

    def tidy_up(self, tidying: Tidying) -> None:
        """Cancel what is in the way, and name what is not ours to cancel."""
        for warning in tidying.warnings:
            log.warning("%s", warning)
        for job in (*tidying.duplicates, *tidying.stale):
            log.warning("Cancelling %s: another job of this task is used in its place.", job.name)
            self.cancel(job)

    def cancel(self, job: BatchJob) -> bool:
        """Tell a job to stop; returns whether the service took the wish."""
        return self._cancel(job.name)

    def _cancel(self, name: str) -> bool:
        if name in self._told_to_stop:
            return True
        if name not in self._ledger.cancelled:
            # Written down first: a cancelled job that nobody owns up to would be taken for a person's decision.
            self._ledger.cancelled.append(name)
            self._save()
        for pause in _CANCEL_PAUSES:
            error = self._try_to_cancel(name)
            if error is None or not error.retryable:
                break
            self._clock.sleep(pause)
        else:
            error = self._try_to_cancel(name)
        if error is not None:
            log.warning("Could not cancel %s: %s", name, error)
            if not error.retryable:
                # The service will not stop it, so it runs on: whoever comes next may use it.
                self._ledger.cancelled.remove(name)
                self._save()
            return False
        self._told_to_stop.add(name)
        return True

    def _try_to_cancel(self, name: str) -> GeminiBatchError | None:
        try:
            self._service.cancel(name)
        except GeminiBatchError as error:
            return error
        return None

    def see_cancelled(self, jobs: Iterable[BatchJob]) -> None:
        """Wait a little until cancelled jobs have ended."""
        left = [job.name for job in jobs]
        for _ in range(_CANCEL_LOOKS):
            try:
                left = [name for name in left if not self._service.get(name).is_done]
            except GeminiBatchError:
                return
            if not left:
                return
            self._clock.sleep(_CANCEL_PAUSE)

    def abandon(self, found: Iterable[BatchJob]) -> None:
        """Cancel what still runs: the task has failed for good, and nobody would fetch the results.

        :param found: jobs that an unanswered create call may have made.
        """
        self.remember(found)
        names = [*self.own, *(job.name for job in found)]
        running = [name for name in dict.fromkeys(names) if name in self._ledger.jobs and not self._has_ended(name)]
        for name in running:
            if name in self._told_to_stop:
                continue
            log.warning("Cancelling %s: the task has failed, and nobody waits for it any more.", name)
            # Noted at the end alone: the store may be what failed.
            if name not in self._ledger.cancelled:
                self._ledger.cancelled.append(name)
            self._cancel(name)
        if running:
            # Not otherwise: a try that could not read its notes must not write empty ones over them.
            self._save()

    def _has_ended(self, name: str) -> bool:
        return name in self._jobs and self._jobs[name].is_done
