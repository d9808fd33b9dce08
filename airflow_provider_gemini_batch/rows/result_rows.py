"""From one response of the service to one result row: its status, and the JSON that is written.

The row has these members, in this order, whichever service answered:

==================  =================================================================================================
member              holds
==================  =================================================================================================
``key``             the author's key, or the row's number (from 0) as text
``status``          ``ok``, ``invalid_output``, ``truncated``, ``blocked``, ``error`` or ``missing``
``text``            the response's text, even of a row that is not ok; null where there is none (generation)
``embedding``       the vector, or null (embeddings, in place of ``text``)
``parsed``          the validated value, or null (only with an output schema)
``finish_reason``   the service's word: ``STOP``, ``MAX_TOKENS``, ``SAFETY`` ..., or null
``usage``           counts of :class:`.Usage`, zeros beyond the first four left out; null when not reported
``error``           ``code`` (gRPC number or null) and ``message``; null for a row that is ok
:data:`PARTS`       what else the response holds; each is left out if it is empty
carried columns     as they were in the input
``response``        the service's own JSON (only when asked for)
==================  =================================================================================================

``truncated`` (the response hit its token limit), ``invalid_output`` (no content, or not what the schema wants),
``missing``, and errors with code 1, 2, 4, 8, 10, 13, 14 or none may succeed when they are sent again. ``blocked`` and
other errors will not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct
from msgspec.json import Encoder
from pydantic_core import PydanticSerializationError, to_json

from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, ServiceError, Usage
from airflow_provider_gemini_batch.api.responses.content import (
    BLOCKED_REASONS,
    GOOD_REASONS,
    Content,
    block_reason,
    candidates,
    content_of,
    finish_reason,
    oddities_of_embedding,
    vector_of,
)
from airflow_provider_gemini_batch.api.responses.fast_path import PlainResult
from airflow_provider_gemini_batch.api.responses.usage import usage_of
from airflow_provider_gemini_batch.rows.media import not_kept
from airflow_provider_gemini_batch.rows.vectors import fit_vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.rows.media import MediaFolder
    from airflow_provider_gemini_batch.rows.schema import OutputSchema

PARTS = {
    "function_calls": "list of ``{id?, name, args}``",
    "executed_code": "list of ``{executableCode: ...}`` and ``{codeExecutionResult: ...}``, in their order",
    "thoughts": "the text of the thoughts",
    "media_files": "list of ``{path, uri, mime_type, bytes, thought}``",
    "other_parts": "list of parts of a kind that is not known here, as they came",
    "candidate_metadata": "object: what the service says beside the content, such as ``groundingMetadata``",
    "more_candidates": "list of further candidates, with the same members and ``index``",
    "warning": "what was odd about the response, or done to it",
}
"""Members of a row that are left out if they are empty."""
ROW_MEMBERS = (
    "key", "status", "text", "embedding", "parsed", "finish_reason", "usage", "error", *PARTS, "response"
)  # fmt: skip
"""Names that a carried column may not take; a row has either ``text`` or ``embedding``."""

# Of a response without candidates, these members say nothing that a row lacks.
_READ = frozenset({"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime"})

# gRPC numbers of row errors worth a second try: cancelled, unknown, late, quota, aborted, internal, busy.
_RETRYABLE_CODES = frozenset({None, 1, 2, 4, 8, 10, 13, 14})


class RowStatus(IntEnum):
    """The status of a row as one byte; ``word`` is what the output says. 0 stands for a row without a response."""

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
#: The reason of a row without the vector that was asked for.
NO_VECTOR = "embedding"
_encode_lines = Encoder().encode_lines


# What RowMaker.members() gives for a plain good response, in members that are encoded in half the time of a dictionary.
class _PlainUsage(Struct, gc=False):
    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    cached_tokens: int


class _TextRow(Struct, gc=False):
    key: str
    status: str
    text: str
    finish_reason: str
    usage: _PlainUsage
    error: None = None


class _VectorRow(Struct, gc=False):
    key: str
    status: str
    embedding: Raw
    finish_reason: None
    usage: _PlainUsage
    error: None = None


ResponseRow = tuple[RowStatus, bytes, tuple[int, ...] | None, str, bool]
"""Status, the row as JSON with its newline and without carried columns, its usage, why it is not ok, if it warns.

