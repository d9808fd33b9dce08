"""Adoption: which of the jobs in the service's list are this task's own, and what follows for the next create call.

The rules, for one shard and round of one task:

==========================================  ====================================  ====================================
found                                       on a retry (same generation)          after a clear (older generation)
==========================================  ====================================  ====================================
active (an unknown state counts as active)  adopted                               adopted: paid work goes on
succeeded, or partially succeeded           adopted                               adopted unless delivered
failed                                      next submission                       next submission
expired, or cancelled by this task          finished rows count, rest is sent     the same unless delivered
cancelled by somebody else                  adopted, so that the judge refuses    as expired
being cancelled                             adopted, to see how it ends           the same
==========================================  ====================================  ====================================

Finished rows count only where the others can be sent again; else everything is sent again. Of several good jobs the
oldest is used, so that two tries that look at the same time choose the same one, and the other active ones are
cancelled. Another fingerprint is stale: other input was sent under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.tag import Tag, tag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob

_NEWEST = datetime.max.replace(tzinfo=timezone.utc)
# A job that the service calls partially succeeded is judged by its rows, and its failed rows are mended by a repair.
_ANSWERED = frozenset({JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED})
_PARTIAL = frozenset({JobState.EXPIRED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Place:
    """One shard and round of one task, in the words of its tag.

    ``fingerprint`` None: the input cannot be read any more.
    """

    identity: str
    generation: int
    shard: int
    round: int
    fingerprint: str | None

    def tag(self, submission: int) -> Tag:
        """Name a submission. Raises ``ValueError`` without a fingerprint: what cannot be read cannot be sent."""
        if self.fingerprint is None:
            raise ValueError("No fingerprint: the input cannot be read, so nothing can be submitted")
        return Tag(self.identity, self.generation, self.shard, self.round, submission, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Tidying:
    """What else was found, whatever is decided.

    ``duplicates`` are further active jobs for the very same rows: cancel them. ``stale`` are active jobs with other
    input that this task made itself: cancel them. ``strangers`` are active jobs that are left alone; each is named
    in ``warnings``.
    """

    duplicates: tuple[BatchJob, ...] = ()
    stale: tuple[BatchJob, ...] = ()
    strangers: tuple[BatchJob, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopt:
    """Use this job, running or ended; the finished rows of ``rows_from`` (oldest first) count as well."""

    job: BatchJob
    why: str
    rows_from: tuple[BatchJob, ...] = ()
    tidying: Tidying = Tidying()


@dataclass(frozen=True, slots=True)
class Submit:
    """Make a new job with this submission number, without the rows that finished in ``rows_from`` (oldest first)."""

    submission: int
    why: str
    rows_from: tuple[BatchJob, ...] = ()
    tidying: Tidying = Tidying()


Decision = Adopt | Submit


@dataclass(frozen=True, slots=True)
class _Found:
    job: BatchJob
    tag: Tag
    older: bool

    @property
    def age_order(self) -> tuple[datetime, int, str]:
        return (self.job.create_time or _NEWEST, self.tag.submission, self.job.name)

    @property
    def submission_order(self) -> tuple[int, int, datetime, str]:
        return (self.tag.generation, self.tag.submission, self.job.create_time or _NEWEST, self.job.name)


def decide(
    found: Iterable[BatchJob],
    place: Place,
    *,
    reattach: bool = True,
    can_resend: bool = False,
    delivered: Callable[[str], bool] = lambda _name: False,
    made_by_us: Collection[str] = frozenset(),
    cancelled_by_us: Collection[str] | None = None,
    own: Collection[str] = frozenset(),
    not_before: datetime | None = None,
) -> Decision:
    """Decide what to do about one shard and round.

    :param found: jobs from the service's list, in any order; those of others are passed over.
    :param reattach: False: only ``own`` jobs are adopted or cancelled, whatever else is found.
    :param can_resend: whether single rows can be sent again.
    :param delivered: tells of a job's name whether its results reached the author already.
    :param made_by_us: names of jobs that this very task is known to have created.
    :param cancelled_by_us: names of jobs that this task is known to have cancelled. None: nobody kept count, and a
        cancelled job is taken for our own doing, since a job that somebody else cancels ends the task without a
        retry.
    :param own: names of the jobs that belong to this very try.
    :param not_before: passes over jobs that were created earlier, by the service's clock: a deleted Dag run that
        was made again under the same name does not inherit.
    """
    ours = _ours(found, place, not_before)
    submission = max((one.tag.submission for one in ours), default=-1) + 1
    foreign = [] if reattach else [one for one in ours if one.job.name not in own]
    ours = [one for one in ours if one not in foreign]
    fingerprint = place.fingerprint or _newest_fingerprint(ours)
    same = [one for one in ours if one.tag.fingerprint == fingerprint]
    others = [one for one in ours if one.tag.fingerprint != fingerprint]
    on_its_way_out = cancelled_by_us or ()
    good = [one for one in same if _is_good(one, delivered, on_its_way_out)]
    chosen = min(good, key=lambda one: one.age_order) if good else _ending_to_judge(same, cancelled_by_us)
    tidying = _tidying(same, others, foreign, chosen, made_by_us)
    rows_from = _rows_from(same, chosen, delivered)
    if chosen is not None:
        if place.fingerprint is None:
            unchecked = f"The input cannot be read: whether {chosen.job.name} was made from it could not be checked."
            tidying = Tidying(tidying.duplicates, tidying.stale, tidying.strangers, (*tidying.warnings, unchecked))
        return Adopt(chosen.job, _why_adopted(chosen), rows_from, tidying)
    return Submit(submission, _why_submitted(same, others), rows_from if can_resend else (), tidying)


def leftovers(
    found: Iterable[BatchJob], identity: str, *, shards: int, made_by_us: Collection[str] = frozenset()
) -> Tidying:
    """Sort active jobs of this task whose shard no longer exists, because the input or its limits changed."""
    tagged = ((job, tag_of(job)) for job in found)
    gone = [
        _Found(job, tag, older=True)
        for job, tag in tagged
        if tag is not None and tag.identity == identity and tag.shard >= shards
    ]
    return _tidying([], gone, [], None, made_by_us)


def outdated_repairs(found: Iterable[BatchJob], identity: str, *, base: int) -> Tidying:
    """Sort active repairs of rows that come from a generation before ``base``: nothing is left for them to mend."""
    tagged = ((job, tag_of(job)) for job in found)
    return Tidying(
        duplicates=tuple(
            job
            for job, tag in tagged
            if tag is not None
            and tag.identity == identity
            and tag.round > 0
            and tag.generation < base
            and _is_active(job)
        )
    )


def rows_beside(
    found: Iterable[BatchJob], place: Place, job: BatchJob, *, delivered: Callable[[str], bool]
) -> tuple[BatchJob, ...]:
    """Give the ended jobs whose finished rows count beside those of a job that is in use, oldest first."""
    ours = _ours(found, place, None)
    chosen = next((one for one in ours if one.job.name == job.name), None)
    if chosen is None:
        return ()
    return _rows_from([one for one in ours if one.tag.fingerprint == chosen.tag.fingerprint], chosen, delivered)


def has_finished_rows(job: BatchJob) -> bool:
    """Whether an ended job may have answers worth reading.

    Counters lag, and a partial look does not tell where answers lie: only a job whose every request is still pending,
    by its own account, has none for certain.
    """
    stats = job.completion_stats
    untouched = stats is not None and stats.total is not None and stats.pending == stats.total
    return job.state in _ANSWERED or (job.state in _PARTIAL and not untouched)


def _ours(found: Iterable[BatchJob], place: Place, not_before: datetime | None) -> list[_Found]:
    ours: dict[str, _Found] = {}
    for job in found:
        tag = tag_of(job)
        if tag is None or (tag.identity, tag.shard, tag.round) != (place.identity, place.shard, place.round):
            continue
        if not_before is not None and job.create_time is not None and job.create_time < not_before:
            continue
        # A list that moves between two pages can show a job twice: the later look is the newer one, an end stays.
        known = ours.get(job.name)
        if known is None or not known.job.is_done:
            ours[job.name] = _Found(job, tag, older=tag.generation < place.generation)
    return sorted(ours.values(), key=lambda one: one.age_order)


def _newest_fingerprint(ours: Sequence[_Found]) -> str | None:
    return max(ours, key=lambda one: one.submission_order).tag.fingerprint if ours else None


def _is_active(job: BatchJob) -> bool:
    return not job.is_done and job.state is not JobState.CANCELLING


def _is_good(one: _Found, delivered: Callable[[str], bool], on_its_way_out: Collection[str]) -> bool:
    """Whether a job can be used as it is; one whose cancellation was asked for cannot."""
    if one.job.state in _ANSWERED:
        return not (one.older and delivered(one.job.name))
    return _is_active(one.job) and one.job.name not in on_its_way_out


def _ending_to_judge(same: Sequence[_Found], cancelled_by_us: Collection[str] | None) -> _Found | None:
    """Give the newest job where it is its ending that decides, not another job.

    One that is being cancelled may have finished rows, or succeed all the same: they are paid for. An ending that a
    person brought about counts in its own generation alone.
    """
    if not same:
        return None
    newest = max(same, key=lambda one: one.submission_order)
    if not newest.job.is_done:
        return newest
    if newest.older:
        return None
    by_a_person = cancelled_by_us is not None and newest.job.name not in cancelled_by_us
    return newest if newest.job.cancelled and by_a_person else None


def _rows_from(same: Sequence[_Found], chosen: _Found | None, delivered: Callable[[str], bool]) -> tuple[BatchJob, ...]:
    """Give the jobs whose finished rows count beside the chosen job's: those that it was to complete."""
    return tuple(
        one.job
        for one in same
        if one.job.state in _PARTIAL
        and has_finished_rows(one.job)
        and not (one.older and delivered(one.job.name))
        and (chosen is None or one.tag.submission < chosen.tag.submission)
    )


