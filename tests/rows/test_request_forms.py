"""Every accepted form of a row ends as the same REST request, and every wrong one is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.fast_path import text_request
from airflow_provider_gemini_batch.api.requests.fields import camel
from airflow_provider_gemini_batch.api.requests.request import (
    BatchRequest,
    CheckedLine,
    inline_item,
    inline_line,
    is_ready,
    json_form,
    key_json,
    normalise,
    request_body,
    request_defaults,
    wire_line,
    with_roles,
)
from airflow_provider_gemini_batch.api.vertex_rules import check_request
from airflow_provider_gemini_batch.api.wire import json_bytes, key_text
from airflow_provider_gemini_batch.rows.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pair(NamedTuple):
    key: str = "a"
    text: str = "x"


class Model(BaseModel):
    text: str = "x"


@dataclass
class Data:
    text: str = "x"


def request_line(service: Service, kind: JobKind, key: str, request: Mapping[str, Any]) -> bytes:
    """The line of an input file."""
    return wire_line(service, kind, key_json(key), request_body(service, kind, request))


HELLO = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
HELLO_VECTOR = {"content": {"parts": [{"text": "hello"}]}}


@pytest.mark.parametrize(
    "row",
    [
        "hello",
        BatchRequest(text="hello"),
        BatchRequest(contents="hello"),
        {"text": "hello"},
        {"contents": "hello"},
        {"contents": ["hello"]},
        {"contents": [{"text": "hello"}]},
        {"contents": {"role": "user", "parts": [{"text": "hello"}]}},
        {"contents": [{"role": "user", "parts": {"text": "hello"}}]},
        {"request": {"contents": {"role": "user", "parts": {"text": "hello"}}}},
        HELLO,
        {"request": HELLO},
        {"request": {"contents": "hello"}},
    ],
)
def test_all_forms_of_one_text_are_the_same_request(row: Any) -> None:
    assert normalise(row) == (None, HELLO)


@pytest.mark.parametrize(
    "row",
    [
        "hello",
        BatchRequest(text="hello"),
        BatchRequest(content="hello"),
        {"content": {"parts": [{"text": "hello"}]}},
        {"content": "hello"},
        {"content": {"text": "hello"}},
        {"content": {"parts": {"text": "hello"}}},
        {"contents": ["hello"]},
        {"request": {"content": {"parts": [{"text": "hello"}]}}},
    ],
)
def test_all_forms_of_one_text_are_the_same_embedding_request(row: Any) -> None:
    assert normalise(row, kind=JobKind.EMBEDDINGS) == (None, HELLO_VECTOR)


CHAT: dict[str, Any] = {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hello"}]}


def openai(kind: JobKind = JobKind.GENERATION, **body: Any) -> dict[str, Any]:
    url = "/v1/embeddings" if kind is JobKind.EMBEDDINGS else "/v1/chat/completions"
    return {"custom_id": "r1", "method": "POST", "url": url, "body": body}


def test_a_line_of_openais_batch_files_becomes_a_request_of_the_service() -> None:
    assert normalise(openai(**CHAT)) == ("r1", HELLO)
    picture = [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "BBBB"}},
    ]
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": picture},
        {"role": "assistant", "content": "a cat", "refusal": None},
        {"role": "user", "content": "sure?"},
    ]
    settings: dict[str, Any] = {
        "max_completion_tokens": 9,
        "temperature": 0,
        "stop": "x",
        "response_format": {"type": "json_object"},
    }
    notes: set[str] = set()
    key, request = normalise(openai(messages=messages, n=2, stream=False, user=None, **settings), warnings=notes)
    assert (key, len(notes)) == ("r1", 1)
    assert request == {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "what?"},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"inlineData": {"mimeType": "audio/wav", "data": "BBBB"}},
                ],
            },
            {"role": "model", "parts": [{"text": "a cat"}]},
            {"role": "user", "parts": [{"text": "sure?"}]},
        ],
        "generationConfig": {
            "candidateCount": 2,
            "maxOutputTokens": 9,
            "temperature": 0,
            "stopSequences": ["x"],
            "responseMimeType": "application/json",
        },
    }
    embedding = openai(JobKind.EMBEDDINGS, input="hello", dimensions=8, encoding_format="float")
    assert normalise(embedding, kind=JobKind.EMBEDDINGS) == ("r1", {**HELLO_VECTOR, "outputDimensionality": 8})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (openai(**CHAT, tools=[{"type": "function"}]), "'tools' of body has no counterpart"),
        (openai(**CHAT, response_format={"type": "json_schema"}), "'response_format' of body has no counterpart"),
        (openai(**CHAT, response_format={"type": []}), "'response_format' of body"),
        ({**openai(**CHAT), "priority": 1}, "'priority' of a line in OpenAI's form"),
        (openai(messages=[{"role": "tool", "content": "x"}]), "'messages' must be a list of objects with the role"),
        (openai(messages=[{"role": ["user"], "content": "x"}]), "'messages' must be a list of objects with the role"),
        (openai(), "'messages' must be"),
        (openai(messages=[{"role": "assistant", "content": "x", "tool_calls": [{}]}]), "'tool_calls' of a message"),
        (openai(messages=[{"role": "user", "content": None}]), "'content' of a message"),
        (openai(messages=[{"role": "user", "content": [{"type": "file"}]}]), "'content' of a message"),
        (
            openai(
                messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]}]
            ),
            "must be a data: URL",
        ),
        (openai(messages=[{"role": "system", "content": "x"}]), "'contents' must be a list with at least one content"),
        ({**openai(**CHAT), "url": "/v1/responses"}, "'url' must be /v1/chat/completions"),
        ({**openai(), "body": "x"}, "'body' must be an object"),
    ],
)
def test_what_a_line_of_openai_asks_for_and_the_service_has_not_is_refused_by_name(
    row: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        normalise(row)


@pytest.mark.parametrize(
    "row",
    [
        {"key": "a", "request": HELLO},
        {"custom_id": "a", "request": HELLO},
        {"metadata": {"key": "a"}, "request": HELLO},
        {"key": "a", **HELLO},
        {"key": "a", "text": "hello"},
        BatchRequest(text="hello", key="a"),
    ],
)
def test_a_key_is_found_wherever_the_forms_put_it(row: Any) -> None:
    assert normalise(row) == ("a", HELLO)


def test_a_number_is_a_key() -> None:
    assert normalise({"key": 7, "text": "hello"})[0] == "7"


def test_both_spellings_end_as_one() -> None:
    row = {"contents": "x", "system_instruction": "s", "generation_config": {"max_output_tokens": 5, "topK": 2}}
    assert normalise(row)[1] == {
        "contents": [{"role": "user", "parts": [{"text": "x"}]}],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "generationConfig": {"maxOutputTokens": 5, "topK": 2},
    }


def test_the_flat_form_of_the_sdk_is_put_right_with_a_warning() -> None:
    warnings: set[str] = set()
    row = {
        "contents": "x",
        "config": {
            "temperature": 0.5,
            "system_instruction": "s",
            "safety_settings": [{"category": "c", "threshold": "t"}],
            "tools": [{"googleSearch": {}}],
            "thinking_config": {"thinking_budget": 0},
        },
    }
    assert normalise(row, warnings=warnings)[1] == {
        "contents": [{"role": "user", "parts": [{"text": "x"}]}],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "safetySettings": [{"category": "c", "threshold": "t"}],
        "tools": [{"googleSearch": {}}],
        "generationConfig": {"temperature": 0.5, "thinkingConfig": {"thinking_budget": 0}},
    }
    assert len(warnings) == 4


@pytest.mark.parametrize("beside", [{"config": {"temperature": 1}}, {"temperature": 1}])
def test_settings_beside_the_request_are_moved_into_it_with_a_warning(beside: dict[str, Any]) -> None:
    warnings: set[str] = set()
    key, request = normalise({"key": "a", "request": HELLO, **beside}, warnings=warnings)
    assert (key, request) == ("a", {**HELLO, "generationConfig": {"temperature": 1}})
    assert any("beside 'request'" in warning for warning in warnings)


def test_the_row_is_not_changed() -> None:
    row = {"contents": "x", "config": {"temperature": 1}}
    normalise(row, defaults=request_defaults(JobKind.GENERATION, generation_config={"topK": 1}))
    assert row == {"contents": "x", "config": {"temperature": 1}}


@pytest.mark.parametrize(("own", "default"), [("responseJsonSchema", "responseSchema"), ("response_schema",) * 2])
def test_the_schema_of_a_row_takes_the_place_of_the_default_one_in_either_spelling(own: str, default: str) -> None:
    config = {default: {"type": "STRING"}, "topK": 1}
    defaults = request_defaults(JobKind.GENERATION, generation_config=config)
    row = {**HELLO, "generationConfig": {own: {"type": "object"}, "topP": 1}}
    made = normalise(row, defaults=defaults)[1]["generationConfig"]
    assert made == {"topK": 1, "topP": 1, camel(own): {"type": "object"}}


def test_the_rows_own_value_wins_over_the_default() -> None:
    defaults = request_defaults(
        JobKind.GENERATION,
        generation_config={"temperature": 0.1, "maxOutputTokens": 9},
        system_instruction="default",
        request_defaults={"safety_settings": [1]},
    )
    row = {"contents": "x", "systemInstruction": {"parts": [{"text": "own"}]}, "generationConfig": {"temperature": 1}}
    request = normalise(row, defaults=defaults)[1]
    assert request["systemInstruction"] == {"parts": [{"text": "own"}]}
    assert request["generationConfig"] == {"temperature": 1, "maxOutputTokens": 9}
    assert request["safetySettings"] == [1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (None, "not null"),
        (7, "not a number"),
        (["x"], "not a list"),
        (Pair(), "give its _asdict()"),
        (Model(), "not Model (give its model_dump(mode='json', exclude_none=True))"),
        (Data(), "not Data (give dataclasses.asdict() of it)"),
        ({"contents": [Model()]}, "not Model (give its model_dump("),
        ({"contents": "x", "config": Model()}, "not Model (give its model_dump("),
        ({"request": Data()}, "not Data (give dataclasses.asdict() of it)"),
        ({"prompt": "x"}, "is 'text' meant?"),
        ({"text": "x", "system": "y"}, "is 'systemInstruction' meant?"),
        ({"text": "x", "id": 7}, "if it is a column, name it in key_field"),
        ({"text": 7}, "'text' must be a text, not a number"),
        ({"text": b"x"}, "'text' must be a text, not bytes"),
        ("", "the text is empty"),
        ("  ", "the text is empty"),
        ({}, "'contents' is missing"),
        (["x"], "a row is a text, an object or a BatchRequest, not a list: put what the lists hold into one list"),
        ({"contents": []}, "at least one content"),
        ({"contents": 1}, "not a number"),
        ({"contents": [{"role": "user"}]}, "'parts'"),
        ({"contents": [{"parts": []}]}, "at least one part"),
        ({"contents": [{"parts": [{}]}]}, "at least one member"),
        ({"request": []}, "'request' must be an object, not a list"),
        ({"request": None}, "'request' must be an object, not null"),
        ({"conents": "x"}, "is 'contents' meant?"),
        ({"contents": "x", "temprature": 1}, "is 'temperature' meant?"),
        ({"contents": "x", "generationConfig": {"max_tokens": 1}}, "generationConfig; is 'maxOutputTokens' meant?"),
        ({"contents": "x", "generation_config": {"shoe": 1}}, "into request_defaults, as generationConfig"),
        (
            {"text": "x", "generation_config": {"response_schema": {"items": [{"$ref": "#/$defs/A"}]}}},
            "give the type as",
        ),
        ({"contents": "x", "generationConfig": []}, "must be an object"),
        ({"contents": "x", "taskType": "A"}, "it is not for generation"),
        ({"contents": "x", "shoe_size": 1}, "to send a member that this version does not know"),
        ({"contents": "x", "generationConfig": {"topK": 1}, "top_k": 2}, "given twice"),
        ({"contents": "x", "systemInstruction": "a", "system_instruction": "b"}, "given twice"),
        ({"contents": "x", "systemInstruction": 5}, "'systemInstruction' must hold objects with 'parts', not a number"),
        ({"contents": "x", "systemInstruction": True}, "'systemInstruction' must hold objects"),
        ({"contents": "x", "systemInstruction": {}}, "'systemInstruction' needs 'parts'"),
        ({"contents": "x", "systemInstruction": []}, "'systemInstruction' needs 'parts'"),
        ({"contents": "x", "systemInstruction": {"parts": "a"}}, "'systemInstruction' needs 'parts'"),
        ({"text": None}, "the text is empty"),
        ({"request": HELLO, "shoe": 1}, "'shoe' beside 'request'"),
        ({"request": {**HELLO, "labels": {}}, "labels": {}}, "given twice"),
        ({"key": "", "text": "x"}, "the key is empty"),
        ({"key": 1.5, "text": "x"}, "a key is a text, a whole number, a date, a time or a UUID"),
        ({"key": True, "text": "x"}, "a key is a text, a whole number, a date, a time or a UUID"),
        ({"contents": "x", "cachedContent": "c", "tools": [{"a": 1}]}, "cachedContent cannot go with tools"),
        ({1: "x"}, "member names must be texts"),
    ],
)
def test_a_wrong_row_is_refused_and_says_why(row: Any, words: str) -> None:
    with pytest.raises(InputError) as refused:
        normalise(row)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        (7, "7"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), "2026-01-02T03:04:00+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=timezone.utc), "2026-01-02T03:04:05.000060+00:00"),
        (time(3, 4), "03:04:00"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_a_key_may_be_a_whole_number_a_date_a_time_or_a_uuid_and_reads_as_in_a_response(key: Any, written: str) -> None:
    assert normalise({"key": key, "text": "x"})[0] == key_text(key) == written


def test_another_model_than_the_jobs_is_refused_and_the_same_is_left_out() -> None:
    defaults = request_defaults(JobKind.GENERATION, model="models/gemini-2.5-flash")
    assert normalise({**HELLO, "model": "gemini-2.5-flash"}, defaults=defaults) == (None, HELLO)
    with pytest.raises(InputError, match="another model"):
        normalise({**HELLO, "model": "models/gemini-2.5-pro"}, defaults=defaults)


def test_a_member_that_is_new_to_us_passes_when_the_defaults_name_it() -> None:
    defaults = request_defaults(JobKind.GENERATION, request_defaults={"shoeSize": 43})
    assert normalise("hello", defaults=defaults)[1] == {**HELLO, "shoeSize": 43}
    assert normalise({**HELLO, "shoe_size": 44}, defaults=defaults)[1] == {**HELLO, "shoeSize": 44}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"generation_config": {"temprature": 1}}, "temprature"),
        ({"generation_config": [1]}, "must be an object, not a list"),
        (
            {"generation_config": {"topK": 1}, "request_defaults": {"generationConfig": {"topK": 2}}},
            "generation_config is given twice",
        ),
        (
            {"system_instruction": "a", "request_defaults": {"system_instruction": "b"}},
            "system_instruction is given twice, by itself and in request_defaults",
        ),
        (
            {"model": "models/gemini-2.5-flash", "request_defaults": {"model": "gemini-2.5-pro"}},
            r"request_defaults names another model than the job \(gemini-2.5-pro instead of gemini-2.5-flash\)",
        ),
        ({"request_defaults": {"safetySetings": []}}, "safetySetings"),
        ({"request_defaults": {"contents": "x"}}, "contents belong in the rows"),
        ({"request_defaults": {"cachedContent": "c"}, "system_instruction": "s"}, "cannot go with systemInstruction"),
        ({"task_type": "RETRIEVAL_QUERY"}, "for embeddings only"),
    ],
)
def test_wrong_defaults_are_refused_before_any_row(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        request_defaults(JobKind.GENERATION, **wrong)


def test_texts_of_embeddings_get_their_options() -> None:
    defaults = request_defaults(JobKind.EMBEDDINGS, task_type="RETRIEVAL_DOCUMENT", output_dimensionality=64)
    key, request = normalise({"key": "d", "text": "x", "title": "t"}, kind=JobKind.EMBEDDINGS, defaults=defaults)
    assert json.loads(request_line(Service.GEMINI, JobKind.EMBEDDINGS, "d", request)) == {
        "key": "d",
        "request": {
            "content": {"parts": [{"text": "x"}]},
            "title": "t",
            "taskType": "RETRIEVAL_DOCUMENT",
            "outputDimensionality": 64,
        },
    }
    assert key == "d"
    assert json.loads(request_line(Service.VERTEX, JobKind.EMBEDDINGS, "d", request)) == {
        "key": "d",
        "request": {
            "content": {"parts": [{"text": "x"}]},
            "embed_content_config": {"title": "t", "task_type": "RETRIEVAL_DOCUMENT", "output_dimensionality": 64},
        },
    }


def test_several_contents_of_an_embedding_are_refused() -> None:
    with pytest.raises(InputError, match="make a row of each"):
        normalise({"contents": ["a", "b"]}, kind=JobKind.EMBEDDINGS)


def test_vertex_gets_the_key_as_custom_id_and_a_role_for_every_content() -> None:
    line = request_line(Service.VERTEX, JobKind.GENERATION, "r1-a", {"contents": [{"parts": [{"text": "x"}]}]})
    assert json.loads(line) == {
        "request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
        "custom_id": "r1-a",
    }
    assert line.endswith(b"\n")


def test_an_inline_item_carries_its_key_as_metadata() -> None:
    assert inline_item("a", HELLO) == {"request": HELLO, "metadata": {"key": "a"}}
    assert inline_item(None, HELLO) == {"request": HELLO}
    line = CheckedLine(request_line(Service.GEMINI, JobKind.GENERATION, 'ä"', HELLO))
    assert json.loads(inline_line(line)) == inline_item('ä"', HELLO)


RING: list[Any] = []
RING.append(RING)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "a number that is not finite"),
        (float("-inf"), "a number that is not finite"),
        ("\ud800", "half of a surrogate pair"),
        (object(), "a value that JSON does not have"),
        (RING, "nested too deeply, or in themselves"),
    ],
    ids=["NaN", "infinite", "surrogate", "object", "ring"],
)
def test_what_json_cannot_hold_is_refused_in_words(value: object, words: str) -> None:
    with pytest.raises(InputError, match=f"cannot be written as JSON: it holds .*{words}"):
        request_line(Service.GEMINI, JobKind.GENERATION, "a", {"contents": [value]})
    with pytest.raises(InputError, match=f"cannot be written as JSON in UTF-8: it holds .*{words}"):
        json_bytes(value)


def test_a_text_that_speaks_of_nan_is_fine() -> None:
    assert b"NaN" in request_line(Service.GEMINI, JobKind.GENERATION, "a", normalise("What is NaN?")[1])


def test_only_what_needs_no_change_is_ready() -> None:
    assert is_ready(HELLO, JobKind.GENERATION)
    assert is_ready({**HELLO, "generationConfig": {"topK": 1}}, JobKind.GENERATION)
    assert not is_ready({**HELLO, "generation_config": {"topK": 1}}, JobKind.GENERATION)
    assert not is_ready({**HELLO, "generationConfig": {"top_k": 1}}, JobKind.GENERATION)
    assert not is_ready({**HELLO, "model": "m"}, JobKind.GENERATION)
    assert not is_ready(HELLO, JobKind.EMBEDDINGS)
    assert is_ready(HELLO_VECTOR, JobKind.EMBEDDINGS)


def test_a_repr_shows_no_prompt() -> None:
    assert "secret" not in repr(BatchRequest(text="secret", key="k", system_instruction="secret"))
    assert "secret" not in repr(request_defaults(JobKind.GENERATION, system_instruction="secret"))


ODD = st.sampled_from([None, "", "x", 0, -1, 7, 10**30, 1.5, True, [], {}, ["x"], {"text": "x"}, [{"text": "x"}]])
TEXT = st.just({"text": "x"})
PARTS = st.lists(TEXT | st.fixed_dictionaries({"text": ODD}, optional={"thought": ODD}), max_size=2) | ODD
TURN = st.fixed_dictionaries({"parts": PARTS}, optional={"role": st.sampled_from(["user", None, 3]), "odd": ODD})
SETTINGS = ["maxOutputTokens", "temperature", "topK", "seed", "stopSequences", "candidateCount", "thinkingConfig"]
CONFIG = st.dictionaries(st.sampled_from(SETTINGS), ODD | st.integers(-2, 9), max_size=3)
REQUEST = st.fixed_dictionaries(
    {"contents": st.lists(TURN, max_size=2) | ODD},
    optional={"generationConfig": CONFIG | ODD, "systemInstruction": TURN | ODD, "tools": ODD, "model": ODD},
)
ROW = REQUEST | st.fixed_dictionaries({"request": REQUEST, "key": st.text(max_size=3) | ODD}, optional={"odd": ODD})


KEYED = {"key": "a", "request": {**HELLO, "generationConfig": {"maxOutputTokens": 5, "temperature": 1}}}


@given(ROW)
@example(HELLO)
@example(KEYED)
def test_the_quick_way_takes_only_what_the_long_way_takes_as_it_is(row: dict[str, Any]) -> None:
    value = row.get("request", row)
    request = text_request(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    if request is None:
        assert row not in (HELLO, KEYED)
        return
    assert is_ready(value, JobKind.GENERATION)
    assert request.members == value.keys() - {"contents"}
    configs: list[dict[str, Any]] = [{}, {"maxOutputTokens": 3}, {"responseModalities": ["IMAGE"]}]
    for model, config, size in product(("gemini-2.5-flash", "gemini-2.5-flash-image"), configs, (100, 10**6)):
        quick, long = (Expected(model, {"generationConfig": config}) for _ in range(2))
        quick.add(request, size)
        long.add(value, size)
        assert vars(quick) == vars(long)
    if request.suits_vertex:
        check_request(value)
        assert with_roles(value) is value


@pytest.mark.parametrize(
    ("member", "value"),
    [("tools", {"googleSearch": {"excludeDomains": ["a.test"]}}), ("safetySettings", {"category": "A"})],
)
def test_vertex_gets_a_list_where_another_row_has_one(member: str, value: Any) -> None:
    bare, listed = (
        normalise({"contents": [{"role": "user", "parts": [{"text": "x"}]}], member: form})[1]
        for form in (value, [value])
    )
    assert request_body(Service.VERTEX, JobKind.GENERATION, bare) == request_body(
        Service.VERTEX, JobKind.GENERATION, listed
    )
    assert request_defaults(JobKind.GENERATION, request_defaults={member: value}).members == {member: [value]}


@pytest.mark.parametrize("member", ["stopSequences", "responseModalities"])
def test_vertex_gets_a_list_in_the_configuration_too(member: str) -> None:
    contents = [{"parts": [{"text": "x"}]}]
    made = with_roles({"contents": contents, "generationConfig": {"seed": 1, member: "TEXT"}})
    assert made["generationConfig"] == {"seed": 1, member: ["TEXT"]}
    assert made["contents"] == [{"role": "user", **contents[0]}]


def test_a_class_given_as_a_schema_is_refused_with_what_makes_one() -> None:
    with pytest.raises(InputError, match=r"the class Model \(give its model_json_schema\(\), or output_schema\)"):
        json_form({"generationConfig": {"responseSchema": Model}})


def test_a_new_member_of_the_configuration_can_be_sent() -> None:
    defaults = request_defaults(JobKind.GENERATION, request_defaults={"generation_config": {"new_knob": 1}})
    assert normalise("x", defaults=defaults)[1]["generationConfig"] == {"newKnob": 1}
    with pytest.raises(InputError, match="'newKnob' is not a member of generationConfig"):
        request_defaults(JobKind.GENERATION, generation_config={"new_knob": 1})


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$defs": {}}, "holds references"),
        ({"properties": {"a": {"anyOf": [{"$ref": "#"}]}}}, "holds references"),
        ({"properties": {"a": {"type": ["STRING", "null"]}}}, "a 'type' that is a list"),
        ({"type_": "OBJECT"}, "'type_'"),
        ({"type": "ARRAY", "items": {"type_": 1}}, "'type_'"),
    ],
)
def test_a_schema_that_is_not_geminis_is_refused_before_it_fails_each_row(schema: dict[str, Any], words: str) -> None:
    contents = [{"role": "user", "parts": [{"text": "x"}]}]
    for config in ({"responseSchema": schema}, {"response_schema": schema}):
        with pytest.raises(InputError, match=words):
            request_defaults(JobKind.GENERATION, generation_config=config)
        for row in ({"generationConfig": config}, {"generation_config": config}, {"config": config}):
            with pytest.raises(InputError, match=words):
                normalise({"contents": contents, **row})
    with pytest.raises(InputError, match=words):
        is_ready({"contents": contents, "generationConfig": {"responseSchema": schema}}, JobKind.GENERATION)


def test_a_property_may_have_the_name_of_a_member_of_schemas() -> None:
    properties = {"type": {"type": "STRING"}, "type_": {"type": "STRING"}}
    config = {"responseSchema": {"type": "OBJECT", "properties": properties}, "responseJsonSchema": {"$defs": {}}}
    assert request_defaults(JobKind.GENERATION, generation_config=config)
