"""The triggerer's warnings of a blocked event loop, and what blocked it: a judgement by what would have been without.

Airflow's probe is a sleep of 0.1 s. When it took more than [triggerer] blocked_main_thread_warning_threshold, 0.2 s by
default, there is a line in the log. A warning is laid to somebody if the probe would have stayed within the threshold
without what he did, this provider first.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.triggerer_notes import SUSPECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.triggerer_notes import Span

SLEEP = 0.1
THRESHOLD = 0.2
#: Seconds by which a line in the log may be late, and by which it mostly is.
_LATEST = 30.0
_SLACK = 0.5
_LINE = re.compile(r"^(\S+) .*Triggerer's async thread was blocked for ([0-9.]+) seconds", re.MULTILINE)


class Cause(str, Enum):
    """What blocked the loop."""

    PROVIDER = "by this provider"
    COLLECTION = "by garbage collection"
    OTHER = "by Airflow or the machine"


class Warned(NamedTuple):
    """A warning: when the loop was blocked, in seconds since the epoch, and the seconds that Airflow's probe took."""

    began: float
    at: float
    blocked: float


def warnings(log: str, late: Sequence[Span]) -> list[Warned]:
    """Find all warnings in a log.

    :param late: what a probe of our own saw, with exact times: a line in the log comes from a thread, and may be late.
    """
    return [
        _matched(datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp(), float(blocked), late)
        for when, blocked in _LINE.findall(log)
    ]


def _matched(at: float, blocked: float, late: Sequence[Span]) -> Warned:
    """The latest moment before the line at which our probe was late by as much; else the moment before the line."""
    for each in reversed(late):
        if at - _LATEST < each.ended < at + _SLACK and abs(each.ended - each.began - blocked) < SLEEP:
            return Warned(each.began, each.ended, blocked)
    return Warned(at - blocked - _SLACK, at, blocked)


def cause(warned: Warned, collections: Sequence[Span], held: Sequence[Span]) -> Cause:
    """Judge a warning.

    :param collections: full garbage collections of the process; one that our code set off, in any thread, is ours.
    :param held: what held its loop, and what this provider's threads computed, which may have kept the interpreter.
    """
    meanwhile = [each for each in collections if each.within(warned.began, warned.at)]
    ours = sum(each.within(warned.began, warned.at) for each in held if each.what.startswith(SUSPECT))
    # One in the loop's own thread is in both: it may count twice, against us.
    ours += sum(each.ended - each.began for each in meanwhile if each.what.startswith(SUSPECT))
    if ours and warned.blocked - ours <= THRESHOLD:
        return Cause.PROVIDER
    collected = sum(each.ended - each.began for each in meanwhile)
    return Cause.COLLECTION if warned.blocked - collected <= THRESHOLD else Cause.OTHER


def places(warned: Warned, held: Sequence[Span], *, most: int = 4) -> str:
    """Where the loop was meanwhile, in milliseconds, the longest first."""
    spent: Counter[str] = Counter()
    for each in held:
        spent[each.what] += round(1000 * each.within(warned.began, warned.at))
    return ", ".join(f"{what} {milliseconds} ms" for what, milliseconds in spent.most_common(most) if milliseconds)
