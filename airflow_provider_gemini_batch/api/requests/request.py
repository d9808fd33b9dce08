"""The forms in which a row may be handed in, and the one form of request that is sent.

A row is a text, a :class:`BatchRequest`, or a mapping in one of these forms. All become a key and a REST request:

========================================  ==================================================================
``{"key": "a", "request": {...}}``        the documented line; ``custom_id`` or ``metadata.key`` serve as key
``{"contents": [...]}``                   a bare request, ``{"content": {...}}`` for embeddings
``{"key": "a", "text": "..."}``           the members of :class:`BatchRequest`
``{"contents": "...", "config": {...}}``  the SDK's flat form, converted with a warning
``{"custom_id": "a", "body": {...}}``     a line of OpenAI's batch files, converted with a warning
========================================  ==================================================================

At two levels (the request and its ``generationConfig``), names are read in lowerCamel and snake_case and written in
lowerCamel; deeper levels are sent as they are. Sources for the names: the REST
reference of ``models.generateContent`` and ``models.embedContent``, Vertex' ``GenerateContentRequest``, and the
fields of google-genai 3.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, MutableSet
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import repeat
from typing import Any

from msgspec import Raw, Struct
from msgspec.json import decode
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.fields import (
    CONFIG_MEMBERS,
    CONFIG_NAMES,
    EMBEDDING_OPTIONS,
    MEMBERS,
    ROLES,
    SCHEMAS,
    camel,
    check_json,
    either,
    kind_of,
    known,
    nearly,
    shown,
    snake,
)
from airflow_provider_gemini_batch.api.requests.forms import check_contents, check_schema, from_text, rest_form
from airflow_provider_gemini_batch.api.requests.openai_form import is_openai_row, native_request
from airflow_provider_gemini_batch.api.vertex_rules import (
    check_request,
    takes_instructions_in_text,
    with_instructions,
)
from airflow_provider_gemini_batch.api.wire import key_text, what_json_lacks

INLINE_LIMIT_BYTES = 20 * 1024 * 1024
"""Largest body of a create call on the Gemini Developer API (the service names 20971520 bytes)."""

# Before Python 3.12, each access to an enum member is a function call: too slow for every row.
_VERTEX = Service.VERTEX
_GENERATION = JobKind.GENERATION

_NOT_WITH_CACHE = frozenset({"systemInstruction", "tools", "toolConfig"})
# Members that the services also take without the brackets around a single element.
_LISTS = ("tools", "safetySettings")
_TEXTS = ("stopSequences", "responseModalities")
_KEY_NAMES = ("key", "custom_id", "customId")
# Which of its spellings (1.5, 1.50) would be the key?
_NO_KEYS = (bool, float, Decimal)


class BatchRequest(BaseModel):
    """One request, typed. Exactly one of ``text``, ``contents`` (generation) and ``content`` (embeddings) is given.

    ``key`` names the row in the output; ``title`` is for embeddings; ``extra`` holds any other member of the service's
    request (``tools``, ``safetySettings``, ``cachedContent`` ...). Nothing of it shows in a repr but the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, repr=False)
    contents: str | list[Any] | None = Field(default=None, repr=False)
    content: str | dict[str, Any] | None = Field(default=None, repr=False)
    key: str | int | None = None
    system_instruction: str | dict[str, Any] | None = Field(default=None, repr=False)
    generation_config: dict[str, Any] | None = Field(default=None, repr=False)
    title: str | None = Field(default=None, repr=False)
    task_type: str | None = None
    output_dimensionality: int | None = None
    extra: dict[str, Any] = Field(default_factory=dict, repr=False)

    def members(self) -> dict[str, Any]:
        """Return the members that are set, with ``extra`` merged in, for :func:`normalise`."""
        names = type(self).model_fields
        found = {name: getattr(self, name) for name in names if name != "extra" and getattr(self, name) is not None}
        return {**self.extra, **found}


