"""One measurement, in a process of its own: some triggers of one provider, run as the triggerer runs them.

Prints one line of JSON. Started by :mod:`benchmarks.triggers`; imports of the provider are done, and one trigger has
run, before anything is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import threading
import time
import tracemalloc
import urllib.request
from pathlib import Path
from typing import Any

PROBE_SECONDS = 0.005
BEFORE = 20


def control(url: str, path: str) -> dict[str, Any]:
    request = urllib.request.Request(url + path, method="POST" if "reset" in path else "GET")  # noqa: S310  loopback
    with urllib.request.urlopen(request) as answer:  # noqa: S310  loopback
        return dict(json.load(answer))


def prepare(kind: str, url: str) -> None:
    """Give each provider its connection, as its users do."""
    ours = {"conn_type": "gemini_batch", "password": "AIza-bench", "host": url}
    os.environ["AIRFLOW_CONN_GEMINI_BATCH_DEFAULT"] = json.dumps(ours)
    os.environ["AIRFLOW_CONN_ANTHROPIC_DEFAULT"] = json.dumps(
        {"conn_type": "anthropic", "password": "sk-bench", "host": url}
    )
    os.environ["GOOGLE_GEMINI_BASE_URL"] = url
    assert kind in ("ours", "google", "anthropic", "empty")


def triggers(kind: str, count: int, interval: float, *, first: int = 0) -> list[Any]:
    numbers = range(first, first + count)
    if kind == "ours":
        from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

        return [GeminiBatchJobTrigger(f"batches/job{number:06}", poll_interval=interval) for number in numbers]
    if kind == "google":
        from airflow.providers.google.cloud.triggers.gen_ai import (  # type: ignore[import-not-found]
            GenAIGeminiCreateBatchJobTrigger,
        )

        return [
            GenAIGeminiCreateBatchJobTrigger(
                project_id="p",
                location="l",
                model="gemini-2.5-flash",
                input_source="files/x",
                gemini_api_key="AIza-bench",
                polling_interval=interval,
            )
            for _ in numbers
        ]
    if kind == "anthropic":
        from airflow.providers.anthropic.triggers.batch import AnthropicBatchTrigger  # type: ignore[import-not-found]

        end = time.time() + 86400.0
        return [AnthropicBatchTrigger("anthropic_default", f"job{number:06}", interval, end) for number in numbers]
    return []


class Lag:
    """How late the loop comes back to one who asked for a short sleep."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    async def probe(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(PROBE_SECONDS)
            self.samples.append(time.perf_counter() - asked - PROBE_SECONDS)

    def summary(self) -> dict[str, float]:
        ordered = sorted(self.samples) or [0.0]
        return {
            "lag_p50_ms": 1000 * ordered[len(ordered) // 2],
            "lag_p99_ms": 1000 * ordered[int(len(ordered) * 0.99)],
            "lag_max_ms": 1000 * ordered[-1],
        }


async def wait_for(trigger: Any, noticed: list[float]) -> None:
    async for _event in trigger.run():
        noticed.append(time.time())  # noqa: PERF401  the moment counts


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Wait for jobs until all have ended. ``spend`` leaves out the probe, whose own CPU time would count."""
    kind, count, interval, seconds, url = options.kind, options.count, options.interval, options.seconds, options.url
    control(url, "/control/reset?count=1&seconds=0")
    await asyncio.gather(*(wait_for(trigger, []) for trigger in triggers(kind, 1, interval)))
    made = triggers(kind, count, interval)
    ends_at = control(url, f"/control/reset?count={count}&seconds={seconds}")["ends_at"]
    gc.collect()
    collected = collections()
    lag, noticed = Lag(), list[float]()
    probe = asyncio.create_task(lag.probe() if options.what == "measure" else asyncio.sleep(0))
    await asyncio.sleep(0)
    began_cpu, began = time.process_time(), time.monotonic()
    tasks = []
    for trigger in made:
        await asyncio.sleep(0)  # as the triggerer does between two
        tasks.append(asyncio.create_task(wait_for(trigger, noticed)))
    if kind == "empty":
        await asyncio.sleep(seconds)
    await asyncio.gather(*tasks)
    cpu = time.process_time() - began_cpu
    probe.cancel()
    return {
        "cpu_s": cpu,
        "collections": collections() - collected,
        "wall_s": time.monotonic() - began,
        "late_s": max((moment - ends_at for moment in noticed), default=0.0),
        "noticed": len(noticed),
        **control(url, "/control/books"),
        **lag.summary(),
    }


def collections() -> int:
    """How often Python's garbage collector has run, for whichever generation."""
    return sum(generation["collections"] for generation in gc.get_stats())


def resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def begin(kind: str, first: int, count: int, url: str) -> list[asyncio.Task[None]]:
    """Start triggers, and wait until each of them has looked once."""
    wanted = {"google": 2 * count, "anthropic": count}.get(kind, -(-count // 100))
    wanted += control(url, "/control/books")["requests"]
    tasks = [asyncio.create_task(wait_for(trigger, [])) for trigger in triggers(kind, count, 3600.0, first=first)]
    while control(url, "/control/books")["requests"] < wanted:  # noqa: ASYNC110  it is another process that counts
        await asyncio.sleep(0.5)
    await asyncio.sleep(1.0)
    gc.collect()
    return tasks


async def weigh(kind: str, count: int, url: str, *, traced: bool) -> dict[str, Any]:
    """Memory of triggers that have looked once and wait, beside a few that have done so before.

    What a process or a connection needs once (modules, a client, room to parse an answer) is thus there for each
    contender alike, and what is weighed is what so many more triggers take.
    """
    control(url, "/control/reset?count=1&seconds=0")
    await asyncio.gather(*(wait_for(trigger, []) for trigger in triggers(kind, 1, 1.0)))
    control(url, f"/control/reset?count={BEFORE + count}&seconds=86400")
    tasks = await begin(kind, 0, BEFORE, url)
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else resident()
    tasks += await begin(kind, BEFORE, count, url)
    after = tracemalloc.get_traced_memory()[0] if traced else resident()
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"bytes_each": (after - before) / count}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["measure", "spend", "weigh", "trace"])
    parser.add_argument("kind")
    parser.add_argument("count", type=int)
    parser.add_argument("interval", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("url")
    args = parser.parse_args()
    out, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115  what is logged costs everybody the same
    prepare(args.kind, args.url)
    if args.what in ("measure", "spend"):
        result = asyncio.run(measure(args))
    else:
        result = asyncio.run(weigh(args.kind, args.count, args.url, traced=args.what == "trace"))
    print(json.dumps({**result, "threads": threading.active_count()}), file=out, flush=True)
    os._exit(0)  # some providers' executors would be waited for


if __name__ == "__main__":
    main()
