"""Jobs that end while a Dag watches them, in a real Airflow whose triggerer is killed: none is left out."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow

pytestmark = [pytest.mark.stack, pytest.mark.skipif(not HAS_STORE, reason="Airflow 3.2 keeps no state of assets")]
DAG = "watched_jobs"


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.5)


def test_every_end_reaches_the_dag_although_the_triggerer_is_killed_twice(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    key = json.loads(emulator.connection())["password"]
    names: list[str] = []

    def lists() -> int:
        return int(emulator.control.books()["requests"].get("list", 0))

    def end_jobs(client: BatchClient, count: int) -> None:
        for _ in range(count):
            job = client.create("gemini-2.5-flash", inlined_requests=["One."], display_name=f"nb-{len(names)}")
            names.append(job.name)
        emulator.control.advance(600.0)

    def told() -> Counter[str]:
        found: Any = local_airflow.call("GET", "/assets/events", params={"limit": 100})
        extras = [event["extra"] for event in found["asset_events"]]
        return Counter(extra["payload"]["job_name"] for extra in extras if extra.get("from_trigger"))

    with BatchClient.for_gemini(key, base_url=emulator.url) as client:
        local_airflow.wait_dag(DAG)
        local_airflow.unpause(DAG)
        wait_until(lambda: lists() >= 3, "the connection is watched")
        end_jobs(client, 3)
        wait_until(lambda: set(told()) == set(names), "three ends are told")
        for _ in range(2):
            # The triggerer has noted by now up to where it has told.
            seen = lists()
            wait_until(lambda seen=seen: lists() >= seen + 5, "watching goes on")  # type: ignore[misc]
            (name,) = local_airflow.triggerers()
            local_airflow.stop_triggerer(name, how=signal.SIGKILL)
            end_jobs(client, 2)
            local_airflow.start_triggerer()
            wait_until(lambda: set(told()) == set(names), f"{len(names)} ends are told")
    assert max(told().values()) == 1, "noted before the triggerer was killed"
    wait_until(lambda: bool(local_airflow.call("GET", f"/dags/{DAG}/dagRuns")["dag_runs"]), "the Dag runs")
