"""Fixtures for users' own Dag tests: a Gemini batch emulator on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.fixture(scope="session")
def _gemini_batch_emulator_server() -> Iterator[Emulator]:
    from airflow_provider_gemini_batch.emulator import Emulator

    with Emulator(port=0) as emulator:
        yield emulator


@pytest.fixture
def gemini_batch_emulator(_gemini_batch_emulator_server: Emulator) -> Iterator[Emulator]:
    """A fresh emulator: no jobs, files or faults, its clock at the real time.

    ``.url``, ``.connection()`` for ``AIRFLOW_CONN_...``, and ``.control`` with ``advance(seconds)``,
    ``faults(...)``, ``set_job(...)``, ``books()``.
    """
    _gemini_batch_emulator_server.control.reset()
    yield _gemini_batch_emulator_server
    _gemini_batch_emulator_server.control.reset()
