"""Neighbours of the shapes that have been seen: a paid answer is read in them, too, and nothing of it is dropped."""

from __future__ import annotations

import base64
import io
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, ServiceError, Usage
from airflow_provider_gemini_batch.api.responses.fast_path import PlainResult
from airflow_provider_gemini_batch.api.responses.reading import (
    parse_result_line,
    parse_vertex_line,
    result_of,
    vertex_result_of,
)
from airflow_provider_gemini_batch.api.responses.usage import usage_of
from airflow_provider_gemini_batch.rows.landing import LandingSpec, ResponseSource, iter_rows, land
from airflow_provider_gemini_batch.rows.result_rows import PARTS, RowMaker
from airflow_provider_gemini_batch.rows.writers import JsonlSink, open_sink

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}


def response(*parts: Any, **candidate: Any) -> dict[str, Any]:
    content = {"content": {"parts": list(parts)}, "finishReason": "STOP", **candidate}
    return {"candidates": [content], "usageMetadata": COUNTS}


def row(said: dict[str, Any], kind: JobKind = JobKind.GENERATION) -> dict[str, Any]:
    return RowMaker(kind).members(BatchResult("k", said, None, 0), "k")[1]


PLAIN_COUNTS = st.fixed_dictionaries(
    {"promptTokenCount": st.integers(0, 9)},
    optional={
        **dict.fromkeys(
            ("candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "totalTokenCount"),
            st.integers(0, 20),
        ),
        **{
            f"{side}{word}Details": st.lists(
                st.fixed_dictionaries({"modality": st.just("TEXT"), "tokenCount": st.integers(0, 20)}), max_size=2
            )
            for side in ("prompt", "candidates", "cache", "toolUsePrompt")
            for word in ("Tokens", "Token")
        },
    },
)


@given(PLAIN_COUNTS, st.sampled_from([None, 0, 3, "3"]))
def test_a_plain_line_counts_the_same_tokens_by_the_quick_way_and_by_the_long_one(
    counts: dict[str, Any], told: Any
) -> None:
    for kind, said in (
        (JobKind.GENERATION, response({"text": "x"})),
        (JobKind.EMBEDDINGS, {"embedding": {"values": [0.5]}, **({} if told is None else {"tokenCount": told})}),
    ):
        line = json.dumps({"key": "k", "response": {**said, "usageMetadata": counts}})
        quick, long = (RowMaker(kind).line(parse_result_line(form, 0), "k") for form in (line.encode(), line))
        assert quick[:2] == long[:2]
        assert Usage(*quick[2] or ()) == Usage(*long[2] or ())


@pytest.mark.parametrize("beside", [{"usageMetadata": COUNTS}, {"usageMetadata": COUNTS, "tokenCount": "5"}])
def test_counts_beside_a_response_are_its_counts_unless_it_has_its_own(beside: dict[str, Any]) -> None:
    text, vector = response({"text": "x"}), {"embedding": {"values": [0.5]}}
    del text["usageMetadata"]
    for read, line in ((result_of, {"key": "k"}), (vertex_result_of, {"custom_id": "k", "request": {}, "status": ""})):
        for said in (text, vector):
            assert usage_of(read({**line, "response": said, **beside}, 0).response or {}) == (Usage(5, 7), "")
        own = {**text, "usageMetadata": {"promptTokenCount": 2}}
        assert usage_of(read({**line, "response": own, **beside}, 0).response or {}) == (Usage(2), "")


LINE = json.dumps({"key": "k", "response": response({"text": "fine"})}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"\xef\xbb\xbf\xef\xbb\xbf" + LINE,
        b"\x1e" + LINE + b"\n",
        b"\0\0" + LINE,
        LINE + b"\0\0\0",
        LINE + b",\r\n",
        b"[" + LINE + b"]",
        "\u00a0".encode() + LINE,
        LINE[:-1] + b',"junk":' + b"[" * 5000 + b"]" * 5000 + b"}",
        LINE[:-1] + b',"junk":' + b"9" * 5000 + b"}",
        LINE[:-1] + b',"junk":"\\x41 \\u12"}',
        LINE.replace(b'"key"', b'"customId"'),
        json.dumps(LINE.decode()).encode(),
    ],
)
def test_what_surrounds_a_row_or_stands_beside_its_answer_does_not_cost_it(line: bytes) -> None:
    for parse in (parse_result_line, parse_vertex_line):
        result = parse(line, 0)
        assert result.key == "k"
        assert result.response is not None
        assert result.response["candidates"][0]["content"]["parts"] == [{"text": "fine"}]


