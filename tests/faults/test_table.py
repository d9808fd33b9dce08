"""Every guarantee that the documentation names has a fault, and every fault has its place in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults.table import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\|.*\| `([^`]+)` \|$", re.MULTILINE)


def test_every_row_of_the_page_has_a_fault_and_every_fault_a_row() -> None:
    rows = set(ROW.findall((ROOT / "docs" / "never-pays-twice.md").read_text("utf-8")))
    assert {fault.row for fault in FAULTS} == rows


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row.rpartition("::")[2])
def test_the_place_of_a_fault_is_in_the_code_once_and_its_test_is_there(fault: Fault) -> None:
    code = (ROOT / "airflow_provider_gemini_batch" / fault.file).read_text("utf-8")
    assert code.count(fault.old) == 1
    assert fault.new != fault.old
    path, _, name = fault.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text("utf-8")
