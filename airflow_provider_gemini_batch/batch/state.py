"""What a task knows of its jobs: a record for each, what may happen to a record, and how all of it is written down.

Theory. A *batch* is what one task hands over. Its rows lie in *slots*: one for each shard, and one more for each repair
round. A slot is served by one job at a time. A create call is written down before it is sent, as a *pending create*::

    pending create ──answered, or the job is found in the list──▶ a record, CREATED
          └──refused, or the job can no longer appear──▶ nothing: the slot may be sent again, until the fuse blows

A record lives as long as the task instance, over all its tries and clears. A try CHOOSES the job that serves a slot and
waits for it, whoever created it; a job that it no longer needs, it RELEASES. It may ask for the end of a job
(CANCEL_ASKED), which the service may refuse for good. When its results have reached the author, a job is DELIVERED: a
retry may land it again, and a person who clears the task wants another one. Results that the service no longer keeps
are RESULTS_EXPIRED. What happens when is decided elsewhere (:mod:`.adoption`, :mod:`.repair`, :mod:`.timeouts`); this
file says what it does to a record.

Rules of this file:

1. No clock, no network, no Airflow. Moments are seconds since the epoch by our own clock, given by the caller.
2. A record is a value. :meth:`BatchState.happened` alone replaces it, by the table; an event that the table does not
   allow is a mistake of ours, raises :class:`NotAllowed`, and leaves the record as it was.
3. Safety does not depend on what is written down: without it, the tags in the service's list say the same, at the price
   of a look-up. It holds names, times and numbers; never a credential, a prompt or a row.
4. The fuse: each create call is counted for its slot before it is sent, and the count is taken back only when the
   service certainly created nothing. In one try no slot is sent more than :data:`MOST_SENDS` times, and in the life of
   a task not more often than once for each try and :data:`MOST_SENDS` - 1 times beyond that, resubmissions after a
   stall aside. Whatever goes wrong with clocks, lists or answers, a task cannot buy jobs without end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.batch.tag import Tag, tag_of
from airflow_provider_gemini_batch.polling.policy import job_age

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

_VERSION: Final = 2
#: How often a slot may be sent in one try, resubmissions after a stall aside.
MOST_SENDS: Final = 5
#: The key of a pending create that an earlier try may have sent without recording it.
UNRECORDED: Final = "?"
PARTIAL: Final = frozenset({JobState.EXPIRED, JobState.CANCELLED})


class JobEvent(Enum):
    """What may happen to a record."""

    CREATED = "this task's create call made the job"
    CHOSEN = "this try uses the job"
    INHERITED = "it does so although the job was created before the task was cleared"
    RELEASED = "this try no longer needs the job"
    CANCEL_ASKED = "this task asks for the job's end"
    CANCEL_REFUSED = "the service will not end it"
    DELIVERED = "its results reached the author"
    RESULTS_EXPIRED = "the service no longer keeps its results"
    TRY_BEGAN = "the next try begins"
    CLEARED = "the next try begins after a person has cleared the task"


class Transition(NamedTuple):
    """One row of the table: facts that must hold or must not, facts that hold afterwards or no longer do."""

    needs: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    clears: tuple[str, ...] = ()


TRANSITIONS: Final[Mapping[JobEvent, Transition]] = {
    JobEvent.CREATED: Transition(sets=("created", "created_this_try")),
    JobEvent.CHOSEN: Transition(forbids=("in_use",), sets=("in_use",)),
    JobEvent.INHERITED: Transition(needs=("in_use",), sets=("inherited",)),
    JobEvent.RELEASED: Transition(needs=("in_use",), clears=("in_use",)),
    JobEvent.CANCEL_ASKED: Transition(sets=("cancelled_by_us",)),
    JobEvent.CANCEL_REFUSED: Transition(needs=("cancelled_by_us",), clears=("cancelled_by_us",)),
    JobEvent.DELIVERED: Transition(sets=("delivered",)),
    JobEvent.RESULTS_EXPIRED: Transition(sets=("results_expired",)),
    JobEvent.TRY_BEGAN: Transition(clears=("in_use", "created_this_try")),
    JobEvent.CLEARED: Transition(clears=("in_use", "created_this_try", "inherited")),
}
_FACTS: Final = tuple(dict.fromkeys(fact for row in TRANSITIONS.values() for fact in row.sets))


class NotAllowed(Exception):
    """The table does not allow this event for this record."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of one job.

    ``submitted_at``: when it was submitted, by our clock; set once. ``missing_since``: since when the service says that
    it does not know the job. ``tag``: the one that it was created with, or shows. The facts are those of
    :data:`TRANSITIONS`. The last two members are not saved: the job as it was last seen, and whether the existing
    output shows that its results were delivered before a clear.
    """

    name: str
    submitted_at: float | None = None
    missing_since: float | None = None
    created: bool = False
    created_this_try: bool = False
    in_use: bool = False
    inherited: bool = False
    cancelled_by_us: bool = False
    delivered: bool = False
    results_expired: bool = False
    tag: Tag | None = None
    job: BatchJob | None = None
    found_delivered: bool = False

    @property
    def is_own(self) -> bool:
        """Whether the job belongs to this try."""
        return self.in_use or self.created_this_try

    @property
    def is_done(self) -> bool:
        """Whether the job has been seen to end."""
        return self.job is not None and self.job.is_done

    @property
    def is_active(self) -> bool:
        """Whether the job runs or will run; a job in an unknown state counts as active."""
        return self.job is not None and not self.job.is_done and self.job.state is not JobState.CANCELLING

    @property
    def ended_well(self) -> bool:
        """Whether the job ended with responses, so that the task is judged by its rows; repair rounds mend these."""
        return self.job is not None and self.job.state.ended_well

    @property
    def was_cut_short(self) -> bool:
        """Whether the job ended early and may have left finished rows; a failed one may, too, if it has an output."""
        job = self.job
        return job is not None and (job.state in PARTIAL or (job.state is JobState.FAILED and job.dest is not None))

    @property
    def was_delivered(self) -> bool:
        """Whether its results reached the author before the task was cleared, and are not in use again since."""
        return not self.inherited and (self.delivered or self.found_delivered)

    @property
    def has_finished_rows(self) -> bool:
        """Whether the ended job may have responses worth reading.

        Counters lag, so only a job that counts every request as still pending certainly has none. A failed job has
        some only if its counters say so.
        """
        job = self.job
        if job is None or self.results_expired:
            return False
        stats = job.completion_stats
        if job.state is JobState.FAILED:
            return self.was_cut_short and stats is not None and stats.success > 0
        untouched = stats is not None and stats.total is not None and stats.pending == stats.total
        return job.state.ended_well or (job.state in PARTIAL and not untouched)

    def after(self, event: JobEvent) -> JobRecord:
        """Return the record as the table has it after an event. Raises :class:`NotAllowed`."""
        row = TRANSITIONS[event]
        if not all(getattr(self, fact) for fact in row.needs) or any(getattr(self, fact) for fact in row.forbids):
            facts = ", ".join(fact for fact in _FACTS if getattr(self, fact)) or "nothing"
            raise NotAllowed(f"{event.name} may not happen to {self.name}, which is {facts}")
        changed: dict[str, Any] = {**dict.fromkeys(row.sets, True), **dict.fromkeys(row.clears, False)}
        return replace(self, **changed)

    def age(self, now: float) -> float:
        """Return the job's age in seconds by our clock."""
        return max(0.0, now - self.submitted_at) if self.submitted_at is not None else 0.0

    def least_age(self, now: float) -> float:
        """Return the smaller of the job's ages by the service's clock and by ours, to decide whether to give it up.

        A job that is wrongly thought old is cancelled and bought again; one that is thought young is only awaited a
        little longer. So no single clock makes a job old: not the service's, whose ``Date`` header may be a gateway's,
        nor ours, which may be another worker's than the one that recorded the submission.
        """
        at_service = job_age(self.job) if self.job is not None else None
        return self.age(now) if at_service is None else min(at_service, self.age(now))


