"""The page "Gemini batches" in Airflow's navigation. Every Airflow process loads this file, so it builds nothing.

The page itself lies in :mod:`.ui` and is imported by the api-server with the first request for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from airflow.plugins_manager import AirflowPlugin

from airflow_provider_gemini_batch.ui import MOUNT, ROUTE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

# The first Airflow that can limit a tab to the tasks of some operators.
_SCOPED_TABS = (3, 4)
_CREATE_OPERATORS = (
    "GeminiCreateBatchJobOperator",
    "GeminiCreateEmbeddingsBatchJobOperator",
    "_GeminiBatchDecoratedOperator",
)
_PAGE = MOUNT.removeprefix("/")
_NAVIGATION: dict[str, Any] = {
    "name": "Gemini batches",
    # Relative to the base of Airflow's page, which knows the path that Airflow is served under.
    "href": f"{_PAGE}/",
    "destination": "nav",
    "url_route": ROUTE,
    "icon": f"{_PAGE}/static/icon.svg",
    "icon_dark_mode": f"{_PAGE}/static/icon-dark.svg",
}
_TAB: dict[str, Any] = {
    **_NAVIGATION,
    "name": "Gemini batch",
    "href": f"{_PAGE}/batch?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
    "destination": "task_instance",
    "url_route": f"{ROUTE}-task",
    "applies_to": {"operators": list(_CREATE_OPERATORS)},
}


class LazyApp:
    """An ASGI application that imports the page with the first request."""

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Pass the request on to the page."""
        from airflow_provider_gemini_batch.ui.app import app

        await app(scope, receive, send)


def views(version: str) -> list[dict[str, Any]]:
    """Return what an Airflow of this version shows: the page, and a tab where it can be limited to our tasks."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return [_NAVIGATION, _TAB] if (major, minor) >= _SCOPED_TABS else [_NAVIGATION]


class GeminiBatchPlugin(AirflowPlugin):
    """Adds the page and its entry in the navigation."""

    name = "gemini_batch"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": MOUNT, "name": "Gemini batches"}]  # noqa: RUF012  as Airflow declares it
    external_views = views(airflow_version)
