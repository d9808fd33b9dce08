"""Whatever JSON a service answers, a reader gives values or one of our errors, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.backends.gemini import GeminiBackend
from airflow_provider_gemini_batch.api.backends.vertex import VertexBackend, VertexPlace
from airflow_provider_gemini_batch.api.errors import UnexpectedResponse
from airflow_provider_gemini_batch.api.google.files import GeminiFiles
from airflow_provider_gemini_batch.api.models import JobSnapshot
from airflow_provider_gemini_batch.api.transport import WholeResponse

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.transport import Call, Transport


def words(text: str) -> list[str]:
    return text.split()


GEMINI = words(
    "metadata state done error response code message batchStats requestCount successfulRequestCount createTime "
    "startTime output responsesFile inlinedResponses inputConfig fileName priority @type model displayName"
)
VERTEX = words(
    "state error code message completionStats successfulCount incompleteCount createTime inputConfig gcsSource uris "
    "bigquerySource inputUri outputInfo gcsOutputDirectory bigqueryOutputDataset bigqueryOutputTable outputConfig "
    "gcsDestination outputUriPrefix bigqueryDestination outputUri labels model displayName"
)
FILES = words("displayName mimeType sizeBytes createTime expirationTime sha256Hash uri state source")
VERTEX_JOB = "projects/p/locations/global/batchPredictionJobs/1"
TIMES = ("2026-99-99T00:00:00Z", "0001-01-01T00:00:00+23:59", "2026-11-22T10:00:00Z")


def shapes(members: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects that have the right members, with anything in them."""
    plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
    names = st.sampled_from(members)
    anything = st.recursive(
        plain | st.sampled_from(TIMES),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=5),
        max_leaves=15,
    )
    return st.dictionaries(names, anything, max_size=6)


class _Answers:
    """A transport that brings the same answer to every call."""

    def __init__(self, answer: object) -> None:
        self._body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def send(self, call: Call) -> WholeResponse:  # noqa: ARG002
        return WholeResponse(200, {}, self._body)

    def send_partial(self, call: Call, **_: str) -> WholeResponse:
        return self.send(call)


def transport(answer: object) -> Transport:
    return cast("Transport", _Answers(answer))


def gemini(answer: object) -> GeminiBackend:
    nothing = cast("GeminiFiles", None)  # a list opens no file
    return GeminiBackend(transport(answer), nothing, base_url="http://x")


def vertex(answer: object) -> VertexBackend:
    nothing = cast("Any", None)  # a list opens neither objects nor tables
    return VertexBackend(transport(answer), nothing, nothing, VertexPlace.of("p", "global"))


def read(backend: GeminiBackend | VertexBackend) -> None:
    """A job that has a name can be read, in full and as a look, and both tell the same."""
    page = backend.list(page_size=1, page_token=None, filter_=None, brief=True)
    looks = backend.snapshots(page_size=1, page_token=None)
    assert [JobSnapshot.of(job) for job in page.batch_jobs] == looks.snapshots
    assert len(looks.snapshots) == 1
    assert looks.next_page_token == page.next_page_token


@given(shapes(GEMINI), shapes(GEMINI), st.integers() | st.text(max_size=3))
@example({}, {"createTime": TIMES[0]}, 5)
@example({}, {"createTime": TIMES[2], "startTime": TIMES[2], "batchStats": {"requestCount": "3"}}, "next")
def test_a_job_of_the_gemini_api_of_any_shape_is_read(
    operation: dict[str, Any], metadata: dict[str, Any], token: object
) -> None:
    for entry in (operation, {**operation, "metadata": metadata}):
        read(gemini({"operations": [{**entry, "name": "batches/one"}], "nextPageToken": token}))


@given(shapes(VERTEX), st.integers() | st.text(max_size=3))
@example({"createTime": TIMES[2], "startTime": TIMES[2], "completionStats": {"incompleteCount": "-1"}}, "next")
@example({"inputConfig": {"gcsSource": {"uris": 1}}, "outputInfo": {"gcsOutputDirectory": [None]}}, 5)
def test_a_job_of_vertex_of_any_shape_is_read(job: dict[str, Any], token: object) -> None:
    read(vertex({"batchPredictionJobs": [{**job, "name": VERTEX_JOB}], "nextPageToken": token}))


@given(shapes(FILES), st.integers() | st.text(max_size=3))
@example({"sha256Hash": "é"}, 5)
def test_a_file_of_any_shape_is_read(file: dict[str, Any], token: object) -> None:
    answer = {"files": [{**file, "name": "files/one"}], "nextPageToken": token}
    files = GeminiFiles(transport(answer), base_url="http://x", own_host=False)
    assert files.list(page_size=1, page_token=None).files[0].name == "files/one"


def test_texts_of_a_file_and_of_a_source_hold_nothing_that_a_database_refuses() -> None:
    texts = dict.fromkeys(("mimeType", "uri", "state", "source"), "a\0\ud800b")
    answer = {"files": [{**texts, "name": "files/one"}]}
    files = GeminiFiles(transport(answer), base_url="http://x", own_host=False)
    (file,) = files.list(page_size=1, page_token=None).files
    source = {"name": VERTEX_JOB, "inputConfig": {"gcsSource": {"uris": ["a\0\ud800b", None]}}}
    (job,) = (
        vertex({"batchPredictionJobs": [source]})
        .list(page_size=1, page_token=None, filter_=None, brief=False)
        .batch_jobs
    )
    assert job.src is not None
    assert {file.mime_type, file.uri, file.state, file.source, *job.src.gcs_uris} == {"a\ufffd?b"}


@pytest.mark.parametrize("answer", [{}, {"operations": None}, {"operations": [None]}])
def test_a_page_without_jobs_gives_no_snapshots(answer: object) -> None:
    assert gemini(answer).snapshots(page_size=1, page_token=None).snapshots == []


@pytest.mark.parametrize(
    "answer", [[], "text", 1, None, {"operations": 1}, {"operations": [1, None]}, {"operations": [{"name": 1}]}]
)
def test_an_answer_that_is_not_a_page_of_jobs_is_refused(answer: object) -> None:
    with pytest.raises(UnexpectedResponse):
        gemini(answer).snapshots(page_size=1, page_token=None)


def test_a_job_on_a_page_that_only_a_lenient_parser_reads_is_read() -> None:
    jobs = b'{"name": "batches/\xff1"}, null, {"name": "batches/2", "x": "a\tb"}'
    page = gemini(b'{"operations": [%b], "nextPageToken": "t"}' % jobs).snapshots(page_size=1, page_token=None)
    assert [snapshot.name[-1] for snapshot in page.snapshots] == ["1", "2"]
    assert page.next_page_token == "t"
