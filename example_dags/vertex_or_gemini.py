"""One Dag for either service: prototype with an API key, go to production on Vertex AI by changing the connection."""

from __future__ import annotations

import os

from airflow.sdk import Param, dag

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator, GeminiCreateEmbeddingsBatchJobOperator

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108
CITIES = ("Lagos", "Lima", "Lisbon", "London", "Lusaka", "Lyon")


@dag(
    schedule=None,
    params={
        # On Vertex AI the connection also names a staging_path, the gs:// folder through which the rows go.
        "connection": Param("gemini_batch_default", type="string", description="An API key, or Vertex AI"),
        "folder": Param(FOLDER, type="string", description="Where the rows go"),
    },
)
def vertex_or_gemini() -> None:
    """Describe cities, and embed their names."""
    GeminiCreateBatchJobOperator(
        task_id="describe",
        gemini_conn_id="{{ params.connection }}",
        model="gemini-2.5-flash",
        inlined_requests=[{"key": city.lower(), "text": f"Describe {city} in one sentence."} for city in CITIES],
        generation_config={"temperature": 0.2, "maxOutputTokens": 200},
        output_path="{{ params.folder }}/cities.jsonl",
        repair_rounds=1,
    )
    GeminiCreateEmbeddingsBatchJobOperator(
        task_id="embed",
        gemini_conn_id="{{ params.connection }}",
        model="gemini-embedding-001",
        inlined_requests=list(CITIES),
        task_type="CLUSTERING",
        output_dimensionality=128,
        output_path="{{ params.folder }}/vectors.jsonl",
    )


vertex_or_gemini()
