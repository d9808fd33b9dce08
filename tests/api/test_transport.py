"""What leaves this machine and what does not: headers, proxies, .netrc, redirects, certificates, threads, secrets."""

from __future__ import annotations

import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import AccessDenied, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.api.responses.reading import inline_results
from airflow_provider_gemini_batch.api.transport import FilePart, WholeResponse, _Body
from airflow_provider_gemini_batch.rows.result_rows import json_line

if TYPE_CHECKING:
    from pathlib import Path

    from api.listener import Listener

KEY = "AIza-a-key-that-must-not-show"
PROMPT = "a prompt that must not show"


def a_client(listener: Listener, **more: Any) -> BatchClient:
    return BatchClient.for_gemini(KEY, base_url=listener.url, sleep=lambda _: None, **more)


def test_the_key_goes_as_a_header_and_never_into_an_address(listener: Listener) -> None:
    with a_client(listener) as client:
        client.list(page_token="a/b+c=")
    ((method, path, headers),) = listener.seen
    assert (method, path) == ("GET", "/v1beta/batches?pageSize=100&pageToken=a%2Fb%2Bc%3D")
    assert headers["x-goog-api-key"] == KEY
    assert headers["user-agent"].startswith("airflow-provider-gemini-batch/")
    assert "authorization" not in headers


def test_neither_netrc_nor_proxies_nor_cookies_meddle(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    listener.answer = (200, {"Set-Cookie": "a=b"}, b"{}")
    with a_client(listener) as client:
        client.list()
        client.list()
    for _, _, headers in listener.seen:
        assert "authorization" not in headers
        assert "cookie" not in headers


def test_a_proxy_from_the_environment_is_used_for_other_hosts(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", listener.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    listener.answer = (403, {}, b"not through here")
    with BatchClient.for_gemini(KEY, attempts=1) as client, pytest.raises(TransportError, match="the proxy") as caught:
        client.create("gemini-2.5-flash", inlined_requests=[PROMPT])
    assert not caught.value.sent
    ((method, target, headers),) = listener.seen
    assert (method, target) == ("CONNECT", "generativelanguage.googleapis.com:443")
    assert "x-goog-api-key" not in headers


def test_the_error_says_that_a_host_is_not_known() -> None:
    client = BatchClient.for_gemini(KEY, base_url="https://no-such-host.invalid", attempts=1)
    with (
        client,
        pytest.raises(TransportError, match=r"list on no-such-host.invalid failed: the host name is not known"),
    ):
        client.list()


def test_the_error_says_that_a_server_speaks_no_tls_and_nothing_was_sent(listener: Listener) -> None:
    port = listener.server.server_port
    client = BatchClient.for_gemini(KEY, base_url=f"https://127.0.0.1:{port}", attempts=1)
    with client, pytest.raises(TransportError, match=r"TLS: \w+; nothing was sent") as caught:
        client.create("gemini-2.5-flash", inlined_requests=[PROMPT])
    assert not caught.value.sent


def test_a_server_that_takes_the_connection_and_says_nothing_may_have_acted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        base = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with (
            BatchClient.for_gemini(KEY, base_url=base, timeout=0.2) as client,
            pytest.raises(TransportError) as caught,
        ):
            client.create("gemini-2.5-flash", inlined_requests=[PROMPT])
    assert caught.value.sent


def test_many_threads_share_one_client(listener: Listener) -> None:
    listener.answer = (200, {}, json.dumps({"name": "batches/a", "metadata": {"state": "JOB_STATE_RUNNING"}}).encode())
    with a_client(listener) as client, ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: client.get("batches/a"), range(200)))
    assert len(jobs) == len(listener.seen) == 200
    assert {job.raw_state for job in jobs} == {"JOB_STATE_RUNNING"}


@pytest.mark.parametrize(
    "answer",
    [
        (403, {}, json.dumps({"error": {"message": f"Consumer 'api_key:{KEY}' is suspended."}}).encode()),
        (400, {}, json.dumps({"error": {"message": f"Invalid value at 'x' (t), \"{PROMPT}\""}}).encode()),
        (400, {}, json.dumps({"error": {"message": f'Error on line 1: unexpected "{PROMPT}"'}}).encode()),
        (200, {}, f"no json {PROMPT}".encode()),
        (200, {}, json.dumps({"name": PROMPT}).encode()),
        (500, {}, PROMPT.encode()),
    ],
)
def test_neither_key_nor_prompt_shows_in_errors_and_logs(
    listener: Listener, caplog: pytest.LogCaptureFixture, answer: tuple[int, dict[str, str], bytes]
) -> None:
    listener.answer = answer
    caplog.set_level(logging.DEBUG)
    with a_client(listener) as client, pytest.raises(GeminiBatchError) as caught:
        client.create("gemini-2.5-flash", inlined_requests=[PROMPT], display_name="x")
    shown = [caplog.text, repr(client), str(vars(caught.value))]
    error: BaseException | None = caught.value
    while error is not None:
        shown.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for text in shown:
        assert KEY not in text
        assert PROMPT not in text


def test_a_refused_key_is_not_tried_again(listener: Listener) -> None:
    listener.answer = (401, {}, b"{}")
    with a_client(listener) as client, pytest.raises(AccessDenied, match="Check the credentials in the connection"):
        client.list()
    assert len(listener.seen) == 1


def test_a_body_remembers_whether_it_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        for source in (b"345", FilePart(file, 3, 3)):
            body = _Body(source)
            before = (len(body), body.touched)
            assert before == (3, False)
            assert body.read(2) + body.read() + body.read() == b"345"
            assert body.touched
            assert b"".join(_Body(source)) == b"345"


@pytest.mark.parametrize("odd", [rb"\ud83d", rb"\uDE04\ud83d", b"\xed\xa0\xbd", b"\xff"])
def test_a_body_with_half_a_character_is_read_and_can_be_written(odd: bytes) -> None:
    value = WholeResponse(200, {}, b'{"' + odd + b'":"' + odd + b'\\ud83d\\ude04"}').json()
    ((name, text),) = value.items()
    assert name.encode()
    assert text.encode().endswith("\U0001f604".encode())


@pytest.mark.parametrize("depth", [300, 5000])
def test_inline_responses_beside_one_that_is_nested_too_deep_are_read(depth: int) -> None:
    deep = b'{"response":{"candidates":[' + b"[" * depth + b"]" * depth + b"]}}"
    body = b'{"response":{"inlinedResponses":{"inlinedResponses":[' + deep + b',{"response":{"x":1}}]}}}'
    found = list(inline_results(WholeResponse(200, {}, body).json()["response"]))
    assert found[1].response == {"x": 1}
    assert json_line(found[0].response)
