"""Tests against the real common.ai, which only `make test-common-ai` installs (it needs Airflow 3.3)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

if find_spec("airflow.providers") is None or find_spec("airflow.providers.common.ai") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def service(_airflow_database: None, gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator, as common.ai's own default connection reaches it."""
    # common.ai polls every 30 seconds at most: its first question finds the job ended. Its output lasts for 48 hours of
    # this clock, which are minutes.
    gemini_batch_emulator.control.speed(1_000.0)
    connection = f'{{"conn_type": "pydanticai", "host": "{gemini_batch_emulator.url}", "password": "hidden-key"}}'
    monkeypatch.setenv("AIRFLOW_CONN_PYDANTICAI_DEFAULT", connection)
    return gemini_batch_emulator
