"""What a request fault does to a call: another answer, none, a slow one, or one that is far too large."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any

from starlette.responses import Response, StreamingResponse

from airflow_provider_gemini_batch.emulator.call import ConnectionCut
from airflow_provider_gemini_batch.emulator.wire import ApiError, quota_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from airflow_provider_gemini_batch.emulator.call import ApiCall
    from airflow_provider_gemini_batch.emulator.faults import RequestFault

_MESSAGES = {
    500: "An internal error has occurred.",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}
_BLOCK = 1 << 20
#: What a bomb is wrapped in: one row of a file, and one JSON object.
_PREFIX = '{"key": "k1", "response": {"candidates": [{"content": {"role": "model", "parts": [{"text": "'
_SUFFIX = '"}]}, "finishReason": "STOP", "index": 0}]}}\n'


async def apply_before(fault: RequestFault, call: ApiCall) -> Response | None:
    """Do what a fault does to a call before the service acts; an answer ends the call."""
    if fault.kind == "slow":
        if call.operation == "create":
            await call.keep_body()
        await asyncio.sleep(float(fault.options.get("seconds", 1)))
        return None
    if fault.kind == "reset":
        raise ConnectionCut
    await call.drain()
    return _answer(fault, call)


async def apply_after(fault: RequestFault, call: ApiCall, response: Response) -> Response:
    """Return what becomes of an answer when the service has acted."""
    options = fault.options
    if fault.kind == "slow":
        await asyncio.sleep(float(options.get("seconds", 1)))
        return response
    if fault.kind == "reset":
        raise ConnectionCut
    if fault.kind == "garbage":
        return Response(str(options.get("body", "<<<")).encode(), 200, media_type="application/json")
    if fault.kind == "drip":
        pieces = _drip(response, int(options.get("bytes", 1)), float(options.get("seconds", 1)))
        return StreamingResponse(pieces, response.status_code, dict(response.headers))
    return _answer(fault, call)


def _answer(fault: RequestFault, call: ApiCall) -> Response:
    options = fault.options
    if fault.kind == "redirect":
        return _redirect(call, str(options.get("to") or call.own_url), int(options.get("status", 302)))
    if fault.kind == "bomb":
        return _bomb(options)
    return _error(options)


def _redirect(call: ApiCall, target: str, status: int) -> Response:
    """Send the caller to a URL; an origin without a path keeps the path and query of the call."""
    if "/" not in target.partition("://")[2]:
        url = call.request.url
        target += f"{url.path}?{url.query}" if url.query else url.path
    return Response(status_code=status, headers={"location": target})


def _error(options: dict[str, Any]) -> Response:
    status = int(options.get("status", 503))
    headers = {"retry-after": str(options["retry_after"])} if options.get("retry_after") is not None else {}
    body = options.get("body", "html" if status == 502 else "json")  # noqa: PLR2004 - gateways answer 502 in HTML
    if body == "html":
        page = f"<html><head><title>{status}</title></head><body>Bad gateway</body></html>"
        return Response(page, status, headers, media_type="text/html")
    if body == "text":
        return Response(str(options.get("message", "upstream error")), status, headers, media_type="text/plain")
    if status == 429:  # noqa: PLR2004 - quota
        error = quota_error(options.get("message"), retry_info=options.get("retry_info"))
    else:
        error = ApiError(
            status, options.get("message") or _MESSAGES.get(status, "The emulator was told to refuse this call.")
        )
    error.status = options.get("error_status") or error.status
    document: Any = [error.body()] if body == "array" else error.body()
    return Response(json.dumps(document), status, headers, media_type="application/json; charset=UTF-8")


def _bomb(options: dict[str, Any]) -> Response:
    size = int(options.get("bytes", 1 << 30))
    before = str(options.get("prefix", _PREFIX)).encode()
    after = str(options.get("suffix", _SUFFIX)).encode()
    status = int(options.get("status", 200))
    if options.get("gzip", True):
        headers = {"content-encoding": "gzip"}
        return StreamingResponse(_packed(before, size, after), status, headers, media_type="application/json")
    return StreamingResponse(_plain(before, size, after), status, media_type="application/json")


def _plain(before: bytes, size: int, after: bytes) -> Iterator[bytes]:
    yield before
    block = b"a" * _BLOCK
    for _ in range(size // _BLOCK):
        yield block
    yield block[: size % _BLOCK] + after


def _packed(before: bytes, size: int, after: bytes) -> Iterator[bytes]:
    """Yield the same as gzip. One block is compressed once and repeated: after a full flush nothing refers back."""
    block = b"a" * _BLOCK
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.crc32(before)
    for _ in range(size // _BLOCK):
        yield packed
        checksum = zlib.crc32(block, checksum)
    rest = block[: size % _BLOCK] + after
    checksum = zlib.crc32(rest, checksum)
    total = (len(before) + size + len(after)) & 0xFFFFFFFF
    yield packer.compress(rest) + packer.flush() + checksum.to_bytes(4, "little") + total.to_bytes(4, "little")


async def _drip(response: Response, size: int, seconds: float) -> AsyncIterator[bytes]:
    """Yield an answer in pieces with a pause before each."""
    if isinstance(response, StreamingResponse):
        async for chunk in response.body_iterator:
            content = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
            for start in range(0, len(content), size):
                await asyncio.sleep(seconds)
                yield content[start : start + size]
        return
    for start in range(0, len(response.body), size):
        await asyncio.sleep(seconds)
        yield bytes(response.body[start : start + size])
