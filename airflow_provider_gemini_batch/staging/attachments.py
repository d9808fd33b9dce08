"""Files that go with rows: images, documents, sound. Named by their content, so that each is uploaded once.

The name that a file will have at the service is derived from its bytes. So the whole input can be checked and
fingerprinted before the first file is uploaded, and a file that an earlier try or another task has uploaded is used
again while it is young.
"""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from airflow_provider_gemini_batch.api.errors import (
    NEVER_READABLE,
    ApiError,
    FileFailed,
    InputError,
    NotFound,
    TransportError,
)
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.rows.input_spec import Attachment
from airflow_provider_gemini_batch.rows.media_tokens import HEAD_BYTES, FileSample, PageCount
from airflow_provider_gemini_batch.staging.job_service import AGAIN, LONGEST_HOLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import File

log = logging.getLogger(__name__)

# The service's own address of a file, which is the same behind a proxy.
_FILE_URI = "https://generativelanguage.googleapis.com/v1beta/{name}"
_READ_BYTES = 1 << 20
_NAME_DIGITS = 36
# How a line names a file of ours, in either service's address.
_NAMED = re.compile(rb"(?:files/gb-|/media/)([0-9a-f]{%d})" % _NAME_DIGITS)
# Uploads live 48 hours and a job may start only after a day in the queue.
_YOUNG = timedelta(hours=20)


class _Upload(NamedTuple):
    """A file that the service needs: where it is read, its name there, its type, and its sha256 in hexadecimal."""

    path: str
    name: str
    mime_type: str
    digest: str


