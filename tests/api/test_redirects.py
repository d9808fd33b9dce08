"""Redirects: a GET follows them within its origin, with the key; the key goes nowhere else."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from api.listener import Listener, listening

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import NotFound, UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from api.listener import Answer

    from airflow_provider_gemini_batch.emulator import Emulator

KEY = "AIza-a-key-that-must-not-show"
OUTPUT = "files/batch-abc"
LONG, SHORT = f"/download/v1beta/{OUTPUT}:download?alt=media", f"/v1beta/{OUTPUT}:download?alt=media"
STATUSES = [301, 302, 303, 307, 308]


@pytest.fixture
def client(listener: Listener) -> Iterator[BatchClient]:
    with BatchClient.for_gemini(KEY, base_url=listener.url, sleep=lambda _: None) as made:
        yield made


def paths(listener: Listener) -> list[str]:
    return [path for _, path, _ in listener.seen]


def leading(to: str, status: int = 302) -> Answer:
    return status, {"Location": to}, b""


def by_path(**answers: Answer) -> Callable[[str], Answer]:
    """Answer by the first part of the path."""
    return lambda path: answers.get(path.split("?")[0].strip("/").split("/")[0], (404, {}, b"nothing here"))


def test_a_download_asks_the_documented_path_first(client: BatchClient, listener: Listener) -> None:
    listener.answer = (200, {}, b"rows")
    assert b"".join(client.iter_download(OUTPUT)) == b"rows"
    assert paths(listener) == [LONG]


@pytest.mark.parametrize("status", [404, 405, 403])
def test_a_host_that_does_not_know_the_documented_path_is_asked_by_the_short_one(
    client: BatchClient, listener: Listener, status: int
) -> None:
    listener.answer = by_path(v1beta=(200, {}, b"rows"), download=(status, {}, b"<html>no such page</html>"))
    assert b"".join(client.iter_download(OUTPUT)) == b"rows"
    assert paths(listener) == [LONG, SHORT]


def test_an_output_that_neither_path_knows_is_not_found(client: BatchClient, listener: Listener) -> None:
    listener.answer = (404, {}, b'{"error": {"code": 404, "status": "NOT_FOUND"}}')
    with pytest.raises(NotFound):
        client.iter_download(OUTPUT)
    assert paths(listener) == [LONG, SHORT]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("form", ["{path}", "{url}{path}", "{upper}{path}", "//{netloc}{path}"])
def test_any_get_follows_within_its_origin_with_the_key(
    client: BatchClient, listener: Listener, status: int, form: str
) -> None:
    to = form.format(
        path="/elsewhere?x=1",
        url=listener.url,
        upper=listener.url.replace("http", "HTTP"),
        netloc=listener.url.removeprefix("http://"),
    )
    page = b'{"nextPageToken": "next"}'
    listener.answer = by_path(v1beta=leading(to, status), elsewhere=(200, {}, page))
    assert client.list().next_page_token == "next"
    (_, _, first), (method, path, second) = listener.seen
    assert (method, path) == ("GET", "/elsewhere?x=1")
    assert first["x-goog-api-key"] == second["x-goog-api-key"] == KEY


def test_a_relative_address_is_read_from_where_it_was_given(client: BatchClient, listener: Listener) -> None:
    listener.answer = lambda path: leading("batches2?y=2") if "batches?" in path else (200, {}, b"{}")
    client.list()
    assert paths(listener)[-1] == "/v1beta/batches2?y=2"


@pytest.mark.parametrize(
    "to",
    [
        "http://localhost:{port}/x?token=hidden",
        "http://127.0.0.1:{other}/x?token=hidden",
        "https://127.0.0.1:{port}/x?token=hidden",
        "//elsewhere.example/x?token=hidden",
        "http://127.0.0.1:{port}@elsewhere.example/x?token=hidden",
        "http://somebody:hidden@127.0.0.1:{port}/x",
        "http://127.0.0.1:{port}\\@elsewhere.example/?token=hidden",
        "ftp://127.0.0.1:{port}/hidden",
        "http://[::1/hidden",
        "http://127.0.0.1:port/hidden",
        "http://127.0.0.1:99999/hidden",
    ],
)
def test_another_origin_is_never_asked_and_its_query_does_not_show(
    client: BatchClient, listener: Listener, to: str
) -> None:
    with listening() as other:
        port = listener.server.server_port
        listener.answer = leading(to.format(port=port, other=other.server.server_port))
        asks: list[Callable[[], Any]] = [client.list, lambda: client.iter_download(OUTPUT)]
        for ask in asks:
            before = len(listener.seen)
            with pytest.raises(UnexpectedResponse, match="was redirected to") as caught:
                ask()
            assert "hidden" not in str(caught.value)
            assert caught.value.__cause__ is None
            assert len(listener.seen) == before + 1
        assert other.seen == []


def test_circles_end_after_five_redirects(client: BatchClient, listener: Listener) -> None:
    listener.answer = lambda path: leading(path + "x")
    with pytest.raises(UnexpectedResponse, match="redirected more than 5 times"):
        client.list()
    assert len(listener.seen) == 6


@pytest.mark.parametrize("status", STATUSES)
def test_only_a_get_follows_a_redirect(client: BatchClient, listener: Listener, status: int) -> None:
    listener.answer = leading("/elsewhere", status)
    for send in (client.cancel, client.delete):
        before = len(listener.seen)
        with pytest.raises(UnexpectedResponse, match="Redirects are not followed"):
            send("batches/a")
        assert len(listener.seen) == before + 1


@pytest.mark.parametrize("redirected", [False, True])
def test_a_redirected_download_goes_on_where_it_was_cut(emulator: Emulator, redirected: bool) -> None:  # noqa: FBT001
    keys = [f"k{number}" for number in range(600)]
    lines = "".join(f'{{"key":"{key}","request":{{"contents":[{{"parts":[{{"text":"x"}}]}}]}}}}\n' for key in keys)
    faults: dict[str, Any] = {"download_cut": {"value": 5000, "times": 5}}
    if redirected:
        # A host that has only the short path, and sends on from there whoever asks.
        faults["http"] = {"operation": "download", "status": 404, "match": "^/download/.*", "times": 1}
        faults["download_redirect"] = True
    with BatchClient.for_gemini(KEY, base_url=emulator.url, sleep=lambda _: None) as client:
        job = client.create("gemini-2.5-flash", file_name=client.upload_file(BytesIO(lines.encode())).name)
        emulator.control.advance(60)
        emulator.control.faults(**faults)
        assert [answer.key for answer in client.get_responses(job)] == keys
    assert emulator.control.books()["requests"]["download"] == (1 + 6 * 2 if redirected else 6)
