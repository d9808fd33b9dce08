"""Plays one schedule and tells what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from simulation.airflow import Airflow

_loop: asyncio.AbstractEventLoop | None = None


@dataclass
class Result:
    """What came of a schedule."""

    violations: list[str]
    trace: list[str] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)


def play(seed: int, *, tracing: bool = False) -> Result:
    """Play the schedule of a seed. The same seed gives the same schedule, step by step."""
    global _loop  # noqa: PLW0603  one loop for all schedules: making one costs more than a schedule
    if _loop is None:
        _loop = asyncio.new_event_loop()
    airflow = Airflow(seed, _loop, tracing=tracing)
    violations = airflow.play()
    tally = Counter({airflow.state: 1, "jobs": len(airflow.checks._tags), "tries": airflow.try_number})
    return Result(violations, airflow.clock.trace or [], tally)
