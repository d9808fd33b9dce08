"""A summary of every module in Python's standard library: some 200 real texts, nightly, without a worker that waits."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

from airflow.sdk import Param, dag, task

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108


def _docstring(module: str) -> str | None:
    """Read a module's docstring from its source; a module written in C has none and is imported for it."""
    import ast
    import importlib.util
    import inspect

    spec = importlib.util.find_spec(module)
    if spec is None:
        return None
    if spec.origin and spec.origin.endswith(".py"):
        return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    try:
        return inspect.getdoc(importlib.import_module(module))
    except ImportError:  # built without a library that it needs, as _tkinter often is
        return None


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={"folder": Param(FOLDER, type="string", description="Where requests and summaries go.")},
)
def stdlib_summaries() -> None:
    """Write one request for each documented module, run them as one batch and write the responses to a file."""

    @task
    def write_requests(folder: str) -> str:
        """Write the requests as JSONL. Prompts go by file: nothing of them is left in Airflow's database."""
        import sys

        path = Path(folder) / "requests.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as lines:
            for module in sorted(sys.stdlib_module_names):
                text = _docstring(module)
                if not text:
                    continue
                prompt = f"Summarise the Python module {module} in one sentence.\n\n{text}"
                request = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
                lines.write(json.dumps({"key": module, "request": request}) + "\n")
        return str(path)

    GeminiCreateBatchJobOperator(
        task_id="summarise",
        model="gemini-2.5-flash",
        input_path=write_requests("{{ params.folder }}/{{ run_id | replace(':', '-') }}"),
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/summaries.jsonl",
        system_instruction="You write for a reader who has never used the module.",
        poll_interval=5,
        retries=2,
    )


stdlib_summaries()
