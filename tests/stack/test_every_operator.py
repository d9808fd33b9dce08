"""Operators that the examples leave out, run one after another in a real Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow

pytestmark = pytest.mark.stack
DAG = "every_operator"


def test_upload_wait_in_the_worker_get_cancel_list_and_the_decorator(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    run = local_airflow.trigger(DAG)
    local_airflow.wait_task_state(DAG, run, "waiting", "success", "failed", seconds=120)
    # The next job is to be cancelled, so it must not have ended before.
    emulator.control.faults(hold_pending=True)
    local_airflow.wait_task_state(DAG, run, "cancel", "success", "failed", "upstream_failed", seconds=120)
    emulator.control.clear_faults()
    local_airflow.expect_run(DAG, run)
    waited = local_airflow.xcom(DAG, run, "waiting")
    assert waited["counts"] == {"total": 1, "succeeded": 1, "failed": 0}
    assert [row["key"] for row in waited["responses"]] == ["only"]
    assert local_airflow.xcom(DAG, run, "get")["name"] == waited["job_name"]
    cancelled = local_airflow.xcom(DAG, run, "cancel")
    assert {job["name"]: job["cancel_calls"] for job in emulator.control.books()["jobs"]}[cancelled] == 1
    assert [job["name"] for job in local_airflow.xcom(DAG, run, "list")] == [cancelled, waited["job_name"]]
    assert local_airflow.xcom(DAG, run, "decorated")["counts"]["succeeded"] == 1
    assert emulator.control.books()["created"] == 3
