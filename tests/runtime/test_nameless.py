"""An Airflow that nothing tells from another is told so, once for each try."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from airflow.sdk.exceptions import TaskDeferred
from task_context import task_context

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.mark.parametrize(
    ("setting", "warnings"),
    [
        ({}, 1),
        ({"AIRFLOW__GEMINI_BATCH__DEPLOYMENT_ID": "here"}, 0),
        ({"AIRFLOW__API__BASE_URL": "https://airflow.example"}, 0),
    ],
    ids=["nothing", "a name", "an address"],
)
def test_an_airflow_without_a_name_is_warned_once(
    setting: dict[str, str],
    warnings: int,
    gemini_batch_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection())
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    gemini_batch_emulator.control.faults(hold_pending=True)
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=["x"])
    with pytest.raises(TaskDeferred) as deferred, task.task_run(task_context()) as run:
        run.begin()
    with pytest.raises(TaskDeferred), task.task_run(task_context()) as run:
        run.resume(None, (deferred.value.kwargs or {})["memo"])
    assert sum("has no name of its own" in record.getMessage() for record in caplog.records) == warnings
