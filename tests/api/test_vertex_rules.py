"""What Vertex AI does not take is refused before anything is sent, and the refusal says what works instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError, TransportError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.request import normalise, request_body, request_defaults
from airflow_provider_gemini_batch.api.vertex_rules import check_job, check_request
from airflow_provider_gemini_batch.emulator.models import check_place
from airflow_provider_gemini_batch.emulator.wire import ApiError as EmulatorError

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.client import BatchClient

FLASH, OLDER, NEWER, LEGACY = "gemini-2.5-flash", "gemini-embedding-001", "gemini-embedding-2", "text-embedding-005"
TUNED = "projects/p/locations/us-central1/models/1"


@pytest.mark.parametrize(
    ("model", "location", "source", "answers", "way_out"),
    [
        (OLDER, "global", False, False, "us-central1, us-east1"),
        (OLDER, "us", False, False, "us-central1"),
        (OLDER, "eu", False, False, "europe-west4"),
        (NEWER, "us-central1", False, False, "global, us and eu"),
        ("gemini-embedding-2-preview", "europe-west4", False, False, "global, us and eu"),
        (OLDER, "us-central1", True, True, "gcs_uri"),
        (NEWER, "global", True, False, "Cloud Storage only"),
        (NEWER, "us", False, True, "gs:// destination"),
        (FLASH, "global", True, True, "set location to a region"),
        (FLASH, "global", False, True, r"\(destination\).*set location to a region"),
        (LEGACY, "global", True, True, "set location to a region"),
        (LEGACY, "global", False, False, "served in regions"),
        ("publishers/google/models/text-multilingual-embedding-002", "us", True, True, "served in regions"),
        ("textembedding-gecko@003", "eu", False, False, "such as us-central1"),
        (TUNED, "global", False, False, "the region that the model is in"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_the_way_out(
    model: str, location: str, source: Any, answers: Any, way_out: str
) -> None:
    with pytest.raises(ConfigurationError, match=way_out):
        check_job(model, location, source_table=source, response_table=answers)


@pytest.mark.parametrize(
    ("model", "location", "tables"),
    [
        (FLASH, "global", False),
        (FLASH, "us-central1", True),
        (OLDER, "us-central1", False),
        (f"publishers/google/models/{NEWER}", "global", False),
        (NEWER, "eu", False),
        (LEGACY, "us-central1", True),
        (TUNED, "us-central1", False),
        (f"projects/p/locations/global/publishers/google/models/{FLASH}", "global", False),
    ],
)
def test_a_place_that_can_be_is_taken(model: str, location: str, tables: Any) -> None:
    check_job(model, location, source_table=tables, response_table=tables)


@given(
    st.sampled_from([FLASH, OLDER, NEWER, LEGACY, "gemini-embedding-2-preview"]),
    st.sampled_from(["global", "us", "eu", "us-central1", "us-west4", "europe-west1"]),
    st.booleans(),
    st.booleans(),
)
def test_the_emulator_takes_what_is_let_through_and_nothing_else(
    model: str, location: str, source: Any, answers: Any
) -> None:
    spec: dict[str, Any] = {"inputConfig": {}, "outputConfig": {}}
    if source:
        spec["inputConfig"]["bigquerySource"] = {}
    if answers:
        spec["outputConfig"]["bigqueryDestination"] = {}

    def refused(check: Any, *args: Any, **options: Any) -> bool:
        try:
            check(*args, **options)
        except (ConfigurationError, EmulatorError):
            return True
        return False

    ours = refused(check_job, model, location, source_table=source, response_table=answers)
    assert ours == refused(check_place, model, location, spec)


def test_a_client_refuses_what_the_rules_refuse(offline_vertex: BatchClient) -> None:
    with pytest.raises(ConfigurationError, match="global, us and eu"):
        offline_vertex.create_embeddings(NEWER, gcs_uri="gs://b/x", destination="gs://b/out")
    with pytest.raises(TransportError):
        offline_vertex.create(FLASH, gcs_uri="gs://b/x", destination="gs://b/out")


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"x": 1}
    for _ in range(levels):
        found = {"x": found}
    return found


CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"tools": [{"googleSearch": {}}]}, r"tools\.googleSearch is empty.*excludeDomains"),
        ({"tools": [{"google_search": {}}]}, r"tools\.google_search is empty.*excludeDomains"),
        ({"tools": [{"url_context": {}}]}, "Gemini API"),
        ({"tools": [{"enterpriseWebSearch": {}}]}, "give it a member"),
        ({"tools": [{"urlContext": {}}]}, r"tools\.urlContext is empty.*Gemini API"),
        ({"tools": [{"codeExecution": {}}]}, "codeExecution is empty"),
        ({"tools": [{}]}, "tools is empty"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"properties": {}}}]}]},
            "properties is empty",
        ),
        ({"generationConfig": {"responseJsonSchema": {"$defs": {"a": 1}}}}, r"\$defs"),
        ({"generationConfig": {"responseSchema": {"properties": {"a b": {"type": "STRING"}}}}}, "blank"),
        ({"generationConfig": {"responseSchema": deep(14)}}, "15 levels"),
        ({"cachedContent": "cachedContents/x"}, "explicit caches"),
        ({"tools": [{"retrieval": {"vertexRagStore": {"x": 1}}}]}, "RAG"),
        ({"tools": [{"retrieval": {"vertex_rag_store": {"x": 1}}}]}, "RAG"),
        ({"tools": {"retrieval": {"vertexRagStore": {"x": 1}}}}, "RAG"),
        ({"generationConfig": {"imageConfig": {"imageSize": "4K"}}}, "1K only"),
        ({"generationConfig": {"image_config": {"image_size": "2k"}}}, "1K only"),
        ({"contents": [{"parts": [{"functionCall": {"name": "f", "args": {}}}]}]}, "args is empty"),
    ],
)
def test_a_row_that_would_fail_a_whole_import_is_refused(member: dict[str, Any], words: str) -> None:
    request = {**CONTENTS, **member}
    with pytest.raises(InputError, match=words):
        check_request(request)
    with pytest.raises(InputError, match=words):
        request_body(Service.VERTEX, JobKind.GENERATION, request)
    request_body(Service.GEMINI, JobKind.GENERATION, request)


@pytest.mark.parametrize(
    "member",
    [
        {"tools": [{"googleSearch": {"excludeDomains": ["example.com"]}}]},
        {"tools": [{"functionDeclarations": [{"name": "f"}]}]},
        {"generationConfig": {"responseSchema": deep(10), "imageConfig": {"imageSize": "1K"}}},
        {"contents": [{"parts": [{"text": ""}, {"fileData": {"fileUri": "gs://b/x"}}]}]},
        {"tools": "not a list"},
        {"contents": "x"},
    ],
)
def test_a_row_that_can_be_imported_is_taken(member: dict[str, Any]) -> None:
    check_request({**CONTENTS, **member})


def embedded(model: str, row: Any, **settings: Any) -> Any:
    defaults = request_defaults(JobKind.EMBEDDINGS, model=model, **settings)
    return normalise(row, kind=JobKind.EMBEDDINGS, defaults=defaults)[1]


@pytest.mark.parametrize(
    ("row", "task", "text"),
    [
        ("body", None, "body"),
        ("body", "RETRIEVAL_DOCUMENT", "title: none | text: body"),
        ({"text": "body", "title": "T"}, None, "title: T | text: body"),
        ({"text": "body", "title": "T"}, "RETRIEVAL_DOCUMENT", "title: T | text: body"),
        ("body", "RETRIEVAL_QUERY", "task: search result | query: body"),
        ("body", "SEMANTIC_SIMILARITY", "task: sentence similarity | query: body"),
        ({"text": "body", "task_type": "CLUSTERING"}, "RETRIEVAL_QUERY", "task: clustering | query: body"),
    ],
)
def test_the_newer_embedding_model_gets_task_and_title_in_its_text(row: Any, task: str | None, text: str) -> None:
    request = embedded(NEWER, row, task_type=task, output_dimensionality=768)
    assert request == {"content": {"parts": [{"text": text}]}, "outputDimensionality": 768}


def test_the_older_embedding_model_keeps_them_as_members() -> None:
    request = embedded(OLDER, {"text": "body", "title": "T"}, task_type="RETRIEVAL_DOCUMENT")
    assert request == {"content": {"parts": [{"text": "body"}]}, "title": "T", "taskType": "RETRIEVAL_DOCUMENT"}


@pytest.mark.parametrize(("row", "task"), [({"text": "b", "title": "T"}, "RETRIEVAL_QUERY"), ("b", "SOMETHING_ELSE")])
def test_a_task_that_has_no_words_is_refused(row: Any, task: str) -> None:
    with pytest.raises(InputError, match=r"title|task_type"):
        embedded(NEWER, row, task_type=task)


@pytest.mark.parametrize("member", [{"taskType": ["CLUSTERING"]}, {"taskType": {}}, {"title": 3}, {"title": {"a": 1}}])
def test_a_task_or_title_that_is_not_a_text_is_refused(member: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be a text"):
        embedded(NEWER, {"content": {"parts": [{"text": "b"}]}, **member})


def test_a_file_alone_goes_without_words() -> None:
    part = {"fileData": {"fileUri": "gs://b/a.jpeg", "mimeType": "image/jpeg"}}
    assert embedded(NEWER, {"content": {"parts": [part]}}, task_type="RETRIEVAL_DOCUMENT") == {
        "content": {"parts": [part]}
    }
