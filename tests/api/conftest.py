"""A client of the emulator whose pauses pass on the emulator's clock, so that nothing sleeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from api.listener import Listener, listening
from api.virtual_time import VirtualTime
from google.auth.credentials import Credentials

from airflow_provider_gemini_batch.api.client import BatchClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator import Emulator


class FixedToken(Credentials):
    """Google credentials that are always fresh."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.token = "a-token-for-tests"

    def refresh(self, request: Any) -> None:  # noqa: ARG002
        raise AssertionError("nobody should refresh a fresh token")


@pytest.fixture
def emulator(gemini_batch_emulator: Emulator) -> Emulator:
    gemini_batch_emulator.control.speed(0)
    return gemini_batch_emulator


@pytest.fixture
def clock(emulator: Emulator) -> VirtualTime:
    return VirtualTime(emulator)


@pytest.fixture
def client(emulator: Emulator, clock: VirtualTime) -> Iterator[BatchClient]:
    with BatchClient.for_gemini("a-key", base_url=emulator.url, timeout=5.0, sleep=clock.sleep, clock=clock) as made:
        yield made


@pytest.fixture
def offline() -> Iterator[BatchClient]:
    """A client whose service is not there: whoever sends gets a TransportError and no other."""
    with BatchClient.for_gemini("a-key", base_url="http://127.0.0.1:9", sleep=lambda _: None) as made:
        yield made


@pytest.fixture
def offline_vertex() -> Iterator[BatchClient]:
    with BatchClient.for_vertex(
        "demo-project", "us-central1", credentials=FixedToken(), base_url="http://127.0.0.1:9", sleep=lambda _: None
    ) as made:
        yield made


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as made:
        yield made
