"""What a request may hold: all that the official SDK can send; names of a later one pass unless we are strict."""

from __future__ import annotations

import enum
import json
import typing
from typing import TYPE_CHECKING, Any

import pydantic
import pytest
from google.genai import types

from airflow_provider_gemini_batch.emulator import Emulator, messages
from airflow_provider_gemini_batch.emulator.row_checks import RowCheck
from airflow_provider_gemini_batch.emulator.schema import Complaint, snake
from emulator.calls import MODEL, Gemini

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator.messages import Message

#: Members that stay in the SDK, or that one of the services does not take.
_OF_THE_SDK = {"httpOptions", "automaticFunctionCalling", "shouldReturnHttpResponse"}
#: The Developer API's schema has none of these; `responseJsonSchema` is the way.
_NOT_IN_SCHEMA = {"additionalProperties", "defs", "ref"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def _models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    for inner in typing.get_args(annotation):
        yield from _models(inner)
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation


def _missing(model: type[pydantic.BaseModel], message: Message, place: str, seen: set[str]) -> Iterator[str]:
    """Yield the members of an SDK type that a message does not know, at every depth."""
    if model.__name__ in seen:
        return
    seen.add(model.__name__)
    for field, info in model.model_fields.items():
        name = _camel(field)
        if name in _OF_THE_SDK or (model is types.Schema and name in _NOT_IN_SCHEMA):
            continue
        if name not in message:
            yield f"{place}.{name}"
            continue
        kind = message[name]
        while isinstance(kind, (list, tuple)):
            kind = kind[-1]
        inner = next(iter(_models(info.annotation)), None)
        if inner is not None and isinstance(kind, dict):
            yield from _missing(inner, kind, f"{place}.{name}", seen)


REQUEST = messages.VERTEX_GENERATE
CONFIG = {**REQUEST, **REQUEST["generationConfig"]}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (types.Content, REQUEST["contents"][0]),
        (types.GenerateContentConfig, CONFIG),
        (types.GenerationConfig, REQUEST["generationConfig"]),
        (types.Tool, REQUEST["tools"][0]),
        (types.EmbedContentConfig, messages.EMBED["embedContentConfig"]),
    ],
)
def test_every_member_of_the_sdks_requests_is_known(model: type[pydantic.BaseModel], message: Message) -> None:
    assert list(_missing(model, message, model.__name__, set())) == []


def _sample(kind: Any, depth: int = 0) -> Any:
    """Return a value that fits a kind, with every member of a message."""
    if isinstance(kind, dict):
        return {} if depth > 4 else {name: _sample(inner, depth + 1) for name, inner in kind.items()}
    if isinstance(kind, list):
        return [_sample(kind[0], depth + 1)]
    if isinstance(kind, tuple):
        return {"any name": _sample(kind[1], depth + 1)}
    if isinstance(kind, frozenset):
        return min(kind)
    return {"string": "text", "number": 1, "bool": True, "enum": "A_NAME", "any": None, "struct": {"a": 1}}[kind]


def _snaked(value: Any) -> Any:
    if isinstance(value, dict):
        return {snake(name): _snaked(inner) for name, inner in value.items()}
    return [_snaked(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("spelling", ["camel", "snake"])
@pytest.mark.parametrize("vertex", [True, False])
def test_both_spellings_are_taken_at_every_depth(spelling: str, vertex: bool) -> None:  # noqa: FBT001 - a column
    message = messages.VERTEX_GENERATE if vertex else messages.GENERATE
    request = {name: _sample(kind) for name, kind in message.items() if name != "cachedContent"}
    for content in [*request["contents"], request["systemInstruction"]]:
        # Of the data of a part, only one member may be there.
        whole = content["parts"][0]
        beside = {name: value for name, value in whole.items() if name not in messages.PART_DATA}
        content["parts"] = [{name: whole[name], **beside} for name in messages.PART_DATA]
    RowCheck(embeds=False, vertex=vertex).request(_snaked(request) if spelling == "snake" else request)


@pytest.mark.parametrize(
    ("request_", "lenient"),
    [
        ({"contents": [], "memberOfNextYear": 1}, True),
        ({"contents": [{"parts": [{"text": "x", "next_year": {"a": 1}}]}]}, True),
        ({"contents": [], "generationConfig": {"newConfig": {}}}, True),
        ({"contents": [], "thinking_config": {}}, False),
        ({"contents": [], "temperature": 1}, False),
        ({"contents": [{"parts": [{"text": 5}]}]}, False),
        ({"contents": [], "generationConfig": {"responseSchema": {"type": ["STRING", "null"]}}}, False),
    ],
)
def test_a_name_that_nobody_knows_passes_unless_we_are_strict(request_: dict[str, Any], lenient: bool) -> None:  # noqa: FBT001 - a column
    with pytest.raises(Complaint):
        RowCheck(embeds=False).request(request_)
    if lenient:
        RowCheck(embeds=False, strict=False).request(request_)
    else:
        with pytest.raises(Complaint):
            RowCheck(embeds=False, strict=False).request(request_)


@pytest.mark.parametrize("strict", [True, False, None])
def test_strictness_is_an_option_and_comes_from_the_environment_without_one(
    monkeypatch: pytest.MonkeyPatch, *, strict: bool | None
) -> None:
    monkeypatch.setenv("GEMINI_BATCH_EMULATOR_STRICT", "1")
    request = {"contents": [{"parts": [{"text": "x"}]}], "memberOfNextYear": 1}
    body: dict[str, Any]
    with Emulator(strict=strict) as emulator, Gemini(emulator) as gemini:
        body = {"batch": {"inputConfig": {"requests": {"requests": [{"request": request}]}}}}
        inline = gemini.http.post(f"{MODEL}:batchGenerateContent", json=body)
        file = gemini.upload(json.dumps({"key": "a", "request": request}).encode())
        body = {"batch": {"inputConfig": {"fileName": file}}}
        from_file = gemini.http.post(f"{MODEL}:batchGenerateContent", json=body)
    assert [inline.status_code, from_file.status_code] == ([200, 200] if strict is False else [400, 400])


def test_enumerations_of_the_sdk_are_not_refused() -> None:
    for name in ("TaskType",):
        known = getattr(types, name, None)
        values = [member.value for member in known] if isinstance(known, type) and issubclass(known, enum.Enum) else []
        assert set(values) <= messages.TASK_TYPE
    thresholds = {member.value for member in types.HarmBlockThreshold}
    assert thresholds <= messages.THRESHOLD
    assert {member.value for member in types.FunctionCallingConfigMode} <= messages.CALLING_MODE
    assert {member.value for member in types.Type} <= messages.SCHEMA_TYPE
