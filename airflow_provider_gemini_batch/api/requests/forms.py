"""Turns what authors and SDKs write into the REST form of a request: names, places, short forms, the shape."""

from __future__ import annotations

from collections.abc import Mapping, MutableSet
from functools import partial
from typing import Any

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind
from airflow_provider_gemini_batch.api.requests.fields import (
    CONFIG_MEMBERS,
    CONFIG_NAMES,
    MEMBERS,
    ROLES,
    camel,
    either,
    hint,
    kind_of,
    shown,
)


def user_content(text: str) -> dict[str, Any]:
    """Return a turn of the user with one text part."""
    return {"role": "user", "parts": [{"text": text}]}


def from_text(text: str, kind: JobKind) -> dict[str, Any]:
    """Return a request that consists of this text."""
    if not text.strip():
        raise InputError("the text is empty")
    if kind is JobKind.EMBEDDINGS:
        return {"content": {"parts": [{"text": text}]}}
    return {"contents": [user_content(text)]}


def mapping_of(value: Any, name: str) -> Mapping[str, Any]:
    """Return the value if it is a mapping. Raises InputError naming the member."""
    if not isinstance(value, Mapping):
        raise InputError(f"'{name}' must be an object, not {kind_of(value)}")
    return value


def rest_form(
    given: Mapping[str, Any], kind: JobKind, trusted: frozenset[str], warnings: MutableSet[str]
) -> dict[str, Any]:
    """Return a request with names in lowerCamel, flat settings in their places, and content in its long form."""
    request: dict[str, Any] = {}
    config: dict[str, Any] = {}
    place = partial(_place, kind=kind, request=request, config=config, trusted=trusted, warnings=warnings)
    for name, value in given.items():
        spelled = camel(name)
        if spelled in CONFIG_NAMES and value is not None:
            if spelled == "config":
                warnings.add("SDK-style 'config' was turned into the REST form")
            for inner, inner_value in mapping_of(value, name).items():
                place(camel(inner), inner_value, inside=True)
        elif spelled == "text":
            if value is None:
                raise InputError("the text is empty")
            if not isinstance(value, (str, list, tuple, Mapping)):
                raise InputError(f"'{name}' must be a text, not {kind_of(value)}")
            _put(request, "content" if kind is JobKind.EMBEDDINGS else "contents", value)
        else:
            place(spelled, value, inside=False)
    if config:
        request["generationConfig"] = config
    _long_forms(request, kind, warnings)
    return request


def _place(
    name: str,
    value: Any,
    *,
    inside: bool,
    kind: JobKind,
    request: dict[str, Any],
    config: dict[str, Any],
    trusted: frozenset[str],
    warnings: MutableSet[str],
) -> None:
    """Put one setting where REST has it; ``inside``: it comes from a config."""
    if value is None:
        return
    if kind is JobKind.GENERATION and name in CONFIG_MEMBERS:
        if not inside:
            warnings.add(f"'{name}' was moved into generationConfig, where the service looks for it")
        if name == "speechConfig" and isinstance(value, str):
            value = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": value}}}
        _put(config, name, value)
    elif name in MEMBERS[kind] or (not inside and name in trusted):
        if inside and kind is JobKind.GENERATION:
            warnings.add(f"'{name}' was moved out of the configuration to the request, where the service looks for it")
        _put(request, name, value)
    elif kind is JobKind.EMBEDDINGS and name == "contents":
        _put(request, "content", value)
    elif inside and name in trusted:
        _put(config, name, value)
    else:
        is_config = inside and kind is JobKind.GENERATION
        where = "generationConfig" if is_config else f"a request for {kind.value}"
        raise InputError(f"'{shown(name)}' is not a member of {where}{hint(name, kind, inside=is_config)}")


def check_schema(request: Mapping[str, Any]) -> None:
    """Raise InputError for a schema that is not Gemini's: the service fails the job or, hours later, each row with it.

    Source: https://ai.google.dev/api/caching#Schema
    """
    config = request.get("generationConfig")
    if isinstance(config, Mapping) and "responseSchema" in config:
        _check_schema(config["responseSchema"])


def _check_schema(schema: Any) -> None:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("type"), (list, tuple)):
            raise InputError("responseSchema has a 'type' that is a list: give one type, and nullable: true beside it")
        # A property of this name is an object.
        if isinstance(schema.get("type_"), (str, int)):
            raise InputError(
                "responseSchema has 'type_', as a class of Python's spells it: the service's name is 'type'"
            )
        if not schema.keys().isdisjoint(("$ref", "$defs")):
            raise InputError(
                "responseSchema holds references ($ref, $defs), which Gemini's schema does not have: give the type as "
                "output_schema, which writes them out"
            )
        schema = list(schema.values())
    for one in schema if isinstance(schema, (list, tuple)) else ():
        _check_schema(one)


