"""Look the pinned versions up in the database of known holes: ``make audit``; 1 when there are any.

Asks with pip-audit, which needs the network; where it cannot be had, only the floors of pyproject.toml are checked
against the holes that were known when they were set.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
# Package: the first version without the holes that its floor keeps out.
FLOORS = {
    "aiohttp": "3.13.3",  # answers that unpack without end
    "cryptography": "46.0.5",  # points of small order on some curves
    "jinja2": "3.1.6",  # a way out of the sandbox
    "pyarrow": "23.0.1",  # memory used after it was given back, while a file is read
    "requests": "2.32.4",  # .netrc read for the wrong host
    "starlette": "0.49.1",  # Range headers that take quadratic time
    "urllib3": "2.6.3",  # answers that unpack without end
}


def version(text: str) -> tuple[int, ...]:
    """Return a version as numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def below_floor(file: Path) -> list[str]:
    """Return the pins of a file that lie below a floor."""
    pins = re.findall(r"^([a-z0-9-]+)==([0-9.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [
        f"{file.name}: {name} {pin}" for name, pin in pins if name in FLOORS and version(pin) < version(FLOORS[name])
    ]


def main() -> int:
    """Check every file of pins."""
    files = sorted(HERE.glob("*.txt"))
    wrong = [line for file in files for line in below_floor(file)]
    for line in wrong:
        sys.stderr.write(f"below the floor: {line}\n")
    if find_spec("pip_audit") is None:
        sys.stdout.write("pip-audit is not installed: only the floors were checked.\n")
        return 1 if wrong else 0
    failed = 0
    for file in files:
        if "--floors" not in sys.argv:
            command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-r", str(file)]
            failed |= subprocess.run(command, check=False).returncode
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
