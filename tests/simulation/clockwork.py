"""Virtual time: callbacks on a heap, and processes that can be stopped between any two of their steps."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
START = 1_800_000_000.0


@dataclass(frozen=True)
class Skew:
    """How a machine's clock differs from the true time: by ``ahead`` seconds, drifting, and set by somebody at times.

    ``drift`` is in seconds a second; ``jumps`` are pairs of a time after the start and by how much it was set.
    """

    ahead: float = 0.0
    drift: float = 0.0
    jumps: tuple[tuple[float, float], ...] = ()

    def at(self, now: float) -> float:
        """Return what the clock shows at a true time."""
        passed = now - START
        return now + self.ahead + self.drift * passed + sum(by for when, by in self.jumps if when <= passed)

    def most_off(self, seconds: float) -> float:
        """Return by how much the clock is off, at the most, while so many seconds pass."""
        return abs(self.ahead) + abs(self.drift) * seconds + sum(abs(by) for _, by in self.jumps)


RIGHT = Skew()


class Killed(BaseException):
    """SIGKILL: nothing of the process happens any more. Not an Exception, so that no product code can catch it."""


class Runaway(Exception):
    """The schedule does not come to an end."""


class Clockwork:
    """Runs everything that happens, one thing after the other, at virtual times."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = START
        self.trace: list[str] | None = [] if tracing else None
        self.hub = getcurrent()
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Have something happen later."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), self._count, do))

    def run(self, *, most: int = 50_000) -> None:
        """Let everything happen that is to happen."""
        steps = 0
        while self._heap:
            when, _, do = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            do()
            steps += 1
            if steps > most:
                raise Runaway(f"more than {most} steps; now is {self.now - START:.0f} s after the start")

    def note(self, text: str) -> None:
        """Keep a line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now - START:12.2f}  {text}")

    def chance(self, probability: float) -> bool:
        """Throw the dice."""
        return probability > 0 and self.random.random() < probability


class Process:
    """A process of Airflow's: code that pauses at the borders, where others act and where it may be killed."""

    def __init__(self, world: Clockwork, name: str, run: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Start at once.

        :param done: gets what ``run`` returned or raised, Killed included.
        """
        self.name = name
        self._world = world
        self._run = run
        self._done = done
        self._ticket = 0
        self._doom: BaseException | None = None
        self._greenlet = greenlet(self._main, parent=world.hub)
        self.over = False
        world.after(0.0, self._start)

    def _start(self) -> None:
        if not self.over:
            self._greenlet.switch()

    def _main(self) -> None:
        result: Any
        try:
            result = self._run()
        except GreenletExit:
            raise
        except BaseException as error:  # noqa: BLE001  whatever ends a process is what Airflow sees of it
            result = error
        self.over = True
        self._done(result)

    def pause(self, seconds: float) -> None:
        """Let others act for a while. Called by the process itself."""
        if self._doom is not None:
            raise self._doom
        self._ticket += 1
        ticket = self._ticket
        self._world.after(seconds, lambda: self._wake(ticket))
        self._world.hub.switch()

    def _wake(self, ticket: int) -> None:
        if not self.over and ticket == self._ticket:
            self._greenlet.switch()

    def kill(self) -> None:
        """Stop for good, from outside or inside: no step follows."""
        self._doom = Killed()
        self.stop(self._doom)

    def stop(self, error: BaseException) -> None:
        """Raise something in the process, where it stands. Called by itself or from the hub."""
        if self.over:
            return
        if getcurrent() is self._greenlet:
            raise error
        if not self._greenlet:
            # It has not begun: there is nowhere to raise anything.
            self.over = True
            self._done(error)
            return
        self._ticket += 1
        self._greenlet.throw(error)
