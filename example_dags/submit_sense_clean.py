"""Submit, wait, read and clean up as four tasks, for a Dag that does something in between."""

from __future__ import annotations

from airflow.sdk import Param, dag

from airflow_provider_gemini_batch.operators import (
    GeminiCreateBatchJobOperator,
    GeminiDeleteBatchJobOperator,
    GeminiGetBatchResponsesOperator,
)
from airflow_provider_gemini_batch.sensors import GeminiBatchJobSensor


@dag(
    schedule=None,
    params={"folder": Param("/tmp/gemini-batch", type="string", description="Where haiku.jsonl goes.")},  # noqa: S108
)
def submit_sense_clean() -> None:
    """Write two haiku in separate steps; the job is deleted once its rows are in the file."""
    submit = GeminiCreateBatchJobOperator(
        task_id="submit",
        model="gemini-2.5-flash",
        inlined_requests=["Write a haiku about queues.", "Write a haiku about batches."],
        wait_for_completion=False,
        retries=2,
    )
    job_name = "{{ ti.xcom_pull(task_ids='submit', key='job_name') }}"
    wait = GeminiBatchJobSensor(task_id="wait", job_name=job_name, deferrable=True)
    read = GeminiGetBatchResponsesOperator(
        task_id="read",
        job_name=job_name,
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/haiku.jsonl",
    )
    delete = GeminiDeleteBatchJobOperator(task_id="delete", job_name=job_name)
    submit >> wait >> read >> delete


submit_sense_clean()
