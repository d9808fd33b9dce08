"""Addresses that the page links to: Airflow's own pages, jobs and files at Google."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.names import job_page_url
from airflow_provider_gemini_batch.ui import MOUNT, ROUTE

_STORAGE = "https://console.cloud.google.com/storage/browser/"
_FIRST_WITH_DEEP_LINKS = (3, 3)
_BIGQUERY = "https://console.cloud.google.com/bigquery?"


class Place(NamedTuple):
    """Where a batch is in Airflow. ``map_index`` is -1 for a task that is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def query(self) -> str:
        """The query that names the batch in an address of the page."""
        names = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id}
        index = {"map_index": str(self.map_index)} if self.map_index >= 0 else {}
        return urlencode(names | index, quote_via=quote)


def task_page(base: str, place: Place, try_number: int | None = None) -> str:
    """Return Airflow's page of a task instance, which opens with its log.

    :param base: the path under which this Airflow is served, empty or ``/airflow``.
    """
    mapped = f"/mapped/{place.map_index}" if place.map_index >= 0 else ""
    query = f"?try_number={try_number}" if try_number else ""
    return f"{run_page(base, place)}/tasks/{_part(place.task_id)}{mapped}{query}"


def run_page(base: str, place: Place) -> str:
    """Return Airflow's page of a run."""
    return f"{base}/dags/{_part(place.dag_id)}/runs/{_part(place.run_id)}"


def batch_page(place: Place) -> str:
    """Return the complete URL of a batch's page, for links from outside Airflow.

    Since Airflow 3.3, a URL can show the page inside Airflow's frame; before, the page opens by itself.
    """
    from airflow import __version__
    from airflow.sdk.configuration import conf

    root: str = conf.get("api", "base_url", fallback="").rstrip("/")
    page = f"{MOUNT}/batch?{place.query}"
    if tuple(int(part) for part in __version__.split(".")[:2]) < _FIRST_WITH_DEEP_LINKS:
        return f"{root}{page}"
    return f"{root}/plugin/{ROUTE}{urlsplit(root).path}{page}"


def job_page(name: str) -> str:
    """Return the URL of Google's page of a job; empty for an invalid name."""
    try:
        return job_page_url(name)
    except ConfigurationError:
        return ""


def output_page(output: str) -> str:
    """Return the URL of Google's page of an output in Cloud Storage or BigQuery; empty for any other place."""
    scheme, _, rest = output.partition("://")
    if scheme == "gs" and rest.strip("/"):
        bucket, slash, name = rest.strip("/").partition("/")
        # Before an @ stands the connection that Airflow reads the address with.
        return _STORAGE + quote(bucket.rpartition("@")[2] + slash + name, safe="/")
    project, _, table = rest.partition(".")
    dataset, _, table = table.partition(".")
    if scheme == "bq" and project and dataset:
        place = {"project": project, "p": project, "d": dataset, "page": "dataset"}
        return _BIGQUERY + urlencode(place | ({"t": table, "page": "table"} if table else {}))
    return ""


def _part(text: str) -> str:
    return quote(text, safe="")
