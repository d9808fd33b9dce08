"""Whatever the service writes becomes a value; nothing that was paid for is lost to a strange shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_gemini_batch.api.models import Usage
from airflow_provider_gemini_batch.api.responses.content import (
    block_reason,
    candidates,
    content_of,
    finish_reason,
    vector_of,
)
from airflow_provider_gemini_batch.api.responses.reading import parse_result_line, parse_vertex_line, result_of
from airflow_provider_gemini_batch.api.responses.usage import usage_of

RESPONSE: dict[str, Any] = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "11"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 6, "candidatesTokenCount": 1, "totalTokenCount": 7},
}


def text_of(response: dict[str, Any]) -> str | None:
    found = candidates(response)
    return content_of(found[0]).text if found else None


@pytest.mark.parametrize(
    "item",
    [
        {"key": "a", "response": RESPONSE},
        {"response": RESPONSE, "key": "a"},
        {"response": RESPONSE, "metadata": {"key": "a"}},
        {"key": "a", "response": RESPONSE, "error": None},
        {"key": "a", "response": RESPONSE, "status": ""},
    ],
)
def test_a_good_answer_is_read_from_every_shape(item: dict[str, Any]) -> None:
    result = parse_result_line(json.dumps(item).encode(), 3)
    assert (result.key, result.response, result.error, result.position) == ("a", RESPONSE, None, 3)
    assert result_of(item, 3) == result


@pytest.mark.parametrize(
    ("item", "code", "message"),
    [
        ({"error": {"code": 3, "message": "bad"}}, 3, "bad"),
        ({"error": {"code": 13}}, 13, ""),
        ({"status": {"code": 8, "message": "quota"}}, 8, "quota"),
        ({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "bad"}}, 3, "bad"),
        ({"error": {"code": 429, "message": "slow"}}, 8, "slow"),
        ({"error": {"code": "UNAVAILABLE"}}, 14, ""),
        ({"error": "plain words"}, None, "plain words"),
        ({"response": {}}, None, "neither a response nor an error"),
        ({}, None, "neither a response nor an error"),
        ({"error": {}}, None, "neither a response nor an error"),
    ],
)
def test_an_error_is_read_from_every_shape(item: dict[str, Any], code: int | None, message: str) -> None:
    error = parse_result_line(json.dumps({"key": "a", **item}).encode(), 0).error
    assert error is not None
    assert error.code == code
    assert message in error.message


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe", b"[" * 5000])
def test_a_line_that_is_not_an_object_is_an_error_at_its_place(line: bytes) -> None:
    for parse in (parse_result_line, parse_vertex_line):
        result = parse(line, 5)
        assert result.key is None
        assert result.response is None
        assert result.position == 5
        assert result.error is not None


def test_a_lone_surrogate_costs_a_character_and_not_the_answer() -> None:
    line = json.dumps({"key": "a", "response": {"candidates": [{"content": {"parts": [{"text": "x\ud83d"}]}}]}})
    result = parse_result_line(line.encode(), 0)
    assert result.response is not None
    assert text_of(result.response) == "x?"


def test_numbers_that_json_does_not_have_do_not_cost_the_answer() -> None:
    result = parse_result_line(b'{"key":"a","response":{"x":NaN,"y":Infinity}}', 0)
    assert result.key == "a"
    assert result.response is not None


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ('Bad Request: {"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}', 3, "bad"),
        ('Internal error occurred. Failed to get response: {"error": {"code": 404, "message": "no"}}', 5, "no"),
        ("Something {went wrong", None, "Something {went wrong"),
        ({"code": 8, "message": "quota"}, 8, "quota"),
    ],
)
def test_vertex_reports_errors_in_its_status(status: Any, code: int | None, message: str) -> None:
    line = json.dumps({"status": status, "response": {}, "custom_id": "r1-a"}).encode()
    result = parse_vertex_line(line, 0)
    assert result.key == "r1-a"
    assert result.error is not None
    assert (result.error.code, result.error.message) == (code, message)


@pytest.mark.parametrize("names", [{"custom_id": "k"}, {"key": "k"}, {"custom_id": None, "key": "k"}])
def test_vertex_success_is_an_empty_status(names: dict[str, Any]) -> None:
    result = parse_vertex_line(json.dumps({"status": "", "request": {}, "response": RESPONSE, **names}).encode(), 0)
    assert (result.key, result.response) == ("k", RESPONSE)


def test_a_key_that_a_table_import_made_a_number_is_text_again() -> None:
    assert parse_vertex_line(json.dumps({"status": "", "response": RESPONSE, "custom_id": 7}).encode(), 0).key == "7"


def test_legacy_embeddings_look_like_the_newer_ones() -> None:
    line = {
        "instance": {"content": "alpha"},
        "predictions": [{"embeddings": {"statistics": {"token_count": 2}, "values": [0.1, 0.2]}}],
        "status": "",
    }
    response = parse_vertex_line(json.dumps(line).encode(), 0).response
    assert response is not None
    assert vector_of(response) == ([0.1, 0.2], "")
    assert usage_of(response)[0] == Usage(input_tokens=2)


def test_thoughts_are_not_part_of_the_text() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "Hello "}, {"text": "world"}]
    assert text_of({"candidates": [{"content": {"parts": parts}}]}) == "Hello world"
    assert text_of({"candidates": [{"content": {"parts": parts[:1]}}]}) is None


def test_usage_counts_tool_results_as_input_and_reads_numbers_written_as_text() -> None:
    counts = {
        "promptTokenCount": "5",
        "toolUsePromptTokenCount": 2,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 4,
        "cachedContentTokenCount": 1,
    }
    assert usage_of({"usageMetadata": counts})[0] == Usage(7, 3, 4, 1, tool_tokens=2)
    assert usage_of({"tokenCount": "2"})[0] == Usage(2)
    assert usage_of({})[0] is None


@pytest.mark.parametrize(
    "response",
    [
        {"candidates": 7},
        {"candidates": [7]},
        {"candidates": [{"content": 7}]},
        {"candidates": [{"content": {"parts": 7}}]},
        {"candidates": [{"content": {"parts": [7]}}]},
        {"candidates": [{"content": {"parts": [{"text": 7}]}}]},
        {"promptFeedback": 7, "usageMetadata": 7, "embedding": 7},
        {"usageMetadata": {"promptTokenCount": [1], "candidatesTokenCount": -4, "thoughtsTokenCount": True}},
    ],
)
def test_strange_shapes_are_nothing_and_no_crash(response: dict[str, Any]) -> None:
    assert text_of(response) is None
    assert all(finish_reason(one) is None for one in candidates(response))
    assert block_reason(response) is None
    assert vector_of(response)[0] is None
    assert (usage_of(response)[0] or Usage())._replace(uncounted_answers=0) == Usage()
