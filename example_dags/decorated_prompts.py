"""Prompts from a function: what it yields becomes one batch, and the task waits without a worker."""

from __future__ import annotations

import json
import keyword
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, dag, task

from airflow_provider_gemini_batch.api.requests.request import BatchRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108


@dag(
    schedule=None,
    params={"folder": Param(FOLDER, type="string", description="Where words.jsonl goes.")},
)
def decorated_prompts() -> None:
    """Explain every keyword of Python to a reader who knows another language."""

    @task
    def known_language() -> str:
        return "JavaScript"

    @task.gemini_batch(
        model="gemini-2.5-flash",
        system_instruction="Answer in two sentences. No code.",
        repair_rounds=1,
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/words.jsonl",
        poll_interval=5,
        retries=2,
    )
    def explain(language: str) -> Iterator[BatchRequest]:
        """Called once when the task runs. Its rows go to the service, not into Airflow's database."""
        for word in keyword.kwlist:
            yield BatchRequest(key=word, text=f"What does Python's keyword {word!r} do, for one who knows {language}?")

    @task
    def longest(result: dict[str, Any]) -> str:
        with Path(result["output"]).open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return str(max(rows, key=lambda row: len(row["text"] or ""))["key"])

    longest(explain(known_language()))


decorated_prompts()
