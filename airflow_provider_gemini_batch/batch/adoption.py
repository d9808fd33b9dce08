"""Adoption: whether an existing job serves a slot, or a new one has to be submitted. Records are read, never changed.

The rules, for one slot of one task:

==========================================  ====================================  ====================================
found                                       on a retry (same clear count)         after a clear (lower clear count)
==========================================  ====================================  ====================================
active (an unknown state counts as active)  adopted                               adopted: paid work goes on
succeeded, or partially succeeded           adopted                               adopted unless delivered, or no
                                                                                  longer kept
failed                                      next submission                       next submission
expired, or cancelled by this task;         finished rows count, rest is sent     the same unless delivered
failed with finished rows
cancelled by somebody else                  adopted, so that the judge refuses    as expired
being cancelled                             adopted, to see how it ends           the same
==========================================  ====================================  ====================================

Finished rows count only where the others can be sent again; otherwise everything is sent again. Of several good jobs
those with the highest clear count come first, since their rows may have been repaired already; of these the oldest is
used, so that two tries that look at the same time choose the same one, and the other active ones are cancelled. A job
with another fingerprint is stale: other input was sent under the same name. Which input counts is decided first
(:func:`standing_input`): a retry uses what has been paid for, even if the input has changed since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.batch.tag import Tag
from airflow_provider_gemini_batch.polling.policy import job_age

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from airflow_provider_gemini_batch.batch.state import JobRecord

_NEWEST: Final = datetime.max.replace(tzinfo=timezone.utc)
# INVALID_ARGUMENT: the service could not import what the job was given.
_INVALID: Final = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one job in a batch, with the members of its tag.

    ``fingerprint`` is None when the input can no longer be read.
    """

    identity: str
    clear_count: int
    shard: int
    round: int
    fingerprint: str | None

    def tag(self, submission: int) -> Tag:
        """Return the tag of a submission.

        :raises ValueError: the fingerprint is missing; input that cannot be read cannot be sent.
        """
        if self.fingerprint is None:
            raise ValueError("No fingerprint: the input cannot be read, so nothing can be submitted")
        return Tag(self.identity, self.clear_count, self.shard, self.round, submission, self.fingerprint)

    def has(self, tag: Tag) -> bool:
        """Return whether a job with this tag was created for this slot, whatever its input and clear count."""
        return (tag.identity, tag.shard, tag.round) == (self.identity, self.shard, self.round)


