"""A download that was cut goes on where it was, whatever the host makes of a Range."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE = b"0123456789"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"
CUT_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"
PARTIAL = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-9/10\r\nContent-Length: %d\r\n\r\n%b"


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A host that gives these answers, one a connection, and hangs up after each."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            for answer in answers:
                with server.accept()[0] as peer:
                    asked.append(peer.recv(65536))
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


def test_a_cut_after_the_last_byte_is_no_error() -> None:
    beyond = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n"
    with saying(CUT_CHUNKED, beyond) as (url, _):
        assert download(url) == WHOLE
