"""Answers that are too large, too slow, packed, endless or out of time are our errors, and take bounded room."""

from __future__ import annotations

import gc
import gzip
import json
import socket
import threading
import tracemalloc
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api import sessions
from airflow_provider_gemini_batch.api.backends import gemini
from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import (
    ApiError,
    GeminiBatchError,
    InputError,
    NotFound,
    QuotaExceeded,
    ResponseTooLarge,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import CompletionStats, JobDestination, JobState
from airflow_provider_gemini_batch.api.paging import pages_of
from airflow_provider_gemini_batch.api.responses import lines
from airflow_provider_gemini_batch.api.responses.refusal import error_from_response, http_date
from airflow_provider_gemini_batch.api.wire import json_bytes, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from api.listener import Listener

    from airflow_provider_gemini_batch.emulator import Emulator

KEY = "AIza-a-key-that-must-not-show"
MEGA = 2**20


@pytest.fixture
def here(listener: Listener) -> Iterator[BatchClient]:
    with BatchClient.for_gemini(KEY, base_url=listener.url, sleep=lambda _: None, attempts=1) as made:
        yield made


ASKS: dict[str, Callable[[BatchClient], Any]] = {
    "get": lambda client: client.get("batches/a", brief=True),
    "list": lambda client: client.list(brief=True),
    "snapshots": lambda client: client.snapshots(),
    "files": lambda client: client.list_files(),
    "whole": lambda client: client.get("batches/a"),
}


@pytest.mark.parametrize("ask", [*ASKS])
def test_an_answer_that_unpacks_into_gigabytes_is_not_taken_in(here: BatchClient, listener: Listener, ask: str) -> None:
    packed = gzip.compress(bytes((64 if ask != "whole" else 520) * MEGA), 1)
    listener.answer = (200, {"Content-Encoding": "gzip"}, packed)
    tracemalloc.start()
    try:
        with pytest.raises(ResponseTooLarge, match="larger than"):
            ASKS[ask](here)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if ask != "whole":
        assert peak < 48 * MEGA


@pytest.mark.parametrize("ask", ["get", "list", "snapshots"])
def test_a_poll_takes_in_four_mebibytes_and_a_whole_job_more(here: BatchClient, listener: Listener, ask: str) -> None:
    job = {"name": "batches/a", "error": {"code": 13, "message": "x" * 5 * MEGA}}
    listener.answer = (200, {}, json.dumps({**job, "operations": [job]}).encode())
    with pytest.raises(ResponseTooLarge, match="larger than 4 MiB"):
        ASKS[ask](here)
    assert here.get("batches/a").error is not None


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"0,"])
def test_an_answer_of_very_many_values_is_not_taken_in(here: BatchClient, listener: Listener, piece: bytes) -> None:
    listener.answer = (200, {}, b'{"operations": [' + piece * 600_000 + b"0]}")
    with pytest.raises(ResponseTooLarge, match="values"):
        here.list(brief=True)


@pytest.mark.parametrize("text", ["[1,2],{", r"\",[", "\\\\"], ids=["plain", "quotes", "backslashes"])
def test_commas_and_brackets_in_texts_are_no_values(here: BatchClient, listener: Listener, text: str) -> None:
    parts = [{"text": text * 300_000 + "\\"}, {"text": "x"}]
    item = {"metadata": {"key": "a"}, "response": {"candidates": [{"content": {"parts": parts}}]}}
    metadata = {"state": "BATCH_STATE_SUCCEEDED", "output": {"inlinedResponses": {"inlinedResponses": [item] * 12}}}
    listener.answer = (200, {}, json.dumps({"name": "batches/a", "done": True, "metadata": metadata}).encode())
    assert [result.error for result in here.get_responses("batches/a")] == [None] * 12


def test_a_page_of_a_thousand_jobs_is_far_from_any_limit(here: BatchClient, listener: Listener) -> None:
    job = {"name": "batches/abc", "metadata": {"displayName": "x" * 512, "batchStats": {"requestCount": "1"}}}
    listener.answer = (200, {}, json.dumps({"operations": [job] * 1000}).encode())
    assert len(here.list(page_size=1000).batch_jobs) == 1000


def test_a_page_of_a_hundred_jobs_is_read_without_a_garbage_collection(here: BatchClient, listener: Listener) -> None:
    parts = {name: {"of": [1]} for name in ("inputConfig", "output", "labels", "webhookConfig")}
    jobs = [
        {"name": f"batches/{number}", "metadata": {**parts, "state": "BATCH_STATE_RUNNING"}} for number in range(100)
    ]
    listener.answer = (200, {}, json.dumps({"operations": jobs}).encode())
    here.snapshots()
    begun: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        begun.append(phase)

    before = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(note)
    gc.set_threshold(700, 10, 10)  # as Python has it; parsed all at once, the page takes a thousand objects
    try:
        snapshots = here.snapshots().snapshots
        in_all = len(begun)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    assert len(snapshots) == 100
    assert not in_all


