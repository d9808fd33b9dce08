"""Resumable uploads of the Files API. Bytes go straight to disk."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from airflow_provider_gemini_batch.emulator import messages, schema
from airflow_provider_gemini_batch.emulator.call import ConnectionCut
from airflow_provider_gemini_batch.emulator.file_store import UploadSession
from airflow_provider_gemini_batch.emulator.files import file_document
from airflow_provider_gemini_batch.emulator.wire import ApiError, answer, quota_error, unknown_name

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator.call import ApiCall

GRANULARITY = 262_144
MAX_FILE = 2 * 1024**3
MAX_STORAGE = 20 * 1024**3
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_FILE_BODY: messages.Message = {
    "file": {
        **dict.fromkeys(
            ["name", "displayName", "mimeType", "createTime", "updateTime", "uri", "sha256Hash"], messages.STRING
        ),
        "sizeBytes": messages.NUMBER,
        "source": messages.ENUM,
    }
}


async def upload_start(call: ApiCall) -> Response:
    """Open an upload session; its URL needs no credential."""
    headers = call.request.headers
    document = await call.json()
    if headers.get("x-goog-upload-protocol", "").lower() != "resumable":
        raise ApiError(400, "Only the resumable upload protocol is served here.")
    if headers.get("x-goog-upload-command", "").strip().lower() != "start":
        raise ApiError(400, "Invalid X-Goog-Upload-Command for a new upload: expected start.")
    try:
        schema.check(document, _FILE_BODY, strict=call.world.settings.strict)
    except schema.Complaint as complaint:
        raise unknown_name(complaint.name, complaint.place) from None
    asked = document.get("file") or {}
    session = _new_session(call, asked)
    with call.world.lock:
        call.world.store.open(session.path, "wb").close()
        call.parts.files.sessions[session.id] = session
        call.parts.files.save_session(session)
    version = call.path.get("version")
    place = f"upload/{version}/files" if version else "upload/files"
    given = call.world.faults.take("upload_url")
    url = str(given) if given else f"{call.own_url}/{place}?upload_id={session.id}&upload_protocol=resumable"
    return Response(
        headers={
            "x-goog-upload-url": url,
            "x-goog-upload-control-url": url,
            "x-goog-upload-status": "active",
            "x-goog-upload-chunk-granularity": str(GRANULARITY),
        }
    )


def _new_session(call: ApiCall, asked: dict[str, Any]) -> UploadSession:
    headers, world, files = call.request.headers, call.world, call.parts.files
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
    used = sum(file.size for file in files.live() if file.space == call.space)
    if used + int(length or 0) > MAX_STORAGE:
        raise quota_error("You have exceeded your file_storage_bytes quota.")
    own = (asked.get("name") or "").removeprefix("files/")
    if own:
        _check_own_id(own)
        if own in files.files:
            raise ApiError(409, f"The File {own} already exists.")
    token = world.random_name(40)
    return UploadSession(
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


async def upload_bytes(call: ApiCall) -> Response:
    """Serve a call to a session URL: upload, finalize, query or cancel."""
    files, world = call.parts.files, call.world
    command = {part.strip().lower() for part in call.request.headers.get("x-goog-upload-command", "").split(",")}
    session = files.sessions.get(call.request.query_params.get("upload_id") or "")
    if session is None or world.faults.take("upload_lost"):
        await call.request.body() if session is None else await call.drain()
        raise ApiError(404, "The upload session was not found.")
    if command & {"upload", "finalize"} and session.status == "active" and world.faults.take("upload_cancelled"):
        session.status = "cancelled"
        files.save_session(session)
    if command == {"query"}:
        return _upload_answer(call, session)
    if command == {"cancel"}:
        if session.status == "active":
            session.status = "cancelled"
            files.save_session(session)
        return _upload_answer(call, session)
    if not command or command - {"upload", "finalize"}:
        await call.drain()
        raise ApiError(400, "Invalid X-Goog-Upload-Command.")
    if session.status != "active":
        await call.drain()
        raise ApiError(400, "The upload has already ended.", headers={"x-goog-upload-status": session.status})
    return await _take_bytes(call, session, command)


async def _take_bytes(call: ApiCall, session: UploadSession, command: set[str]) -> Response:
    world, files = call.world, call.parts.files
    if "upload" in command:
        offset = call.request.headers.get("x-goog-upload-offset", "")
        if not offset.isdigit() or int(offset) != session.received:
            await call.drain()
            raise ApiError(
                400,
                f"Invalid X-Goog-Upload-Offset {offset!r}: {session.received} bytes have been received.",
                headers=_progress(session),
            )
        await _append(call, session, final="finalize" in command)
    if "finalize" in command:
        if session.total is not None and session.received != session.total:
            raise ApiError(
                400,
                f"The upload holds {session.received} bytes, but {session.total} were announced.",
                headers=_progress(session),
            )
        await asyncio.to_thread(files.finish, session)
    return _upload_answer(call, session, hide_status=bool(world.faults.take("upload_no_status")))


async def _append(call: ApiCall, session: UploadSession, *, final: bool) -> None:
    files, world = call.parts.files, call.world
    keep = world.faults.take("upload_partial")
    running = files.hasher(session)
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
            files.drop_hasher(session)
    session.received += came
    files.save_session(session)
    if cut:
        raise ConnectionCut
    if misfit:
        raise ApiError(
            400,
            f"Every chunk but the last must be a multiple of {GRANULARITY} bytes.",
            headers=_progress(session),
        )


def _progress(session: UploadSession) -> dict[str, str]:
    return {"x-goog-upload-size-received": str(session.received), "x-goog-upload-status": session.status}


def _upload_answer(call: ApiCall, session: UploadSession, *, hide_status: bool = False) -> Response:
    headers = _progress(session)
    if hide_status:
        headers.pop("x-goog-upload-status")
    file = call.parts.files.files.get(session.file_id) if session.status == "final" else None
    if file is None:
        return Response(headers=headers)
    return answer({"file": file_document(call, file, session.version)}, headers=headers)
