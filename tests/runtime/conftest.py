"""An Airflow database for the tests that run tasks, and connections to an emulator whose clock runs fast."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.polling import policy
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator import Emulator

# A job takes three seconds of the emulator's clock.
SPEED = 60.0


@pytest.fixture
def service(_airflow_database: None, gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator, as the connections ``gemini_batch_default`` and ``vertex`` reach it."""
    gemini_batch_emulator.control.speed(SPEED)
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection(password="hidden-key"))
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", gemini_batch_emulator.connection("vertex"))
    return gemini_batch_emulator


@pytest.fixture
def emulator(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator with a clock that stands still, as three connections reach it; for tests without a database."""
    gemini_batch_emulator.control.speed(0)
    for name, service in (("GEMINI_BATCH_DEFAULT", "gemini"), ("C", "gemini"), ("VERTEX", "vertex")):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", gemini_batch_emulator.connection(service))
    return gemini_batch_emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[BatchClient]:
    key = json.loads(emulator.connection())["password"]
    with BatchClient.for_gemini(key, base_url=emulator.url) as client:
        yield client


@pytest.fixture
def believes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a job that the service denies up after a moment, not after a minute."""
    monkeypatch.setattr(policy, "BELIEVED_AFTER", 0.2)
    # As soon as the second denial, at the latest the third: a third that is not believed would be a line of the log.
    monkeypatch.setattr(policy, "UNSEEN_FACTOR", 1.0)


@pytest.fixture
def impatient(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make calls give up soon on Airflow 3.2, where a retry sits out what an earlier try may have sent."""
    if not HAS_STORE:
        connection = service.connection(password="hidden-key", timeout=0.6)
        monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", connection)
