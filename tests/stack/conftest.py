"""One real Airflow and one emulator for all tests of this folder: starting them costs half a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stack.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def local_airflow() -> Iterator[LocalAirflow]:
    """Run Airflow with one triggerer and the Dags of ``tests/stack/dags``."""
    with LocalAirflow([HERE / "dags"]) as airflow:
        yield airflow
