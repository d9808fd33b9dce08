"""A few cases of the table in a real Airflow; all of them are played by ``python -m tests.chaos``."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from chaos.play import Theatre
from chaos.table import REPRESENTATIVES, TABLE

#: Airflow 3.2 tells a trigger of nothing, and keeps no notes of a task.
PLAYED = (
    REPRESENTATIVES
    if find_spec("airflow.models.task_state_store")
    else tuple(name for name in REPRESENTATIVES if name != "mark_failed_while_deferred")
)


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_one_case_of_each_kind_is_paid_once_and_delivered_as_often_as_it_should() -> None:
    cases = [case for case in TABLE if case.name in PLAYED]
    with Theatre(cases) as theatre:
        results = list(theatre.play())
    broken = {result.case.name: (*result.problems, result.log) for result in results if result.problems}
    assert not broken, "\n".join(f"{name}: {line}" for name, lines in broken.items() for line in lines)
    assert len(results) == len(PLAYED)
