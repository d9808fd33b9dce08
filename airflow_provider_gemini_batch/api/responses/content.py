"""What a response says: text, thoughts, function calls, code, media and further candidates, read from its JSON.

Everything here accepts any shape: an unexpected member must not make a paid response useless.
Sources: https://ai.google.dev/api/generate-content#v1beta.Candidate and https://ai.google.dev/api/caching#Part
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_gemini_batch.api.service_words import name_word
from airflow_provider_gemini_batch.api.wire import dict_at, int_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCKED_REASONS = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "JAILBREAK",
})  # fmt: skip
"""Finish reasons that say that content was held back; sending the same request again does not help."""

# The finish reasons whose numbers mean the same to both services.
_NUMBERED = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION")

GOOD_REASONS = frozenset({None, "STOP", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of a whole response. None: the service left it out."""

_METADATA = (
    "groundingMetadata", "urlContextMetadata", "citationMetadata", "logprobsResult", "finishMessage",
    "continuationToken",
)  # fmt: skip

_CODE = ("executableCode", "codeExecutionResult")
_MARKS = frozenset({"thought", "thoughtSignature", "thought_signature"})
# The types in which known members are read; with any other type they are kept as they are.
_FORMS: dict[str, type] = {
    "text": str, "inlineData": dict, "fileData": dict, "functionCall": dict, **dict.fromkeys(_CODE, dict)
}  # fmt: skip
_SNAKE = {
    "inline_data": "inlineData", "file_data": "fileData", "function_call": "functionCall", "mime_type": "mimeType",
    "file_uri": "fileUri", "executable_code": "executableCode", "code_execution_result": "codeExecutionResult",
}  # fmt: skip
# The most that a 32-bit float can hold, as which vectors are stored.
_MOST_FLOAT = 3.4028234663852886e38
# The members in which media lies, and where in them.
_MEDIA = {"inlineData": "data", "fileData": "fileUri"}
_OF_MEDIA = ("mimeType", "displayName")
# What is read of a candidate, or says nothing of its content.
_OF_A_CANDIDATE = frozenset({
    *_METADATA, "finishReason", "index", "role", "parts", "safetyRatings", "avgLogprobs", "tokenCount", "score",
    "groundingAttributions",
})  # fmt: skip
# Exchanges with the service's own tools, metadata of another part, and a candidate whose content is not found: by
# themselves these are not content.
_NO_CONTENT = frozenset({
    "candidate",
    "toolCall", "toolResponse", "partMetadata", "mediaResolution", "mediaProcessing",
    "videoMetadata", "audioMetadata", "documentMetadata", "spreadsheetMetadata", "speechMetadata",
})  # fmt: skip


class Media(NamedTuple):
    """A picture, sound or other file in a response: ``data`` is base64, or ``uri`` is where the service keeps it."""

    part: int
    mime_type: str
    data: str | None
    uri: str | None
    thought: bool = False


class Content(NamedTuple):
    """One candidate's parts, sorted by kind; a part may hold several kinds. ``text`` excludes the thoughts.

    ``metadata`` are the sources, citations, log probabilities and the like beside the parts, as far as there are any.
    """

    text: str | None
    thoughts: str | None = None
    function_calls: tuple[dict[str, Any], ...] = ()
    code: tuple[dict[str, Any], ...] = ()
    media: tuple[Media, ...] = ()
    others: tuple[dict[str, Any], ...] = ()
    metadata: Mapping[str, Any] = MappingProxyType({})

    @property
    def is_empty(self) -> bool:
        """True when there are only thoughts, signatures, metadata and exchanges with the service's own tools."""
        return not (
            self.text
            or self.function_calls
            or self.code
            or any(not media.thought for media in self.media)
            or any(not _NO_CONTENT.issuperset(other) for other in self.others)
        )


