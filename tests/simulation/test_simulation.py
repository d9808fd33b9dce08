"""A thousand lives of a task without a broken rule, and every planted bug caught."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.planted import PLANTS, Plant, play_with

TESTS = Path(__file__).resolve().parents[1]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    # In processes of their own: what the simulation replaces stays replaced.
    return subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_lives_of_a_task_break_no_rule() -> None:
    result = simulate("--schedules", "100000")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_lives_of_a_task_break_no_rule() -> None:
    result = simulate("--schedules", "1000")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_seed_replays_step_by_step() -> None:
    first, second = simulate("--seed", "5", "--trace"), simulate("--seed", "5", "--trace")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) > 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_caught(plant: Plant) -> None:
    result = play_with(plant, schedules=500)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "broken" in result.stdout, result.stderr
