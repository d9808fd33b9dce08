"""Watch all jobs of a connection, and say so when one did not end well, whoever created it."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_gemini_batch.triggers import GeminiBatchJobEventTrigger

bad_endings = Asset(
    "gemini_jobs_that_ended_badly",
    watchers=[
        AssetWatcher(
            name="ended badly", trigger=GeminiBatchJobEventTrigger(states=["FAILED", "EXPIRED"], poll_interval=300)
        )
    ],
)


@dag(schedule=[bad_endings])
def tell_others_when_a_job_ends() -> None:
    """Write a line for each job; put your own notifier here."""

    @task
    def tell(*, triggering_asset_events: Any = None) -> None:
        for event in triggering_asset_events[bad_endings]:
            job = event.extra["payload"]
            logging.getLogger(__name__).warning("%s (%s): %s", job["job_name"], job["display_name"], job["state"])

    tell()


tell_others_when_a_job_ends()
