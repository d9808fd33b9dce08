"""The words and numbers of a wait: what its log says, once each, and the record that the page draws."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from airflow_provider_gemini_batch.api.states import NEVER_STARTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_gemini_batch.api.models import JobProgress
    from airflow_provider_gemini_batch.polling.job_wait import ErrorStreak, JobWait

#: The XCom of a waiting task that holds the numbers of its progress.
PROGRESS_KEY: Final = "gemini_batch_progress"
#: The same in one line, for Airflow's own page.
PROGRESS_TEXT_KEY: Final = "progress"
#: As many as the page draws.
MOST_SAMPLES: Final = 60
_MOST_NAMED: Final = 3
_MOST_JOBS: Final = 50
# The pace is known after so many changes of the counts; a shorter time left than so many seconds is not shown.
_FEWEST_MOVES: Final = 2
_SHORTEST_LEFT: Final = 10.0
_DAY: Final = 86_400.0


class WaitLog:
    """Puts into words what has changed in a wait since it was last asked.

    The time left is estimated from the pace since this object first saw requests counted, so that neither the time in
    the queue nor the time before this process distorts it.
    """

    __slots__ = ("_earlier", "_failing", "_moves", "_said", "_samples", "_started_at", "_wait", "running_since")

    def __init__(self, wait: JobWait) -> None:
        self._wait = wait
        self._said: list[JobProgress | None] = [None] * len(wait.jobs)
        self._failing: dict[str, int] | None = None
        self._samples: list[_Sample] = []
        self._earlier: list[_Sample] = []
        self._moves = 0
        self._started_at: float | None = None
        #: When a job was first seen to run, in seconds since the epoch.
        self.running_since: float | None = None

    def new_lines(self, now: float) -> Iterator[tuple[int, str]]:
        """Yield the level and the text of each line that the log should have now.

        :param now: the wall clock, in seconds since the epoch.
        """
        yield from self._errors(now)
        before = self._said
        self._said = [job.progress for job in self._wait.jobs]
        if self._said == before:
            return
        if self.running_since is None and any(seen is not None and _runs(seen) for seen in self._said):
            self.running_since = round(now, 1)
        yield from ((logging.INFO, line) for line in self._changes_of_state(before))
        counted = _counts(self._said)
        if counted != _counts(before) and counted.total:
            self._note_sample(counted, now)
            yield logging.INFO, self._counts_line(counted, now)

    def go_on_from(self, record: object) -> None:
        """Continue the samples in a record that an earlier process of the task made with :meth:`numbers`."""
        if not isinstance(record, dict):
            return
        found = record.get("samples")
        self._earlier = [
            (each[0], each[1], each[2])
            for each in (found[-MOST_SAMPLES:] if isinstance(found, list) else ())
            if isinstance(each, list) and len(each) == 3 and all(_is_count(number) for number in each)  # noqa: PLR2004
        ]
        if _is_count(started := record.get("started_at")):
            self._started_at = started

    def text(self, now: float) -> str:
        """Return how far the jobs have come, in one line; empty before the first answer."""
        known = [seen for seen in self._said if seen is not None]
        if not known:
            return ""
        states = ", ".join(dict.fromkeys(seen.words for seen in known))
        counted = _counts(self._said)
        return f"{states}: {self._counts_line(counted, now)}" if counted.total else states

    def numbers(self, now: float) -> dict[str, Any] | None:
        """Return plain values for an XCom, as :mod:`~..batch.overview` reads them; None before the first answer."""
        known = [seen for seen in self._said if seen is not None]
        if not known:
            return None
        counted = _counts(self._said)
        listed = [job for job in self._wait.jobs if job.progress is not None][:_MOST_JOBS]
        return {
            "at": round(now, 1),
            "jobs": len(self._said),
            "jobs_ended": sum(seen.state.is_terminal for seen in known),
            "state": known[0].state.value if len(self._said) == 1 else None,
            "total": counted.total or None,
            "done": counted.done,
            "failed": counted.failed,
            "seconds_left": self._seconds_left(counted, now),
            "started_at": self._started_at,
            "samples": [[round(at), done, failed] for at, done, failed in self._all_samples()],
            "each": {job.name: _in_numbers(job.progress) for job in listed if job.progress is not None},
        }

    # -- states and counts

    def _changes_of_state(self, before: Sequence[JobProgress | None]) -> Iterator[str]:
        changes: dict[str, list[str]] = {}
        for job, old, new in zip(self._wait.jobs, before, self._said, strict=True):
            if new is not None and (old is None or (old.state, old.raw_state) != (new.state, new.raw_state)):
                words = new.words if old is None else f"{old.words} -> {new.words}"
                changes.setdefault(words, []).append(job.name)
        for words, names in changes.items():
            yield f"{_some(names)}: {words}"

    def _counts_line(self, counted: _Counted, now: float) -> str:
        parts = [f"{counted.done} of {counted.total} rows done"]
        if len(self._said) > 1:
            ended = sum(seen is not None and seen.state.is_terminal for seen in self._said)
            parts.insert(0, f"{ended} of {len(self._said)} jobs ended")
        if counted.failed:
            parts.append(f"{counted.failed} failed")
        left = self._seconds_left(counted, now)
        if left is not None:
            parts.append(f"about {span(left)} left")
        return ", ".join(parts)

    def _note_sample(self, counted: _Counted, now: float) -> None:
        if self._started_at is None and any(seen and seen.state not in NEVER_STARTED for seen in self._said):
            self._started_at = round(now, 1)
        if self._samples and now < self._samples[-1][0]:  # the clock was set back: what came before says nothing
            self._samples, self._moves = [], 0
        if self._samples and counted.done > self._samples[-1][1]:
            self._moves += 1
        self._samples = thin_out([*self._samples, (now, counted.done, counted.failed)])

    def _all_samples(self) -> list[_Sample]:
        begin = self._samples[0][0] if self._samples else inf
        return thin_out([*(sample for sample in self._earlier if sample[0] < begin), *self._samples])

    def _seconds_left(self, counted: _Counted, now: float) -> int | None:
        """Return the seconds left at the pace so far; None where that would be a guess, or is very short."""
        begin = next((sample for sample in self._samples if sample[1] > 0), None)
        if begin is None or self._moves < _FEWEST_MOVES or counted.is_open or counted.done >= counted.total:
            return None
        at, first, _ = begin
        if counted.done <= first or now <= at:
            return None
        left = (counted.total - counted.done) * (now - at) / (counted.done - first)
        return round(left) if left >= _SHORTEST_LEFT else None

    # -- errors

    def _errors(self, now: float) -> Iterator[tuple[int, str]]:
        """Yield one line when polling fails, with reason and deadline, and one when it works again."""
        failing = {
            job.name: job.errors
            for job in self._wait.jobs
            if job.report is None and job.errors is not None and job.errors.is_logged
        }
        if self._failing is None:
            if failing:
                self._failing = {}
                yield logging.WARNING, self._failing_line(failing, now)
        elif not failing and all(job.report is None or job.errors is None for job in self._wait.jobs):
            worst = max(self._failing.values(), default=0)
            names = _some(self._failing)
            self._failing = None
            yield logging.INFO, f"Polling {names} works again after {worst} failures."
        if self._failing is not None:
            self._failing.update((name, errors.failures) for name, errors in failing.items())

    def _failing_line(self, failing: Mapping[str, ErrorStreak], now: float) -> str:
        errors = next(iter(failing.values()))
        what = f"Polling {_some(failing)} failed {errors.failures} times ({errors.last})"
        if errors.is_in_doubt:
            return f"{what}; asking again for some minutes before this is believed."
        return f"{what}; will keep trying{until_words(self._wait.policy.deadline, now)}."


#: A moment in seconds since the epoch, the rows done by then, and the failed ones among them.
_Sample = tuple[float, int, int]


_T = TypeVar("_T")


def thin_out(samples: list[_T]) -> list[_T]:
    """Return at most ``MOST_SAMPLES``: where there are more, drop every other one, but never the first or the last."""
    while len(samples) > MOST_SAMPLES:
        samples = [*samples[:-1:2], samples[-1]]
    return samples


class _Counted(NamedTuple):
    """Rows over all jobs of a wait. ``is_open``: a job that has not ended does not say how many it has."""

    total: int
    done: int
    failed: int
    is_open: bool


def _is_count(value: object) -> bool:
    """Return whether a value, which anybody may have written, is a finite number that is not negative."""
    return isinstance(value, (int, float)) and 0 <= value < inf


def _counts(seen: Sequence[JobProgress | None]) -> _Counted:
    known = [each for each in seen if each is not None]
    return _Counted(
        sum(each.total or 0 for each in known),
        sum(each.done for each in known),
        sum(each.failure for each in known),
        len(known) < len(seen) or any(each.total is None and not each.state.is_terminal for each in known),
    )


def _runs(seen: JobProgress) -> bool:
    return not seen.state.is_terminal and seen.state not in NEVER_STARTED


def _in_numbers(seen: JobProgress) -> list[str | int | None]:
    return [seen.state.value, seen.total, seen.done if seen.counted else None, seen.failure if seen.counted else None]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _MOST_NAMED
    if more > 0:
        listed[_MOST_NAMED:] = [f"{more} more"]
    return ", ".join(listed)


def span(seconds: float) -> str:
    """Return a rounded duration, such as ``5 min``."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def until_words(deadline: float, now: float) -> str:
    """Return `` until 14:00 UTC``, with the date if that is not within a day; nothing without a deadline."""
    try:
        moment = datetime.fromtimestamp(deadline, tz=timezone.utc)
    except (OverflowError, OSError, ValueError):  # no deadline, or a year that nobody will see
        return ""
    return f" until {moment:%H:%M} UTC" if deadline - now < _DAY else f" until {moment:%Y-%m-%d %H:%M} UTC"
