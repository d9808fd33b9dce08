"""The Files API: resumable uploads, file records, downloads. Content only ever passes through, to and from disk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from airflow_provider_gemini_batch.emulator import schema
from airflow_provider_gemini_batch.emulator.wire import (
    ApiError,
    answer,
    nanos,
    page_token,
    quota_error,
    read_page_size,
    read_page_token,
    unknown_name,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator.call import Call
    from airflow_provider_gemini_batch.emulator.world import World

GRANULARITY = 262_144
FILE_LIFE = 48 * 3600.0
MAX_FILE = 2 * 1024**3
MAX_STORAGE = 20 * 1024**3
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_FILE_BODY: schema.Message = {
    "file": {
        **dict.fromkeys(
            ["name", "displayName", "mimeType", "createTime", "updateTime", "uri", "sha256Hash"], schema.STRING
        ),
        "sizeBytes": schema.NUMBER,
        "source": schema.ENUM,
    }
}


class Cut(Exception):
    """The connection is to be closed without a whole answer."""


@dataclass
class StoredFile:
    """An uploaded file whose content lies in the data folder under ``path``."""

    id: str
    space: str
    number: int
    path: str
    size: int
    sha256: str
    mime: str
    display_name: str
    created: float
    generated: bool = False


@dataclass
class Session:
    """A resumable upload under way; ``received`` is what the service has kept."""

    id: str
    space: str
    path: str
    file_id: str
    mime: str
    display_name: str
    total: int | None
    version: str
    received: int = 0
    status: str = "active"


class FileShelf:
    """The files and upload sessions of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.files = {name: StoredFile(**doc) for name, doc in world.store.load("file").items()}
        self.sessions = {name: Session(**doc) for name, doc in world.store.load("session").items()}
        self._hashes: dict[str, Any] = {}

    def forget(self) -> None:
        """Forget all files and sessions."""
        self.files.clear()
        self.sessions.clear()
        self._hashes.clear()

    def find(self, space: str, name: str) -> StoredFile | None:
        """Return a project's file by ``files/id``, None when unknown, expired or another's."""
        with self.world.lock:
            file = self.files.get(name.removeprefix("files/"))
            if file is None or file.space != space:
                return None
            if self.world.now() > file.created + FILE_LIFE:
                self.remove(file)
                return None
            return file

    def live(self) -> list[StoredFile]:
        """Return the files that have not expired, newest first."""
        with self.world.lock:
            now = self.world.now()
            alive = [file for file in self.files.values() if now <= file.created + FILE_LIFE]
            return sorted(alive, key=lambda file: -file.number)

    def remove(self, file: StoredFile) -> None:
        """Delete a file's record. Its bytes stay while a job may still read them: the folder is wiped by a reset."""
        self.files.pop(file.id, None)
        self.world.store.delete("file", file.id)
        in_use = any(
            doc["source"] == file.path and doc["ended"] is None and not doc["deleted"]
            for doc in self.world.store.load("job").values()
        )
        if not in_use:
            self.world.store.path(file.path).unlink(missing_ok=True)

    def save_session(self, session: Session) -> None:
        """Write an upload session down."""
        self.world.store.save("session", session.id, asdict(session))

    def hasher(self, session: Session) -> Any:
        """Return the running hash of a session, computed anew after a restart."""
        running = self._hashes.get(session.id)
        if running is None:
            running = self._hashes[session.id] = hashlib.sha256()
            with self.world.store.path(session.path).open("rb") as content:
                _hash_up_to(content, session.received, running)
        return running

    def drop_hasher(self, session: Session) -> None:
        """Forget the running hash, for bytes that are not kept after all."""
        self._hashes.pop(session.id, None)

    def finish(self, session: Session) -> StoredFile:
        """Turn a session whose bytes are all there into a file."""
        file = StoredFile(
            id=session.file_id,
            space=session.space,
            number=self.world.next_number(),
            path=session.path,
            size=session.received,
            sha256=self.hasher(session).hexdigest(),
            mime=session.mime,
            display_name=session.display_name,
            created=self.world.now(),
        )
        with self.world.lock:
            self.files[file.id] = file
            self.world.store.save("file", file.id, asdict(file))
            session.status = "final"
            self.save_session(session)
            self._hashes.pop(session.id, None)
        return file


