"""The service's answers to single requests: result lines and inline items in, neutral values out.

Everything here is lenient: a paid answer must not be lost because one member has a shape that nobody expected. What
cannot be read becomes a :class:`BatchResult` with an error, at its position.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from airflow_provider_gemini_batch.api.legacy import instance_key
from airflow_provider_gemini_batch.api.models import BatchResult, ServiceError, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCKED_REASONS = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "JAILBREAK",
})  # fmt: skip
"""Finish reasons that say that content was held back; sending the same request again does not help."""

GOOD_REASONS = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of a whole answer. None: the service left it out."""

_GRPC_NUMBERS = {
    "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9, "ABORTED": 10, "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}  # fmt: skip
_GRPC_FROM_HTTP = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 416: 11, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}
_UNREADABLE = "this line of the results is no JSON object"
_NEITHER = "the service gave neither a response nor an error"


def parse_result_line(line: bytes | str, position: int) -> BatchResult:
    """Read one line of a Gemini output file; ``position`` counts the lines from 0. Never raises."""
    try:
        item = from_json(line, cache_strings="keys")
        # Nearly every line of a large file has this shape; the long way reads all others.
        if len(item) == 2:  # noqa: PLR2004
            key, response = item["key"], item["response"]
            if type(key) is str and type(response) is dict and response:
                return BatchResult(key, response, None, position)
    except (ValueError, KeyError, TypeError):
        item = _object(line)
    return result_of(item, position)


def result_of(item: Any, position: int) -> BatchResult:
    """Read one answer that is JSON already: a line of a file or an inline item, whose key is in ``metadata``."""
    if not isinstance(item, dict):
        return BatchResult(None, None, ServiceError(message=_UNREADABLE), position)
    key = _key(item)
    fault = item.get("error")
    if fault is None:
        # One reader of the service's guide found the error under this name.
        fault = item.get("status")
    response = item.get("response")
    if isinstance(response, dict) and response and not fault:
        return BatchResult(key, response, None, position)
    return BatchResult(key, None, _service_error(fault), position)


def parse_vertex_line(line: bytes | str, position: int) -> BatchResult:
    """Read one line of a Vertex ``predictions*.jsonl``, generation or embeddings, newer or legacy. Never raises."""
    return vertex_result_of(_object(line), position)


def vertex_result_of(item: Any, position: int) -> BatchResult:
    """Read one Vertex row: success is an empty ``status``; the key is in ``custom_id`` or ``key``."""
    if not isinstance(item, dict):
        return BatchResult(None, None, ServiceError(message=_UNREADABLE), position)
    key = _key(item)
    if key is None and isinstance(item.get("instance"), dict):
        key = _key(item["instance"]) or instance_key(item["instance"])
    status = item.get("status") or item.get("error")
    if status:
        return BatchResult(key, None, _vertex_error(status), position)
    response = _embedded(item) if "predictions" in item else item.get("response")
    if isinstance(response, str):
        response = _object(response)
    if isinstance(response, dict) and response:
        return BatchResult(key, response, None, position)
    return BatchResult(key, None, ServiceError(message=_NEITHER), position)


def text(response: Mapping[str, Any]) -> str | None:
    """The text of the first candidate, thoughts left out; None when it has none (blocked, a function call ...)."""
    parts = _parts(response)
    if len(parts) == 1:
        found = parts[0]
        if isinstance(found, dict) and not found.get("thought"):
            value = found.get("text")
            return value if isinstance(value, str) else None
        return None
    texts = [
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
    ]
    return "".join(texts) if texts else None


def has_content(response: Mapping[str, Any]) -> bool:
    """True when the first candidate holds anything besides thoughts: text, a function call, an image."""
    return any(
        isinstance(part, dict) and not part.get("thought") and any(value not in ("", None) for value in part.values())
        for part in _parts(response)
    )


def finish_reason(response: Mapping[str, Any]) -> str | None:
    """Why the first candidate ended (``STOP``, ``MAX_TOKENS``, ``SAFETY`` ...), or None."""
    reason = _candidate(response).get("finishReason")
    return reason if isinstance(reason, str) and reason else None


def block_reason(response: Mapping[str, Any]) -> str | None:
    """Why the prompt itself was refused, or None when it was not."""
    feedback = response.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return reason if isinstance(reason, str) and reason else None


