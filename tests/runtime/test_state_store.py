"""The notes of a task in Airflow's store, which may be away for a moment."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_gemini_batch.runtime.state_store import TaskStateStore


class Away:
    """A store that does not answer at first."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.kept: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        self._answer()
        return self.kept.get(key)

    def set(self, key: str, text: str) -> None:
        self._answer()
        self.kept[key] = text

    def _answer(self) -> None:
        self.times -= 1
        if self.times >= 0:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))


def store(away: Away, pauses: list[float]) -> TaskStateStore:
    context: Any = {"task_state_store": away}
    return TaskStateStore(context, pauses.append)


def test_a_store_that_is_away_for_a_moment_is_asked_again() -> None:
    away, pauses = Away(2), list[float]()
    store(away, pauses).save("notes")
    away.times = 1
    assert store(away, pauses).load() == "notes"
    assert pauses == [1.0, 5.0, 1.0]


def test_a_store_that_stays_away_is_an_error_so_that_nothing_is_sent_without_notes() -> None:
    away = Away(9)
    with pytest.raises(AirflowRuntimeError):
        store(away, []).save("notes")
    assert away.kept == {}