@dataclass(frozen=True)
class RequestDefaults:
    """What a job's requests get where they have no value of their own, in REST form. See :func:`request_defaults`."""

    members: Mapping[str, Any] = field(default_factory=dict, repr=False)
    generation_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    model: str | None = None
    trusted: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Return whether there is anything to merge."""
        return bool(self.members or self.generation_config)


NO_DEFAULTS = RequestDefaults()


def request_defaults(
    kind: JobKind,
    *,
    model: str | None = None,
    generation_config: Mapping[str, Any] | None = None,
    system_instruction: str | Mapping[str, Any] | None = None,
    request_defaults: Mapping[str, Any] | None = None,
    task_type: str | None = None,
    output_dimensionality: int | None = None,
    warnings: MutableSet[str] | None = None,
) -> RequestDefaults:
    """Return the author's defaults, checked. Raises InputError (a ConfigurationError) naming the argument.

    An unknown name in ``request_defaults`` or its configuration is accepted, and then also in the rows, so that a new
    member of the service can be used before this version knows it. A name that is close to a known one is refused as a
    typing error.
    """
    warnings = set() if warnings is None else warnings
    given = dict(request_defaults or {})
    own_config = either(given, "generationConfig")
    for name, of_kind, value in (
        ("generationConfig", JobKind.GENERATION, generation_config or None),
        ("systemInstruction", JobKind.GENERATION, None if system_instruction == "" else system_instruction),
        ("taskType", JobKind.EMBEDDINGS, task_type),
        ("outputDimensionality", JobKind.EMBEDDINGS, output_dimensionality),
    ):
        if value is not None:
            _refuse_kind(kind, of_kind, snake(name))
            if name in given or snake(name) in given:
                raise InputError(f"{snake(name)} is given twice, by itself and in request_defaults")
            given[name] = value
    trusted = frozenset(
        name
        for name in map(camel, (*given, *(own_config if isinstance(own_config, Mapping) else ())))
        if not known(name, kind) and not nearly(name, kind)
    )
    merged = rest_form(given, kind, trusted, warnings)
    if "contents" in merged or "content" in merged:
        raise InputError("contents belong in the rows, not in request_defaults")
    _check_cache(merged)
    check_schema(merged)
    merged |= _lists(merged)
    merged = {name: json_form(value, f"{snake(name)} holds") for name, value in merged.items()}
    config = merged.pop("generationConfig", {})
    if "model" in merged:
        merged = _without_model(merged, _bare_model(model), "request_defaults names")
    return RequestDefaults(members=merged, generation_config=config, model=_bare_model(model), trusted=trusted)


def normalise(
    row: str | Mapping[str, Any] | BatchRequest,
    *,
    kind: JobKind = JobKind.GENERATION,
    defaults: RequestDefaults = NO_DEFAULTS,
    warnings: MutableSet[str] | None = None,
) -> tuple[str | None, Mapping[str, Any]]:
    """Return a row's key (or None) and its request in REST form, with the defaults merged.

    ``warnings`` collects one sentence for each kind of correction. Raises InputError, which says what is wrong with the
    row, never what is in it. The row is not changed; the request may share parts of it.
    """
    warnings = set() if warnings is None else warnings
    if isinstance(row, str):
        return None, _for_model(_merge(from_text(row, kind), defaults), kind, defaults)
    if isinstance(row, BatchRequest):
        row = row.members()
    elif not isinstance(row, Mapping):
        raise InputError(
            f"a row is a text, an object or a BatchRequest, not {kind_of(row)}"
            f"{': put what the lists hold into one list' if isinstance(row, (list, tuple)) else ''}"
        )
    metadata = row.get("metadata")
    if metadata and not (isinstance(metadata, Mapping) and metadata.keys() == {"key"}):
        warnings.add("of 'metadata' only its 'key' is sent: name 'metadata' in carry to have it beside the response")
    key, request = _open_envelope(row, kind, warnings)
    if not _is_rest(request, kind):
        request = rest_form(request, kind, defaults.trusted, warnings)
    check_contents(request, kind)
    check_schema(request)
    request = _merge(request, defaults)
    if "model" in request:
        request = _without_model(request, defaults.model)
    _check_cache(request)
    return key, _for_model(request, kind, defaults)


def is_ready(request: Mapping[str, Any], kind: JobKind) -> bool:
    """Return whether :func:`normalise` would only merge defaults into this request. Raises the same InputErrors."""
    if not _is_rest(request, kind) or "model" in request:
        return False
    check_contents(request, kind)
    check_schema(request)
    _check_cache(request)
    return True


def request_body(service: Service, kind: JobKind, request: Mapping[str, Any]) -> bytes:
    """Return the JSON of a request in this service's form."""
    if service is Service.VERTEX:
        check_request(request)
        request = _vertex_embedding(request) if kind is JobKind.EMBEDDINGS else with_roles(request)
    return request_json(request)


def wire_line(service: Service, kind: JobKind, key: bytes, body: bytes) -> bytes:
    """Return a line of key and request, both JSON already (Vertex: ``custom_id`` for generation, else ``key``)."""
    return wire_lines(service, kind, (key,), (body,))[0]


