"""Run the tests on every supported Python found on this machine, with every supported Airflow (`make test-all`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
AIRFLOWS = sorted(path.stem.removeprefix("airflow-") for path in (ROOT / "constraints").glob("airflow-*.txt"))


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


def run(python: str, version: str, airflow: str, targets: list[str]) -> str:
    """Run make targets in an environment for this pair; 'passed in N s' or 'FAILED (target)'."""
    started = time.monotonic()
    common = [f"PYTHON={python}", f"AIRFLOW={airflow}", f"VENV=.venv-{version}-{airflow}"]
    for target in targets:
        if subprocess.run(["make", "--no-print-directory", target, *common], cwd=ROOT, check=False).returncode:
            return f"FAILED ({target})"
    return f"passed in {time.monotonic() - started:.0f} s"


def main() -> int:
    """Run all pairs and print a table; 1 when one failed. Arguments are make targets in place of the usual three."""
    targets = sys.argv[1:] or ["test-fast", "test-slow", "test-stack"]
    results: dict[tuple[str, str], str] = {}
    for version in PYTHONS:
        python = find_python(version)
        for airflow in AIRFLOWS:
            results[version, airflow] = run(python, version, airflow, targets) if python else "no such Python here"
    for (version, airflow), result in results.items():
        print(f"Python {version:5} Airflow {airflow:4} {result}")
    return int(any(result.startswith("FAILED") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
