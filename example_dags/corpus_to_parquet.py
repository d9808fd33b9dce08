"""A corpus to vectors: the passages of Python's own language reference, embedded and landed as a Parquet table."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, dag, task

from airflow_provider_gemini_batch.operators import GeminiCreateEmbeddingsBatchJobOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108
PASSAGE_LENGTH = 1500


def passages(text: str) -> Iterator[str]:
    """Put paragraphs together until a passage is long enough to be worth a vector."""
    held: list[str] = []
    for paragraph in text.split("\n\n"):
        held.append(paragraph)
        if sum(map(len, held)) >= PASSAGE_LENGTH:
            yield "\n\n".join(held)
            held.clear()
    if "".join(held).strip():
        yield "\n\n".join(held)


@dag(
    schedule=None,
    params={"folder": Param(FOLDER, type="string", description="Where passages.jsonl and vectors.parquet go.")},
)
def corpus_to_parquet() -> None:
    """Cut the corpus into passages, embed them, look at the table."""

    @task
    def cut(folder: str) -> str:
        """Write one line for each passage of the texts behind Python's ``help()``."""
        from pydoc_data.topics import topics

        path = Path(folder) / "passages.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as lines:
            for topic in sorted(topics):
                for number, text in enumerate(passages(topics[topic])):
                    row = {"id": f"{topic}-{number}", "topic": topic, "number": number, "text": text}
                    lines.write(json.dumps(row) + "\n")
        return str(path)

    embedded = GeminiCreateEmbeddingsBatchJobOperator(
        task_id="embed",
        model="gemini-embedding-001",
        input_path=cut("{{ params.folder }}/{{ run_id | replace(':', '-') }}"),
        key_field="id",
        title_field="topic",
        carry=["topic", "number", "text"],
        task_type="RETRIEVAL_DOCUMENT",
        output_dimensionality=256,
        repair_rounds=1,
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/vectors.parquet",
        poll_interval=5,
        retries=2,
    )

    @task
    def look(result: dict[str, Any]) -> dict[str, Any]:
        from pyarrow import parquet

        table = parquet.ParquetFile(result["output"])
        return {"rows": table.metadata.num_rows, "columns": table.schema_arrow.names}

    look(embedded.output)


corpus_to_parquet()
