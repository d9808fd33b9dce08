"""The deterministic answers, checked against their own words and not against the code that makes them."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.emulator.answers import Answerer, answer_schema, embedding_of, gist_of
from airflow_provider_gemini_batch.emulator.row_checks import RowCheck
from airflow_provider_gemini_batch.emulator.rows import AnswerPlan, Tally, answer_lines, shuffled
from airflow_provider_gemini_batch.emulator.schema import Complaint
from airflow_provider_gemini_batch.emulator.wire import ApiError, apply_mask, parse_mask


def _request(*texts: str, **more: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": text} for text in texts]}], **more}


def test_the_digest_is_of_the_texts_joined_by_newlines() -> None:
    response = Answerer("models/gemini-2.5-flash", embeds=False).answer(_request("one", "two"), None)["response"]
    digest = hashlib.sha256(b"one\ntwo").hexdigest()[:16]
    assert response["responseId"] == f"r{digest}"
    assert response["modelVersion"] == "gemini-2.5-flash"
    assert response["candidates"][0]["content"]["parts"][0]["text"].startswith(f"[{digest}] ")


@pytest.mark.parametrize(
    ("text", "gist"),
    [
        ("One. Two.", "One."),
        ("Intro here.\n\nAsk   this\nnow? Then that.", "Ask this now?"),
        ("Intro.\n \t \nNo end of a sentence\n\n \n", "No end of a sentence"),
        ("x" * 300, "x" * 120),
    ],
)
def test_the_gist_is_the_first_sentence_of_the_last_paragraph(text: str, gist: str) -> None:
    assert gist_of(text) == gist


@given(st.text())
def test_any_text_has_a_short_gist_in_one_line(text: str) -> None:
    gist = gist_of(text)
    assert len(gist) <= 120
    assert gist == " ".join(gist.split())


@given(st.text(alphabet="0123456789abcdef", min_size=16, max_size=16), st.integers(1, 100))
def test_embeddings_lie_in_range_and_follow_the_formula(digest: str, dimensions: int) -> None:
    values = embedding_of(digest, dimensions)
    assert len(values) == dimensions
    assert all(-1 <= value < 1 for value in values)
    word = int.from_bytes(hashlib.sha256(f"{digest}:0".encode()).digest()[:4], "big")
    assert abs(values[0] - (word / 2**31 - 1)) < 1e-6


def test_a_schema_is_answered_by_the_smallest_object_with_the_digest_first() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "n": {"type": "INTEGER"},
            "title": {"type": "STRING"},
            "kind": {"type": "STRING", "enum": ["a", "b"]},
            "tags": {"type": "ARRAY", "items": {"type": "STRING"}},
            "spare": {"type": "STRING"},
        },
        "required": ["n", "title", "kind", "tags"],
    }
    assert json.loads(answer_schema(schema, "d1")) == {"n": 0, "title": "d1", "kind": "a", "tags": ["text"]}


def test_usage_counts_the_system_instruction_too() -> None:
    answerer = Answerer("m", embeds=False, thoughts=5)
    plain = answerer.answer(_request("x" * 40), None)["response"]["usageMetadata"]
    assert plain["promptTokenCount"] == 10
    assert plain["totalTokenCount"] == 10 + plain["candidatesTokenCount"] + 5
    system = {"systemInstruction": {"parts": [{"text": "y" * 39}]}}
    assert answerer.answer(_request("x" * 40, **system), None)["response"]["usageMetadata"]["promptTokenCount"] == 20


@pytest.mark.parametrize("request_", [{}, {"contents": []}, {"contents": [{"parts": [{"text": ""}]}]}])
def test_a_request_without_content_is_a_row_error(request_: dict[str, Any]) -> None:
    assert Answerer("m", embeds=False).answer(request_, None)["error"]["code"] == 3


def test_a_responder_may_answer_text_a_response_or_an_error_and_may_raise() -> None:
    def respond(request: dict[str, Any], key: str | None) -> str | dict[str, Any]:
        del request
        if key == "raise":
            raise ValueError("no luck")
        said: dict[str | None, str | dict[str, Any]] = {"text": "hello", "whole": {"candidates": []}}
        return said.get(key, {"error": {"code": 8, "message": "m"}})

    answerer = Answerer("m", embeds=False, responder=respond)
    assert answerer.answer(_request("x"), "text")["response"]["candidates"][0]["content"]["parts"][0]["text"] == "hello"
    assert answerer.answer(_request("x"), "error") == {"error": {"code": 8, "message": "m"}}
    assert answerer.answer(_request("x"), "whole") == {"response": {"candidates": []}}
    assert answerer.answer(_request("x"), "raise") == {"error": {"code": 13, "message": "no luck"}}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            '{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}],"thinking_config":{}}}',
            "no such field: 'thinking_config'",
        ),
        (
            '{"request":{"contents":[],"generationConfig":{"response_schema":{"additionalProperties":false}}}}',
            "additionalProperties",
        ),
        ('{"request":{"system_instruction":["x"]}}', "unexpected character: '['; expected '{'"),
        ('{"request":{"contents":{"parts":[]}}}', "unexpected character: '{'; expected '['"),
        ('{"request":{"contents":[{"parts":[{"text":5}]}]}}', "unexpected character: '5'"),
        ('{"key":7,"request":{}}', "the key must be a string"),
        ('{"request":{"generationConfig":{"temperature":NaN}}}', "NaN"),
        ('{"request":', "invalid JSON"),
        ("[]", "expected '{'"),
        ('{"config":{}}', "no such field: 'config'"),
        ('{"request":{"cachedContent":"cachedContents/1","tools":[{}]}}', "CachedContent can not be used"),
        ('{"request":{"contents":[{"parts":[{"text":"x","fileData":{}}]}]}}', "oneof"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: str, complaint: str) -> None:
    good = '{"request":{"contents":[{"parts":[{"text":"x"}]}]},"custom_id":"ignored","config":{"also":1}}'
    with pytest.raises(ApiError) as caught:
        RowCheck(embeds=False).lines([good.encode(), line.encode()])
    assert caught.value.message.startswith("Error on line 2: ")
    assert complaint in caught.value.message


def test_keyed_and_bare_lines_in_both_spellings_are_taken() -> None:
    lines = [
        b'{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}],"generation_config":{"max_output_tokens":5}}}',
        b'{"contents":[{"parts":[{"text":"y"}]}],"generationConfig":{"thinkingConfig":{"thinking_budget":0}}}',
    ]
    assert RowCheck(embeds=False).lines(lines) == 2
    tally = Tally()
    answered = [json.loads(line) for line in answer_lines(lines, AnswerPlan("m", embeds=False, faults={}), tally)]
    assert "key" not in answered[1]
    assert answered[0]["key"] == "a"
    assert tally.succeeded == 2


@given(st.lists(st.binary(min_size=1), max_size=50))
def test_a_shuffle_keeps_every_line(lines: list[bytes]) -> None:
    assert sorted(shuffled(lines, "seed")) == sorted(lines)


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        ("name", {"name": "n"}),
        ("name,metadata/state", {"name": "n", "metadata": {"state": "S"}}),
        ("metadata(state,batchStats/a)", {"metadata": {"state": "S", "batchStats": {"a": 1}}}),
        (
            "metadata/batchStats(a,b),metadata( state ),name/x",
            {"name": "n", "metadata": {"state": "S", "batchStats": {"a": 1, "b": 2}}},
        ),
        ("metadata/state,metadata/x", {"metadata": {"state": "S", "x": 1}}),
        ("*", {"name": "n", "metadata": {"state": "S", "x": 1, "batchStats": {"a": 1, "b": 2}}}),
    ],
)
def test_a_mask_keeps_what_it_names(mask: str, kept: dict[str, Any]) -> None:
    document = {"name": "n", "metadata": {"state": "S", "x": 1, "batchStats": {"a": 1, "b": 2}}}
    assert apply_mask(document, parse_mask(mask)) == kept


@pytest.mark.parametrize("mask", ["", "a(", "a)", "a,,b", "/a", "a/", "a/b(c", "a(b)/c", "a()", "a(b)c", ","])
def test_a_broken_mask_is_refused(mask: str) -> None:
    with pytest.raises(ApiError):
        parse_mask(mask)


_TEXT = st.text(max_size=10)
_PART = st.one_of(
    st.fixed_dictionaries({"text": _TEXT}),
    st.fixed_dictionaries({"fileData": st.fixed_dictionaries({"fileUri": _TEXT, "mimeType": _TEXT})}),
    st.fixed_dictionaries(
        {"functionCall": st.fixed_dictionaries({"name": _TEXT, "args": st.dictionaries(_TEXT, _TEXT)})}
    ),
)
_CONTENT = st.fixed_dictionaries({"parts": st.lists(_PART, max_size=3)}, optional={"role": st.just("user")})
_REQUESTS = st.fixed_dictionaries(
    {"contents": st.lists(_CONTENT, min_size=1, max_size=3)},
    optional={
        "systemInstruction": _CONTENT,
        "generationConfig": st.fixed_dictionaries(
            {"maxOutputTokens": st.integers(1, 100), "thinkingConfig": st.just({"thinkingBudget": 0})},
            optional={
                "responseSchema": st.just({"type": "OBJECT", "properties": {"anyName": {"type": "string"}}}),
                "responseJsonSchema": st.dictionaries(_TEXT, _TEXT),
            },
        ),
        "toolConfig": st.just({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}),
        "safetySettings": st.just([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]),
    },
)
_FREE = ("args", "properties", "responseJsonSchema")


def _messages(value: Any) -> list[dict[str, Any]]:
    """Return every object that has a fixed set of members, at every depth."""
    if isinstance(value, list):
        return [found for item in value for found in _messages(item)]
    if not isinstance(value, dict):
        return []
    return [value] + [found for name, item in value.items() if name not in _FREE for found in _messages(item)]


def _snake(value: Any, *, names: bool = True) -> Any:
    if isinstance(value, list):
        return [_snake(item, names=names) for item in value]
    if not isinstance(value, dict):
        return value
    spelt = {
        ("".join(f"_{c.lower()}" if c.isupper() else c for c in k) if names else k): (k, v) for k, v in value.items()
    }
    return {name: _snake(v, names=names and k not in _FREE) for name, (k, v) in spelt.items()}


@given(_REQUESTS, st.data())
def test_requests_pass_in_both_spellings_and_a_stranger_at_any_depth_does_not(
    request: dict[str, Any], data: st.DataObject
) -> None:
    request = copy.deepcopy(request)
    RowCheck(embeds=False).request(request)
    RowCheck(embeds=False).request(_snake(request))
    data.draw(st.sampled_from(_messages(request)))["noSuchMember"] = 1
    with pytest.raises(Complaint, match="no such field: 'noSuchMember'"):
        RowCheck(embeds=False).request(request)


@pytest.mark.parametrize(
    "request_",
    [
        {"content": {"parts": []}, "taskType": "POETRY"},
        {"content": {"parts": []}, "embedContentConfig": {"task_type": "POETRY"}},
        {"content": []},
        {"contents": []},
        {"content": {}, "outputDimensionality": "many"},
    ],
)
def test_embedding_requests_are_checked_too(request_: dict[str, Any]) -> None:
    with pytest.raises(Complaint):
        RowCheck(embeds=True).request(request_)
