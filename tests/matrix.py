"""`make test-all`: the tests on every Python and Airflow that is promised, with the oldest and newest dependencies.

Fast tests run in every cell; all tests run at the corners (oldest Python with the oldest Airflow, newest with newest).
A cell that fails does not stop the others: the table at the end has them all, and the exit code is 1.
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
STACK = ("-m", "stack and not chaos and not browser", "tests/stack", "tests/chaos")
HEADER = ("Python", "Airflow", "dependencies", "tests", "passed", "failed", "skipped", "seconds", "result")
WIDTHS = (6, 7, 12, 5, 6, 6, 7, 7, 0)


class Cell(NamedTuple):
    """One environment: a Python, the constraint file that pins its packages (or none), and how much runs there."""

    python: str
    pins: str
    whole: bool

    @property
    def name(self) -> str:
        """Return the name by which the command line asks for the cell."""
        return f"{self.python}-{self.pins}"


def cells() -> list[Cell]:
    """Return every environment of the table; lowest is the oldest Python, newest the newest one without any pin."""
    corners = {(PYTHONS[0], AIRFLOWS[0]), (PYTHONS[-1], AIRFLOWS[-1])}
    pairs = [Cell(each, airflow, (each, airflow) in corners) for each in PYTHONS for airflow in AIRFLOWS]
    return [*pairs, Cell(PYTHONS[0], "lowest", whole=False), Cell(PYTHONS[-1], "newest", whole=False)]


def find_python(version: str) -> str | None:
    """Find an interpreter of this minor version on the PATH or in pyenv; not a pyenv shim that leads nowhere."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        if output_of(candidate, "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return candidate
    return None


def output_of(python: str | Path, code: str) -> str:
    """Return what an interpreter prints for some code; nothing when it cannot run it."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def make_environment(cell: Cell, python: str) -> Path | None:
    """Make or update the virtual environment of a cell; None when its packages cannot be installed."""
    venv = ROOT / f".venv-{cell.name}"
    binary = venv / "bin" / "python"
    steps: list[list[str]] = []
    if not binary.exists():
        steps += [[python, "-m", "venv", str(venv)], [str(binary), "-m", "pip", "install", "--quiet", "uv"]]
    files = {"lowest": "constraints/lowest.txt", "newest": None}
    constraints = files.get(cell.pins, f"constraints/airflow-{cell.pins}.txt")
    pinned = ["--constraint", constraints] if constraints else ["--upgrade"]
    uv = str(venv / "bin" / "uv")
    steps.append([uv, "pip", "install", "--quiet", "--python", str(binary), *pinned, "--editable", ".[test]"])
    for step in steps:
        if subprocess.run(step, cwd=ROOT, check=False).returncode:
            return None
    return binary


def run_tests(binary: Path, cell: Cell, workers: int) -> tuple[str, dict[str, int]]:
    """Run the tests of a cell; returns the result in words, and how many passed, failed and were skipped."""
    parallel = ("-n", str(workers), "--dist", "loadfile")
    suites: list[tuple[str, ...]] = [(*parallel, *FAST)]
    if cell.whole:
        suites += [(*parallel, *SLOW), STACK]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    codes = []
    log = ROOT / f".matrix-{cell.name}.log"
    log.unlink(missing_ok=True)
    for suite in suites:
        with log.open("a", encoding="utf-8") as output:
            command = [str(binary), "-m", "pytest", "-q", *suite]
            codes.append(subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode)
        last = log.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
        for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", last):
            counts["failed" if what == "error" else what] += int(number)
    return f"FAILED: see {log.name}" if any(codes) else "passed", counts


def run_cell(cell: Cell, workers: int) -> tuple[str, ...]:
    """Make a cell's environment, run its tests, and return its line of the table."""
    started = time.monotonic()
    python = find_python(cell.python)
    binary = make_environment(cell, python) if python else None
    counts: dict[str, int] = {}
    airflow = "-"
    if python is None:
        result = "FAILED: no such Python here"
    elif binary is None:
        result = "FAILED: packages cannot be installed"
    else:
        airflow = output_of(binary, "from importlib.metadata import version; print(version('apache-airflow'))")
        result, counts = run_tests(binary, cell, workers)
    numbers = [str(counts.get(what, "-")) for what in ("passed", "failed", "skipped")]
    seconds = f"{time.monotonic() - started:.0f}"
    kind = cell.pins if cell.pins in {"lowest", "newest"} else "pinned"
    return (cell.python, airflow, kind, "all" if cell.whole else "fast", *numbers, seconds, result)


def show(line: tuple[str, ...]) -> None:
    """Print one line of the table."""
    print("| " + " | ".join(text.ljust(width) for text, width in zip(line, WIDTHS, strict=True)) + " |", flush=True)


def main() -> int:
    """Run the whole table, or the cells that the arguments name; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [cell.name for cell in cells()]
    parser.add_argument("only", nargs="*", help=f"cells, all by default: {' '.join(names)}")
    parser.add_argument("--fast", action="store_true", help="only the fast tests, at the corners too")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the fast and the slow tests")
    given = parser.parse_args()
    if unknown := set(given.only) - set(names):
        parser.error(f"unknown cells: {' '.join(sorted(unknown))}")
    chosen = [cell for cell in cells() if not given.only or cell.name in given.only]
    lines = []
    show(HEADER)
    try:
        for cell in chosen:
            lines.append(run_cell(cell._replace(whole=cell.whole and not given.fast), given.workers))
            show(lines[-1])
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    passed = sum(line[-1] == "passed" for line in lines)
    print(f"{passed} of {len(chosen)} environments passed.")
    return int(passed < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
