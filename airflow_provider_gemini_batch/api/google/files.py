"""The Files API of the Gemini Developer API: resumable upload, look-up, streamed and resumed download.

Upload protocol: ``start`` returns a session's address, ``upload`` sends chunks, ``upload, finalize`` sends the last
one, and ``query`` asks after a broken connection how much has arrived.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import chain, repeat
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    FileFailed,
    FileNotReady,
    GeminiBatchError,
    InputError,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import File, FilePage
from airflow_provider_gemini_batch.api.responses.reading import read_json
from airflow_provider_gemini_batch.api.transport import Call, FilePart, Retry, may_repeat
from airflow_provider_gemini_batch.api.urls import is_secure
from airflow_provider_gemini_batch.api.wire import (
    dict_at,
    error_of,
    int_of,
    json_bytes,
    shown_text,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import requests

    from airflow_provider_gemini_batch.api.transport import Transport, WholeResponse

log = logging.getLogger(__name__)

API_VERSION = "v1beta"
CHUNK_BYTES = 8 * 2**20
READ_BYTES = 2**18
# The service's limit for a file: https://ai.google.dev/gemini-api/docs/files
LARGEST_FILE_BYTES = 2 * 2**30
_MOST_SESSIONS = 3
LONGEST_PROCESSING = 600.0
"""Default for how many seconds to wait until an upload is processed."""
_PROCESSING_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
_OWN_NAME = re.compile(r"files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z")
_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d{1,18})-(?:\d{1,18}/(\d{1,18}))?")
_MIME = re.compile(r"[\w.+-]+(?:/[\w.+-]+)?\Z")
# HTTP statuses that are about a call, not about one of its rows.
_OF_CALLS = frozenset({401, 403, 404, 408, 429, 499, *range(500, 600)})
# What the last byte of a whole file of results may be, in any encoding.
_LAST = b"}]\n\r\0"


class _SessionGone(Exception):
    """The upload has to start again; ``error`` is the service's refusal, if there was one."""

    def __init__(self, error: GeminiBatchError | None = None) -> None:
        super().__init__()
        self.error = error


class _Progress(NamedTuple):
    """How far an upload is: the bytes that the service has, and the file once it is complete."""

    received: int
    file: File | None


class _Content(NamedTuple):
    """What to upload: an open file, where to begin, the number of bytes, and a short name for messages."""

    file: BinaryIO
    begin: int
    size: int
    label: str


@dataclass(frozen=True)
class _Session:
    """An upload in progress. Whoever knows its address may write to it, so it is never shown."""

    url: str
    chunk: int
    label: str

    def call(self, operation: str, command: str, **more: Any) -> Call:
        headers = {"X-Goog-Upload-Command": command, **more.pop("headers", {})}
        return Call(
            operation, "POST", self.url, subject=self.label, headers=headers, retry=Retry.NEVER, anonymous=True, **more
        )


