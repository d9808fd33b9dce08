"""An Airflow database for the one test here that runs a whole Dag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dag_runs import make_database, start_execution_api

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.fixture
def service(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator with a fast clock, as ``gemini_batch_default`` reaches it, and an Airflow to run Dags in."""
    make_database()
    start_execution_api()
    gemini_batch_emulator.control.speed(60)
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection())
    return gemini_batch_emulator