@pytest.mark.parametrize("depth", [90, 150, 500, 5000])
def test_what_is_nested_too_deep_is_kept_as_a_text(depth: int) -> None:
    deep = '[{"a":' * depth + '"}]\\""' + "}]" * depth
    call = json.dumps(response({"functionCall": {"name": "f", "args": "@"}})).replace('"@"', deep)
    found = parse_result_line(f'{{"key":"k","response":{call}}}'.encode(), 0)
    assert found.response is not None
    made = RowMaker(JobKind.GENERATION).line(found, "k")[1]
    args: Any = json.loads(made)["function_calls"][0]["args"]
    while not isinstance(args, str):
        args = args[0]["a"] if isinstance(args, list) else args["a"]
    assert args == '}]"' or (args[0] in "[{" and args in deep)


@pytest.mark.parametrize(
    "part",
    [
        {"executableCode": "print(1)"},
        {"functionCall": [{"name": "f"}]},
        {"text": ["a", "b"]},
        {"inlineData": [{"mimeType": "image/png", "data": "aGk="}]},
        {"inlineData": {"mimeType": "image/png", "data": [104, 105]}},
        {"fileData": {"fileUri": {"uri": "gs://b/v"}}},
    ],
)
def test_a_known_member_in_another_form_is_kept_as_it_came(part: dict[str, Any]) -> None:
    made = row(response(part))
    assert (made["status"], made["other_parts"]) == ("ok", (part,))


@pytest.mark.parametrize(
    "name",
    ["partMetadata", "videoMetadata", "mediaResolution", "audioMetadata", "speechMetadata", "toolCall", "toolResponse"],
)
def test_metadata_of_a_part_alone_is_not_content(name: str) -> None:
    assert row(response({"thoughtSignature": "c2ln", name: {"a": 1}}))["status"] == "invalid_output"


def test_members_in_snake_case_are_known() -> None:
    made = row(
        response(
            {"inline_data": {"mime_type": "image/png", "data": "aGk="}},
            {"file_data": {"mime_type": "video/mp4", "file_uri": "gs://b/v"}},
            {"function_call": {"name": "f", "args": {"inline_data": 1}}},
            {"executable_code": {"code": "1"}},
        )
    )
    assert [(file["mime_type"], file["uri"]) for file in made["media_files"]] == [
        ("image/png", None),
        ("video/mp4", "gs://b/v"),
    ]
    assert made["function_calls"] == ({"name": "f", "args": {"inline_data": 1}},)
    assert made["executed_code"] == ({"executableCode": {"code": "1"}},)


@pytest.mark.parametrize("content", ["fine", ["fine"], [{"parts": [{"text": "fi"}]}, {"parts": "ne"}]])
def test_a_content_in_another_form_is_read(content: Any) -> None:
    assert row({"candidates": [{"content": content, "finishReason": "stop"}]})["text"] == "fine"


def test_sources_and_log_probabilities_reach_the_row() -> None:
    beside = {
        "groundingMetadata": {"webSearchQueries": ["q"], "groundingChunks": [{"web": {"uri": "https://example.com"}}]},
        "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "https://example.com"}]},
        "citationMetadata": {"citations": [{"uri": "https://example.com"}]},
        "logprobsResult": {"chosenCandidates": [{"token": "a"}]},
        "finishMessage": "why",
        "continuationToken": "bW9yZQ==",
    }
    for name, value in beside.items():
        said = response({"text": "fine"}, **{name: value})
        line = json.dumps({"key": "k", "response": said}).encode()
        found = parse_result_line(line, 0)
        assert not isinstance(found, PlainResult)
        assert json.loads(RowMaker(JobKind.GENERATION).line(found, "k")[1])["candidate_metadata"] == {name: value}
    said = response({"text": "a"})
    said["candidates"].append({"content": {"parts": [{"text": "b"}]}, **beside})
    assert row(said)["more_candidates"][0]["candidate_metadata"] == beside


def test_every_part_of_a_row_has_its_column_and_its_name_is_taken() -> None:
    handle = io.BytesIO()
    sink = open_sink("out.parquet", handle, kind=JobKind.GENERATION)
    found = BatchResult("k", response({"text": "a"}, citationMetadata={"citations": [1]}), None, 0)
    sink.write(RowMaker(JobKind.GENERATION).line(found, "k")[1])
    sink.close()
    (written,) = parquet.read_table(handle).to_pylist()
    assert written["candidate_metadata"] == '{"citationMetadata":{"citations":[1]}}'
    assert written.keys() >= set(PARTS)


