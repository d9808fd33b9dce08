"""The page of facts names switches that exist, and marks every row with how sure it is."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_gemini_batch.emulator.faults import JOB_SWITCHES, LIVE_SWITCHES, REQUEST_KINDS

PAGE = Path(__file__).parents[2] / "docs" / "service-facts.md"
MARKS = ("captured", "documented", "reported", "inferred")
#: Names in the column that are options of other things.
NOT_SWITCHES = {"media", "retry_after", "body", "cachedContent", "control"}


def _rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == 5 and row[0] not in ("behaviour", "---")]


def test_every_fact_says_how_sure_it_is() -> None:
    rows = _rows()
    assert len(rows) > 80
    assert [row[0] for row in rows if not row[1].startswith(MARKS)] == []
    # What somebody has seen or written has a source.
    assert [row[0] for row in rows if not row[2] and not row[1].startswith("inferred")] == []


def test_every_fact_names_a_test_that_exists() -> None:
    tests = PAGE.parents[1] / "tests"
    named = {row[0]: re.findall(r"`([^`]+)`", row[4]) for row in _rows()}
    assert [fact for fact, files in named.items() if not files] == []
    assert [file for files in named.values() for file in files if not (tests / file).is_file()] == []


def test_every_switch_that_the_page_names_exists() -> None:
    known = {*JOB_SWITCHES, *LIVE_SWITCHES, *REQUEST_KINDS}
    named = {
        name
        for row in _rows()
        for code in re.findall(r"`([^`]+)`", row[3])
        if not code.startswith(("-", "{"))
        for name in re.match(r"\w+", code).group().split()  # type: ignore[union-attr]
    }
    assert named - NOT_SWITCHES - known == set()
