"""How far jobs are, in words and in a few numbers, from what the service counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.models import JobProgress


class Progress:
    """Follows one wait and says something when, and only when, something has changed.

    The time left is told from the pace since this object first saw requests counted, so that neither time in the queue
    nor time spent by another process distorts it.
    """

    __slots__ = ("_began", "_first", "_said")

    def __init__(self) -> None:
        self._began: float | None = None
        self._first = 0
        self._said: Sequence[JobProgress | None] = ()

    def news(self, seen: Sequence[JobProgress | None], now: float) -> tuple[str, dict[str, Any]] | None:
        """Give a line for the log and the numbers for an XCom; None when nothing has changed.

        :param seen: what is known of each job, in the order of the jobs.
        :param now: seconds, of any clock.
        """
        if tuple(seen) == tuple(self._said) or not any(seen):
            return None
        self._said = seen
        known = [each for each in seen if each is not None]
        total = sum(each.total or 0 for each in known)
        done, failed = sum(each.done for each in known), sum(each.failure for each in known)
        numbers: dict[str, Any] = {
            "jobs": len(seen),
            "jobs_ended": sum(each.state.is_terminal for each in known),
            "state": known[0].state.value if len(seen) == 1 else None,
            "total": total or None,
            "done": done,
            "failed": failed,
            "seconds_left": self._left(total, done, now),
        }
        return _line(numbers, [each.raw_state or each.state.value for each in known]), numbers

    def _left(self, total: int, done: int, now: float) -> int | None:
        if self._began is None:
            if done:
                self._began, self._first = now, done
            return None
        if done <= self._first or now <= self._began or done >= total:
            return None
        return round((total - done) * (now - self._began) / (done - self._first))


def _line(numbers: dict[str, Any], states: Sequence[str]) -> str:
    parts = []
    if numbers["jobs"] == 1:
        if not numbers["total"]:
            return f"The job is {states[0]}"
    else:
        parts.append(f"{numbers['jobs_ended']} of {numbers['jobs']} jobs ended")
        if not numbers["total"]:
            return parts[0]
    parts.append(f"{numbers['done']} of {numbers['total']} done")
    if numbers["failed"]:
        parts.append(f"{numbers['failed']} failed")
    if numbers["seconds_left"] is not None:
        parts.append(f"about {span(numbers['seconds_left'])} left")
    return ", ".join(parts)


def span(seconds: float) -> str:
    """Say a duration roughly, as a person would."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
