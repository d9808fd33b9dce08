"""The memory of a triggerer that is answered with bombs; how long its loop is held is measured, not asserted."""

from __future__ import annotations

import pytest

from benchmarks.bombs import BOMBS, MOST_MIB, measure


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_answer_to_a_poll_makes_a_triggerer_large() -> None:
    found = measure()
    assert len(found) == len(BOMBS)
    assert [each for each in found if each["mib"] > MOST_MIB] == []
    assert {each["reason"] for each in found} == {"ended"}
