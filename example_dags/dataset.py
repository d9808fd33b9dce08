"""A dataset: many files in, a folder of Parquet parts out. A late file, or a changed one, costs that part alone."""

from __future__ import annotations

import os

from airflow.sdk import Asset, dag

from airflow_provider_gemini_batch.datasets import GeminiBatchDataset

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108
LABELLED = Asset("reviews_labelled")


@dag(schedule=None)
def dataset() -> None:
    """Label the reviews of a folder."""
    GeminiBatchDataset(
        group_id="label",
        model="gemini-2.5-flash",
        input_path=f"{FOLDER}/reviews/*.csv",
        output_path=f"{FOLDER}/labelled/",
        prompt_template="Is this review positive or negative? {text}",
        key_field="id",
        carry=["id"],
        rows_per_part=50_000,
        generation_config={"maxOutputTokens": 50},
        outlets=[LABELLED],
    )


dataset()
