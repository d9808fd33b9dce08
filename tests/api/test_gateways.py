"""What stands between us and the service, and answers in its place: it is neither believed nor taken for a refusal."""

from __future__ import annotations

import io
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
from api.conftest import FixedToken
from api.test_resumed_downloads import saying

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import (
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ResultsGone,
    ServiceUnavailable,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.google.files import CHUNK_BYTES
from airflow_provider_gemini_batch.api.models import JobState, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from api.listener import Listener

FLASH = "gemini-2.5-flash"
VERTEX_JOB = "projects/p/locations/us-central1/batchPredictionJobs/1"
JOBS = {"gemini": "batches/a", "vertex": VERTEX_JOB}


@pytest.fixture(params=["gemini", "vertex"])
def here(request: pytest.FixtureRequest, listener: Listener) -> Iterator[tuple[BatchClient, str]]:
    """A client of each service that talks to the listener, and the name of a job there."""
    if request.param == "gemini":
        made = BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None)
    else:
        made = BatchClient.for_vertex(
            "p", "us-central1", credentials=FixedToken(), base_url=listener.url, sleep=lambda _: None
        )
    with made as client:
        yield client, JOBS[request.param]


@pytest.fixture(params=["cancel", "delete"])
def act(request: pytest.FixtureRequest, here: tuple[BatchClient, str]) -> Callable[[], None]:
    """A call that ends a job there."""
    client, name = here
    return partial({"cancel": client.cancel, "delete": client.delete}[request.param], name)


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_an_interim_response_is_not_the_response(interim: str) -> None:
    before = f"HTTP/1.1 {interim}\r\nLink: </style.css>\r\n\r\n".encode()
    with (
        saying(before + before + http("200 OK", b'{"name": "batches/a"}')) as (url, _),
        BatchClient.for_gemini("a-key", base_url=url) as client,
    ):
        assert client.create(FLASH, inlined_requests=["a"]).name == "batches/a"


def test_a_call_that_the_service_gave_up_may_have_acted(listener: Listener) -> None:
    body = {"error": {"code": 499, "status": "CANCELLED", "message": "The operation was cancelled."}}
    listener.answer = (499, {}, json.dumps(body).encode())
    with BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None) as client:
        with pytest.raises(ServiceUnavailable) as raised:
            client.create(FLASH, inlined_requests=["a"])
        assert raised.value.may_have_acted
        assert len(listener.seen) == 1
        with pytest.raises(ServiceUnavailable):
            client.get("batches/a")
        assert len(listener.seen) == 5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"code": 429, "message": "Slow down."}}', "the response is an error: Slow down."),
        (b'{"error": {"code": 8}}', "the response is an error: code 8"),
        (b'{"error": null}', "the response is an error"),
        (b'{"error": {"code": 8}, "operations": [], "batchPredictionJobs": []}', "the response is an error: code 8"),
        (b'{"message": "no route"}', "the response is not a page of a list"),
        (b'{"batches": [{"name": "batches/a"}]}', "the response is not a page of a list"),
    ],
)
def test_what_is_not_a_page_does_not_pass_for_an_empty_list(
    here: tuple[BatchClient, str], listener: Listener, body: bytes, words: str
) -> None:
    listener.answer = (200, {}, body)
    asks: list[Callable[[], object]] = [here[0].list, here[0].snapshots]
    for ask in asks:
        with pytest.raises(UnexpectedResponse, match=words):
            ask()


@pytest.mark.parametrize("body", [b"{}", b'{"nextPageToken": ""}', b'{"unreachable": []}'])
def test_an_empty_page_is_one(here: tuple[BatchClient, str], listener: Listener, body: bytes) -> None:
    listener.answer = (200, {}, body)
    assert not here[0].list().batch_jobs


def test_a_page_or_an_error_does_not_pass_for_a_cancel_or_delete(act: Callable[[], None], listener: Listener) -> None:
    for body, words in (
        (b"<html>Sign in</html>", r"not JSON \(HTML\)"),
        (b'{"name": "operations/1", "done": true, "error": {"code": 9, "message": "It runs."}}', "an error: It runs."),
        (b'{"error": {"code": 9}}', "an error: code 9"),
    ):
        listener.answer = (200, {}, body)
        with pytest.raises(UnexpectedResponse, match=words):
            act()
    for body in (b"", b"{}", b"OK", b'{"done": true, "response": {}}', b'{"error": {}}'):
        listener.answer = (200, {}, body)
        act()


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 412])
def test_a_late_cancel_is_not_an_error_however_it_is_refused(
    here: tuple[BatchClient, str], listener: Listener, status: int
) -> None:
    client, name = here
    job = {"name": name, "state": "JOB_STATE_SUCCEEDED", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}}
    listener.answer = lambda path: (
        (status, {}, b"") if path.endswith(":cancel") else (200, {}, json.dumps(job).encode())
    )
    client.cancel(name)
    job |= {"state": "JOB_STATE_RUNNING", "metadata": {"state": "BATCH_STATE_RUNNING"}}
    with pytest.raises(GeminiBatchError, match=f"was refused: {status}"):
        client.cancel(name)