CHAT = {
    "choices": [{"message": {"content": "Blue"}, "finish_reason": "stop", "index": 0}],
    "usage": {"promptTokens": "5", "completionTokens": "1", "totalTokens": "46"},
}


@pytest.mark.parametrize(
    "answer",
    [
        {"status_code": 200, "body": CHAT},
        {"status_code": "200", "body": CHAT},
        {"status_code": 200.0, "body": {**CHAT, "error": None}},
        {"body": CHAT},
        {"status_code": 200, "request_id": "q", "body": json.dumps(CHAT)},
        CHAT,
    ],
)
def test_a_chat_completion_is_read_with_its_tokens(answer: dict[str, Any]) -> None:
    result = result_of({"custom_id": "r", "response": answer, "error": None}, 0)
    assert result.response is not None
    made = row(result.response)
    assert (result.key, made["status"], made["text"]) == ("r", "ok", "Blue")
    assert made["usage"] == {"input_tokens": 5, "output_tokens": 1, "thinking_tokens": 40, "cached_tokens": 0}


def of_body(body: dict[str, Any], kind: JobKind = JobKind.GENERATION) -> dict[str, Any]:
    result = result_of({"custom_id": "r", "response": {"status_code": 200, "body": body}}, 0)
    assert result.response is not None
    return row(result.response, kind)


@pytest.mark.parametrize(
    ("mime_type", "message"),
    [
        ("image/png", {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}),
        (
            "image/png",
            {"content": "", "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
        ),
        ("audio/wav", {"content": None, "audio": {"data": "aGk=", "format": "wav"}}),
    ],
)
def test_media_of_a_chat_completion_is_media(mime_type: str, message: dict[str, Any]) -> None:
    made = of_body({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert made["status"] == "ok"
    assert [file["mime_type"] for file in made["media_files"]] == [mime_type]


def test_other_answers_in_the_shape_of_openai_are_read() -> None:
    assert of_body({"choices": [{"text": "hey", "finish_reason": "stop"}]})["text"] == "hey"
    call = {"name": "f", "arguments": '{"a":1}'}
    message = {"content": None, "function_call": call}
    made = of_body({"choices": [{"message": message, "finish_reason": "function_call"}]})
    assert made["function_calls"] == ({"id": None, "name": "f", "args": {"a": 1}},)
    pictures = of_body({"data": [{"b64_json": "aGk="}, {"url": "https://example.com/p.png"}]})
    assert [file["uri"] for file in pictures["media_files"]] == [None, "https://example.com/p.png"]
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    assert of_body({"data": [{"embedding": packed}]}, JobKind.EMBEDDINGS)["embedding"] == [0.5, -2.0]
    assert of_body({"data": [{"embedding": "!"}]}, JobKind.EMBEDDINGS)["status"] == "invalid_output"


def test_counts_in_the_shape_of_openai_are_told_apart() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "promptTokensDetails": {"cachedTokens": 40, "audioTokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 20, "image_tokens": 10},
    }
    made = of_body({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage})["usage"]
    assert made == {
        "input_tokens": 100,
        "output_tokens": 30,
        "thinking_tokens": 20,
        "cached_tokens": 40,
        "input_audio_tokens": 30,
        "output_image_tokens": 10,
    }
    odd = of_body({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}})
    assert odd["usage"]["uncounted_answers"] == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ([{"code": 3, "message": "m"}], 3),
        ({"code": 13.0, "message": "m"}, 13),
        ({"status": "invalid_argument", "message": "m"}, 3),
        ({"code": "unavailable", "message": "m"}, 14),
    ],
)
def test_a_code_in_another_form_is_read(error: Any, code: int) -> None:
    for make in (result_of, vertex_result_of):
        assert make({"key": "k", "error": error}, 0).error == ServiceError(code=code, message="m")


