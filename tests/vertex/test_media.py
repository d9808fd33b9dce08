"""Files that go with rows on Vertex AI: staged whole, under the name of their content, or not at all."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import GeminiBatchError, InputError, TransportError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PICTURE = b"picture" * 1000


class BreaksOff(io.BytesIO):
    """A source that is reset before its end is seen."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError("reset")
        return super().read(size)


@pytest.fixture
def client(gcs: str) -> Iterator[BatchClient]:
    with BatchClient.for_vertex("p", credentials=object(), storage_endpoint=gcs) as made:
        yield made


@pytest.mark.parametrize(
    ("second", "error"),
    [(lambda: BreaksOff(PICTURE), TransportError), (lambda: io.BytesIO(b"another picture"), InputError)],
    ids=["breaks off", "has changed"],
)
def test_a_file_is_staged_whole_or_not_at_all(
    second: Callable[[], BinaryIO], error: type[GeminiBatchError], client: BatchClient, tmp_path: Path
) -> None:
    folder = f"gs://stage/{tmp_path.name}"
    opened: list[Callable[[], Any]] = [lambda: io.BytesIO(PICTURE), second, lambda: io.BytesIO(PICTURE)]
    uploader = AttachmentUploader(lambda: client, Service.VERTEX, lambda _: opened.pop(0)(), folder)
    part = uploader.attach("/pictures/red.png").part
    line = json.dumps(part).encode()
    with pytest.raises(error):
        uploader.upload([line])
    assert client.storage.filesystem.find(folder) == []
    uploader.upload([line])
    assert b"".join(client.storage.iter_bytes(part["fileData"]["fileUri"])) == PICTURE


def test_only_the_files_that_the_lines_of_a_job_name_are_staged(client: BatchClient, tmp_path: Path) -> None:
    folder = f"gs://stage/{tmp_path.name}"
    uploader = AttachmentUploader(lambda: client, Service.VERTEX, lambda path: io.BytesIO(path.encode()), folder)
    parts = [uploader.attach(f"/pictures/{name}.png").part for name in ("red", "green", "blue")]
    uploader.upload([json.dumps(parts[0]).encode(), json.dumps(parts[2]).encode(), b'{"text": "no file"}'])
    staged = {f"gs://{each}" for each in client.storage.filesystem.find(folder)}
    assert staged == {parts[index]["fileData"]["fileUri"] for index in (0, 2)}