@pytest.mark.parametrize("state", ["", "BATCH_STATE_RUNNING", "BATCH_STATE_NEW"])
def test_an_operation_that_ends_with_the_code_of_a_cancellation_was_cancelled(listener: Listener, state: str) -> None:
    job = {"name": "batches/a", "done": True, "metadata": {"state": state}, "error": {"code": 1}}
    listener.answer = (200, {}, json.dumps(job).encode())
    with BatchClient.for_gemini("a-key", base_url=listener.url) as client:
        assert client.get("batches/a").state is JobState.CANCELLED


SUCCEEDED = {"name": "batches/a", "done": True, "metadata": {"output": {"responsesFile": f"files/{'a' * 42}"}}}


@pytest.mark.parametrize("lacks", ["/batches/", "/files/"])
def test_paid_responses_are_not_gone_because_a_gateway_says_404(listener: Listener, lacks: str) -> None:
    """A restarting gateway knows no path; only the service's own 404 means that it keeps nothing."""
    missing = b"404 page not found"
    with BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None) as client:
        listener.answer = (200, {}, json.dumps(SUCCEEDED).encode())
        job = client.get("batches/a")
        listener.answer = lambda path: (
            (404, {}, missing) if lacks in path else (200, {}, json.dumps(SUCCEEDED).encode())
        )
        with pytest.raises(ServiceUnavailable, match="404"):
            client.get_responses(job)


FINISHED = http("200 OK", b'{"file": {"name": "files/abc"}}', "x-goog-upload-status: final")


def upload(*answers: bytes) -> tuple[str, list[float], int]:
    """Upload two bytes; return the name of the file, the pauses, and how many sessions it took."""
    pauses: list[float] = []
    started = http("200 OK", b"", "x-goog-upload-url: http://localhost/session")
    with (
        saying(*[started if answer is START else answer for answer in answers]) as (url, asked),
        BatchClient.for_gemini("a-key", base_url=url, sleep=pauses.append) as client,
    ):
        name = client.upload_file(io.BytesIO(b"ab"), wait=0).name
    return name, pauses, sum(b"/upload/v1beta/files" in request for request in asked)


START = b"start"


@pytest.mark.parametrize("received", ["3", "-1", "99999999999999999999", "1,1", "half"])
def test_an_upload_starts_again_when_the_service_has_an_impossible_number_of_bytes(received: str) -> None:
    odd = http("200 OK", b"", "x-goog-upload-status: active", f"x-goog-upload-size-received: {received}")
    name, _, sessions = upload(START, http("503 Busy"), odd, START, FINISHED)
    assert (name, sessions) == ("files/abc", 2)


def test_an_upload_holds_no_worker_for_as_long_as_a_quota_asks() -> None:
    with pytest.raises(QuotaExceeded) as raised:
        upload(START, http("429 Slow", b"", "Retry-After: 3600"))
    assert raised.value.retry_after == 3600


def test_an_upload_that_the_service_ends_with_an_error_quotes_it() -> None:
    refused = http("200 OK", b'{"error": {"code": 400, "message": "No room."}}', "x-goog-upload-status: final")
    with pytest.raises(UnexpectedResponse, match=r"dropped 3 upload sessions; the last: .*an error: No room\."):
        upload(START, refused, START, refused, START, refused)


OWN_404 = b'{"error": {"code": 404, "status": "NOT_FOUND", "message": "Requested entity was not found."}}'


def test_a_job_is_not_gone_or_beyond_reach_because_a_gateway_says_so(
    act: Callable[[], None], listener: Listener
) -> None:
    """It runs on, and is paid for, if nobody cancels it."""
    for status, page in ((404, b"404 page not found"), (403, b"<html>"), (405, b'{"message": "no route"}')):
        listener.answer = (status, {}, page)
        with pytest.raises(ServiceUnavailable, match=str(status)):
            act()
    listener.answer = (404, {}, OWN_404)
    with pytest.raises(NotFound):
        act()


def test_the_output_of_a_job_is_not_lost_because_a_gateway_says_404(listener: Listener) -> None:
    with BatchClient.for_vertex(
        "p", "us-central1", credentials=FixedToken(), base_url=listener.url, sleep=lambda _: None
    ) as client:
        listener.answer = (404, {}, b"404 page not found")
        with pytest.raises(ServiceUnavailable):
            client.output_source(VERTEX_JOB)
        listener.answer = (404, {}, OWN_404)
        with pytest.raises(NotFound):
            client.output_source(VERTEX_JOB)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("code", [403, 404, 429, 503])
def test_an_error_in_place_of_a_file_is_no_row_of_it(listener: Listener, code: int, indent: int | None) -> None:
    error = json.dumps({"error": {"code": code, "message": "Not now."}}, indent=indent).encode()
    with BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None) as client:
        job = json.dumps(SUCCEEDED).encode()
        listener.answer = lambda path: (200, {}, error if "/files/" in path else job)
        with pytest.raises(ServiceUnavailable, match=r"200, but the response is an error: Not now\."):
            client.get_responses("batches/a")


