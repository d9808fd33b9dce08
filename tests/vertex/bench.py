"""What the tests of this folder share: running one create task, and looking at what it left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG
from dag_runs import Run

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator, GeminiCreateEmbeddingsBatchJobOperator

if TYPE_CHECKING:
    from pathlib import Path

    from dag_runs import Result

    from airflow_provider_gemini_batch.api.google.storage import ObjectStore
    from airflow_provider_gemini_batch.emulator import Emulator

FLASH, EMBEDDING, LEGACY = "gemini-2.5-flash", "gemini-embedding-001", "text-embedding-005"


@dataclass
class Bench:
    """An emulator with objects, and a folder for outputs."""

    emulator: Emulator
    store: ObjectStore
    folder: Path
    stage: str
    gcs: str

    def run(self, **arguments: Any) -> Run:
        """Make a Dag of one create task named ``batch``; a ``task_type`` or an embedding model makes it embed."""
        given = {"model": FLASH, "gemini_conn_id": "vertex", "poll_interval": 0.1, "lookup_timeout": 1.0, **arguments}
        kind = GeminiCreateEmbeddingsBatchJobOperator if "embedding" in given["model"] else GeminiCreateBatchJobOperator
        with DAG("vertex_bench", schedule=None) as dag:
            kind(task_id="batch", **given)
        return Run(dag)

    def go(self, **arguments: Any) -> tuple[Result, dict[str, Any]]:
        """Run the task to its end; it has to succeed. Gives the result and the summary."""
        run = self.run(**arguments)
        result = run.attempt("batch")
        assert result.state == "success", (result.state, result.error)
        return result, run.xcom("batch")

    def objects(self, folder: str | None = None) -> list[str]:
        """Names of all objects under a folder, the staging folder unless another is named."""
        base = (folder or self.stage).removeprefix("gs://")
        return sorted(path.removeprefix(base + "/") for path in self.store.filesystem.find(base))

    def put(self, uri: str, content: bytes) -> None:
        """Write an object."""
        with self.store.write_whole(uri) as handle:
            handle.write(content)

    def read(self, uri: str) -> bytes:
        """Read an object."""
        return b"".join(self.store.iter_bytes(uri))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The emulator's jobs, oldest first."""
        found: list[dict[str, Any]] = self.emulator.control.books()["jobs"]
        return found


def rows_of(content: bytes) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in content.splitlines()]
