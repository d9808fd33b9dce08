"""What a Dag file pays for naming this provider: these modules, and not one more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NAME = "airflow_provider_gemini_batch"
# Adding one here makes the parsing of every Dag file dearer: `make bench` tells by how much.
OURS = {
    NAME,
    f"{NAME}.api",
    f"{NAME}.api.errors",
    f"{NAME}.api.names",
    f"{NAME}.api.states",
    f"{NAME}.decorators",
    f"{NAME}.links",
    f"{NAME}.operators",
    f"{NAME}.rows",
    f"{NAME}.rows.python_rows",
    f"{NAME}.runtime",
    f"{NAME}.runtime.arguments",
    f"{NAME}.runtime.dag_errors",
    f"{NAME}.runtime.rendering",
    f"{NAME}.runtime.argument_readers",
    f"{NAME}.sensors",
    f"{NAME}.triggers",
}
# A Dag file whose tasks use the hook loads these as well: no client, none of the values that it gives, and nothing that
# reads a connection.
HOOK = {f"{NAME}.hooks", f"{NAME}.runtime.client", f"{NAME}.runtime.deployment"}
_SCRIPT = f"""
import json, sys, typing
import airflow.sdk, airflow.triggers.base, airflow.dag_processing.processor
before = set(sys.modules)
import {NAME}.operators, {NAME}.sensors, {NAME}.triggers, {NAME}.decorators
import {NAME}
{NAME}.get_provider_info()
loaded = set(sys.modules) - before
import {NAME}.hooks
print(json.dumps([sorted(loaded), sorted(set(sys.modules) - before - loaded)]))
"""


@pytest.mark.slow
def test_the_dag_facing_modules_load_nothing_beyond_airflow_and_themselves() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    loaded, with_hook = map(set, json.loads(done.stdout.splitlines()[-1]))
    ours = {name for name in loaded if not name.startswith("airflow.")}
    assert (ours | {NAME}) - {f"{NAME}.provider_info"} == OURS
    # Parts of the task SDK that any operator, sensor and decorator is made from.
    assert {name for name in loaded - ours if not name.startswith("airflow.sdk.")} == set()
    assert {name for name in with_hook if not name.startswith("airflow.sdk.")} == HOOK
