"""An output is there whole or not at all, and its manifest says whose it is."""

from __future__ import annotations

import gc
import io
import json
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, Usage
from airflow_provider_gemini_batch.rows.delivery import (
    Manifest,
    Origin,
    check_target,
    deliver,
    read_manifest,
    target_of,
)
from airflow_provider_gemini_batch.rows.files import LocalFiles, OpenedFiles
from airflow_provider_gemini_batch.rows.landing import LandingSpec
from airflow_provider_gemini_batch.rows.result_rows import PARTS
from airflow_provider_gemini_batch.rows.writers import check_output_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_gemini_batch.rows.files import Files


class Bucket:
    """An object store in a dict, with fsspec's habit of uploading whatever is closed."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def open(self, path: str, mode: str) -> BinaryIO:
        if mode == "rb":
            if path not in self.objects:
                raise FileNotFoundError(path)
            return io.BytesIO(self.objects[path])
        return _Object(self, path)

    def files(self) -> OpenedFiles:
        return OpenedFiles(self.open, self.objects.__contains__, self._remove)

    def _remove(self, path: str) -> None:
        if self.objects.pop(path, None) is None:
            raise FileNotFoundError(path)


class _Object(io.BytesIO):
    def __init__(self, bucket: Bucket, path: str) -> None:
        super().__init__()
        self.bucket, self.path, self.given_up = bucket, path, False

    def discard(self) -> None:
        self.given_up = True

    def close(self) -> None:
        if not self.closed and not self.given_up:
            self.bucket.objects[self.path] = self.getvalue()
        super().close()


def answers(*texts: str) -> list[BatchResult]:
    return [
        BatchResult(
            f"r{row}-k{row}",
            {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]},
            None,
            row,
        )
        for row, text in enumerate(texts)
    ]


def put(output: str, folder: Path, files: Files | None = None, **given: Any) -> Manifest:
    options: dict[str, Any] = {
        "rows": 2,
        "found": answers("a", "b"),
        "task": "t1",
        "run": "run1",
        "kind": JobKind.GENERATION,
    }
    options |= given
    landing = LandingSpec(
        kind=options["kind"],
        rows=options["rows"],
        carried=options.get("carried"),
        keep_response=options.get("keep", False),
    )
    return deliver(
        target_of(output),
        files or LocalFiles(),
        [options["found"].__iter__],
        landing,
        Origin(
            task=options["task"],
            run=options["run"],
            job_names=("batches/1",),
            fingerprint="abc",
            carried_types=options.get("types") or {},
        ),
        workdir=folder,
    )[1]


def test_a_delivered_output_has_its_rows_and_a_manifest_that_can_be_read_back(tmp_path: Path) -> None:
    output = str(tmp_path / "deep" / "out.jsonl")
    manifest = put(output, tmp_path)
    with LocalFiles().read(output) as handle:
        lines = [json.loads(line) for line in handle]
    assert [line["key"] for line in lines] == ["k0", "k1"]
    assert read_manifest(LocalFiles(), target_of(output)) == manifest
    written = json.loads((tmp_path / "deep" / "_out.jsonl.manifest.json").read_text())
    assert written["whole"] is True
    assert list(written) == [
        "version", "whole", "task", "run", "job_names", "fingerprint", "carried_types", "content_hash",
        "writer", "counts", "usage", "output", "rows", "aside", "part", "media",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["_out.jsonl.manifest.json", "out.jsonl"]
    assert stat.S_IMODE((tmp_path / "deep" / "out.jsonl").stat().st_mode) & stat.S_IRUSR


def test_an_object_store_gets_the_same(tmp_path: Path) -> None:
    bucket = Bucket()
    put("gs://b/out.jsonl", tmp_path, bucket.files())
    assert len(bucket.objects["gs://b/out.jsonl"].splitlines()) == 2
    assert read_manifest(bucket.files(), target_of("gs://b/out.jsonl")) is not None


def _broken() -> Iterator[BatchResult]:
    yield from answers("a")
    raise ConnectionError


class _Breaks(list[BatchResult]):
    def __iter__(self) -> Iterator[BatchResult]:
        return _broken()


def test_a_broken_landing_leaves_the_old_output_and_its_manifest_alone(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    before = put(output, tmp_path)
    old = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(ConnectionError):
        put(output, tmp_path, found=_Breaks())
    assert (tmp_path / "out.jsonl").read_bytes() == old
    assert read_manifest(LocalFiles(), target_of(output)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_out.jsonl.manifest.json", "out.jsonl"]


def test_a_broken_landing_of_parquet_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with pytest.raises(ConnectionError):
        put(str(tmp_path / "out.parquet"), tmp_path, found=_Breaks())
    gc.collect()
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_a_broken_landing_makes_no_object(tmp_path: Path) -> None:
    bucket = Bucket()
    with pytest.raises(ConnectionError):
        put("gs://b/out.jsonl", tmp_path, bucket.files(), found=_Breaks())
    assert bucket.objects == {}


def test_another_task_of_the_same_run_is_refused_and_another_run_is_not(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    put(output, tmp_path)
    with pytest.raises(ConfigurationError, match="map_index"):
        put(output, tmp_path, task="t2")
    with pytest.raises(ConfigurationError, match="map_index"):
        check_target(LocalFiles(), target_of(output), Origin(task="t2", run="run1"))
    assert put(output, tmp_path, task="t2", run="run2").origin.task == "t2"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
@pytest.mark.parametrize("changed", [{"whole": False}, {"version": 9}, {"counts": {"total": "x"}}, {"usage": [1]}])
def test_a_manifest_that_does_not_say_whole_does_not_count(text: str, changed: dict[str, Any], tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    put(output, tmp_path)
    path = tmp_path / "_out.jsonl.manifest.json"
    members = json.loads(path.read_text())
    for written in (text, json.dumps({**members, **changed})):
        path.write_text(written)
        assert read_manifest(LocalFiles(), target_of(output)) is None


def test_a_manifest_is_read_up_to_a_limit(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    put(output, tmp_path)
    manifest = tmp_path / "_out.jsonl.manifest.json"
    manifest.write_bytes(b" " * (17 << 20) + manifest.read_bytes())
    assert read_manifest(LocalFiles(), target_of(output)) is None


def test_strays_are_put_beside_the_output_and_go_with_the_next_one(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    work = tmp_path / "work"
    work.mkdir()
    manifest = put(output, work, rows=1)
    assert manifest.aside == target_of(output).aside
    assert manifest.counts["extra"] == 1
    with LocalFiles().read(target_of(output).aside) as handle:
        assert json.loads(handle.read())["key"] == "r1-k1"
    assert put(output, work).aside is None
    assert not LocalFiles().exists(target_of(output).aside)


def test_parquet_has_types(tmp_path: Path) -> None:
    output = str(tmp_path / "out.parquet")
    carried = [
        b'{"id":1,"tags":["a"],"score":1}\n',
        b'{"id":null,"tags":{},"score":0.5}\n',
        b'{"id":3,"tags":null,"score":2}\n',
    ]
    put(
        output,
        tmp_path,
        rows=3,
        carried=lambda: iter(carried),
        types={"id": "int", "tags": "json", "score": "float"},
        keep=True,
    )
    table = parquet.read_table(output)
    assert table.column_names == [
        "key",
        "status",
        "text",
        "finish_reason",
        "usage",
        "error",
        *PARTS,
        "id",
        "tags",
        "score",
        "response",
    ]
    assert table.column("status").to_pylist() == ["ok", "ok", "missing"]
    assert table.column("id").to_pylist() == [1, None, 3]
    assert table.column("tags").to_pylist() == ['["a"]', "{}", None]
    assert table.column("score").to_pylist() == [1.0, 0.5, 2.0]
    assert json.loads(table.column("response").to_pylist()[0])["candidates"]


def test_parquet_keeps_vectors_as_the_service_makes_them(tmp_path: Path) -> None:
    output = str(tmp_path / "out.parquet")
    found = [BatchResult(f"r{row}", {"embedding": {"values": [0.1, -0.25]}}, None, row) for row in range(2)]
    put(output, tmp_path, found=found, kind=JobKind.EMBEDDINGS, rows=3)
    column = parquet.read_table(output).column("embedding")
    assert column.type == pa.list_(pa.float32())
    assert column.to_pylist()[1:] == [pytest.approx([0.1, -0.25]), None]


@pytest.mark.parametrize(
    "path", ["", "out.csv", "out.json", "out.jsonl.gz", "out.txt", "out.avro", "out.XLSX", "out.zip"]
)
def test_a_path_that_promises_another_format_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\.jsonl"):
        check_output_path(path)


def test_a_manifest_says_what_was_used(tmp_path: Path) -> None:
    manifest = put(str(tmp_path / "out.jsonl"), tmp_path)
    assert manifest.usage == Usage(uncounted_answers=2)
    assert manifest.counts == {"total": 2, "succeeded": 2, "failed": 0}


# Written by version 0.1.0.
OLD_MANIFEST = """{
  "version": 1,
  "whole": true,
  "task": "t1",
  "run": "run1",
  "job_names": [
    "batches/1"
  ],
  "counts": {
    "total": 2,
    "succeeded": 2,
    "failed": 0
  },
  "usage": {
    "input_tokens": 5,
    "output_tokens": 2,
    "thinking_tokens": 0,
    "cached_tokens": 0
  },
  "fingerprint": "abc",
  "output": "out.jsonl",
  "rows": 2,
  "aside": null
}
"""


def test_a_manifest_of_version_0_1_0_is_read_and_goes_with_the_next_output(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl.manifest.json").write_text(OLD_MANIFEST, encoding="utf-8")
    assert read_manifest(LocalFiles(), target_of(output)) == Manifest(
        origin=Origin(task="t1", run="run1", job_names=("batches/1",), fingerprint="abc"),
        counts={"total": 2, "succeeded": 2, "failed": 0},
        usage=Usage(input_tokens=5, output_tokens=2),
        output="out.jsonl",
        rows=2,
    )
    put(output, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_out.jsonl.manifest.json", "out.jsonl"]
