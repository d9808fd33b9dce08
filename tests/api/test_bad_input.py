"""What cannot work is refused in words before anything is sent: the services behind these clients are not there."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = ["Name a prime."]
FLASH = "gemini-2.5-flash"
VERTEX_JOB = "projects/p/locations/us-central1/batchPredictionJobs/123"


def test_these_clients_cannot_reach_their_service(offline: BatchClient, offline_vertex: BatchClient) -> None:
    """Or else the other tests of this file would prove nothing."""
    for client in (offline, offline_vertex):
        with pytest.raises(TransportError, match=r"connection refused; nothing was sent") as caught:
            client.list()
        assert not caught.value.sent
    with pytest.raises(TransportError) as caught:
        offline.create(FLASH, inlined_requests=ROW)
    assert not caught.value.sent


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda c: c.create(FLASH), r"Exactly one source.*none is given"),
        (lambda c: c.create(FLASH, inlined_requests=ROW, file_name="files/a"), "inlined_requests and file_name are"),
        (lambda c: c.create(FLASH, inlined_requests=[]), "inlined_requests is empty"),
        (lambda c: c.create(FLASH, inlined_requests="text"), "must be a list"),
        (lambda c: c.create(FLASH, gcs_uri="gs://b/in.jsonl"), r"gcs_uri: .* give inlined_requests or file_name"),
        (lambda c: c.create(FLASH, bigquery_uri="bq://p.d.t"), r"bigquery_uri: .* use a connection to Vertex AI"),
        (lambda c: c.create("../secrets", inlined_requests=ROW), "Invalid model name"),
        (lambda c: c.create("models/../x", inlined_requests=ROW), "Invalid model name"),
        (lambda c: c.create("models/models/x", inlined_requests=ROW), "Invalid model name"),
        (lambda c: c.create("a?key=b", inlined_requests=ROW), "Invalid model name"),
        (lambda c: c.create("", inlined_requests=ROW), "Invalid model name"),
        (lambda c: c.get(VERTEX_JOB), "Vertex AI job: use a connection to Vertex AI"),
        (lambda c: c.get("abc"), "expected 'batches/<id>'"),
        (lambda c: c.get("batches/../files/x"), "Invalid Gemini job name"),
        (lambda c: c.cancel("batches/a:delete"), "Invalid Gemini job name"),
        (lambda c: c.delete(""), "Invalid Gemini job name"),
        (lambda c: c.get_responses(VERTEX_JOB), "Vertex AI job"),
        (
            lambda c: c.create(FLASH, inlined_requests=[_keyed("a"), _keyed("b"), _keyed("a")]),
            r"\[2\].*same key as \[0\]",
        ),
        (lambda c: c.create(FLASH, inlined_requests=[*ROW, 7]), r"inlined_requests\[1\]"),
        (lambda c: c.create(FLASH, inlined_requests=[{"key": "a", "request": "text"}]), r"'request' must be an object"),
        (lambda c: c.create(FLASH, inlined_requests=["x" * (21 << 20)]), r"21\.0 MiB.*at most 20 MiB.*upload_file"),
        (lambda c: c.create(FLASH, file_name="abc"), "'files/<id>'"),
        (lambda c: c.create(FLASH, file_name="files/../x"), "Invalid file name"),
        (
            lambda c: c.create(FLASH, file_name="files/a", generation_config={"temperature": 1}),
            "generation_config: the rows",
        ),
        (lambda c: c.create(FLASH, inlined_requests=ROW, destination="gs://b/o"), "destination: the Gemini API"),
        (
            lambda c: c.create(FLASH, inlined_requests=ROW, labels={"a": "b"}),
            "labels: jobs of the Gemini API have none",
        ),
        (lambda c: c.create(FLASH, inlined_requests=ROW, priority="high"), "priority must be a whole number"),
        (lambda c: c.create(FLASH, inlined_requests=[{"contents": [{"parts": [{"x": float("nan")}]}]}]), "JSON"),
        (lambda c: c.list(filter="state=1"), "filter: the Gemini API documents none"),
        (lambda c: c.list(page_size=0), "page_size must be from 1"),
        (lambda c: c.list(page_size="100"), "page_size must be from 1"),
        (lambda c: c.list_files(page_size=101), "page_size must be from 1 to 100"),
        (lambda c: c.wait("batches/a", poll_interval=0), "poll_interval must be above 0"),
        (lambda c: c.wait(["batches/a"]), "Invalid job a value of type list"),
        (lambda c: c.wait(None), "Invalid job a value of type NoneType"),
        (lambda c: c.get_file(SimpleNamespace(name="files/a")), r"type SimpleNamespace \(give its name\)"),
        (lambda c: c.get_file("files/batch-" + "a" * 36), "output of a batch"),
        (lambda c: c.delete_file("files/batch-" + "a" * 36), "not looked up or deleted"),
        (lambda c: c.upload_file("/nowhere/in.jsonl"), "in.jsonl: the file cannot be read"),
        (lambda c: c.upload_file(io.BytesIO(b"x"), name="files/UPPER"), "name 'files/UPPER'"),
        (lambda c: c.upload_file(io.BytesIO(b"x"), mime_type="a\nb"), "mime_type"),
        (lambda c: c.storage, "does not use Cloud Storage"),
    ],
)
def test_the_gemini_api_gets_nothing_that_cannot_work(
    offline: BatchClient, do: Callable[[BatchClient], Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        do(offline)


def _keyed(key: str) -> dict[str, Any]:
    return {"key": key, "request": {"contents": [{"parts": [{"text": "x"}]}]}}


GCS: dict[str, Any] = {"gcs_uri": "gs://bucket/in.jsonl", "destination": "gs://bucket/out"}


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda c: c.create(FLASH), "Exactly one source"),
        (lambda c: c.create(FLASH, **GCS, bigquery_uri="bq://p.d.t"), "gcs_uri and bigquery_uri are given"),
        (lambda c: c.create(FLASH, gcs_uri=[], destination="gs://bucket/out"), "gcs_uri is empty"),
        (
            lambda c: c.create(FLASH, inlined_requests=ROW, destination="gs://bucket/out"),
            "give gcs_uri or bigquery_uri",
        ),
        (
            lambda c: c.create(FLASH, file_name="files/a", destination="gs://bucket/out"),
            "file_name: Vertex AI takes neither",
        ),
        (
            lambda c: c.create(FLASH, gcs_uri="s3://bucket/in.jsonl", destination="gs://bucket/o"),
            "expected 'gs://bucket/object'",
        ),
        (
            lambda c: c.create(FLASH, bigquery_uri="p.d.t", destination="gs://bucket/o"),
            "expected 'bq://project.dataset.table'",
        ),
        (lambda c: c.create(FLASH, gcs_uri="gs://bucket/in.jsonl"), "destination: Vertex AI needs one"),
        (
            lambda c: c.create(FLASH, gcs_uri="gs://bucket/in.jsonl", destination="out/x"),
            "destination: invalid address 'out/x'",
        ),
        (lambda c: c.create("../x", **GCS), "Invalid model name.*Vertex AI"),
        (lambda c: c.create(FLASH, **GCS, priority=1), "priority: Vertex AI has none"),
        (lambda c: c.create(FLASH, **GCS, system_instruction="Be brief."), "system_instruction: the rows"),
        (lambda c: c.create_embeddings("gemini-embedding-001", **GCS, task_type="X"), "task_type: the rows"),
        (lambda c: c.create(FLASH, **GCS, labels={"Team": "a"}), "label 'Team'"),
        (lambda c: c.create(FLASH, **GCS, labels={"team": "A"}), "label 'team': a value"),
        (lambda c: c.create(FLASH, **GCS, labels={f"k{n}": "v" for n in range(65)}), "65 labels are too many"),
        (lambda c: c.get("batches/abc"), "job of the Gemini API: use a connection with an API key"),
        (lambda c: c.get("projects/p/locations/l/batchPredictionJobs/../x"), "Invalid Vertex AI job name"),
        (lambda c: c.upload_file(io.BytesIO(b"x")), "Vertex AI has no Files API"),
        (lambda c: c.download_file("files/a", io.BytesIO()), "gs:// addresses"),
    ],
)
def test_vertex_ai_gets_nothing_that_cannot_work(
    offline_vertex: BatchClient, do: Callable[[BatchClient], Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        do(offline_vertex)


def test_an_argument_that_nobody_knows_is_refused_by_python(offline: BatchClient) -> None:
    with pytest.raises(TypeError, match="temperature"):
        offline.create(FLASH, inlined_requests=ROW, temperature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("key", ["", "   "])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigurationError, match="No API key"):
        BatchClient.for_gemini(key)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ümlaut"])
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BatchClient.for_gemini(key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "must look like"),
        ("ftp://host", "must look like"),
        ("https://", "must look like"),
        ("https://host?x=1", "must look like"),
        ("https://user:word@host", "must look like"),
        ("https://ho st", "must look like"),
        ("https://host:99999999", "must look like"),
        ("http://example.com", "unencrypted"),
        ("http://10.0.0.1:8080", r"http:// to 10\.0\.0\.1:8080"),
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        BatchClient.for_gemini("a-key", base_url=url)
    assert "word" not in str(caught.value).replace("words", "")


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.7:1/prefix/", "http://[::1]:1", "https://example.com"]
)
def test_a_base_url_to_this_machine_or_over_tls_is_taken(url: str) -> None:
    with BatchClient.for_gemini("a-key", base_url=url) as client:
        assert "a-key" not in repr(client)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"project_id": None}, "No Google Cloud project"),
        ({"project_id": "../x"}, "Invalid project_id"),
        ({"location": "us/../x"}, "Invalid location"),
        ({"base_url": "http://example.com"}, "unencrypted"),
        ({"timeout": 0}, "timeout must be above 0"),
        # More than a socket takes.
        ({"timeout": 1e11}, "timeout must be above 0 and at most 86400 seconds"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"key_path": "/nowhere/key.json"}, r"key_path: the file cannot be read"),
        ({"keyfile_dict": {"type": "service_account"}, "key_path": "x"}, "Only one of keyfile_dict, key_path"),
        ({"keyfile_dict": {"type": "magic"}}, "type 'magic' are not supported"),
        ({"impersonation_chain": "nobody"}, "'nobody' is not the e-mail address of a service account"),
        ({"iam_endpoint": "http://example.com"}, "unencrypted"),
    ],
)
def test_a_place_or_credentials_on_vertex_that_cannot_be_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BatchClient.for_vertex(**{"project_id": "demo-project", **arguments})


def test_what_is_wrong_with_rows_is_an_input_error(offline: BatchClient) -> None:
    for rows, words in (
        ([], "inlined_requests is empty"),
        ([7], "not a number"),
        ([_keyed("a"), _keyed("a")], "'a'"),
    ):
        with pytest.raises(InputError, match=words):
            offline.create(FLASH, inlined_requests=rows)  # type: ignore[arg-type]
