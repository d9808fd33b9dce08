"""Jobs on Vertex AI: what they are labelled with, how they are found again, and how each state ends or waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from vertex.bench import rows_of

from airflow_provider_gemini_batch.batch.tag import Tag, from_label
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from vertex.bench import Bench

SIX = [f"Row {n}." for n in range(6)]


def test_labels_name_tag_task_and_run_and_hold_the_author_s(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = bench.emulator.connection(
        "vertex", staging_path=bench.stage, labels={"cost-centre": "7", "team": "connection"}
    )
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", connection)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bench.gcs)
    bench.go(inlined_requests=["One."], labels={"team": "search"})
    (job,) = bench.jobs
    labels = job["labels"]
    tag = Tag.parse(job["display_name"])
    assert tag is not None
    assert from_label(labels.pop("airflow-gemini-batch")) == tag
    assert labels.pop("airflow-gemini-batch-task") == tag.identity
    run = labels.pop("airflow-run-id")
    assert run.startswith("manual__20")
    assert run == run.lower()
    assert labels == {
        "airflow-dag-id": "vertex_bench",
        "airflow-task-id": "batch",
        "cost-centre": "7",
        "team": "search",
    }


def test_a_retry_finds_its_job_by_a_filtered_list(bench: Bench) -> None:
    for _ in range(3):
        bench.go(inlined_requests=["Another task's."])
    output = bench.folder / "out.jsonl"
    run = bench.run(inlined_requests=SIX, output_path=str(output), retries=1, wait_for_completion=False)
    assert run.attempt("batch").state == "success"
    before = bench.emulator.control.books()["requests"].get("list", 0)
    task: Any = run.dag.task_dict["batch"]
    task.wait_for_completion = True
    assert run.attempt("batch").state == "success"
    books = bench.emulator.control.books()
    assert books["created"] == 4
    assert books["requests"].get("list", 0) - before <= (1 if HAS_STORE else 9)
    assert len(rows_of(output.read_bytes())) == 6


@pytest.mark.parametrize("state", ["PAUSED", "UPDATING", "CANCELLING", "QUEUED", "SOMETHING_NEW"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_state_on_the_way_is_waited_through(bench: Bench, state: str, *, deferrable: bool) -> None:
    bench.emulator.control.faults(unknown_state=f"JOB_STATE_{state}")
    _, summary = bench.go(inlined_requests=["One."], deferrable=deferrable)
    assert summary["state"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("faults", "state", "words", "good"),
    [
        ({"job_ending": {"state": "PARTIALLY_SUCCEEDED"}, "row_error_every": 2}, "success", "", 3),
        ({"expire": True, "partial_rows": 0.5}, "up_for_retry", "time limit", 3),
        ({"job_ending": {"state": "FAILED", "code": 13}, "partial_rows": 0.5}, "up_for_retry", "code 13", 3),
        ({"job_ending": {"state": "FAILED", "code": 3}}, "failed", "code 3", 0),
        ({"job_ending": {"state": "CANCELLED"}, "partial_rows": 0.5}, "failed", "cancelled", 0),
    ],
)
def test_each_ending_is_judged_and_what_is_finished_is_kept(
    bench: Bench, faults: dict[str, Any], state: str, words: str, good: int
) -> None:
    bench.emulator.control.faults(**faults)
    output = bench.folder / "out.jsonl"
    run = bench.run(inlined_requests=SIX, output_path=str(output), retries=1)
    result = run.attempt("batch")
    assert result.state == state, result.message
    assert words in result.message
    if state == "success":
        assert sum(row["status"] == "ok" for row in rows_of(output.read_bytes())) == good
    elif state == "up_for_retry":
        bench.emulator.control.clear_faults()
        assert run.attempt("batch").state == "success"
        # Finished rows are not bought again.
        assert [job["rows"] or 6 for job in bench.jobs] == [6, 6 - good]
        assert {row["status"] for row in rows_of(output.read_bytes())} == {"ok"}
        assert bench.objects() == []


def test_finished_rows_of_a_job_that_this_task_cancelled_are_not_bought_again(bench: Bench) -> None:
    # Vertex AI shows no counts of cancelled jobs: only the objects tell.
    bench.emulator.control.faults(hold_running=True, cancel_ending="cancelled_partial", partial_rows=0.5)
    output = bench.folder / "out.jsonl"
    run = bench.run(inlined_requests=SIX, output_path=str(output), retries=1, timeout=2.0)
    result = run.attempt("batch")
    assert result.state == "up_for_retry"
    bench.emulator.control.clear_faults()
    bench.emulator.control.advance(60)
    task: Any = run.dag.task_dict["batch"]
    task.timeout = None
    assert run.attempt("batch").state == "success"
    assert [job["rows"] for job in bench.jobs] == [6, 3]
    rows = rows_of(output.read_bytes())
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert bench.objects() == []


def test_a_try_that_died_after_landing_finds_its_output_though_the_answers_are_removed(bench: Bench) -> None:
    output = bench.folder / "out.jsonl"
    run = bench.run(inlined_requests=SIX, output_path=str(output), retries=1)
    assert run.attempt("batch").state == "success"
    first = run.xcom("batch")
    assert bench.objects() == []
    # Airflow never heard of the success, so it tries again.
    assert run.attempt("batch").state == "success"
    again = run.xcom("batch")
    assert (again["job_names"], again["counts"], again["usage"]) == (
        first["job_names"],
        first["counts"],
        first["usage"],
    )
    assert again["output"] == str(output)
    assert len(bench.jobs) == 1
