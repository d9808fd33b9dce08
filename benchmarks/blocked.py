"""The triggerer's warnings of a blocked event loop, and what blocked it: a judgement by what would have been without.

Airflow's probe is a sleep of 0.1 s. When it took more than [triggerer] blocked_main_thread_warning_threshold, 0.2 s by
default, there is a line in the log. A warning is laid to a cause that is nobody's trigger only if the probe would have
stayed within the threshold without it.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.gc_notes import Collection
    from benchmarks.run_queue import RunQueue

SLEEP = 0.1
THRESHOLD = 0.2
#: Seconds by which a line in the log, or a note, may be late.
_SLACK = 0.5
_LINE = re.compile(r"^(\S+) .*Triggerer's async thread was blocked for ([0-9.]+) seconds", re.MULTILINE)


class Cause(str, Enum):
    """What blocked the loop."""

    COLLECTION = "garbage collection"
    CORE = "waiting for a core"
    OTHER = "other"


class Warned(NamedTuple):
    """A warning: seconds since the epoch, and the seconds that the probe took."""

    at: float
    blocked: float


def warnings(log: str) -> list[Warned]:
    """Find all warnings in a log."""
    return [
        Warned(datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp(), float(blocked))
        for when, blocked in _LINE.findall(log)
    ]


def cause(warned: Warned, collections: Iterable[Collection], queue: RunQueue) -> Cause:
    """Judge a warning.

    :param collections: full garbage collections of the process.
    :param queue: tells how long its threads waited for a core.
    """
    began, latest = warned.at - warned.blocked, warned.at + _SLACK
    near = [each for each in collections if began - _SLACK < each.began and each.ended < latest]
    collected = sum(each.ended - each.began for each in near)
    if warned.blocked - collected <= THRESHOLD:
        return Cause.COLLECTION
    # Part of a collection's time may itself have been waiting, so that only what exceeds it counts beside it.
    waited = min(queue.waited(began, warned.at), warned.blocked - SLEEP)
    return Cause.CORE if warned.blocked - max(collected, waited) <= THRESHOLD else Cause.OTHER
