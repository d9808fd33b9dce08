"""Whole tasks: what one pays for being ours, whatever its rows; and what many rows take in time, memory and disk.

    python -m benchmarks.tasks [--rows 200000 1000000]

Submission and resume are processes of their own, as in a worker: each has loaded what Airflow's task runner loads and
has parsed the Dag, and then runs the task against the emulator on loopback. Counted is what comes after that. What runs
beside it shows in the seconds; CPU time is of the process alone.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import ROOT, Claims, describe, environment, table

if TYPE_CHECKING:
    from typing_extensions import Self

RUNS = 5
ROWS = 10
MOST_SECONDS = 0.3
JOB_BYTES = 64 << 20
STEPS = ("submission", "resume")


def child(step: str, folder: str, memo: str) -> dict[str, Any]:
    """Run one step of a task, and tell what it took."""
    from types import SimpleNamespace

    import airflow.sdk.execution_time.task_runner  # noqa: F401  (what a worker has loaded)
    from airflow.sdk.exceptions import TaskDeferred

    from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

    task = GeminiCreateBatchJobOperator(
        task_id="t",
        model="gemini-2.5-flash",
        input_path=f"{folder}/in.jsonl",
        output_path=f"{folder}/out.jsonl",
        max_bytes_per_job=JOB_BYTES,
    )
    ti: Any = SimpleNamespace(
        dag_id="d", task_id="t", run_id=folder, map_index=-1, try_number=1, max_tries=0, xcom_push=lambda **_: None
    )
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(start_date=None)}
    modules, began, began_cpu = set(sys.modules), time.perf_counter(), time.process_time()
    memory = memory_mib("VmRSS")
    told: dict[str, Any] = {}
    try:
        made = task.execute(context) if step == STEPS[0] else task.execute_complete(context, None, memo)
        told["counts"] = made["counts"]
    except TaskDeferred as deferred:
        told["memo"] = (deferred.kwargs or {}).get("memo", "")
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - began_cpu,
        "modules": len(set(sys.modules) - modules),
        "peak": memory_mib("VmHWM") - memory,
        **told,
    }


def memory_mib(name: str) -> float:
    """A line of the process' status."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def run(rows: int, home: str, connection: str) -> dict[str, dict[str, Any]]:
    """Run a task of so many rows from submission to its end, and return what each step took."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        passing = Path(folder) / "tmp"
        passing.mkdir()
        with (Path(folder) / "in.jsonl").open("w", buffering=1 << 20) as lines:
            for row in range(rows):
                text = f"Say in a sentence what order {row} is about: it was sent late, and one part is missing."
                request = {"contents": [{"parts": [{"text": text}]}], "generationConfig": {"maxOutputTokens": 60}}
                lines.write(json.dumps({"key": f"order-{row}", "request": request}) + "\n")
        surroundings = {
            **environment(home),
            "AIRFLOW_CONN_GEMINI_BATCH_DEFAULT": connection,
            "TMPDIR": str(passing),
        }
        taken: dict[str, dict[str, Any]] = {}
        memo = ""
        for step in STEPS:
            with DiskWatch(passing) as disk:
                made = _ask(step, folder, memo, surroundings)
                while step == STEPS[1] and "counts" not in made:  # not all jobs have ended yet
                    time.sleep(1)
                    made = _ask(step, folder, memo, surroundings)
            memo = made.get("memo", "")
            taken[step] = {**made, "disk": disk.peak}
            time.sleep(0.5)
        assert taken[STEPS[1]]["counts"]["succeeded"] == rows
        return taken


class DiskWatch:
    """Looks ten times a second at how much a folder holds; ``peak`` is the most, in MB."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            with suppress(OSError):  # something is removed while it is looked at: the next look counts
                found = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
                self.peak = max(self.peak, found / 1e6)


def _ask(step: str, folder: str, memo: str, surroundings: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.tasks", "--child", step, folder, memo]
    done = subprocess.run(command, env=surroundings, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def measure(claims: Claims) -> str:
    """Return the table of the fixed cost."""
    from airflow_provider_gemini_batch.emulator import Emulator

    with tempfile.TemporaryDirectory() as home, Emulator() as emulator:
        return fixed_cost(home, emulator.connection(), claims)


def fixed_cost(home: str, connection: str, claims: Claims) -> str:
    """Return the table of small tasks: the medians of some runs, after one that writes bytecode."""
    runs = [run(ROWS, home, connection) for _ in range(RUNS + 1)][1:]
    rows = [["step", "seconds", "CPU", "modules"]]
    for step in STEPS:
        middle = {name: statistics.median(one[step][name] for one in runs) for name in ("seconds", "cpu", "modules")}
        rows.append([step, f"{middle['seconds']:.2f}", f"{middle['cpu']:.2f}", f"{middle['modules']:.0f}"])
        claims.add(f"our part of a task at {step}, CPU", middle["cpu"], MOST_SECONDS, " s")
    return table("Our part of a task of ten rows, over Airflow's own start", rows)


def growth(home: str, connection: str, counts: list[int]) -> str:
    """Return the table of large tasks, one run each."""
    rows = [["rows", "step", "seconds", "CPU", "µs of CPU a row", "MiB above start", "MB of temporary disk"]]
    for count in counts:
        for step, made in run(count, home, connection).items():
            numbers = [f"{made[name]:.1f}" for name in ("seconds", "cpu")]
            each = f"{made['cpu'] / count * 1e6:.1f}"
            rows.append([f"{count:,}", step, *numbers, each, f"{made['peak']:.0f}", f"{made['disk']:.0f}"])
            print(rows[-1], file=sys.stderr)
    return table(f"Tasks of many rows, in jobs of {JOB_BYTES >> 20} MiB", rows)


def main() -> int:
    """Measure and print, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", help="tasks of so many rows, instead of the fixed cost")
    parser.add_argument("--shuffled", action="store_true", help="responses come in any order")
    parser.add_argument("--folder", help="where files go; a temporary folder when absent")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(*given.child)))
        return 0
    from airflow_provider_gemini_batch.emulator import Emulator

    machine = describe()
    if not given.rows:
        claims = Claims()
        print(f"{machine}\n{measure(claims)}\n{table('Promises', claims.rows)}")
        return 1 if claims.broken else 0
    with tempfile.TemporaryDirectory(dir=given.folder) as home, Emulator() as emulator:
        if given.shuffled:
            emulator.control.faults(shuffle=True)
        print(f"{machine}\n{growth(home, emulator.connection(), given.rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
