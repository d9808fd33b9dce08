"""What reads what others wrote, each as a function of dice: it may refuse with one of our errors and nothing else."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import requests
from airflow.sdk import Connection
from google.auth.exceptions import DefaultCredentialsError
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.credentials import google_loader
from airflow_provider_gemini_batch.api.google.output_folder import StoredObject, choose
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.request import normalise, request_body, request_defaults
from airflow_provider_gemini_batch.api.responses.lines import lines_of
from airflow_provider_gemini_batch.api.responses.reading import parse_result_line, parse_vertex_line
from airflow_provider_gemini_batch.api.urls import checked_base_url, is_secure
from airflow_provider_gemini_batch.polling.report import from_event, to_event
from airflow_provider_gemini_batch.runtime.client import client_from_settings
from airflow_provider_gemini_batch.runtime.connection import read_connection
from fuzz.nonsense import KEY, PROMPT, anything, headers, packed, spoiled, text, written

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

BASE = "http://127.0.0.1:9"
VERTEX_JOB = "projects/1/locations/us-central1/batchPredictionJobs/2"


class _Wire(BaseAdapter):
    """The network: it answers whatever it is asked with what was put on it."""

    def __init__(self) -> None:
        super().__init__()
        self.next: Callable[[], tuple[int, dict[str, str], bytes]] = lambda: (200, {}, b"{}")

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        body_sent: Any = request.body
        if body_sent is not None and not isinstance(body_sent, (bytes, str)):
            b"".join(body_sent)
        status, head, body = self.next()
        raw = HTTPResponse(io.BytesIO(body), headers=head, status=status, preload_content=False, decode_content=False)
        response = requests.Response()
        response.status_code, response.raw = status, raw
        response.headers = requests.structures.CaseInsensitiveDict(head)
        response.url, response.request = str(request.url), request
        return response

    def close(self) -> None:
        """Nothing is open."""


class Targets:
    """All targets, with one client of each service over a network of nonsense."""

    def __init__(self) -> None:
        self._wire = _Wire()
        self._gemini = BatchClient.for_gemini(KEY, base_url=BASE, attempts=2, sleep=lambda _: None)
        self._vertex = BatchClient.for_vertex(
            "p", "us-central1", credentials=_token(), base_url=BASE, attempts=2, sleep=lambda _: None
        )
        for client in (self._gemini, self._vertex):
            for scheme in ("http://", "https://"):
                client._transport._session.mount(scheme, self._wire)

    @property
    def all(self) -> dict[str, Callable[[random.Random], object]]:
        """The targets by name."""
        return {
            "rows": _rows,
            "lines": _lines,
            "gemini": self._gemini_answers,
            "vertex": self._vertex_answers,
            "files": self._files,
            "events": _events,
            "connections": _connections,
            "keys": _keys,
            "urls": lambda dice: (is_secure(text(dice)), checked_base_url(text(dice))),
            "folders": _folders,
        }

    @contextmanager
    def _answering(self, dice: random.Random, good: Any) -> Iterator[None]:
        def answer() -> tuple[int, dict[str, str], bytes]:
            status = dice.choice((200, 200, 200, 200, 400, 401, 403, 404, 408, 409, 429, 500, 503, 302, 308, 204))
            value = spoiled(dice, good) if dice.random() < 0.8 else anything(dice)
            if status >= 400:
                value = spoiled(dice, {"error": {"code": status, "message": f'"{PROMPT}"', "status": text(dice)}})
            head, body = packed(dice, written(dice, value))
            return status, {**headers(dice), **head}, body

        self._wire.next = answer
        yield

    def _gemini_answers(self, dice: random.Random) -> None:
        output = {"inlinedResponses": {"inlinedResponses": [{"response": {"x": PROMPT}, "metadata": {"key": "a"}}]}}
        operation = {
            "name": "batches/a",
            "metadata": {"state": "BATCH_STATE_SUCCEEDED", "createTime": "2026-01-01T00:00:00Z", "output": output},
            "done": True,
            "error": {"code": 3, "message": f"'{PROMPT}'"},
        }
        with self._answering(dice, dice.choice((operation, {"operations": [operation], "nextPageToken": "x"}))):
            _any_call(dice, self._gemini, "batches/a")

    def _vertex_answers(self, dice: random.Random) -> None:
        job = {
            "name": VERTEX_JOB,
            "state": "JOB_STATE_RUNNING",
            "outputConfig": {"gcsDestination": {"outputUriPrefix": "gs://b/o"}},
            "error": {"code": 3, "message": f"'{PROMPT}'"},
        }
        with self._answering(dice, dice.choice((job, {"batchPredictionJobs": [job], "nextPageToken": "x"}))):
            _any_call(dice, self._vertex, VERTEX_JOB)

    def _files(self, dice: random.Random) -> None:
        file = {"name": "files/a", "state": "ACTIVE", "sizeBytes": "3", "sha256Hash": "eA=="}
        with self._answering(dice, dice.choice((file, {"file": file}, {"files": [file]}))):
            choice = dice.randrange(4)
            if choice == 0:
                self._gemini.upload_file(io.BytesIO(PROMPT.encode()), display_name=text(dice), wait=0)
            elif choice == 1:
                self._gemini.list_files(page_token=text(dice))
            elif choice == 2:
                self._gemini.get_file("files/a")
            else:
                for chunk in self._gemini.iter_download("files/batch-a"):
                    assert len(chunk) <= 2**20


def _any_call(dice: random.Random, client: BatchClient, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.get(name, brief=dice.random() < 0.5),
        lambda: client.list(page_token=text(dice), brief=dice.random() < 0.5),
        client.snapshots,
        lambda: client.cancel(name),
        lambda: client.delete(name),
    ]
    if client.service is Service.GEMINI:
        calls.append(lambda: list(client.get_responses(name)))
        calls.append(lambda: client.create("gemini-2.5-flash", inlined_requests=[PROMPT], display_name=text(dice)))
    dice.choice(calls)()


def _rows(dice: random.Random) -> None:
    kind = dice.choice((JobKind.GENERATION, JobKind.EMBEDDINGS))
    model = dice.choice(("gemini-2.5-flash", "gemini-embedding-2", "gemini-embedding-001"))
    content = {"parts": [{"text": PROMPT}]}
    good: Any = dice.choice((
        PROMPT,
        {"key": "a", "request": {"contents": [content], "generationConfig": {"temperature": 1}}},
        {"key": "a", "request": {"content": content, "taskType": "RETRIEVAL_QUERY"}},
        {"custom_id": "a", "text": PROMPT, "title": "t"},
        {"contents": PROMPT, "config": {"temperature": 0.5}},
    ))  # fmt: skip
    row: Any = spoiled(dice, good) if dice.random() < 0.9 else dice.choice((b"x", {1}, object(), (1, 2), 1.5))
    members = anything(dice)
    defaults = request_defaults(kind, model=model, request_defaults=members if isinstance(members, dict) else None)
    _, request = normalise(row, kind=kind, defaults=defaults, warnings=set())
    body = request_body(dice.choice((Service.GEMINI, Service.VERTEX)), kind, request)
    body.decode()
    json.loads(body)


def _lines(dice: random.Random) -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": PROMPT}]}}], "usageMetadata": {"promptTokenCount": 1}}
    line = written(dice, spoiled(dice, {"key": "a", "response": answer, "status": ""}))
    cut = dice.randrange(len(line) + 1)
    for position, whole in enumerate(lines_of([line[:cut], line[cut:], b"\n"])):
        for parse in (parse_result_line, parse_vertex_line):
            repr(parse(whole, position))


def _events(dice: random.Random) -> None:
    job = {"name": "batches/a", "service": "gemini", "state": "SUCCEEDED", "error": {"code": 3, "message": "x"}}
    event = {"version": 1, "reason": "ended", "jobs": [job], "message": "", "memo": "m", "stalled": []}
    report = from_event(spoiled(dice, event) if dice.random() < 0.9 else anything(dice))
    json.dumps(to_event(report))


def _connections(dice: random.Random) -> None:
    extra = {
        "backend": dice.choice(("gemini", "vertex", "", 1)),
        "project_id": "p",
        "location": "us-central1",
        "timeout": 60,
        "labels": {"a": "b"},
        "keyfile_dict": json.dumps(_key_file()),
        "impersonation_chain": "a@b",
    }
    given = spoiled(dice, spoiled(dice, extra))
    conn = Connection(
        conn_id="c",
        conn_type=dice.choice(("gemini_batch", "google_cloud_platform", "http")),
        host=dice.choice((None, "127.0.0.1", text(dice))),
        password=dice.choice((KEY, KEY + text(dice), None)),
        schema=dice.choice((None, "http", text(dice))),
        port=dice.choice((None, 0, 443, 99999)),
        extra=dice.choice((json.dumps(given), text(dice))),
    )
    settings = read_connection(conn, location=dice.choice((None, "eu", text(dice))))
    assert KEY not in repr(settings)
    with client_from_settings(settings) as client:
        assert KEY not in repr(client)


def _keys(dice: random.Random) -> None:
    info = {**_key_file(), "type": dice.choice(("service_account", "external_account", "authorized_user", "x"))}
    broken = spoiled(dice, spoiled(dice, info))
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(written(dice, broken))
        file.flush()
        given = (
            {"key_path": file.name} if dice.random() < 0.5 or not isinstance(broken, dict) else {"keyfile_dict": broken}
        )
        load, _ = google_loader(**given)
        with suppress(DefaultCredentialsError):  # it may have nothing of its own left
            load(None)


def _folders(dice: random.Random) -> None:
    names = [
        "predictions",
        "errors",
        "incremental_",
        "-00001-of-00003",
        "_0001",
        ".jsonl",
        "000000000001",
        "/",
        text(dice),
    ]
    listed = ["".join(dice.choices(names, k=dice.randrange(5))) for _ in range(dice.randrange(6))]
    choose(StoredObject(name, dice.choice((0, 1, 2**63))) for name in listed)


def _key_file() -> dict[str, Any]:
    key = f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n"
    return {
        "type": "service_account",
        "client_email": "a@b.iam",
        "private_key": key,
        "private_key_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
        "project_id": "p",
        "client_id": "i",
        "client_secret": KEY,
        "refresh_token": KEY,
    }


def _token() -> Any:
    from google.auth.credentials import Credentials

    class Fixed(Credentials):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.token = KEY

        def refresh(self, request: Any) -> None:  # noqa: ARG002
            self.token = KEY

    return Fixed()
