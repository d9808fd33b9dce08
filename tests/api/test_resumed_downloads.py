"""A download that was cut goes on where it was, whatever the host makes of a Range."""

from __future__ import annotations

import gzip
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import ServiceUnavailable, TransportError, UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE = b"0123456789"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"
CUT_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"
PARTIAL = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-9/10\r\nContent-Length: %d\r\n\r\n%b"


def whole_request(peer: socket.socket) -> bytes:
    """Read a request to its end: closing a connection with unread bytes would reset it, and lose the answer."""
    request, size = b"", 0
    while b"\r\n\r\n" not in request or len(request) < size:
        piece = peer.recv(65536)
        if not piece:
            break
        request += piece
        head = request.partition(b"\r\n\r\n")[0]
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        size = len(head) + 4 + int(length or 0)
    return request


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A host that gives these answers, one a connection, and hangs up after each."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            for answer in answers:
                with server.accept()[0] as peer:
                    asked.append(whole_request(peer))
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        finally:
            thread.join()


def download(url: str) -> bytes:
    with BatchClient.for_gemini("a-key", base_url=url, sleep=lambda _: None) as client:
        return b"".join(client.iter_download("files/batch-abc"))


@pytest.mark.parametrize(
    "second",
    [
        PARTIAL % (4, 6, WHOLE[4:]),
        # It begins before the byte that was asked for.
        PARTIAL % (0, 10, WHOLE),
        PARTIAL % (2, 8, WHOLE[2:]),
        # It knows no ranges.
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + WHOLE,
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\n\r\n" + WHOLE[4:],
    ],
)
def test_no_byte_comes_twice(second: bytes) -> None:
    with saying(CUT, second) as (url, asked):
        assert download(url) == WHOLE
    assert b"Range: bytes=4-" in asked[1]


def test_bytes_that_are_left_out_are_not_passed_over() -> None:
    with saying(CUT, PARTIAL % (6, 4, WHOLE[6:])) as (url, _), pytest.raises(UnexpectedResponse) as refused:
        download(url)
    host = url.removeprefix("http://")
    assert f"batch-abc on {host}: the download was to go on at byte 4, and the response starts at 6" in str(
        refused.value
    )


def test_a_cut_after_the_last_byte_is_not_an_error() -> None:
    beyond = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n"
    with saying(CUT_CHUNKED, beyond) as (url, _):
        assert download(url) == WHOLE


PACKED = gzip.compress(WHOLE * 1000, mtime=0)
PACKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize("length", [15, len(PACKED)], ids=["the length of what is left", "the length of the whole"])
def test_packed_data_that_ends_early_is_fetched_again_from_its_beginning(length: int) -> None:
    whole = PACKED_HEAD % len(PACKED) + PACKED
    with saying(PACKED_HEAD % length + PACKED[:15], whole) as (url, asked):
        assert download(url) == WHOLE * 1000
    assert not any(b"Range:" in request for request in asked), "a range would count packed bytes"


def test_packed_data_that_always_ends_early_is_an_error() -> None:
    cut = PACKED_HEAD % 15 + PACKED[:15]
    with saying(cut, cut, cut, cut) as (url, _), pytest.raises(TransportError, match="the download ended early"):
        download(url)


@pytest.mark.parametrize(
    "second",
    [
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-11/12\r\nContent-Length: 8\r\n\r\nABCDEFGH",
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nABCDEFGHIJKL",
        b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "2"\r\n\r\nABCDEFGHIJ',
    ],
)
def test_two_files_are_not_mixed_when_one_replaces_the_other_during_a_download(second: bytes) -> None:
    first = CUT.replace(b"Content-Length", b'ETag: "1"\r\nContent-Length')
    with saying(first, second) as (url, _), pytest.raises(UnexpectedResponse, match="has changed since its download"):
        download(url)


def test_a_part_that_comes_unasked_is_not_the_whole() -> None:
    part = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\n0123"
    with saying(part, PARTIAL % (4, 6, WHOLE[4:])) as (url, _):
        assert download(url) == WHOLE


GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 10\r\n\r\n" + WHOLE


@pytest.mark.parametrize("page", [b"<html>", b"\n<!DOCTYPE html>"])
@pytest.mark.parametrize("kind", [b"text/html", b"application/json"])
def test_the_web_page_of_a_gateway_holds_no_rows_whatever_its_type(page: bytes, kind: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    answer = head % (kind, len(page)) + page
    # For a path that it does not know, a gateway may give its start page.
    with saying(answer, GOOD) as (url, asked):
        assert download(url) == WHOLE
    assert [b"/download/" in request for request in asked] == [True, False]
    with saying(answer, answer) as (url, _), pytest.raises(ServiceUnavailable, match=r"not JSON \(HTML\)"):
        download(url)
    with saying(CUT, answer) as (url, _), pytest.raises(UnexpectedResponse, match="has changed"):
        download(url)


LINES = b'{"key": "a"}\n{"key": "b", "error": {}}\n'
# Without a length, and without chunks: the end of the connection is the end of the file.
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
REST = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-%d/*\r\n\r\n%b"
BEHIND = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n"
NO_RANGES = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("cut", [5, LINES.index(b", "), LINES.index(b"}}") + 1])
@pytest.mark.parametrize("whole", [False, True])
def test_a_file_whose_end_nothing_tells_goes_on_where_it_broke_off_within_a_row(cut: int, *, whole: bool) -> None:
    rest = UNTIL_CLOSED + LINES if whole else REST % (cut, len(LINES) - 1, LINES[cut:])
    with saying(UNTIL_CLOSED + LINES[:cut], rest) as (url, asked):
        assert download(url) == LINES
    assert b"Range: bytes=%d-" % cut in asked[1]


@pytest.mark.parametrize("answer", [BEHIND, NO_RANGES, UNTIL_CLOSED + LINES[:5]], ids=["416", "400", "the same"])
def test_a_last_row_that_is_broken_at_the_service_is_asked_for_once(answer: bytes) -> None:
    with saying(UNTIL_CLOSED + LINES[:5], answer) as (url, asked):
        assert download(url) == LINES[:5]
    assert len(asked) == 2


@pytest.mark.parametrize(
    "body",
    [LINES, LINES[:-1], b"[1]", b"", LINES.decode().encode("utf-16")],
    ids=["newline", "row", "list", "empty", "utf-16"],
)
def test_a_file_that_ends_with_a_row_is_asked_for_once(body: bytes) -> None:
    with saying(UNTIL_CLOSED + body) as (url, _):
        assert download(url) == body
