"""A few threads that exist only while there is work for them."""

from __future__ import annotations

from collections import deque
from threading import Lock, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Threads:
    """At most ``limit`` daemon threads; each ends as soon as nothing is left to do.

    Not the event loop's default executor: that one is shared with everything else in the process, and its threads stay.

    :param limit: number of threads at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._running = 0
        self._work: deque[Callable[[], None]] = deque()
        self._lock = Lock()

    def submit(self, work: Callable[[], None], *, first: bool = False) -> None:
        """Call a function, which must not raise, in one of the threads; ``first``: before those that wait."""
        with self._lock:
            (self._work.appendleft if first else self._work.append)(work)
            if self._running >= self.limit:
                return
            self._running += 1
        try:
            Thread(target=self._run, name="gemini-batch-poll", daemon=True).start()
        except RuntimeError:  # the process cannot start another thread: the running ones do the work
            with self._lock:
                self._running -= 1
                if self._running:
                    return
                self._work.clear()
            raise

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._work:
                    self._running -= 1
                    return
                work = self._work.popleft()
            work()