def wire_lines(service: Service, kind: JobKind, keys: Iterable[bytes], bodies: Iterable[bytes]) -> list[bytes]:
    """Return a line for each key and request; see :func:`wire_line`."""
    if service is _VERTEX and kind is _GENERATION:
        parts = zip(repeat(b'{"request":'), bodies, repeat(b',"custom_id":'), keys, repeat(b"}\n"))
    else:
        parts = zip(repeat(b'{"key":'), keys, repeat(b',"request":'), bodies, repeat(b"}\n"))
    return list(map(b"".join, parts))


class CheckedLine(bytes):
    """A line that :func:`wire_line` wrote: its request is checked, and is sent unchanged."""


class _Keyed(Struct):
    key: Raw
    request: Raw


def inline_item(key: str | None, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return an element of ``inputConfig.requests.requests`` (Gemini Developer API only)."""
    item: dict[str, Any] = {"request": dict(request)}
    if key is not None:
        item["metadata"] = {"key": key}
    return item


def inline_line(line: CheckedLine) -> bytes:
    """Return such an element as JSON, made from a line for the Gemini Developer API."""
    found = decode(line, type=_Keyed)
    return b'{"request":%b,"metadata":{"key":%b}}' % (bytes(found.request), bytes(found.key))


def with_roles(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a request as Vertex AI imports it: each content has a role, by default ``user``, and lists are lists.

    A member that is a list in one row and its only element in another fails the import of all rows.
    """
    contents = request.get("contents")
    if not isinstance(contents, list):
        return request
    changed = _lists(request)
    for content in contents:
        if not content.get("role"):
            changed["contents"] = [
                one if one.get("role") else {"role": "user", **one} | {"role": "user"} for one in contents
            ]
            break
    return {**request, **changed} if changed else request


def _lists(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that have to be lists and are not, as lists."""
    changed: dict[str, Any] = {name: [request[name]] for name in _LISTS if isinstance(request.get(name), Mapping)}
    config = request.get("generationConfig")
    if isinstance(config, Mapping):
        lone = {name: [config[name]] for name in _TEXTS if isinstance(config.get(name), str)}
        if lone:
            changed["generationConfig"] = {**config, **lone}
    return changed


def request_json(value: Any) -> bytes:
    """Return a request as compact UTF-8 JSON. Raises InputError for NaN, lone surrogates and types unknown to JSON."""
    try:
        body = to_json(value)
        if b"NaN" in body or b"Infinity" in body:
            json.dumps(from_json(body), allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the request cannot be written as JSON: it holds {what_json_lacks(error)}") from None
    return body


def json_form(value: Any, holder: str = "the request holds") -> Any:
    """Return a value in JSON's own types, as it will be sent: a list for a tuple, a text for an enum or a date.

    Whatever looks into a request later (the rules of Vertex AI, the estimate, the check of media) sees what is sent.

    :param holder: the beginning of the message.
    :raises InputError: some value has no form in JSON, or one that differs between processes.
    """
    return value if check_json(value, holder) else from_json(request_json(value))


def key_json(key: str) -> bytes:
    """Return a key as JSON. Raises InputError for lone surrogates."""
    try:
        return to_json(key)
    except ValueError:
        raise InputError("the key is not valid Unicode") from None


def _open_envelope(
    row: Mapping[str, Any], kind: JobKind, warnings: MutableSet[str]
) -> tuple[str | None, Mapping[str, Any]]:
    """Return the key and the request of a row, whatever its form."""
    if is_openai_row(row):
        warnings.add("rows in the form of OpenAI's batch files were turned into the service's own form")
        return _key(row), native_request(row, kind)
    if "request" not in row:
        if any(name in row for name in _KEY_NAMES) or "metadata" in row:
            rest = {name: value for name, value in row.items() if name not in _KEY_NAMES and name != "metadata"}
            return _key(row), rest
        return None, row
    request = row["request"]
    if not isinstance(request, Mapping):
        raise InputError(f"'request' must be an object, not {kind_of(request)}")
    if len(row) == 1:
        return None, request
    beside = [name for name in row if name not in ("request", "metadata", *_KEY_NAMES)]
    if beside:
        for name in beside:
            if camel(name) not in CONFIG_NAMES and not known(camel(name), kind):
                raise InputError(
                    f"'{shown(name)}' beside 'request' would be ignored by the service: move it into the request, "
                    "or name it in key_field or carry if it is a column"
                )
            if name in request or camel(name) in request:
                raise InputError(f"'{shown(name)}' is given twice, in the request and beside it")
        warnings.add(
            f"{', '.join(sorted(map(shown, beside)))} beside 'request' would be ignored by the service: moved into it"
        )
        request = {**request, **{name: row[name] for name in beside}}
    return _key(row), request


def _key(row: Mapping[str, Any]) -> str | None:
    found = [row[name] for name in _KEY_NAMES if row.get(name) is not None]
    metadata = row.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("key") is not None:
        found.append(metadata["key"])
    if not found:
        return None
    return row_key(found[0])


def row_key(value: object) -> str:
    """Return the key that a row is given, as text. Raises InputError for an empty one and for an unfit type."""
    text = None if isinstance(value, _NO_KEYS) else key_text(value)
    if text is None:
        raise InputError(f"a key is a text, a whole number, a date, a time or a UUID, not {kind_of(value)}")
    if not text:
        raise InputError("the key is empty")
    return text


def _is_rest(request: Mapping[str, Any], kind: JobKind) -> bool:
    """Return whether nothing has to be corrected, as in nearly every row of a large file."""
    if not _all_in(request, MEMBERS[kind]):
        return False
    if kind is JobKind.EMBEDDINGS:
        content = request.get("content")
        return (
            EMBEDDING_OPTIONS.isdisjoint(request)
            and isinstance(content, dict)
            and isinstance(content.get("parts"), list)
        )
    config = request.get("generationConfig")
    if config is not None and not (type(config) is dict and _all_in(config, CONFIG_MEMBERS)):
        return False
    if config is not None and isinstance(config.get("speechConfig"), str):
        return False
    contents = request.get("contents")
    if not isinstance(contents, list):
        return False
    for content in contents:
        if not isinstance(content, dict) or not isinstance(content.get("parts"), list):
            return False
        if (content.get("role") or "user") not in ROLES:
            return False
    instruction = request.get("systemInstruction")
    return instruction is None or (isinstance(instruction, dict) and isinstance(instruction.get("parts"), list))


def _all_in(names: Iterable[str], known_names: frozenset[str]) -> bool:
    """Return whether all names are known; for few names, twice as fast as a comparison of sets."""
    for name in names:  # noqa: SIM110  (a generator costs more than the loop)
        if name not in known_names:
            return False
    return True


def _merge(request: Mapping[str, Any], defaults: RequestDefaults) -> Mapping[str, Any]:
    if not defaults:
        return request
    merged = {**request, **{name: value for name, value in defaults.members.items() if name not in request}}
    if defaults.generation_config:
        own = request.get("generationConfig") or {}
        config = {**defaults.generation_config, **own}
        if not SCHEMAS.isdisjoint(own):
            config = {name: value for name, value in config.items() if name in own or name not in SCHEMAS}
        merged["generationConfig"] = config
    return merged


def _for_model(request: Mapping[str, Any], kind: JobKind, defaults: RequestDefaults) -> Mapping[str, Any]:
    if kind is JobKind.GENERATION:
        return request
    if takes_instructions_in_text(defaults.model or ""):
        request = with_instructions(request)
    if EMBEDDING_OPTIONS.isdisjoint(request):
        return request
    options = {name: value for name, value in request.items() if name != "content"}
    return {"content": request["content"], "embedContentConfig": options}


def _check_cache(request: Mapping[str, Any]) -> None:
    if "cachedContent" in request and (clash := sorted(_NOT_WITH_CACHE & request.keys())):
        raise InputError(f"cachedContent cannot go with {', '.join(clash)}: put them into the cache")


def _without_model(request: Mapping[str, Any], wanted: str | None, who_names: str = "the row names") -> dict[str, Any]:
    """Return the request without its model, which must be the job's: a job has only one."""
    named = request["model"]
    if wanted is not None and (not isinstance(named, str) or _bare_model(named) != wanted):
        raise InputError(f"{who_names} another model than the job ({shown(named)} instead of {wanted})")
    return {name: value for name, value in request.items() if name != "model"}


def _vertex_embedding(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request with its options in ``embed_content_config``, in snake_case, as Vertex AI documents them."""
    config = {snake(name): value for name, value in request.get("embedContentConfig", request).items()}
    config.pop("content", None)
    return {"content": request["content"], **({"embed_content_config": config} if config else {})}


def _bare_model(model: str | None) -> str | None:
    if model is None:
        return None
    return model.removeprefix("models/").rpartition("/")[2]


def _refuse_kind(kind: JobKind, wanted: JobKind, name: str) -> None:
    if kind is not wanted:
        raise InputError(f"'{name}' is for {wanted.value} only")
