"""Nonsense of every kind, in small: the long run is ``python -m tests.fuzz``."""

from __future__ import annotations

import os

import pytest

from fuzz.run import MOST_BYTES, run
from fuzz.targets import Targets

INPUTS = int(os.environ.get("GEMINI_BATCH_FUZZ_INPUTS", "400"))
SEED = int(os.environ.get("GEMINI_BATCH_FUZZ_SEED", "20"))


@pytest.mark.parametrize("target", [*Targets().all])
def test_nonsense_is_refused_in_our_words_at_once_in_little_room_and_shows_no_secret(target: str) -> None:
    outcome = run(INPUTS, SEED, target)
    assert not outcome.faults, outcome.faults[0]
    assert outcome.inputs == INPUTS
    assert outcome.grown < MOST_BYTES
