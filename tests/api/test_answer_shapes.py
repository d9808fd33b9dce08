"""Whatever JSON a service answers, a reader gives values or one of our errors, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.backends.gemini import GeminiBackend
from airflow_provider_gemini_batch.api.backends.vertex import VertexBackend, VertexPlace
from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.api.files import GeminiFiles
from airflow_provider_gemini_batch.api.transport import Answer

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
        self._body = json.dumps(answer).encode()

    def send(self, call: Call) -> Answer:  # noqa: ARG002
        return Answer(200, {}, self._body)


def transport(answer: object) -> Transport:
    return cast("Transport", _Answers(answer))


@given(shapes(GEMINI), shapes(GEMINI), st.integers() | st.text(max_size=3))
@example({}, {"createTime": TIMES[0]}, 5)
def test_a_job_of_the_gemini_api(operation: dict[str, Any], metadata: dict[str, Any], token: object) -> None:
    for entry in (operation, {**operation, "metadata": metadata}):
        answer = {"operations": [{**entry, "name": "batches/one"}], "nextPageToken": token}
        nothing = cast("GeminiFiles", None)  # a list opens no file
        backend = GeminiBackend(transport(answer), nothing, base_url="http://x", api_version="v1beta")
        with suppress(GeminiBatchError):
            page = backend.list(page_size=1, page_token=None, filter_=None, brief=True)
            looks = backend.glances(page_size=1, page_token=None)
            assert looks.glances[0].seen.state is page.batch_jobs[0].state
            assert looks.next_page_token == page.next_page_token


@given(shapes(VERTEX), st.integers() | st.text(max_size=3))
@example({"inputConfig": {"gcsSource": {"uris": 1}}, "outputInfo": {"gcsOutputDirectory": [None]}}, 5)
def test_a_job_of_vertex(job: dict[str, Any], token: object) -> None:
    name = "projects/p/locations/global/batchPredictionJobs/1"
    answer = {"batchPredictionJobs": [{**job, "name": name}], "nextPageToken": token}
    nothing = cast("Any", None)  # a list opens neither objects nor tables
    backend = VertexBackend(transport(answer), nothing, nothing, VertexPlace.of("p", "global"))
    with suppress(GeminiBatchError):
        page = backend.list(page_size=1, page_token=None, filter_=None, brief=True)
        looks = backend.glances(page_size=1, page_token=None)
        assert looks.glances[0].seen.state is page.batch_jobs[0].state
        assert looks.next_page_token == page.next_page_token


@given(shapes(FILES), st.integers() | st.text(max_size=3))
@example({"sha256Hash": "é"}, 5)
def test_a_file(file: dict[str, Any], token: object) -> None:
    answer = {"files": [{**file, "name": "files/one"}], "nextPageToken": token}
    files = GeminiFiles(transport(answer), base_url="http://x", api_version="v1beta", own_host=False)
    with suppress(GeminiBatchError):
        assert files.list(page_size=1, page_token=None).files[0].name == "files/one"


@pytest.mark.parametrize("answer", [[], "text", 1, None, {"operations": 1}, {"operations": [1, None]}])
def test_a_page_that_is_none(answer: object) -> None:
    backend = GeminiBackend(transport(answer), cast("GeminiFiles", None), base_url="http://x", api_version="v1beta")
    with suppress(GeminiBatchError):
        assert backend.glances(page_size=1, page_token=None).glances == []
