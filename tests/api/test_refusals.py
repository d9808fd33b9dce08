"""Each refusal of the services becomes the right error, with words that help and nothing that must not show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.responses.refusal import error_from_response


def refused(
    code: int, status: str = "", message: str = "", *details: dict[str, Any], **headers: str
) -> GeminiBatchError:
    body = {"error": {"code": code, "status": status, "message": message, "details": list(details)}}
    return error_from_response(code, headers, json.dumps(body).encode(), what="get of batches/a on host was refused")


@pytest.mark.parametrize(
    ("kind", "code", "status", "message"),
    [
        (ApiError, 400, "INVALID_ARGUMENT", "Unsupported MIME type: jsonl"),
        (ApiError, 400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."),
        (ApiError, 400, "FAILED_PRECONDITION", "The job has ended."),
        (AccessDenied, 400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        (AccessDenied, 400, "FAILED_PRECONDITION", "Please enable billing on the project."),
        # Some gateways give each error of the service one status of their own.
        (QuotaExceeded, 400, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
        (QuotaExceeded, 403, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
        (ServiceUnavailable, 400, "UNAVAILABLE", "The model is overloaded."),
        (ServiceUnavailable, 403, "INTERNAL", "An internal error has occurred."),
        (AccessDenied, 401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        (AccessDenied, 403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers."),
        (AccessDenied, 403, "PERMISSION_DENIED", "Permission 'x' denied on resource '//y' (or it may not exist)."),
        (NotFound, 403, "PERMISSION_DENIED", "You do not have permission to access the File a or it may not exist."),
        (NotFound, 404, "NOT_FOUND", "Requested entity was not found."),
        (ApiError, 409, "ALREADY_EXISTS", "Requested entity already exists"),
        (QuotaExceeded, 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
        (ServiceUnavailable, 500, "INTERNAL", "An internal error has occurred."),
        (ServiceUnavailable, 503, "UNAVAILABLE", "The model is overloaded."),
        (ServiceUnavailable, 504, "DEADLINE_EXCEEDED", "Deadline expired."),
    ],
)
def test_status_and_words_decide_the_kind(kind: type[ApiError], code: int, status: str, message: str) -> None:
    error = refused(code, status, message)
    assert type(error) is kind
    assert isinstance(error, ApiError)
    assert (error.http_status, error.status) == (code, status)
    assert str(error).startswith(f"get of batches/a on host was refused: {code} {status}: ")


def test_a_refused_api_key_is_a_400_with_a_reason() -> None:
    error = refused(400, "INVALID_ARGUMENT", "API key not valid.", {"@type": "x", "reason": "API_KEY_INVALID"})
    assert isinstance(error, AccessDenied)
    assert error.reason == "API_KEY_INVALID"
    assert "400 INVALID_ARGUMENT: API key not valid. Check the API key in the connection" in str(error)


def test_advice_begins_a_sentence_of_its_own() -> None:
    said = str(refused(403, "PERMISSION_DENIED", "The caller does not have permission"))
    assert "The caller does not have permission. Check the credentials in the connection" in said


@pytest.mark.parametrize(
    ("details", "headers", "seconds"),
    [
        ([{"@type": "google.rpc.Help", "links": []}], {}, None),
        ([{"@type": "google.rpc.RetryInfo", "retryDelay": "19s"}], {}, 19.0),
        ([{"@type": "google.rpc.RetryInfo", "retryDelay": "0.5s"}], {"Retry-After": "7"}, 0.5),
        ([], {"Retry-After": "7"}, 7.0),
        ([], {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        # By the clock of whoever says so, which may be far from ours.
        ([], {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:48:07 GMT"}, 90.0),
        ([], {"Retry-After": "Sun, 06 Nov 2094 08:49:37 GMT", "Date": "Sat, 06 Nov 2094 08:49:27 GMT"}, 10.0),
        ([], {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "today"}, 0.0),
        ([], {"Retry-After": "soon"}, None),
    ],
)
def test_a_quota_says_when_to_come_back_if_the_service_does(
    details: list[dict[str, Any]], headers: dict[str, str], seconds: float | None
) -> None:
    error = refused(429, "RESOURCE_EXHAUSTED", "Quota.", *details, **headers)
    assert isinstance(error, QuotaExceeded)
    assert error.retry_after == seconds


def test_an_error_wrapped_in_a_list_is_read() -> None:
    error = error_from_response(
        503, {}, b'[{"error": {"code": 503, "status": "UNAVAILABLE", "message": "Later."}}]', what="x"
    )
    assert str(error) == "x: 503 UNAVAILABLE: Later."


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[]", b"\xff", b'"text"', b'{"error": 7}'])
def test_an_error_page_of_a_proxy_keeps_its_status(body: bytes) -> None:
    error = error_from_response(502, {}, body, what="x")
    assert isinstance(error, ServiceUnavailable)
    assert str(error) == "x: 502 and no message that can be read"


def test_bad_lines_are_named_without_what_is_in_them() -> None:
    message = (
        "Error on line 1: invalid JSON, near column 118: no such field: 'thinking_config'\n"
        "Error on line 4: invalid JSON, near column 23: unexpected character: '['; expected '{'\n"
        'Error on line 9: invalid value for string field text: "my secret prompt"'
    )
    text = str(refused(400, "INVALID_ARGUMENT", message))
    assert "line 1: invalid JSON, near column 118: no such field: 'thinking_config'" in text
    assert "line 4: invalid JSON, near column 23: unexpected character: '['; expected '{'" in text
    assert "line 9:" in text
    assert "secret" not in text


def test_many_bad_lines_are_counted() -> None:
    message = "\n".join(f"Error on line {n}: bad" for n in range(1, 31))
    text = str(refused(400, "INVALID_ARGUMENT", message))
    assert "line 20: bad; and 10 more lines" in text


@pytest.mark.parametrize(
    "message",
    [
        "Invalid value at 'batch.input_config' (type.googleapis.com/x.Y), \"hush\"",
        "Invalid value at 'a.b', \"hush\"",
        'Cannot read "hush now" here',
    ],
)
def test_values_of_a_request_are_cut_out(message: str) -> None:
    assert "hush" not in str(refused(400, "INVALID_ARGUMENT", message))


def test_a_message_is_cut_to_500_characters() -> None:
    assert len(str(refused(400, "", "word " * 1000))) < 600


def test_a_credential_that_the_service_repeats_does_not_show() -> None:
    body = json.dumps({"error": {"code": 403, "message": "Consumer api_key:AIza-x is suspended."}}).encode()
    text = str(error_from_response(403, {}, body, what="list", secrets=("AIza-x", "")))
    assert "AIza" not in text
    assert "Consumer api_key:*** is suspended" in text


def test_a_redirect_is_refused_for_it_would_carry_the_credentials_along() -> None:
    assert isinstance(error_from_response(302, {"Location": "https://elsewhere"}, b"", what="x"), UnexpectedResponse)


@given(st.integers(300, 599), st.binary(max_size=200))
@example(500, b"[" * 100_000)
def test_no_answer_makes_the_reader_stumble(status: int, body: bytes) -> None:
    assert isinstance(error_from_response(status, {}, body, what="x"), GeminiBatchError)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda v: (
            st.lists(v, max_size=2)
            | st.dictionaries(
                st.sampled_from(["error", "code", "message", "status", "details", "reason", "retryDelay"]),
                v,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
@example({"error": {"details": 1}})
def test_no_shape_of_json_makes_the_reader_stumble(value: Any) -> None:
    assert isinstance(error_from_response(429, {}, json.dumps(value).encode(), what="x"), QuotaExceeded)
