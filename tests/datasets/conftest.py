"""An Airflow database for the one test here that runs a whole Dag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dag_runs import make_database, start_execution_api

from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.fixture
def service(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator with a fast clock, as ``gemini_batch_default`` reaches it, and an Airflow to run Dags in."""
    make_database()
    start_execution_api()
    gemini_batch_emulator.control.speed(60)
    # Airflow 3.2 does not say whether a part has run before: it sits out what an earlier try may have sent.
    connection = gemini_batch_emulator.connection(timeout=60.0 if HAS_STORE else 0.6)
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", connection)
    return gemini_batch_emulator
