"""The page as the api-server serves it: Airflow's own login, a database of its own, users who may read some Dags."""

from __future__ import annotations

import html
import os
import re
import socket
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from airflow_provider_gemini_batch.batch.overview import OVERVIEW_KEY, JobOverview, Overview
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from starlette.testclient import TestClient

    from ui.seed import Seeder

ADMIN = "admin"
HOME = "/gemini-batches"
JOB = "batches/abc123"
OVERVIEW = Overview(phase="running", model="gemini-2.5-flash", total=200, output="gs://bucket/rows.jsonl").with_job(
    JobOverview(JOB, state="RUNNING", submitted_at=1_700_000_000, total=200)
)


class SomeDagsAuthManager(SimpleAuthManager):
    """Airflow's simple manager, whose users named ``reads-<dag>`` may read that Dag alone, ``reads-`` none."""

    def is_authorized_dag(
        self,
        *,
        method: ResourceMethod,
        user: SimpleAuthManagerUser,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        """Say of no Dag in particular whether the user may see anything of the kind, else whether this Dag."""
        name = user.get_name()
        if not name.startswith("reads-"):
            return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
        if method != "GET":
            return False
        if details is None or details.id is None:
            return access_entity is not None and name != "reads-"
        return details.id == name.removeprefix("reads-")


@contextmanager
def own_database(folder: Path) -> Iterator[str]:
    """Point Airflow to a migrated, empty SQLite database for as long as the block lasts."""
    from airflow import settings

    from stack.local_airflow import LocalAirflow

    airflow = LocalAirflow(home=folder)
    airflow._make_database()
    name = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    before = os.environ[name]
    os.environ[name] = airflow.database_url
    _reconnect(settings)
    try:
        yield airflow.database_url
    finally:
        os.environ[name] = before
        _reconnect(settings)


def _reconnect(settings: Any) -> None:
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


@contextmanager
def client() -> Iterator[TestClient]:
    """Serve the page below ``/`` as Airflow does: mounted, behind the login."""
    from airflow.api_fastapi import app as airflow_app
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from airflow_provider_gemini_batch.plugin import GeminiBatchPlugin

    os.environ["AIRFLOW__CORE__AUTH_MANAGER"] = f"{__name__}.{SomeDagsAuthManager.__name__}"
    airflow_app.purge_cached_app()
    outer = FastAPI()
    try:
        airflow_app.init_auth_manager(outer)
        for each in GeminiBatchPlugin.fastapi_apps:
            outer.mount(each["url_prefix"], each["app"])
        with TestClient(outer, base_url="http://airflow.test") as found:
            yield found
    finally:
        del os.environ["AIRFLOW__CORE__AUTH_MANAGER"]
        airflow_app.purge_cached_app()


@contextmanager
def served() -> Iterator[str]:
    """Serve the page on loopback, for a browser; gives the address of the list."""
    import uvicorn

    with client() as found, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # or a browser that is quicker than the thread is turned away
        server = uvicorn.Server(uvicorn.Config(found.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}{HOME}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


def headers(user: str = ADMIN) -> dict[str, str]:
    """Return what a signed-in user sends."""
    from airflow.api_fastapi.app import get_auth_manager

    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=user, role="admin"))
    return {"Authorization": f"Bearer {token}"}


def read(page: TestClient, path: str, user: str = ADMIN, /, **query: str) -> str:
    """Return a page that must be there."""
    answer = page.get(f"{HOME}{path}", params=query, headers=headers(user))
    assert answer.status_code == 200, answer.text
    return answer.text


def words(text: str) -> str:
    """Return the text of a page as people read it."""
    text = re.sub(r"<(style|script|title)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<wbr>", "", re.sub(r"<(?!wbr)[^>]+>", " ", text))))


def add(seeder: Seeder, overview: Overview | None = None, /, *, dag_id: str = "shop", **more: Any) -> None:
    """Add one batch; it runs since ten minutes unless something else is said."""
    seeder.dag(dag_id)
    progress = more.pop("progress", None)
    xcoms = {OVERVIEW_KEY: (overview or OVERVIEW).to_value()} | ({PROGRESS_KEY: progress} if progress else {})
    values: dict[str, Any] = {
        "task_id": "describe",
        "run_id": "manual__1",
        "state": "deferred",
        "began": seeder.now - timedelta(minutes=10),
        "xcoms": xcoms,
    }
    seeder.task(dag_id, **(values | more))
    seeder.write()


def detail(page: TestClient, user: str = ADMIN, **place: str) -> str:
    """Return the page of the batch that ``add`` writes."""
    return read(page, "/batch", user, **({"dag_id": "shop", "run_id": "manual__1", "task_id": "describe"} | place))
