"""A client of the emulator whose pauses pass on the emulator's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from api.listener import Listener, listening
from api.virtual_time import VirtualTime

from airflow_provider_gemini_batch.api.client import BatchClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.fixture
def emulator(gemini_batch_emulator: Emulator) -> Emulator:
    gemini_batch_emulator.control.speed(0)
    return gemini_batch_emulator


@pytest.fixture
def clock(emulator: Emulator) -> VirtualTime:
    return VirtualTime(emulator)


@pytest.fixture
def client(emulator: Emulator, clock: VirtualTime) -> Iterator[BatchClient]:
    with BatchClient.for_gemini("a-key", base_url=emulator.url, sleep=clock.sleep, clock=clock) as made:
        yield made


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as made:
        yield made