class AttachmentUploader:
    """The files of one input: identified while it is read, and uploaded before a job is created."""

    def __init__(
        self,
        client: Callable[[], BatchClient],
        service: Service,
        opener: Callable[[str], BinaryIO],
        staging_path: str | None,
        address: Callable[[str], str] = str,
    ) -> None:
        """Read and upload nothing yet.

        :param client: returns the client when one is needed.
        :param opener: opens a file by its address.
        :param staging_path: ``gs://`` folder for files that Vertex AI is to read; files on ``gs://`` are not copied.
        :param address: returns the address of what a row names, or raises InputError where rows may not point.
        """
        self._client = client
        self._service = service
        self._opener = opener
        self._staging_path = staging_path
        self._address = address
        self._known: dict[str, Attachment] = {}
        self._sources: dict[str, tuple[str, str, str]] = {}

    def attach(self, path: str) -> Attachment:
        """Return the part of the request that refers to a file. Nothing is sent.

        :raises InputError: the file's name does not show its type, or it cannot be read.
        """
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._identify(self._address(path))
        return known

    def upload(self, lines: Iterable[bytes]) -> None:
        """Upload the files that these lines name and that are not there yet."""
        named = {digest for line in lines for digest in _NAMED.findall(line)}
        uploads: list[_Upload] = []
        for target, (path, mime_type, digest) in self._sources.items():
            if digest[:_NAME_DIGITS].encode() not in named:
                continue
            if self._service is Service.VERTEX:
                self._stage(path, target, digest)
            else:
                uploads.append(_Upload(path, target, mime_type, digest))
        # All are uploaded before the first is awaited, since the service processes them side by side.
        for upload, file in [(upload, self._present(upload)) for upload in uploads]:
            self._await(upload, file)

    def _identify(self, path: str) -> Attachment:
        mime_type, packing = mimetypes.guess_type(path.partition("?")[0])
        if packing is not None:
            raise InputError(
                f"media_field: the file is compressed ({packing}), and models read no compressed files: decompress it"
            )
        if mime_type is None:
            raise InputError(
                "media_field: the type of the file is not clear from its name; give it an ending such as .png"
            )
        if self._service is Service.VERTEX and path.startswith("gs://"):
            return _attachment(path, mime_type, path)
        if path.startswith(_FILE_URI.format(name="files/")):
            return _attachment(path, mime_type, path)
        digest, sample = self._read(path)
        if self._service is Service.VERTEX:
            target = (
                f"{(self._staging_path or '').rstrip('/')}/media/{digest}{mimetypes.guess_extension(mime_type) or ''}"
            )
            self._sources[target] = (path, mime_type, digest)
            return _attachment(target, mime_type, digest, sample)
        # At most 40 characters, lower-case letters, digits and dashes.
        name = f"files/gb-{digest[:_NAME_DIGITS]}"
        self._sources[name] = (path, mime_type, digest)
        return _attachment(_FILE_URI.format(name=name), mime_type, digest, sample)

    def _read(self, path: str) -> tuple[str, FileSample]:
        """Return the hash of a file, and the sample from which its cost is estimated."""
        digest, pages = hashlib.sha256(), PageCount()
        size, head = 0, b""
        try:
            with self._opener(path) as handle:
                for block in _blocks(handle):
                    digest.update(block)
                    pages.add(block)
                    size += len(block)
                    head += block[: HEAD_BYTES - len(head)]
        except (*NEVER_READABLE, ValueError) as error:
            raise InputError("media_field: the file cannot be read") from error
        if not size:
            raise InputError("media_field: the file is empty")
        return digest.hexdigest(), FileSample(size, head, pages.pages)

    def _present(self, upload: _Upload) -> File:
        """Return the file at the service that holds this content; upload it if there is none that can be used."""
        try:
            there = self._client().get_file(upload.name)
        except NotFound:
            return self._send(upload, upload.name)
        if self._is_usable(upload, there):
            return there
        self._remove(there)
        if not there.has_failed:
            return self._send(upload, upload.name)
        if there.display_name.endswith(AGAIN):
            raise FileFailed(f"media_field: {there.name} could not be processed by the service, twice")
        return self._send(upload, f"{upload.name}{AGAIN}")

    @staticmethod
    def _is_usable(upload: _Upload, there: File) -> bool:
        """Return whether a file of this name is young and holds this content, as far as the service knows yet."""
        if there.has_failed or not _is_young(there, datetime.now(timezone.utc)):
            return False
        # The name alone proves nothing: anybody with the key may have uploaded other content under it.
        return there.sha256_hex == upload.digest or (there.sha256_hex is None and not there.is_ready)

    def _send(self, upload: _Upload, display_name: str) -> File:
        client = self._client()
        with self._opener(upload.path) as handle:
            try:
                file = client.upload_file(
                    handle, name=upload.name, mime_type=upload.mime_type, display_name=display_name, wait=0
                )
            except ApiError as error:
                # Another task may have brought the same file a moment ago.
                if error.http_status != HTTPStatus.CONFLICT:
                    raise
                file = client.get_file(upload.name)
                if not self._is_usable(upload, file):
                    raise
        if file.sha256_hex not in {upload.digest, None}:
            self._remove(file)
            raise InputError("media_field: a file has changed while it was read; nothing was sent")
        return file

    def _await(self, upload: _Upload, file: File, *, last: bool = False) -> None:
        """Wait until a file can be used; upload it once more if the service fails to process it.

        :raises FileNotReady: it takes longer than a worker should be held.
        :raises FileFailed: the service failed to process it twice.
        """
        try:
            ready = self._client().wait_for_file(file, timeout=LONGEST_HOLD)
        except (FileFailed, NotFound) as error:
            if last or file.display_name.endswith(AGAIN):
                self._remove(file)
                raise FileFailed(f"media_field: {error}") from error
            log.warning("media_field: %s: uploading it once more.", error)
        else:
            if last or ready.sha256_hex in {upload.digest, None}:
                return
        self._remove(file)
        self._await(upload, self._send(upload, f"{upload.name}{AGAIN}"), last=True)

    def _remove(self, file: File) -> None:
        with suppress(NotFound):
            self._client().delete_file(file.name)

    def _stage(self, path: str, target: str, digest: str) -> None:
        store = self._client().storage
        if store.exists(target):
            return
        copied = hashlib.sha256()
        # Whole or not at all: an object with the name of a content is used as that content from then on.
        with self._opener(path) as source, store.write_whole(target) as handle:
            for block in _blocks(source):
                copied.update(block)
                handle.write(block)
            if copied.hexdigest() != digest:
                raise InputError("media_field: a file has changed while it was read; nothing was sent")


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    try:
        while block := source.read(_READ_BYTES):
            yield block
    except NEVER_READABLE:
        raise
    except OSError as error:
        raise TransportError("media_field: a file cannot be read just now; nothing was sent", sent=False) from error


def _attachment(uri: str, mime_type: str, identity: str, sample: FileSample | None = None) -> Attachment:
    return Attachment({"fileData": {"fileUri": uri, "mimeType": mime_type}}, identity, sample)


def _is_young(file: File, now: datetime) -> bool:
    # This compares two clocks, whose difference is small against a day.
    return file.create_time is None or now - file.create_time < _YOUNG
