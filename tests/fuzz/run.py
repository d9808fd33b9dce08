"""Feeds nonsense to the targets and watches: no crash, no hang, no flood of memory, no secret in what was said."""

from __future__ import annotations

import logging
import random
import resource
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from fuzz.nonsense import KEY, PROMPT
from fuzz.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_SECONDS = 1.0
MOST_BYTES = 256 * 2**20


@dataclass
class Outcome:
    """What happened. ``slowest`` is in seconds of this thread's CPU, ``grown`` in bytes."""

    inputs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0


class _Ears(logging.Handler):
    """Keeps what was logged while one input was read."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


def run(inputs: int, seed: int, only: str | None = None) -> Outcome:
    """Feed so many inputs, in turn to each target; ``only`` names one target."""
    outcome = Outcome()
    targets = {name: target for name, target in Targets().all.items() if only in {None, name}}
    ears = _Ears()
    root = logging.getLogger()
    level = root.level
    root.addHandler(ears)
    root.setLevel(logging.DEBUG)
    before = _peak()
    try:
        for number in range(inputs):
            name = [*targets][number % len(targets)]
            _feed(name, targets[name], f"{seed}:{name}:{number}", ears, outcome)
    finally:
        root.removeHandler(ears)
        root.setLevel(level)
    outcome.grown = _peak() - before
    return outcome


def _feed(name: str, target: Callable[[random.Random], object], seed: str, ears: _Ears, outcome: Outcome) -> None:
    ears.said.clear()
    outcome.inputs += 1
    began = time.thread_time()
    try:
        target(random.Random(seed))
    except GeminiBatchError as error:
        outcome.refused[f"{name}: {type(error).__name__}"] += 1
        ears.said.append("".join(traceback.format_exception(error)))
    except BaseException as error:  # noqa: BLE001  (that is what is looked for)
        outcome.faults.append(f"{seed}: {type(error).__name__}\n{traceback.format_exc()}")
    spent = time.thread_time() - began
    outcome.slowest = max(outcome.slowest, spent)
    if spent > LONGEST_SECONDS:
        outcome.faults.append(f"{seed}: took {spent:.1f} s")
    shown = "\n".join(ears.said)
    # Tracebacks show lines of code, and so the names of these two.
    outcome.faults += [f"{seed}: shows {secret}:\n{shown}" for secret in (KEY, PROMPT) if secret in shown]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
