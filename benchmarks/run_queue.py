"""How long a thread of a process was ready to run and had to wait for a core: what a busy machine takes from it.

Linux counts that in ``/proc/<pid>/task/<tid>/schedstat``, in nanoseconds: on a core, waiting for one, times given one.
All threads are looked at, since one that holds the interpreter's lock while it waits makes the others wait too.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_PAUSE = 0.02


class RunQueue:
    """Reads the counts every now and then, from a thread.

    :param pid: the process; where it ends, or the system does not count, nothing was waited for.
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/task")
        self._series: dict[str, tuple[list[float], list[float]]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_reading, name="run-queue", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep_reading(self) -> None:
        while not self._over.wait(_PAUSE):
            try:
                names = [path.name for path in self._folder.iterdir()]
            except OSError:
                return
            for name in names:
                self._read(name)

    def _read(self, name: str) -> None:
        try:
            waited = int((self._folder / name / "schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return  # that thread has ended
        with self._lock:
            moments, counts = self._series.setdefault(name, ([], []))
            # A count that stands still needs its first and last moment only.
            if counts[-2:] == [waited, waited]:
                moments[-1] = time.time()
            else:
                moments.append(time.time())
                counts.append(waited)

    def waited(self, began: float, ended: float) -> float:
        """Seconds that the one thread waited which waited longest between two moments, in seconds since the epoch."""
        with self._lock:
            found = [_at(ended, *series) - _at(began, *series) for series in self._series.values()]
        return max(found, default=0.0)


def _at(moment: float, moments: list[float], counts: list[float]) -> float:
    """The count at a moment, between two readings in proportion."""
    after = bisect_right(moments, moment)
    if not after:
        return counts[0]
    if after == len(moments):
        return counts[-1]
    share = (moment - moments[after - 1]) / (moments[after] - moments[after - 1])
    return counts[after - 1] + share * (counts[after] - counts[after - 1])
