"""Notes that a triggerer takes of itself: what holds its event loop, and Python's full garbage collections.

A thread looks at the main thread's stack some 200 times a second. Time in which it could not look, since something
kept the interpreter for itself, goes to what it finds afterwards. It looks as well at what the kernel tells of threads:
how long this provider's have computed, and how long the main thread waited for a core. A full collection stops all
threads and looks at everything that Airflow has loaded, so that it alone can make the triggerer warn of a blocked loop.
A probe beside Airflow's own tells when the loop was late: Airflow's line is logged by a thread, seconds later at times.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

#: Who is under suspicion: this provider, and the trigger that blocks on purpose.
SUSPECT = "suspect"
_SUSPECTS = ("/airflow_provider_gemini_batch/", "/benchmarks/blocker.py")
_OUR_THREADS = "gemini-batch-poll"
_PAUSE = 0.005
#: Collections that are left out: shorter ones, in seconds.
_SHORT = 0.02
_OLDEST = 2
_COLLECTIONS, _HELD, _LATE = "collections.txt", "held.txt", "late.txt"
_PROBE = 0.1
_LATE_AT = 0.15


class Span(NamedTuple):
    """Seconds since the epoch in which a process did one thing, named by file and function."""

    pid: int
    began: float
    ended: float
    what: str

    def within(self, began: float, ended: float) -> float:
        """How many of its seconds lie between two moments."""
        return max(0.0, min(ended, self.ended) - max(began, self.began))


def prepare(home: Path) -> None:
    """Have the processes of the Airflow with this home take notes, by the file that Airflow loads for that."""
    config = home / "config"
    config.mkdir(parents=True, exist_ok=True)
    lines = ["from benchmarks.triggerer_notes import install as _install", f"_install({str(home)!r})", ""]
    (config / "airflow_local_settings.py").write_text("\n".join(lines), encoding="utf-8")


def install(home: str) -> None:
    """Take notes in the processes that a triggerer forks; the others go about their work."""
    if "triggerer" not in sys.argv:
        return

    def begin() -> None:
        _note_collections(Path(home) / _COLLECTIONS)
        _note_late(Path(home) / _LATE)
        threading.Thread(target=_note_held, args=(Path(home) / _HELD,), name="notes", daemon=True).start()

    os.register_at_fork(after_in_child=begin)


def _note_collections(path: Path) -> None:
    began, at = 0.0, ""

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began, at
        if info["generation"] < _OLDEST:
            return
        if phase == "start":
            began, at = time.time(), _place(sys._getframe(1))  # noqa: SLF001  whose code it interrupts, in any thread
        elif (ended := time.time()) - began > _SHORT:
            with path.open("a", encoding="utf-8") as notes:
                notes.write(f"{os.getpid()}\t{began}\t{ended}\t{at}\n")

    gc.callbacks.append(note)


def _note_late(path: Path) -> None:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    watchdog = TriggerRunner.block_watchdog

    async def probe() -> None:
        while True:
            began = time.time()
            await asyncio.sleep(_PROBE)
            if time.time() - began > _LATE_AT:
                with path.open("a", encoding="utf-8") as notes:
                    notes.write(f"{os.getpid()}\t{began}\t{time.time()}\tlate\n")

    async def both(runner: TriggerRunner) -> None:
        beside = asyncio.create_task(probe())
        await watchdog(runner)  # type: ignore[no-untyped-call]
        beside.cancel()

    TriggerRunner.block_watchdog = both  # type: ignore[method-assign]


def _note_held(path: Path) -> None:
    main, pid = threading.main_thread(), os.getpid()
    since = looked = time.time()
    before = ""
    computed: dict[int, float] = {}
    computing, waited = _kernel(main)
    rest = time.process_time() - time.thread_time()
    with path.open("a", encoding="utf-8") as notes:

        def note(began: float, ended: float, what: str) -> None:
            notes.write(f"{pid}\t{began}\t{ended}\t{what}\n")
            notes.flush()

        while True:
            time.sleep(_PAUSE)
            now, at = time.time(), _place(sys._current_frames().get(main.ident or 0))  # noqa: SLF001  no other way
            if at != before:
                if before:
                    note(since, looked, before)
                since, before = looked, at
            (looping, waiting), others = _kernel(main), time.process_time() - time.thread_time()
            if waiting - waited > _PAUSE:
                note(now - waiting + waited, now, "no core for the loop")
            if (elsewhere := others - rest - looping + computing) > _PAUSE:
                note(now - elsewhere, now, "other threads")
            computing, waited, rest = looping, waiting, others
            threads = [each for each in threading.enumerate() if each.name == _OUR_THREADS]
            ours = {each.native_id or 0: _kernel(each)[0] for each in threads}
            spent = sum(max(0.0, seconds - computed.get(thread, 0.0)) for thread, seconds in ours.items())
            if spent > 0:
                note(now - spent, now, f"{SUSPECT} {_OUR_THREADS}")
            computed, looked = ours, now


def _kernel(thread: threading.Thread) -> tuple[float, float]:
    """Seconds that a thread has computed, and seconds that it was ready and had no core."""
    try:
        computed, waited, _ = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text(encoding="ascii").split()
    except OSError:  # it has ended meanwhile
        return 0.0, 0.0
    return int(computed) / 1e9, int(waited) / 1e9


def _place(frame: FrameType | None) -> str:
    """What a stack is at: the suspect's innermost function, or else the innermost of all; "" for a loop at rest."""
    if frame is None or frame.f_code.co_filename.endswith("/selectors.py"):
        return ""
    innermost = _name(frame)
    each: FrameType | None = frame
    while each is not None:
        if any(part in each.f_code.co_filename for part in _SUSPECTS):
            return f"{SUSPECT} {_name(each)}"
        each = each.f_back
    return innermost


def _name(frame: FrameType) -> str:
    return f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{frame.f_code.co_name}"


def collections(home: Path, pid: int) -> list[Span]:
    """Full garbage collections of a process until now."""
    return _read(home / _COLLECTIONS, pid)


def late(home: Path, pid: int) -> list[Span]:
    """When the loop came back late to one who asked for a short sleep."""
    return _read(home / _LATE, pid)


def held(home: Path, pid: int) -> list[Span]:
    """What held the loop of a process until now, and who computed meanwhile; the loop was at rest in between."""
    return _read(home / _HELD, pid)


def _read(path: Path, pid: int) -> list[Span]:
    if not path.exists():
        return []
    fields = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [Span(pid, float(one[1]), float(one[2]), one[3]) for one in fields if int(one[0]) == pid]