def _first_age(job: BatchJob, now: float) -> float:
    """Return the age of a job whose submission was not recorded: the smaller one by the service's clock and ours."""
    at_service = job_age(job)
    if at_service is None or job.create_time is None:
        return 0.0
    return max(0.0, min(at_service, now - job.create_time.timestamp()))


@dataclass(frozen=True, slots=True)
class PendingCreate:
    """A create call whose job is not known.

    ``sent``: when it was sent. ``answered``: the service answered it, so it no longer acts on it. ``waited``: seconds
    spent waiting for the job to show up. ``looked_at``: when the list was last searched, by our clock, ``listed_at``
    the same by the service's, and ``pause`` how many seconds after that it is to be searched again.
    """

    sent: float
    answered: bool = False
    waited: float = 0.0
    looked_at: float | None = None
    listed_at: float | None = None
    pause: float = 0.0

    def resumed(self, now: float, listed_at: float | None) -> PendingCreate:
        """Return it with the time since the last search added to ``waited``: at most the pause, if a clock jumped.

        Another worker's clock may have searched last, and a triggerer's may have ended the pause early, so the
        service's clock decides if it shows less. One that stands still or goes back says nothing.
        """
        if self.looked_at is None:
            return self
        passed = min(self.pause, max(0.0, now - self.looked_at))
        if listed_at is not None and self.listed_at is not None and listed_at > self.listed_at:
            passed = min(passed, listed_at - self.listed_at)
        return replace(self, waited=self.waited + passed, looked_at=None, listed_at=None, pause=0.0)


