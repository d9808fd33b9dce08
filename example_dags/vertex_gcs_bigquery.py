"""Vertex AI: one job from files to files on Cloud Storage, one from a BigQuery table to another."""

from __future__ import annotations

from airflow.sdk import Param, dag

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

# A connection of type gemini_batch with the extra {"backend": "vertex", "project_id": ..., "location": ...},
# or one of type google_cloud_platform.
CONNECTION = "gemini_batch_vertex"


@dag(
    schedule=None,
    params={
        "bucket": Param("my-bucket", type="string", description="Bucket with reviews/*.jsonl"),
        "dataset": Param("my-project.reviews", type="string", description="Dataset with the table inbox"),
    },
)
def vertex_gcs_bigquery() -> None:
    """Rate reviews that lie where Vertex reads them, so that no row passes through Airflow."""
    GeminiCreateBatchJobOperator(
        task_id="files",
        gemini_conn_id=CONNECTION,
        model="gemini-2.5-flash",
        gcs_uri="gs://{{ params.bucket }}/reviews/*.jsonl",
        destination="gs://{{ params.bucket }}/rated/{{ run_id | replace(':', '-') }}",
        labels={"team": "reviews"},
        retries=2,
    )
    GeminiCreateBatchJobOperator(
        task_id="table",
        gemini_conn_id=CONNECTION,
        model="gemini-2.5-flash",
        bigquery_uri="bq://{{ params.dataset }}.inbox",
        destination="bq://{{ params.dataset }}.rated",
        labels={"team": "reviews"},
        retries=2,
    )


vertex_gcs_bigquery()
