"""Many rows through one task: mended in further jobs, or divided among several at a time."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

MODEL = "gemini-2.5-flash"
PROMPT = "Summarise note {id} of {author}: {body}"
SHARD_ROWS = 300


@dag(schedule=None, params={"folder": ""})
def rows_mended() -> None:
    """Send rows that failed again, twice at most."""
    GeminiCreateBatchJobOperator(
        task_id="batch",
        model=MODEL,
        input_path="{{ params.folder }}/notes.jsonl",
        output_path="{{ params.folder }}/out.jsonl",
        prompt_template=PROMPT,
        key_field="id",
        carry=["author"],
        repair_rounds=2,
        # A busy machine may lose a worker; what was paid for is not paid for again.
        retries=2,
        retry_delay=timedelta(seconds=1),
        max_failed_rows=0,
        poll_interval=1,
    )


@dag(schedule=None, params={"folder": ""})
def rows_divided() -> None:
    """Divide the rows among several jobs, of which three may run at a time."""
    GeminiCreateBatchJobOperator(
        task_id="batch",
        model=MODEL,
        input_path="{{ params.folder }}/notes.jsonl",
        output_path="{{ params.folder }}/out.jsonl",
        prompt_template=PROMPT,
        key_field="id",
        carry=["author"],
        max_rows_per_job=SHARD_ROWS,
        max_active_jobs=3,
        retries=2,
        retry_delay=timedelta(seconds=1),
        poll_interval=1,
    )


rows_mended()
rows_divided()
