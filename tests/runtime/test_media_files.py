"""Which files a row may name: regular ones below media_root, and nothing else that the worker could read."""

from __future__ import annotations

import io
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from task_context import task_context
from upath import UPath

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.media_files import MediaFiles, default_roots

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator


def nobody(address: str) -> Any:
    raise AssertionError(address)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a picture, beside a key that no row may reach."""
    (tmp_path / "key.json").write_text("secret")
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    (folder / "red.png").write_bytes(b"red")
    (folder / "deep" / "blue.png").write_bytes(b"blue")
    (folder / "inside.png").symlink_to(folder / "deep" / "blue.png")
    (folder / "outside.png").symlink_to(tmp_path / "key.json")
    (folder / "door").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize(
    ("named", "content"),
    [
        ("red.png", b"red"),
        ("{root}/red.png", b"red"),
        ("file://{root}/red.png", b"red"),
        ("deep/../red.png", b"red"),
        ("inside.png", b"blue"),
        ("{root}/deep/blue.png", b"blue"),
    ],
)
def test_a_file_below_a_root_is_read_by_whole_or_relative_path(root: Path, named: str, content: bytes) -> None:
    files = MediaFiles([str(root)], nobody)
    with files.open(files.address(named.format(root=root))) as handle:
        assert handle.read() == content


@pytest.mark.parametrize("named", ["ring.png", "ring.png/a", "a" * 300, "a/" * 3000, "\ud800.png", "gs://b/\ud800"])
def test_a_name_that_no_file_can_have_is_refused_in_our_words(root: Path, named: str) -> None:
    (root / "ring.png").symlink_to(root / "ring.png")
    files = MediaFiles([str(root), "gs://b/"], nobody)
    # Python 3.13 takes a ring of links for a file that is not there.
    words = "media_field: (no file can have such a name|the file does not exist)"
    with pytest.raises(InputError, match=words if named.startswith("ring") else "no file can have") as refused:
        files.open(files.address(named))
    assert named not in str(refused.value)


def test_a_folder_that_becomes_a_link_after_its_name_was_looked_up_leads_nowhere(root: Path) -> None:
    files = MediaFiles([str(root)], nobody)
    address = files.address("deep/blue.png")
    (root / "deep").rename(root / "moved")
    (root.parent / "blue.png").write_text("secret")
    (root / "deep").symlink_to(root.parent)
    with pytest.raises(InputError, match="not below media_root"):
        files.open(address)


@pytest.mark.parametrize(
    "named",
    [
        "../key.json",
        "{root}/../key.json",
        "{root}/../pictures-of-others/a.png",
        "outside.png",
        "door/key.json",
        "deep/../../key.json",
        "/etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        "~/.ssh/id_rsa",
        "gs://bucket/key.json",
        "s3://bucket/key.json",
        "https://example.com/a.png",
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "local:///etc/passwd",
        "red.png\0.png",
    ],
)
def test_nothing_outside_the_roots_is_reached_and_the_name_is_not_repeated(root: Path, named: str) -> None:
    files = MediaFiles([str(root)], nobody)
    with pytest.raises(InputError, match="media_field") as refused:
        files.address(named.format(root=root))
    assert "key.json" not in str(refused.value)


@pytest.mark.parametrize(
    ("roots", "named", "address"),
    [
        (["gs://b/pics"], "gs://b/pics/a.png", "gs://b/pics/a.png"),
        (["gs://b/pics/"], "a.png", "gs://b/pics/a.png"),
        (["s3://conn@b/pics"], "s3://b/pics/x/a.png", "s3://conn@b/pics/x/a.png"),
        (["s3://conn@b/pics"], "s3://conn@b/pics/x/a.png", "s3://conn@b/pics/x/a.png"),
        (["s3://conn@b/pics"], "a.png", "s3://conn@b/pics/a.png"),
        (["gs://b"], "gs://b/x/a.png", "gs://b/x/a.png"),
        (["/nowhere", "gs://b/pics"], "gs://b/pics/a.png", "gs://b/pics/a.png"),
    ],
)
def test_an_object_is_read_over_the_scheme_and_connection_of_its_root(
    roots: list[str], named: str, address: str
) -> None:
    assert MediaFiles(roots, nobody).address(named) == address


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("gs://b/pics-of-others/a.png", "not below media_root"),
        ("gs://b/pics/../secret/a.png", "not below media_root"),
        ("gs://b/pics/%2e%2e/secret/a.png", "not below media_root"),
        ("gs://b/pics/x%2f..%2fa.png", "not below media_root"),
        ("gs://b/pics//a.png", "not below media_root"),
        ("gs://other/pics/a.png", "not below media_root"),
        ("s3://b/pics/a.png", "not below media_root"),
        ("gs://conn@b/pics/a.png", "may not name a connection other than that of media_root"),
        ("gs://b/pics", "not below media_root"),
    ],
)
def test_an_object_beside_its_root_or_with_a_connection_of_its_own_is_refused(named: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        MediaFiles(["gs://b/pics"], nobody).address(named)


@pytest.mark.parametrize("from_function", [False, True])
def test_files_are_named_by_path_objects_of_any_library(
    root: Path,
    from_function: bool,  # noqa: FBT001
    emulator: Emulator,
) -> None:
    name = f"{root}/red.png"
    with os.scandir(root) as entries:
        entry = next(one for one in entries if one.name == "red.png")
    paths = [name, root / "red.png", PurePosixPath(name), UPath(name), ObjectStoragePath(f"file://{name}"), entry]
    rows = [{"of": one, "text": "What is it?"} for one in paths] + [{"of": paths, "text": "And these?"}]
    task = GeminiCreateBatchJobOperator(
        task_id="t",
        model="gemini-2.5-flash",
        inlined_requests=(lambda: rows) if from_function else rows,
        prompt_template="{text} {of}",
        media_field="of",
        media_root=str(root),
        output_path=f"{root}/out.jsonl",
    )
    with pytest.raises(TaskDeferred), task.task_run(task_context()) as run:
        run.begin()
    (job,) = emulator.control.books()["jobs"]
    assert job["rows"] == len(rows)


def test_only_regular_files_of_a_bounded_size_are_read_within_a_bounded_time(root: Path) -> None:
    files = MediaFiles([str(root)], nobody)
    with pytest.raises(InputError, match="not a regular file"):
        files.open(files.address("pipe.png"))
    with pytest.raises(InputError, match="not a regular file"):
        files.open(str(root / "deep"))
    with pytest.raises(InputError, match="the file does not exist"):
        files.address("green.png")
    small = MediaFiles([str(root)], nobody, most_bytes=2)
    with pytest.raises(InputError, match="larger than 2 bytes"):
        small.open(small.address("red.png"))
    endless = MediaFiles(["gs://b"], lambda _: io.BytesIO(b"x" * 99), most_bytes=9)
    with pytest.raises(InputError, match="larger than 9 bytes"), endless.open("gs://b/a.png") as handle:
        handle.read()
    ticks = iter([0.0, 1.0, 7.0])
    slow = MediaFiles([str(root)], nobody, most_seconds=5.0, now=lambda: next(ticks))
    with pytest.raises(InputError, match="longer than 5 seconds"), slow.open(slow.address("red.png")) as handle:
        handle.read()


@pytest.mark.parametrize(
    ("path", "roots"),
    [
        ("/data/in.csv", ("/data",)),
        ("s3://conn@b/x/in.csv", ("s3://conn@b/x",)),
        ("/data/*/in.csv", ("/data",)),
        (["/a/1.csv", "/a/2.csv", "/b/1.csv"], ("/a", "/b")),
        ("gs://b/in.csv", ("gs://b",)),
        ("in.csv", ()),
        (None, ()),
    ],
)
def test_the_folder_of_the_input_is_the_root_when_none_is_given(path: Any, roots: tuple[str, ...]) -> None:
    assert default_roots(path) == roots


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "{}/*.csv"])
def test_a_folder_of_rows_is_the_root_however_it_is_written(form: str, tmp_path: Path) -> None:
    (root,) = default_roots(form.format(tmp_path))
    assert root.removeprefix("file://") == str(tmp_path)


def test_without_a_root_no_row_names_a_file() -> None:
    with pytest.raises(ConfigurationError, match="media_field: give media_root"):
        MediaFiles([], nobody)


def test_a_row_that_names_a_key_of_the_worker_sends_nothing(root: Path, emulator: Emulator) -> None:
    (root / "in.csv").write_text(f"text,picture\nWhat is it?,red.png\nWhat is it?,{root.parent}/key.json\n")
    given: dict[str, Any] = {"model": "gemini-2.5-flash", "media_field": "picture"}
    task = GeminiCreateBatchJobOperator(task_id="t", input_path=root / "in.csv", **given)
    refused = pytest.raises(AirflowFailException, match="line 3: media_field: the file is not below")
    with refused, task.task_run(task_context()) as run:
        run.begin()
    assert not emulator.control.books()["requests"]
    wider = GeminiCreateBatchJobOperator(task_id="t", input_path=root / "good.csv", media_root=root.parent, **given)
    (root / "good.csv").write_text(f"text,picture\nWhat is it?,{root}/red.png\n")
    with pytest.raises(TaskDeferred), wider.task_run(task_context()) as run:
        run.begin()
