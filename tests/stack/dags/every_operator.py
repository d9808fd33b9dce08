"""Each operator that the example DAGs leave out, a task that waits in its worker, and the decorator."""

from __future__ import annotations

import json
from pathlib import Path

from airflow.sdk import dag, task

from airflow_provider_gemini_batch.operators import (
    GeminiCancelBatchJobOperator,
    GeminiCreateBatchJobOperator,
    GeminiGetBatchJobOperator,
    GeminiListBatchJobsOperator,
    GeminiUploadFileOperator,
)

MODEL = "gemini-2.5-flash"


@dag(schedule=None)
def every_operator() -> None:
    """Run them one after another, so that few processes start at once."""

    @task
    def write(run: str) -> str:
        import os

        path = Path(os.environ["GEMINI_BATCH_DEMO_FOLDER"]) / f"{run.replace(':', '-')}.jsonl"
        request = {"contents": [{"parts": [{"text": "From a file."}]}]}
        path.write_text(json.dumps({"key": "only", "request": request}) + "\n", encoding="utf-8")
        return str(path)

    @task.gemini_batch(model=MODEL, poll_interval=1, output_path="{{ ti.xcom_pull(task_ids='write') }}.out.jsonl")
    def decorated() -> list[str]:
        return ["From a function."]

    upload = GeminiUploadFileOperator(task_id="upload", input_path=write("{{ run_id }}"))
    waiting = GeminiCreateBatchJobOperator(
        task_id="waiting", model=MODEL, file_name=upload.output, deferrable=False, poll_interval=1
    )
    job_name = "{{ ti.xcom_pull(task_ids='waiting', key='job_name') }}"
    get = GeminiGetBatchJobOperator(task_id="get", job_name=job_name)
    submit = GeminiCreateBatchJobOperator(
        task_id="submit", model=MODEL, inlined_requests=["Not needed after all."], wait_for_completion=False
    )
    cancel = GeminiCancelBatchJobOperator(
        task_id="cancel", job_name="{{ ti.xcom_pull(task_ids='submit', key='job_name') }}"
    )
    listing = GeminiListBatchJobsOperator(task_id="list", max_results=5)
    waiting >> get >> submit >> cancel >> listing >> decorated()


every_operator()
