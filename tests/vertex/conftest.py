"""Vertex AI as tasks meet it: an emulator with real objects on a Cloud Storage of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from vertex.bench import Bench

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.emulator import Emulator
from emulator.storage_server import storage_server
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.api.google.storage import ObjectStore

HERE = Path(__file__).parent
# A job takes three seconds of the emulator's clock.
SPEED = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These run whole tasks: seconds each, and the first one also pays for importing Airflow."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def gcs() -> Iterator[str]:
    """URL of a Cloud Storage with the buckets ``stage`` and ``data``."""
    with storage_server("stage", "data") as url:
        yield url


@pytest.fixture(scope="session")
def store(gcs: str) -> Iterator[ObjectStore]:
    """The objects, seen without the code under test's own client."""
    with BatchClient.for_vertex("p", credentials=object(), storage_endpoint=gcs) as client:
        yield client.storage


@pytest.fixture
def bench(
    _airflow_database: None,
    gcs: str,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    """An emulator, connections ``gemini`` and ``vertex`` to it, a folder, and the objects."""
    with Emulator(speed=SPEED, storage_endpoint=gcs) as emulator:
        stage = f"gs://stage/{tmp_path.name}"
        # Without a store, a retry sits out what an earlier try may have sent, before it sends.
        patience: dict[str, Any] = {} if HAS_STORE else {"timeout": 2.0}
        vertex = emulator.connection("vertex", storage_endpoint=gcs, staging_path=stage, **patience)
        monkeypatch.setenv("AIRFLOW_CONN_GEMINI", emulator.connection(password="hidden-key"))
        monkeypatch.setenv("AIRFLOW_CONN_VERTEX", vertex)
        yield Bench(emulator, store, tmp_path, stage, gcs)
