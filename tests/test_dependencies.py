"""What is imported is declared, with floors above known holes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "airflow_provider_gemini_batch"
# Import name to the distribution that brings it, where the two differ.
BROUGHT_BY = {
    "airflow": "apache-airflow",
    "attr": "attrs",
    "google.auth": "google-auth",
    "google.cloud": "google-cloud-bigquery",
    "google.oauth2": "google-auth",
    "pydantic_core": "pydantic",
    "typing_extensions": "typing-extensions",
    "genai_prices": "genai-prices",
}
# Guarded by whoever has it: Airflow's listener and traces, pytest's own plugin, the adapter's host.
GUARDED = {"openlineage", "opentelemetry", "pytest", "pydantic_ai"}


def third_parties() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                parts = name.split(".")
                found.add(".".join(parts[:2]) if parts[0] == "google" else parts[0])
    return found - set(sys.stdlib_module_names) - {"airflow_provider_gemini_batch"} - GUARDED


def declared() -> dict[str, str]:
    """Distributions that pyproject.toml names outside of its own tools, with their floors."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\ndocs = [")[0]
    return dict(re.findall(r'"([a-z0-9-]+)>=([0-9.]+)"', text))


def test_what_is_imported_is_declared() -> None:
    missing = {name for name in third_parties() if BROUGHT_BY.get(name, name) not in declared()}
    assert not missing


def test_floors_keep_known_holes_out() -> None:
    sys.path.insert(0, str(ROOT / "constraints"))
    try:
        from audit import FLOORS, version  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    given = declared()
    assert not [name for name, floor in FLOORS.items() if version(given[name]) < version(floor)]


@pytest.mark.parametrize("options", [["--floors"]])
def test_pinned_versions_lie_above_the_floors(options: list[str]) -> None:
    command = [sys.executable, str(ROOT / "constraints" / "audit.py"), *options]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
