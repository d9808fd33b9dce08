"""Where secrets may go, and where they never show."""

from __future__ import annotations

import io
import json
import logging
import stat
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk._shared.secrets_masker import SecretsMasker
from waiting import wait_for

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.credentials import google_loader
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    TransportError,
)
from airflow_provider_gemini_batch.api.google.bigquery import ResponseTables
from airflow_provider_gemini_batch.api.google.storage import ObjectStore
from airflow_provider_gemini_batch.api.urls import is_secure
from airflow_provider_gemini_batch.runtime.connection import secrets_in

if TYPE_CHECKING:
    from pathlib import Path

    from api.listener import Listener

    from airflow_provider_gemini_batch.emulator import Emulator

KEY = "AIza-a-key-that-must-not-show"


@pytest.mark.parametrize(
    "url", ["https://host", "https://host:8443/x", "http://127.0.0.1:1", "http://localhost", "http://[::1]:80/x"]
)
def test_secrets_go_over_https_or_to_this_machine(url: str) -> None:
    assert is_secure(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@host",
        "https://user@host",
        "ftp://127.0.0.1",
        "//127.0.0.1",
        "http://0.0.0.0",
        "http://[::1",
        "https://",
        "",
    ],
)
def test_secrets_go_nowhere_else(url: str) -> None:
    assert not is_secure(url)


ADDRESSES = ["token_uri", "token_url", "token_info_url", "service_account_impersonation_url"]


@pytest.mark.parametrize("member", ADDRESSES)
@pytest.mark.parametrize("kind", ["service_account", "external_account", "authorized_user"])
def test_a_credential_that_sends_secrets_in_the_open_is_refused(emulator: Emulator, member: str, kind: str) -> None:
    info = {**emulator.service_account_info(), "type": kind, member: "http://elsewhere.example/token"}
    with pytest.raises(ConfigurationError, match=rf"{member} must be https://") as caught:
        google_loader(keyfile_dict=info)
    assert "elsewhere" not in str(caught.value)


def test_tables_are_not_read_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://elsewhere.example")
    with pytest.raises(ConfigurationError, match="BIGQUERY_EMULATOR_HOST must be https://"):
        ResponseTables(None, project="p").results("bq://p.ds.t")  # type: ignore[arg-type]