@dataclass(frozen=True, slots=True)
class Cleanup:
    """The other active jobs that were found, by name, whatever is decided.

    ``duplicates`` are further jobs for the very same rows: cancel them. ``stale`` are jobs with other input that this
    task created itself: cancel them. ``strangers`` are left alone; each is named in ``warnings``.
    """

    duplicates: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopt:
    """Use this job, running or ended; the finished rows of ``rows_from`` (oldest first) also count."""

    job_name: str
    why: str
    rows_from: tuple[str, ...] = ()
    cleanup: Cleanup = Cleanup()


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit a new job with this submission number, without the rows that finished in ``rows_from`` (oldest first).

    ``completes``: those jobs of ``rows_from`` whose output the service can continue from, where rows cannot be sent
    one by one.
    """

    submission: int
    why: str
    rows_from: tuple[str, ...] = ()
    cleanup: Cleanup = Cleanup()
    completes: tuple[str, ...] = ()


Decision = Adopt | Submit


@dataclass(frozen=True, slots=True)
class _Candidate:
    record: JobRecord
    job: BatchJob
    tag: Tag
    older: bool

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def by_age(self) -> tuple[datetime, int, str]:
        return (self.job.create_time or _NEWEST, self.tag.submission, self.name)

    @property
    def by_preference(self) -> tuple[int, datetime, int, str]:
        return (-self.tag.clear_count, *self.by_age)

    @property
    def by_submission(self) -> tuple[int, int, datetime, str]:
        return (self.tag.clear_count, self.tag.submission, self.job.create_time or _NEWEST, self.name)

    @property
    def is_used_up(self) -> bool:
        """Whether its results were delivered before the task was cleared, so that they are not used again."""
        return self.older and self.record.was_delivered

    @property
    def is_good(self) -> bool:
        """Whether the job can be used as it is; one whose cancellation was asked for cannot."""
        if self.record.ended_well:
            return not self.is_used_up and not (self.older and self.record.results_expired)
        return self.record.is_active and not self.record.cancelled_by_us


def decide(
    records: Iterable[JobRecord], slot: Slot, *, reattach: bool = True, can_resend: bool = False, has_notes: bool = True
) -> Decision:
    """Decide which job serves a slot.

    :param records: of all jobs seen, in any order; those of other slots are ignored.
    :param reattach: False: only jobs of this try are adopted or cancelled, whatever else is found.
    :param can_resend: whether single rows can be sent again.
    :param has_notes: whether it is recorded which jobs this task cancelled. If it is not, a cancelled job counts as
        cancelled by us: a cancellation by somebody else would end the task without a retry.
    """
    ours = _candidates(records, slot)
    submission = max((one.tag.submission for one in ours), default=-1) + 1
    foreign = [] if reattach else [one for one in ours if not one.record.is_own]
    ours = [one for one in ours if one not in foreign]
    fingerprint = slot.fingerprint or _newest_fingerprint(ours)
    same = [one for one in ours if one.tag.fingerprint == fingerprint]
    others = [one for one in ours if one.tag.fingerprint != fingerprint]
    good = [one for one in same if one.is_good]
    chosen = min(good, key=lambda one: one.by_preference) if good else _ending_to_judge(same, has_notes=has_notes)
    cleanup = _cleanup(same, others, foreign, chosen)
    rows_from = _rows_from(same, chosen)
    if chosen is None:
        why = _why_submitted(same, others)
        if not can_resend:
            return Submit(submission, why, (), cleanup)
        return Submit(submission, why, rows_from, cleanup, _completable(same, rows_from))
    if slot.fingerprint is None:
        unchecked = f"The input cannot be read, so it could not be checked that {chosen.name} was made from it."
        cleanup = replace(cleanup, warnings=(*cleanup.warnings, unchecked))
    return Adopt(chosen.name, _why_adopted(chosen), rows_from, cleanup)


def standing_input(
    records: Collection[JobRecord], clear_count: int, *, noted: str, reads: str, reattach: bool = True
) -> str | None:
    """Return the fingerprint of the earlier input that a retry keeps using although the input has changed; else None.

    Responses that have been or will be paid for are never discarded and bought again because a template, a variable or
    a file changed between two tries. A person who wants the new input clears the task.

    :param noted: the fingerprint that earlier tries worked with; empty if that is not known.
    :param reads: the fingerprint of the input as it is now.
    """
    usable = {
        record.tag.fingerprint
        for record in records
        if record.tag is not None
        and (record.tag.clear_count == clear_count or record.inherited)
        and (reattach or record.is_own)
        and (record.ended_well or (record.is_active and not record.cancelled_by_us))
        and not record.results_expired
    }
    return None if reads in usable or noted not in usable else noted


def is_of_earlier_run(job: BatchJob, *, run_began: datetime, now: datetime) -> bool:
    """Return whether a job was created before the Dag run began, by an earlier run with the same id that was deleted.

    Two comparisons must agree, since each involves two clocks: the job's creation (service) with the start of the run
    (Airflow), and the job's age (the ``Date`` header, which may be a gateway's) with the run's (this worker). A job of
    our own that is mistaken for an earlier run's is bought again; the opposite mistake only uses responses to the very
    same rows.

    :param run_began: with some minutes to spare.
    """
    if job.create_time is None or job.create_time >= run_began:
        return False
    age = job_age(job)
    return age is None or age > (now - run_began).total_seconds()


def orphaned_shards(records: Iterable[JobRecord], identity: str, *, shards: int) -> Cleanup:
    """Return what to do about active jobs whose shard no longer exists, because the input or its limits changed."""
    gone = [
        _Candidate(record, record.job, record.tag, older=True)
        for record in records
        if record.job is not None
        and record.tag is not None
        and record.tag.identity == identity
        and record.tag.shard >= shards
    ]
    return _cleanup([], gone, [], None)


def outdated_repairs(records: Iterable[JobRecord], identity: str, *, base: int) -> Cleanup:
    """Return the active repair jobs for rows of a clear count before ``base``, which nobody needs any more."""
    return Cleanup(
        duplicates=tuple(
            record.name
            for record in records
            if record.tag is not None
            and record.tag.identity == identity
            and record.tag.round > 0
            and record.tag.clear_count < base
            and record.is_active
        )
    )


def partial_results_for(records: Iterable[JobRecord], slot: Slot, job_name: str) -> tuple[str, ...]:
    """Return the ended jobs whose finished rows count together with those of a job in use, oldest first."""
    ours = _candidates(records, slot)
    chosen = next((one for one in ours if one.name == job_name), None)
    if chosen is None:
        return ()
    return _rows_from([one for one in ours if one.tag.fingerprint == chosen.tag.fingerprint], chosen)


def _candidates(records: Iterable[JobRecord], slot: Slot) -> list[_Candidate]:
    ours = [
        _Candidate(record, record.job, record.tag, older=record.tag.clear_count < slot.clear_count)
        for record in records
        if record.job is not None and record.tag is not None and slot.has(record.tag)
    ]
    return sorted(ours, key=lambda one: one.by_age)


def _newest_fingerprint(ours: Sequence[_Candidate]) -> str | None:
    return max(ours, key=lambda one: one.by_submission).tag.fingerprint if ours else None


def _ending_to_judge(same: Sequence[_Candidate], *, has_notes: bool) -> _Candidate | None:
    """Return the newest job if its ending decides what happens; None if another job is to be submitted.

    A job that is being cancelled may still succeed or leave finished rows, which have been paid for. A cancellation by
    a person counts only until the task is cleared.
    """
    if not same:
        return None
    newest = max(same, key=lambda one: one.by_submission)
    if not newest.record.is_done:
        return newest
    if newest.older:
        return None
    by_a_person = has_notes and not newest.record.cancelled_by_us
    return newest if newest.job.state is JobState.CANCELLED and by_a_person else None


def _rows_from(same: Sequence[_Candidate], chosen: _Candidate | None) -> tuple[str, ...]:
    """Return the jobs whose finished rows count together with the chosen job's, which was sent to complete them."""
    return tuple(
        one.name
        for one in same
        if one.record.was_cut_short
        and one.record.has_finished_rows
        and not one.is_used_up
        and (chosen is None or one.tag.submission < chosen.tag.submission)
    )


