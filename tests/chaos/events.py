"""Fifty jobs made outside of Airflow and watched by an asset: fifty runs, although the triggerer is killed twice.

Jobs end one after the other, since Airflow merges the events that wait for the same Dag into one run. Then fifty more
end together while no triggerer runs: none is left out, in as few runs as Airflow makes of them.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from waiting import wait_for

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.emulator import Emulator
from stack.local_airflow import ROOT, LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS = 50
DAG = "watched_jobs"
# Fifty runs take minutes where other work keeps the machine busy.
PATIENCE = 600.0


class Watched:
    """A Dag in a real Airflow that runs when a job ends, and the jobs that end."""

    def __init__(self, airflow: LocalAirflow, emulator: Emulator, client: BatchClient) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.client = client
        self.names: list[str] = []

    def end_jobs(self, count: int) -> None:
        """Make jobs as a notebook would, and let them end."""
        for _ in range(count):
            name = f"nb-{len(self.names)}"
            self.names.append(self.client.create("gemini-2.5-flash", inlined_requests=["One."], display_name=name).name)
        self.emulator.control.advance(600.0)

    def told(self) -> Counter[str]:
        """Count the events of each job."""
        found: Any = self.airflow.call("GET", "/assets/events", params={"limit": 1000})
        extras = [event["extra"] for event in found["asset_events"]]
        return Counter(extra["payload"]["job_name"] for extra in extras if extra.get("from_trigger"))

    def runs(self) -> Counter[str]:
        """Count the runs of the Dag by state."""
        found: Any = self.airflow.call("GET", f"/dags/{DAG}/dagRuns", params={"limit": 1000})
        return Counter(run["state"] for run in found["dag_runs"])

    def lists(self) -> int:
        """Count the list calls that the service has had."""
        return int(self.emulator.control.books()["requests"].get("list", 0))

    def until_cursor_is_kept(self) -> None:
        """Wait two rounds of polling: what was told is noted by then."""
        seen = self.lists()
        until(lambda: self.lists() >= seen + 3, "the connection is polled")

    def kill_triggerer(self, jobs: int) -> None:
        """Kill the triggerer, let jobs end while there is none, and start another."""
        self.until_cursor_is_kept()
        (name,) = self.airflow.triggerers()
        self.airflow.stop_triggerer(name, how=signal.SIGKILL)
        self.end_jobs(jobs)
        self.airflow.start_triggerer()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what a real Airflow has to do; asking it costs time of its own."""
    wait_for(condition, what, seconds=PATIENCE, pause=0.3)


def expect_events(airflow: LocalAirflow, emulator: Emulator, jobs: int) -> list[str]:
    """Let jobs end one by one, then together, each while a triggerer is killed, and return what went wrong."""
    key = json.loads(emulator.connection())["password"]
    with BatchClient.for_gemini(key, base_url=emulator.url) as client:
        watched = Watched(airflow, emulator, client)
        airflow.unpause(DAG)
        until(lambda: watched.lists() >= 3, "the connection is polled")
        return _one_by_one(watched, jobs) + _together(watched, jobs)


def play_events(jobs: int = JOBS) -> int:
    """Play both parts and print what was told and run; 1 when an end was left out or told twice."""
    began = time.monotonic()
    with Emulator(port=0) as emulator:
        connection = emulator.connection()
        folders = [ROOT / "tests" / "stack" / "dags"]
        with LocalAirflow(folders, connections={"gemini_batch_default": connection}) as airflow:
            problems = expect_events(airflow, emulator, jobs)
            print(f"{time.monotonic() - began:.0f} s", flush=True)
            for problem in problems:
                print(f"      {problem}")
            if problems:
                print(airflow.component_logs())
    return 1 if problems else 0


def _one_by_one(watched: Watched, jobs: int) -> list[str]:
    kills = {jobs // 3, 2 * jobs // 3}
    for number in range(1, jobs + 1):
        if number in kills:
            watched.kill_triggerer(1)
        else:
            watched.end_jobs(1)
        until(lambda wanted=number: sum(watched.runs().values()) >= wanted, f"run {number}")  # type: ignore[misc]
    until(lambda: watched.runs()["success"] >= jobs, "all runs succeed")
    told, runs = watched.told(), watched.runs()
    print(
        f"{jobs} jobs one after the other, triggerer killed {len(kills)} times: {told.total()} events, "
        f"{dict(runs)} runs",
        flush=True,
    )
    problems = [] if set(told) == set(watched.names) else ["an end was left out"]
    problems += [] if max(told.values()) == 1 else ["an end was told twice"]
    return problems + ([] if runs == Counter(success=jobs) else [f"{dict(runs)} runs for {jobs} jobs"])


def _together(watched: Watched, jobs: int) -> list[str]:
    before = watched.runs().total()
    watched.kill_triggerer(jobs)
    until(lambda: set(watched.told()) == set(watched.names), "all ends are told")
    until(lambda: set(watched.runs()) == {"success"} and watched.runs().total() > before, "the runs succeed")
    told, runs = watched.told(), watched.runs().total() - before
    print(f"{jobs} jobs together, while the triggerer was dead: {told.total() - jobs} events, {runs} runs", flush=True)
    return [] if max(told.values()) == 1 else ["an end was told twice"]
