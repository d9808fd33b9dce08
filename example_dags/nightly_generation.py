"""Submit one batch every night; the responses are returned through XCom."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.sdk import dag, task

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator


@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False)
def nightly_generation() -> None:
    """Ask for a line about each of three people and log how many there were."""
    batch = GeminiCreateBatchJobOperator(
        task_id="write_lines",
        model="gemini-2.5-flash",
        system_instruction="Answer in one line.",
        inlined_requests=[
            {"key": "ada", "request": {"contents": [{"parts": [{"text": "Who was Ada Lovelace?"}]}]}},
            {"key": "grace", "request": {"contents": [{"parts": [{"text": "Who was Grace Hopper?"}]}]}},
            "Who was Emmy Noether?",
        ],
        generation_config={"temperature": 0.2, "maxOutputTokens": 200},
        retries=2,
    )

    @task
    def count_lines(result: dict[str, Any]) -> int:
        return sum(1 for row in result["responses"] if row["status"] == "ok")

    count_lines(batch.output)


nightly_generation()
