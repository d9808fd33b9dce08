"""Datasets on other file systems than this machine's."""

from __future__ import annotations

from typing import Any

import pytest
from datasets.board import Board

from airflow_provider_gemini_batch.rows import delivery


def test_a_file_that_grows_while_it_is_written_gets_its_name_when_it_is_whole(
    board: Board, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SFTP and the like, where folders must be there as well."""

    def opened(path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode and not bucket.isdir(path.rpartition("/")[0]):
            raise FileNotFoundError(path)
        return real(path, mode, **options)

    bucket.pipe_file("/bucket/in/a.csv", b"id,text\na,One.\n")
    real = bucket._open
    monkeypatch.setattr(bucket, "_open", opened)
    remote: Any = Board(board.service, "memory://bucket/in", "memory://bucket/out", carry=["id"])  # type: ignore[arg-type]
    remote.run_whole()
    before = {name: bucket.cat_file(name) for name in bucket.find("/bucket/out")}
    bucket.pipe_file("/bucket/in/a.csv", b"id,text\na,Two.\n")
    again = remote.again("again")
    parts = again.plan()
    again.run_part(0, parts[0])
    again.end_all()
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "_begin_manifest", lambda *_: (_ for _ in ()).throw(ConnectionError))
        with pytest.raises(ConnectionError):
            again.run_part(0, parts[0])
    del before["/bucket/out/_SUCCESS"]
    kept = {name: bucket.cat_file(name) for name in bucket.find("/bucket/out") if ".record" not in name}
    assert kept == before
    again.run_part(0, parts[0])
    again.commit(parts)
    assert {name.rpartition("/")[2] for name in bucket.find("/bucket/out")} == {
        "_SUCCESS",
        "dataset.json",
        f"part-{parts[0]['part_key']}.json",
        f"part-{parts[0]['part_key']}.parquet",
    }
