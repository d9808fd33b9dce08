"""Paths that cannot be read: for good, or just now."""

from __future__ import annotations

import io
from typing import Any

import pytest

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader


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
    assert not caught.value.maybe_acted


class Breaking(io.BytesIO):
    """A file that breaks off."""

    def read(self, _: int | None = -1) -> bytes:
        raise ConnectionResetError("reset")


def test_a_file_that_goes_with_a_row_and_breaks_off_is_read_again_later() -> None:
    def nobody() -> Any:
        raise AssertionError

    shelf = AttachmentUploader(nobody, Service.GEMINI, lambda _: Breaking(), None)
    with pytest.raises(TransportError):
        shelf.attach("s3://bucket/picture.png")
