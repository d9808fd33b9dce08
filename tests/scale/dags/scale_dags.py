"""A dataset of 16 files, and the same under a quota of its connection."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_gemini_batch.datasets import GeminiBatchDataset

FOLDER = os.environ["SCALE_FOLDER"]

for name in ("kills", "quota"):
    with DAG(f"scale_{name}", schedule=None):
        GeminiBatchDataset(
            group_id="g",
            model="gemini-2.5-flash",
            gemini_conn_id=f"scale_{name}",
            input_path=f"{FOLDER}/in/",
            output_path=f"{FOLDER}/{name}/",
            prompt_template="{text}",
            key_field="id",
            carry=["id", "day", "price", "note"],
            max_failed_rows=0,
            poll_interval=10,
            retries=3,
            retry_delay=timedelta(seconds=2),
        )
