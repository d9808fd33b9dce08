"""Resolve the pinned versions anew: one file for each Airflow, valid for every Python (markers tell them apart)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
AIRFLOWS = {
    # Airflow 3.2 sets no upper bounds for these and does not start with the newest of them.
    "3.2": ["apache-airflow>=3.2,<3.3", "fastapi<0.137", "pydantic<2.13", "sqlalchemy<2.1"],
    "3.3": ["apache-airflow>=3.3,<3.4"],
}
PROMISED = ("parquet", "vertex", "bigquery", "genai-prices", "test")
EXTRAS = ("parquet", "vertex", "bigquery", "genai-prices", "test", "docs")


def resolve(airflow: str, requirements: list[str]) -> None:
    """Write ``airflow-<airflow>.txt``: names, versions and markers only, so that the file holds on any machine."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as limit:
        limit.write("\n".join(requirements))
        limit.flush()
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", str(HERE.parent / "pyproject.toml")]
        command += [part for extra in EXTRAS for part in ("--extra", extra)]
        command += ["--constraint", limit.name, "--universal", "--python-version", "3.10", "--quiet"]
        command += ["--upgrade"] if "--upgrade" in sys.argv else []
        command += ["--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--output-file", str(HERE / f"airflow-{airflow}.txt")]
        subprocess.run(command, check=True)


def resolve_lowest() -> None:
    """Write ``lowest.txt``: the oldest versions that are promised to work, of everything that this package declares."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", str(HERE.parent / "pyproject.toml")]
    command += [part for extra in PROMISED for part in ("--extra", extra)]
    command += ["--resolution", "lowest-direct", "--universal", "--python-version", "3.10", "--quiet"]
    command += ["--upgrade"] if "--upgrade" in sys.argv else []
    command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--output-file", str(HERE / "lowest.txt")]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    for airflow, requirements in AIRFLOWS.items():
        resolve(airflow, requirements)
    resolve_lowest()