def candidates(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidates of a response; the first one counts as the response, the others are alternatives."""
    found = response.get("candidates")
    listed = found if isinstance(found, list) else [found]
    return [one if isinstance(one, dict) else {"content": one} for one in listed if one or isinstance(one, dict)]


def content_of(candidate: Mapping[str, Any]) -> Content:
    """Return the parts of one candidate, sorted by kind."""
    parts = parts_of(candidate)
    metadata = {name: candidate[name] for name in _METADATA if candidate.get(name)}
    if len(parts) == 1 and parts[0].keys() == {"text"} and isinstance(parts[0]["text"], str):
        return Content(parts[0]["text"], metadata=metadata)
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part.get("text"), str):
            (thoughts if _is_thought(part) else texts).append(part["text"])
    return Content(
        "".join(texts) if texts else None,
        "".join(thoughts) or None,
        tuple(part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)),
        tuple({name: part[name]} for part in parts for name in _CODE if isinstance(part.get(name), dict)),
        tuple(_media(parts)),
        tuple(filter(None, map(_others, parts))),
        metadata,
    )


def has_media(response: Mapping[str, Any]) -> bool:
    """Return whether any candidate holds a picture, sound or other file; costs less than reading all content."""
    return any(True for one in candidates(response) for _ in _media(parts_of(one)))


def finish_reason(candidate: Mapping[str, Any]) -> str | None:
    """Return why a candidate ended: a word (``STOP``, ``SAFETY`` ...), else a number without a word here, or None.

    What is there but says nothing (blanks, control characters, an object) is ``UNKNOWN``.
    """
    reason = candidate.get("finishReason")
    number = int_of(reason)
    if number is not None:
        return _NUMBERED[number] if 0 <= number < len(_NUMBERED) else name_word(str(number))
    # A table that an SDK filled may say FinishReason.STOP.
    return name_word(reason).rpartition(".")[2].upper() or "UNKNOWN" if reason else None


def block_reason(response: Mapping[str, Any]) -> str | None:
    """Return why the prompt itself was refused, or None if it was not."""
    feedback = response.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return name_word(str(reason)) or "UNKNOWN" if reason else None


def embedding_of(response: Mapping[str, Any]) -> Any:
    """Return the member that holds the vector, an object or the vector itself, whatever it is called; else None."""
    found = response.get("embedding") or response.get("embeddings")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else found


def oddities_of_embedding(response: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the vector should know: that it is not that of the whole text, or not the only one."""
    embedding, listed = embedding_of(response), response.get("embeddings")
    was_cut = response.get("truncated") or dict_at({"embedding": embedding}, "embedding", "statistics").get("truncated")
    found = ["the text was longer than the model reads: the vector is that of its beginning"] if was_cut else []
    if isinstance(listed, list) and len(listed) > 1 and isinstance(embedding, dict):
        found.append(f"the response has {len(listed)} vectors, of which this is the first")
    return found


def vector_of(response: Mapping[str, Any]) -> tuple[list[float] | None, str]:
    """Return the vector of an embedding response and an empty text; or None and what is wrong with it."""
    found = embedding_of(response)
    values = found.get("values") if isinstance(found, dict) else found
    if not values:
        return None, "the response has no embedding"
    if not isinstance(values, list) or not all(type(value) in (float, int, str) for value in values):
        return None, "the embedding is not a list of numbers"
    try:
        floats = [float(value) for value in values]
    except OverflowError:
        return None, "the embedding holds a number that is too large"
    except ValueError:
        return None, "the embedding is not a list of numbers"
    # Comparing with NaN is false.
    if not all(-_MOST_FLOAT <= value <= _MOST_FLOAT for value in floats):
        return None, "the embedding holds a value that is not a finite number of 32 bits"
    return floats, ""


def parts_of(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of one candidate as objects; one that is none of them is empty, and keeps its place."""
    # Older models say text or output.
    content = next((found for name in ("content", "text", "output") if (found := candidate.get(name))), None)
    parts: Any = candidate if content is None else content
    if isinstance(parts, dict):
        parts = parts.get("parts") or _without_parts(parts)
    if not isinstance(parts, list):
        parts = [parts]
    made: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, list) or (isinstance(part, dict) and "parts" in part):
            made += parts_of({"content": part})
        else:
            # What is not a part keeps its place, so that the others keep their numbers.
            known = {"text": part} if isinstance(part, str) else part
            made.append(_in_camel_case(known) if isinstance(known, dict) else {})
    return made


def _without_parts(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return as a part what a candidate or its content holds in place of parts: it may be what was paid for."""
    left = {name: value for name, value in holder.items() if name not in _OF_A_CANDIDATE and value}
    return left if not left or not _FORMS.keys().isdisjoint(left) else {"candidate": left}


def _in_camel_case(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part with names in lowerCamel: a table that an SDK filled may have the SDK's names."""
    if _SNAKE.keys().isdisjoint(part) and _MEDIA.keys().isdisjoint(part):
        return part
    made = {_SNAKE.get(name, name): value for name, value in part.items()}
    for name in _MEDIA:
        if isinstance(made.get(name), dict):
            made[name] = {_SNAKE.get(inner, inner): value for inner, value in made[name].items()}
    return made


def _is_thought(part: Mapping[str, Any]) -> bool:
    return str(part.get("thought") or False).lower() != "false"


def _media(parts: list[dict[str, Any]]) -> Iterator[Media]:
    for index, part in enumerate(parts):
        thought = _is_thought(part)
        inline, file = part.get("inlineData"), part.get("fileData")
        if isinstance(inline, dict) and isinstance(inline.get("data"), str) and inline["data"]:
            yield Media(index, _text(inline.get("mimeType")), inline["data"], None, thought)
        if isinstance(file, dict) and isinstance(file.get("fileUri"), str) and file["fileUri"]:
            yield Media(index, _text(file.get("mimeType")), None, file["fileUri"], thought)


def _others(part: dict[str, Any]) -> dict[str, Any]:
    """Return members that are unknown, or of an unexpected type: they may be what was paid for."""
    if _is_thought(part):
        return {}
    return {
        name: value
        for name, value in part.items()
        if name not in _MARKS and value not in (None, "", {}, []) and not _is_read(name, value)
    }


def _is_read(name: str, value: Any) -> bool:
    """Return whether a member has the form in which it is read elsewhere."""
    if name in _MEDIA and isinstance(value, dict):
        data = value.get(_MEDIA[name])
        return isinstance(data or "", str) and (bool(data) or value.keys() <= {_MEDIA[name], *_OF_MEDIA})
    return isinstance(value, _FORMS.get(name, ()))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