def _put(target: dict[str, Any], name: str, value: Any) -> None:
    if name in target:
        raise InputError(f"'{name}' is given twice, in two spellings or places")
    target[name] = value


def _long_forms(request: dict[str, Any], kind: JobKind, warnings: MutableSet[str]) -> None:
    if isinstance(request.get("systemInstruction"), str):
        request["systemInstruction"] = {"parts": [{"text": request["systemInstruction"]}]}
    elif isinstance(request.get("systemInstruction"), (list, tuple)):
        warnings.add("'systemInstruction' was a list; the service takes one content")
        request["systemInstruction"] = {"parts": [_part(part) for part in request["systemInstruction"]]}
    if "systemInstruction" in request:
        request["systemInstruction"] = _with_list(request["systemInstruction"])
        _check_content(request["systemInstruction"], "systemInstruction")
    if kind is JobKind.EMBEDDINGS:
        if "content" in request:
            request["content"] = _with_list(_embedding_content(request["content"]))
    elif "contents" in request:
        request["contents"] = [_with_list(content) for content in _contents(request["contents"], warnings)]


def _with_list(content: Any) -> Any:
    """Return a content with its parts in a list; samples of Google's have a single part without one."""
    parts = content.get("parts") if isinstance(content, Mapping) else None
    return {**content, "parts": [parts]} if isinstance(parts, Mapping) else content


def _contents(value: Any, warnings: MutableSet[str]) -> list[Any]:
    if isinstance(value, str):
        return from_text(value, JobKind.GENERATION)["contents"]  # type: ignore[no-any-return]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise InputError(f"'contents' must be a list, not {kind_of(value)}")
    turns: list[Any] = []
    loose: list[Any] = []
    for item in value:
        if isinstance(item, Mapping) and ("parts" in item or "role" in item):
            if loose:
                turns.append({"role": "user", "parts": loose})
                loose = []
            turns.append(item)
            if (item.get("role") or "user") not in ROLES:
                warnings.add(
                    "roles other than user and model fail the row on some models: what functions return is the user's, "
                    "and instructions go into systemInstruction"
                )
        else:
            warnings.add("loose parts in 'contents' were put into a content with the role user")
            loose.append(_part(item))
    if loose:
        turns.append({"role": "user", "parts": loose})
    return turns


def _embedding_content(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise InputError("an embedding request takes one content; make a row of each")
        value = value[0]
    if isinstance(value, str):
        return from_text(value, JobKind.EMBEDDINGS)["content"]
    is_part = isinstance(value, Mapping) and value.keys().isdisjoint(("parts", "role"))
    return {"parts": [_part(value)]} if is_part else value


def _part(item: Any) -> Any:
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, Mapping):
        # The SDKs take an uploaded file for a part.
        uri = item.get("uri")
        return {"fileData": {"fileUri": uri, "mimeType": either(item, "mimeType")}} if isinstance(uri, str) else item
    raise InputError(f"a part is a text or an object, not {kind_of(item)}")


def check_contents(request: Mapping[str, Any], kind: JobKind) -> None:
    """Raise InputError for a request without content, or with content in a form that the service does not know."""
    if kind is JobKind.EMBEDDINGS:
        if "content" not in request:
            raise InputError("'content' is missing")
        _check_content(request["content"], "content")
        return
    contents = request.get("contents")
    if contents is None:
        raise InputError("'contents' is missing")
    if not isinstance(contents, list) or not contents:
        raise InputError("'contents' must be a list with at least one content")
    for content in contents:
        _check_content(content, "contents")


def _check_content(content: Any, name: str) -> None:
    if type(content) is not dict and not isinstance(content, Mapping):
        raise InputError(f"'{name}' must hold objects with 'parts', not {kind_of(content)}")
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        raise InputError(f"'{name}' needs 'parts', a list with at least one part")
    for part in parts:
        if not part or (type(part) is not dict and not isinstance(part, Mapping)):
            raise InputError(f"a part of '{name}' must be an object with at least one member")
        if "text" not in part:
            _check_media(either(part, "inlineData"))


def _check_media(inline: Any) -> None:
    """Raise InputError for media that the service cannot read, for which it refuses the job, or hours later the row."""
    data = inline.get("data") if isinstance(inline, Mapping) else None
    if not isinstance(data, str):
        return
    if not either(inline, "mimeType"):
        raise InputError("'inlineData' needs a 'mimeType', such as image/png")
    if data.startswith("data:"):
        raise InputError("'inlineData' has an address (data:...) as its 'data': give the base64 behind the comma alone")
