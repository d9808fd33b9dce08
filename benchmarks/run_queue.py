"""How long a process's main thread was ready to run and had to wait for a core: what a busy machine takes from it.

Linux counts that in ``/proc/<pid>/task/<tid>/schedstat``, in nanoseconds: on a core, waiting for one, times given one.
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
    """Reads the count every now and then, from a thread.

    :param pid: the process; where it ends, or the system does not count, nothing was waited for.
    """

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._moments: list[float] = []
        self._waited: list[float] = []
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
                waited = int(self._path.read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                return
            self._waited.append(waited)
            self._moments.append(time.time())

    def waited(self, began: float, ended: float) -> float:
        """Seconds of waiting between two moments, in seconds since the epoch."""
        return max(0.0, self._until(ended) - self._until(began))

    def _until(self, moment: float) -> float:
        after = bisect_right(self._moments, moment)
        if not 0 < after < len(self._moments):
            return 0.0 if not after else self._waited[after - 1]
        begin, end = self._moments[after - 1], self._moments[after]
        share = (moment - begin) / (end - begin)
        return self._waited[after - 1] + share * (self._waited[after] - self._waited[after - 1])
