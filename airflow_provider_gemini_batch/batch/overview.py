"""The overview of a batch: what the page and the command line show of it, small and safe to keep in an XCom.

The running task writes it under the XCom key :data:`OVERVIEW_KEY` whenever something happened; the trigger adds a
:class:`Progress` under :data:`~..polling.progress.PROGRESS_KEY` while the task is deferred. It holds names, times and
numbers, never a prompt, a row or a response. Anybody who may push an XCom can write under these keys, so reading takes
nothing for granted: a value of the wrong type counts as missing, long texts are cut, long lists end.

Times are seconds since the epoch. Lists keep their newest members, at most ``MOST_JOBS``, ``MOST_EVENTS`` and so on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from airflow_provider_gemini_batch.polling.progress import MOST_SAMPLES, thin_out

VERSION: Final = 1
OVERVIEW_KEY: Final = "gemini_batch"
MOST_JOBS: Final = 50
MOST_EVENTS: Final = 40
MOST_FAILED_KEYS: Final = 20
MOST_KINDS: Final = 20
_LONGEST: Final = 300

#: What the task was last doing. Only Airflow's own state of the task says whether it still does.
PHASES: Final = (
    "submitting",
    "waiting for quota",
    "waiting",
    "running",
    "repairing",
    "landing",
    "submitted",
    "succeeded",
    "failed",
)


@dataclass(frozen=True, slots=True)
class JobOverview:
    """One job of the batch. ``round`` 0 holds the rows, a later one repairs them; ``shard`` counts from 0."""

    name: str
    shard: int = 0
    round: int = 0
    state: str = ""
    adopted: bool = False
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    total: int | None = None
    done: int | None = None
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the task did, in words for people."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """How many rows the service had counted at a moment; ``done`` includes ``failed``."""

    at: float
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A batch at one moment.

    ``why`` says in a few words why it waits or failed. ``succeeded`` and ``failed`` count landed rows; ``by_status``
    splits them by the status of the result row, ``reasons`` the failed ones further, by the service's word or number.
    ``usd`` is None where there is no price, ``is_upper_bound`` true where the sum can only be less,
    ``is_open_bound`` where it may be more. ``jobs_total`` is larger than the number of ``jobs`` where there are too
    many to list. ``estimated_usd`` was estimated before the batch was sent: an upper bound, or a guess where
    ``is_estimate_open``.
    """

    phase: str = "submitting"
    why: str = ""
    model: str = ""
    service: str = ""
    display_name: str = ""
    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    thinking_tokens: int | None = None
    cached_tokens: int | None = None
    usd: float | None = None
    is_upper_bound: bool = False
    is_open_bound: bool = False
    estimated_usd: float | None = None
    is_estimate_open: bool = False
    output: str = ""
    jobs_total: int = 0
    jobs: tuple[JobOverview, ...] = ()
    events: tuple[Event, ...] = ()
    by_status: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    failed_keys: tuple[str, ...] = ()

    def with_event(self, at: float, text: str) -> Overview:
        """Return the overview with one more event; the first is kept, then the newest."""
        events = (*self.events, Event(round(at, 1), text[:_LONGEST]))
        if len(events) > MOST_EVENTS:
            events = (events[0], *events[-(MOST_EVENTS - 1) :])
        return replace(self, events=events)

    def with_job(self, job: JobOverview) -> Overview:
        """Return the overview with this job added, or its earlier entry replaced."""
        known = {each.name: each for each in self.jobs}
        is_new = job.name not in known
        known[job.name] = job
        jobs = tuple(known.values())
        total = max(self.jobs_total, len(self.jobs)) + is_new
        return replace(
            self,
            jobs=jobs[-MOST_JOBS:],
            jobs_total=total,
            submitted_at=_first(self.submitted_at, *(each.submitted_at for each in jobs)),
            started_at=_first(self.started_at, *(each.started_at for each in jobs)),
        )

    def to_value(self) -> dict[str, Any]:
        """Return plain JSON values, without empty members."""
        plain = {one.name: _plain(getattr(self, one.name)) for one in fields(self)}
        return {"version": VERSION, **{name: value for name, value in plain.items() if value not in (None, "", [], {})}}


def _first(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _plain(value: object) -> object:
    # Lists, since Airflow wraps a tuple in an XCom.
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, JobOverview | Event):
        return _plain({name: member for name, member in asdict(value).items() if member is not None})
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in list(value.items())[:MOST_KINDS]}
    # JSON columns of PostgreSQL refuse U+0000, which a row's key or a word of the service may hold.
    return value[:_LONGEST].replace("\0", "\ufffd") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Progress:
    """What the trigger last saw, while the task was deferred.

    ``state`` is the state of the only job, or empty where there are several. ``jobs`` maps names to (state, total,
    done, failed). ``seconds_left`` counts from ``at``.
    """

    at: float | None = None
    state: str = ""
    total: int | None = None
    done: int | None = None
    failed: int | None = None
    seconds_left: float | None = None
    started_at: float | None = None
    samples: tuple[Sample, ...] = ()
    jobs: dict[str, tuple[str, int | None, int | None, int | None]] = field(default_factory=dict)


