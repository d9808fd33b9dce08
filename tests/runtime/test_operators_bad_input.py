"""What cannot work: each is refused in words that say what and where, is not retried, and nothing has been sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from dag_runs import Run
from pydantic import BaseModel

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.decorators import gemini_batch_task
from airflow_provider_gemini_batch.operators import (
    GeminiCancelBatchJobOperator,
    GeminiCreateBatchJobOperator,
    GeminiCreateEmbeddingsBatchJobOperator,
    GeminiDeleteBatchJobOperator,
    GeminiGetBatchJobOperator,
    GeminiListBatchJobsOperator,
    GeminiUploadFileOperator,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_gemini_batch.emulator import Emulator


class Answer(BaseModel):
    text: str


VERTEX_JOB = "projects/demo-project/locations/us-central1/batchPredictionJobs/123"
GCS = {"gcs_uri": "gs://bucket/in.jsonl", "destination": "gs://bucket/out"}


def keyed(key: str) -> dict[str, Any]:
    return {"key": key, "request": {"contents": [{"parts": [{"text": "swordfish"}]}]}}


def yielded() -> Any:
    yield keyed("a")


# When the Dag is parsed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "a source is missing: give one of inlined_requests, file_name, input_path"),
        ({"inlined_requests": ["x"], "file_name": "files/a"}, "one source .* not inlined_requests and file_name"),
        ({"inlined_requests": ["x"], "poll_interval": 0}, "poll_interval must be above 0"),
        ({"inlined_requests": ["x"], "timeout": -1}, "timeout must be above 0"),
        ({"inlined_requests": ["x"], "skip_whole_parts": True}, "skip_whole_parts needs output_path"),
        *(
            ({"inlined_requests": ["x"], "system_instruction": Path(name)}, r"system_instruction .*read_text\(\) it")
            for name in ("/in/be.txt", "/in/{{ ds }}.txt")
        ),
        ({"inlined_requests": ["x"], "system_instruction": True}, "system_instruction must be a text, not bool"),
        *(
            (
                {"inlined_requests": ["x"], "output_schema": one},
                "output_schema must be a pydantic model, the class itself",
            )
            for one in ({"type": "object"}, "Review", Answer(text="x"))
        ),
        ({"inlined_requests": ["x"], "priority": "high"}, "priority must be a whole number"),
        ({"inlined_requests": ["x"], "on_stall": "pray"}, "on_stall must be 'fail' or 'resubmit'"),
        ({"inlined_requests": ["x"], "max_failure_rate": 2}, "max_failure_rate must be between 0 and 1"),
        ({"inlined_requests": ["x"], "max_rows_per_job": 0}, "max_rows_per_job must be at least 1"),
        *(
            ({"inlined_requests": ["x"], name: -1}, f"{name} must not be negative")
            for name in ("max_failed_rows", "max_resubmits", "repair_rounds", "lookup_timeout", "max_xcom_bytes")
        ),
        *(({name: " "}, f"{name} is empty") for name in ("input_path", "file_name", "gcs_uri", "bigquery_uri")),
        ({"input_path": ["/in/a.csv", ""], "on_empty": "skip"}, "input_path is empty"),
        *(({"inlined_requests": ["x"], name: ""}, f"{name} is empty") for name in ("output_path", "media_path")),
    ],
)
def test_what_no_template_can_mend_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigurationError, match=words):
        GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", **arguments)


@pytest.mark.parametrize(
    "operator",
    [GeminiCreateBatchJobOperator, GeminiCreateEmbeddingsBatchJobOperator, GeminiGetBatchJobOperator],
)
def test_an_argument_that_nobody_knows_is_refused_when_the_dag_is_parsed(operator: type[BaseOperator]) -> None:
    arguments = (
        {"model": "m", "inlined_requests": ["x"]} if "Create" in operator.__name__ else {"job_name": "batches/a"}
    )
    with DAG("d", schedule=None), pytest.raises(TypeError, match="temperatur"):
        operator(task_id="t", temperatur=1, **arguments)


def test_a_function_that_gives_the_rows_is_the_only_source() -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigurationError, match="so file_name cannot be given as well"):
        gemini_batch_task(yielded, model="gemini-2.5-flash", file_name="files/a")()


def test_a_model_and_a_job_name_are_required() -> None:
    with DAG("d", schedule=None):
        with pytest.raises(TypeError, match="model"):
            GeminiCreateBatchJobOperator(task_id="t", inlined_requests=["x"])
        with pytest.raises(TypeError, match="job_name"):
            GeminiGetBatchJobOperator(task_id="u")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="max_results must be at least 1"):
            GeminiListBatchJobsOperator(task_id="v", max_results=0)


# When the task runs

CREATE = [
    ({"inlined_requests": []}, "no rows"),
    ({"inlined_requests": [7]}, r"(item|row) .*(0|1).* not a number|number"),
    ({"inlined_requests": ["fine", {"key": "a", "request": "swordfish"}]}, "request.* object"),
    ({"inlined_requests": [keyed("a"), keyed("b"), keyed("a")]}, "key"),
    ({"inlined_requests": [{"text": "swordfish", "temperatur": 1}]}, "temperatur"),
    ({"model": "../files", "inlined_requests": ["x"]}, r"Invalid model name '\.\./files'"),
    ({"model": "models/../x", "inlined_requests": ["x"]}, "Invalid model name"),
    ({"file_name": "abc"}, "files/"),
    ({"file_name": "files/../x"}, "Invalid file name"),
    ({"file_name": "files/a", "generation_config": {"temperature": 1}}, "generation_config has no effect on file_name"),
    ({"file_name": "files/a", "prompt_template": "{x}"}, "prompt_template has no effect on file_name"),
    ({"gcs_uri": "gs://b/in.jsonl"}, "gcs_uri cannot be read by the Gemini .*; give input_path, inlined_requests"),
    ({"bigquery_uri": "bq://p.d.t"}, "bigquery_uri cannot be read by the Gemini"),
    ({"inlined_requests": ["x"], "destination": "gs://b/o"}, "destination is for Vertex AI"),
    ({"inlined_requests": ["x"], "labels": {"a": "b"}}, "labels: jobs of the Gemini API have none"),
    ({"inlined_requests": ["x"], "output_path": "/data/out.csv"}, "ends in .jsonl, .ndjson or .parquet"),
    ({"inlined_requests": yielded, "carry": ["x"]}, "carry needs the rows again .* give staging_path or output_path"),
    ({"input_path": "/nowhere/in.jsonl"}, "/nowhere/in.jsonl: No such file"),
    ({"input_path": "{{ 'in.jsonl' }}"}, "input_path: 'in.jsonl' is relative"),
    ({"input_path": "{{ ['/data/a.jsonl'] }}"}, "input_path: a template turns a list into text"),
    ({"inlined_requests": ["x"], "output_path": "{{ none }}"}, "output_path is empty"),
    ({"inlined_requests": [{"a": "x"}], "prompt_template": "{b}"}, "no column 'b'"),
    ({"inlined_requests": ["x"], "skip_whole_parts": "{{ true }}"}, "skip_whole_parts needs output_path"),
    ({"inlined_requests": ["x"], "max_cost_usd": 1e-9}, "max_cost_usd"),
    ({"gemini_conn_id": "vertex", "file_name": "files/a"}, "file_name cannot be read by Vertex AI; give gcs_uri"),
    ({"gemini_conn_id": "vertex", "inlined_requests": ["x"]}, "staging_path"),
    ({"gemini_conn_id": "vertex", **GCS, "gcs_uri": "s3://b/x"}, "s3://b/x"),
    ({"gemini_conn_id": "vertex", "gcs_uri": "gs://b/in.jsonl"}, "destination"),
    ({"gemini_conn_id": "vertex", **GCS, "priority": 1}, "priority"),
    ({"gemini_conn_id": "vertex", **GCS, "labels": {"Team": "a"}}, "label 'Team'"),
    ({"gemini_conn_id": "vertex", **GCS, "location": "us/../x"}, "location"),
    ({"gemini_conn_id": "no_key", "inlined_requests": ["x"]}, "'no_key', field 'password': holds no API key"),
    ({"gemini_conn_id": "no_project", **GCS}, "project"),
    ({"gemini_conn_id": "no_url", "inlined_requests": ["x"]}, "Connection 'no_url'.*host"),
    ({"gemini_conn_id": "bare", "inlined_requests": ["x"]}, "Connection 'bare'.*http://"),
]


def nothing_was_sent(service: Emulator) -> bool:
    books = service.control.books()
    return not (books["created"] or books["files"] or books["requests"])


def refused(task: type[BaseOperator], service: Emulator, **arguments: Any) -> str:
    """The words in which a task is refused that is not retried and has sent nothing."""
    with DAG("bad", schedule=None) as dag:
        task(task_id="t", retries=1, **arguments)
    outcome = Run(dag).attempt("t")
    assert nothing_was_sent(service)
    assert (outcome.state, type(outcome.error)) == ("failed", AirflowFailException), outcome.message
    assert "swordfish" not in outcome.message
    return outcome.message


@pytest.fixture
def bad_connections(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    good = json.loads(service.connection())
    vertex = json.loads(service.connection("vertex"))
    wrong = {
        "no_key": {**good, "password": ""},
        "no_project": {**vertex, "extra": {"backend": "vertex", "location": "us-central1"}},
        "no_url": {**good, "host": "not a url"},
        "bare": {**good, "host": "http://example.com"},
    }
    for name, connection in wrong.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))


@pytest.mark.slow
@pytest.mark.usefixtures("bad_connections")
@pytest.mark.parametrize(("arguments", "words"), CREATE, ids=[words for _, words in CREATE])
def test_a_batch_that_cannot_work_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], words: str, service: Emulator
) -> None:
    said = refused(GeminiCreateBatchJobOperator, service, **{"model": "gemini-2.5-flash", **arguments})
    assert re.search(words, said), said


OTHERS: list[tuple[type[BaseOperator], dict[str, Any], str]] = [
    (GeminiGetBatchJobOperator, {"job_name": VERTEX_JOB}, "Vertex AI job: use a connection to Vertex AI"),
    (GeminiCancelBatchJobOperator, {"job_name": "batches/a:delete"}, "Invalid Gemini job name"),
    (GeminiDeleteBatchJobOperator, {"job_name": "batches/../files/x"}, "Invalid Gemini job name"),
    (GeminiGetBatchJobOperator, {"job_name": "batches/a", "gemini_conn_id": "vertex"}, "job of the Gemini API: use a"),
    (GeminiListBatchJobsOperator, {"filter": "state=1"}, "filter: the Gemini API"),
    (GeminiUploadFileOperator, {"input_path": "/nowhere/in.jsonl"}, "/nowhere/in.jsonl"),
    (GeminiUploadFileOperator, {"input_path": __file__, "gemini_conn_id": "vertex"}, "no Files API"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "arguments", "words"), OTHERS, ids=[words for _, _, words in OTHERS])
def test_a_call_that_cannot_work_is_refused_before_anything_is_sent(
    task: type[BaseOperator], arguments: dict[str, Any], words: str, service: Emulator
) -> None:
    said = refused(task, service, **arguments)
    assert re.search(words, said), said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('{"text": "fine"}\n{"text": "swordfish', "line 2"),
        ('{"text": "fine"}\n\n["swordfish"]\n', "line 3"),
        ('{"key": "a", "text": "x"}\n{"key": "a", "text": "swordfish"}\n', "line 2.*key|key.*line 2"),
        ("", "no rows"),
    ],
    ids=["cut JSON", "no object", "a key used twice", "nothing"],
)
def test_a_file_that_cannot_be_sent_is_refused_by_line(
    lines: str, words: str, service: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text(lines)
    arguments = {"model": "gemini-2.5-flash", "input_path": f"{tmp_path}/in.jsonl"}
    said = refused(GeminiCreateBatchJobOperator, service, **arguments)
    assert re.search(words, said), said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"garbage": {"operation": "get", "body": "<html>swordfish</html>"}}, "get of batches/abc on 127.0.0.1"),
        ({}, "batches/abc.*NOT_FOUND|NOT_FOUND"),
    ],
    ids=["no JSON", "a job that vanished"],
)
def test_a_useless_response_is_an_error_that_names_the_call_and_the_host(
    faults: dict[str, Any], words: str, service: Emulator
) -> None:
    service.control.faults(**faults)
    with DAG("bad", schedule=None) as dag:
        GeminiGetBatchJobOperator(task_id="t", job_name="batches/abc", retries=1)
    outcome = Run(dag).attempt("t")
    assert (outcome.state, type(outcome.error)) == ("failed", AirflowFailException)
    assert re.search(words, outcome.message), outcome.message
    assert "swordfish" not in outcome.message
    assert set(service.control.books()["requests"]) == {"get"}
