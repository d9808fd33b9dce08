"""Peak memory of the tasks that a real Airflow runs, read from the kernel while they run."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from stack.local_airflow import LocalAirflow

_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
_SECONDS = 0.1


class WorkerMemory:
    """Watches task processes in a thread. The kernel keeps each one's peak, so that no short one slips through."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self._airflow = airflow
        self._peaks: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peaks(self) -> list[float]:
        """Peak resident memory of each task process in MiB, in the order of their beginning."""
        return list(self._peaks.values())

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS):
            for pid in self._airflow.worker_processes():
                try:
                    found = _PEAK.search(Path(f"/proc/{pid}/status").read_text("ascii"))
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if found is not None:
                    self._peaks[pid] = int(found.group(1)) / 1024