The usage has four members or those of :class:`.Usage`. The reason is the service's word or number for a failure. A bare
tuple, since millions of rows have one each.
"""


class RowMaker:
    """Turns responses into result rows, in the same way for every service and every sink.

    :param media: where media is written; None: rows say that it is not kept.
    :param dimensions: the requested length of vectors; None: any length is accepted.
    """

    def __init__(
        self,
        kind: JobKind,
        *,
        schema: OutputSchema | None = None,
        keep_response: bool = False,
        media: MediaFolder | None = None,
        dimensions: int | None = None,
    ) -> None:
        self._embeddings = kind is JobKind.EMBEDDINGS
        self._schema = schema
        self._quick = schema is None and not keep_response
        self._keep_response = keep_response
        self._media = media
        self._dimensions = dimensions

    def line(self, result: BatchResult, key: str, number: int = 0) -> ResponseRow:
        """Return the row of a response as a line of JSON; ``number`` goes into the names of media files."""
        if type(result) is PlainResult and (line := self.plain_lines([result], [key])):
            if self._media is not None:
                self._media.settle(number, (), final=True)
            return _OK, line, result.counts, "", False
        status, members, usage, reason = self.members(result, key, number)
        return status, json_line(members), usage, reason, "warning" in members

    def plain_lines(self, results: Sequence[PlainResult], keys: Sequence[str]) -> bytes:
        """Return the rows of plain good responses as lines of JSON; empty if one of them needs :meth:`line`."""
        if not self._quick:
            return b""
        pairs = zip(results, keys, strict=True)
        if not self._embeddings:
            if not all(one.text for one in results):
                return b""
            texts = [_TextRow(key, "ok", one.text, "STOP", _PlainUsage(*one.counts)) for one, key in pairs]
            return _encode_lines(texts)
        if not all(one.vector and self._dimensions in (None, one.vector.count(b",") + 1) for one in results):
            return b""
        vectors = [_VectorRow(key, "ok", Raw(one.vector), None, _PlainUsage(*one.counts)) for one, key in pairs]
        return _encode_lines(vectors)

    def missing(self, key: str) -> bytes:
        """Return the row for a request without a response."""
        error = ServiceError(message="the service gave no response to this row")
        row = self._failed_row(error, key)[1]
        row["status"] = RowStatus.MISSING.word
        return json_line(row)

    def members(
        self, result: BatchResult, key: str, number: int = 0
    ) -> tuple[RowStatus, dict[str, Any], Usage | None, str]:
        """Return status, row and usage of a response, and why it is not ok; ``key`` is the one to show."""
        response, error = result.billed or result.response, result.error
        if response is None:
            return self._failed_row(error or ServiceError(), key)
        usage, odd = usage_of(response)
        row: dict[str, Any] = {"key": key, "status": "ok"}
        oddities = [odd] if odd else []
        read = self._read_embedding if self._embeddings else self._read_generation
        status, fault, reason, parts = read(response, row, key, number, oddities)
        if error is not None:
            status, reason = _failure(error)
            if self._schema is not None:
                row["parsed"] = None
        row["usage"] = None if usage is None else usage.shown()
        if status is _OK:
            row["error"] = None
        else:
            row["status"] = status.word
            row["error"] = {"code": None, "message": fault} if error is None else error.model_dump()
        row.update(parts)
        if oddities:
            row["warning"] = "; ".join(oddities)
        if self._keep_response:
            row["response"] = response
        if self._media is not None:
            self._media.settle(number, _paths(row), final=status is _OK)
        return status, row, usage, reason

    def _failed_row(self, error: ServiceError, key: str) -> tuple[RowStatus, dict[str, Any], Usage | None, str]:
        status, reason = _failure(error)
        row: dict[str, Any] = {"key": key, "status": status.word, "embedding" if self._embeddings else "text": None}
        if self._schema is not None:
            row["parsed"] = None
        row |= {"finish_reason": None, "usage": None, "error": error.model_dump()}
        if self._keep_response:
            row["response"] = None
        return status, row, None, reason

    def _read_embedding(
        self, response: dict[str, Any], row: dict[str, Any], _key: str, _number: int, oddities: list[str]
    ) -> tuple[RowStatus, str, str, dict[str, Any]]:
        vector, fault = vector_of(response)
        if vector is not None and self._dimensions is not None:
            vector, fault, note = fit_vector(vector, self._dimensions)
            if note:
                oddities.append(note)
        oddities += oddities_of_embedding(response)
        row["embedding"] = vector
        row["finish_reason"] = None
        return (RowStatus.INVALID_OUTPUT if fault else _OK), fault, NO_VECTOR if fault else "", {}

    def _read_generation(
        self, response: dict[str, Any], row: dict[str, Any], key: str, number: int, oddities: list[str]
    ) -> tuple[RowStatus, str, str, dict[str, Any]]:
        found = candidates(response)
        first = found[0] if found else {}
        content = content_of(first)
        reason = finish_reason(first)
        row["text"] = content.text
        if self._schema is not None:
            row["parsed"] = None
        row["finish_reason"] = reason
        parts = self._parts(content, key, number, 0, oddities)
        if len(found) > 1:
            parts["more_candidates"] = [
                {
                    "index": one.get("index"),
                    "text": (more := content_of(one)).text,
                    "finish_reason": finish_reason(one),
                    **self._parts(more, key, number, place, oddities),
                }
                for place, one in enumerate(found[1:], start=1)
            ]
        status, fault, word = _ending(response, reason, content)
        if others := unread(response):
            parts["other_parts"] = [others]
        if status is _OK and self._schema is not None:
            row["parsed"], fault = self._schema.read(content.text or "")
            if fault:
                status, word = RowStatus.INVALID_OUTPUT, "output_schema"
        return status, fault, word, parts

    def _parts(self, content: Content, key: str, number: int, candidate: int, oddities: list[str]) -> dict[str, Any]:
        """Return what a candidate holds beside its text, after writing its media."""
        files: Any = ()
        if content.media:
            save = self._media
            files, odd = not_kept(content.media) if save is None else save.save(key, number, candidate, content.media)
            if odd:
                oddities.append(odd)
        parts = {
            "function_calls": content.function_calls,
            "executed_code": content.code,
            "thoughts": content.thoughts,
            "media_files": files,
            "other_parts": content.others,
            "candidate_metadata": content.metadata,
        }
        return {name: value for name, value in parts.items() if value}


def _failure(error: ServiceError) -> tuple[RowStatus, str]:
    status = RowStatus.TRANSIENT_ERROR if error.code in _RETRYABLE_CODES else RowStatus.ERROR
    return status, "" if error.code is None else str(error.code)


def unread(response: dict[str, Any]) -> dict[str, Any]:
    """Return what a response without candidates holds that no member of a row shows."""
    return {name: value for name, value in response.items() if name not in _READ and value and not candidates(response)}


def _paths(row: dict[str, Any]) -> list[str]:
    """Return the paths of the files that a row names."""
    holders = (row, *row.get("more_candidates", ()))
    return [file["path"] for holder in holders for file in holder.get("media_files", ()) if file["path"]]


def _ending(response: dict[str, Any], reason: str | None, content: Content) -> tuple[RowStatus, str, str]:
    """Return a row's status by how its response ended, and what is wrong, with the service's word for it."""
    if reason in GOOD_REASONS and content.text:
        return _OK, "", ""
    blocked = block_reason(response)
    if blocked is not None:
        return RowStatus.BLOCKED, f"the prompt was blocked ({blocked})", blocked
    if reason in BLOCKED_REASONS:
        return RowStatus.BLOCKED, f"the response was blocked ({reason})", str(reason)
    if reason == "MAX_TOKENS":
        return RowStatus.TRUNCATED, "the response ended at its token limit (MAX_TOKENS)", reason
    if reason not in GOOD_REASONS:
        return RowStatus.INVALID_OUTPUT, f"the response ended badly ({reason})", str(reason)
    if content.is_empty:
        return RowStatus.INVALID_OUTPUT, "the response has no content", "empty"
    return _OK, "", ""


def json_line(value: Any) -> bytes:
    """Return a value as a line of JSON, whatever it holds: a lone surrogate becomes a question mark."""
    try:
        return to_json(value, inf_nan_mode="null", bytes_mode="base64", fallback=str) + b"\n"
    except (PydanticSerializationError, UnicodeEncodeError):
        # What was read as JSON holds no lone surrogates or bytes; what comes from a table or from Python may.
        return to_json(_make_writable(value), inf_nan_mode="null", bytes_mode="base64", fallback=str) + b"\n"


def _make_writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_make_writable(name): _make_writable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_make_writable(inner) for inner in value]
    return value
