"""Ground for all tests: an Airflow home of their own; no credential, proxy or setting of whoever runs them."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# Airflow reads its settings while it is imported, so they are made here, before any test module is.
_FOREIGN = ("AIRFLOW_", "GOOGLE_", "GEMINI_", "CLOUDSDK_", "GCLOUD_", "STORAGE_EMULATOR_HOST")
for _name in list(os.environ):
    if _name.startswith(_FOREIGN) or _name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
        del os.environ[_name]

_HOME = Path(tempfile.mkdtemp(prefix="gemini-batch-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(_HOME / "dags"),
    AIRFLOW__CORE__FERNET_KEY="ZmFrZS1mZXJuZXQta2V5LTMyLWJ5dGVzLWxvbmchISE=",
    AIRFLOW__API_AUTH__JWT_SECRET="no-secret-only-for-tests-" * 3,
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME / 'airflow.db'}",
    # A member that the emulator does not know is a mistake of ours.
    GEMINI_BATCH_EMULATOR_STRICT="1",
    # A laptop without Google's metadata server must not be asked for one.
    NO_GCE_CHECK="true",
    no_proxy="*",
    NO_PROXY="*",
)

# The machine may be busy with something else: how long an example takes, or making one, says nothing about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell that runs the tests in the background makes them ignore Ctrl-C, and their children with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _airflow_database() -> None:
    """Give the test process a migrated database and Airflow's execution API."""
    from dag_runs import make_database, start_execution_api

    make_database()
    start_execution_api()


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> Iterator[None]:
    """Forget what was masked: Airflow compiles all secrets that a process has seen into one pattern, every time."""
    yield
    for name in ("airflow.sdk._shared.secrets_masker", "airflow._shared.secrets_masker"):
        masker = getattr(sys.modules.get(name), "_secrets_masker", None)
        if masker is not None:
            masker().reset_masker()
