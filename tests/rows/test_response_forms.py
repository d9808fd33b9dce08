"""Responses in other forms than the documented one: in chunks, under other names, of older models, or unreadable."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api.models import JobKind
from airflow_provider_gemini_batch.api.responses.lines import result_rows
from airflow_provider_gemini_batch.api.responses.reading import (
    parse_result_line,
    parse_vertex_line,
    read_lines,
    result_of,
    vertex_result_of,
)
from airflow_provider_gemini_batch.emulator.oddities import make_odd
from airflow_provider_gemini_batch.rows.files import LocalFiles
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, ResponseSource, iter_rows, land
from airflow_provider_gemini_batch.rows.media import MediaFolder
from airflow_provider_gemini_batch.rows.result_rows import RowMaker, RowStatus
from airflow_provider_gemini_batch.rows.schema import OutputSchema
from airflow_provider_gemini_batch.rows.writers import JsonlSink

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.api.models import BatchResult

SPEC = LandingSpec(kind=JobKind.GENERATION, wrapped_keys=False)
GOOD: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2},
}


def landed(folder: Path, result: BatchResult, kind: JobKind) -> tuple[dict[str, Any], LandingSummary]:
    """Land one response of an input of one row."""
    out = BytesIO()
    sink = JsonlSink(out)
    summary = land([ResponseSource(lambda: [result], range(1))], sink, LandingSpec(kind=kind, rows=1), folder)
    sink.close()
    return json.loads(out.getvalue()), summary


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, **more}]}


CALL = {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a_b": 1}}}]}, "index": 1}]}
CHUNKS = [
    {**chunk("Hel"), "usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 3}},
    CALL,
    {**chunk("lo", finishReason="STOP"), "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2}},
]


@pytest.mark.parametrize("parse", [parse_result_line, parse_vertex_line])
@pytest.mark.parametrize("response", [CHUNKS, json.dumps(CHUNKS), [None, *CHUNKS, {}]])
def test_the_chunks_of_a_stream_are_one_response_and_its_tokens_are_counted_once(parse: Any, response: Any) -> None:
    line = json.dumps({"key": "a", "response": response}).encode()
    (row,) = iter_rows([parse(line, 0)], SPEC)
    assert (row["status"], row["text"], row["finish_reason"]) == ("ok", "Hello", "STOP")
    assert row["usage"] == {"input_tokens": 5, "output_tokens": 2, "thinking_tokens": 3, "cached_tokens": 0}
    assert row["more_candidates"][0]["function_calls"][0]["args"] == {"a_b": 1}


def test_a_stream_that_broke_off_keeps_its_text_and_is_not_good() -> None:
    broken = [chunk("Hel"), {"error": {"code": 503, "message": "busy"}}]
    told = [result_of({"key": "a", "response": form}, 0) for form in (broken, broken[1:])]
    rows = list(iter_rows(told, SPEC))
    assert [(row["status"], row["text"]) for row in rows] == [("invalid_output", "Hel"), ("error", None)]
    assert rows[1]["error"]["code"] == 14


@pytest.mark.parametrize(
    "item",
    [
        {"result": GOOD},
        {"responses": [GOOD]},
        {"response": {"response": GOOD}},
        {"response": {"generateContentResponse": GOOD}},
        {
            "response": {
                "candidates": [{"content": {"parts": [{"text": "fine"}]}, "finish_reason": "FinishReason.STOP"}],
                "usage_metadata": {"prompt_token_count": 5, "candidates_token_count": 2},
            }
        },
        {
            "response": {
                "candidates": [{"content": {"parts": [{"text": "fine"}]}, "finish_reason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2},
            }
        },
    ],
)
def test_a_response_under_another_name_or_in_an_sdks_spelling_is_read(item: dict[str, Any]) -> None:
    (row,) = iter_rows([result_of({"key": "a", **item}, 0)], SPEC)
    assert (row["status"], row["text"], row["finish_reason"]) == ("ok", "fine", "STOP")
    assert row["usage"] == {"input_tokens": 5, "output_tokens": 2, "thinking_tokens": 0, "cached_tokens": 0}


def test_an_answer_in_a_column_of_the_authors_is_not_taken_for_the_response_of_a_row_that_failed() -> None:
    row = {"id": "7", "earlier": json.dumps(GOOD), "response": None, "status": "Bad Request: {}"}
    assert vertex_result_of(row, 0).error is not None


@pytest.mark.parametrize(
    ("response", "kept", "status"),
    [("plain", {"response": "plain"}, "error"), ({"text": "plain"}, {"text": "plain"}, "invalid_output")],
)
def test_a_response_that_nobody_can_read_is_kept_in_its_row(response: Any, kept: Any, status: str) -> None:
    results = [result_of({"key": "a", "response": response}, 0)]
    (row,) = iter_rows(results, SPEC)
    assert (row["status"], row["other_parts"]) == (status, [kept])


def test_texts_of_older_models_are_read_from_their_predictions() -> None:
    item = {"instance": {"key": "a"}, "predictions": [{"content": "fine"}], "status": ""}
    streamed = {"instance": {"key": "b"}, "prediction": [chunk("fi"), chunk("ne", finishReason="STOP")], "status": ""}
    rows = iter_rows(
        [vertex_result_of(item, 0), vertex_result_of(streamed, 1)],
        SPEC,
    )
    assert [(row["key"], row["status"], row["text"]) for row in rows] == [("a", "ok", "fine"), ("b", "ok", "fine")]


@pytest.mark.parametrize("member", ["text", "output"])
def test_a_candidate_of_an_older_model_has_its_text(member: str) -> None:
    results = [result_of({"key": "a", "response": {"candidates": [{member: "fine", "finishReason": "STOP"}]}}, 0)]
    (row,) = iter_rows(results, SPEC)
    assert (row["status"], row["text"]) == ("ok", "fine")


@pytest.mark.parametrize("keep_response", [False, True])
def test_a_row_that_failed_keeps_all_that_came_with_its_error(keep_response: bool, tmp_path: Path) -> None:  # noqa: FBT001
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}}
    response = {**GOOD, "candidates": [{"content": {"parts": [{"text": "fine"}, call, picture]}}, *GOOD["candidates"]]}
    media = MediaFolder(str(tmp_path), LocalFiles())
    spec = LandingSpec(kind=JobKind.GENERATION, keep_response=keep_response, media=media)
    (row,) = iter_rows([result_of({"key": "a", "error": {"code": 13}, "response": response}, 0)], spec)
    assert (row["status"], row["error"]["code"], row["text"], row["usage"]["output_tokens"]) == ("error", 13, "fine", 2)
    assert row["function_calls"] == (call["functionCall"],)
    assert [file["bytes"] for file in row["media_files"]] == [5]
    assert [one["text"] for one in row["more_candidates"]] == ["fine"]
    assert row.get("response") == (response if keep_response else None)


def test_a_row_that_failed_has_no_validated_value() -> None:
    spec = LandingSpec(kind=JobKind.GENERATION, schema=OutputSchema(str))
    response = {"candidates": [{"content": {"parts": [{"text": '"fine"'}]}}]}
    rows = iter_rows([result_of({"key": "a", "response": response, **odd}, 0) for odd in ({}, {"error": "no"})], spec)
    assert [(row["status"], row["text"], row["parsed"]) for row in rows] == [
        ("ok", '"fine"', "fine"),
        ("error", '"fine"', None),
    ]


def test_a_response_with_an_error_that_belongs_to_no_row_is_kept_aside(tmp_path: Path) -> None:
    stray = result_of({"key": "theirs", "error": {"code": 13}, "response": GOOD}, 0)
    _, summary = landed(tmp_path, stray, JobKind.GENERATION)
    assert summary.aside is not None
    assert json.loads(summary.aside.read_bytes())["response"] == GOOD


@pytest.mark.parametrize("response", [{"embedding": {"odd": [0.5]}}, "0.5", [0.5]])
def test_an_odd_vector_that_came_with_an_error_is_kept_aside(response: Any, tmp_path: Path) -> None:
    failed = result_of({"key": "r0", "error": {"code": 13}, "response": response}, 0)
    _, summary = landed(tmp_path, failed, JobKind.EMBEDDINGS)
    assert summary.unread == 1
    assert summary.aside is not None
    assert b"0.5" in summary.aside.read_bytes()


PART = {"text": "fine"}


@pytest.mark.parametrize(
    "found",
    [
        pytest.param("fine", id="a text in place of the list"),
        pytest.param(["fine"], id="a text in place of a candidate"),
        pytest.param([{"content": {"role": "model", **PART}}], id="no parts"),
        pytest.param([{"content": {"parts": [[PART]]}}], id="parts in two lists"),
        pytest.param([{"content": {"parts": [{"role": "model", "parts": [PART]}]}}], id="contents in place of parts"),
        pytest.param([{"parts": [PART]}], id="no content"),
    ],
)
def test_a_text_is_found_wherever_it_is(found: Any) -> None:
    (row,) = iter_rows([result_of({"key": "a", "response": {"candidates": found}}, 0)], SPEC)
    assert (row["status"], row["text"]) == ("ok", "fine")


@pytest.mark.parametrize(
    ("found", "status"),
    [
        pytest.param([{"wrapped": {"content": PART}}], "invalid_output", id="a candidate in another"),
        pytest.param({"wrapped": [{"content": PART}]}, "invalid_output", id="a list in an object"),
        pytest.param([[{"content": PART}]], "ok", id="a list in a list"),
        pytest.param([{"content": {"wrapped": {"parts": [PART]}}}], "invalid_output", id="a content in another"),
        pytest.param([{"content": {"parts": [{"fileData": {"wrapped": PART}}]}}], "ok", id="a file in another form"),
    ],
)
def test_content_that_nobody_can_read_is_kept_in_its_row(found: Any, status: str) -> None:
    (row,) = iter_rows([result_of({"key": "a", "response": {"candidates": found}}, 0)], SPEC)
    assert (row["status"], row["text"]) == (status, None)
    assert "fine" in json.dumps(row["other_parts"])


@pytest.mark.parametrize(
    "candidate",
    [
        {},
        {"content": {"role": "model"}},
        {"content": {"parts": [{"text": ""}]}, "safetyRatings": [1], "avgLogprobs": -1},
    ],
)
def test_an_empty_candidate_has_no_other_parts(candidate: dict[str, Any]) -> None:
    response = {"candidates": [{"finishReason": "STOP", "index": 0, **candidate}]}
    (row,) = iter_rows([result_of({"key": "a", "response": response}, 0)], SPEC)
    assert (row["status"], row.get("other_parts")) == ("invalid_output", None)


@pytest.mark.parametrize("counts", [{}, {"wrapped": {"promptTokenCount": 5}}, {"trafficType": "ON_DEMAND"}])
def test_counts_that_nobody_can_read_leave_the_cost_open(counts: dict[str, Any], tmp_path: Path) -> None:
    item = {"key": "r0", "response": {**GOOD, "usageMetadata": counts}}
    row, summary = landed(tmp_path, result_of(item, 0), JobKind.GENERATION)
    assert (row["status"], row["usage"], summary.usage.uncounted_answers) == ("ok", None, 1)


def test_counts_in_an_sdks_spelling_are_read() -> None:
    item = {"key": "a", "response": {**GOOD, "usageMetadata": {"prompt_token_count": 5, "candidates_token_count": 2}}}
    (row,) = iter_rows([result_of(item, 0)], SPEC)
    assert (row["usage"]["input_tokens"], row["usage"]["output_tokens"]) == (5, 2)


@pytest.mark.parametrize("around", [b"\xef\xbb\xbf\r\n", b"\xef\xbb\xbf\n\n", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_on_its_own_line_is_not_a_row(around: bytes) -> None:
    line = json.dumps({"key": "a", "response": GOOD}).encode()
    found = list(read_lines(result_rows([around, line, b"\r\n"]), parse_result_line))
    assert [(one.key, one.position) for one in found] == [("a", 0)]


def test_a_vector_of_a_text_that_was_cut_warns() -> None:
    embeddings = {"statistics": {"token_count": 2048, "truncated": True}, "values": [0.5]}
    line = {"instance": {"key": "a"}, "predictions": [{"embeddings": embeddings}], "status": ""}
    (row,) = iter_rows([vertex_result_of(line, 0)], LandingSpec(kind=JobKind.EMBEDDINGS, wrapped_keys=False))
    assert (row["status"], row["embedding"], row["usage"]["input_tokens"]) == ("ok", [0.5], 2048)
    assert "longer than the model reads" in row["warning"]


@pytest.mark.parametrize(
    "response",
    [
        {"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 5}, "truncated": True},
        {"embedding": {"values": [0.5]}, "tokenCount": "5", "truncated": True},
        {"embedding": {"values": [0.5], "statistics": {"truncated": True}}, "tokenCount": "5"},
        {"embeddings": [{"values": [0.5], "statistics": {"tokenCount": 5, "truncated": True}}]},
    ],
    ids=["new", "token count", "statistics", "list"],
)
@pytest.mark.parametrize("parse", [parse_result_line, parse_vertex_line])
def test_a_cut_text_warns_in_every_form_of_a_vector(parse: Any, response: dict[str, Any]) -> None:
    line = json.dumps({"key": "a", "response": response}).encode()
    (row,) = iter_rows([parse(line, 0)], LandingSpec(kind=JobKind.EMBEDDINGS, wrapped_keys=False))
    assert (row["status"], row["embedding"], row["usage"]["input_tokens"]) == ("ok", [0.5], 5)
    assert "longer than the model reads" in row["warning"]


def test_of_several_vectors_the_row_says_that_it_has_the_first() -> None:
    response = {"embeddings": [{"values": [0.5]}, {"values": [0.25]}], "tokenCount": "5"}
    (row,) = iter_rows([result_of({"response": response}, 0)], LandingSpec(kind=JobKind.EMBEDDINGS, wrapped_keys=False))
    assert (row["embedding"], row["warning"]) == ([0.5], "the response has 2 vectors, of which this is the first")


def test_tokens_of_a_vector_that_only_the_total_counts_are_input() -> None:
    response = {"embedding": {"values": [0.5]}, "usageMetadata": {"totalTokenCount": 3}}
    results = [result_of({"key": "a", "response": response}, 0)]
    (row,) = iter_rows(results, LandingSpec(kind=JobKind.EMBEDDINGS, wrapped_keys=False))
    assert row["usage"] == {"input_tokens": 3, "output_tokens": 0, "thinking_tokens": 0, "cached_tokens": 0}


def test_chunks_of_the_emulator_land_as_the_whole_response_does() -> None:
    parts = [{"text": "think", "thought": True}, {"text": "Hel"}, {"functionCall": {"name": "f"}}, {"text": "lo"}]
    whole = {**GOOD, "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}, *GOOD["candidates"]]}
    whole["candidates"][1]["index"] = 1
    answers = [{"response": whole}, make_odd({"response": copy.deepcopy(whole)}, "chunks")]
    rows = list(iter_rows([result_of({"key": "a", **answer}, 0) for answer in answers], SPEC))
    assert rows[0] == rows[1]
    assert rows[0]["text"] == "Hello"


def test_a_response_that_nobody_can_read_leaves_the_cost_open(tmp_path: Path) -> None:
    results = [result_of({"key": "a", "response": response}, 0) for response in (GOOD, "plain", None)]
    summary = land([lambda: results], JsonlSink(BytesIO()), SPEC, tmp_path)
    assert (summary.usage.input_tokens, summary.usage.uncounted_answers) == (5, 1)


@pytest.mark.parametrize("thought", [False, "false", "False", None, 0])
def test_a_text_is_no_thought_however_that_is_written(thought: object) -> None:
    parts = [{"text": "hm", "thought": "true"}, {"text": "fine", "thought": thought}]
    response = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    status, row, *_ = RowMaker(JobKind.GENERATION).members(result_of({"key": "a", "response": response}, 0), "a")
    assert (status.word, row["text"], row["thoughts"]) == ("ok", "fine", "hm")


@pytest.mark.parametrize(("code", "retried"), [(502, True), (529, True), (408, True), ("520", True), (422, False)])
def test_a_row_that_met_an_error_of_http_is_repaired_if_that_passes(code: object, *, retried: bool) -> None:
    status, *_ = RowMaker(JobKind.GENERATION).members(result_of({"key": "a", "error": {"code": code}}, 0), "a")
    assert (status is RowStatus.TRANSIENT_ERROR) is retried


@pytest.mark.parametrize("values", ['["0.5","-2e-3"]', '["0.5",-0.002]'])
def test_the_numbers_of_a_vector_may_be_texts(values: str) -> None:
    line = f'{{"key":"a","response":{{"embedding":{{"values":{values}}},"tokenCount":"1"}}}}'
    _, row, *_ = RowMaker(JobKind.EMBEDDINGS).members(parse_result_line(line.encode(), 0), "a")
    assert row["embedding"] == [0.5, -0.002]


def test_an_inline_response_may_be_written_as_text() -> None:
    item = {"metadata": json.dumps({"key": "a"}), "response": GOOD}
    for one in (item, json.dumps(item), {**item, "metadata": {"key": "a"}, "response": json.dumps(GOOD)}):
        found = result_of(one, 0)
        assert (found.key, found.response) == ("a", GOOD)


@pytest.mark.parametrize(
    ("status", "error", "found"),
    [(None, None, "ok"), (500, None, "error"), (200, {"code": 13, "message": "late"}, "error")],
)
def test_content_beside_an_error_of_openais_form_is_kept(status: object, error: object, found: str) -> None:
    body = {"choices": [{"message": {"content": "fine"}}], "usage": {"prompt_tokens": 5}, "error": error}
    (row,) = iter_rows([result_of({"key": "a", "response": {"status_code": status, "body": body}}, 0)], SPEC)
    assert (row["status"], row["text"], row["usage"]["input_tokens"]) == (found, "fine", 5)


def test_an_error_of_openais_form_beside_a_good_status_is_told() -> None:
    (row,) = iter_rows([result_of({"key": "a", "response": {"status_code": 200, "body": {"error": "late"}}}, 0)], SPEC)
    assert (row["status"], row["error"]["message"]) == ("error", "late")


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param("fine", id="a text in place of a choice"),
        pytest.param({"message": "fine"}, id="a text in place of a message"),
        pytest.param({"message": {"content": ["fine"]}}, id="a list of texts"),
        pytest.param({"message": {"content": {"type": "text", "text": "fine"}}}, id="one part"),
    ],
)
def test_a_text_of_openais_form_is_found_wherever_it_is(choice: Any) -> None:
    (row,) = iter_rows([result_of({"key": "a", "response": {"choices": [choice]}}, 0)], SPEC)
    assert (row["status"], row["text"]) == ("ok", "fine")