class GeminiFiles:
    """Files of one API key. Uploads are kept for 48 hours."""

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        own_host: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._base = base_url
        self._own_host = own_host

    def upload(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        display_name: str | None,
        mime_type: str,
        name: str | None,
        wait: float,
    ) -> File:
        """Upload a file, resuming after broken connections; see :meth:`.BatchClient.upload_file`."""
        if name is not None and not _OWN_NAME.match(name):
            raise ConfigurationError(
                f"Invalid file name {names.in_words(name)}: expected 'files/' and up to 40 of a-z, 0-9 and -, "
                "not beginning or ending with -."
            )
        if not _MIME.match(mime_type):
            raise ConfigurationError("Invalid mime_type: expected a type such as 'application/jsonl'.")
        with _open_source(source) as content:
            if content.size > LARGEST_FILE_BYTES:
                raise InputError(
                    f"{content.label} has {content.size / 2**30:.2f} GiB, and the service takes at most "
                    f"{LARGEST_FILE_BYTES / 2**30:g} GiB a file: split it"
                )
            title = display_name if display_name is not None else content.label
            members = {"displayName": title[:512], "mimeType": mime_type, "sizeBytes": str(content.size)}
            if name is not None:
                members["name"] = name
            uploaded = self._upload(content, members)
            if wait <= 0:
                return uploaded
            try:
                return self.wait(uploaded, timeout=wait)
            except (FileFailed, NotFound) as error:
                log.warning("%s: uploading it once more.", error)
            with suppress(NotFound):
                self.delete(uploaded.name)
            return self.wait(self._upload(content, members), timeout=wait)

    def _upload(self, content: _Content, members: dict[str, str]) -> File:
        cause: GeminiBatchError | None = None
        for _ in range(_MOST_SESSIONS):
            session = self._start(content, members)
            try:
                return self._send(session, content)
            except _SessionGone as lost:
                cause = lost.error
        text = f"upload of {content.label}: the service dropped {_MOST_SESSIONS} upload sessions"
        raise UnexpectedResponse(f"{text}; the last: {cause}" if cause else text) from cause

    def wait(self, file: File, *, timeout: float) -> File:
        """Poll until the service has processed a file; see :meth:`.BatchClient.wait_for_file`."""
        end = self._clock() + timeout
        pauses = chain(_PROCESSING_PAUSES, repeat(_PROCESSING_PAUSES[-1]))
        while not file.is_ready:
            if file.has_failed:
                why = file.error.message if file.error is not None else ""
                raise FileFailed(f"{file.name} could not be processed by the service{f': {why}' if why else ''}")
            left = end - self._clock()
            if left <= 0:
                raise FileNotReady(f"{file.name} is still {file.state[:40]} after {timeout:g} s: it cannot be used yet")
            self._transport.sleep(min(next(pauses), left))
            try:
                file = self.get(file.name)
            except GeminiBatchError as error:
                if not error.retryable:
                    raise
        return file

    def _start(self, content: _Content, members: dict[str, str]) -> _Session:
        response = self._transport.send(
            Call(
                "upload",
                "POST",
                f"{self._base}/upload/{API_VERSION}/files",
                subject=content.label,
                headers={
                    "Content-Type": "application/json",
                    "X-Goog-Upload-Protocol": "resumable",
                    "X-Goog-Upload-Command": "start",
                    "X-Goog-Upload-Header-Content-Length": members["sizeBytes"],
                    "X-Goog-Upload-Header-Content-Type": members["mimeType"],
                },
                body=json_bytes({"file": members}),
            )
        )
        url = response.headers.get("x-goog-upload-url")
        if not url:
            raise UnexpectedResponse(f"{response.description}: the service opened no upload session")
        address = self._reachable(url)
        if address is None:
            raise UnexpectedResponse(
                f"{response.description}: the service opened an upload session at an address that cannot be used "
                "(https:// only, or http:// on this machine)"
            )
        grain = min(max(int_of(response.headers.get("x-goog-upload-chunk-granularity")) or 1, 1), CHUNK_BYTES)
        return _Session(address, max(grain, CHUNK_BYTES // grain * grain), content.label)

    def _reachable(self, url: str) -> str | None:
        """Return the address to send rows to, or None if it is not safe.

        Google's own host may be out of reach, so the address uses the base URL that was given.
        """
        if not self._own_host:
            return url if is_secure(url) else None
        try:
            base, session = urlsplit(self._base), urlsplit(url)
        except ValueError:
            return None
        path = session.path if session.path.startswith(base.path) else base.path + session.path
        return urlunsplit((base.scheme, base.netloc, path, session.query, ""))

    def _send(self, session: _Session, content: _Content) -> File:
        """Send chunks until the service has all. After an error, ask how much arrived; give up without progress.

        What the service had and lost again does not count as progress, or it could go on for ever.
        """
        offset = furthest = failures = 0
        while True:
            trouble: GeminiBatchError | None = None
            try:
                progress = self._chunk(session, content, offset)
            except (TransportError, ServiceUnavailable, QuotaExceeded) as error:
                progress, trouble = None, error
            except ApiError as error:
                raise self._session_error(error) from error
            if progress is None:
                failures += 1
                # A long wait is up to the caller, who may free its worker.
                gives_up = trouble is not None and not may_repeat(Retry.SAFE, trouble)
                if gives_up or failures >= self._transport.attempts:
                    raise trouble or UnexpectedResponse(f"upload of {session.label}: the service confirms no chunk")
                self._transport.sleep(self._transport.pause(failures - 1, trouble))
                progress = self._query(session, content.size)
            if progress is None:
                continue
            if progress.file is not None:
                return progress.file
            if progress.received > furthest:
                furthest, failures = progress.received, 0
            offset = progress.received

    def _chunk(self, session: _Session, content: _Content, offset: int) -> _Progress | None:
        """Send one chunk and return the progress; None if it is not known whether the chunk arrived."""
        length = min(session.chunk, content.size - offset)
        last = offset + length >= content.size
        call = session.call(
            "upload",
            "upload, finalize" if last else "upload",
            headers={"X-Goog-Upload-Offset": str(offset)},
            body=FilePart(content.file, content.begin + offset, length),
        )
        response = self._transport.send(call)
        status = _upload_status(response)
        if status == "active" and not last:
            return _Progress(offset + length, None)
        return self._read_finished(response) if status == "final" else None

    def _query(self, session: _Session, size: int) -> _Progress | None:
        """Return how much has arrived; None if the service did not respond."""
        try:
            response = self._transport.send(session.call("upload", "query"))
        except (TransportError, ServiceUnavailable, QuotaExceeded):
            return None
        except ApiError as error:
            raise self._session_error(error) from error
        if _upload_status(response) == "final":
            return self._read_finished(response)
        received = int_of(response.headers.get("x-goog-upload-size-received"))
        if received is None or not 0 <= received <= size:
            raise _SessionGone
        return _Progress(received, None)

    @staticmethod
    def _session_error(error: ApiError) -> Exception:
        """Return what to raise for a 4xx: a dropped session can be any of them except a refusal of access."""
        return error if isinstance(error, AccessDenied) else _SessionGone(error)

    @staticmethod
    def _read_finished(response: WholeResponse) -> _Progress:
        """Return the progress with the finished file. Without a readable response its name is unknown: upload again."""
        try:
            member = dict_at(response.json(), "file")
        except UnexpectedResponse as error:
            raise _SessionGone(error) from None
        if not member:
            raise UnexpectedResponse(f"{response.description}: the service ended the upload without a file")
        return _Progress(0, _file(member, response))

    def get(self, name: str) -> File:
        """Return an uploaded file."""
        response = self._transport.send(Call("get", "GET", self._url(names.own_file_name(name)), subject=name))
        return _file(response.json(), response)

    def list(self, *, page_size: int, page_token: str | None) -> FilePage:
        """Return a page of files."""
        params = {"pageSize": str(page_size), **({"pageToken": page_token} if page_token else {})}
        response = self._transport.send(Call("list files", "GET", self._url("files"), params=params))
        members, token = response.page("files")
        return FilePage(files=tuple(_file(member, response) for member in members), next_page_token=token)

    def delete(self, name: str) -> None:
        """Delete an uploaded file."""
        self._transport.send(Call("delete", "DELETE", self._url(names.own_file_name(name)), subject=name))

    def iter_download(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a download, resuming after a broken connection. Errors in opening it are raised at once.

        The path under ``/download/`` is the documented one (https://ai.google.dev/gemini-api/docs/batch-api); the
        short one, which the SDKs use, is for gateways that support only that.
        """
        path = f"{API_VERSION}/{names.any_file_name(name)}:download"
        long = Call("download", "GET", f"{self._base}/download/{path}", subject=name, params={"alt": "media"})
        try:
            return iter_resuming(self._transport, long)
        except ApiError as error:
            if not _may_lack_path(error):
                raise
            missing = error
        try:
            return iter_resuming(self._transport, replace(long, url=f"{self._base}/{path}"))
        except ApiError as error:
            # On this path the service may refuse the long id of an output that it has said it does not keep.
            raise missing if missing.status and type(error) is ApiError else error from None

    def download(self, name: str, target: str | os.PathLike[str] | BinaryIO) -> int:
        """Download to a path, which appears when complete, or an open file; return the number of bytes."""
        chunks = self.iter_download(name)
        if not isinstance(target, (str, os.PathLike)):
            return sum(_written(target, chunk) for chunk in chunks)
        path = Path(target)
        # A random name and a new file, so that no symbolic link planted there is followed.
        part = path.with_name(f".{path.name[:100]}.{token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                size = sum(_written(file, chunk) for chunk in chunks)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def _url(self, name: str) -> str:
        return f"{self._base}/{API_VERSION}/{name}"


def iter_resuming(transport: Transport, call: Call) -> Iterator[bytes]:
    """Yield a stream of bytes in pieces. Opening it is retried; a Range request resumes a broken connection."""
    pieces = _pieces(transport, call, _open_at(transport, call, 0))
    first = next(pieces, b"")
    if odd := _what_is_no_file(first):
        pieces.close()
        what = f"{call.description}: {HTTPStatus.OK:d}, but the response is {odd}"
        raise ServiceUnavailable(what, http_status=HTTPStatus.OK)
    return chain([first], pieces)


def _what_is_no_file(head: bytes) -> str:
    """Return what a gateway sends in place of a file: a web page, or an error of the whole call; else empty."""
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "not JSON (HTML)"
    found = read_json(head) if head.lstrip()[:1] == b"{" and len(head) < READ_BYTES else None
    if isinstance(found, dict) and "response" not in found and str(found.get("name")).startswith("files/"):
        return "a description of the file"  # some gateways drop the parameter that asks for its content
    if not isinstance(found, dict) or found.keys() != {"error"}:
        return ""
    # That of a row without a key has a number of gRPC, or says that the request is wrong.
    error, code = error_of(found["error"]), int_of(dict_at(found, "error").get("code"))
    return f"an error: {error.message or code}" if error is not None and code in _OF_CALLS else ""


def _open_at(transport: Transport, call: Call, offset: int) -> requests.Response:
    # identity: offsets must count the bytes of the file, not of a compressed stream.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
    ranged = replace(call, headers=headers)
    return transport.repeat(lambda: transport.open_response(ranged))


def _pieces(transport: Transport, call: Call, response: requests.Response) -> Generator[bytes]:
    done, failures, asked, last = 0, 0, 0, b""
    is_encoded, version = _is_encoded(response), _version(response)
    while True:
        trouble: TransportError | None = None
        skip = done - _begin(call, response, asked)
        try:
            with response:
                for chunk in transport.chunks(call, response, READ_BYTES):
                    fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                    if fresh:
                        failures = 0
                        done += len(fresh)
                        last = fresh
                        yield fresh
        except TransportError as error:
            trouble = error
        has_ended = trouble is None
        # Of an unknown length: a gateway may end a response well whose source broke off. Then ask for more, once.
        is_whole = has_ended and (is_encoded or failures > 0 or _ends_a_row(last))
        if done >= version.size if version.size is not None else is_whole:
            return
        failures += 1
        trouble = trouble or TransportError(f"{call.description}: the download ended early", sent=True)
        if failures >= transport.attempts:
            raise trouble
        transport.sleep(transport.pause(failures - 1, trouble))
        # A range of packed data would begin anywhere.
        asked = 0 if is_encoded else done
        try:
            response = _open_at(transport, call, asked)
        except ApiError as error:
            is_behind = error.http_status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE  # the last byte
            if version.size is None and (is_behind or (has_ended and type(error) is ApiError)):
                return
            raise
        if version.differs_from(_version(response)):
            response.close()
            raise UnexpectedResponse(f"{call.description}: the file has changed since its download began: retry")


def _ends_a_row(chunk: bytes) -> bool:
    """Return whether a file of results may end with this chunk."""
    _, newline, row = chunk.rpartition(b"\n")
    return chunk[-1:] in _LAST and (not newline or row[-1:] != b"}" or read_json(row) is not None)


class _Version(NamedTuple):
    """What distinguishes a file from another one of the same name; None for what a response does not say."""

    size: int | None = None
    tag: str | None = None

    def differs_from(self, other: _Version) -> bool:
        return any(None not in pair and pair[0] != pair[1] for pair in zip(self, other, strict=True))


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _version(response: requests.Response) -> _Version:
    if _is_encoded(response):
        return _Version()
    tag = response.headers.get("ETag") or "W/"
    size = response.headers.get("Content-Length")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        served = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        size = served[2] if served else None
    return _Version(int_of(size), None if tag.startswith("W/") else tag)


def _begin(call: Call, response: requests.Response, asked: int) -> int:
    """Return the offset at which a response begins; a host may send more than requested, or the whole file."""
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        return 0
    served = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    begin = int(served[1]) if served else asked
    if begin > asked:
        response.close()
        raise UnexpectedResponse(
            f"{call.description}: the download was to go on at byte {asked}, and the response starts at {begin}: "
            "retry; if it happens again, a gateway or proxy on the way answers ranges wrongly"
        )
    return begin


@contextmanager
def _open_source(source: str | os.PathLike[str] | BinaryIO) -> Iterator[_Content]:
    """Yield what to upload, opened."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            with path.open("rb") as file:
                yield _Content(file, 0, os.fstat(file.fileno()).st_size, path.name)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise InputError(f"{path.name}: the file cannot be read ({error.strerror})") from error
        return
    try:
        begin = source.tell()
        size = source.seek(0, os.SEEK_END) - begin
        source.seek(begin)
    except (AttributeError, OSError) as error:
        raise ConfigurationError(
            "upload_file takes a path or a binary file that can seek, to go on after a cut"
        ) from error
    label = getattr(source, "name", None)
    yield _Content(source, begin, size, Path(label).name if isinstance(label, str) else "the file")


def _may_lack_path(error: ApiError) -> bool:
    """Return whether the host may not know the path: a 404, or a gateway's page that is not in Google's form."""
    return error.http_status == 404 or (error.http_status in {200, 400, 403, 405} and error.is_vague)  # noqa: PLR2004


def _written(file: BinaryIO, chunk: bytes) -> int:
    file.write(chunk)
    return len(chunk)


def _upload_status(response: WholeResponse) -> str:
    status = response.headers.get("x-goog-upload-status", "").lower()
    if status == "cancelled":
        raise _SessionGone
    return status


def _file(member: dict[str, Any], response: WholeResponse) -> File:
    name = member.get("name")
    if not isinstance(name, str) or not name.startswith("files/"):
        raise UnexpectedResponse(f"{response.description}: the response describes no file")
    return File(
        name=name,
        display_name=shown_text(member.get("displayName")),
        mime_type=shown_text(member.get("mimeType")),
        size_bytes=int_of(member.get("sizeBytes")),
        create_time=time_of(member.get("createTime")),
        expiration_time=time_of(member.get("expirationTime")),
        sha256_hex=_sha256(member.get("sha256Hash")),
        uri=shown_text(member.get("uri")),
        state=shown_text(member.get("state")),
        source=shown_text(member.get("source")),
        error=error_of(member.get("error")),
    )


def _sha256(value: object) -> str | None:
    """Return the hash that the service sends as base64 of hexadecimal text."""
    try:
        text = base64.b64decode(value, validate=True).decode("ascii") if isinstance(value, str) and value else ""
    except ValueError:  # neither base64 nor ASCII
        return None
    return text or None
