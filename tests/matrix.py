"""`make test-all`: the tests on every Python and Airflow that the metadata names, and with the oldest dependencies.

Fast tests run on every pair; all tests run at the corners (oldest Python with the oldest Airflow, newest with newest).
``lowest`` is the oldest Python with every direct dependency at its floor, ``newest`` the newest Python without any pin.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PYTHONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
AIRFLOWS = sorted(path.stem.removeprefix("airflow-") for path in (ROOT / "constraints").glob("airflow-*.txt"))
FAST = ("-m", "not stack and not slow and not chaos and not browser")
SLOW = ("-m", "slow and not stack and not chaos and not browser")
STACK = ("-m", "stack and not chaos", "tests/stack", "tests/chaos")
SUMMARY = re.compile(r"(\d+) (passed|failed|skipped|errors?)")


class Cell(NamedTuple):
    """One environment: a Python, the constraint file that pins its packages (or none), and how much runs there."""

    python: str
    pins: str
    whole: bool


def cells() -> list[Cell]:
    """Return every environment of the table."""
    corners = {(PYTHONS[0], AIRFLOWS[0]), (PYTHONS[-1], AIRFLOWS[-1])}
    pairs = [Cell(each, airflow, (each, airflow) in corners) for each in PYTHONS for airflow in AIRFLOWS]
    lowest = [Cell(PYTHONS[0], "lowest", whole=False)] if (ROOT / "constraints" / "lowest.txt").exists() else []
    return [*pairs, *lowest, Cell(PYTHONS[-1], "newest", whole=False)]


def find_python(version: str) -> str | None:
    """Find an interpreter of this minor version on the PATH or in pyenv; a pyenv shim that leads nowhere is no find."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        asked = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() == version:
            return candidate
    return None


def make_environment(cell: Cell, python: str) -> Path | None:
    """Make or update the virtual environment of a cell; None when its packages cannot be installed."""
    venv = ROOT / f".venv-{cell.python}-{cell.pins}"
    binary = venv / "bin" / "python"
    constraints = {"lowest": "constraints/lowest.txt", "newest": None}.get(
        cell.pins, f"constraints/airflow-{cell.pins}.txt"
    )
    steps: list[list[str]] = []
    if not binary.exists():
        steps += [[python, "-m", "venv", str(venv)], [str(binary), "-m", "pip", "install", "--quiet", "uv"]]
    pinned = ["--constraint", constraints] if constraints else ["--upgrade"]
    uv = str(venv / "bin" / "uv")
    steps.append([uv, "pip", "install", "--quiet", "--python", str(binary), *pinned, "--editable", ".[test]"])
    for step in steps:
        if subprocess.run(step, cwd=ROOT, check=False).returncode:
            return None
    return binary


def run_tests(binary: Path, cell: Cell) -> tuple[bool, str]:
    """Run the tests of a cell; returns whether all passed, and the counts in words."""
    parallel = ("-n", "2", "--dist", "loadfile")
    suites: list[tuple[str, ...]] = [(*parallel, *FAST)]
    if cell.whole:
        suites += [(*parallel, *SLOW), STACK]
    counts: dict[str, int] = {}
    good = True
    for suite in suites:
        log = ROOT / f".matrix-{cell.python}-{cell.pins}.log"
        with log.open("a", encoding="utf-8") as output:
            command = [str(binary), "-m", "pytest", "-q", *suite]
            code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
        good &= code == 0
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if " in " in line]
        for number, what in SUMMARY.findall(lines[-1] if lines else ""):
            counts[what] = counts.get(what, 0) + int(number)
    return good, ", ".join(f"{number} {what}" for what, number in counts.items()) or "no tests ran"


def main() -> int:
    """Run the whole table, or the cells that the arguments name; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="cells such as 3.12-3.3 or 3.10-lowest; all of them by default")
    wanted = set(parser.parse_args().only)
    lines: list[tuple[str, ...]] = [("Python", "Airflow", "tests", "result", "seconds")]
    failed = False
    for cell in cells():
        if wanted and f"{cell.python}-{cell.pins}" not in wanted:
            continue
        started = time.monotonic()
        python = find_python(cell.python)
        binary = make_environment(cell, python) if python else None
        if binary is None:
            good, counts = False, "no such Python here" if python is None else "packages cannot be installed"
        else:
            good, counts = run_tests(binary, cell)
        failed |= not good
        scope = "all" if cell.whole else "fast"
        seconds = f"{time.monotonic() - started:.0f}"
        lines.append((cell.python, cell.pins, scope, counts if good else f"FAILED: {counts}", seconds))
        print("  ".join(f"{text:8}" for text in lines[-1]), flush=True)
    print()
    for line in lines:
        print("| " + " | ".join(line) + " |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