@pytest.mark.parametrize(
    "line",
    [b'{"error": {"code": 13}}', b'{"error": {"code": 400}}', b'{"key": "a", "error": {"code": 503}}'],
    ids=["13", "400", "key"],
)
def test_an_error_of_a_row_is_one(listener: Listener, line: bytes) -> None:
    with BatchClient.for_gemini("a-key", base_url=listener.url) as client:
        listener.answer = lambda path: (200, {}, line if "/files/" in path else json.dumps(SUCCEEDED).encode())
        assert [result.error is not None for result in client.get_responses("batches/a")] == [True]


def test_an_output_that_the_service_does_not_keep_is_gone_though_its_id_is_too_long_for_the_other_path(
    listener: Listener,
) -> None:
    too_long = b'{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "File ID cannot be more than 40."}}'
    with BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None) as client:
        listener.answer = lambda path: (
            (404, {}, OWN_404)
            if path.startswith("/download/")
            else (400, {}, too_long)
            if "/files/" in path
            else (200, {}, json.dumps(SUCCEEDED).encode())
        )
        with pytest.raises(ResultsGone):
            client.get_responses("batches/a")


@pytest.mark.parametrize("body", [b"", b"\xef\xbb\xbf"], ids=["strict", "lenient"])
def test_a_list_is_read_to_its_end_whatever_its_tokens_are(
    here: tuple[BatchClient, str], listener: Listener, body: bytes
) -> None:
    client, name = here
    member = "operations" if client.service is Service.GEMINI else "batchPredictionJobs"
    pages = {"": (name, 100), "100": (f"{name}1", "x"), "x": (f"{name}2", 0)}

    def page(path: str) -> tuple[int, dict[str, str], bytes]:
        job, token = pages[path.partition("pageToken=")[2].partition("&")[0]]
        return 200, {}, body + json.dumps({member: [{"name": job}], "nextPageToken": token}).encode()

    listener.answer = page
    assert [job.name for job in client.list_all()] == [name, f"{name}1", f"{name}2"]


@pytest.mark.parametrize(
    "page",
    [
        {"jobs": ["batches/a"]},
        {"jobs": [{"name": "batches/a"}, "batches/b"]},
        {"jobs": [5]},
        {"jobs": {"0": {"name": "batches/a"}}},
        {"jobs": "batches/a"},
        {"jobs": 1},
        {"nextPageToken": {"of": 1}},
        {"jobs": [], "nextPageToken": ["t"]},
    ],
)
def test_a_page_that_may_hold_a_job_in_another_form_is_not_an_empty_one(
    here: tuple[BatchClient, str], listener: Listener, page: dict[str, object]
) -> None:
    client, _ = here
    member = "operations" if client.service is Service.GEMINI else "batchPredictionJobs"
    listener.answer = (200, {}, json.dumps({member if name == "jobs" else name: page[name] for name in page}).encode())
    with pytest.raises(UnexpectedResponse, match=r"not a page of a list|describes no batch job"):
        client.list()


@pytest.mark.parametrize("jobs", [{}, {"operations": []}, {"batchPredictionJobs": []}])
def test_a_page_that_lacks_what_was_not_reached_is_asked_for_again(
    here: tuple[BatchClient, str], listener: Listener, jobs: dict[str, object]
) -> None:
    listener.answer = (200, {}, json.dumps({**jobs, "unreachable": ["locations/eu"]}).encode())
    with pytest.raises(ServiceUnavailable, match="lacks what the service could not reach"):
        here[0].list()
    assert len(listener.seen) == 1


def test_an_upload_whose_bytes_are_lost_again_and_again_gives_up(listener: Listener) -> None:
    """Two servers behind a gateway, one of which does not know the session, would go on for ever."""

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if "session" not in path:
            return 200, {"x-goog-upload-url": f"{listener.url}/session"}, b""
        command = listener.seen[-1][2]["x-goog-upload-command"]
        if command == "query":
            return 200, {"x-goog-upload-status": "active", "x-goog-upload-size-received": "0"}, b""
        return (503, {}, b"") if "finalize" in command else (200, {"x-goog-upload-status": "active"}, b"")

    listener.answer = answer
    with (
        BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None) as client,
        pytest.raises(ServiceUnavailable),
    ):
        client.upload_file(io.BytesIO(bytes(CHUNK_BYTES + 1)), wait=0)
    assert len(listener.seen) < 20


def test_another_job_than_the_one_that_was_asked_for_is_not_believed(
    here: tuple[BatchClient, str], listener: Listener
) -> None:
    """A gateway's cache may mix up its users: the state and the rows of others are not ours."""
    client, name = here
    job = {"state": "JOB_STATE_SUCCEEDED", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "done": True}
    listener.answer = (200, {}, json.dumps({**job, "name": f"{name}2"}).encode())
    asks: list[Callable[[], object]] = [
        lambda: client.get(name),
        lambda: client.get(name, brief=True),
        lambda: client.get_responses(name),
    ]
    for ask in asks:
        with pytest.raises(UnexpectedResponse, match="describes another job"):
            ask()
    listener.answer = (200, {}, json.dumps({**job, "name": name.replace("projects/p/", "projects/123/")}).encode())
    assert client.get(name).is_done