def read_overview(value: object) -> Overview | None:
    """Return the overview in an XCom's value; None for anything else, also for a later version's."""
    if not isinstance(value, dict) or value.get("version") != VERSION:
        return None
    phase = _text(value, "phase")
    known: dict[str, Any] = {
        "phase": phase if phase in PHASES else "running",
        "jobs": tuple(job for each in _list(value, "jobs", MOST_JOBS) if (job := _job(each)) is not None),
        "events": tuple(
            Event(at, _text(each, "text"))
            for each in _list(value, "events", MOST_EVENTS)
            if (at := _number(each, "at")) is not None
        ),
        "by_status": _counts(value, "by_status"),
        "reasons": _reasons(value),
        "failed_keys": tuple(
            each[:_LONGEST] for each in _list(value, "failed_keys", MOST_FAILED_KEYS) if isinstance(each, str)
        ),
        "jobs_total": _count(value, "jobs_total") or 0,
    }
    for one in fields(Overview):
        if one.name not in known:
            known[one.name] = _READERS[str(one.type)](value, one.name)
    return Overview(**known)


def read_progress(value: object) -> Progress:
    """Return the trigger's progress in an XCom's value; an empty one for anything else."""
    if not isinstance(value, dict):
        return Progress()
    each = value.get("each")
    jobs = {}
    for name, seen in list(each.items())[:MOST_JOBS] if isinstance(each, dict) else ():
        match name, seen:
            case str(), [state, total, done, failed]:
                state = state[:_LONGEST] if isinstance(state, str) else ""
                jobs[name[:_LONGEST]] = (state, _whole(total), _whole(done), _whole(failed))
    return Progress(
        at=_number(value, "at"),
        state=_text(value, "state"),
        total=_count(value, "total"),
        done=_count(value, "done"),
        failed=_count(value, "failed"),
        seconds_left=_number(value, "seconds_left"),
        started_at=_number(value, "started_at"),
        samples=_samples(value),
        jobs=jobs,
    )


def _job(value: object) -> JobOverview | None:
    if not isinstance(value, dict) or not _text(value, "name"):
        return None
    known = {one.name: _READERS[str(one.type)](value, one.name) for one in fields(JobOverview)}
    return JobOverview(**known)


def _samples(value: dict[str, Any]) -> tuple[Sample, ...]:
    found = []
    for each in _list(value, "samples", 4 * MOST_SAMPLES):
        match each:
            case [at, done, failed] | {"at": at, "done": done, "failed": failed}:
                at, done, failed = _finite(at), _whole(done), _whole(failed)
                if at is not None and done is not None and failed is not None:
                    found.append(Sample(at, done, failed))
    return tuple(thin_out(sorted(found, key=lambda sample: sample.at)))


def _text(value: object, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found[:_LONGEST] if isinstance(found, str) else ""


def _number(value: object, name: str) -> float | None:
    return _finite(value.get(name)) if isinstance(value, dict) else None


def _count(value: object, name: str) -> int | None:
    return _whole(value.get(name)) if isinstance(value, dict) else None


def _int(value: object, name: str) -> int:
    return _count(value, name) or 0


def _bool(value: object, name: str) -> bool:
    return isinstance(value, dict) and value.get(name) is True


def _list(value: dict[str, Any], name: str, most: int) -> list[Any]:
    found = value.get(name)
    return found[-most:] if isinstance(found, list) else []


def _counts(value: dict[str, Any], name: str) -> dict[str, int]:
    found = value.get(name)
    pairs = list(found.items())[:MOST_KINDS] if isinstance(found, dict) else []
    read = {str(kind)[:_LONGEST]: _whole(count) for kind, count in pairs}
    return {kind: count for kind, count in read.items() if count is not None}


def _reasons(value: dict[str, Any]) -> dict[str, dict[str, int]]:
    found = value.get("reasons")
    names = [str(status) for status in list(found)[:MOST_KINDS]] if isinstance(found, dict) else []
    return {status[:_LONGEST]: _counts(found, status) for status in names} if isinstance(found, dict) else {}


def _finite(number: object) -> float | None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    # Python compares a whole number of any length, but does not turn it into a float.
    return float(number) if 0 <= number < LARGEST else None


def _whole(number: object) -> int | None:
    found = _finite(number)
    return None if found is None else int(found)


#: Numbers that are not below this are not counts: whole numbers are exact up to here.
LARGEST: Final = 2**53
# By the annotation of a field, as this module spells it.
_READERS: Final[dict[str, Any]] = {
    "str": _text,
    "int": _int,
    "bool": _bool,
    "int | None": _count,
    "float | None": _number,
}
