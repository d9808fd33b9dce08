"""Texts in, vectors out: an embedding job whose rows land in a file."""

from __future__ import annotations

from airflow.sdk import Param, dag

from airflow_provider_gemini_batch.operators import GeminiCreateEmbeddingsBatchJobOperator


@dag(
    schedule=None,
    params={"folder": Param("/tmp/gemini-batch", type="string", description="Where vectors.jsonl goes.")},  # noqa: S108
)
def embeddings() -> None:
    """Embed four sentences for retrieval, 256 numbers each."""
    GeminiCreateEmbeddingsBatchJobOperator(
        task_id="embed",
        model="gemini-embedding-001",
        task_type="RETRIEVAL_DOCUMENT",
        output_dimensionality=256,
        inlined_requests=[
            "A batch job costs half of what single calls cost.",
            "A deferred task holds no worker.",
            "A row that failed says why.",
            "A retried task finds its job again.",
        ],
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/vectors.jsonl",
        retries=2,
    )


embeddings()
