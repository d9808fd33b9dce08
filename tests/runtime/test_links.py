"""The links from a task to its batch's page, its job and its output."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.types import TaskInstanceKey

from airflow_provider_gemini_batch.links import (
    GeminiBatchJobLink,
    GeminiBatchLink,
    GeminiBatchOutputLink,
    job_url,
)
from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO

VERTEX = "projects/my-project/locations/us-central1/batchPredictionJobs/42"
VERTEX_URL = "https://console.cloud.google.com/vertex-ai/locations/us-central1/batch-predictions/42?project=my-project"
STUDIO_URL = "https://aistudio.google.com/batches"
STORAGE_URL = "https://console.cloud.google.com/storage/browser"
BIGQUERY_URL = "https://console.cloud.google.com/bigquery"
KEY = TaskInstanceKey(dag_id="d", task_id="t", run_id="r", try_number=1, map_index=-1)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("batches/abc123", STUDIO_URL),
        (VERTEX, VERTEX_URL),
        ([VERTEX, "batches/abc"], VERTEX_URL),
        (["batches/abc"], STUDIO_URL),
        ([], ""),
        (None, ""),
        ("", ""),
        (7, ""),
        ("https://evil.example.com/", ""),
        ("projects/p/locations/l/batchPredictionJobs/4?x=y", ""),
        ("projects/p/../locations/l/batchPredictionJobs/4", ""),
    ],
)
def test_the_page_of_a_job_follows_from_its_name(name: object, url: str) -> None:
    assert job_url(name) == url


@pytest.mark.parametrize(
    ("used", "given", "url"),
    [
        (VERTEX, None, VERTEX_URL),
        (VERTEX, "batches/given", STUDIO_URL),
        ("", "batches/given", STUDIO_URL),
        ("", None, ""),
    ],
)
def test_the_link_leads_to_the_job_that_the_task_was_given_else_to_the_first_that_it_used(
    used: str, given: str | None, url: str
) -> None:
    operator = SimpleNamespace(job_name=given, first_job_name=used)
    assert GeminiBatchJobLink().get_link(operator, ti_key=KEY) == url


@pytest.mark.parametrize(
    ("path", "destination", "url"),
    [
        ("gs://bucket/a folder/rows.jsonl", None, f"{STORAGE_URL}/bucket/a%20folder/rows.jsonl"),
        ("gs://bucket/folder/", None, f"{STORAGE_URL}/bucket/folder"),
        (None, "gs://bucket/answers", f"{STORAGE_URL}/bucket/answers"),
        ("/data/rows.jsonl", "gs://bucket/answers", ""),
        (None, "bq://project.set.table", f"{BIGQUERY_URL}?project=project&p=project&d=set&page=table&t=table"),
        (None, "bq://project.set", f"{BIGQUERY_URL}?project=project&p=project&d=set&page=dataset"),
        (None, "bq://project", ""),
        ("s3://bucket/rows", None, ""),
        ("javascript:alert(1)", None, ""),
        ("gs://", None, ""),
        (None, None, ""),
        (["gs://x/y"], None, ""),
        (7, None, ""),
        (ObjectStoragePath("gs://bucket/rows.jsonl", conn_id="my_gcs"), None, f"{STORAGE_URL}/bucket/rows.jsonl"),
        ("gs://my_gcs@bucket/a@b.jsonl", None, f"{STORAGE_URL}/bucket/a%40b.jsonl"),
        (Path("/data/rows.jsonl"), None, ""),
    ],
)
def test_an_output_has_a_link_where_a_browser_can_look_at_it(path: object, destination: object, url: str) -> None:
    operator = SimpleNamespace(output_path=path, destination=destination)
    assert GeminiBatchOutputLink().get_link(operator, ti_key=KEY) == url


@pytest.mark.parametrize(
    ("base_url", "version", "start"),
    [
        ("", "3.3.2", "/plugin/gemini-batches/gemini-batches/batch?"),
        ("http://host:8080", "3.3.2", "http://host:8080/plugin/gemini-batches/gemini-batches/batch?"),
        ("http://host/airflow/", "3.10.0", "http://host/airflow/plugin/gemini-batches/airflow/gemini-batches/batch?"),
        ("http://host/airflow", "3.2.2", "http://host/airflow/gemini-batches/batch?"),
    ],
)
def test_the_first_link_opens_the_page_of_the_batch(
    monkeypatch: pytest.MonkeyPatch, base_url: str, version: str, start: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    monkeypatch.setattr("airflow.__version__", version)
    key = KEY._replace(run_id="manual__2026-11-26T02:00:00+00:00", map_index=3)
    assert GeminiBatchLink().get_link(SimpleNamespace(), ti_key=key) == (
        f"{start}dag_id=d&run_id=manual__2026-11-26T02%3A00%3A00%2B00%3A00&task_id=t&map_index=3"
    )


def test_airflow_finds_the_links_by_their_import_paths() -> None:
    links = (GeminiBatchLink, GeminiBatchJobLink, GeminiBatchOutputLink)
    assert PROVIDER_INFO["extra-links"] == [f"{link.__module__}.{link.__qualname__}" for link in links]
