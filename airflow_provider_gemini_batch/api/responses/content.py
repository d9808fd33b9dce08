"""What an answer says: text, thoughts, function calls, code, media and further candidates, read from its JSON.

Everything here takes any shape: a paid answer must not be lost because one member is not what was expected.
Sources: https://ai.google.dev/api/generate-content#v1beta.Candidate and https://ai.google.dev/api/caching#Part
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCKED_REASONS = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "JAILBREAK",
})  # fmt: skip
"""Finish reasons that say that content was held back; sending the same request again does not help."""

GOOD_REASONS = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of a whole answer. None: the service left it out."""

_CODE = ("executableCode", "codeExecutionResult")
# Beside the content of a part, or no content for whoever asked.
_NOT_CONTENT = frozenset({
    "text", "thought", "thoughtSignature", "thought_signature", "inlineData", "fileData", "functionCall", *_CODE,
})  # fmt: skip
_TOOL_TALK = frozenset({"toolCall", "toolResponse"})


class Media(NamedTuple):
    """A picture, sound or other file in an answer: ``data`` is base64, or ``uri`` tells where the service has it."""

    part: int
    mime_type: str
    data: str | None
    uri: str | None
    thought: bool = False


class Content(NamedTuple):
    """One candidate's parts by what they are; a part may hold several things. ``text`` is without the thoughts."""

    text: str | None
    thoughts: str | None = None
    function_calls: tuple[dict[str, Any], ...] = ()
    code: tuple[dict[str, Any], ...] = ()
    media: tuple[Media, ...] = ()
    others: tuple[dict[str, Any], ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when there is nothing but thoughts, signatures and talk with the service's own tools."""
        return not (
            self.text
            or self.function_calls
            or self.code
            or any(not media.thought for media in self.media)
            or any(not _TOOL_TALK.issuperset(other) for other in self.others)
        )


def candidates(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidates of an answer; the first is the answer, the others stand beside it."""
    found = response.get("candidates")
    if isinstance(found, dict):
        found = [found]
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def content_of(candidate: Mapping[str, Any]) -> Content:
    """Sort the parts of one candidate."""
    parts = _parts(candidate)
    if len(parts) == 1 and parts[0].keys() == {"text"} and isinstance(parts[0]["text"], str):
        return Content(parts[0]["text"])
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part.get("text"), str):
            (thoughts if part.get("thought") else texts).append(part["text"])
    return Content(
        "".join(texts) if texts else None,
        "".join(thoughts) or None,
        tuple(part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)),
        tuple({name: part[name]} for part in parts for name in _CODE if isinstance(part.get(name), dict)),
        tuple(_media(parts)),
        tuple(filter(None, map(_others, parts))),
    )


def finish_reason(candidate: Mapping[str, Any]) -> str | None:
    """Why a candidate ended (``STOP``, ``MAX_TOKENS``, ``SAFETY`` ...), or None."""
    reason = candidate.get("finishReason")
    return reason if isinstance(reason, str) and reason else None


def block_reason(response: Mapping[str, Any]) -> str | None:
    """Why the prompt itself was refused, or None when it was not."""
    feedback = response.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return reason if isinstance(reason, str) and reason else None


def vector_of(response: Mapping[str, Any]) -> tuple[list[float] | None, str]:
    """Return the vector of an embedding answer and an empty text; or None and what is wrong with it."""
    found = response.get("embedding")
    values = found.get("values") if isinstance(found, dict) else found
    if not values:
        return None, "the answer has no embedding"
    if not isinstance(values, list) or not all(type(value) in (float, int) for value in values):
        return None, "the embedding is not a list of numbers"
    try:
        floats = [float(value) for value in values]
    except OverflowError:
        return None, "the embedding holds a number that is too large"
    # A sum is neither finite nor itself when one of its terms is not.
    if not all(value - value == 0 for value in floats):
        return None, "the embedding holds a value that is not a finite number"
    return floats, ""


def _parts(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if isinstance(parts, dict):
        parts = [parts]
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _media(parts: list[dict[str, Any]]) -> Iterator[Media]:
    for index, part in enumerate(parts):
        thought = bool(part.get("thought"))
        inline, file = part.get("inlineData"), part.get("fileData")
        if isinstance(inline, dict) and isinstance(inline.get("data"), str) and inline["data"]:
            yield Media(index, _text(inline.get("mimeType")), inline["data"], None, thought)
        if isinstance(file, dict) and isinstance(file.get("fileUri"), str) and file["fileUri"]:
            yield Media(index, _text(file.get("mimeType")), None, file["fileUri"], thought)


def _others(part: dict[str, Any]) -> dict[str, Any]:
    """Members that are not known here: they may be what was paid for."""
    if part.get("thought"):
        return {}
    return {name: value for name, value in part.items() if name not in _NOT_CONTENT and value not in (None, "", {}, [])}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