def _hash_up_to(content: Any, size: int, running: Any) -> None:
    while size > 0:
        chunk = content.read(min(size, 1 << 20))
        if not chunk:
            return
        running.update(chunk)
        size -= len(chunk)


def file_document(call: Call, file: StoredFile, version: str = "v1beta") -> dict[str, Any]:
    """Return the File resource."""
    document: dict[str, Any] = {"name": f"files/{file.id}"}
    if file.display_name:
        document["displayName"] = file.display_name
    document.update(mimeType=file.mime, sizeBytes=str(file.size))
    return {
        **document,
        "createTime": nanos(file.created),
        "updateTime": nanos(file.created),
        "expirationTime": nanos(file.created + FILE_LIFE),
        "sha256Hash": base64.b64encode(file.sha256.encode()).decode(),
        "uri": f"{_own_url(call)}/{version}/files/{file.id}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }


def _own_url(call: Call) -> str:
    return f"{call.request.url.scheme}://{call.request.headers.get('host', 'localhost')}"


async def upload_start(call: Call) -> Response:
    """Open an upload session; its URL needs no credential."""
    headers = call.request.headers
    document = await call.json()
    if headers.get("x-goog-upload-protocol", "").lower() != "resumable":
        raise ApiError(400, "Only the resumable upload protocol is served here.")
    if headers.get("x-goog-upload-command", "").strip().lower() != "start":
        raise ApiError(400, "Invalid X-Goog-Upload-Command for a new upload: expected start.")
    try:
        schema.check(document, _FILE_BODY)
    except schema.Complaint as complaint:
        raise unknown_name(complaint.name, complaint.place) from None
    asked = document.get("file") or {}
    session = _new_session(call, asked)
    with call.world.lock:
        call.world.store.path(session.path).touch()
        call.service.shelf.sessions[session.id] = session
        call.service.shelf.save_session(session)
    version = call.path.get("version")
    place = f"upload/{version}/files" if version else "upload/files"
    url = f"{_own_url(call)}/{place}?upload_id={session.id}&upload_protocol=resumable"
    return Response(
        headers={
            "x-goog-upload-url": url,
            "x-goog-upload-control-url": url,
            "x-goog-upload-status": "active",
            "x-goog-upload-chunk-granularity": str(GRANULARITY),
        }
    )


def _new_session(call: Call, asked: dict[str, Any]) -> Session:
    headers, world, shelf = call.request.headers, call.world, call.service.shelf
    length = headers.get("x-goog-upload-header-content-length")
    if length is not None and (not length.isdigit() or int(length) > MAX_FILE):
        raise ApiError(400, f"Invalid upload size: at most {MAX_FILE} bytes.")
    mime = (
        headers.get("x-goog-upload-header-content-type") or schema.get(asked, "mimeType") or "application/octet-stream"
    )
    if mime == world.faults.peek("refuse_mime") or ("/" not in mime and mime != "jsonl"):
        raise ApiError(400, f"Unsupported MIME type: {mime}")
    display_name = schema.get(asked, "displayName") or ""
    if len(display_name) > 512:  # noqa: PLR2004 - the service's own limit
        raise ApiError(400, "* CreateFileRequest.file.display_name: cannot be more than 512 characters.\n")
    used = sum(file.size for file in shelf.live() if file.space == call.space)
    if used + int(length or 0) > MAX_STORAGE:
        raise quota_error("You have exceeded your file_storage_bytes quota.")
    own = (asked.get("name") or "").removeprefix("files/")
    if own:
        _check_own_id(own)
        if own in shelf.files:
            raise ApiError(409, f"The File {own} already exists.")
    token = world.random_name(40)
    return Session(
        id=token,
        space=call.space,
        path=f"file-{token}",
        file_id=own or world.random_name(12),
        mime=mime,
        display_name=display_name,
        total=int(length) if length is not None else None,
        version=call.path.get("version") or "v1beta",
    )


def _check_own_id(own: str) -> None:
    if len(own) > 40:  # noqa: PLR2004 - the service's own limit
        raise ApiError(
            400, "* CreateFileRequest.file.name: File ID (name excluding 'files/') cannot be more than 40 characters.\n"
        )
    if not _ID.fullmatch(own):
        raise ApiError(
            400, "* CreateFileRequest.file.name: File ID may hold lower-case letters, digits and inner dashes only.\n"
        )


async def upload_bytes(call: Call) -> Response:
    """Serve a call to a session URL: upload, finalize, query or cancel."""
    shelf, world = call.service.shelf, call.world
    command = {part.strip().lower() for part in call.request.headers.get("x-goog-upload-command", "").split(",")}
    session = shelf.sessions.get(call.request.query_params.get("upload_id") or "")
    if session is None or world.faults.take("upload_lost"):
        await call.request.body() if session is None else await _drain(call)
        raise ApiError(404, "The upload session was not found.")
    if command & {"upload", "finalize"} and session.status == "active" and world.faults.take("upload_cancelled"):
        session.status = "cancelled"
        shelf.save_session(session)
    if command == {"query"}:
        return _upload_answer(call, session)
    if command == {"cancel"}:
        if session.status == "active":
            session.status = "cancelled"
            shelf.save_session(session)
        return _upload_answer(call, session)
    if not command or command - {"upload", "finalize"}:
        await _drain(call)
        raise ApiError(400, "Invalid X-Goog-Upload-Command.")
    if session.status != "active":
        await _drain(call)
        raise ApiError(400, "The upload has already ended.", headers={"x-goog-upload-status": session.status})
    return await _take_bytes(call, session, command)


async def _drain(call: Call) -> None:
    async for _ in call.request.stream():
        pass


async def _take_bytes(call: Call, session: Session, command: set[str]) -> Response:
    world, shelf = call.world, call.service.shelf
    if "upload" in command:
        offset = call.request.headers.get("x-goog-upload-offset", "")
        if not offset.isdigit() or int(offset) != session.received:
            await _drain(call)
            raise ApiError(
                400,
                f"Invalid X-Goog-Upload-Offset {offset!r}: {session.received} bytes have been received.",
                headers={"x-goog-upload-status": "active", "x-goog-upload-size-received": str(session.received)},
            )
        await _append(call, session, final="finalize" in command)
    if "finalize" in command:
        if session.total is not None and session.received != session.total:
            raise ApiError(
                400,
                f"The upload holds {session.received} bytes, but {session.total} were announced.",
                headers={"x-goog-upload-status": "active", "x-goog-upload-size-received": str(session.received)},
            )
        await asyncio.to_thread(shelf.finish, session)
    return _upload_answer(call, session, hide_status=bool(world.faults.take("upload_no_status")))


async def _append(call: Call, session: Session, *, final: bool) -> None:
    shelf, world = call.service.shelf, call.world
    keep = world.faults.take("upload_partial")
    running = shelf.hasher(session)
    came, cut = 0, False
    with world.store.path(session.path).open("r+b", buffering=0) as sink:
        sink.seek(session.received)
        try:
            async for chunk in call.request.stream():
                if keep is not None and came + len(chunk) > int(keep):
                    cut = True
                    break
                sink.write(chunk)
                running.update(chunk)
                came += len(chunk)
                if session.received + came > MAX_FILE:
                    raise ApiError(400, f"Invalid upload size: at most {MAX_FILE} bytes.")
        except ClientDisconnect:
            cut = True
        misfit = not cut and not final and came % GRANULARITY
        if cut or misfit:
            # What came of a broken chunk is kept up to the granularity; a chunk of the wrong size is not kept at all.
            came = came // GRANULARITY * GRANULARITY if cut else 0
            sink.truncate(session.received + came)
            shelf.drop_hasher(session)
    session.received += came
    shelf.save_session(session)
    if cut:
        raise Cut
    if misfit:
        raise ApiError(
            400,
            f"Every chunk but the last must be a multiple of {GRANULARITY} bytes.",
            headers={"x-goog-upload-status": "active", "x-goog-upload-size-received": str(session.received)},
        )


def _upload_answer(call: Call, session: Session, *, hide_status: bool = False) -> Response:
    headers = {"x-goog-upload-size-received": str(session.received), "x-goog-upload-status": session.status}
    if hide_status:
        headers.pop("x-goog-upload-status")
    file = call.service.shelf.files.get(session.file_id) if session.status == "final" else None
    if file is None:
        return Response(headers=headers)
    return answer({"file": file_document(call, file, session.version)}, headers=headers)


def _named_file(call: Call, request: str) -> StoredFile:
    name = call.path["id"]
    if len(name) > 40:  # noqa: PLR2004 - the service's own limit
        raise ApiError(400, f"* {request}.name: File ID (name excluding 'files/') cannot be more than 40 characters.\n")
    file = call.service.shelf.find(call.space, name)
    if file is None:
        raise _no_file(name)
    return file


def _no_file(name: str) -> ApiError:
    return ApiError(403, f"You do not have permission to access the File {name} or it may not exist.")


async def get(call: Call) -> Response:
    """Answer one file's record."""
    return answer(file_document(call, _named_file(call, "GetFileRequest"), call.path["version"]))


async def list_(call: Call) -> Response:
    """Answer one page of uploaded files, newest first; generated ones are not listed."""
    size = read_page_size(call.query("pageSize"), default=10, cap=100)
    before = read_page_token(call.query("pageToken"))
    mine = [
        file
        for file in call.service.shelf.live()
        if file.space == call.space and (before is None or file.number < before)
    ]
    document: dict[str, Any] = {}
    if mine:
        document["files"] = [file_document(call, file, call.path["version"]) for file in mine[:size]]
    if len(mine) > size:
        document["nextPageToken"] = page_token(mine[size - 1].number)
    return answer(document)


async def delete(call: Call) -> Response:
    """Delete an uploaded file."""
    file = _named_file(call, "DeleteFileRequest")
    with call.world.lock:
        call.service.shelf.remove(file)
    return answer({})


async def download(call: Call) -> Response:
    """Stream a generated file, whole or the part that a Range header names."""
    name = call.path["id"]
    if call.service.shelf.find(call.space, name) is not None:
        raise ApiError(400, "Only generated files can be downloaded.")
    path = _generated(call, name)
    if call.query("alt") != "media":
        raise ApiError(400, "Use alt=media to download the content of a file.")
    size = path.stat().st_size
    start, end = _range(call.request.headers.get("range"), size)
    headers = {"accept-ranges": "bytes", "content-length": str(end - start), "etag": f'"{name}"'}
    partial = call.request.headers.get("range") is not None
    if partial:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    cut = call.world.faults.take("download_cut")
    cut = int(cut["bytes"] if isinstance(cut, dict) else cut) if cut is not None else None
    return StreamingResponse(
        _stream(path, start, end, cut), 206 if partial else 200, headers, media_type="application/json"
    )


def _generated(call: Call, name: str) -> Path:
    with call.world.lock:
        world = call.world
        job = call.engine.jobs.get(("gemini", name.removeprefix("batch-")))
        if job is None or job.space != call.space or job.output != name or job.ended is None:
            raise _no_file(name)
        age = world.now() - job.ended
        kept = float(world.faults.peek("output_retention") or FILE_LIFE)
        if not float(job.bound.get("late_output") or 0) <= age <= kept:
            raise _no_file(name)
        return world.store.path(f"out-{job.id}")


def _range(text: str | None, size: int) -> tuple[int, int]:
    if text is None:
        return 0, size
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if not match or match.groups() == ("", ""):
        raise ApiError(400, "Invalid Range header.")
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size or end <= start:
        raise ApiError(416, "Requested range not satisfiable.", headers={"content-range": f"bytes */{size}"})
    return start, end


async def _stream(path: Path, start: int, end: int, cut: int | None) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=0) as content:
        content.seek(start)
        while start < end:
            size = min(1 << 18, end - start)
            if cut is not None:
                size = min(size, cut)
            chunk = content.read(size)
            if not chunk:
                raise Cut
            yield chunk
            start += len(chunk)
            if cut is not None:
                cut -= len(chunk)
                if cut <= 0:
                    raise Cut
