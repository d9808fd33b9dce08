"""Jobs that end while a Dag watches them, in a real Airflow whose triggerer is killed: none is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chaos.events import expect_events

from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow


# The triggerer is killed twice, and each wait within may take two minutes on a busy machine.
@pytest.mark.stack
@pytest.mark.timeout(600)
@pytest.mark.skipif(not HAS_STORE, reason="Airflow 3.2 keeps no state of assets")
def test_every_end_reaches_the_dag_although_the_triggerer_is_killed(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    assert expect_events(local_airflow, emulator, jobs=3) == []
