"""Paths that cannot be read: for good, or just now."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.rows.delivery import Origin
from airflow_provider_gemini_batch.rows.files import LocalFiles
from airflow_provider_gemini_batch.rows.sources import guess_format, open_local
from airflow_provider_gemini_batch.runtime.arguments import OutputArguments
from airflow_provider_gemini_batch.runtime.file_lists import list_files, means_several
from airflow_provider_gemini_batch.runtime.outputs import Output
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Failing:
    """A store whose every object fails to open."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def open(self, _: str) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError("reset"), TransportError),
        (TimeoutError("too slow"), TransportError),
        (OSError(5, "Input/output error"), TransportError),
        (FileNotFoundError("none"), ConfigurationError),
        (PermissionError("no"), ConfigurationError),
        (IsADirectoryError("a folder"), ConfigurationError),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, OSError) else "",
)
def test_an_error_that_may_pass_is_told_from_one_that_stays(error: OSError, expected: type[GeminiBatchError]) -> None:
    paths = Paths(lambda: Failing(error))  # type: ignore[arg-type, return-value]
    with pytest.raises(GeminiBatchError) as caught:
        paths.open_for_reading("gs://bucket/in.jsonl")
    assert type(caught.value) is expected
    assert "gs://bucket/in.jsonl" in str(caught.value)
    assert caught.value.retryable is (expected is TransportError)
    assert not caught.value.may_have_acted


@pytest.mark.parametrize("error", [TimeoutError("too slow"), OSError(5, "Input/output error"), PermissionError("no")])
def test_an_output_whose_place_cannot_be_reached_just_now_is_tried_again(error: OSError, tmp_path: Path) -> None:
    paths = Paths(lambda: Failing(error))  # type: ignore[arg-type, return-value]
    output = Output(
        OutputArguments(output_path="gs://bucket/x/out.jsonl"),
        paths,
        tmp_path,
        Origin(task="", run=""),
        "",
        is_all=True,
    )
    with pytest.raises(GeminiBatchError, match=r"output_path: nothing can be written to gs://bucket/x.*: ") as caught:
        output.check()
    assert caught.value.retryable is (type(error) is not PermissionError)
    assert isinstance(caught.value, TransportError if caught.value.retryable else ConfigurationError)


@pytest.mark.parametrize("path", ["~nobody-here", "~nobody-here/in.csv", "file://~nobody-here/*.jsonl"])
@pytest.mark.parametrize(
    "use",
    [
        lambda path: guess_format(f"{path}/*.jsonl"),
        open_local,
        LocalFiles().read,
        LocalFiles().exists,
        LocalFiles().remove,
        lambda path: LocalFiles().write_whole(path).__enter__(),
        Paths().open_for_reading,
        Paths().files_of,
        means_several,
        lambda path: list_files(Paths(), path),
    ],
)
def test_a_home_folder_that_this_machine_does_not_have_is_named(use: Callable[[str], Any], path: str) -> None:
    with pytest.raises(ConfigurationError, match="home folder of a user whom this machine does not know"):
        use(path)


class Breaking(io.BytesIO):
    """A file that breaks off."""

    def read(self, _: int | None = -1) -> bytes:
        raise ConnectionResetError("reset")


def test_a_file_that_goes_with_a_row_and_breaks_off_is_read_again_later() -> None:
    def nobody() -> Any:
        raise AssertionError

    uploader = AttachmentUploader(nobody, Service.GEMINI, lambda _: Breaking(), None)
    with pytest.raises(TransportError):
        uploader.attach("s3://bucket/picture.png")
