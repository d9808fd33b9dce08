"""The fast path of reading a request: one that holds only text, as nearly all do, without a dictionary.

A request that differs in any way, even by one unknown member, goes the long way through :mod:`.request`. Every request
that is accepted here would also pass :func:`.request.is_ready`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType
from msgspec.json import Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Part(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    text: str


class _Turn(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    parts: Annotated[tuple[_Part, ...], Meta(min_length=1)]
    role: Literal["user", "model", ""] | None = None


class _Instruction(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    parts: Annotated[tuple[_Part, ...], Meta(min_length=1)]
    role: str | None = None


class _Thinking(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    thinkingBudget: int  # noqa: N815  (the service's spelling)
    includeThoughts: bool = False  # noqa: N815


class _Config(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    maxOutputTokens: Annotated[int, Meta(gt=0)] | None = None  # noqa: N815
    temperature: float | None = None
    topP: float | None = None  # noqa: N815
    topK: float | None = None  # noqa: N815
    seed: int | None = None
    stopSequences: tuple[str, ...] | None = None  # noqa: N815
    responseMimeType: str | None = None  # noqa: N815
    thinkingConfig: _Thinking | None = None  # noqa: N815


class TextRequest(Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    """A request that holds only text and asks for text."""

    contents: Annotated[tuple[_Turn, ...], Meta(min_length=1)]
    generationConfig: _Config | UnsetType = UNSET  # noqa: N815
    systemInstruction: _Instruction | UnsetType = UNSET  # noqa: N815

    @property
    def members(self) -> frozenset[str]:
        """The names of the members beside ``contents``."""
        return frozenset(name for name in _SETTINGS if getattr(self, name) is not UNSET)

    @property
    def costs(self) -> dict[str, Any]:
        """The members that affect the cost, apart from the size of the text."""
        config = self.generationConfig
        return {} if config is UNSET else {"generationConfig": {"maxOutputTokens": config.maxOutputTokens}}

    @property
    def suits_vertex(self) -> bool:
        """Whether Vertex AI accepts it unchanged: all turns have a role, and no setting is empty."""
        return self.generationConfig != _Config() and all(turn.role for turn in self.contents)


_SETTINGS = ("generationConfig", "systemInstruction")
_decode = Decoder(TextRequest).decode


def text_request(request: bytes) -> TextRequest | None:
    """Return a request of text, or None for a request of any other kind."""
    try:
        return _decode(request)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None


def text_requests(requests: Sequence[bytes]) -> list[TextRequest] | None:
    """Return several requests of text; None if one is of any other kind."""
    try:
        return [_decode(request) for request in requests]
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