def _tidying(
    same: Sequence[_Found],
    others: Sequence[_Found],
    foreign: Sequence[_Found],
    chosen: _Found | None,
    made_by_us: Collection[str],
) -> Tidying:
    active = [one for one in others if _is_active(one.job)]
    strangers = [one for one in active if one.job.name not in made_by_us]
    strangers += [one for one in foreign if _is_active(one.job)]
    return Tidying(
        duplicates=tuple(one.job for one in same if one is not chosen and _is_active(one.job)),
        stale=tuple(one.job for one in active if one.job.name in made_by_us),
        strangers=tuple(one.job for one in strangers),
        warnings=tuple(_left(one) for one in strangers),
    )


def _left(one: _Found) -> str:
    return (
        f"{one.job.name} ({one.tag}, {one.job.state.value}) carries this task's name but is not used by it, and it may "
        "not have been made by it: it is left running. Cancel it if nobody needs it."
    )


def _why_adopted(one: _Found) -> str:
    before = "before the task was cleared" if one.older else "by an earlier try"
    return f"it was made {before} from the same input and is {one.job.state.value}"


def _why_submitted(same: Sequence[_Found], others: Sequence[_Found]) -> str:
    if same:
        states = ", ".join(f"{one.job.name} {one.job.state.value}" for one in same)
        return f"none of the jobs made from this input can be used any more: {states}"
    return "the jobs of this task were made from other input" if others else "no job was made for this task yet"