@dataclass
class BatchState:
    """All that one task instance must remember of its jobs between processes.

    The same value is kept in Airflow's task state store, where there is one, and travels as the trigger's memo.

    ``clear_count`` grows when a person clears the task and not on a retry. ``shards``: into how many jobs the rows are
    divided. ``input``: the plan's note on the input, as long as the clear count lasts. ``sends`` counts the create
    calls of each slot. ``stall_resubmits``: how often stalled jobs were replaced.

    The members below the line belong to one try. ``input_settled``: it is decided which input counts. ``began``: since
    when its time counts. ``extra_round``: a repair round beyond those that the author asked for. ``unanswered``: create
    calls in a row whose job never appeared; the next is not sent before ``resend_at``. ``turn_since``: when it began to
    wait for its turn. ``kept``: by tag, the name of input that was brought to the service for later, and when.
    ``errors``: failed calls in a row, ``unreadable`` of them without a readable answer. ``wait_until``: the end of the
    last wait by our clock; ``is_sleeping``: whether that wait was for a moment and not for jobs, and then
    ``waited_for`` says why. ``trigger_ahead``: by how many seconds the triggerer's clock is ahead; negative if it is
    behind.
    """

    clear_count: int = 0
    fingerprint: str = ""
    shards: int = 0
    records: dict[str, JobRecord] = field(default_factory=dict)
    pending: dict[str, PendingCreate] = field(default_factory=dict)
    input: dict[str, Any] = field(default_factory=dict)
    sends: dict[str, int] = field(default_factory=dict)
    stall_resubmits: int = 0
    # -- one try
    input_settled: bool = False
    began: float | None = None
    extra_round: int | None = None
    looked_up: bool = False
    sends_this_try: dict[str, int] = field(default_factory=dict)
    unanswered: int = 0
    resend_at: float = 0.0
    quota_refusals: int = 0
    turn_since: float | None = None
    kept: dict[str, list[Any]] = field(default_factory=dict)
    errors: int = 0
    unreadable: int = 0
    wait_until: float = 0.0
    is_sleeping: bool = False
    waited_for: str = ""
    trigger_ahead: float = 0.0

    def next_try(self, clear_count: int) -> BatchState:
        """Return the state for a new try: it keeps what is known of the jobs, and nothing that belonged to one try."""
        cleared = clear_count != self.clear_count
        event = JobEvent.CLEARED if cleared else JobEvent.TRY_BEGAN
        return BatchState(
            clear_count=clear_count,
            fingerprint="" if cleared else self.fingerprint,
            shards=self.shards,
            records={name: replace(record.after(event), missing_since=None) for name, record in self.records.items()},
            pending=dict(self.pending),
            input={} if cleared else dict(self.input),
            sends=dict(self.sends),
            stall_resubmits=0 if cleared else self.stall_resubmits,
        )

    # -- records

    def happened(self, event: JobEvent, name: str) -> JobRecord:
        """Apply an event to a job's record, as the table allows, and return the record; an unknown job gets one."""
        record = self.records[name] = self.records.get(name, JobRecord(name)).after(event)
        return record

    def observe(self, job: BatchJob, now: float) -> JobRecord:
        """Update a job's record with the job as the service showed it at ``now``, and return the record."""
        record = self.records.get(job.name, JobRecord(job.name))
        shown = tag_of(job)
        tag = record.tag or shown
        if tag is not None and shown is None:  # an ended job may come without its metadata
            job = job.model_copy(update={"display_name": tag.text})
        record = replace(record, job=job, tag=tag, missing_since=None)
        if record.submitted_at is None:
            record = replace(record, submitted_at=now - _first_age(job, now))
        self.records[job.name] = record
        return record

    def record_missing(self, name: str, now: float) -> JobRecord:
        """Record that the service says that it does not know a job, and since when; return the record."""
        record = self.records[name]
        if record.missing_since is None:
            record = self.records[name] = replace(record, missing_since=now)
        return record

    def record_listed(self, jobs: Iterable[BatchJob], identity: str, now: float) -> None:
        """Record this task's jobs in a list, unless they were seen on their own: a list shows less of a job."""
        for job in jobs:
            known = self.records.get(job.name)
            tag = tag_of(job)
            if tag is not None and tag.identity == identity and (known is None or known.job is None):
                self.observe(job, now)

    def record_created(self, job: BatchJob, now: float) -> JobRecord:
        """Record the job that a pending create made, and return its record."""
        tag = tag_of(job)
        pending = self.pending.pop(str(tag), None)
        self.quota_refusals = self.unanswered = 0
        record = self.happened(JobEvent.CREATED, job.name)
        if pending is not None:
            self.records[job.name] = replace(record, submitted_at=min(pending.sent, now))
        return self.observe(job, now)

    @property
    def identity(self) -> str:
        """The identity in the tags of this task's jobs; empty while there are none.

        It stays when the name of the deployment changes: the task would miss its own jobs and buy them again.
        """
        tags = [record.tag for record in self.records.values()] + [Tag.parse(tag) for tag in self.pending]
        return next((tag.identity for tag in tags if tag is not None), "")

    def seen(self) -> list[JobRecord]:
        """Return the records of the jobs that this process has seen and that carry a tag, in the order they came."""
        return [record for record in self.records.values() if record.job is not None and record.tag is not None]

    def jobs(self, names: Iterable[str]) -> list[BatchJob]:
        """Return the jobs of these names as they were last seen."""
        records = (self.records.get(name) for name in names)
        return [record.job for record in records if record is not None and record.job is not None]

    def in_use(self) -> list[JobRecord]:
        """Return the records of the jobs that this try uses."""
        return [record for record in self.records.values() if record.in_use]

    def unfinished(self, *, of_all_tries: bool) -> tuple[str, ...]:
        """Return the names of this task's jobs that have not been seen to end.

        :param of_all_tries: also those that an earlier try created and this one has not come to yet.
        """
        return tuple(
            record.name
            for record in self.records.values()
            if (record.is_own or (of_all_tries and record.created and not record.delivered)) and not record.is_done
        )

    def bad_endings(self) -> list[str]:
        """Return the jobs that ended badly while this try waited for them, our own cancellations aside."""
        return [
            record.name
            for record in self.in_use()
            if record.is_done and not record.ended_well and not record.cancelled_by_us
        ]

    def newest_fingerprint(self, clear_count: int | None = None) -> str:
        """Return the fingerprint of the newest job, of one clear count or of all; empty without jobs."""
        tags = [record.tag for record in self.seen() if record.tag is not None]
        tags = [tag for tag in tags if clear_count is None or tag.clear_count == clear_count]
        newest = max(tags, key=lambda tag: (tag.clear_count, tag.round, tag.submission), default=None)
        return newest.fingerprint if newest is not None else ""

    def shards_seen(self) -> int:
        """Return into how many jobs the rows were divided, as far as the jobs show it."""
        return max((record.tag.shard for record in self.seen() if record.tag is not None), default=0) + 1

    # -- the fuse

    def record_send(self, tag: Tag, now: float) -> None:
        """Record, as pending, a create call that is about to be sent, and count it."""
        self.pending[str(tag)] = PendingCreate(now)
        self.sends[tag.slot] = self.sent(tag) + 1
        self.sends_this_try[tag.slot] = self.sends_this_try.get(tag.slot, 0) + 1

    def take_back_send(self, tag: Tag) -> None:
        """Take back the record and the count of a create call that certainly created nothing."""
        self.pending.pop(str(tag), None)
        for counts in (self.sends, self.sends_this_try):
            counts[tag.slot] = max(0, counts.get(tag.slot, 1) - 1)

    def sent(self, tag: Tag) -> int:
        """Return how often a slot was sent in the life of the task, by our count or by the jobs seen."""
        return max(self.sends.get(tag.slot, 0), len(self.jobs_of(tag)))

    def jobs_of(self, tag: Tag) -> list[str]:
        """Return the jobs seen that were created for the slot of a tag, of whatever input and clear count."""
        return [record.name for record in self.seen() if record.tag is not None and record.tag.slot == tag.slot]

    def may_send(self, tag: Tag, *, try_number: int, resubmits: int) -> bool:
        """Return whether the fuse allows one more create call for a slot.

        :param try_number: Airflow's: 1, 2 ... over all clears.
        :param resubmits: how often a stalled job may be replaced.
        """
        this_try = self.sends_this_try.get(tag.slot, 0)
        most = try_number * (1 + resubmits) + MOST_SENDS - 1
        return this_try < MOST_SENDS + resubmits and self.sent(tag) < most

    # -- written down

    def to_json(self) -> str:
        """Return the state as a short text, without empty members."""
        kept = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("records", "pending")}
        kept["jobs"] = {name: _written(record, _KEPT_OF_RECORD) for name, record in self.records.items()}
        kept["pending"] = {tag: _written(one, _KEPT_OF_PENDING) for tag, one in self.pending.items()}
        return json.dumps({"version": _VERSION, **{k: v for k, v in kept.items() if v}}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> BatchState | None:
        """Return the state in a text; None without a text, and for one that a later version or somebody else wrote."""
        if not text:
            return None
        try:
            raw: Any = json.loads(text)
            version = raw.pop("version", None)
            if version == 1:
                return _from_version_1(raw)
            if version != _VERSION:
                return None
            records = {name: JobRecord(name, **_only(_KEPT_OF_RECORD, of)) for name, of in raw.pop("jobs", {}).items()}
            pending = {tag: PendingCreate(**_only(_KEPT_OF_PENDING, of)) for tag, of in raw.pop("pending", {}).items()}
            known = {one.name for one in fields(cls)}
            return cls(records=records, pending=pending, **_only(known, raw))
        except (ValueError, TypeError, AttributeError):
            return None


_KEPT_OF_RECORD: Final = ("submitted_at", "missing_since", "tag", *_FACTS)
_KEPT_OF_PENDING: Final = ("sent", "answered", "waited", "looked_at", "listed_at", "pause")


def _written(value: JobRecord | PendingCreate, names: Iterable[str]) -> dict[str, Any]:
    kept = {name: getattr(value, name) for name in names}
    return {name: _plain(what) for name, what in kept.items() if what or name == "sent"}


def _plain(value: object) -> object:
    return value.text if isinstance(value, Tag) else 1 if value is True else value


def _only(names: Collection[str], raw: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Callable[[Any], object]] = {"tag": Tag.parse, **dict.fromkeys(_FACTS, bool)}
    return {name: read[name](value) if name in read else value for name, value in raw.items() if name in names}


# Version 0.1.0 kept a list of job names for each fact, under these names.
_FACTS_1: Final = {
    "made": "created",
    "fresh": "created_this_try",
    "watching": "in_use",
    "taken": "inherited",
    "cancelled": "cancelled_by_us",
    "delivered": "delivered",
    "lost": "results_expired",
}
_NUMBERS_1: Final = {
    "generation": "clear_count",
    "fingerprint": "fingerprint",
    "shards": "shards",
    "stalled": "stall_resubmits",
    "began": "began",
    "rounds": "extra_round",
    "looked_up": "looked_up",
    "quota_refusals": "quota_refusals",
    "troubles": "errors",
}


def _from_version_1(raw: Mapping[str, Any]) -> BatchState:
    names = dict.fromkeys(raw.get("jobs", ()))
    records = {name: JobRecord(name, missing_since=raw.get("gone", {}).get(name)) for name in names}
    for list_name, fact in _FACTS_1.items():
        for name in raw.get(list_name, ()):
            if name in records:
                changed: dict[str, Any] = {fact: True}
                records[name] = replace(records[name], **changed)
    pending = {tag: PendingCreate(sent) for tag, sent in raw.get("intents", {}).items()}
    numbers = {_NUMBERS_1[name]: value for name, value in raw.items() if name in _NUMBERS_1}
    state = BatchState(records=records, pending=pending, **numbers)
    state.input_settled = bool(state.fingerprint)
    return state