def test_the_answer_of_a_token_endpoint_is_in_no_traceback(emulator: Emulator, listener: Listener) -> None:
    body = {"error": "invalid_grant", "error_description": "No.", "access_token": "hidden-token", "x": "hidden-body"}
    listener.answer = (400, {}, json.dumps(body).encode())
    info = {**emulator.service_account_info(), "token_uri": listener.url}
    with (
        BatchClient.for_vertex("demo-project", "us-central1", keyfile_dict=info, base_url=emulator.url) as client,
        pytest.raises(AccessDenied, match="invalid_grant") as caught,
    ):
        client.list()
    shown = "".join(traceback.format_exception(caught.value))
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "Check the credentials in connection 'mine'"), (400, "Check the API key in connection 'mine'")],
)
def test_a_refused_key_names_its_connection(listener: Listener, status: int, words: str) -> None:
    error = {"message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}
    listener.answer = (status, {}, json.dumps({"error": error}).encode())
    with (
        BatchClient.for_gemini(KEY, base_url=listener.url, owner="connection 'mine'") as client,
        pytest.raises(AccessDenied, match=words),
    ):
        client.list()


LINES = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQDhidden/ABCdef", "hiddenEnd="]
PEM = "\n".join(["-----BEGIN PRIVATE KEY-----", *LINES, "-----END PRIVATE KEY-----", ""])
CREDENTIALS = {
    "type": "external_account",
    "private_key": PEM,
    "client_email": "a@example.com",
    "nested": [{"client_secret": "hidden-1", "x": "yes"}],
    "credential_source": {"headers": {"Authorization": "Bearer hidden-2"}, "url": "https://example.com"},
    "token": "hidden-3",
    "refresh_token": "hidden 4",
}


def masked(text: str) -> str:
    masker: Any = SecretsMasker()  # type: ignore[no-untyped-call]
    masker.add_mask(list(secrets_in(CREDENTIALS)))
    return str(masker.redact(text))


@pytest.mark.parametrize(
    "text",
    [PEM, PEM.replace("\n", "\r\n"), repr(PEM), json.dumps(CREDENTIALS), json.dumps(json.dumps(CREDENTIALS)), *LINES],
    ids=["key", "windows", "repr", "json", "json in json", "line 1", "line 2", "line 3"],
)
def test_what_is_secret_in_a_credential_is_masked_however_it_is_written_out(text: str) -> None:
    shown = masked(text)
    assert not [secret for secret in (*LINES, "hidden-", "hidden 4") if secret in shown]
    assert "a@example.com" in shown or "client_email" not in text
    assert "BEGIN PRIVATE KEY" in shown or "BEGIN" not in text


def test_secrets_are_found_behind_escaped_line_breaks_and_in_nothing_but_credentials() -> None:
    assert list(secrets_in({"private_key": PEM.replace("\n", "\\n")})) == LINES
    assert list(secrets_in({"client_secret": "12345", "refresh_token": "1234"})) == ["12345"]
    assert not [*secrets_in("a path"), *secrets_in(None), *secrets_in({"x": "yes"})]


def test_a_planted_link_is_not_followed(listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    names = iter(["guessed", "not-guessed"])
    monkeypatch.setattr("airflow_provider_gemini_batch.api.google.files.token_hex", lambda _: next(names))
    (tmp_path / ".out.guessed.part").symlink_to(precious)
    (tmp_path / "out").symlink_to(precious)
    listener.answer = (200, {}, b"answers")
    with BatchClient.for_gemini(KEY, base_url=listener.url) as client:
        with pytest.raises(FileExistsError):
            client.download_file("files/batch-a", tmp_path / "out")
        client.download_file("files/batch-a", tmp_path / "out")
    assert precious.read_bytes() == b"keep"
    assert (tmp_path / "out").read_bytes() == b"answers"
    assert not (tmp_path / "out").is_symlink()


def test_a_download_has_the_mode_that_its_author_wants(listener: Listener, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    listener.answer = (200, {}, b"answers")
    with BatchClient.for_gemini(KEY, base_url=listener.url) as client:
        client.download_file("files/batch-a", tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_libraries_show_no_upload_session_at_debug(client: BatchClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.upload_file(io.BytesIO(b"a secret row"))
    # The server is in this process, too; its own log is its own business.
    told = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert any("/upload/" in line for line in told)
    assert not [line for line in told if "upload_id" in line or "a secret row" in line]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("status", [400, 403, 404, 412])
def test_an_upload_session_of_cloud_storage_shows_in_no_log_and_no_error(
    listener: Listener, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    session = {"Location": f"{listener.url}/upload?upload_id=hidden-session"}
    refusal: tuple[int, dict[str, str], bytes] = (status, {}, b'{"error": {"message": "invalid"}}')
    listener.answer = lambda path: refusal if "hidden" in path else (200, session, b"{}")
    caplog.set_level(logging.DEBUG)
    store = ObjectStore(None, project="p", endpoint=listener.url)  # type: ignore[arg-type]
    with pytest.raises(GeminiBatchError) as caught, store.write_whole("gs://bucket/object") as handle:
        handle.write(bytes(9 << 20))
    assert isinstance(caught.value, AccessDenied) == (status == 403)
    assert "upload_id=***" in caplog.text
    assert "hidden" not in caplog.text + "".join(traceback.format_exception(caught.value))


def test_a_storage_that_is_not_reached_is_told_in_the_words_of_the_system() -> None:
    class Unreached:
        """gcsfs where a name is not known; it tries for half a minute."""

        def exists(self, _uri: str) -> bool:
            raise OSError(-2, "Name or service not known")

    store = ObjectStore(None, project="p", endpoint=None)  # type: ignore[arg-type]
    store._made = Unreached()
    with pytest.raises(TransportError, match=r"^look-up of gs://bucket/x failed: Name or service not known$"):
        store.exists("gs://bucket/x")


@pytest.mark.parametrize("status", [400, 403])
def test_errors_of_whoever_writes_an_object_are_told_from_those_of_its_writes(listener: Listener, status: int) -> None:
    store = ObjectStore(None, project="p", endpoint=listener.url)  # type: ignore[arg-type]
    own = OSError("Forbidden: x?upload_id=mine")
    with pytest.raises(OSError, match="mine") as caught, store.write_whole("gs://bucket/object"):
        raise own
    assert caught.value is own
    listener.answer = (status, {}, b'{"error": {"code": %d, "message": "refused"}}' % status)
    for size in (9 << 20, 1):  # a piece that is sent at once, and one that is sent at the end
        with pytest.raises(ApiError, match="write of gs://bucket/object") as refused:
            put(store, size)
        assert (refused.value.http_status, type(refused.value) is AccessDenied) == (status, status == 403)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_write_that_was_refused_leaves_its_buffer_without_views(listener: Listener) -> None:
    session = {"Location": f"{listener.url}/upload?upload_id=session"}
    listener.answer = lambda path: (
        (403, {}, b'{"error": {"message": "refused"}}') if "session" in path else (200, session, b"{}")
    )
    store = ObjectStore(None, project="p", endpoint=listener.url)  # type: ignore[arg-type]
    handle: Any = store.open("gs://bucket/object", "wb")
    buffer = handle.buffer
    store.open = lambda *_: handle  # type: ignore[method-assign]
    with pytest.raises(AccessDenied) as refused:
        put(store, 9 << 20)

    def is_free() -> bool:
        try:
            buffer.truncate(0)
        except BufferError:  # there is a view; the connection keeps one until it is closed
            return False
        return True

    wait_for(is_free, "the end of all views")
    assert refused.value.http_status == 403  # the error is still here, with all of its frames


def put(store: ObjectStore, size: int) -> None:
    with store.write_whole("gs://bucket/object") as handle:
        handle.write(bytes(size))


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "requests", "urllib3"])
def test_libraries_still_log_for_others(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, name):
        logging.getLogger(name).debug("of somebody else")
    assert "of somebody else" in caplog.text
