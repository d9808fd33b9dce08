"""Google credentials of every kind get access tokens through google-auth, unpatched, from the emulator's endpoints."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from api.test_resumed_downloads import saying
from gcsfs.retry import HttpError
from google.auth.exceptions import RefreshError

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.credentials import GoogleCredential, google_loader
from airflow_provider_gemini_batch.api.errors import AccessDenied, ConfigurationError, TransportError
from airflow_provider_gemini_batch.api.google.storage import ObjectStore, _storage_errors

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

MIDDLE, LAST = "middle@demo-project.iam.gserviceaccount.com", "last@demo-project.iam.gserviceaccount.com"


def vertex(emulator: Emulator, **credentials: Any) -> BatchClient:
    more = {"project_id": "demo-project", "attempts": 2, "sleep": lambda _: None, **credentials}
    return BatchClient.for_vertex(location="us-central1", base_url=emulator.url, **more)


def tokens_issued(emulator: Emulator) -> int:
    return int(emulator.control.books()["tokens_issued"])


def test_a_service_account_key_works_as_content_and_as_a_file(emulator: Emulator, tmp_path: Path) -> None:
    info = emulator.service_account_info()
    path = tmp_path / "key.json"
    path.write_text(json.dumps(info))
    for given in ({"keyfile_dict": info}, {"key_path": str(path)}):
        with vertex(emulator, **given) as client:
            assert client.list().batch_jobs == ()


def test_the_project_comes_from_the_key_when_nobody_names_one(emulator: Emulator) -> None:
    with vertex(emulator, keyfile_dict=emulator.service_account_info(), project_id=None) as client:
        assert client.list().batch_jobs == ()


def test_application_default_credentials_are_used_when_none_are_given(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "adc.json"
    path.write_text(json.dumps(emulator.service_account_info()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    for project in ("demo-project", None):
        with vertex(emulator, project_id=project) as client:
            assert client.list().batch_jobs == ()


def test_the_error_says_that_there_are_no_credentials(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with vertex(emulator) as client, pytest.raises(ConfigurationError, match="there are no Google credentials"):
        client.list()


@pytest.mark.parametrize("impersonate", [False, True])
def test_a_federation_file_works_with_and_without_its_impersonation(
    emulator: Emulator, tmp_path: Path, *, impersonate: bool
) -> None:
    path = emulator.federation_file(tmp_path / "federation.json", impersonate=impersonate)
    for given in (str(path), json.loads(path.read_text())):
        with vertex(emulator, credential_config_file=given) as client:
            assert client.list().batch_jobs == ()


def test_an_impersonation_chain_goes_through_the_iam_endpoint(emulator: Emulator) -> None:
    info = emulator.service_account_info()
    emulator.control.allow_impersonation(info["client_email"], MIDDLE)
    emulator.control.allow_impersonation(MIDDLE, LAST)
    chains: list[Any] = [MIDDLE, [MIDDLE, LAST], f"{MIDDLE}, {LAST}"]
    for chain in chains:
        with vertex(
            emulator, keyfile_dict=info, impersonation_chain=chain, iam_endpoint=emulator.iam_endpoint
        ) as client:
            assert client.list().batch_jobs == ()


def test_a_chain_that_is_not_allowed_says_which_role_is_missing(emulator: Emulator) -> None:
    info = emulator.service_account_info()
    with (
        vertex(emulator, keyfile_dict=info, impersonation_chain=[LAST], iam_endpoint=emulator.iam_endpoint) as client,
        pytest.raises(AccessDenied, match="Service Account Token Creator") as caught,
    ):
        client.list()
    assert caught.value.reason == "PERMISSION_DENIED"


def test_a_key_that_was_deleted_is_told_from_an_endpoint_that_is_away(emulator: Emulator) -> None:
    info = emulator.service_account_info() | {"client_email": "gone@demo-project.iam.gserviceaccount.com"}
    with (
        vertex(emulator, keyfile_dict=info) as client,
        pytest.raises(AccessDenied, match="deleted or disabled") as caught,
    ):
        client.list()
    assert caught.value.reason == "invalid_grant"
    away = emulator.service_account_info() | {"token_uri": "http://127.0.0.1:9/token"}
    with vertex(emulator, keyfile_dict=away) as client, pytest.raises(TransportError, match="token endpoint") as lost:
        client.create("gemini-2.5-flash", gcs_uri="gs://bucket/in.jsonl", destination="gs://bucket/out")
    assert not lost.value.sent


def test_a_wrong_audience_and_a_wrong_subject_are_named(emulator: Emulator, tmp_path: Path) -> None:
    path = emulator.federation_file(tmp_path / "federation.json")
    info = json.loads(path.read_text())
    elsewhere = info | {"audience": info["audience"].replace("demo-pool", "other-pool")}
    with vertex(emulator, credential_config_file=elsewhere) as client, pytest.raises(AccessDenied, match="audience"):
        client.list()
    (tmp_path / "federation.json.subject").write_text("stale")
    with vertex(emulator, credential_config_file=info) as client, pytest.raises(AccessDenied, match="subject token"):
        client.list()


@pytest.mark.parametrize(
    "content", ["no json", "[]", '{"type": "service_account"}', '{"type": "service_account", "private_key": "x"}']
)
def test_a_file_that_is_not_a_key_is_refused_without_being_shown(
    emulator: Emulator, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="key_path") as caught, vertex(emulator, key_path=str(path)) as client:
        client.list()
    assert caught.value.__cause__ is None


def test_one_token_serves_many_calls_and_threads(emulator: Emulator) -> None:
    before = tokens_issued(emulator)
    barrier = threading.Barrier(8)

    def look(client: BatchClient) -> None:
        barrier.wait()
        client.list()

    with vertex(emulator, keyfile_dict=emulator.service_account_info()) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(look, [client] * 8))
        client.list()
    assert tokens_issued(emulator) - before == 1


def test_a_refused_token_is_renewed_once_and_the_call_repeated_even_a_create(emulator: Emulator) -> None:
    with vertex(emulator, keyfile_dict=emulator.service_account_info()) as client:
        client.list()
        emulator.control.revoke_tokens()
        job = client.create("gemini-2.5-flash", gcs_uri="gs://bucket/in.jsonl", destination="gs://bucket/out")
        assert client.get(job.name).name == job.name
    assert emulator.control.books()["created"] == 1


def test_a_token_that_is_refused_twice_is_an_error(emulator: Emulator) -> None:
    emulator.control.faults(http={"operation": "list", "status": 401})
    client = vertex(emulator, keyfile_dict=emulator.service_account_info())
    with client, pytest.raises(AccessDenied, match="401 UNAUTHENTICATED"):
        client.list()
    assert emulator.control.books()["requests"]["list"] == 2


def test_a_token_is_renewed_before_it_ends(emulator: Emulator) -> None:
    with vertex(emulator, keyfile_dict=emulator.service_account_info()) as client:
        client.list()
        credentials = client.storage._credential.google
        issued = tokens_issued(emulator)
        in_a_minute = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=60)
        credentials.expiry = in_a_minute
        client.list()
        assert tokens_issued(emulator) == issued + 1
        # While the endpoint is away, a token that still has a minute serves on.
        credentials.expiry = in_a_minute
        emulator.control.faults(http={"operation": "token", "status": 400})
        client.list()


def test_a_quota_project_goes_along_as_a_header(emulator: Emulator) -> None:
    with vertex(emulator, keyfile_dict=emulator.service_account_info(), quota_project_id="payer") as client:
        assert client._transport._credential.headers("x")["x-goog-user-project"] == "payer"


def test_no_credential_shows(emulator: Emulator) -> None:
    info = emulator.service_account_info()
    with vertex(emulator, keyfile_dict=info) as client:
        client.list()
        credential = client.storage._credential
        shown = f"{client!r} {credential!r} {client.storage!r} {client._transport!r}"
        assert "ya29" not in shown
        assert "PRIVATE" not in shown
        assert credential.secrets()[0].startswith("ya29")


TOKEN = b'{"access_token": "a-token", "expires_in": 3600}'


def said(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def authorization(emulator: Emulator, *answers: bytes, impersonates: bool = False) -> str:
    """Return the header that credentials give whose endpoint (of tokens, or of IAM) gives these answers."""
    info = emulator.service_account_info()
    with saying(*answers) as (url, _):
        if impersonates:
            load, _ = google_loader(keyfile_dict=info, impersonation_chain=LAST, iam_endpoint=url)
        else:
            load, _ = google_loader(keyfile_dict={**info, "token_uri": f"{url}/token"})
        return GoogleCredential(load).headers("list")["Authorization"]


def test_a_token_that_comes_in_several_chunks_is_read_whole(emulator: Emulator) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (TOKEN[:9], TOKEN[9:20], TOKEN[20:], b""))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert authorization(emulator, head + chunks) == "Bearer a-token"


@pytest.mark.parametrize("impersonates", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        said(b"<html>Sign in</html>"),
        said(b""),
        said(TOKEN[:20]),
        said(b"[]"),
        said(b"", "503 Busy"),
        said(b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "Busy."}}', "503 Busy"),
        said(b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}', "429 Slow"),
        said(b"<html>Bad gateway</html>", "502 Bad Gateway"),
    ],
)
def test_a_token_endpoint_that_is_out_of_order_refuses_nobody(
    emulator: Emulator, answer: bytes, *, impersonates: bool
) -> None:
    with pytest.raises(TransportError, match="gave no usable response") as raised:
        authorization(emulator, answer, impersonates=impersonates)
    assert not raised.value.sent


def test_a_refused_impersonation_is_not_an_outage(emulator: Emulator) -> None:
    refusal = said(b'{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "No."}}', "403 Forbidden")
    with pytest.raises(AccessDenied, match="PERMISSION_DENIED"):
        authorization(emulator, refusal, impersonates=True)


def test_a_token_endpoint_that_is_out_of_order_does_not_refuse_cloud_storage(emulator: Emulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    load, _ = google_loader(
        keyfile_dict={**emulator.service_account_info(), "token_uri": f"http://127.0.0.1:{port}/token"}
    )
    store = ObjectStore(GoogleCredential(load), project="p", endpoint=None)
    with pytest.raises(TransportError, match=r"look-up of gs://b/a: the token endpoint gave no usable response"):
        store.exists("gs://b/a")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [(RefreshError("busy", retryable=True), TransportError), (RefreshError("no"), AccessDenied)],  # type: ignore[no-untyped-call]
    ids=["outage", "refusal"],
)
def test_a_wrong_key_that_gcsfs_speaks_of_is_one_only_if_google_auth_says_so(
    reason: Exception, kind: type[Exception]
) -> None:
    with pytest.raises(kind), _storage_errors("read", "gs://b/a"):
        raise HttpError({"code": 401, "message": "Invalid Credentials"}) from reason
