"""The example DAGs in a real Airflow, as a user would run them, against the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow

pytestmark = pytest.mark.stack


def read_rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def test_the_nightly_dag_defers_holds_no_worker_and_hands_its_answers_on(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    emulator.control.faults(hold_running=True)
    run = local_airflow.wait_scheduled_run("nightly_generation")
    local_airflow.wait_task_state("nightly_generation", run, "write_lines", "deferred")
    local_airflow.wait_no_worker()
    assert local_airflow.task_instance("nightly_generation", run, "write_lines")["state"] == "deferred"  # type: ignore[index]
    job = local_airflow.xcom("nightly_generation", run, "write_lines", "job_name")
    assert [each["name"] for each in emulator.control.books()["jobs"]] == [job]
    emulator.control.clear_faults()

    local_airflow.expect_run("nightly_generation", run)
    result = local_airflow.xcom("nightly_generation", run, "write_lines")
    assert result["job_name"] == job
    assert result["job_names"] == [job]
    assert result["counts"] == {"total": 3, "succeeded": 3, "failed": 0}
    assert result["output"] is None
    assert [row["status"] for row in result["responses"]] == ["ok", "ok", "ok"]
    assert [row["key"] for row in result["responses"]][:2] == ["ada", "grace"]
    assert local_airflow.xcom("nightly_generation", run, "count_lines") == 3
    links = local_airflow.links("nightly_generation", run, "write_lines")
    assert str(links["Job at Google"]).startswith("https://")
    assert links["Gemini batch"]
    assert emulator.control.books()["created"] == 1


def test_the_embeddings_dag_lands_vectors_in_its_file(local_airflow: LocalAirflow, emulator: Emulator) -> None:
    run = local_airflow.trigger("embeddings", {})
    local_airflow.expect_run("embeddings", run)
    rows = read_rows(local_airflow.xcom("embeddings", run, "embed")["output"])
    assert [len(row["embedding"]) for row in rows] == [256] * 4
    assert emulator.control.books()["created"] == 1


def test_submitting_waiting_reading_and_cleaning_up_work_as_four_tasks(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    run = local_airflow.trigger("submit_sense_clean")
    local_airflow.expect_run("submit_sense_clean", run)
    (job,) = emulator.control.books()["jobs"]
    assert job["deleted"]
    assert job["rows"] == 2


def test_a_file_of_requests_for_the_whole_standard_library_comes_back_row_by_row(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    run = local_airflow.wait_scheduled_run("stdlib_summaries")
    local_airflow.expect_run("stdlib_summaries", run)
    result = local_airflow.xcom("stdlib_summaries", run, "summarise")
    sent = read_rows(local_airflow.xcom("stdlib_summaries", run, "write_requests"))
    rows = read_rows(result["output"])
    assert len(sent) > 150
    assert [row["key"] for row in rows] == [line["key"] for line in sent]
    assert {row["status"] for row in rows} == {"ok"}
    assert result["counts"]["total"] == len(sent)
    assert emulator.control.books()["created"] == 1


def test_the_vertex_dag_runs_a_job_for_files_and_one_for_a_table(
    local_airflow: LocalAirflow, emulator: Emulator, storage: str
) -> None:
    for name in ("monday", "tuesday"):
        line = json.dumps({"request": {"contents": [{"role": "user", "parts": [{"text": f"Rate the {name} menu."}]}]}})
        put = f"{storage}/upload/storage/v1/b/my-bucket/o?uploadType=media&name=reviews/{name}.jsonl"
        httpx.post(put, content=line + "\n", trust_env=False).raise_for_status()
    run = local_airflow.trigger("vertex_gcs_bigquery")
    local_airflow.expect_run("vertex_gcs_bigquery", run)
    files, table = sorted(emulator.control.books()["jobs"], key=lambda job: "bigquery" in json.dumps(job["input"]))
    assert (files["service"], table["service"]) == ("vertex", "vertex")
    assert (files["rows"], files["succeeded"]) == (2, 2)
    assert files["labels"]["team"] == table["labels"]["team"] == "reviews"
    result = local_airflow.xcom("vertex_gcs_bigquery", run, "files")
    # These rows name nothing that could be a key, and the summary says so.
    assert result["counts"] == {"total": 2, "succeeded": 2, "failed": 0, "by_position": 2}
    assert result["job_name"] == files["name"]