def embedding(response: Mapping[str, Any]) -> list[float] | None:
    """The vector of an embedding answer, or None."""
    found = response.get("embedding")
    values = found.get("values") if isinstance(found, dict) else None
    return values if isinstance(values, list) and values else None


def usage(response: Mapping[str, Any]) -> Usage | None:
    """The tokens that the service counted for this answer, or None when it says nothing.

    ``input_tokens`` holds prompt and tool results, cached ones included; ``output_tokens`` does not hold the thinking.
    """
    counts = response.get("usageMetadata")
    if isinstance(counts, dict):
        get = counts.get
        return Usage(
            _count(get("promptTokenCount")) + _count(get("toolUsePromptTokenCount")),
            _count(get("candidatesTokenCount")),
            _count(get("thoughtsTokenCount")),
            _count(get("cachedContentTokenCount")),
        )
    if "tokenCount" in response:
        return Usage(input_tokens=_count(response["tokenCount"]))
    return None


def _count(value: Any) -> int:
    """A token count; int64 travels as text."""
    if type(value) is int:
        return max(0, value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(2**63)):
        return int(value)
    return int(value) if isinstance(value, float) and 0 < value < 2**63 else 0


def _candidate(response: Mapping[str, Any]) -> dict[str, Any]:
    candidates = response.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    return first if isinstance(first, dict) else {}


def _parts(response: Mapping[str, Any]) -> list[Any]:
    content = _candidate(response).get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return parts if isinstance(parts, list) else []


def _object(line: bytes | str) -> Any:
    """The JSON object in a line, or None. The second reader takes what the first refuses: lone surrogates."""
    try:
        found = from_json(line, cache_strings="keys")
    except ValueError:
        found = _lenient(line)
    return found if isinstance(found, dict) else None


def _lenient(line: bytes | str) -> Any:
    try:
        loose = line if isinstance(line, str) else line.decode("utf-8", "replace")
        mended = json.dumps(json.loads(loose), ensure_ascii=False)
        return from_json(mended.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _key(item: Mapping[str, Any]) -> str | None:
    plain = item["key"] if "key" in item else item.get("custom_id")
    if type(plain) is str:
        return plain
    metadata = item.get("metadata")
    places = (item.get("key"), item.get("custom_id"), metadata.get("key") if isinstance(metadata, dict) else None)
    for value in places:
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def _service_error(fault: Any) -> ServiceError:
    if isinstance(fault, str) and fault:
        return _vertex_error(fault)
    if not isinstance(fault, dict) or not fault:
        return ServiceError(message=_NEITHER)
    inner = fault.get("error")
    if isinstance(inner, dict) and inner:
        fault = inner
    return ServiceError(code=_code(fault), message=_message(fault))


def _vertex_error(status: Any) -> ServiceError:
    """Vertex writes free text that usually ends in the JSON error: ``Bad Request: {"error": {...}}``."""
    if isinstance(status, dict):
        return _service_error(status)
    words = str(status)
    start = words.find("{")
    inner = _object(words[start:]) if start >= 0 else None
    if inner:
        error = _service_error(inner)
        return error if error.message else ServiceError(code=error.code, message=words[:start].strip(" :"))
    return ServiceError(message=words)


def _code(fault: Mapping[str, Any]) -> int | None:
    """The gRPC number, whether the service gave it, its name or an HTTP status."""
    named = _GRPC_NUMBERS.get(str(fault.get("status")))
    if named is not None:
        return named
    code = fault.get("code")
    if isinstance(code, str):
        if code in _GRPC_NUMBERS:
            return _GRPC_NUMBERS[code]
        code = int(code) if code.isascii() and code.isdigit() and len(code) < len(str(2**31)) else None
    if not isinstance(code, int) or isinstance(code, bool):
        return None
    return _GRPC_FROM_HTTP.get(code, code)


def _message(fault: Mapping[str, Any]) -> str:
    message = fault.get("message")
    return message if isinstance(message, str) else ""


def _embedded(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer of a legacy text-embedding model in the newer shape."""
    predictions = item["predictions"]
    first = predictions[0] if isinstance(predictions, list) and predictions else None
    found = first.get("embeddings") if isinstance(first, dict) else None
    if not isinstance(found, dict):
        return None
    statistics = found.get("statistics")
    count = statistics.get("token_count") if isinstance(statistics, dict) else None
    return {"embedding": {"values": found.get("values")}, **({"tokenCount": count} if count is not None else {})}
