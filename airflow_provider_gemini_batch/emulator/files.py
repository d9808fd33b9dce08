"""The Files API: records of files, and downloads."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response, StreamingResponse

from airflow_provider_gemini_batch.emulator.call import ConnectionCut
from airflow_provider_gemini_batch.emulator.file_store import FILE_LIFE, StoredFile
from airflow_provider_gemini_batch.emulator.wire import (
    ApiError,
    answer,
    nanos,
    page_token,
    read_page_size,
    read_page_token,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator.call import ApiCall


def file_document(call: ApiCall, file: StoredFile, version: str = "v1beta") -> dict[str, Any]:
    """Return the File resource."""
    document: dict[str, Any] = {"name": f"files/{file.id}"}
    if file.display_name:
        document["displayName"] = file.display_name
    document.update(mimeType=file.mime, sizeBytes=str(file.size))
    document |= {
        "createTime": nanos(file.created),
        "updateTime": nanos(file.created),
        "expirationTime": nanos(file.created + FILE_LIFE),
        "sha256Hash": base64.b64encode(file.sha256.encode()).decode(),
        "uri": f"{call.own_url}/{version}/files/{file.id}",
        "state": file.state(call.world.now()),
        "source": "UPLOADED",
    }
    if document["state"] == "FAILED":
        document["error"] = file.error
    return document


def _named_file(call: ApiCall, request: str) -> StoredFile:
    name = call.path["id"]
    if len(name) > 40:  # noqa: PLR2004 - the service's own limit
        raise ApiError(400, f"* {request}.name: File ID (name excluding 'files/') cannot be more than 40 characters.\n")
    file = call.parts.files.find(call.space, name)
    if file is None:
        raise _no_file(name)
    return file


def _no_file(name: str) -> ApiError:
    return ApiError(403, f"You do not have permission to access the File {name} or it may not exist.")


async def get(call: ApiCall) -> Response:
    """Answer one file's record."""
    file = _named_file(call, "GetFileRequest")
    document = file_document(call, file, call.path["version"])
    call.parts.files.look(file)
    return answer(document)


async def list_(call: ApiCall) -> Response:
    """Answer one page of uploaded files, newest first; generated ones are not listed."""
    size = read_page_size(call.query("pageSize"), default=10, cap=100)
    before = read_page_token(call.query("pageToken"))
    mine = [
        file
        for file in call.parts.files.live()
        if file.space == call.space and (before is None or file.number < before)
    ]
    document: dict[str, Any] = {}
    if mine:
        document["files"] = [file_document(call, file, call.path["version"]) for file in mine[:size]]
    if len(mine) > size:
        document["nextPageToken"] = page_token(mine[size - 1].number)
    return answer(document)


async def delete(call: ApiCall) -> Response:
    """Delete an uploaded file."""
    file = _named_file(call, "DeleteFileRequest")
    with call.world.lock:
        call.parts.files.remove(file)
    return answer({})


async def download(call: ApiCall) -> Response:
    """Stream a generated file, whole or the part that a Range header names."""
    name = call.path["id"]
    if call.parts.files.find(call.space, name) is not None:
        raise ApiError(400, "Only generated files can be downloaded.")
    path = _generated(call, name)
    if call.query("alt") != "media":
        raise ApiError(400, "Use alt=media to download the content of a file.")
    redirect = call.world.faults.peek("download_redirect")
    if redirect and not call.request.url.path.startswith("/download/"):
        call.world.faults.take("download_redirect")
        return _redirect(call, "" if redirect is True else str(redirect))
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


def _redirect(call: ApiCall, origin: str) -> Response:
    """Send the caller on to the long path, of the same host unless another origin is named."""
    url = call.request.url
    return Response(status_code=302, headers={"location": f"{origin.rstrip('/')}/download{url.path}?{url.query}"})


def _generated(call: ApiCall, name: str) -> Path:
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
                raise ConnectionCut
            yield chunk
            start += len(chunk)
            if cut is not None:
                cut -= len(chunk)
                if cut <= 0:
                    raise ConnectionCut
