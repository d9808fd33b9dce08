"""The quick way to read a line of results: the shapes that nearly all lines have, decoded without a dictionary.

A line that differs in anything, and be it a member that is unknown here, is refused and goes the long way of
:mod:`.reading`, which takes every shape. What is not asked for (on Vertex AI the whole request, which comes back in
each line) is skipped, not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import DecodeError, Meta, Raw, Struct
from msgspec.json import Decoder

from airflow_provider_gemini_batch.api.models import BatchResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Strictly below 2^53, where every reader of JSON agrees on a number.
_Count = Annotated[int, Meta(ge=0, lt=2**53)]
_NUMBERS = b"0123456789+-.,[]"
_BLANKS = b" \t\r"


class _Text(Struct, gc=False, frozen=True):
    """One entry of a list of tokens by modality; all others than text go the long way."""

    modality: Literal["TEXT"]


class Counts(Struct, gc=False, frozen=True):
    """``usageMetadata`` of text and nothing else."""

    promptTokenCount: _Count  # noqa: N815  (the service's spelling)
    candidatesTokenCount: _Count = 0  # noqa: N815
    thoughtsTokenCount: _Count = 0  # noqa: N815
    cachedContentTokenCount: _Count = 0  # noqa: N815
    toolUsePromptTokenCount: Literal[0] = 0  # noqa: N815
    promptTokensDetails: tuple[_Text, ...] = ()  # noqa: N815
    candidatesTokensDetails: tuple[_Text, ...] = ()  # noqa: N815
    cacheTokensDetails: tuple[_Text, ...] = ()  # noqa: N815
    promptTokenDetails: tuple[_Text, ...] = ()  # noqa: N815
    candidatesTokenDetails: tuple[_Text, ...] = ()  # noqa: N815


class _Part(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    text: str
    thoughtSignature: str = ""  # noqa: N815


class _Content(Struct, gc=False, frozen=True):
    parts: tuple[_Part]


class _Candidate(Struct, gc=False, frozen=True):
    content: _Content
    finishReason: Literal["STOP"]  # noqa: N815
    groundingMetadata: None = None  # noqa: N815


class _Vector(Struct, gc=False, frozen=True):
    values: Raw


class _Response(Struct, gc=False, frozen=True):
    usageMetadata: Counts | None = None  # noqa: N815
    candidates: tuple[_Candidate] | None = None
    embedding: _Vector | None = None
    tokenCount: _Count | str | None = None  # noqa: N815
    responseId: str = ""  # noqa: N815
    promptFeedback: None = None  # noqa: N815


class _Line(Struct, gc=False, frozen=True):
    response: _Response
    key: str | None = None
    custom_id: str | None = None
    status: Literal[""] | None = None
    error: None = None


class Plain(Struct, gc=False, frozen=True):
    """What a plain good answer says: one text or one vector (a JSON list as it came), and its tokens."""

    text: str
    vector: bytes
    counts: tuple[int, int, int, int] | None
    response_id: str


class PlainResult(BatchResult):
    """A plain good answer; its JSON is read when somebody asks for it."""

    __slots__ = ("_item", "_line", "_read", "plain")

    def __init__(self, key: str, position: int, plain: Plain, line: bytes, read: Callable[[bytes], Any]) -> None:
        self.key = key
        self.error = None
        self.position = position
        self.plain = plain
        self._line = line
        self._read = read
        self._item: BatchResult | None = None

    @property
    def _whole(self) -> BatchResult:
        if self._item is None:
            self._item = self._read(self._line)
        return self._item

    @property
    def response(self) -> dict[str, Any] | None:  # type: ignore[override]
        """The service's JSON object."""
        return self._whole.response

    @property
    def beside(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What else stood in the line."""
        return self._whole.beside

    @property
    def billed(self) -> dict[str, Any] | None:  # type: ignore[override]
        """The response: it is good, so it is billed."""
        return self._whole.response


_decode = Decoder(_Line).decode


def plain_result(line: bytes, position: int, read: Callable[[bytes], BatchResult]) -> PlainResult | None:
    """Read a line the quick way, or return None. ``read`` reads it the long way, should its JSON be asked for."""
    try:
        found = _decode(line)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    response = found.response
    key = found.key if found.key is not None else found.custom_id
    if key is None:
        return None
    text, vector = "", b""
    if response.candidates is not None and response.embedding is None and response.tokenCount is None:
        text = response.candidates[0].content.parts[0].text
    elif response.candidates is None and response.embedding is not None:
        vector = bytes(response.embedding.values).translate(None, _BLANKS)
        # A list of plain numbers and nothing else; what looks odd is looked at one by one.
        if vector[:1] != b"[" or vector.count(b"[") != 1 or vector.translate(None, _NUMBERS):
            return None
    counts = _counts(response)
    if counts is None or not (text or len(vector) > len(b"[]")):
        return None
    return PlainResult(key, position, Plain(text, vector, counts, response.responseId), line, read)


def _counts(response: _Response) -> tuple[int, int, int, int] | None:
    counts = response.usageMetadata
    if counts is not None:
        prompt = counts.promptTokenCount
        return prompt, counts.candidatesTokenCount, counts.thoughtsTokenCount, counts.cachedContentTokenCount
    told = response.tokenCount
    if isinstance(told, int):
        return told, 0, 0, 0
    if told is not None and told.isascii() and told.isdigit() and len(told) <= 15:  # noqa: PLR2004
        return int(told), 0, 0, 0
    return None