def test_a_line_may_be_a_response_or_an_error_by_itself() -> None:
    said = response({"text": "fine"})
    for line in (said, {"key": "k", **said}, {"key": "k", "choices": [{"message": {"content": "fine"}}]}):
        result = parse_result_line(json.dumps(line).encode(), 0)
        assert result.response is not None
        assert (result.key, row(result.response)["text"]) == (line.get("key"), "fine")
    assert result_of({"code": 8, "message": "m"}, 0).error == ServiceError(code=8, message="m")
    # What a row of the other kind would have may be there, and empty.
    for empty in ({}, dict.fromkeys(("response", "error", "status")), {"response": {}, "error": {}, "status": ""}):
        for read in (result_of, vertex_result_of):
            for whole in (said, {"promptFeedback": {"blockReason": "SAFETY"}}, {"usageMetadata": COUNTS}):
                assert read({"key": "k", **empty, **whole}, 0).response == {"key": "k", **empty, **whole}
            for status in ({}, {"status": "RESOURCE_EXHAUSTED"}):
                told = read({"key": "k", **empty, "code": 429, "message": "m", **status}, 0)
                assert (told.key, told.error) == ("k", ServiceError(code=8, message="m"))
            assert read({"key": "k", **empty, "status": "Bad"}, 0).error == ServiceError(message="Bad")
            wrong = read({"key": "k", **empty, **said, "error": {"code": 13, "message": "m"}}, 0)
            assert (wrong.error, wrong.response) == (ServiceError(code=13, message="m"), None)
            assert wrong.billed is not None
            assert usage_of(wrong.billed)[0] == Usage(5, 7)
    # A line that repeats its request may have members of the author's with such names, beside a row that has failed.
    failed = {"key": "k", "request": {}, "status": "Bad Request", "embedding": [1], "code": 3, "message": "m"}
    assert vertex_result_of(failed, 0).error == ServiceError(message="Bad Request")
    assert result_of(failed, 0).error == ServiceError(message="Bad Request")


@pytest.mark.parametrize(
    "members",
    [
        {"response": {"embeddings": [{"values": [1.5], "statistics": {"token_count": 3}}]}},
        {"response": {"embedding": [{"values": [1.5], "statistics": {"tokenCount": "3"}}]}},
        {"embeddings": {"values": [1.5], "statistics": {"tokenCount": 3}}},
        {"response": {"data": [{"embedding": [1.5]}], "usage": {"prompt_tokens": 3}}},
        {"predictions": [{"embeddings": [{"values": [1.5], "statistics": {"token_count": 3}}]}]},
        {"predictions": [{"embeddings": {"values": [1.5], "statistics": {"token_count": 3}}}], "response": {}},
        {"predictions": [{"a": 1}], "response": {"embedding": [1.5], "tokenCount": 3}},
    ],
)
def test_a_vector_and_its_tokens_are_found_in_every_shape(members: dict[str, Any]) -> None:
    made = vertex_result_of({"key": "k", **members}, 0)
    assert made.response is not None
    assert row(made.response, JobKind.EMBEDDINGS)["embedding"] == [1.5]
    assert usage_of(made.response) == (Usage(3), "")


@pytest.mark.parametrize("prediction", [{"values": [1.5]}, [1.5], json.dumps({"values": [1.5]})])
def test_a_prediction_may_be_the_vector_itself(prediction: Any) -> None:
    made = vertex_result_of({"instance": {"content": "c"}, "predictions": [prediction]}, 0)
    assert made.response == {"embedding": {"values": [1.5]}}


def test_a_prediction_of_an_unknown_shape_is_kept_and_an_error_of_one_is_told() -> None:
    assert vertex_result_of({"key": "k", "predictions": [{"shape": 1}]}, 0).response == {"shape": 1}
    for make in (result_of, vertex_result_of):
        assert make({"key": "k", "error": {"reason": "full"}}, 0).error == ServiceError(message="{'reason': 'full'}")


NOTHING = [
    {"code": None, "message": None},
    {"message": "", "details": []},
    "null",
    "{}",
    " ",
    "OK",
    0,
    '{"code": 0}',
    [],
    200,
]


@pytest.mark.parametrize("error", NOTHING)
def test_an_error_that_says_nothing_costs_no_response(error: Any) -> None:
    for make in (result_of, vertex_result_of):
        assert make({"key": "k", "response": response({"text": "fine"}), "error": error}, 0).error is None
        neither = ServiceError(message="the service gave neither a response nor an error")
        for member in ("error", "status"):
            assert make({"key": "k", member: error}, 0).error == neither


