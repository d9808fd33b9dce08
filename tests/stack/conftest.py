"""One real Airflow and one emulator for all tests of this folder: starting them costs half a minute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from emulator.storage_server import storage_server
from stack.local_airflow import ROOT, LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give real processes time: the first test of a session also pays for starting them."""
    for item in items:
        if HERE in item.path.parents and not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(300))


BUCKET = "my-bucket"


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    """Run a Cloud Storage with one bucket, ``my-bucket``, and give its URL."""
    with storage_server(BUCKET) as url:
        yield url


@pytest.fixture(scope="session")
def stack_emulator(storage: str) -> Iterator[Emulator]:
    """Run the emulator that the Airflow of these tests talks to, in a thread; its Vertex jobs use ``storage``."""
    with Emulator(port=0, storage_endpoint=storage) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def vertex_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the service-account key that the Vertex connection names; each test has a new key in it."""
    return tmp_path_factory.mktemp("keys") / "key.json"


@pytest.fixture
def emulator(stack_emulator: Emulator, vertex_key_file: Path) -> Emulator:
    """Give the emulator as new: no jobs, files, faults, accounts, and its first clock."""
    stack_emulator.control.reset()
    vertex_key_file.write_text(json.dumps(stack_emulator.service_account_info()), encoding="utf-8")
    return stack_emulator


@pytest.fixture(scope="session")
def output_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for what Dags write; they find it in ``GEMINI_BATCH_DEMO_FOLDER``."""
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="session")
def local_airflow(
    stack_emulator: Emulator, output_folder: Path, vertex_key_file: Path, storage: str
) -> Iterator[LocalAirflow]:
    """Run Airflow with one triggerer, the Dags of ``tests/stack/dags`` and ``example_dags``, connected to the emulator.

    All Dags are paused; ``trigger`` and ``wait_scheduled_run`` unpause theirs.
    """
    vertex = json.loads(stack_emulator.connection("vertex"))
    del vertex["extra"]["keyfile_dict"]
    vertex["extra"]["key_path"] = str(vertex_key_file)
    vertex["extra"]["staging_path"] = f"gs://{BUCKET}/staging"
    connections = {
        "gemini_batch_default": stack_emulator.connection(),
        "gemini_batch_vertex": json.dumps(vertex),
    }
    settings = {
        "GEMINI_BATCH_DEMO_FOLDER": str(output_folder),
        "STORAGE_EMULATOR_HOST": storage,
        # Nobody kills tasks here, and on a busy machine one may take long to say that it has begun.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
    }
    folders = [HERE / "dags", ROOT / "example_dags"]
    with LocalAirflow(folders, connections=connections, settings=settings) as airflow:
        yield airflow