def _completable(same: Sequence[_Candidate], rows_from: Sequence[str]) -> tuple[str, ...]:
    """Return the jobs whose output has not yet been the input of a job that the service failed as invalid."""
    refused = [one.tag.submission for one in same if one.job.error is not None and one.job.error.code == _INVALID]
    after = max(refused, default=-1)
    return tuple(one.name for one in same if one.name in rows_from and one.tag.submission > after)


def _cleanup(
    same: Sequence[_Candidate],
    others: Sequence[_Candidate],
    foreign: Sequence[_Candidate],
    chosen: _Candidate | None,
) -> Cleanup:
    active = [one for one in others if one.record.is_active]
    strangers = [one for one in active if not one.record.created]
    strangers += [one for one in foreign if one.record.is_active]
    return Cleanup(
        duplicates=tuple(one.name for one in same if one is not chosen and one.record.is_active),
        stale=tuple(one.name for one in active if one.record.created),
        strangers=tuple(one.name for one in strangers),
        warnings=tuple(_left_running(one) for one in strangers),
    )


def _left_running(one: _Candidate) -> str:
    return (
        f"{one.name} ({one.tag}, {one.job.state.words}) carries this task's name but is not used by it, and it may "
        "not have been made by it: it is left running. Cancel it if nobody needs it."
    )


def _why_adopted(one: _Candidate) -> str:
    before = "before the task was cleared" if one.older else "by an earlier try"
    now = f"has {one.job.state.words}" if one.record.ended_well else f"is {one.job.state.words}"
    return f"it was created {before} from the same input and {now}"


def _why_submitted(same: Sequence[_Candidate], others: Sequence[_Candidate]) -> str:
    if same:
        states = ", ".join(f"{one.name} ({_ending_in_words(one)})" for one in same)
        return f"no job that was created from this input can be used any more: {states}"
    return "the jobs of this task were created from other input" if others else ""


def _ending_in_words(one: _Candidate) -> str:
    return f"{one.job.state.words}, its results were delivered" if one.is_used_up else one.job.state.words
