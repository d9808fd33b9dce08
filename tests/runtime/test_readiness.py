"""What is needed after the wait is tried before a job is paid for: libraries, file systems, places to write to."""

from __future__ import annotations

import json
import os
import sys
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from task_context import task_context

from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

ROW = {"key": "a", "request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}}
EXTRAS = ("pyarrow", "gcsfs", "gcsfs.core", "google.cloud.bigquery", "genai_prices", "s3fs")


def function() -> list[str]:
    return ["x"]


def jobs(emulator: Emulator) -> int:
    return len(emulator.control.books()["jobs"])


def outcome(emulator: Emulator, **arguments: Any) -> str:
    """Run a task to its end; return the words in which it was refused, empty for a success."""
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", **arguments)
    try:
        with task.task_run(task_context()) as run:
            run.begin()
    except TaskDeferred as deferred:
        emulator.control.advance(600)
        with task.task_run(task_context()) as run:
            run.resume(None, (deferred.kwargs or {})["memo"])
        return ""
    except AirflowException as refused:
        return str(refused)
    return ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_base_install_refuses_every_combination_that_would_fail_later_and_makes_no_job(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "in.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    (tmp_path / "file").write_text("")
    uploaded = GeminiBatchHook().upload_file(tmp_path / "in.jsonl").name
    sources: list[dict[str, Any]] = [
        {"inlined_requests": ["x"]},
        {"inlined_requests": function},
        {"input_path": f"{tmp_path}/in.jsonl"},
        {"input_path": f"{tmp_path}/in.parquet"},
        {"input_path": "s3://bucket/in.jsonl"},
        {"file_name": uploaded},
        {"gcs_uri": "gs://bucket/in.jsonl"},
        {"bigquery_uri": "bq://p.d.t"},
    ]
    outputs: list[dict[str, Any]] = [
        {},
        {"output_path": f"{tmp_path}/new/folder/out.jsonl"},
        {"output_path": f"{tmp_path}/out.parquet"},
        {"output_path": f"{tmp_path}/folder/"},
        {"output_path": "s3://bucket/out.jsonl"},
        {"output_path": "/proc/newcomer/out.jsonl"},
        {"output_path": f"{tmp_path}/file/out.jsonl"},
    ]
    others: list[dict[str, Any]] = [
        {},
        {"media_path": "s3://bucket/media"},
        {"media_path": "/proc/newcomer/media"},
        {"staging_path": "/proc/newcomer/stage"},
        {"max_cost_usd": 1.0},
        {"gemini_conn_id": "vertex", "staging_path": "gs://bucket/stage"},
        {"gemini_conn_id": "vertex", "destination": "gs://bucket/out"},
        {"gemini_conn_id": "vertex", "destination": "bq://p.d.answers"},
        {"gemini_conn_id": "vertex"},
    ]
    done: list[dict[str, Any]] = []
    for source, output, other in product(sources, outputs, others):
        arguments = {**source, **output, **other}
        before = jobs(emulator)
        words = outcome(emulator, **arguments)
        if words:
            assert jobs(emulator) == before, (arguments, words)
        else:
            done.append(arguments)
    # What needs nothing but the base install works, or the walk would prove nothing.
    kinds = {tuple(sorted(one)) for one in done}
    assert ("inlined_requests", "output_path") in kinds
    assert ("bigquery_uri", "destination", "gemini_conn_id") in kinds
    assert ("file_name", "output_path") in kinds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"output_path": "/proc/newcomer/x.jsonl"},
            "output_path: nothing can be written to /proc/newcomer: No such file",
        ),
        ({"output_path": "s3://bucket/x.jsonl"}, r"no file system for s3:// .*apache-airflow-providers-amazon\[s3fs\]"),
        ({"media_path": "/proc/newcomer/media"}, "media_path: nothing can be written to /proc/newcomer/media"),
        ({"staging_path": "/proc/newcomer/stage"}, "staging_path: nothing can be written to /proc/newcomer/stage"),
        ({"output_path": "{tmp}/file/x.jsonl"}, "output_path: nothing can be written to .*/file: Not a directory"),
        (
            {"output_path": f"{{tmp}}/{'x' * 230}.jsonl"},
            "output_path: nothing can be written to .*: File name too long",
        ),
        (
            {"output_path": f"{{tmp}}/{'x' * 249}.jsonl"},
            "output_path: nothing can be written to .*: File name too long",
        ),
        ({"output_path": "{tmp}/a\0b"}, "output_path: nothing can be written to .*: .*null"),
        ({"output_path": "{tmp}/loop"}, "output_path: nothing can be written to .*: Too many levels of symbolic links"),
        ({"output_path": "{tmp}/pipe"}, "output_path: .*/pipe is a device or a pipe, which a file would replace"),
        ({"output_path": "{tmp}/x.jsonl", "media_path": "{tmp}/x.jsonl"}, "media_path: a folder is needed"),
        ({"output_path": "{tmp}/x.jsonl", "media_path": "{tmp}/x.jsonl/m"}, "media_path: a folder is needed"),
        ({"media_path": f"{{tmp}}/{'y' * 256}"}, "media_path: nothing can be written to .*: File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_before_a_job_is_made(
    emulator: Emulator, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    given = {name: value.format(tmp=tmp_path) for name, value in arguments.items()}
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=["x"], **given)
    with pytest.raises(AirflowFailException, match=words), task.task_run(task_context()) as run:
        run.begin()
    assert not emulator.control.books()["requests"]


def test_results_do_not_replace_the_rows_that_they_are_of(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    assert "output_path: it is the input_path" in outcome(emulator, input_path=str(path), output_path=str(path))
    assert jobs(emulator) == 0


def test_an_output_may_have_a_long_name(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 210}.jsonl"
    assert outcome(emulator, inlined_requests=["x"], output_path=str(path)) == ""
    assert path.stat().st_size


def test_nothing_is_left_where_it_was_tried_to_write(emulator: Emulator, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "output_path": f"{tmp_path}/a/out.jsonl",
        "media_path": f"{tmp_path}/b",
        "staging_path": f"{tmp_path}/c",
    }
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=["x"], **given)
    with pytest.raises(TaskDeferred), task.task_run(task_context()) as run:
        run.begin()
    assert jobs(emulator) == 1
    assert not [path for path in tmp_path.rglob("*check*") if path.is_file()]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b", "c"]


def test_parquet_without_its_library_is_refused_before_a_job_is_made(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = outcome(emulator, inlined_requests=["x"], output_path=f"{tmp_path}/out.parquet")
    assert "pip install 'airflow-provider-gemini-batch[parquet]', or let output_path end in .jsonl" in words
    assert jobs(emulator) == 0


def test_an_output_path_that_is_a_folder_is_refused_before_anything_is_sent(emulator: Emulator, tmp_path: Path) -> None:
    for given in (tmp_path, f"{tmp_path}", f"file://{tmp_path}"):
        said = outcome(emulator, inlined_requests=["x"], output_path=given)
        assert "is a folder: name a file in it, or write / at its end for a dataset" in said
    assert jobs(emulator) == 0
