"""A database of its own, and the page behind Airflow's login."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from ui import airflow_page
from ui.browser import chromium
from ui.seed import Seeder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def page_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the batches of one file of tests apart from everything else in the process."""
    with airflow_page.own_database(tmp_path_factory.mktemp("airflow")):
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start one browser for all tests; each has pages of its own."""
    with chromium() as found:
        yield found


@pytest.fixture
def seeder(page_database: None) -> Iterator[Seeder]:  # noqa: ARG001
    """Write batches into an empty database."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        for model in (XComModel, TaskInstance, DagRun):
            session.execute(model.__table__.delete())
        session.commit()
        yield Seeder(session, datetime.now(tz=timezone.utc).replace(microsecond=0))


@pytest.fixture
def page(page_database: None) -> Iterator[TestClient]:  # noqa: ARG001
    """Serve the page; ``headers`` of :mod:`ui.airflow_page` sign somebody in."""
    with airflow_page.client() as client:
        yield client
