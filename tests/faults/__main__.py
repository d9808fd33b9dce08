"""``python -m tests.faults``: plant each fault into a copy of the code, and see its test fail."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.table import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_gemini_batch"
_FAILED = 1  # pytest's own code for tests that failed; anything else is a test that did not run
_SECONDS = 300


def plant(fault: Fault, folder: Path) -> None:
    """Copy the code with the fault in it. Raises ``ValueError`` when its place is not in the code any more."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=unwanted)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = folder / PACKAGE / fault.file
    code = file.read_text("utf-8")
    if code.count(fault.old) != 1:
        raise ValueError(f"{fault.row}: {fault.file} has changed; plant the fault where it belongs now")
    file.write_text(code.replace(fault.old, fault.new), "utf-8")


def is_caught(fault: Fault) -> tuple[bool, str]:
    """Run the test of a fault in a copy that has it, and return whether it failed, and the last line it said."""
    with tempfile.TemporaryDirectory(prefix="fault-") as name:
        folder = Path(name)
        plant(fault, folder)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "60", fault.test]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder)},
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return False, f"not over after {_SECONDS} s"
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]
    return done.returncode == _FAILED, last


def main() -> int:
    """Play all faults, or those whose rows contain a word, and say which are caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", help="words of the rows to play")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if not arguments.rows or any(word in fault.row for word in arguments.rows)]
    caught = 0
    with ThreadPoolExecutor(arguments.processes) as pool:
        for fault, (found, last) in zip(chosen, pool.map(is_caught, chosen), strict=True):
            caught += found
            print(f"{'caught' if found else 'MISSED'}: {fault.row} ({fault.file}): {last[:120]}", flush=True)
    print(f"{caught} of {len(chosen)} faults caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
