"""The page on what happens when something breaks names a test in each row, and each case has its row."""

from __future__ import annotations

import re
from pathlib import Path

from chaos.table import REPRESENTATIVES, TABLE

ROOT = Path(__file__).resolve().parents[2]
CASES = {case.name: case for case in TABLE}


def rows() -> list[list[str]]:
    page = (ROOT / "docs" / "never-pays-twice.md").read_text("utf-8")
    found = [
        [cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in page.splitlines() if line[:1] == "|"
    ]
    return [cells for cells in found if cells[0] != "what happens" and set(cells[0]) - set("-| ")]


def proof(cells: list[str]) -> str:
    return cells[-1].strip("` |")


def test_each_row_names_a_test_that_exists() -> None:
    for cells in rows():
        path, _, test = proof(cells).rpartition("::")
        if path:
            assert re.search(rf"^def {test}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE), proof(cells)
        else:
            assert test in CASES


def test_each_case_has_one_row() -> None:
    named = [proof(cells) for cells in rows() if "::" not in proof(cells)]
    assert sorted(named) == sorted(CASES)


def test_the_numbers_of_a_row_are_those_that_are_judged() -> None:
    for cells in rows():
        case = CASES.get(proof(cells))
        if case is not None and not case.mapped:
            assert cells[-3:-1] == [str(case.created), str(case.deliveries)], case.name


def test_only_these_cases_buy_more_than_one_job() -> None:
    more = {case.name for case in TABLE if case.created > max(1, case.mapped)}
    allowed = {"clear_when_finished", "job_failed_inside", "expired_with_rows", "deadline_then_retry", "stuck_in_queue"}
    assert more == allowed


def test_there_are_more_than_twenty_faults_and_the_representatives_are_among_them() -> None:
    assert len(CASES) == len(TABLE) > 20
    assert set(REPRESENTATIVES) <= set(CASES)
