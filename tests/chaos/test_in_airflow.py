"""A few cases of the table in a real Airflow; all of them are played by ``python -m tests.chaos``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chaos.play import Theatre
from chaos.table import REPRESENTATIVES, TABLE
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from chaos.case import Case


def played() -> list[Case]:
    """What can be played here: Airflow 3.2 tells a trigger of nothing and keeps no notes, so logs have other words."""
    cases = [case for case in TABLE if case.name in REPRESENTATIVES]
    if HAS_STORE:
        return cases
    return [replace(case, said="") for case in cases if case.name != "mark_failed_while_deferred"]


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_one_case_of_each_kind_is_paid_once_and_delivered_as_often_as_it_should() -> None:
    cases = played()
    with Theatre(cases) as theatre:
        results = list(theatre.play())
    broken = {result.case.name: (*result.problems, result.log) for result in results if result.problems}
    assert not broken, "\n".join(f"{name}: {line}" for name, lines in broken.items() for line in lines)
    assert len(results) == len(cases)
