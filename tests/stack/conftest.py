"""One real Airflow and one emulator for all tests of this folder: starting them costs half a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give real processes time: the first test of a session also pays for starting them."""
    for item in items:
        if HERE in item.path.parents and not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def local_airflow() -> Iterator[LocalAirflow]:
    """Run Airflow with one triggerer and the Dags of ``tests/stack/dags``."""
    with LocalAirflow([HERE / "dags"]) as airflow:
        yield airflow
