"""What hostile answers cost a triggerer: memory, and how long its event loop is held: ``python -m benchmarks.bombs``.

For each bomb a process of its own runs a trigger through a harmless wait, and then through one whose polls the emulator
answers with the bomb. Memory is the peak of that process above the peak of the harmless wait. The loop's figure is of
the clock, so it grows with the machine's load; "nothing" is a second harmless wait, measured the same way.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.emulator import Emulator

MIB = 1 << 20
MOST_MIB = 128
_LONG_TEXT = {"prefix": '{"operations":[{"name":"batches/x","error":{"code":13,"message":"', "suffix": '"}}]}'}
BOMBS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "1 GiB of gzip": {"bomb": {"bytes": 1 << 30}},
    "400 MiB as they are": {"bomb": {"bytes": 400 * MIB, "gzip": False}},
    "one text of 31 MiB": {"bomb": {"bytes": 31 * MIB, **_LONG_TEXT}},
    "one text of 3.9 MiB": {"bomb": {"bytes": int(3.9 * MIB), **_LONG_TEXT}},
    "600,000 values": {"garbage": {"body": '{"operations":[' + "{}," * 600_000 + "{}]}"}},
    "450,000 values": {"garbage": {"body": '{"operations":[' + "{}," * 450_000 + "{}]}"}},
    "an error page of 64 MiB": {"bomb": {"bytes": 64 * MIB, "status": 500}},
    "an error text of 20 kB": {"http": {"status": 400, "message": "projects/" + "a-" * 10_000 + "AIza" * 5}},
    "a drip": {"drip": {"bytes": 1, "seconds": 0.5}},
}
_TIMES = 3
_SECONDS = 20.0
_TICK = 0.005


def measure() -> list[dict[str, Any]]:
    """Send every bomb; return name, MiB above the harmless wait, and the loop's longest delay in milliseconds."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="gemini-batch-bombs-") as home,
        Emulator(port=0, speed=0.0) as emulator,
        BatchClient.for_gemini(json.loads(emulator.connection())["password"], base_url=emulator.url) as client,
    ):
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW_CONN_C": emulator.connection(timeout=1)}
        command = [sys.executable, "-m", "benchmarks.bombs", "--wait"]
        with subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as waiting:
            assert waiting.stdin is not None
            for name, faults in BOMBS.items():
                jobs = [client.create("gemini-2.5-flash", inlined_requests=["x"]).name for _ in range(2)]
                emulator.control.advance(3600)
                _ask(waiting, jobs[0])
                emulator.control.faults(**{kind: {"times": _TIMES, **given} for kind, given in faults.items()})
                found.append({"bomb": name, **_ask(waiting, jobs[1])})
                emulator.control.reset()
            waiting.stdin.close()
    return found


def _ask(waiting: subprocess.Popen[str], job: str) -> dict[str, Any]:
    """Have the other process wait for a job; return what it measured."""
    assert waiting.stdin is not None
    assert waiting.stdout is not None
    waiting.stdin.write(f"{job}\n")
    waiting.stdin.flush()
    # Airflow's log goes to standard output, too.
    measured: dict[str, Any] = json.loads(next(line for line in waiting.stdout if line.startswith('{"mib"')))
    return measured


async def _wait(job: str) -> tuple[str, float]:
    """Run a trigger; return why its wait ended, and by how much the loop was late at most, in milliseconds."""
    from airflow_provider_gemini_batch.polling.report import from_event
    from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

    latest = 0.0

    async def tick() -> None:
        nonlocal latest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK)
            latest = max(latest, time.perf_counter() - began - _TICK)

    ticking = asyncio.create_task(tick())
    reason = ""
    async for event in GeminiBatchJobTrigger(job, "c", 0.1, time.time() + _SECONDS).run():
        reason = from_event(event.payload).reason.value
    ticking.cancel()
    return reason, 1000 * latest


def _wait_through() -> None:
    """Fork a process for every two jobs on standard input; it waits for one after the other and prints its figures."""
    import airflow_provider_gemini_batch.triggers  # noqa: F401  (once, before the forks)

    while job := sys.stdin.readline():
        if os.fork():
            os.wait()
            continue
        before = 0.0
        for _ in range(2):
            reason, late = asyncio.run(_wait(job.strip()))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"mib": round(peak - before, 1), "loop_ms": round(late, 1), "reason": reason}), flush=True)
            before, job = peak, job if before else sys.stdin.readline()
        os._exit(0)


def main() -> int:
    """Measure and print; 1 if a bomb took more memory than it may."""
    if "--wait" in sys.argv:
        _wait_through()
        return 0
    rows = measure()
    for row in rows:
        print(f"{row['bomb']:28} {row['mib']:8.1f} MiB  loop late by {row['loop_ms']:6.1f} ms")
    return 1 if max(row["mib"] for row in rows) > MOST_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
