"""The create operators in Airflow's own task runner: from every source to rows, XCom, output, links and logs."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task
from dag_runs import Run, dags_test
from runtime.tasks import MODEL, create, jobs, keyed, needs_notes

from airflow_provider_gemini_batch.api.requests.request import BatchRequest
from airflow_provider_gemini_batch.batch import timeouts
from airflow_provider_gemini_batch.batch.tag import Tag
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import (
    GeminiCreateBatchJobOperator,
    GeminiCreateEmbeddingsBatchJobOperator,
)
from airflow_provider_gemini_batch.staging import job_service

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

pytestmark = pytest.mark.slow
ROWS = ["One.", "Two.", "Three.", "Four."]
STUDIO = "https://aistudio.google.com/batches"


def one(**arguments: Any) -> Run:
    with DAG("one", schedule=None) as dag:
        create("t", retry_delay=timedelta(hours=1), **arguments)
    return Run(dag)


def requests(service: Emulator) -> dict[str, int]:
    found: dict[str, int] = service.control.books()["requests"]
    return found


def rows_file(folder: Path, count: int) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(keyed(f"row {n}", f"Prompt {n}.")) + "\n" for n in range(count)))
    return path


def answers(result: dict[str, Any]) -> dict[str, str]:
    """Key to the answer's gist, which is the request's first sentence, in the order of the rows."""
    return {row["key"]: row["text"].partition("] ")[2] for row in result["responses"]}


# What comes back


def test_the_xcom_of_a_task_holds_what_the_docs_say_and_nothing_that_is_not_plain(service: Emulator) -> None:
    run = one(inlined_requests=["One.", "Two."], display_name="nightly lines")
    assert run.attempt("t").state == "success"
    (job,) = jobs(service)
    result = run.xcom("t")
    assert {name: result[name] for name in ("job_name", "job_names", "state", "model", "display_name", "output")} == {
        "job_name": job["name"],
        "job_names": [job["name"]],
        "state": "SUCCEEDED",
        "model": MODEL,
        "display_name": job["display_name"],
        "output": None,
    }
    assert {name: result["counts"][name] for name in ("total", "succeeded", "failed")} == {
        "total": 2,
        "succeeded": 2,
        "failed": 0,
    }
    assert result["usage"] == {"input_tokens": 2, "output_tokens": 10, "thinking_tokens": 0, "cached_tokens": 0}
    assert answers(result) == {"0": "One.", "1": "Two."}
    assert result["responses"][0].keys() == {"key", "status", "text", "finish_reason", "usage", "error"}
    assert json.loads(json.dumps(result)) == result
    assert run.xcom("t", "job_name") == job["name"]
    assert run.xcom("t", "gemini_batch_job_link") == STUDIO


def test_deferred_or_not_the_xcom_is_the_same(service: Emulator) -> None:
    with DAG("both", schedule=None) as dag:
        create("deferred", inlined_requests=ROWS)
        create("waiting", inlined_requests=ROWS, deferrable=False)
    run = Run(dag)
    assert [run.attempt(name).state for name in ("deferred", "waiting")] == ["success", "success"]
    deferred, waited = run.xcom("deferred"), run.xcom("waiting")
    for name in ("job_name", "job_names", "display_name"):
        assert deferred.pop(name) != waited.pop(name)
    assert deferred == waited
    assert len(jobs(service)) == 2


def test_the_job_has_the_authors_name_and_a_tag_and_no_list_call_was_made(service: Emulator) -> None:
    run = one(inlined_requests=ROWS, display_name="a name  of\nthe author's", priority=3)
    run.attempt("t")
    (job,) = jobs(service)
    tag = Tag.parse(job["display_name"])
    assert tag is not None
    assert job["display_name"] == f"a name of the author's-{tag}"
    assert (tag.clear_count, tag.shard, tag.round, tag.submission) == (0, 0, 0, 0)
    assert GeminiBatchHook().get(job["name"]).priority == 3
    assert "list" not in requests(service)


def test_a_task_that_does_not_wait_ends_as_soon_as_the_job_exists(service: Emulator) -> None:
    service.control.faults(hold_pending=True)
    run = one(inlined_requests=ROWS, wait_for_completion=False)
    result = run.attempt("t")
    assert (result.state, result.deferrals) == ("success", [])
    (job,) = jobs(service)
    xcom = run.xcom("t")
    assert (xcom["job_name"], xcom["state"], xcom["responses"]) == (job["name"], "PENDING", None)
    assert run.xcom("t", "job_name") == job["name"]


def test_a_task_that_does_not_wait_says_what_has_no_effect(
    service: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{tmp_path}/out.jsonl"
    run = one(inlined_requests=ROWS, wait_for_completion=False, output_path=path, max_failed_rows=0)
    assert run.attempt("t").state == "success"
    assert "so these have no effect: output_path, max_failed_rows. Read the rows with" in caplog.text
    assert len(jobs(service)) == 1


def test_the_rows_of_one_batch_are_the_input_of_the_next(service: Emulator) -> None:
    with DAG("chain", schedule=None) as dag:
        first: Any = create("first", inlined_requests=ROWS, multiple_outputs=True)
        create("second", inlined_requests=first.output["responses"], prompt_template="{text}", key_field="key")
    run = dags_test(dag)
    assert [row["key"] for row in run.xcom("second")["responses"]] == ["0", "1", "2", "3"]
    assert len(jobs(service)) == 2


def test_the_name_of_a_failed_job_is_also_in_xcom(service: Emulator) -> None:
    service.control.faults(job_ending={"state": "FAILED", "code": 3, "message": "no"})
    run = one(inlined_requests=ROWS)
    assert run.attempt("t").state == "failed"
    assert run.xcom("t") is None
    assert run.xcom("t", "job_name") == jobs(service)[0]["name"]
    assert run.xcom("t", "gemini_batch_job_link") == STUDIO


def test_rows_that_do_not_fit_stay_out_of_xcom_and_the_log_says_where_they_are(
    service: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    run = one(inlined_requests=ROWS, max_xcom_bytes=300)
    run.attempt("t")
    result = run.xcom("t")
    assert (result["responses"], result["output"], result["counts"]["succeeded"]) == (None, None, 4)
    assert "Set output_path" in caplog.text
    assert len(jobs(service)) == 1


def test_failed_rows_come_with_their_reason(service: Emulator) -> None:
    service.control.faults(row_error_every=2, row_error_code=3, row_error_message="This row was bad.")
    run = one(inlined_requests=ROWS)
    assert run.attempt("t").state == "success"
    result = run.xcom("t")
    assert (result["counts"]["succeeded"], result["counts"]["failed"]) == (2, 2)
    bad = [row for row in result["responses"] if row["status"] == "error"]
    assert [row["error"] for row in bad] == [{"code": 3, "message": "This row was bad."}] * 2


def test_nothing_is_sent_in_a_dry_run(service: Emulator) -> None:
    run = one(inlined_requests=ROWS, dry_run=True)
    assert run.attempt("t").state == "success"
    result = run.xcom("t")
    assert (result["job_name"], result["rows"], result["jobs"]) == (None, 4, 1)
    assert requests(service) == {}


# Sources


def yielded() -> Any:
    yield "One."
    yield keyed("two", "Two.")


MIXED = [
    "One.",
    {"contents": [{"role": "user", "parts": [{"text": "Two."}]}]},
    keyed("third", "Three."),
    BatchRequest(key="fourth", text="Four."),
    {"text": "Five.", "generation_config": {"temperature": 0.1}},
]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["One.", "Two."], {"0": "One.", "1": "Two."}),
        (MIXED, {"0": "One.", "1": "Two.", "third": "Three.", "fourth": "Four.", "4": "Five."}),
        (yielded, {"0": "One.", "two": "Two."}),
    ],
    ids=["texts", "every form of a request", "a function"],
)
def test_requests_are_given_as_texts_objects_typed_values_or_a_function(
    rows: Any, expected: dict[str, str], service: Emulator
) -> None:
    run = one(inlined_requests=rows)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert answers(run.xcom("t")) == expected
    assert requests(service)["create"] == 1
    assert "upload_start" not in requests(service)


def test_defaults_reach_every_request_and_a_requests_own_value_wins(service: Emulator) -> None:
    own = {"text": "Two.", "system_instruction": "Quite another instruction, a long one."}
    run = one(inlined_requests=["One.", own], system_instruction="Short.", generation_config={"temperature": 0})
    run.attempt("t")
    first, second = (row["usage"]["input_tokens"] for row in run.xcom("t")["responses"])
    assert (first, second) == (len("Short.\nOne.") // 4, len("Quite another instruction, a long one.\nTwo.") // 4)
    assert len(jobs(service)) == 1


def test_a_large_local_file_is_uploaded_landed_in_order_and_its_upload_removed(
    service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(shuffle=True)
    output = tmp_path / "new" / "out.jsonl"
    run = one(input_path=str(rows_file(tmp_path, 600)), output_path=str(output))
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    result = run.xcom("t")
    assert (result["output"], result["responses"], result["counts"]["succeeded"]) == (str(output), None, 600)
    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [row["key"] for row in rows] == [f"row {n}" for n in range(600)]
    assert rows[599]["text"].endswith("Prompt 599.")
    assert requests(service)["upload_start"] == 1
    assert service.control.books()["files"] == []
    manifest = json.loads((output.parent / "_out.jsonl.manifest.json").read_text())
    assert (manifest["whole"], manifest["job_names"], manifest["rows"]) == (True, result["job_names"], 600)
    assert sorted(path.name for path in output.parent.iterdir()) == ["_out.jsonl.manifest.json", "out.jsonl"]


def test_rows_come_back_whole_through_a_download_that_is_redirected(service: Emulator, tmp_path: Path) -> None:
    # A host that has only the short path, and sends on from there.
    once_each = {"operation": "download", "status": 404, "match": "^/download/", "times": 1}
    service.control.faults(download_redirect=True, http=once_each)
    output = tmp_path / "out.jsonl"
    run = one(input_path=str(rows_file(tmp_path, 600)), output_path=str(output))
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert run.xcom("t")["counts"] == {"total": 600, "succeeded": 600, "failed": 0}
    assert [json.loads(line)["key"] for line in output.read_bytes().splitlines()] == [f"row {n}" for n in range(600)]
    # The documented path, the short one, and where that leads to.
    assert requests(service)["download"] == 3


def test_an_upload_that_is_processed_for_a_while_is_waited_for_without_a_worker(
    service: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_service, "LONGEST_HOLD", 0.0)
    monkeypatch.setattr(timeouts, "_FIRST_PAUSE", 0.01)
    service.control.faults(file_processing={"looks": 3})
    output = tmp_path / "out.jsonl"
    run = one(input_path=str(rows_file(tmp_path, 600)), output_path=str(output))
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    triggers = [deferral.classpath.rpartition(".")[2] for deferral in outcome.deferrals]
    assert triggers == ["DateTimeTrigger"] * (len(triggers) - 1) + ["GeminiBatchJobTrigger"]
    assert len(triggers) > 1
    assert (requests(service)["upload_start"], len(jobs(service))) == (1, 1)
    assert len(output.read_bytes().splitlines()) == 600


def test_a_small_local_file_goes_inline(service: Emulator, tmp_path: Path) -> None:
    run = one(input_path=str(rows_file(tmp_path, 3)))
    run.attempt("t")
    assert answers(run.xcom("t")) == {f"row {n}": f"Prompt {n}." for n in range(3)}
    assert "upload_start" not in requests(service)


def test_the_upload_goes_as_well_when_the_job_fails_and_stays_with_keep_input(
    service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(job_ending={"state": "FAILED", "code": 3, "message": "no"})
    path = str(rows_file(tmp_path, 600))
    assert one(input_path=path).attempt("t").state == "failed"
    assert service.control.books()["files"] == []
    assert one(input_path=path, keep_input=True).attempt("t").state == "failed"
    assert len(service.control.books()["files"]) == 1


def test_a_file_that_is_there_already_is_used_and_not_removed(service: Emulator, tmp_path: Path) -> None:
    with GeminiBatchHook() as hook:
        name = hook.upload_file(rows_file(tmp_path, 3)).name
    run = one(file_name=name)
    assert run.attempt("t").state == "success"
    assert answers(run.xcom("t")) == {f"row {n}": f"Prompt {n}." for n in range(3)}
    assert [file["name"] for file in service.control.books()["files"]] == [name]


def test_on_vertex_a_table_is_read_and_its_answers_stay_in_bigquery(service: Emulator) -> None:
    run = one(
        gemini_conn_id="vertex",
        bigquery_uri="bq://demo-project.texts.inbox",
        destination="bq://demo-project.texts.answers",
        labels={"team": "reviews"},
    )
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    result = run.xcom("t")
    assert (result["counts"], result["responses"]) == ({"total": 3, "succeeded": 3, "failed": 0}, None)
    assert result["output"].startswith("bq://demo-project.texts.answers")
    (job,) = jobs(service)
    assert (job["service"], job["labels"]["team"]) == ("vertex", "reviews")
    assert job["labels"]["airflow-dag-id"] == "one"
    assert run.xcom("t", "gemini_batch_job_link").startswith("https://console.cloud.google.com/vertex-ai/")


def test_on_vertex_a_job_is_made_from_objects_in_cloud_storage(service: Emulator) -> None:
    run = one(
        gemini_conn_id="vertex",
        gcs_uri=["gs://bucket/a/*.jsonl", "gs://bucket/b.jsonl"],
        destination="gs://bucket/out",
        location="europe-west4",
        wait_for_completion=False,
    )
    assert run.attempt("t").state == "success"
    (job,) = jobs(service)
    assert "/locations/europe-west4/" in job["name"]
    assert job["input"]["gcsSource"]["uris"] == ["gs://bucket/a/*.jsonl", "gs://bucket/b.jsonl"]


def test_texts_are_embedded_with_task_type_title_and_length(service: Emulator) -> None:
    with DAG("embed", schedule=None) as dag:
        GeminiCreateEmbeddingsBatchJobOperator(
            task_id="t",
            model="gemini-embedding-001",
            inlined_requests=[{"text": "One.", "name": "first"}, {"text": "Two.", "name": "second"}],
            task_type="RETRIEVAL_DOCUMENT",
            title_field="name",
            output_dimensionality=16,
            poll_interval=0.1,
        )
    run = Run(dag)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    result = run.xcom("t")
    assert [len(row["embedding"]) for row in result["responses"]] == [16, 16]
    assert result["responses"][0]["embedding"] != result["responses"][1]["embedding"]
    assert (result["model"], result["usage"]["output_tokens"]) == ("gemini-embedding-001", 0)
    assert len(jobs(service)) == 1


# Templates, upstream tasks, mapping


def test_everything_that_an_author_would_template_is_rendered(service: Emulator, tmp_path: Path) -> None:
    rows_file(tmp_path, 2)
    params = {"folder": str(tmp_path), "model": MODEL, "tone": "dry", "harm": "HARM_CATEGORY_HARASSMENT"}
    with DAG("templates", schedule=None, params=params) as dag:
        create(
            "t",
            gemini_conn_id="{{ 'gemini_batch' }}_default",
            model="models/{{ params.model }}",
            input_path="{{ params.folder }}/in.jsonl",
            output_path="{{ params.folder }}/{{ ti.task_id }}.jsonl",
            display_name="{{ dag.dag_id }} of {{ ds }}",
            system_instruction="Be {{ params.tone }}.",
            generation_config={"stopSequences": ["{{ params.tone }}"]},
            request_defaults={"safetySettings": [{"category": "{{ params.harm }}", "threshold": "BLOCK_NONE"}]},
        )
    run = Run(dag)
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert (tmp_path / "t.jsonl").exists()
    assert jobs(service)[0]["display_name"].startswith(f"templates of {run.dag_run.logical_date:%Y-%m-%d}-gb1-")
    shown = run.rendered("t")
    assert (shown["model"], shown["system_instruction"]) == (f"models/{MODEL}", "Be dry.")
    assert shown["generation_config"] == {"stopSequences": ["dry"]}


def test_rows_come_from_an_upstream_task_and_mapped_tasks_have_jobs_and_outputs_of_their_own(
    service: Emulator, tmp_path: Path
) -> None:
    with DAG("mapped", schedule=None) as dag:

        @task
        def texts() -> list[str]:
            return ["One.", "Two."]

        @task
        def read(result: dict[str, Any]) -> list[str]:
            return [row["text"][-4:] for row in result["responses"]]

        read(create("t", inlined_requests=texts()).output)  # type: ignore[arg-type]
        GeminiCreateBatchJobOperator.partial(
            task_id="m", model=MODEL, poll_interval=0.1, output_path=f"{tmp_path}/{{{{ ti.map_index }}}}.jsonl"
        ).expand(inlined_requests=[["Uno."], ["Due."]])
    run = dags_test(dag)
    assert run.xcom("read") == ["One.", "Two."]
    names = [run.xcom("m", map_index=index)["job_name"] for index in (0, 1)]
    assert len({*names, run.xcom("t")["job_name"]}) == len(jobs(service)) == 3
    assert ["Uno." in (tmp_path / "0.jsonl").read_text(), "Due." in (tmp_path / "1.jsonl").read_text()] == [True, True]


# `airflow dags test`


def test_dags_test_which_drops_the_arguments_of_defer_still_goes_on(service: Emulator) -> None:
    run = one(inlined_requests=ROWS)
    outcome = run.attempt("t", keeps_kwargs=False)
    assert outcome.state == "success", outcome.message
    assert len(outcome.deferrals) == len(jobs(service)) == 1
    assert run.xcom("t")["job_name"] == run.xcom("t", "job_name")


def test_a_wait_without_a_job_also_survives_dags_test(service: Emulator) -> None:
    service.control.faults(http={"operation": "create", "status": 429, "times": 1, "retry_after": 1})
    run = one(inlined_requests=ROWS)
    outcome = run.attempt("t", keeps_kwargs=False)
    assert outcome.state == "success", outcome.message
    assert [deferral.classpath.rpartition(".")[2] for deferral in outcome.deferrals] == ["GeminiBatchJobTrigger"] * 2
    assert len(jobs(service)) == 1


# Retries and clears


@needs_notes
def test_a_retry_goes_on_with_the_job_of_the_try_before(service: Emulator) -> None:
    service.control.faults(hold_running=True)
    run = one(inlined_requests=ROWS, retries=1)
    assert run.attempt("t", dies_waiting=True).state == "deferred"
    service.control.clear_faults()
    assert run.attempt("t").state == "success"
    assert len(jobs(service)) == 1


@needs_notes
@pytest.mark.parametrize("part_key", [None, "00000-abc"], ids=["task", "part of a dataset"])
def test_failed_rows_are_bought_again_by_a_retry_and_not_by_the_first_try(
    part_key: str | None, service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(row_error_every=1, row_error_code=13)
    with DAG("failed_rows", schedule=None) as dag:
        create("t", inlined_requests=["a", "b"], output_path=f"{tmp_path}/out/", part_key=part_key, retries=1)
    run = Run(dag)
    for bought in (1, 2):
        assert "every row failed" in run.attempt("t").message
        assert len(jobs(service)) == bought


@needs_notes
def test_a_retry_after_an_expired_job_pays_only_for_the_rows_without_an_answer(service: Emulator) -> None:
    service.control.faults(expire={"value": True, "times": 1}, partial_rows=0.5)
    run = one(inlined_requests=ROWS, retries=1)
    assert run.attempt("t").state == "up_for_retry"
    outcome = run.attempt("t")
    assert outcome.state == "success", outcome.message
    assert [job["rows"] for job in jobs(service)] == [4, 2]
    result = run.xcom("t")
    assert answers(result) == dict(zip("0123", ROWS, strict=True))
    assert result["job_names"] == [job["name"] for job in jobs(service)]


@needs_notes
def test_a_task_that_is_cleared_after_its_rows_were_delivered_runs_from_the_start(service: Emulator) -> None:
    run = one(inlined_requests=ROWS)
    run.attempt("t")
    run.clear("t")
    assert run.attempt("t").state == "success"
    assert len(jobs(service)) == 2


# What is not shown


SECRETS = ("swordfish", "hidden-key", "gist of", "PRIVATE KEY")


def test_no_prompt_answer_or_credential_is_in_a_log_a_trigger_an_event_or_a_rendered_field(
    service: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="airflow_provider_gemini_batch")
    caplog.set_level(logging.DEBUG, logger="urllib3")
    service.control.faults(row_error_every=2, row_error_message="gist of the row: swordfish")
    lines = [json.dumps({"key": f"swordfish-{n}", "text": "gist of swordfish"}) for n in range(600)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run = one(input_path=f"{tmp_path}/in.jsonl", output_path=f"{tmp_path}/out.jsonl", max_failed_rows=0)
    outcome = run.attempt("t")
    assert "300 of 600 rows failed" in outcome.message
    assert "swordfish" in (tmp_path / "out.jsonl").read_text()
    printed = capsys.readouterr()
    shown = [caplog.text, printed.out, printed.err, str(outcome), repr(run.rendered("t")), str(run.xcom("t"))]
    assert "Uploading" in caplog.text
    assert [secret for secret in SECRETS if any(secret in text for text in shown)] == []


def test_a_refused_line_of_the_input_is_named_by_its_place_and_not_shown(
    service: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"text": "fine"}\n{"text": "swordfish", "hidden-key": 1}\n{"broken": "gist of\n'
    )
    outcome = one(input_path=f"{tmp_path}/in.jsonl").attempt("t")
    assert outcome.state == "failed"
    assert "line 2" in outcome.message or "line 3" in outcome.message
    assert not any(secret in caplog.text + outcome.message for secret in ("swordfish", "gist of"))
    assert requests(service) == {}
