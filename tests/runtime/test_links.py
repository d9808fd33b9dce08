"""The link from a task to its job's page."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetXCom, XComResult
from airflow.sdk.types import TaskInstanceKey

from airflow_provider_gemini_batch.links import GeminiBatchJobLink, job_url
from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO

VERTEX = "projects/my-project/locations/us-central1/batchPredictionJobs/42"
VERTEX_URL = "https://console.cloud.google.com/vertex-ai/locations/us-central1/batch-predictions/42?project=my-project"
STUDIO_URL = "https://aistudio.google.com/batches"
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
def test_a_jobs_name_tells_its_page(name: object, url: str) -> None:
    assert job_url(name) == url


@dataclass
class Supervisor:
    """Stands where Airflow's supervisor answers a task's questions."""

    value: Any

    def send(self, message: GetXCom) -> XComResult:
        assert message.key == "job_name"
        return XComResult(key=message.key, value=self.value)


@pytest.mark.parametrize(
    ("pushed", "given", "url"),
    [
        (VERTEX, None, VERTEX_URL),
        (VERTEX, "batches/given", STUDIO_URL),
        (None, "batches/given", STUDIO_URL),
        (None, None, ""),
    ],
)
def test_the_link_leads_to_the_job_that_the_task_was_given_else_to_the_one_it_made(
    monkeypatch: pytest.MonkeyPatch, pushed: str | None, given: str | None, url: str
) -> None:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(pushed), raising=False)
    assert GeminiBatchJobLink().get_link(SimpleNamespace(job_name=given), ti_key=KEY) == url


def test_airflow_is_told_of_the_link_by_its_import_path() -> None:
    path = f"{GeminiBatchJobLink.__module__}.{GeminiBatchJobLink.__qualname__}"
    assert PROVIDER_INFO["extra-links"] == [path]
