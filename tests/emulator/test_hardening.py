"""What the emulator refuses: foreign names, pages of other sites, numbers that are none, JSON without a bottom."""

from __future__ import annotations

import json
import math
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.emulator.app import host_name, is_loopback
from emulator.calls import MODEL, Gemini, Vertex, vertex_row

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "127.8.9.1:80", "[::1]:80", "LOCALHOST"])
def test_names_of_the_loopback_address_are_served(gemini: Gemini, host: str) -> None:
    assert gemini.http.get("/v1beta/batches", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "",
        "[::2]",
        "0.0.0.0",  # noqa: S104 - a name to refuse
        "localhost:80@evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/v1beta/batches", "/emulator/books", "/emulator/reset"])
def test_foreign_names_are_refused_everywhere(gemini: Gemini, host: str, path: str) -> None:
    name = gemini.create()
    refused = gemini.http.request("POST" if "reset" in path else "GET", path, headers={"host": host})
    assert refused.status_code == 403
    assert gemini.http.get(f"/v1beta/{name}").status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 200),
        ("http://127.0.0.1", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost:x@evil.example", 403),
    ],
)
def test_pages_of_other_sites_are_refused(gemini: Gemini, origin: str, status: int) -> None:
    assert gemini.http.get("/emulator/books", headers={"origin": origin}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        [("host", "localhost"), ("host", "evil.example")],
        [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")],
    ],
)
def test_a_second_name_is_looked_at_too(gemini: Gemini, headers: list[tuple[str, str]]) -> None:
    connection = HTTPConnection(gemini.emulator.url.removeprefix("http://"))
    connection.putrequest("GET", "/emulator/books", skip_host=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    with closing(connection):
        assert connection.getresponse().status == 403


def test_other_names_can_be_told_and_any_is_served_to_remote_callers() -> None:
    with Emulator(hostnames=["Gemini.Local"]) as emulator, Gemini(emulator) as gemini:
        assert gemini.http.get("/v1beta/batches", headers={"host": "gemini.local:99"}).status_code == 200
        assert gemini.http.get("/v1beta/batches", headers={"host": "other.local"}).status_code == 403
    with Emulator(allow_remote=True) as emulator, Gemini(emulator) as gemini:
        own = {"host": "any.name", "origin": "http://any.name:8080"}
        assert gemini.http.get("/v1beta/batches", headers=own).status_code == 200
        cross = {"host": "any.name", "origin": "http://evil.example"}
        assert gemini.http.get("/v1beta/batches", headers=cross).status_code == 403


def test_names_are_read_from_the_host_header() -> None:
    assert [host_name(text) for text in ("A.b:80", "[::1]:80", "[::1]", "x")] == ["a.b", "::1", "::1", "x"]
    assert not is_loopback("127.0.0.1.x")
    assert not is_loopback("1270.0.0.1")


DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"batch":' + b'{"batch":' * 150 + b"1" + b"}" * 151,
        b'{"batch": {"priority": NaN}}',
        b'{"batch": {"priority": 1e999}}',
        b'{"batch": -Infinity}',
        b"\xff\xfe",
        b"[]",
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        f"{MODEL}:batchGenerateContent",
        "/emulator/faults",
        "/emulator/clock",
        "/emulator/jobs/x",
        "/upload/v1/files",
        "/bigquery/v2/projects/p/datasets/d/tables",
    ],
)
def test_bodies_that_cannot_be_read_are_answered_with_400(gemini: Gemini, body: bytes, path: str) -> None:
    answer = gemini.http.post(path, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/token", b'{"a":' * DEEP),
        ("/token", b'{"grant_type": 5}'),
        ("/token", b"\xff"),
        ("/sts/v1/token", b'{"a":' * DEEP),
        ("/bigquery/v2/projects/p/datasets/d/tables", b'{"tableReference": 5}'),
        (
            "/bigquery/v2/projects/p/datasets/d/tables",
            b'{"tableReference": {"tableId": "t"}, "schema": {"fields": [5]}}',
        ),
    ],
)
def test_calls_for_tokens_and_tables_that_cannot_be_read_are_answered_with_400(
    gemini: Gemini, path: str, body: bytes
) -> None:
    assert gemini.http.post(path, content=body).status_code == 400


@pytest.mark.parametrize("lifetime", ["nan", "-1s", "1e9s", ["x"]])
def test_a_token_without_a_sensible_lifetime_is_not_given(vertex: Vertex, lifetime: Any) -> None:
    vertex.emulator.control.allow_impersonation("tester", "x@y")
    order = {"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": lifetime}
    answer = vertex.http.post("/v1/projects/-/serviceAccounts/x@y:generateAccessToken", json=order)
    assert (answer.status_code, "lifetime" in answer.text) == (400, True)


