"""An Airflow that nothing tells from another: said by the connection test and the docs, never in a task's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow.sdk.exceptions import TaskDeferred
from task_context import task_context

from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.mark.parametrize(
    ("setting", "is_told"),
    [
        ({}, True),
        ({"AIRFLOW__GEMINI_BATCH__DEPLOYMENT_ID": "here"}, False),
        ({"AIRFLOW__API__BASE_URL": "https://airflow.example"}, False),
    ],
    ids=["nothing", "a name", "an address"],
)
def test_only_the_test_of_a_connection_says_that_this_airflow_has_no_name(
    setting: dict[str, str],
    is_told: bool,  # noqa: FBT001
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    worked, said = GeminiBatchHook().test_connection()
    assert (worked, "deployment_id" in said) == (True, is_told)
    emulator.control.faults(hold_pending=True)
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=["x"])
    with pytest.raises(TaskDeferred), task.task_run(task_context()) as run:
        run.begin()
    assert not any("deployment_id" in record.getMessage() for record in caplog.records)
