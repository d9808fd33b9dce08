"""A pydantic model becomes what Gemini takes, and answers are held against it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, field_serializer, field_validator

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.rows.schema import OutputSchema


class Mood(str, Enum):
    GOOD = "good"
    BAD = "bad"


class Line(BaseModel):
    """A line of an order."""

    amount: int = Field(gt=0, le=10)
    mood: Mood
    kind: Literal["a"] | None = None


class Order(BaseModel):
    why: str = Field(description="the reasons first", min_length=1)
    lines: list[Line] = Field(max_length=3)
    when: dt.datetime
    day: dt.date
    pair: tuple[int, str]
    number: Literal[1, 2]
    first: Line | None = None
    either: int | str


class Recursive(BaseModel):
    children: list[Recursive]


def test_a_model_is_written_out_in_the_services_words() -> None:
    made = OutputSchema(Order).response_schema
    assert made["type"] == "OBJECT"
    assert made["propertyOrdering"] == ["why", "lines", "when", "day", "pair", "number", "first", "either"]
    members = made["properties"]
    assert members["why"] == {"type": "STRING", "title": "Why", "description": "the reasons first", "minLength": 1}
    line = members["lines"]["items"]
    assert members["lines"]["maxItems"] == 3
    assert line["required"] == ["amount", "mood"]
    assert line["properties"]["amount"] == {"type": "INTEGER", "title": "Amount", "maximum": 10}
    assert line["properties"]["mood"]["enum"] == ["good", "bad"]
    assert line["properties"]["mood"]["format"] == "enum"
    assert line["properties"]["kind"]["nullable"] is True
    assert members["when"]["format"] == "date-time"
    assert "format" not in members["day"]
    assert members["pair"]["items"] == {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]}
    assert "enum" not in members["number"]
    assert members["first"]["nullable"] is True
    assert members["first"]["properties"] == line["properties"]
    assert [choice["type"] for choice in members["either"]["anyOf"]] == ["INTEGER", "STRING"]


def test_no_word_is_left_that_gemini_does_not_know() -> None:
    known = {
        "type", "title", "description", "nullable", "enum", "format", "maxItems", "minItems", "properties", "required",
        "propertyOrdering", "items", "anyOf", "minimum", "maximum", "minLength", "maxLength", "pattern",
        "minProperties", "maxProperties",
    }  # fmt: skip

    def check(node: dict[str, Any]) -> None:
        inner_nodes = [*node.get("properties", {}).values(), *node.get("anyOf", [])]
        assert node.keys() <= known
        for inner in inner_nodes + [node[name] for name in ("items",) if name in node]:
            check(inner)

    check(OutputSchema(Order).response_schema)


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Recursive, "refers to itself"),
        (dict[str, int], "arbitrary keys"),
        (Any, "accepts any value"),
        (list[Any], r"output_schema\[\]"),
        (None, "can only be null|accepts any value"),
        (object(), "pydantic model"),
        (Literal[1, "a"], "one type"),
    ],
)
def test_a_type_that_cannot_be_told_is_refused(model: Any, where: str) -> None:
    with pytest.raises(ConfigurationError, match=where):
        OutputSchema(model)


def test_lists_and_plain_types_work_too() -> None:
    assert OutputSchema(list[str]).response_schema == {"type": "ARRAY", "items": {"type": "STRING"}}
    assert OutputSchema(Mood).response_schema["enum"] == ["good", "bad"]


@pytest.mark.parametrize("given", ["Model", {"type": "object"}, 5])
def test_what_has_no_schema_is_refused_in_our_words(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="output_schema must be a pydantic model"):
        OutputSchema(given)


def test_what_pydantic_says_of_a_type_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"has a JSON schema \(Cannot generate a JsonSchema for .*Callable"):
        OutputSchema(Callable[[int], int])


@pytest.mark.parametrize(
    "text", ['{"amount":1,"mood":"good"}', ' {"amount":1,"mood":"good"}\n', '```json\n{"amount":1,"mood":"good"}\n```']
)
def test_a_right_answer_is_read_with_and_without_a_fence(text: str) -> None:
    assert OutputSchema(Line).read(text) == ({"amount": 1, "mood": "good", "kind": None}, "")


def test_a_wrong_answer_says_where_and_not_what() -> None:
    value, fault = OutputSchema(Line).read('{"amount":99,"mood":"secret"}')
    assert value is None
    assert "amount" in fault
    assert "mood" in fault
    assert "secret" not in fault


@pytest.mark.parametrize("text", ["", "no json", "[]", "null", '{"amount":', "```", "\ud800"])
def test_no_text_crashes_the_reader(text: str) -> None:
    value, fault = OutputSchema(Line).read(text)
    assert value is None
    assert fault


def test_values_come_back_in_plain_json_types() -> None:
    value, _ = OutputSchema(list[dt.date]).read('["2026-01-02"]')
    assert json.dumps(value) == '["2026-01-02"]'


class Fragile(BaseModel):
    """A model whose own code meets a value that its author did not expect."""

    number: int

    @field_validator("number")
    @classmethod
    def _look_up(cls, value: int) -> int:
        return {1: 1}[value]

    @field_serializer("number")
    def _divide(self, value: int) -> float:
        return 1 / (value - 1)


@pytest.mark.parametrize("number", [99, 1])
def test_code_of_a_model_that_fails_costs_its_row_alone(number: int) -> None:
    value, fault = OutputSchema(Fragile).read(f'{{"number": {number}}}')
    assert value is None
    assert "the schema's own code failed" in fault
    assert "99" not in fault
