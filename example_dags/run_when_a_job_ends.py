"""Run a Dag when a job ends that was created elsewhere, in a notebook for example. No task waits for it."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.triggers import GeminiBatchJobEventTrigger

notebook_jobs = Asset(
    "gemini_notebook_jobs",
    watchers=[AssetWatcher(name="ended", trigger=GeminiBatchJobEventTrigger(display_name="notebook-*"))],
)


@dag(schedule=[notebook_jobs])
def run_when_a_job_ends() -> None:
    """Count the responses of each job that ended since the last run."""

    @task
    def count_responses(*, triggering_asset_events: Any = None) -> dict[str, int]:
        counts = {}
        with GeminiBatchHook() as hook:
            for event in triggering_asset_events[notebook_jobs]:
                job = event.extra["payload"]
                if job["state"] == "SUCCEEDED":
                    counts[job["job_name"]] = sum(1 for _ in hook.iter_results(job["job_name"]))
        return counts

    count_responses()


run_when_a_job_ends()