@pytest.mark.parametrize(
    ("told", "code", "message"),
    [
        ({"status": "RESOURCE_EXHAUSTED"}, 8, "RESOURCE_EXHAUSTED"),
        ({"status": 503}, 14, "503"),
        ({"error": "UNAVAILABLE"}, 14, "UNAVAILABLE"),
        ({"status": "INTERNAL", "message": "m"}, 13, "m"),
        ({"status": '[{"code": 8, "message": "m"}]'}, 8, "m"),
        ({"message": "only words"}, None, "only words"),
        ({"status": True}, None, "True"),
    ],
)
def test_an_error_in_a_word_or_a_number_has_its_code(told: dict[str, Any], code: int | None, message: str) -> None:
    for make in (result_of, vertex_result_of):
        assert make({"key": "k", **told}, 0).error == ServiceError(code=code, message=message)


def test_an_error_beside_a_request_is_the_authors_and_costs_no_response() -> None:
    own = {"key": "k", "request": {}, "error": {"code": 9, "message": "in the log"}}
    for make in (result_of, vertex_result_of):
        good = make({**own, "response": response({"text": "fine"}), "status": ""}, 0)
        assert (good.error, good.response) == (None, response({"text": "fine"}))
        assert make({**own, "status": "INTERNAL"}, 0).error == ServiceError(code=13, message="INTERNAL")
        assert make(own, 0).error == ServiceError(code=9, message="in the log")


@pytest.mark.parametrize("body", [{"choices": [{"message": {"content": "fine"}}]}, {"data": [{"embedding": [1.5]}]}])
@pytest.mark.parametrize("form", [lambda body: body, lambda body: {"status_code": 200, "body": body}])
def test_a_status_beside_a_response_in_openais_form_costs_it_nothing(body: Any, form: Any) -> None:
    for make in (result_of, vertex_result_of):
        made = make({"custom_id": "k", "response": form(body), "status": "completed"}, 0)
        assert made.error is None
        assert made.response is not None
    said = response({"text": "fine"})
    assert result_of({"key": "k", "response": {**said, "data": [{"url": "x"}]}}, 0).response is not None


def test_an_error_inside_of_a_response_is_the_rows() -> None:
    for make in (result_of, vertex_result_of):
        result = make({"key": "k", "response": {"error": {"code": 8, "message": "m"}, "usageMetadata": {}}}, 0)
        assert result.error == ServiceError(code=8, message="m")
        assert result.billed is not None


@pytest.mark.parametrize("form", [lambda said: said, lambda said: [said], lambda said: json.dumps([said])])
def test_predictions_may_be_responses_of_any_model(form: Any) -> None:
    result = vertex_result_of({"instance": {"key": "k"}, "predictions": form(response({"text": "fine"}))}, 0)
    assert result.response is not None
    assert (result.key, row(result.response)["text"]) == ("k", "fine")


def test_a_prompt_may_be_blocked_by_a_number() -> None:
    made = row({"promptFeedback": {"blockReason": 1}})
    assert (made["status"], made["error"]["message"]) == ("blocked", "the prompt was blocked (1)")
    assert row({"promptFeedback": {"blockReason": 0}})["status"] == "invalid_output"


def test_an_error_whose_code_says_that_all_is_well_costs_no_answer() -> None:
    for make in (result_of, vertex_result_of):
        for error in ({"code": 0}, {"code": "0", "message": ""}, {"code": "OK"}):
            assert make({"key": "k", "error": error, "response": response({"text": "fine"})}, 0).error is None
        assert make({"key": "k", "error": {"code": 0}}, 0).error is not None


@pytest.mark.parametrize(
    "item",
    [
        {"predictions": [{"embeddings": {"values": [1, 2], "statistics": {"tokenCount": 3}}}]},
        {"prediction": {"embeddings": {"values": [1, 2], "statistics": {"token_count": 3}}}},
        {"predictions": [{"embeddings": {"Values": [1, 2], "statistics": {"token_count": 3}}}]},
        {"predictions": json.dumps(json.dumps([{"embeddings": {"values": [1, 2], "statistics": {"token_count": 3}}}]))},
        {"response": {"embeddings": [{"values": [1, 2]}], "tokenCount": "3"}},
        {"response": json.dumps(json.dumps({"embedding": {"values": [1, 2]}, "tokenCount": 3}))},
        {"response": [{"embedding": {"values": [1, 2]}, "tokenCount": 3}]},
        {"response": {"embedding": {"values": [1, 2], "statistics": {"tokenCount": 3}}}},
    ],
)
def test_a_vector_is_found_wherever_it_stands(item: dict[str, Any]) -> None:
    result = vertex_result_of({"key": "k", "status": "", **item}, 0)
    assert result.response is not None
    made = row(result.response, JobKind.EMBEDDINGS)
    assert (made["status"], made["embedding"], made["usage"]["input_tokens"]) == ("ok", [1, 2], 3)


