"""Jobs of Vertex AI against the emulator, and their answers in a Cloud Storage on this machine."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from api.virtual_time import VirtualTime
from msgspec.structs import replace

from airflow_provider_gemini_batch.api.backends.vertex import VertexPlace
from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import ApiError, ConfigurationError, JobError, NotFound
from airflow_provider_gemini_batch.api.google import storage as storage_module
from airflow_provider_gemini_batch.api.models import JobKind, JobSnapshot, JobState, Service
from airflow_provider_gemini_batch.emulator import Emulator
from emulator.storage_server import storage_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLASH = "gemini-2.5-flash"
GCS: dict[str, Any] = {"gcs_uri": "gs://in/rows.jsonl", "destination": "gs://out/run"}


def connected(emulator: Emulator, storage_endpoint: str | None = None) -> BatchClient:
    clock = VirtualTime(emulator)
    return BatchClient.for_vertex(
        "demo-project",
        "us-central1",
        keyfile_dict=emulator.service_account_info(),
        base_url=emulator.url,
        storage_endpoint=storage_endpoint,
        sleep=clock.sleep,
        clock=clock,
    )


@pytest.fixture
def vertex(emulator: Emulator) -> Iterator[BatchClient]:
    with connected(emulator) as client:
        yield client


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_each_location_has_its_host(location: str, host: str) -> None:
    place = VertexPlace.of("p", location)
    assert place.jobs == f"{host}/v1/projects/p/locations/{location}/batchPredictionJobs"
    assert place.root("us-east1") == "https://us-east1-aiplatform.googleapis.com/v1"
    assert VertexPlace.of("p", location, base_url="https://gateway/x/").root() == "https://gateway/x/v1"


def test_every_field_of_a_job_over_cloud_storage_is_read(vertex: BatchClient) -> None:
    job = vertex.create(FLASH, **GCS, display_name="nightly", labels={"team": "a"})
    assert (job.service, job.kind, job.model) == (Service.VERTEX, JobKind.GENERATION, FLASH)
    assert job.name.startswith("projects/")
    assert job.src.gcs_uris == ("gs://in/rows.jsonl",)
    assert job.dest is not None
    assert job.dest.gcs_uri == "gs://out/run"
    assert (job.display_name, job.labels) == ("nightly", {"team": "a"})
    assert job.never_started
    seen = vertex.get(job.name, brief=True)
    assert (seen.name, seen.src, seen.dest) == (job.name, job.src, job.dest)


def test_a_job_over_bigquery_ends_with_a_table_and_counts(vertex: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(bigquery_rows=7)
    job = vertex.create(FLASH, bigquery_uri="bq://p.ds.requests", destination="bq://p.ds.answers")
    assert job.src.bigquery_uri == "bq://p.ds.requests"
    ended = vertex.wait(job.name, poll_interval=5)
    assert ended.succeeded
    assert ended.dest is not None
    assert ended.dest.bigquery_uri == "bq://p.ds.answers"
    assert ended.completion_stats is not None
    assert ended.completion_stats.success == 7


def test_lists_are_filtered_and_masked(vertex: BatchClient, emulator: Emulator) -> None:
    vertex.create(FLASH, **GCS, display_name="one", labels={"team": "a"})
    wanted = vertex.create(FLASH, **GCS, display_name="two", labels={"team": "b"})
    for brief in (False, True):
        (found,) = vertex.list_all(filter="labels.team=b", brief=brief)
        assert (found.name, found.display_name, found.labels) == (wanted.name, "two", {"team": "b"})
        assert bool(found.src.gcs_uris) is not brief
    told = [replace(JobSnapshot.of(job), as_of=None) for job in vertex.list_all(brief=True)]
    first = vertex.snapshots(page_size=1)
    rest = vertex.snapshots(page_token=first.next_page_token)
    assert [replace(snapshot, as_of=None) for snapshot in first.snapshots + rest.snapshots] == told
    emulator.control.faults(refuse_fields=True)
    before = emulator.control.books()["requests"]["list"]
    assert len(list(vertex.list_all(page_size=1, brief=True))) == 2
    assert emulator.control.books()["requests"]["list"] - before == 3


def test_cancelling_an_ended_job_is_not_an_error_and_deleting_a_running_one_is(
    vertex: BatchClient, emulator: Emulator
) -> None:
    job = vertex.create(FLASH, **GCS)
    with pytest.raises(ApiError):
        vertex.delete(job.name)
    vertex.cancel(job.name)
    emulator.control.advance(30)
    assert vertex.get(job.name).cancelled
    vertex.cancel(job.name)
    vertex.delete(job.name)
    with pytest.raises(NotFound):
        vertex.get(job.name)


@pytest.mark.parametrize("state", ["PAUSED", "UPDATING", "CANCELLING", "QUEUED"])
def test_states_that_only_vertex_has_are_waited_through(vertex: BatchClient, emulator: Emulator, state: str) -> None:
    job = vertex.create(FLASH, **GCS)
    emulator.control.set_job(job.name, state=f"JOB_STATE_{state}")
    seen = vertex.get(job.name)
    assert seen.state is JobState(state)
    assert not seen.is_done


def test_a_job_of_another_location_is_asked_for_there() -> None:
    place = VertexPlace.of("p", "us-central1")
    assert place.root("europe-west4").startswith("https://europe-west4-aiplatform")


def test_answers_before_the_end_are_refused(vertex: BatchClient) -> None:
    with pytest.raises(JobError, match="has not ended"):
        vertex.get_responses(vertex.create(FLASH, **GCS))


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    with storage_server("in", "out") as url:
        yield url


@pytest.fixture
def stored(gcs: str) -> Iterator[tuple[BatchClient, Emulator]]:
    with Emulator(speed=0, storage_endpoint=gcs) as emulator, connected(emulator, gcs) as client:
        yield client, emulator


def rows(count: int) -> bytes:
    contents = [{"role": "user", "parts": [{"text": "Row."}]}]
    return b"".join(
        json.dumps({"request": {"contents": contents}, "custom_id": f"k{n}"}).encode() + b"\n" for n in range(count)
    )


def test_answers_stream_from_cloud_storage(stored: tuple[BatchClient, Emulator], tmp_path: Path) -> None:
    client, _ = stored
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows(50))
    client.storage.upload(path, "gs://in/answers.jsonl")
    job = client.create(FLASH, gcs_uri="gs://in/answers.jsonl", destination="gs://out/answers")
    ended = client.wait(job.name, poll_interval=5)
    assert ended.succeeded
    assert ended.dest is not None
    assert (ended.dest.gcs_uri or "").startswith("gs://out/answers/prediction-model-")
    answers = list(client.get_responses(job.name))
    assert {answer.key for answer in answers} == {f"k{n}" for n in range(50)}
    assert [answer.position for answer in answers] == list(range(50))
    assert all(answer.error is None for answer in answers)


def test_objects_are_written_read_listed_and_removed(stored: tuple[BatchClient, Emulator]) -> None:
    store = stored[0].storage
    with store.open("gs://in/folder/a.jsonl", "wb") as file:
        file.write(b"x\n")
    assert store.exists("gs://in/folder/a.jsonl")
    assert list(store.iter_bytes("gs://in/folder/a.jsonl")) == [b"x\n"]
    assert store.matching("gs://in/folder/*.jsonl") == ["gs://in/folder/a.jsonl"]
    with store.open("gs://in/folder/a.jsonl") as file:
        assert file.read() == b"x\n"
    store.delete("gs://in/folder/a.jsonl")
    store.delete("gs://in/folder/a.jsonl")
    assert not store.exists("gs://in/folder/a.jsonl")
    with pytest.raises(NotFound, match="the object does not exist"):
        list(store.iter_bytes("gs://in/folder/a.jsonl"))
    assert store.list_folder("gs://out/nowhere") == []


def test_a_large_object_is_read_in_ranges(
    stored: tuple[BatchClient, Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored[0].storage
    content = rows(100)
    with store.open("gs://in/large.jsonl", "wb") as file:
        file.write(content)
    monkeypatch.setattr(storage_module, "READ_BYTES", 1000)
    pieces = list(store.iter_bytes("gs://in/large.jsonl"))
    assert len(pieces) == -(-len(content) // 1000)
    assert b"".join(pieces) == content


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(
    stored: tuple[BatchClient, Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored[0].storage
    monkeypatch.setattr(storage_module, "READ_BYTES", 4)
    for content in (b"0123456789", b"abcdefghij"):
        with store.open("gs://in/changing", "wb") as file:
            file.write(content)
        if content.startswith(b"0"):
            pieces = store.iter_bytes("gs://in/changing")
            next(pieces)
    with pytest.raises(ApiError, match="was replaced while it was read"):
        list(pieces)


def test_only_gs_addresses_are_opened(vertex: BatchClient) -> None:
    with pytest.raises(ConfigurationError, match="expected 'gs://bucket/object'"):
        vertex.storage.open("/etc/passwd")


def test_what_needs_the_files_api_is_refused(vertex: BatchClient) -> None:
    with pytest.raises(ConfigurationError, match="Vertex AI has no Files API"):
        vertex.upload_file(io.BytesIO(b"x"))
