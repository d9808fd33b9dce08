"""The member names of requests: both spellings, hints for wrong ones, and the check of their values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Any
from uuid import UUID

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind

GENERATION_MEMBERS = frozenset({
    "model", "contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig",
    "cachedContent", "labels", "serviceTier", "store", "continuationToken", "modelArmorConfig",
})  # fmt: skip
CONFIG_MEMBERS = frozenset({
    "stopSequences", "responseMimeType", "responseSchema", "responseJsonSchema", "responseModalities",
    "candidateCount", "maxOutputTokens", "temperature", "topP", "topK", "seed", "presencePenalty",
    "frequencyPenalty", "responseLogprobs", "logprobs", "enableEnhancedCivicAnswers", "speechConfig",
    "thinkingConfig", "imageConfig", "mediaResolution", "audioTimestamp", "audioTranscriptionConfig",
    "translationConfig", "enableAffectiveDialog", "modelSelectionConfig", "modelConfig", "routingConfig",
    "responseFormat",
})  # fmt: skip
# Options that only embedContentConfig has: https://ai.google.dev/api/embeddings#EmbedContentConfig
EMBEDDING_OPTIONS = frozenset({"autoTruncate", "mimeType", "documentOcr", "audioTrackExtraction"})
EMBEDDING_MEMBERS = EMBEDDING_OPTIONS | {"model", "content", "taskType", "title", "outputDimensionality"}
MEMBERS = {JobKind.GENERATION: GENERATION_MEMBERS, JobKind.EMBEDDINGS: EMBEDDING_MEMBERS}
ROLES = ("user", "model")
"""Roles that every model takes. Without one, a content is the user's."""
# Two ways to give a schema; the service takes one of them, and makes nonsense of the second one in a batch.
SCHEMAS = frozenset({"responseSchema", "responseJsonSchema"})
CONFIG_NAMES = frozenset({"config", "generationConfig", "embedContentConfig"})
_SCALARS = frozenset({str, int, float, bool, type(None)})
HAVE_TEXTS = (str, int, float, Decimal, date, time, timedelta, UUID, PurePath, IPv4Address, IPv6Address)
"""Types whose text is readable and the same in every process."""
# What other services and frames call a member.
_OTHERS_NAMES = {
    "prompt": "text", "system": "systemInstruction", "systemPrompt": "systemInstruction",
    "maxTokens": "maxOutputTokens",
}  # fmt: skip
_NAME_SHOWN = 64
_SNAKE = re.compile(r"_([a-z0-9])")
_UPPER = re.compile(r"([A-Z])")


def camel(name: object) -> str:
    """Return a member name in lowerCamel. Raises InputError when it is not a string."""
    if not isinstance(name, str):
        raise InputError("member names must be texts")
    return _SNAKE.sub(lambda found: found[1].upper(), name) if "_" in name else name


def snake(name: str) -> str:
    """Return a member name in snake_case."""
    return _UPPER.sub(lambda found: "_" + found[1].lower(), name)


def either(holder: Any, name: str) -> Any:
    """Return a member of an object by its lowerCamel or its snake_case name, or None."""
    return holder.get(name, holder.get(snake(name))) if isinstance(holder, Mapping) else None


def tools_of(request: Mapping[str, Any]) -> list[Any]:
    """Return the tools of a request, given as a list or, as the service also reads it, as one object."""
    tools = request.get("tools")
    return tools if isinstance(tools, list) else [] if tools is None else [tools]


def known(name: str, kind: JobKind) -> bool:
    """Return whether a request of this kind may have this lowerCamel name, flat settings included."""
    return name in MEMBERS[kind] or name in CONFIG_NAMES or (kind is JobKind.GENERATION and name in CONFIG_MEMBERS)


def nearly(name: str, kind: JobKind) -> str | None:
    """Return the known name that was most likely meant."""
    if name in _OTHERS_NAMES:
        return _OTHERS_NAMES[name]
    names = GENERATION_MEMBERS | CONFIG_MEMBERS if kind is JobKind.GENERATION else EMBEDDING_MEMBERS
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.8)), None)


def hint(name: str, kind: JobKind, *, inside: bool = False) -> str:
    """Return what to do about an unknown name, as the end of a sentence; ``inside``: it is a name in a config."""
    close = nearly(name, kind)
    if close:
        return f"; is '{close}' meant?"
    if known(name, JobKind.EMBEDDINGS if kind is JobKind.GENERATION else JobKind.GENERATION):
        return f": it is not for {kind.value}"
    if inside:
        return (
            "; to send a member that this version does not know, put the whole configuration into request_defaults, as "
            "generationConfig"
        )
    return (
        "; if it is a column, name it in key_field, carry or prompt_template; to send a member that this version does "
        "not know, put it into request_defaults"
    )


def shown(name: object) -> str:
    """Return a name for a message, cut to a reasonable length."""
    return str(name)[:_NAME_SHOWN]


def kind_of(value: object) -> str:
    """Return the type of a value in words for a message, with how to make JSON of it if it can; never the value."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return "a list"
    words = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "a text"}
    if isinstance(value, type):
        schema = " (give its model_json_schema(), or output_schema)" if hasattr(value, "model_json_schema") else ""
        return f"the class {shown(value.__name__)}{schema}"
    return words.get(type(value)) or f"{type(value).__name__}{_how_to_dump(value)}"


def _how_to_dump(value: object) -> str:
    if hasattr(value, "model_dump"):
        return " (give its model_dump(mode='json', exclude_none=True))"
    if hasattr(value, "_asdict"):
        return " (give its _asdict())"
    if hasattr(value, "to_dict"):
        return " (give its to_dict())"
    if hasattr(value, "keys"):
        return " (give dict() of it)"
    return " (give dataclasses.asdict() of it)" if hasattr(value, "__dataclass_fields__") else ""


def check_json(value: Any, holder: str = "the request holds") -> bool:
    """Refuse a value that contains anything without a form in JSON, or with one that differs between processes.

    :param holder: the beginning of the message.
    :returns: whether its types are those of JSON already; a tuple, for example, will only become a list.
    :raises InputError: names the type, never the value.
    """
    if type(value) in _SCALARS:
        return True
    if isinstance(value, (Mapping, list, tuple)) and not hasattr(value, "_asdict"):
        is_json = isinstance(value, (dict, list))
        for one in value.values() if isinstance(value, Mapping) else value:
            is_json = check_json(one, holder) and is_json
        return is_json
    if isinstance(value, (set, frozenset)):
        raise InputError(f"{holder} a set, whose order changes from process to process: give a list")
    if not isinstance(value, (*HAVE_TEXTS, Enum)):
        instead = "base64 as a text" if isinstance(value, (bytes, bytearray, memoryview)) else "a text, number or list"
        raise InputError(f"{holder} {kind_of(value)}, which JSON does not have: give {instead}")
    return False
