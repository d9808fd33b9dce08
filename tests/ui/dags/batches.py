"""Two Dags, each with one batch, for the page in a real Airflow."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

for dag_id in ("shop", "secret"):
    with DAG(dag_id, schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="describe",
            model="gemini-2.5-flash",
            inlined_requests=[f"Describe product {number}." for number in range(40)],
            output_path="{{ var.value.get('output', '/nowhere') }}/" + dag_id + "-{{ run_id }}.jsonl",
            poll_interval=1,
        )
    globals()[dag_id] = dag
