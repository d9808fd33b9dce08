"""The ground itself: a plain Dag runs in the Airflow that the other tests of this folder use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stack.local_airflow import LocalAirflow

pytestmark = pytest.mark.stack


def test_a_plain_dag_runs_and_holds_no_worker_after_it(local_airflow: LocalAirflow) -> None:
    run = local_airflow.trigger("plain")
    assert local_airflow.wait_run("plain", run) == "success", local_airflow.component_logs()
    assert local_airflow.xcom("plain", run, "answer") == 42
    local_airflow.wait_no_worker()
