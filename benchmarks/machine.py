"""The machine, the interpreters and the tables of the measurements."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".cache" / "bench-venv"
OTHERS = (
    "apache-airflow==3.3.2",
    "apache-airflow-providers-google==22.8.0",
    "apache-airflow-providers-anthropic==1.2.0",
)


def interpreter() -> str:
    """An interpreter that has the other providers beside Airflow; made once, kept in .cache/bench-venv."""
    python = VENV / "bin" / "python"
    done = VENV / ".installed"
    if not done.exists():
        print(f"Installing {', '.join(OTHERS)} into {VENV.relative_to(ROOT)} ...", flush=True)
        uv = Path(sys.executable).with_name("uv")
        if uv.exists():
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, VENV], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *OTHERS], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *OTHERS], check=True)
        done.touch()
    return str(python)


def environment(home: str) -> dict[str, str]:
    """An environment in which only what is measured is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "GOOGLE", "GEMINI"))}
    return {
        **kept,
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


def describe() -> str:
    """The machine in a line, its load included: what else runs shows in every number."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        model = next(lines, model)
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the start"
    )


def table(title: str, rows: list[list[str]]) -> str:
    """A table in Markdown, its columns aligned; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if not number else ":") for number, width in enumerate(widths)) + "|"
    return "\n".join([f"\n### {title}\n", line(rows[0]), rule, *(line(row) for row in rows[1:])])


class Claims:
    """What is promised, and whether this run kept it."""

    def __init__(self) -> None:
        self.rows = [["promise", "measured", "kept"]]

    def add(self, promise: str, measured: float, most: float, unit: str = "") -> None:
        """Note a promise of at most so much."""
        self.rows.append(
            [f"{promise}: at most {most:g}{unit}", f"{measured:.3g}{unit}", "yes" if measured <= most else "NO"]
        )

    @property
    def broken(self) -> int:
        """How many were not kept."""
        return sum(row[2] == "NO" for row in self.rows)
