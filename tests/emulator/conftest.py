"""What the tests of the emulator share: bare clients, and a Cloud Storage beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from emulator.calls import Gemini, Vertex
from emulator.storage_server import storage_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def gemini(gemini_batch_emulator: Emulator) -> Iterator[Gemini]:
    """A bare client on a fresh emulator."""
    with Gemini(gemini_batch_emulator) as client:
        yield client


@pytest.fixture
def vertex(gemini_batch_emulator: Emulator) -> Iterator[Vertex]:
    """A bare client without storage."""
    client = Vertex(gemini_batch_emulator)
    with client.http:
        yield client


@pytest.fixture(scope="session")
def storage_url() -> Iterator[str]:
    """A Cloud Storage emulator with the buckets ``in`` and ``out``."""
    with storage_server("in", "out") as url:
        yield url


@pytest.fixture
def stored(storage_url: str) -> Iterator[Vertex]:
    """A bare client of an emulator that reads and writes objects."""
    with Emulator(storage_endpoint=storage_url) as emulator:
        client = Vertex(emulator, storage_url)
        with client.http:
            yield client
