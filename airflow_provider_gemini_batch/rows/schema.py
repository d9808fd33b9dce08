"""Structured output: a pydantic model as Gemini's ``responseSchema``, and the check of every response against it.

Gemini takes a subset of OpenAPI 3.0: no references, no ``additionalProperties``, enums of texts only. In batch jobs
``responseJsonSchema`` can make whole jobs fail, so it is never used. What the subset cannot express (patterns of dates,
exclusive bounds, enums of numbers) is not sent, but is still checked when the response arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from airflow_provider_gemini_batch.api.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = {"string", "number", "integer", "boolean", "array", "object"}
_COPIED = (
    "title", "description", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "pattern",
    "required", "minProperties", "maxProperties",
)  # fmt: skip
_FORMATS = {"string": {"date-time"}, "number": {"float", "double"}, "integer": {"int32", "int64"}}
_MAX_DEPTH = 32
_FENCE = "```"


class OutputSchema:
    """A pydantic model, or any type that pydantic accepts, for the request and for the check of the response.

    ``response_schema`` is what the service gets. Raises ConfigurationError for a type that the service cannot take; the
    error says where in the type.
    """

    def __init__(self, model: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(model)
            drawn = self._adapter.json_schema(mode="validation")
        except (PydanticUserError, SchemaError, TypeError) as error:
            why = f" ({error.message.splitlines()[0]})" if isinstance(error, PydanticUserError) else ""
            raise ConfigurationError(
                f"output_schema must be a pydantic model that has a JSON schema{why}; a schema of your own goes into "
                "generation_config, as responseSchema"
            ) from error
        self.response_schema: dict[str, Any] = response_schema(drawn)

    def read(self, text: str) -> tuple[Any, str]:
        """Return the value in plain JSON types and empty text; or None and what is wrong with the response."""
        try:
            value = self._adapter.validate_json(_strip_fence(text))
            return self._adapter.dump_python(value, mode="json"), ""
        except ValidationError as error:
            return None, _faults(error)
        except Exception as error:  # noqa: BLE001  (validators and serializers are the author's own code)
            return None, f"the schema's own code failed on the response ({type(error).__name__})"


def response_schema(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return pydantic's JSON schema in Gemini's form. Raises ConfigurationError, which says where it has none."""
    return _convert(json_schema, json_schema.get("$defs", {}), "output_schema", 0)


def _convert(node: Any, definitions: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise ConfigurationError(f"{where}: this accepts any value, and Gemini needs a type: name one")
    node = _resolve(node, definitions, where, depth)
    for several in ("anyOf", "oneOf"):
        if several in node:
            return _choice(node, node[several], definitions, where, depth)
    node = {**node, "enum": [node["const"]]} if "const" in node else node
    kind = node.get("type")
    if isinstance(kind, list):
        return _choice(node, [{**node, "type": one} for one in kind], definitions, where, depth)
    kind = _enum_type(node["enum"], where) if kind is None and "enum" in node else kind
    if kind not in _TYPES:
        raise ConfigurationError(f"{where}: this accepts any value, and Gemini needs a type: name one")
    made = _plain_members(node, kind)
    if kind == "object":
        _object_members(node, made, definitions, where, depth)
    elif kind == "array":
        made["items"] = _items(node, definitions, where, depth)
    return made


def _plain_members(node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the members that can be copied, and those enums and formats that the service knows."""
    made: dict[str, Any] = {"type": kind.upper()}
    made.update({name: node[name] for name in _COPIED if node.get(name) not in (None, [])})
    if kind == "string" and "enum" in node:
        made["format"] = "enum"
        made["enum"] = list(node["enum"])
    elif node.get("format") in _FORMATS.get(kind, ()):
        made["format"] = node["format"]
    return made


def _resolve(node: dict[str, Any], definitions: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    """Return the node with its reference replaced by the definition; members beside the reference win."""
    hops = depth
    while "$ref" in node or len(node.get("allOf", ())) == 1:
        hops += 1
        if hops > _MAX_DEPTH:
            raise ConfigurationError(
                f"{where}: the type refers to itself, which Gemini's schema cannot: write its levels out"
            )
        beside = {name: value for name, value in node.items() if name not in ("$ref", "allOf")}
        target = node["allOf"][0] if "allOf" in node else definitions.get(node["$ref"].rpartition("/")[2])
        if not isinstance(target, dict):
            raise ConfigurationError(f"{where}: refers to something that is not in the schema")
        node = {**target, **beside}
    return node


def _choice(
    node: Mapping[str, Any], choices: list[Any], definitions: Mapping[str, Any], where: str, depth: int
) -> dict[str, Any]:
    """Return the schema for one of several types; null among them becomes ``nullable``."""
    real = [choice for choice in choices if not (isinstance(choice, dict) and choice.get("type") == "null")]
    if not real:
        raise ConfigurationError(f"{where}: this can only be null: give it another type")
    made = [_convert(choice, definitions, where, depth + 1) for choice in real]
    described = {name: node[name] for name in ("title", "description") if name in node}
    result = {**made[0], **described} if len(made) == 1 else {"anyOf": made, **described}
    if len(real) < len(choices):
        result["nullable"] = True
    return result


def _object_members(
    node: Mapping[str, Any], made: dict[str, Any], definitions: Mapping[str, Any], where: str, depth: int
) -> None:
    members = node.get("properties")
    if not members:
        raise ConfigurationError(
            f"{where}: Gemini's schema has no objects with arbitrary keys: use a model, or a list of pairs"
        )
    made["properties"] = {
        name: _convert(inner, definitions, f"{where}.{name}", depth + 1) for name, inner in members.items()
    }
    # Without it the service sorts the members by name, which could put a decision before the reasoning for it.
    made["propertyOrdering"] = list(members)


def _items(node: Mapping[str, Any], definitions: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    if "prefixItems" in node:
        kinds: list[dict[str, Any]] = []
        for inner in node["prefixItems"]:
            kind = _convert(inner, definitions, f"{where}[]", depth + 1)
            if kind not in kinds:
                kinds.append(kind)
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return _convert(node.get("items"), definitions, f"{where}[]", depth + 1)


def _enum_type(values: list[Any], where: str) -> str:
    words = {bool: "boolean", str: "string", int: "integer", float: "number"}
    kinds = {words.get(type(value)) for value in values}
    if len(kinds) != 1 or None in kinds:
        raise ConfigurationError(f"{where}: the choices must be of one type")
    return str(kinds.pop())


def _strip_fence(text: str) -> str:
    """Return the response without the Markdown fence that models often put around JSON."""
    bare = text.strip()
    if bare.startswith(_FENCE) and bare.endswith(_FENCE) and "\n" in bare:
        return bare[bare.index("\n") : -len(_FENCE)]
    return text


def _faults(error: ValidationError) -> str:
    """Return where and what is wrong, without the values: these are in the row's text."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    faults = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'response'}: {one['msg']}" for one in found[:5])
    return f"not what the schema wants: {faults}" + (f"; and {len(found) - 5} more" if len(found) > 5 else "")  # noqa: PLR2004