@pytest.mark.parametrize("form", ["schema", "struct", "open"])
def test_lines_without_a_bottom_are_answered_with_400(gemini: Gemini, form: str) -> None:
    lines = {
        "schema": '{"request":{"generationConfig":{"responseSchema":' + '{"items":' * DEEP + "{}" + "}" * (DEEP + 3),
        "struct": '{"request":{"contents":[{"parts":[{"functionCall":{"args":' + '{"a":' * DEEP + "1" + "}" * DEEP,
        "open": "[" * DEEP,
    }
    file = gemini.upload(lines[form].encode())
    answer = gemini.http.post(f"{MODEL}:batchGenerateContent", json={"batch": {"inputConfig": {"fileName": file}}})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Error on line 1: invalid JSON")


def test_an_object_without_a_bottom_fails_the_import_of_a_vertex_job(stored: Vertex) -> None:
    stored.put("deep.jsonl", vertex_row(), '{"request":' + "[" * DEEP)
    job = stored.run(uri="gs://in/deep.jsonl")
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 3)


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("clock", {"advance": "nan"}),
        ("clock", {"advance": "soon"}),
        ("clock", {"speed": "inf"}),
        ("clock", {"speed": -1}),
        ("clock", {"advance": None}),
        ("clock", {"advance": 1e308}),
        ("clock", {"advance": 1e12}),
        ("clock", {"advance": -1e11}),
        ("jobs/JOB", {"created": "nan"}),
        ("jobs/JOB", {"created": 1e300}),
        ("jobs/JOB", {"created": -1}),
        ("jobs/JOB", {"counts": [5]}),
        ("faults", {"bogus": 1}),
        ("faults", {"http": 5}),
        ("faults", {"output_layout": "sideways"}),
        ("tables/p.d.t", {"columns": []}),
        ("tables/p.d.t", {"columns": {"a": "STRING"}, "rows": [5]}),
    ],
)
def test_orders_that_make_no_sense_change_nothing(gemini: Gemini, path: str, order: dict[str, Any]) -> None:
    before = gemini.emulator.control.health()
    name = gemini.create()
    path = path.replace("JOB", name)
    job = gemini.http.get(f"/v1beta/{name}").json()
    assert gemini.http.post(f"/emulator/{path}", json=order).status_code == 400
    assert gemini.http.get(f"/v1beta/{name}").json()["metadata"]["createTime"] == job["metadata"]["createTime"]
    after = gemini.emulator.control.health()
    assert after["speed"] == before["speed"]
    assert 0 <= after["now"] - before["now"] < 60
    assert gemini.http.get("/emulator/faults").json() == {}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_in_python_too(gemini_batch_emulator: Emulator, number: float) -> None:
    control = gemini_batch_emulator.control
    with pytest.raises(ValueError, match="finite"):
        control.advance(number)
    with pytest.raises(ValueError, match="finite"):
        control.speed(number)
    with pytest.raises(ValueError, match="finite"):
        control.faults(slow={"operation": "get", "seconds": number})
    with Gemini(gemini_batch_emulator) as gemini:
        name = gemini.create()
    with pytest.raises(ValueError, match="finite"):
        control.set_job(name, created=number)
    assert json.loads(json.dumps(control.books(), allow_nan=False))["created"] == 1


def test_a_clock_that_runs_very_fast_stops_at_the_end_of_the_calendar(gemini: Gemini) -> None:
    name = gemini.create()
    assert gemini.http.post("/emulator/clock", json={"speed": 1e300}).status_code == 200
    assert gemini.http.get(f"/v1beta/{name}").status_code in {200, 404}
    assert gemini.http.post("/emulator/reset").status_code == 200


def test_a_certificate_is_made_for_the_names_and_kept_over_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "s.sqlite"
    with Emulator(https=True, hostnames=["gemini.internal"], state=state) as emulator:
        assert emulator.url.startswith("https://127.0.0.1:")
        assert emulator.ca_file is not None
        kept = emulator.ca_file.read_bytes()
        assert (emulator.ca_file.parent / "server.pem").stat().st_mode & 0o777 == 0o600
        url = f"{emulator.url}/emulator/health"
        assert _trusting(emulator.ca_file, url).json()["status"] == "ok"
        named = httpx.Client(verify=_context(emulator.ca_file), trust_env=False)
        with named:
            answer = named.get(url, headers={"host": "gemini.internal"}, extensions={"sni_hostname": "gemini.internal"})
        assert answer.status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)
        assert json.loads(emulator.connection("vertex"))["extra"]["keyfile_dict"]["token_uri"].startswith("https://")
    with Emulator(https=True, hostnames=["gemini.internal"], state=state) as emulator:
        assert emulator.ca_file is not None
        assert emulator.ca_file.read_bytes() == kept
    with Emulator(https=True, hostnames=["other.internal"], state=state) as emulator:
        assert emulator.ca_file is not None
        assert emulator.ca_file.read_bytes() != kept
        assert _trusting(emulator.ca_file, f"{emulator.url}/emulator/health").status_code == 200


def test_a_certificate_without_a_state_file_goes_with_the_emulator() -> None:
    with Emulator(https=True) as emulator:
        ca_file = emulator.ca_file
        assert ca_file is not None
        assert ca_file.exists()
    assert not ca_file.exists()


def _context(ca_file: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(ca_file))


def _trusting(ca_file: Path, url: str) -> httpx.Response:
    with httpx.Client(verify=_context(ca_file), trust_env=False) as client:
        return client.get(url)
