"""Jobs in forms beside those that have been seen: their state, their error and their answers are read all the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from api.conftest import FixedToken
from api.listener import Listener, listening
from msgspec.structs import replace

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import ConfigurationError, ServiceUnavailable
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.api.requests.fields import snake
from airflow_provider_gemini_batch.api.wire import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "batches/abc"
VERTEX_NAME = "projects/demo-project/locations/us-central1/batchPredictionJobs/1"
ITEM = {"response": {"candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}]}}


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as made:
        yield made


@pytest.fixture
def gemini(listener: Listener) -> Iterator[BatchClient]:
    with BatchClient.for_gemini("a-key", base_url=listener.url, sleep=lambda _: None) as made:
        yield made


@pytest.fixture
def vertex(listener: Listener) -> Iterator[BatchClient]:
    place = ("demo-project", "us-central1")
    with BatchClient.for_vertex(*place, credentials=FixedToken(), base_url=listener.url, sleep=lambda _: None) as made:
        yield made


def says(listener: Listener, job: dict[str, Any]) -> None:
    listener.answer = (200, {}, json.dumps(job).encode())


@pytest.mark.parametrize("raw", ["succeeded", "job_state_succeeded", "Batch_State_Succeeded", "SUCCEEDED"])
def test_a_state_is_read_in_either_case(raw: str) -> None:
    assert state_of(raw) is JobState.SUCCEEDED


@pytest.mark.parametrize(
    "error",
    [
        {"code": 3},
        {"code": 400},
        {"code": "3"},
        {"code": 3.0},
        {"code": "INVALID_ARGUMENT"},
        {"status": "INVALID_ARGUMENT", "code": 400},
        [{"code": 3}],
    ],
)
def test_the_code_of_a_failed_job_decides_alike_however_it_is_written(
    gemini: BatchClient, vertex: BatchClient, listener: Listener, error: Any
) -> None:
    says(listener, {"name": NAME, "done": True, "metadata": {"state": "BATCH_STATE_FAILED"}, "error": error})
    for job in (gemini.get(NAME), gemini.wait(NAME)):
        assert job.error is not None
        assert job.error.code == 3
    says(listener, {"name": VERTEX_NAME, "state": "JOB_STATE_FAILED", "error": error})
    found = vertex.get(VERTEX_NAME).error
    assert found is not None
    assert found.code == 3


@pytest.mark.parametrize(
    "operation",
    [
        {"metadata": {"output": {"inlinedResponses": {"inlinedResponses": [ITEM]}}}},
        {"metadata": {"output": {"@type": "x"}}, "response": {"inlinedResponses": {"inlinedResponses": [ITEM]}}},
        {"metadata": {"output": {}}, "response": {"@type": "x", "inlinedResponses": [ITEM]}},
        {"metadata": {}, "response": {"inlinedEmbedContentResponses": {"inlinedResponses": [ITEM]}}},
        {"metadata": {"output": {"inlinedEmbedContentResponses": {"inlinedEmbedContentResponses": [ITEM]}}}},
        {"metadata": {"output": {"inlinedResponses": {}}}, "response": {"inlinedResponses": [ITEM]}},
        {"metadata": {"dest": {"inlinedResponses": [ITEM]}}},
        {"metadata": {}, "dest": {"inlinedResponses": [ITEM]}},
        {"metadata": {}, "response": {"output": {"inlinedResponses": [ITEM]}}},
    ],
)
def test_answers_are_found_wherever_a_job_holds_them(
    gemini: BatchClient, listener: Listener, operation: dict[str, Any]
) -> None:
    operation["metadata"]["state"] = "BATCH_STATE_SUCCEEDED"
    says(listener, {"name": NAME, "done": True, **operation})
    job = gemini.get(NAME)
    assert job.dest is not None
    assert [result.response for result in gemini.get_responses(job)] == [ITEM["response"]]


@pytest.mark.parametrize("name", ["responsesFile", "fileName"])
@pytest.mark.parametrize("file", ["files/batch-abc", "https://x.test/v1beta/files/batch-abc:download?alt=media"])
def test_an_output_file_is_found_by_its_name_or_its_address(
    gemini: BatchClient, listener: Listener, name: str, file: str
) -> None:
    says(listener, {"name": NAME, "done": True, "metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": {name: file}}})
    dest = gemini.get(NAME).dest
    assert dest is not None
    assert dest.file_name == "files/batch-abc"


@pytest.mark.parametrize("error", [{"code": 0}, {"code": 0, "message": ""}, {}, None, ""])
def test_an_error_that_says_ok_is_not_an_error(
    gemini: BatchClient, vertex: BatchClient, listener: Listener, error: object
) -> None:
    says(listener, {"name": NAME, "done": True, "metadata": {"state": "NEW"}, "error": error})
    assert (gemini.get(NAME).state, gemini.get(NAME).error) == (JobState.SUCCEEDED, None)
    says(listener, {"name": VERTEX_NAME, "state": "NEW", "endTime": "2026-11-22T10:00:00Z", "error": error})
    assert (vertex.get(VERTEX_NAME).state, vertex.get(VERTEX_NAME).error) == (JobState.SUCCEEDED, None)


@pytest.mark.parametrize(
    "operation", [{"error": "out of order"}, {"metadata": {"error": {"code": 0, "message": "out of order"}}}]
)
def test_the_words_of_a_failed_job_are_kept_wherever_they_stand(
    gemini: BatchClient, listener: Listener, operation: dict[str, Any]
) -> None:
    operation["metadata"] = {"state": "BATCH_STATE_FAILED", **operation.get("metadata", {})}
    says(listener, {"name": NAME, "done": True, **operation})
    error = gemini.get(NAME).error
    assert error is not None
    assert error.message == "out of order"


@pytest.mark.parametrize(("more", "state"), [({}, JobState.SUCCEEDED), ({"error": {"code": 13}}, JobState.FAILED)])
def test_a_vertex_job_with_an_end_has_ended_in_a_state_that_nobody_knows(
    vertex: BatchClient, listener: Listener, more: dict[str, Any], state: JobState
) -> None:
    job = {"name": VERTEX_NAME, "state": "JOB_STATE_ARCHIVED", "endTime": "2026-11-22T10:00:00Z", **more}
    says(listener, job)
    found = vertex.wait(VERTEX_NAME)
    assert (found.state, found.raw_state) == (state, "JOB_STATE_ARCHIVED")
    says(listener, {"batchPredictionJobs": [job, {**job, "endTime": None}, {**job, "state": "JOB_STATE_RUNNING"}]})
    states = [snapshot.progress.state for snapshot in vertex.snapshots().snapshots]
    assert states == [state, JobState.UNKNOWN, JobState.RUNNING]


@pytest.mark.parametrize(("text", "shown"), [("a\0b", "a\ufffdb"), ("a\ud800b", "a?b")])
def test_texts_of_others_hold_nothing_that_a_database_refuses(
    gemini: BatchClient, vertex: BatchClient, listener: Listener, text: str, shown: str
) -> None:
    says(listener, {"name": NAME, "metadata": {"displayName": text, "model": text}})
    job = gemini.get(NAME)
    says(listener, {"name": VERTEX_NAME, "displayName": text, "model": text, "labels": {"l": text}})
    other = vertex.get(VERTEX_NAME)
    says(listener, {"files": [{"name": "files/a", "displayName": text}]})
    (file,) = gemini.list_files().files
    for found in (job.display_name, job.model, other.display_name, other.model, other.labels["l"], file.display_name):
        assert found == shown


def test_a_job_without_done_goes_on_whatever_its_counters_say(gemini: BatchClient, listener: Listener) -> None:
    stats = {"requestCount": "3", "successfulRequestCount": "3"}
    says(listener, {"name": NAME, "metadata": {"state": "BATCH_STATE_RUNNING", "batchStats": stats}})
    job = gemini.get(NAME)
    assert (job.state, job.is_done, job.progress) == (JobState.RUNNING, False, 100.0)


@pytest.mark.parametrize(
    ("stats", "total"),
    [
        ({"successfulCount": "2", "incompleteCount": "-1"}, None),
        ({"successfulCount": "2", "failedCount": "1"}, 3),
        ({"successfulCount": 2.0, "incompleteCount": 4}, 6),
    ],
)
def test_counters_that_say_that_they_do_not_know_tell_no_total(
    vertex: BatchClient, listener: Listener, stats: dict[str, Any], total: int | None
) -> None:
    says(listener, {"name": VERTEX_NAME, "state": "JOB_STATE_RUNNING", "completionStats": stats})
    found = vertex.get(VERTEX_NAME).completion_stats
    assert found is not None
    assert (found.success, found.total) == (2, total)
    says(listener, {"name": VERTEX_NAME, "state": "JOB_STATE_CANCELLED"})
    assert vertex.get(VERTEX_NAME).completion_stats is None


def test_a_list_is_always_asked_for_with_the_size_of_its_pages(
    gemini: BatchClient, vertex: BatchClient, listener: Listener
) -> None:
    for client in (gemini, vertex):
        client.list()
        client.snapshots()
    gemini.list_files()
    assert len(listener.seen) == 5
    assert all("pageSize=" in path for _, path, _ in listener.seen)


def in_snake_case(value: Any) -> Any:
    """Return JSON as a gateway sends it that writes Python's or protobuf's own names."""
    if isinstance(value, list):
        return [in_snake_case(one) for one in value]
    return {snake(name): in_snake_case(one) for name, one in value.items()} if isinstance(value, dict) else value


TIMES = dict.fromkeys(("createTime", "startTime", "updateTime", "endTime"), "2026-11-22T10:00:00Z")
GEMINI_JOB: dict[str, Any] = {
    "name": NAME,
    "done": True,
    "metadata": {
        **TIMES,
        "state": "BATCH_STATE_SUCCEEDED",
        "displayName": "nightly gb1-x",
        "model": "models/gemini-2.5-flash",
        "priority": "5",
        "batchStats": {"requestCount": "3", "successfulRequestCount": "2", "failedRequestCount": "1"},
        "inputConfig": {"fileName": "files/in"},
        "output": {"inlinedResponses": {"inlinedResponses": [ITEM]}},
    },
}
VERTEX_JOB: dict[str, Any] = {
    "name": VERTEX_NAME,
    **TIMES,
    "state": "JOB_STATE_SUCCEEDED",
    "displayName": "nightly gb1-x",
    "completionStats": {"successfulCount": "2", "failedCount": "1"},
    "labels": {"cost_center": "a_b"},
    "inputConfig": {"gcsSource": {"uris": ["gs://a/in_put"]}},
    "outputConfig": {"gcsDestination": {"outputUriPrefix": "gs://a/out"}},
    "outputInfo": {"gcsOutputDirectory": "gs://a/out/prediction"},
}


@pytest.mark.parametrize("service", ["gemini", "vertex"])
def test_a_gateway_may_write_the_names_of_a_job_in_snake_case(
    request: pytest.FixtureRequest, listener: Listener, service: str
) -> None:
    client: BatchClient = request.getfixturevalue(service)
    job, listed = {"gemini": (GEMINI_JOB, "operations"), "vertex": (VERTEX_JOB, "batchPredictionJobs")}[service]
    name = str(job["name"])
    found: list[Any] = []
    for write in (dict, in_snake_case):
        answers = {"list": write({listed: [job], "nextPageToken": "t"}), "get": write(job)}
        listener.answer = lambda path, answers=answers: (  # type: ignore[misc]
            (200, {}, json.dumps(answers["get" if path.partition("?")[0].endswith(name) else "list"]).encode())
        )
        page, snapshots = client.list(), client.snapshots()
        jobs = [one.model_copy(update={"as_of": None}) for one in (client.get(name), *page.batch_jobs)]
        looks = [replace(one, as_of=None) for one in snapshots.snapshots]
        found.append((jobs, looks, page.next_page_token, snapshots.next_page_token))
        if service == "gemini":
            found[-1] += ([result.response for result in client.get_responses(name)],)
    camel, snaked = found
    assert camel == snaked
    assert camel[2] == "t"
    assert service == "gemini" or camel[0][0].labels == {"cost_center": "a_b"}


def test_a_gateway_may_write_the_names_of_a_file_in_snake_case(gemini: BatchClient, listener: Listener) -> None:
    file = {"name": "files/a", "displayName": "x", "sizeBytes": "5", **TIMES, "expirationTime": TIMES["createTime"]}
    pages = []
    for write in (dict, in_snake_case):
        says(listener, write({"files": [file], "nextPageToken": "t"}))
        pages.append(gemini.list_files())
    assert pages[0] == pages[1]
    assert pages[0].files[0].size_bytes == 5


@pytest.mark.parametrize("raw", ["JobState.JOB_STATE_SUCCEEDED", "BatchState.BATCH_STATE_SUCCEEDED"])
def test_a_state_may_be_written_as_an_sdk_shows_it(raw: str) -> None:
    assert state_of(raw) is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("operation", "state"),
    [
        ({"response": {"inlinedResponses": {"inlinedResponses": [ITEM]}}}, JobState.SUCCEEDED),
        ({"error": {"code": 13, "message": "Internal."}}, JobState.FAILED),
        ({"done": "true"}, JobState.SUCCEEDED),
        ({"done": "True", "metadata": {"state": "BATCH_STATE_RUNNING"}}, JobState.SUCCEEDED),
        ({"done": "false", "metadata": {"state": "BATCH_STATE_RUNNING"}}, JobState.RUNNING),
        ({"response": {}, "metadata": {}}, JobState.UNKNOWN),
        ({"response": {"@type": "x"}, "metadata": {"state": "BATCH_STATE_RUNNING"}}, JobState.RUNNING),
    ],
)
def test_an_operation_without_done_and_state_has_ended_when_it_holds_its_outcome(
    gemini: BatchClient, listener: Listener, operation: dict[str, Any], state: JobState
) -> None:
    says(listener, {"name": NAME, **operation})
    assert gemini.get(NAME).state is state


@pytest.mark.parametrize("name", ["batch-abc", "files/Batch_a.1", "https://x.test/v1/files/Batch_a.1:download"])
def test_an_output_file_is_read_whatever_the_service_calls_it(
    gemini: BatchClient, listener: Listener, name: str
) -> None:
    job = {"name": NAME, "done": True, "metadata": {"output": {"responsesFile": name}}}
    line = json.dumps({"key": "a", **ITEM}).encode()
    listener.answer = lambda path: (200, {}, line if ":download" in path else json.dumps(job).encode())
    assert [result.key for result in gemini.get_responses(NAME)] == ["a"]
    path = listener.seen[-1][1]
    assert path in {
        "/download/v1beta/files/batch-abc:download?alt=media",
        "/download/v1beta/files/Batch_a.1:download?alt=media",
    }


@pytest.mark.parametrize(
    "name", ["files/../batches/a", "files/.", "files/a/b", "files/a:cancel", "files/a?x", "gs://a/b"]
)
def test_the_name_of_an_output_leads_nowhere_else(gemini: BatchClient, listener: Listener, name: str) -> None:
    says(listener, {"name": NAME, "done": True, "metadata": {"output": {"responsesFile": name}}})
    with pytest.raises(ConfigurationError, match="Invalid file name"):
        gemini.get_responses(NAME)
    assert len(listener.seen) == 1


def test_the_description_of_a_file_is_not_its_content(gemini: BatchClient, listener: Listener) -> None:
    job = {"name": NAME, "done": True, "metadata": {"output": {"responsesFile": "files/abc"}}}
    file = {"name": "files/abc", "mimeType": "application/jsonl", "downloadUri": "https://x"}
    listener.answer = lambda path: (200, {}, json.dumps(file if ":download" in path else job).encode())
    with pytest.raises(ServiceUnavailable, match="200, but the response is a description of the file"):
        gemini.get_responses(NAME)
