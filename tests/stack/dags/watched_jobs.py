"""A Dag that runs when a job ends which somebody else created."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_gemini_batch.triggers import GeminiBatchJobEventTrigger

jobs = Asset(
    "watched_jobs",
    watchers=[AssetWatcher(name="ended", trigger=GeminiBatchJobEventTrigger(display_name="nb-*", poll_interval=1))],
)


@dag(schedule=[jobs], max_active_runs=20)
def watched_jobs() -> None:
    """Name the jobs that ended."""

    @task
    def name_them(*, triggering_asset_events: Any = None) -> list[str]:
        return [event.extra["payload"]["job_name"] for event in triggering_asset_events[jobs]]

    name_them()


watched_jobs()
