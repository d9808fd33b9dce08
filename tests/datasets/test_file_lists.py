"""Which files an input path means, on this machine and on a store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.spec import AbstractFileSystem

from airflow_provider_gemini_batch.api.errors import ConfigurationError, EmptyInput, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.runtime.file_lists import addresses_of
from airflow_provider_gemini_batch.runtime.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_folder_named_like_a_pattern_is_not_a_file(is_remote: bool, bucket: Any, tmp_path: Path) -> None:  # noqa: FBT001
    for name in ("run[1]/a.csv", "run1", "run2/b.csv", "run[2].csv"):
        bucket.pipe_file(f"/bucket/{name}", b"text")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    root = "memory://bucket" if is_remote else str(tmp_path)

    def found(given: str) -> list[str]:
        return [path.removeprefix(f"{root}/") for path in addresses_of(Paths(), f"{root}/{given}")]

    assert found("run[1]/") == ["run[1]/a.csv"]
    assert found("run[1]") == (["run1"] if is_remote else ["run[1]/a.csv"])
    assert found("run[2].csv") == ["run[2].csv"]
    assert found("run[2]/*") == ["run2/b.csv"]


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), PermissionError("no"), FileNotFoundError("gone")])
@pytest.mark.parametrize("failing", ["", "/sub"])
def test_a_folder_that_fails_for_a_moment_is_never_taken_for_one_without_files(
    error: OSError, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.csv", "sub/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    real, bad = os.scandir, f"{tmp_path}{failing}"

    def scandir(path: Any) -> Any:
        if str(path) == bad:
            error.filename = bad
            raise error
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        if isinstance(error, FileNotFoundError) and failing:
            assert addresses_of(Paths(), f"{tmp_path}/") == [f"{tmp_path}/a.csv"]
        else:
            with pytest.raises(GeminiBatchError) as caught:
                addresses_of(Paths(), f"{tmp_path}/")
            assert caught.value.retryable is (error.errno == 116)
            assert isinstance(caught.value, EmptyInput) is isinstance(error, FileNotFoundError)


def test_a_folder_of_a_file_system_that_fails_is_not_left_out(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "sub/b.csv", "sub/deep/c.csv", "_hidden/d.csv"):
        bucket.pipe_file(f"/bucket/in/{name}", b"text")
    kind, real = type(bucket), type(bucket).ls

    def ls(self: Any, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith(failing):
            raise ConnectionResetError
        return real(self, path, *args, **options)

    monkeypatch.setattr(kind, "find", AbstractFileSystem.find)  # as SFTP and others have it
    monkeypatch.setattr(kind, "ls", ls)
    failing = "/_hidden"
    assert [path[-5:] for path in addresses_of(Paths(), "memory://bucket/in/")] == ["a.csv", "b.csv", "c.csv"]
    failing = "/deep"
    with pytest.raises(TransportError, match="just now: ConnectionResetError"):
        addresses_of(Paths(), "memory://bucket/in/")
    assert [path[-5:] for path in addresses_of(Paths(), "memory://bucket/in/*/*.csv")] == ["b.csv"]


def test_a_pattern_of_one_folder_lists_no_folder_below_it(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.csv", "archive/b.csv", "x/y/c.csv"):
        bucket.pipe_file(f"/bucket/in/{name}", b"text")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    listed: list[str] = []
    real, scandir = type(bucket).ls, os.scandir

    def noted(path: Any) -> Any:
        listed.append(str(path))
        return path

    monkeypatch.setattr(type(bucket), "ls", lambda self, path, **options: real(self, noted(path), **options))
    monkeypatch.setattr(os, "scandir", lambda path: scandir(noted(path)))
    assert addresses_of(Paths(), "memory://bucket/in/*.csv") == ["memory://bucket/in/a.csv"]
    assert addresses_of(Paths(), f"{tmp_path}/*.csv") == [f"{tmp_path}/a.csv"]
    assert addresses_of(Paths(), f"{tmp_path}/x*/*/c.csv") == [f"{tmp_path}/x/y/c.csv"]
    assert listed == ["/bucket/in", *(f"{tmp_path}{below}" for below in ("", "", "/x", "/x/y"))]


def test_a_link_is_what_it_leads_to_or_is_refused(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for path in (folder / "1.csv", folder / "day" / "2.csv", folder / ".kept" / "3.csv", elsewhere / "4.csv"):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("text")
    for name, target in {
        "latest.csv": "1.csv",
        "day/again.csv": "2.csv",
        "kept.csv": ".kept/3.csv",
        "other.csv": "../elsewhere/4.csv",
        "today": "day",
        "self": ".",
        "lost+found": "../nowhere",
        ".nowhere": "nowhere",
    }.items():
        (folder / name).symlink_to(target)

    def found(given: str) -> list[str]:
        return [path.removeprefix(f"{folder}/") for path in addresses_of(Paths(), f"{folder}/{given}")]

    # What lies in the folder is read once, under its own name unless the pattern means another.
    assert found("") == ["1.csv", "day/2.csv", "kept.csv", "other.csv"]
    assert found("la*.csv") == ["latest.csv"]
    assert found("today/*") == ["today/2.csv"]
    (folder / "way").symlink_to("../elsewhere")
    with pytest.raises(ConfigurationError, match=r"in/way is a link to a folder, .* give a list of folders"):
        found("")
    assert found("[d]*/*") == ["day/2.csv"]
    assert found("way/") == ["way/4.csv"]
    (folder / "way").unlink()
    (folder / "gone.csv").symlink_to("../elsewhere/5.csv")
    with pytest.raises(ConfigurationError, match=r"in/gone\.csv is a broken link"):
        found("")
    assert found("1*") == ["1.csv"]


@pytest.mark.parametrize("place", ["disk", "store"])
@pytest.mark.parametrize("log", ["_delta_log/00.json", ".hoodie/hoodie.properties"])
def test_the_folder_of_a_table_is_refused_since_files_of_its_earlier_versions_lie_there(
    log: str, place: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("t/a.parquet", "t/day=1/b.parquet", f"t/{log}", "other/c.parquet"):
        bucket.pipe_file(f"/bucket/{name}", b"text")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    root = "memory://bucket" if place == "store" else str(tmp_path)
    for _ in range(2):
        for given in ("t/", "", "t/*.parquet", "**/*.parquet", "t/*/*.parquet"):
            with pytest.raises(
                ConfigurationError, match=r"/t/ is a (Delta|Hudi) table, .*: give a list of its current files"
            ):
                addresses_of(Paths(), f"{root}/{given}")
        assert addresses_of(Paths(), f"{root}/other/") == [f"{root}/other/c.parquet"]
        assert addresses_of(Paths(), f"{root}/o*/*.parquet") == [f"{root}/other/c.parquet"]
        assert addresses_of(Paths(), [f"{root}/t/a.parquet"]) == [f"{root}/t/a.parquet"]
        monkeypatch.setattr(type(bucket), "find", AbstractFileSystem.find)  # as SFTP and others have it


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_folder_of_hive_may_begin_with_an_underscore(is_remote: bool, bucket: Any, tmp_path: Path) -> None:  # noqa: FBT001
    for name in ("_day=1/a.csv", "_day=1/_b.csv", "_tmp/c.csv", "x/_k=2/d.csv", "._k=3/e.csv", "_f=4.csv"):
        bucket.pipe_file(f"/bucket/{name}", b"text")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    root = "memory://bucket" if is_remote else str(tmp_path)
    for given in ("", "**/*.csv"):
        assert addresses_of(Paths(), f"{root}/{given}") == [f"{root}/_day=1/a.csv", f"{root}/x/_k=2/d.csv"]