def names(line: str, **spec: Any) -> list[str]:
    landing = LandingSpec(kind=JobKind.GENERATION, wrapped_keys=False, **spec)
    return [made["key"] for made in iter_rows([parse_result_line(line.encode(), 4)], landing)]


def test_a_key_field_keeps_every_digit_and_is_found_in_the_metadata() -> None:
    said = json.dumps(response({"text": "fine"}))
    assert names(f'{{"product_id":1.10,"response":{said}}}', key_field="product_id") == ["1.10"]
    assert names(f'{{"price":12345678901234567890.123,"response":{said}}}', key_field="price") == [
        "12345678901234567890.123"
    ]
    for name in ("id", "custom_id", "sku"):
        assert names(f'{{"metadata":{{"{name}":7}},"response":{said}}}', key_field="sku") == ["7"]
    assert names(f'{{"metadata":{{"other":7}},"response":{said}}}') == ["4"]


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        (
            {"promptTokenCount": 5, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}]},
            {"input_tokens": 5, "output_tokens": 1290, "output_image_tokens": 1290},
        ),
        (
            {"promptTokensDetails": [{"modality": "image", "tokenCount": 10}, {"modality": "IMAGE", "tokenCount": 5}]},
            {"input_tokens": 15, "input_image_tokens": 15},
        ),
        (
            {"promptTokensDetails": [], "promptTokenDetails": [{"modality": "VIDEO", "tokenCount": 9}]},
            {"input_tokens": 9, "input_video_tokens": 9},
        ),
        (
            {"promptTokensDetails": [{"modality": 4, "tokenCount": 9}, {"modality": 0, "tokenCount": 1}]},
            {"input_tokens": 10, "input_audio_tokens": 9},
        ),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 100},
            {"input_tokens": 5, "output_tokens": 95, "other_tokens": 92},
        ),
    ],
)
def test_nothing_that_a_count_tells_goes_uncounted(counts: dict[str, Any], wanted: dict[str, int]) -> None:
    assert usage_of({"usageMetadata": counts}) == (Usage(**wanted), "")
    line = json.dumps({"key": "k", "response": {**response({"text": "fine"}), "usageMetadata": counts}}).encode()
    assert RowMaker(JobKind.GENERATION).line(parse_result_line(line, 0), "k")[2] == Usage(**wanted)


def test_tokens_of_a_picture_that_no_list_tells_apart_are_of_an_unknown_kind() -> None:
    said = response({"text": "t"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}})
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 1290}
    usage, _ = usage_of({**said, "usageMetadata": counts})
    assert usage == Usage(input_tokens=5, output_tokens=1290, other_tokens=1290)
    listed = {**counts, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}]}
    usage, _ = usage_of({**said, "usageMetadata": listed})
    assert usage == Usage(input_tokens=5, output_tokens=1290, output_image_tokens=1290)


@pytest.mark.parametrize(
    ("grounding", "searches"),
    [
        ({"groundingChunks": [{"web": {"uri": "https://example.com"}}]}, 1),
        ({"groundingChunks": [{"maps": {"placeId": "p"}}]}, 1),
        ({"searchEntryPoint": {"renderedContent": "<div></div>"}}, 1),
        ({"groundingChunks": [{"web": {}}], "webSearchQueries": ["a", "b"]}, 2),
        ({"groundingChunks": [{"retrievedContext": {"uri": "gs://b/o"}}]}, 0),
    ],
)
def test_a_search_is_counted_where_only_its_sources_are_shown(grounding: dict[str, Any], searches: int) -> None:
    usage = usage_of(response({"text": "x"}, groundingMetadata=grounding))[0]
    assert usage is not None
    assert usage.searches == searches


def test_failed_rows_without_a_key_count_what_they_used(tmp_path: Path) -> None:
    billed = {"usageMetadata": COUNTS}
    failed = [BatchResult(None, None, ServiceError(code=13), place, billed=billed) for place in range(2)]
    with (tmp_path / "out.jsonl").open("wb") as handle:
        sink = JsonlSink(handle)
        summary = land(
            [ResponseSource(failed.__iter__, range(2))], sink, LandingSpec(kind=JobKind.GENERATION, rows=2), tmp_path
        )
        sink.close()
    assert (summary.usage.input_tokens, summary.usage.output_tokens) == (10, 14)
