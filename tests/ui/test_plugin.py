"""What Airflow is told of the page, and what every process that loads plugins pays for it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from airflow_provider_gemini_batch.plugin import GeminiBatchPlugin, views
from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO

NAME = "airflow_provider_gemini_batch"
_SCRIPT = f"""
import json, sys
import airflow.plugins_manager
before = set(sys.modules)
import {NAME}.plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_airflow_finds_the_page_by_its_entry_point_and_nowhere_else() -> None:
    found = [each for each in entry_points(group="airflow.plugins") if each.value.startswith(NAME)]
    assert [each.load() for each in found] == [GeminiBatchPlugin]
    assert "plugins" not in PROVIDER_INFO


@pytest.mark.slow
def test_loading_the_plugin_loads_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert f"{NAME}.plugin" in loaded
    # Airflow may have asked for the provider's info before.
    assert loaded <= {NAME, f"{NAME}.provider_info", f"{NAME}.plugin", f"{NAME}.ui"}


@pytest.mark.parametrize(("version", "tabs"), [("3.2.2", 0), ("3.3.2", 0), ("3.4.0", 1), ("3.10.1", 1), ("4.0.0", 1)])
def test_a_tab_appears_where_airflow_can_keep_it_to_our_tasks(version: str, tabs: int) -> None:
    found = [each for each in views(version) if each["destination"] != "nav"]
    assert len(found) == tabs
    assert all(each["applies_to"]["operators"] for each in found)


def test_the_tab_names_every_operator_that_creates_a_batch() -> None:
    from airflow_provider_gemini_batch import decorators, operators

    created = operators._CreateBatchJob
    found = {
        each.__name__
        for module in (operators, decorators)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, created) and each is not created
    }
    (tab,) = (each for each in views("3.4.0") if each["destination"] == "task_instance")
    assert set(tab["applies_to"]["operators"]) == found


def test_addresses_are_relative_so_that_they_work_below_any_path() -> None:
    for each in views("3.4.0"):
        assert not each["href"].startswith("/")
        assert not each["icon"].startswith("/")
