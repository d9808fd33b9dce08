"""From one answer of the service to one output row: its status, and the JSON that is written.

The row has these members, in this order, whichever service answered:

=================  ==================================================================================================
member             holds
=================  ==================================================================================================
``key``            the author's key, or the row's number (from 0) as text
``status``         ``ok``, ``invalid_output``, ``truncated``, ``blocked``, ``error`` or ``missing``
``text``           the answer's text, kept also when the row is not ok; null where there is none (generation)
``embedding``      the vector, or null (embeddings, in place of ``text``)
``parsed``         the validated value, or null (only with an output schema)
``finish_reason``  the service's word: ``STOP``, ``MAX_TOKENS``, ``SAFETY`` ..., or null
``usage``          ``input_tokens``, ``output_tokens``, ``thinking_tokens``, ``cached_tokens``; null when not told
``error``          ``code`` (gRPC number or null) and ``message``; null for a row that is ok
carried columns    as they stood in the input
``response``       the service's own JSON (only when asked for)
=================  ==================================================================================================

``truncated`` (the answer hit its token limit), ``invalid_output`` (no content, or not what the schema wants),
``missing`` and errors with code 1, 2, 4, 8, 10, 13, 14 or none may be mended by a second try. ``blocked`` and other
errors may not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, to_json

from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, ServiceError, Usage
from airflow_provider_gemini_batch.api.responses import reading

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.rows.schema import OutputSchema

RETRYABLE_CODES = frozenset({None, 1, 2, 4, 8, 10, 13, 14})
"""gRPC numbers of row errors that a second try can mend: cancelled, unknown, late, quota, aborted, internal, busy."""


class RowStatus(IntEnum):
    """The status of a row as one byte; ``word`` is what the output says. 0 is kept for a row without an answer."""

    MISSING = 0
    OK = 1
    INVALID_OUTPUT = 2
    TRUNCATED = 3
    BLOCKED = 4
    ERROR = 5
    TRANSIENT_ERROR = 6

    @property
    def word(self) -> str:
        """The status as it is written."""
        return _WORDS[self]


_WORDS = ("missing", "ok", "invalid_output", "truncated", "blocked", "error", "error")
REPAIRABLE = frozenset({RowStatus.MISSING, RowStatus.INVALID_OUTPUT, RowStatus.TRUNCATED, RowStatus.TRANSIENT_ERROR})
_OK = RowStatus.OK
# What RowMaker.members() makes of a plain good answer, as JSON: writing it costs half of what a dictionary does.
_QUICK_ROW = (
    b'{"key":%b,"status":"ok","text":%b,"finish_reason":"STOP","usage":'
    b'{"input_tokens":%d,"output_tokens":%d,"thinking_tokens":%d,"cached_tokens":%d},"error":null}\n'
)


AnswerRow = tuple[RowStatus, bytes, tuple[int, int, int, int] | None]
"""Status, the row as JSON with its newline and without carried columns, and its usage."""


class RowMaker:
    """Makes output rows of answers, the same way for every service and every kind of sink."""

    def __init__(self, kind: JobKind, *, schema: OutputSchema | None = None, keep_response: bool = False) -> None:
        self._embeddings = kind is JobKind.EMBEDDINGS
        self._schema = schema
        self._quick = kind is JobKind.GENERATION and schema is None and not keep_response
        self._keep_response = keep_response

    def members(self, result: BatchResult, key: str) -> tuple[RowStatus, dict[str, Any], Usage | None]:
        """Status, row and usage of an answer; ``key`` is the one to show."""
        response = result.response
        if response is None:
            return self._failed(key, result.error or ServiceError())
        usage = reading.usage(response)
        row: dict[str, Any] = {"key": key, "status": "ok"}
        if self._embeddings:
            status, fault = self._read_embedding(response, row)
        else:
            status, fault = self._read_generation(response, row)
        row["usage"] = None if usage is None else usage._asdict()
        if status is _OK:
            row["error"] = None
        else:
            row["status"] = status.word
            row["error"] = {"code": None, "message": fault}
        if self._keep_response:
            row["response"] = response
        return status, row, usage

    def line(self, result: BatchResult, key: str) -> AnswerRow:
        """The row of an answer as a line of JSON."""
        response = result[1]
        if self._quick and response is not None:
            made = _quick_row(response, key)
            if made is not None:
                return made
        status, row, usage = self.members(result, key)
        return status, _json_line(row), usage

    def missing(self, key: str) -> bytes:
        """The row for a request that got no answer."""
        error = ServiceError(message="the service gave no answer to this row")
        row = self._failed(key, error)[1]
        row["status"] = RowStatus.MISSING.word
        return _json_line(row)

    def _failed(self, key: str, error: ServiceError) -> tuple[RowStatus, dict[str, Any], None]:
        row: dict[str, Any] = {"key": key, "status": "error", "embedding" if self._embeddings else "text": None}
        if self._schema is not None:
            row["parsed"] = None
        row.update(finish_reason=None, usage=None, error={"code": error.code, "message": error.message})
        if self._keep_response:
            row["response"] = None
        status = RowStatus.TRANSIENT_ERROR if error.code in RETRYABLE_CODES else RowStatus.ERROR
        return status, row, None

    def _read_embedding(self, response: dict[str, Any], row: dict[str, Any]) -> tuple[RowStatus, str]:
        row["embedding"] = vector = reading.embedding(response)
        row["finish_reason"] = None
        return (_OK, "") if vector is not None else (RowStatus.INVALID_OUTPUT, "the answer has no embedding")

    def _read_generation(self, response: dict[str, Any], row: dict[str, Any]) -> tuple[RowStatus, str]:
        row["text"] = text = reading.text(response)
        reason = reading.finish_reason(response)
        if self._schema is not None:
            row["parsed"] = None
        row["finish_reason"] = reason
        if reason not in reading.GOOD_REASONS or not text:
            status, fault = _bad_ending(response, reason)
            if status is not _OK:
                return status, fault
        if self._schema is not None:
            row["parsed"], fault = self._schema.read(text or "")
            if fault:
                return RowStatus.INVALID_OUTPUT, fault
        return _OK, ""


def _quick_row(response: dict[str, Any], key: str) -> AnswerRow | None:
    """The row of an answer that is one text and ended well; None for all others, which go the long way."""
    try:
        (candidate,) = response["candidates"]
        (part,) = candidate["content"]["parts"]
        text = part["text"]
        counts = response["usageMetadata"]
        tokens_in = counts["promptTokenCount"]
        tokens_out = counts.get("candidatesTokenCount", 0)
        thought = counts.get("thoughtsTokenCount", 0)
        cached = counts.get("cachedContentTokenCount", 0)
        if candidate["finishReason"] != "STOP":
            return None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    if (
        type(text) is not str
        or not text
        or "thought" in part
        or "toolUsePromptTokenCount" in counts
        or "promptFeedback" in response
        or not type(tokens_in) is type(tokens_out) is type(thought) is type(cached) is int
        or tokens_in < 0
        or tokens_out < 0
        or thought < 0
        or cached < 0
    ):
        return None
    usage = (tokens_in, tokens_out, thought, cached)
    return _OK, _QUICK_ROW % (to_json(key), to_json(text), *usage), usage


def _bad_ending(response: dict[str, Any], reason: str | None) -> tuple[RowStatus, str]:
    """What an ending that is not a plain STOP with text means."""
    blocked = reading.block_reason(response)
    if blocked is not None:
        return RowStatus.BLOCKED, f"the prompt was blocked ({blocked})"
    if reason in reading.BLOCKED_REASONS:
        return RowStatus.BLOCKED, f"the answer was blocked ({reason})"
    if reason == "MAX_TOKENS":
        return RowStatus.TRUNCATED, "the answer ended at its token limit (MAX_TOKENS)"
    if reason not in reading.GOOD_REASONS:
        return RowStatus.INVALID_OUTPUT, f"the answer ended badly ({reason})"
    if not reading.has_content(response):
        return RowStatus.INVALID_OUTPUT, "the answer has no content"
    return _OK, ""


def _json_line(row: dict[str, Any]) -> bytes:
    try:
        return to_json(row, inf_nan_mode="null") + b"\n"
    except (PydanticSerializationError, UnicodeEncodeError):
        # Only values handed in from Python can hold lone surrogates; what came as JSON cannot.
        return to_json(_mended(row), inf_nan_mode="null") + b"\n"


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_mended(name): _mended(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    return value
