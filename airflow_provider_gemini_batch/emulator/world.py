"""One emulated world: its clock, settings, faults, books and store, under one lock."""

from __future__ import annotations

import math
import random
import string
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.faults import Faults
from airflow_provider_gemini_batch.emulator.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator.answers import Responder

#: The end of the clock, in the year 9892: times after it cannot be written.
LATEST = 250_000_000_000.0
_LETTERS = string.ascii_lowercase + string.digits


@dataclass
class Settings:
    """How the world runs; durations in seconds of its own clock."""

    speed: float = 1.0
    pending_seconds: float = 1.0
    running_seconds: float = 2.0
    queued_seconds: float = 0.0
    token_seconds: float = 3600.0
    project_id: str = "demo-project"
    project_number: str = "123456789012"
    storage_endpoint: str | None = None
    #: Whether members of a request that nobody knows are refused.
    strict: bool = False
    #: Models besides those of the service, by name or pattern.
    models: tuple[str, ...] = ()
    #: API keys that are taken, None for any.
    api_keys: frozenset[str] | None = None
    #: Names that the emulator answers to besides those of the loopback address, None for any.
    hosts: frozenset[str] | None = frozenset()
    #: Whether running Vertex jobs show how far they are.
    moving_counts: bool = False
    responder: Responder | None = None


def check_time(moment: float) -> float:
    """Return seconds since the epoch; ValueError where no time of the clock can be meant."""
    if not 0 <= moment <= LATEST:
        raise ValueError("a time must be finite and lie between the years 1970 and 9892")
    return moment


class Books:
    """Counts that only grow: created jobs (kept over a restart) and requests by operation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.jobs: Counter[str] = Counter(store.load("books").get("created") or {})
        self.requests: Counter[str] = Counter()
        self.quota_projects: Counter[str] = Counter()

    def created(self, service: str) -> None:
        """Count one more job."""
        self.jobs[service] += 1
        self._store.save("books", "created", dict(self.jobs))

    def clear(self) -> None:
        """Start at nothing."""
        self.jobs.clear()
        self.requests.clear()
        self.quota_projects.clear()


class World:
    """What all handlers share. Take ``lock`` around anything that reads or changes jobs, files or faults."""

    def __init__(self, settings: Settings, state: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.settings = settings
        self.defaults = Settings(**vars(settings))
        self.store = Store(state)
        self.faults = Faults()
        self.books = Books(self.store)
        #: Folders and tables that Vertex jobs have written.
        self.outputs: set[str] = set(self.store.load("output"))
        #: Seconds by which the clock was moved forward by order.
        self.advanced = 0.0
        #: How often everything was forgotten: a call that began before has no place in the new world.
        self.resets = 0
        self._anchor_real = time.time()
        self._anchor = max(self._anchor_real, float(self.store.load("clock").get("now") or 0))

    def now(self) -> float:
        """Return the world's time in seconds since the epoch: real time, times speed, plus what was advanced."""
        return min(LATEST, self._anchor + (time.time() - self._anchor_real) * self.settings.speed)

    def advance(self, seconds: float) -> None:
        """Move the clock at once; ValueError for a number that is not finite, or leads out of the calendar."""
        if not math.isfinite(seconds):
            raise ValueError("seconds must be finite")
        with self.lock:
            check_time(self.now() + seconds)
            self._anchor += seconds
            self.advanced += seconds
            self.store.save("clock", "now", self.now())

    def set_speed(self, speed: float) -> None:
        """Change how fast the clock runs from now on; ValueError below 0."""
        if not 0 <= speed < math.inf:
            raise ValueError("speed must be finite and not negative")
        with self.lock:
            self._anchor, self._anchor_real = self.now(), time.time()
            self.settings.speed = speed

    def next_number(self) -> int:
        """Return a number that was never used, also after a restart."""
        with self.lock:
            number = int(self.store.load("numbers").get("last") or 0) + 1
            self.store.save("numbers", "last", number)
            return number

    def reset(self) -> None:
        """Go back to an empty world of the original settings and the real time. Jobs are forgotten by the engine."""
        with self.lock:
            self.resets += 1
            self.faults.clear()
            self.store.wipe()
            self.books.clear()
            self.outputs.clear()
            self.settings.__dict__.update(vars(self.defaults))
            self._anchor = self._anchor_real = time.time()
            self.advanced = 0.0

    @staticmethod
    def random_name(length: int) -> str:
        """Return that many random lower-case letters and digits."""
        return "".join(random.choices(_LETTERS, k=length))  # noqa: S311 - a name, not a secret

    def show_clock(self) -> dict[str, Any]:
        """Return the time and speed."""
        return {"now": self.now(), "speed": self.settings.speed}
