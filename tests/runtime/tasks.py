"""Create tasks as these tests write them, and what the emulator's books say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

MODEL = "gemini-2.5-flash"
needs_notes = pytest.mark.skipif(
    not HAS_STORE,
    reason="Airflow 3.2 keeps no notes between tries: a retry looks for jobs as long as one may show up, for minutes",
)


def create(task_id: str, **arguments: Any) -> GeminiCreateBatchJobOperator:
    return GeminiCreateBatchJobOperator(task_id=task_id, **{"model": MODEL, "poll_interval": 0.1, **arguments})


def made(client: BatchClient, rows: int = 2) -> str:
    """Create a job that no task knows, and return its name."""
    return client.create(MODEL, inlined_requests=[f"row {number}" for number in range(rows)]).name


def keyed(key: str, text: str) -> dict[str, Any]:
    return {"key": key, "request": {"contents": [{"parts": [{"text": text}]}]}}


def jobs(service: Emulator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.control.books()["jobs"]
    return found
