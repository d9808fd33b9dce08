"""The operators on jobs and files that are there already, in Airflow's own task runner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from dag_runs import Run, dags_test
from runtime.tasks import keyed

from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import (
    GeminiCancelBatchJobOperator,
    GeminiCreateBatchJobOperator,
    GeminiDeleteBatchJobOperator,
    GeminiGetBatchJobOperator,
    GeminiGetBatchResponsesOperator,
    GeminiListBatchJobsOperator,
    GeminiUploadFileOperator,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow.sdk import BaseOperator

    from airflow_provider_gemini_batch.emulator import Emulator

pytestmark = pytest.mark.slow
MODEL = "gemini-2.5-flash"
TABLE: dict[str, Any] = {"bigquery_uri": "bq://demo-project.a.b", "destination": "bq://demo-project.a.c"}


@pytest.fixture
def hook(service: Emulator) -> Iterator[GeminiBatchHook]:
    del service  # the connection leads to it
    with GeminiBatchHook() as hook:
        yield hook


def done(task: type[BaseOperator], **arguments: Any) -> Any:
    """What a task that must succeed gives back."""
    run, outcome = tried(task, **arguments)
    assert outcome.state == "success", outcome.message
    return run.xcom("t")


def tried(task: type[BaseOperator], **arguments: Any) -> Any:
    with DAG("jobs", schedule=None, params={"empty": ""}) as dag:
        task(task_id="t", **arguments)
    run = Run(dag)
    return run, run.attempt("t")


def somebody_elses_job(hook: GeminiBatchHook, service: Emulator, **source: Any) -> str:
    rows = source or {"inlined_requests": [keyed("r7-seven", "Seven."), keyed("eight", "Eight.")]}
    name = hook.create(MODEL, display_name="made by hand", **rows).name
    service.control.advance(60)
    return name


def test_a_job_that_somebody_else_made_is_looked_up(service: Emulator, hook: GeminiBatchHook) -> None:
    name = somebody_elses_job(hook, service)
    run, outcome = tried(GeminiGetBatchJobOperator, job_name=name + "{{ params.empty }}")
    assert outcome.state == "success", outcome.message
    job = run.xcom("t")
    assert (job["name"], job["state"], job["display_name"]) == (name, "SUCCEEDED", "made by hand")
    assert (job["completion_stats"]["success"], job["error"]) == (2, None)
    assert json.loads(json.dumps(job)) == job
    assert run.xcom("t", "gemini_batch_job_link") == "https://aistudio.google.com/batches"


def test_jobs_are_listed_newest_first_and_no_more_than_asked_for(service: Emulator, hook: GeminiBatchHook) -> None:
    names = [somebody_elses_job(hook, service) for _ in range(3)]
    listed = done(GeminiListBatchJobsOperator)
    assert [(job["name"], job["state"]) for job in listed] == [(name, "SUCCEEDED") for name in names[::-1]]
    # A job whose answers came along would say so here.
    assert [job["dest"] for job in listed] == [None] * 3
    assert [job["name"] for job in done(GeminiListBatchJobsOperator, max_results=2)] == names[:0:-1]


def test_on_vertex_jobs_are_listed_by_filter(service: Emulator) -> None:
    with GeminiBatchHook("vertex") as vertex:
        vertex.create(MODEL, labels={"team": "a"}, **TABLE)
        other = vertex.create(MODEL, labels={"team": "b"}, **TABLE).name
    found = done(GeminiListBatchJobsOperator, gemini_conn_id="vertex", filter='labels.team="b"')
    assert [job["name"] for job in found] == [other]
    assert service.control.books()["created"] == 2


def test_answers_of_jobs_that_others_made_keep_their_keys_inline_or_in_a_file(
    service: Emulator, hook: GeminiBatchHook, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(keyed(key, f"{key}.")) for key in ("r7-seven", "eight")))
    inline = somebody_elses_job(hook, service)
    in_file = somebody_elses_job(hook, service, file_name=hook.upload_file(tmp_path / "in.jsonl").name)
    for name in (inline, in_file):
        result = done(GeminiGetBatchResponsesOperator, job_name=name)
        assert {row["key"]: row["status"] for row in result["responses"]} == {"r7-seven": "ok", "eight": "ok"}
        assert (result["job_name"], result["counts"]["succeeded"]) == (name, 2)
    landed = done(GeminiGetBatchResponsesOperator, job_name=in_file, output_path=f"{tmp_path}/out.jsonl")
    assert (landed["output"], landed["responses"]) == (f"{tmp_path}/out.jsonl", None)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "_out.jsonl.manifest.json").exists()


def test_an_output_that_was_cut_short_is_landed_with_a_warning(
    service: Emulator, hook: GeminiBatchHook, caplog: pytest.LogCaptureFixture
) -> None:
    name = hook.create(MODEL, inlined_requests=[keyed("a", "A.")]).name
    service.control.set_job(name, state="CANCELLED")
    with caplog.at_level("WARNING", "airflow_provider_gemini_batch"):
        assert done(GeminiGetBatchResponsesOperator, job_name=name)["state"] == "CANCELLED"
    assert f"{name} was cancelled: its output has only the rows that it had finished." in caplog.messages


def test_embeddings_of_a_job_that_somebody_else_made_are_landed(service: Emulator, hook: GeminiBatchHook) -> None:
    job = hook.create_embeddings("gemini-embedding-001", inlined_requests=["One."])
    service.control.advance(60)
    result = done(GeminiGetBatchResponsesOperator, job_name=job.name)
    assert result["counts"]["succeeded"] == 1
    assert [row["key"] for row in result["responses"] if row["embedding"]] == ["0"]
    (row,) = hook.iter_results(hook.list(brief=True).batch_jobs[0])
    assert row["embedding"] == result["responses"][0]["embedding"]


@pytest.mark.usefixtures("service")
def test_answers_of_a_job_of_ours_have_the_authors_keys() -> None:
    rows = [keyed(f"key {n}", f"Prompt {n}.") for n in range(12)]
    with DAG("ours", schedule=None) as dag:
        made = GeminiCreateBatchJobOperator(task_id="t", model=MODEL, inlined_requests=rows, poll_interval=0.1)
        read = GeminiGetBatchResponsesOperator(task_id="read", job_name="{{ ti.xcom_pull('t', key='job_name') }}")
        made >> read
    run = Run(dag)
    assert [run.attempt(name).state for name in ("t", "read")] == ["success", "success"]
    assert [row["key"] for row in run.xcom("read")["responses"]] == [f"key {n}" for n in range(12)]
    assert run.xcom("read")["responses"] == run.xcom("t")["responses"]


def test_answers_of_a_job_that_has_not_ended_are_not_waited_for(service: Emulator, hook: GeminiBatchHook) -> None:
    service.control.faults(hold_running=True)
    name = hook.create(MODEL, inlined_requests=["One."]).name
    _, outcome = tried(GeminiGetBatchResponsesOperator, job_name=name, retries=1)
    assert (outcome.state, type(outcome.error)) == ("failed", AirflowFailException)
    assert f"{name} has not ended" in outcome.message


def test_a_running_job_is_cancelled_and_an_ended_one_is_not_an_error(service: Emulator, hook: GeminiBatchHook) -> None:
    ended = somebody_elses_job(hook, service)
    service.control.faults(hold_running=True)
    running = hook.create(MODEL, inlined_requests=["One."]).name
    assert done(GeminiCancelBatchJobOperator, job_name=running) == running
    assert done(GeminiCancelBatchJobOperator, job_name=ended) == ended
    assert (hook.get(running).state.value, hook.get(ended).state.value) == ("CANCELLED", "SUCCEEDED")
    assert [job["cancel_calls"] for job in service.control.books()["jobs"]] == [0, 1]


def test_a_job_is_deleted_once_and_is_gone_the_second_time(service: Emulator, hook: GeminiBatchHook) -> None:
    name = somebody_elses_job(hook, service)
    for _ in range(2):
        assert done(GeminiDeleteBatchJobOperator, job_name=name) == name
    assert [job["deleted"] for job in service.control.books()["jobs"]] == [True]
    _, outcome = tried(GeminiGetBatchJobOperator, job_name=name, retries=1)
    assert (outcome.state, type(outcome.error)) == ("failed", AirflowFailException)
    assert name in outcome.message


def test_a_file_that_one_task_uploads_is_the_source_of_the_next(service: Emulator, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(keyed(key, f"{key}.")) for key in ("one", "two")))
    with DAG("upload", schedule=None, params={"folder": str(tmp_path)}) as dag:
        uploaded = GeminiUploadFileOperator(
            task_id="up", input_path="{{ params.folder }}/in.jsonl", display_name="rows of {{ ds }}"
        )
        made = GeminiCreateBatchJobOperator(task_id="t", model=MODEL, file_name=uploaded.output, poll_interval=0.1)
        made >> GeminiDeleteBatchJobOperator(task_id="delete", job_name="{{ ti.xcom_pull('t')['job_name'] }}")
    run = dags_test(dag)
    (file,) = service.control.books()["files"]
    assert run.xcom("up") == file["name"]
    assert file["display_name"].startswith("rows of 20")
    assert [row["key"] for row in run.xcom("t")["responses"]] == ["one", "two"]
    assert [job["deleted"] for job in service.control.books()["jobs"]] == [True]


def test_a_call_that_may_succeed_later_is_left_to_airflows_retries(service: Emulator, hook: GeminiBatchHook) -> None:
    name = somebody_elses_job(hook, service)
    service.control.faults(http={"operation": "get", "status": 503})
    _, outcome = tried(GeminiGetBatchJobOperator, job_name=name, retries=1)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", AirflowException)


@pytest.mark.parametrize(
    ("task", "operation"),
    [
        (GeminiGetBatchJobOperator, "get"),
        (GeminiCancelBatchJobOperator, "cancel"),
        (GeminiDeleteBatchJobOperator, "delete"),
    ],
)
def test_a_404_of_a_gateway_does_not_say_that_a_job_is_gone(
    service: Emulator, hook: GeminiBatchHook, task: type[BaseOperator], operation: str
) -> None:
    service.control.faults(hold_running=True)
    name = hook.create(MODEL, inlined_requests=["One."]).name
    service.control.faults(http={"operation": operation, "status": 404, "body": "html"})
    _, outcome = tried(task, job_name=name, retries=1)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", AirflowException)