def test_an_error_page_is_read_no_further_than_it_is_shown(here: BatchClient, listener: Listener) -> None:
    listener.answer = (400, {"Content-Encoding": "gzip"}, gzip.compress(bytes(64 * MEGA), 1))
    tracemalloc.start()
    try:
        with pytest.raises(ApiError):
            here.list()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * MEGA


@contextmanager
def dripping(*pieces: bytes, again: bytes = b"") -> Iterator[str]:
    """A peer that sends these pieces and then a little for as long as it is listened to."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            with server.accept()[0] as peer:
                peer.recv(65536)
                for piece in pieces:
                    peer.sendall(piece)
                with suppress(OSError):
                    while not stop.wait(0.02):
                        peer.sendall(again)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("pieces", "again"),
    [
        ((b"HTTP/1.1 200 OK\r\n",), b"X: y\r\n"),
        ((b"HTTP/1.1 200 OK\r\nX: ",), b"y"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",), b"x"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",), b"1\r\nx\r\n"),
        ((b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n",), b"x"),
    ],
)
def test_an_answer_that_comes_in_drips_ends_at_its_deadline(pieces: tuple[bytes, ...], again: bytes) -> None:
    # Each single read is answered in time.
    with (
        dripping(*pieces, again=again) as url,
        BatchClient.for_gemini(KEY, base_url=url, timeout=0.2, attempts=1) as client,
        pytest.raises(TransportError, match="no response within"),
    ):
        client.list()


def test_a_download_in_drips_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_LEAST_BYTES_PER_SECOND", 1_000_000)
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    with (
        dripping(start, again=b"x") as url,
        BatchClient.for_gemini(KEY, base_url=url, timeout=0.2, attempts=1) as client,
        pytest.raises(TransportError),
    ):
        list(client.iter_download("files/batch-abc"))


def test_a_long_answer_that_moves_on_is_read_to_its_end(listener: Listener) -> None:
    listener.answer = (200, {}, b"x" * 40 * MEGA)
    with BatchClient.for_gemini(KEY, base_url=listener.url, timeout=1.0) as client:
        assert sum(map(len, client.iter_download("files/batch-abc"))) == 40 * MEGA


@pytest.mark.parametrize(
    "header",
    [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -1200",
        "Mon, 01 Jan 0150 00:00:00 +1200",
        "x" * 100_000,
        "999999999999999999999999",
        "-5",
        "nan",
        "1e400",
    ],
)
def test_no_date_or_wait_is_out_of_this_world(here: BatchClient, listener: Listener, header: str) -> None:
    listener.answer = (429, {"Retry-After": header[:60000]}, b"{}")
    with pytest.raises(QuotaExceeded) as caught:
        here.list()
    assert caught.value.retry_after is None or 0 <= caught.value.retry_after <= 86400
    assert http_date(header) is None


@pytest.mark.parametrize("delay", ["1e400s", "nans", "-1s", "s", "9" * 400 + "s"])
def test_a_wait_in_an_errors_details_is_bounded(delay: str) -> None:
    body = json.dumps({"error": {"details": [{"retryDelay": delay}]}}).encode()
    error = error_from_response(429, {}, body, what="x")
    assert isinstance(error, QuotaExceeded)
    assert error.retry_after is None or 0 <= error.retry_after <= 86400


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z"])
def test_times_at_the_ends_of_the_calendar_are_ignored(time: str) -> None:
    assert time_of(time) is None


@given(st.text(max_size=60))
def test_any_date_is_read_or_none(text: str) -> None:
    http_date(text)
    time_of(text)


def test_a_list_whose_pages_repeat_ends_with_an_error(here: BatchClient, listener: Listener) -> None:
    listener.answer = (200, {}, b'{"nextPageToken": "again"}')
    with pytest.raises(UnexpectedResponse, match="does not end"):
        list(here.list_all())
    with pytest.raises(UnexpectedResponse, match="does not end"):
        list(pages_of(lambda token: here.list_files(page_token=token)))
    assert len(listener.seen) <= 30


@pytest.mark.parametrize(
    "address",
    [
        "http://elsewhere.example/x",
        "http://[::1",
        "ftp://x/y",
        "//x",
        "nonsense",
        "https://u:p@host/x",
        "https://ho st/x",
    ],
)
def test_rows_are_not_sent_to_an_upload_address_that_is_not_safe(
    listener: Listener, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gemini_batch.api.client.DEFAULT_BASE_URL", listener.url)
    listener.answer = (200, {"x-goog-upload-url": address}, b"{}")
    with (
        BatchClient.for_gemini(KEY, attempts=1) as client,
        pytest.raises(UnexpectedResponse, match="upload session") as e,
    ):
        client.upload_file(__import__("io").BytesIO(b"secret row"))
    assert address not in str(e.value)
    assert len(listener.seen) == 1


LATE = [(400, "FAILED_PRECONDITION"), (404, "NOT_FOUND"), (409, "ABORTED")]


@pytest.mark.parametrize(("status", "words"), LATE)
def test_a_cancel_that_comes_too_late_is_not_an_error(
    client: BatchClient, emulator: Emulator, status: int, words: str
) -> None:
    job = client.create("gemini-2.5-flash", inlined_requests=["x"])
    fault = {"operation": "cancel", "status": status, "error_status": words, "message": "Cannot."}
    emulator.control.faults(http=fault)
    with pytest.raises(ApiError, match="Cannot"):
        client.cancel(job.name)
    emulator.control.advance(100)
    client.cancel(job.name)
    client.delete(job.name)
    with pytest.raises(NotFound):
        client.cancel(job.name)


def test_a_cancel_that_is_refused_for_another_reason_is_an_error(client: BatchClient, emulator: Emulator) -> None:
    job = client.create("gemini-2.5-flash", inlined_requests=["x"])
    emulator.control.advance(100)
    emulator.control.faults(http={"operation": "cancel", "status": 403, "message": "No."})
    with pytest.raises(ApiError, match="No"):
        client.cancel(job.name)


def test_what_is_sent_is_raw_utf8_with_whole_characters() -> None:
    assert json_bytes({"a": "\ud83d\ude04 é \u2028 \x00"}) == b'{"a":"\xf0\x9f\x98\x84 \xc3\xa9 \xe2\x80\xa8 \\u0000"}'
    assert json_bytes({"\ud83d\ude04": 1}) == b'{"\xf0\x9f\x98\x84":1}'


@pytest.mark.parametrize("value", ["\ud83d", "\ude04\ud83d", "a\ud83db", float("nan"), {1, 2}, [object()]])
def test_half_a_character_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(InputError, match="cannot be written") as caught:
        json_bytes([value])
    assert caught.value.__cause__ is None


@given(st.recursive(st.text(st.characters(), max_size=5) | st.integers() | st.none(), st.lists, max_leaves=5))
def test_whatever_can_be_sent_reads_back(value: Any) -> None:
    try:
        sent = json_bytes(value)
    except InputError:
        return
    assert not sent.startswith(b"\xef\xbb\xbf")
    assert b"\\ud" not in sent
    json.loads(sent.decode())


def test_emoji_in_names_and_prompts_arrive(listener: Listener, here: BatchClient) -> None:
    listener.answer = (200, {}, b'{"name": "batches/a"}')
    here.create("gemini-2.5-flash", inlined_requests=["smile \ud83d\ude04"], display_name="\U0001f604")
    with pytest.raises(GeminiBatchError):
        here.create("gemini-2.5-flash", inlined_requests=["half \ud83d"])
    assert len(listener.seen) == 1


def test_a_job_is_seen_to_end_though_its_large_responses_come_unasked(here: BatchClient, listener: Listener) -> None:
    """Some gateways drop the parameter that leaves them out."""
    item = {"metadata": {"key": "a"}, "response": {"embedding": {"values": [0.25] * 300_000}, "tokenCount": "1"}}
    output = {"inlinedResponses": {"inlinedResponses": [item] * 4}}
    metadata = {"output": output, "state": "BATCH_STATE_SUCCEEDED", "batchStats": {"requestCount": "4"}}
    job = {"name": "batches/a", "metadata": metadata, "done": True, "response": output}
    listener.answer = (200, {}, json.dumps(job).encode())
    with pytest.raises(ResponseTooLarge):
        here.list(brief=True)
    seen = here.get("batches/a", brief=True)
    assert (seen.state, seen.completion_stats) == (JobState.SUCCEEDED, CompletionStats(total=4, pending=0))
    assert here.wait("batches/a").dest == JobDestination(inlined=True)
    assert [result.error for result in here.get_responses("batches/a")] == [None] * 4


def test_a_job_whose_responses_never_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MOST_LEFT_OUT", 10_000)
    body = chain([b'{"inlinedResponses": ["'], repeat(b"x" * 999))
    with pytest.raises(ResponseTooLarge, match="responses of a job"):
        list(lines.without_lists(body, gemini._INLINE_LIST))
