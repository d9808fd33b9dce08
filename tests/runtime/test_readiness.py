"""What is needed after the wait is tried before a job is paid for: libraries, file systems, places to write to."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from task_context import StateStore, task_context

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.file_lists import reads
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.runtime.readiness import check_readiness, is_installed

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


def test_an_open_stream_is_refused_although_it_leads_to_a_regular_file(emulator: Emulator, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        task = GeminiCreateBatchJobOperator(
            task_id="t",
            model="gemini-2.5-flash",
            inlined_requests=["x"],
            output_path=f"/dev/fd/{log.fileno()}",
        )
        with pytest.raises(AirflowFailException, match="is a device or a pipe"), task.task_run(task_context()) as run:
            run.begin()
    assert not emulator.control.books()["requests"]


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("{tmp}/d/in.jsonl", "{tmp}/d/in.jsonl"),
        ("file://{tmp}/d/in.jsonl", "{tmp}/d/in.jsonl"),
        ("{tmp}/d/in.jsonl", "file://localhost{tmp}/d/in.jsonl"),
        ("~/d/in.jsonl", "{tmp}/d/in.jsonl"),
        ("{tmp}/d/in.jsonl", "file://~/d/in.jsonl"),
        ("{tmp}/d/in.jsonl", "{tmp}/d/../d//./in.jsonl"),
        ("{tmp}/d/in.jsonl", "{tmp}/link/in.jsonl"),
        ("{tmp}/alias.jsonl", "{tmp}/d/in.jsonl"),
        (["{tmp}/other.jsonl", "file://{tmp}/d/in.jsonl"], "{tmp}/d/in.jsonl"),
        ("{tmp}/d/in.parquet#row_groups=0-1", "{tmp}/d/in.parquet"),
        ("{tmp}/d", "{tmp}/d/out.jsonl"),
        ("{tmp}/d/", "{tmp}/link/deep/out.jsonl"),
        ("{tmp}/d/", "{tmp}/d/"),
        ("{tmp}/d/*.jsonl", "file://{tmp}/d/out.jsonl"),
        ("~/**/in*.jsonl", "{tmp}/d/deep/in-2.jsonl"),
        (["{tmp}/other.jsonl", "{tmp}/d/*"], "{tmp}/d/out.jsonl"),
    ],
)
def test_results_do_not_replace_their_rows_or_become_the_rows_of_the_next_run(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, output: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    (tmp_path / "alias.jsonl").symlink_to(tmp_path / "d" / "in.jsonl")
    for name in ("d/in.jsonl", "other.jsonl"):
        (tmp_path / name).write_text(json.dumps(ROW) + "\n")
    texts = [one.format(tmp=tmp_path) for one in ([given] if isinstance(given, str) else given)]
    said = outcome(
        emulator,
        input_path=texts[0] if isinstance(given, str) else texts,
        output_path=output.format(tmp=tmp_path),
    )
    assert said.startswith("output_path: input_path also reads it (")
    assert not emulator.control.books()["requests"]


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("{tmp}/d/in.jsonl", "{tmp}/d/out.jsonl"),
        ("{tmp}/d/in*.jsonl", "{tmp}/d/out.jsonl"),
        ("{tmp}/*/in.jsonl", "{tmp}/d/deep/in.jsonl"),
        ("{tmp}/d/", "{tmp}/d2/out.jsonl"),
        ("{tmp}/d/", "{tmp}/d/_results/out.jsonl"),
        (["{tmp}/d/in.jsonl"], "{tmp}/d/out.jsonl"),
        ("{tmp}/d/in.jsonl", "{tmp}/alias.jsonl"),
    ],
)
def test_results_beside_their_rows_are_fine_in_every_run(
    emulator: Emulator, tmp_path: Path, given: Any, output: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "alias.jsonl").symlink_to(tmp_path / "d" / "in.jsonl")
    (tmp_path / "d" / "in.jsonl").write_text(json.dumps(ROW) + "\n")
    texts = [one.format(tmp=tmp_path) for one in ([given] if isinstance(given, str) else given)]
    target = output.format(tmp=tmp_path)
    for _ in range(2):
        said = outcome(emulator, input_path=texts[0] if isinstance(given, str) else texts, output_path=target)
        assert said == ""
    assert json.loads((tmp_path / "d" / "in.jsonl").read_text()) == ROW


@pytest.mark.parametrize(
    ("given", "path", "conn_id", "is_read"),
    [
        ("s3://bucket/in.jsonl", "s3://one@bucket/in.jsonl", None, True),
        ("s3://one@bucket/in.jsonl", "s3://bucket/in.jsonl", "one", True),
        ("s3://bucket/in.jsonl", "s3://bucket/in.jsonl", "one", True),
        ("s3://one@bucket/in.jsonl", "s3://bucket/in.jsonl", "two", False),  # which may lead to two stores
        ("gcs://bucket/in.jsonl", "gs://bucket/in.jsonl", None, True),
        ("s3://bucket/d/", "s3a://bucket/d/deep/out.jsonl", None, True),
        ("s3://bucket/d/", "s3://bucket/d2/out.jsonl", None, False),
        ("s3://bucket/d/", "gs://bucket/d/out.jsonl", None, False),
        ("s3://bucket/d", "s3://bucket/d/out.jsonl", None, False),  # an object
        ("memory://bucket/in[1].jsonl", "memory://bucket/in[1].jsonl", None, True),  # whether or not it is there yet
        ("memory://bucket/in[1].jsonl", "memory://bucket/in1.jsonl", None, True),
        ("/d/in\0.jsonl", "/d/out.jsonl", None, False),
        ("/d\0/*.jsonl", "/d/out.jsonl", None, False),
        ("/d/*[)(].jsonl", "/d/out(.jsonl", None, True),
        ("/d/[z-a]*.jsonl", "/d/out.jsonl", None, False),
    ],
)
def test_an_address_is_compared_in_all_its_spellings(
    given: str, path: str, conn_id: str | None, *, is_read: bool
) -> None:
    assert reads(Paths(), given, path, conn_id=conn_id) == (given if is_read else None)


@pytest.mark.parametrize(
    "name", ["in\0.jsonl", "\0/*.jsonl", "\ud800.jsonl", "i" * 300, f"{'i' * 300}/*", "[z-a].csv", "[)]/"]
)
def test_an_input_that_cannot_be_is_refused_in_words_with_and_without_an_output(
    emulator: Emulator, tmp_path: Path, name: str
) -> None:
    for output in (None, f"{tmp_path}/out.jsonl"):
        said = outcome(emulator, input_path=f"{tmp_path}/{name}", output_path=output)
        assert said.encode().startswith((b"cannot read ", b"input_path: "))
        assert "just now" not in said  # no retry will help


@pytest.mark.parametrize(
    ("given", "output", "is_read"),
    [
        (["gs://bucket/other.jsonl", "gs://bucket/in.jsonl"], "gs://bucket/in.jsonl", True),
        ("gs://bucket/in.jsonl", "gcs://one@bucket/in.jsonl", True),
        ("gs://bucket/d/*.jsonl", "gs://bucket/d/deep/out.jsonl", True),  # a * of Vertex AI also matches slashes
        ("gs://bucket/d/*", "gs://bucket/d/_out.jsonl", True),
        ("gs://bucket/d/*.jsonl", "gs://bucket/d/out.parquet", False),
        ("gs://bucket/d/[ab].jsonl", "gs://bucket/d/a.jsonl", False),  # an object
    ],
)
def test_rows_in_cloud_storage_are_not_replaced_by_their_results(given: Any, output: str, *, is_read: bool) -> None:
    words = "output_path: gcs_uri also reads it" if is_read else "output_path: nothing can be written"
    with pytest.raises(GeminiBatchError, match=words):
        check_in_cloud_storage(gcs_uri=given, output_path=output)


@pytest.mark.parametrize(
    ("given", "folder", "is_read"),
    [
        ({"gcs_uri": "gs://bucket/d/*"}, {"media_path": "gs://bucket/d/media"}, True),
        ({"gcs_uri": ["gs://bucket/d/*.jsonl"]}, {"media_path": "gs://bucket/d/media"}, False),
        ({"gcs_uri": "gs://bucket/d/*"}, {"staging_path": "gs://bucket/d"}, True),  # what is carried is kept there
        ({"input_path": "gs://bucket/d/"}, {"staging_path": "gs://bucket/d/stage/"}, True),
        ({"input_path": "gs://bucket/d/*/*.jsonl"}, {"staging_path": "gcs://one@bucket/d"}, False),  # not for Vertex AI
        ({"input_path": "gs://bucket/d/*/*.jsonl"}, {"staging_path": "gs://bucket/d"}, True),
        ({"input_path": "gs://bucket/d/*.jsonl"}, {"staging_path": "gs://bucket/d"}, False),
        ({"input_path": "gs://bucket/d/*/output/**"}, {"staging_path": "gs://bucket/d"}, True),
        ({"input_path": "gs://bucket/**/*.png"}, {"staging_path": "gs://bucket/d"}, True),
        ({"input_path": ["gs://bucket/a.jsonl", "gs://bucket/d/"]}, {"destination": "gs://bucket/d"}, True),
        ({"input_path": "gs://bucket/d/*/*.jsonl"}, {"destination": "gs://bucket/d"}, True),
        ({"input_path": "gs://bucket/d/a.jsonl"}, {"destination": "gs://bucket/d"}, False),
        ({"input_path": "gs://bucket/d/"}, {"destination": "bq://project.d.table"}, False),
    ],
)
def test_a_folder_whose_files_a_retry_would_take_for_rows_is_refused(
    given: dict[str, Any], folder: dict[str, Any], *, is_read: bool
) -> None:
    ((argument, _),) = folder.items()
    ((source, _),) = given.items()
    words = f"^{argument}: {source} also reads what" if is_read else "^(staging|media)_path: nothing can be written|^$"
    said = ""
    try:
        check_in_cloud_storage(**given, **folder)
    except GeminiBatchError as error:
        said = str(error)
    assert re.match(words, said), said


def check_in_cloud_storage(**given: Any) -> None:
    names = ("input_path", "gcs_uri", "output_path", "output_conn_id", "media_path", "staging_path", "destination")
    arguments: Any = SimpleNamespace(wait_for_completion=True, **{**dict.fromkeys(names), **given})
    target: Any = SimpleNamespace(landing_path=arguments.output_path)
    check_readiness(arguments, target, Paths(_Closed), arguments.staging_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "folder", "is_read"),
    [
        ("{tmp}/d/", {"staging_path": "{tmp}/d"}, True),
        ("file://{tmp}/d/", {"media_path": "{tmp}/d/media/"}, True),
        ("{tmp}/d/*", {"staging_path": "{tmp}/d/"}, True),
        ("{tmp}/d/*.jsonl", {"staging_path": "{tmp}/d/"}, False),
        ("{tmp}/d/*.jsonl", {"media_path": "{tmp}/d/"}, False),
        ("{tmp}/d/", {"staging_path": "{tmp}/d/_stage", "media_path": "{tmp}/d/.media"}, False),
        ("{tmp}/d/in.jsonl", {"staging_path": "{tmp}/d", "media_path": "{tmp}/d"}, False),
    ],
)
def test_an_input_folder_takes_no_files_of_the_task(
    emulator: Emulator, tmp_path: Path, given: str, folder: dict[str, str], *, is_read: bool
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in.jsonl").write_text(json.dumps(ROW) + "\n")
    folders = {name: value.format(tmp=tmp_path) for name, value in folder.items()}
    said = outcome(emulator, input_path=given.format(tmp=tmp_path), output_path=f"{tmp_path}/out.jsonl", **folders)
    assert ("also reads what is written to" in said) is is_read, said
    assert bool(jobs(emulator)) is not is_read


class _Closed:
    """A store that nobody may write to."""

    def write_whole(self, path: str) -> Any:
        raise PermissionError(path)

    def is_object(self, address: str) -> bool:
        return not address


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


@pytest.mark.parametrize("name", ["out.parquet", "out.pq", "OUT.PARQUET"])
def test_parquet_without_its_library_is_refused_before_a_job_is_made(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = outcome(emulator, inlined_requests=["x"], output_path=f"{tmp_path}/{name}")
    assert "pip install 'airflow-provider-gemini-batch[parquet]', or let output_path end in .jsonl" in words
    assert jobs(emulator) == 0


def test_an_output_path_that_is_a_folder_is_refused_before_anything_is_sent(emulator: Emulator, tmp_path: Path) -> None:
    for given in (tmp_path, f"{tmp_path}", f"file://{tmp_path}"):
        said = outcome(emulator, inlined_requests=["x"], output_path=given)
        assert "is a folder: name a file in it, or write / at its end for a dataset" in said
    assert jobs(emulator) == 0


def test_a_connection_that_shows_a_secret_creates_no_job_but_those_that_run_are_collected(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = GeminiCreateBatchJobOperator(
        task_id="t",
        model="gemini-2.5-flash",
        gemini_conn_id="vertex",
        bigquery_uri="bq://p.d.t",
        destination="bq://p.d.answers",
    )
    safe = emulator.connection("vertex")
    extra = json.loads(safe)["extra"]
    shown = {**extra, "keyfile_dict": "", "credential_config_file": json.dumps(extra["keyfile_dict"])}
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps({**json.loads(safe), "extra": shown}))
    with pytest.raises(AirflowFailException, match="holds a secret in JSON"), task.task_run(task_context()) as run:
        run.begin()
    with pytest.raises(ConfigurationError, match="holds a secret in JSON"):
        GeminiBatchHook("vertex").create("gemini-2.5-flash", bigquery_uri="bq://p.d.t", destination="bq://p.d.answers")
    with pytest.raises(ConfigurationError, match="holds a secret in JSON"):
        GeminiBatchHook("vertex").create_embeddings("gemini-embedding-001", bigquery_uri="bq://p.d.t")
    assert "holds a secret in JSON" in GeminiBatchHook("vertex").test_connection()[1]
    assert not emulator.control.books()["requests"]

    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", safe)
    with pytest.raises(TaskDeferred) as deferred, task.task_run(task_context()) as run:
        run.begin()
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps({**json.loads(safe), "extra": shown}))
    caplog.clear()
    with pytest.raises(TaskDeferred), task.task_run(task_context(try_number=2, max_tries=2)) as run:
        run.begin()
    assert "holds a secret in JSON" in caplog.text
    emulator.control.advance(600)
    with task.task_run(task_context()) as run:
        assert run.resume(None, (deferred.value.kwargs or {})["memo"])["state"] == "SUCCEEDED"
    assert jobs(emulator) == 1


@pytest.mark.parametrize("wall", ["rows.jsonl", ""], ids=["a folder in its place", "a file in the folder's place"])
def test_an_output_that_cannot_be_written_after_the_wait_fails_the_try_and_not_the_task(
    emulator: Emulator, tmp_path: Path, wall: str
) -> None:
    folder = tmp_path / "out"
    task = GeminiCreateBatchJobOperator(
        task_id="t", model="gemini-2.5-flash", inlined_requests=["x"], output_path=f"{folder}/rows.jsonl"
    )
    store = StateStore()
    with pytest.raises(TaskDeferred) as deferred, task.task_run(task_context(store, max_tries=3)) as run:
        run.begin()
    emulator.control.advance(600)
    if wall:
        (folder / wall).mkdir(parents=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("in the way")

    def lands(try_number: int, memo: str | None = None) -> None:
        with task.task_run(task_context(store, max_tries=3, try_number=try_number)) as run:
            run.resume(None, memo) if memo is not None else run.begin()

    for try_number, memo in ((1, (deferred.value.kwargs or {})["memo"]), (2, None)):
        with pytest.raises(Exception, match=r".") as failed:
            lands(try_number, memo)
        assert not isinstance(failed.value, AirflowFailException)
    shutil.rmtree(folder) if wall else folder.unlink()
    lands(3)
    assert json.loads((folder / "rows.jsonl").read_text())["status"] == "ok"
    assert jobs(emulator) == 1


def test_a_library_is_missing_too_where_nothing_of_its_package_is_installed() -> None:
    assert is_installed("json.decoder")
    assert not is_installed("json.no_such_module")
    assert not is_installed("no_such_package.module")
