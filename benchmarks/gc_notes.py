"""Notes of Python's full garbage collections, taken inside each process of an Airflow.

Such a collection stops all threads of a process, and looks at everything that Airflow has loaded, so that it alone can
make the triggerer warn of a blocked event loop.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import NamedTuple

#: Left out: shorter ones, in seconds.
_SHORT = 0.02
_OLDEST = 2
_NAME = "collections.txt"


class Collection(NamedTuple):
    """One of them: process id, and seconds since the epoch."""

    pid: int
    began: float
    ended: float


def prepare(home: Path) -> None:
    """Have every process of the Airflow with this home take notes, by the file that Airflow loads for that."""
    config = home / "config"
    config.mkdir(parents=True, exist_ok=True)
    lines = ["from benchmarks.gc_notes import install as _install", f"_install({str(home / _NAME)!r})", ""]
    (config / "airflow_local_settings.py").write_text("\n".join(lines), encoding="utf-8")


def install(path: str) -> None:
    """Take notes in this process and in those that it forks."""
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if info["generation"] < _OLDEST:
            return
        if phase == "start":
            began = time.time()
        elif (ended := time.time()) - began > _SHORT:
            with Path(path).open("a", encoding="utf-8") as notes:
                notes.write(f"{os.getpid()} {began} {ended}\n")

    gc.callbacks.append(note)


def read(home: Path) -> list[Collection]:
    """Give all notes until now."""
    path = home / _NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    fields = (line.split() for line in lines)
    return [Collection(int(pid), float(began), float(ended)) for pid, began, ended in fields]
