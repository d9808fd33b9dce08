"""The fast path of reading a line of results: the shapes that nearly all lines have, decoded without a dictionary.

A line that differs in any way, even by one unknown member, goes the long way through :mod:`.reading`, which accepts
every shape. What is not needed (on Vertex AI the whole request, which each line repeats) is skipped, not parsed.
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
_BLANKS = b" \t\r"
# What a list of numbers consists of, in one pass: digits become 0, what else it may hold a comma, and all others x.
_SHAPES = bytes(ord("0" if chr(one) in "0123456789" else "," if chr(one) in "+-.,[]" else "x") for one in range(256))
# A number of so many digits may be beyond 32 bits as a float.
_TOO_MANY_DIGITS = b"0" * 39
# The most digits of a count that is text: any number of so many digits is below 2^53.
_DIGITS = 15


class _Text(Struct, gc=False, frozen=True):
    """One entry of a list of tokens by modality; any but text goes the long way."""

    modality: Literal["TEXT"]
    tokenCount: _Count = 0  # noqa: N815  (the service's spelling)


_Details = Annotated[tuple[_Text, ...], Meta(max_length=1)]
_NoDetails = Annotated[tuple[_Text, ...], Meta(max_length=0)]


class TextCounts(Struct, gc=False, frozen=True):
    """``usageMetadata`` that counts only text."""

    promptTokenCount: _Count  # noqa: N815  (the service's spelling)
    candidatesTokenCount: _Count = 0  # noqa: N815
    thoughtsTokenCount: _Count = 0  # noqa: N815
    cachedContentTokenCount: _Count = 0  # noqa: N815
    totalTokenCount: _Count = 0  # noqa: N815
    toolUsePromptTokenCount: Literal[0] = 0  # noqa: N815
    promptTokensDetails: _Details = ()  # noqa: N815
    candidatesTokensDetails: _Details = ()  # noqa: N815
    cacheTokensDetails: _Details = ()  # noqa: N815
    toolUsePromptTokensDetails: _NoDetails = ()  # noqa: N815
    promptTokenDetails: _Details = ()  # noqa: N815
    candidatesTokenDetails: _NoDetails = ()  # noqa: N815
    cacheTokenDetails: _NoDetails = ()  # noqa: N815
    toolUsePromptTokenDetails: _NoDetails = ()  # noqa: N815

    def totals(self) -> tuple[int, int, int, int] | None:
        """Return the tokens of input, output, thinking and cache; None if the total or a list has more of them."""
        prompt, answered, thought = self.promptTokenCount, self.candidatesTokenCount, self.thoughtsTokenCount
        cached, also_prompt = self.cachedContentTokenCount, self.promptTokenDetails
        if (
            self.totalTokenCount > prompt + answered + thought
            or ((found := self.promptTokensDetails) and (found[0].tokenCount > prompt or also_prompt))
            or (also_prompt and also_prompt[0].tokenCount > prompt)  # embeddings spell it without an s
            or ((found := self.candidatesTokensDetails) and found[0].tokenCount > answered)
            or ((found := self.cacheTokensDetails) and found[0].tokenCount > cached)
        ):
            return None
        return prompt, answered, thought, cached


class _Part(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    text: str
    thoughtSignature: str = ""  # noqa: N815


class _Content(Struct, gc=False, frozen=True):
    parts: tuple[_Part]


class _Candidate(Struct, gc=False, frozen=True):
    content: _Content
    finishReason: Literal["STOP"]  # noqa: N815
    groundingMetadata: None = None  # noqa: N815
    urlContextMetadata: None = None  # noqa: N815
    citationMetadata: None = None  # noqa: N815
    logprobsResult: None = None  # noqa: N815
    finishMessage: Literal[""] | None = None  # noqa: N815
    continuationToken: Literal[""] | None = None  # noqa: N815


class _Vector(Struct, gc=False, frozen=True):
    values: Raw
    statistics: None = None


class _Response(Struct, gc=False, frozen=True):
    usageMetadata: TextCounts | None = None  # noqa: N815
    candidates: tuple[_Candidate] | None = None
    embedding: _Vector | None = None
    tokenCount: _Count | str | None = None  # noqa: N815
    responseId: str = ""  # noqa: N815
    promptFeedback: None = None  # noqa: N815
    truncated: bool | None = None


class _Line(Struct, gc=False, frozen=True):
    response: _Response
    key: str | None = None
    custom_id: str | None = None
    status: Literal[""] | None = None
    error: None = None


class PlainResult(BatchResult):
    """A plain good response: one text, or one vector (as a JSON list). Its whole JSON is parsed only if it is used.

    ``counts`` are the tokens of input, output, thinking and cache; ``line`` is the response as it came.
    """

    __slots__ = ("_read", "_whole_result", "counts", "line", "response_id", "text", "vector")

    error = None

    def __init__(  # noqa: PLR0917  (made for each of millions of rows)
        self,
        key: str,
        position: int,
        text: str,
        vector: bytes,
        counts: tuple[int, int, int, int],
        response_id: str,
        line: bytes,
        read: Callable[[bytes, int], BatchResult],
    ) -> None:
        self.key = key
        self.position = position
        self.text = text
        self.vector = vector
        self.counts = counts
        self.response_id = response_id
        self.line = line
        self._read = read

    @property
    def _whole(self) -> BatchResult:
        if not hasattr(self, "_whole_result"):
            self._whole_result = self._read(self.line, self.position)
        return self._whole_result

    @property
    def response(self) -> dict[str, Any] | None:  # type: ignore[override]
        """The service's JSON object."""
        return self._whole.response

    @property
    def beside(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What else was in the line."""
        return self._whole.beside

    @property
    def billed(self) -> dict[str, Any] | None:  # type: ignore[override]
        """The response: it is good, so it is billed."""
        return self._whole.response


_decode = Decoder(_Line).decode


def plain_result(line: bytes, position: int, read: Callable[[bytes, int], BatchResult]) -> PlainResult | None:
    """Return the result in a line, or None if it needs the long way. ``read`` goes that way if the JSON is used."""
    try:
        found = _decode(line)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    response = found.response
    key = found.key if found.key is not None else found.custom_id
    if key is None or response.truncated:
        return None
    usage = response.usageMetadata
    counts = None if usage is None else usage.totals()
    if response.candidates is None:
        if usage is None:
            counts = _counts_of(response.tokenCount)
        elif not usage.promptTokenCount:
            return None
        vector = _vector(response)
        return PlainResult(key, position, "", vector, counts, "", line, read) if vector and counts else None
    if counts is None or response.embedding is not None or response.tokenCount is not None:
        return None
    text = response.candidates[0].content.parts[0].text
    return PlainResult(key, position, text, b"", counts, response.responseId, line, read) if text else None


def _vector(response: _Response) -> bytes:
    """Return a list of plain numbers without blanks; empty for anything else, which needs the long way."""
    if response.embedding is None:
        return b""
    vector = bytes(response.embedding.values).translate(None, _BLANKS)
    shape = vector.translate(_SHAPES)
    plain = vector[:1] == b"[" and vector.count(b"[") == 1 and b"x" not in shape and _TOO_MANY_DIGITS not in shape
    return vector if plain and vector != b"[]" else b""


def _counts_of(count: int | str | None) -> tuple[int, int, int, int] | None:
    if isinstance(count, str) and count.isascii() and count.isdigit() and len(count) <= _DIGITS:
        count = int(count)
    return (count, 0, 0, 0) if isinstance(count, int) else None
