"""A retry in another process, with other hashes, in another folder and with other temporary files, finds its job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

_PROGRAM = """
import datetime, decimal, sys
from airflow.sdk.exceptions import TaskDeferred
from task_context import task_context
from airflow_provider_gemini_batch.operators import (
    GeminiCreateBatchJobOperator, GeminiCreateEmbeddingsBatchJobOperator,
)

folder, try_number = sys.argv[1], int(sys.argv[2])
ROW = {"id": 7, "text": "a", "tags": ["x", "y"], "day": datetime.date(2026, 1, 2), "price": decimal.Decimal("1.5")}

def rows():
    yield {**ROW, "more": {name: name for name in sorted({"p", "q", "r"})}}

def table():
    import pyarrow as pa
    return pa.table({"id": [1, 2], "text": ["a", "b"]})

TASKS = {
    "list": {"inlined_requests": [{"contents": "a", "config": {"top_k": 1, "temperature": 0.5}, "labels": {"b": "1"}}]},
    "function": {"inlined_requests": rows, "prompt_template": "{text}{tags}{day}{more}", "carry": ["tags", "price"],
                 "key_field": "id", "output_path": f"{folder}/out/"},
    "frame": {"inlined_requests": table, "output_path": f"{folder}/frame.jsonl", "key_field": "id"},
    "folder": {"input_path": f"{folder}/in/", "prompt_template": "{text}", "carry": "part",
               "output_path": f"{folder}/o.jsonl"},
    "media": {"input_path": f"{folder}/rows.csv", "prompt_template": "{text}", "media_field": "file"},
    "defaults": {"inlined_requests": ["a"], "generation_config": {"stopSequences": ["x"], "seed": 1, "topP": 0.5},
                 "system_instruction": "s", "request_defaults": {"tools": [{"googleSearch": {}}]}},
}
for name, arguments in TASKS.items():
    task = GeminiCreateBatchJobOperator(task_id=name, model="gemini-2.5-flash", lookup_timeout=1, **arguments)
    try:
        with task.task_run(task_context(task_id=name, try_number=try_number, max_tries=1)) as run:
            run.begin()
    except TaskDeferred:
        print("now", name, run.first_job_name)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_retry_with_other_hashes_folders_and_temporary_files_makes_no_second_job(
    gemini_batch_emulator: Emulator, tmp_path: Path
) -> None:
    gemini_batch_emulator.control.faults(hold_pending=True)
    for part in ("a", "b"):
        (tmp_path / "in" / f"part={part}").mkdir(parents=True)
        parquet.write_table(pa.table({"text": [part, "x"]}), tmp_path / "in" / f"part={part}" / "0.parquet")
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    (tmp_path / "rows.csv").write_text("text;file\nWhat is it?;cat.png\n")
    told = []
    for number, seed in enumerate(("1", "2"), start=1):
        places = {name: tmp_path / f"{name}-{number}" for name in ("cwd", "tmp")}
        for place in places.values():
            place.mkdir()
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TMPDIR": str(places["tmp"]),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "AIRFLOW_CONN_GEMINI_BATCH_DEFAULT": gemini_batch_emulator.connection(),
        }
        command = [sys.executable, "-c", _PROGRAM, str(tmp_path), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=places["cwd"])
        assert done.returncode == 0, done.stderr[-3000:]
        told.append([line for line in done.stdout.splitlines() if line.startswith("now ")])
    assert len(told[0]) == 6
    assert told[0] == told[1]
    assert len(gemini_batch_emulator.control.books()["jobs"]) == 6, json.dumps(told)
