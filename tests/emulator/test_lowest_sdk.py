"""The judge of the official SDK, asked again with the lowest SDK that the tests support."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUDGE = Path(__file__).with_name("test_sdk_judge.py")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_lowest_sdk_works_too(tmp_path: Path) -> None:
    found = re.search(r'"google-genai>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found is not None
    wanted = f"google-genai=={found[1]}" + (".0" if found[1].count(".") == 1 else "")
    # Without what it depends on: this environment has that, and the SDK alone is to be another.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path), "--no-deps", wanted]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"{wanted} is fetched for this test, and the package registry is out of reach")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", str(JUDGE)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
