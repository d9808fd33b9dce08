"""What a finished batch read and wrote, for Airflow's hook lineage and, where it is installed, for OpenLineage.

Rules of this file: addresses, names and counts only, never rows; OpenLineage is imported only when its provider asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.states import Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments

_SCHEMA = "https://github.com/OpenLineage/OpenLineage/tree/main/spec/OpenLineage.json#/$defs/RunFacet"


@dataclass(frozen=True)
class Lineage:
    """Addresses of what a batch read and of what holds its responses now."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def lineage_of(arguments: BatchArguments, summary: Mapping[str, Any], places: Iterable[str] = ()) -> Lineage:
    """Return the addresses of the author's sources, and of the result rows and responses that stay.

    What this provider stages for a job is left out: it is gone when the task ends.

    :param places: where the service itself wrote responses that stay there.
    """
    outputs = [*places, summary.get("output")]
    return Lineage(
        tuple(dict.fromkeys(_address(one) for one in arguments.input_addresses)),
        tuple(dict.fromkeys(_address(one) for one in outputs if one)),
    )


def report_to_hook_lineage(hook: Any, lineage: Lineage) -> None:
    """Pass the gs:// and bq:// addresses to Airflow's collector.

    Airflow's ObjectStoragePath, which reads and writes other addresses, passes them on itself.
    """
    from airflow.sdk.lineage import get_hook_lineage_collector

    collector = get_hook_lineage_collector()
    for uri in filter(_is_google, lineage.inputs):
        collector.add_input_asset(context=hook, uri=uri)
    for uri in filter(_is_google, lineage.outputs):
        collector.add_output_asset(context=hook, uri=uri)


def openlineage_facets(lineage: Lineage, summary: Mapping[str, Any]) -> OperatorLineage[Any, Any]:
    """Return the facets of a finished batch: data sets, jobs, model and tokens.

    The data sets are named as OpenLineage's naming rules say: ``gs://bucket`` and the object, ``bigquery`` and the
    table.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import external_query_run

    facets: dict[str, Any] = {"geminiBatch": _run_facet(summary)}
    if name := summary.get("job_name"):
        facets["externalQuery"] = external_query_run.ExternalQueryRunFacet(
            externalQueryId=name, source=Service.of_job(name).value
        )
    return OperatorLineage(
        inputs=[Dataset(*_named(uri)) for uri in lineage.inputs],
        outputs=[Dataset(*_named(uri)) for uri in lineage.outputs],
        run_facets=facets,
    )


def _run_facet(summary: Mapping[str, Any]) -> Any:
    """Return our own facet; its class is made here because it needs OpenLineage's."""
    import attr
    from openlineage.client.facet_v2 import RunFacet

    @attr.define
    class GeminiBatchRunFacet(RunFacet):  # type: ignore[misc, unused-ignore]
        """Jobs, model, counts and tokens of a batch."""

        jobNames: list[str]  # noqa: N815  (facets are spelled in camel case)
        model: str
        state: str
        counts: dict[str, int]
        usage: dict[str, int]

        @staticmethod
        def _get_schema() -> str:
            return _SCHEMA

    return GeminiBatchRunFacet(
        jobNames=list(summary.get("job_names") or ()),
        model=str(summary.get("model") or ""),
        state=str(summary.get("state") or ""),
        counts=dict(summary.get("counts") or {}),
        usage=dict(summary.get("usage") or {}),
    )


def _address(path: str) -> str:
    return path if "://" in path or path.startswith("files/") else f"file://{path}"


def _is_google(uri: str) -> bool:
    return uri.startswith(("gs://", "bq://"))


def _named(uri: str) -> tuple[str, str]:
    """Return OpenLineage's namespace and name for an address."""
    if uri.startswith("bq://"):
        return "bigquery", uri.removeprefix("bq://")
    if uri.startswith("files/"):
        return "gemini", uri
    # Not by urlsplit: a name may hold `#`, `?` and brackets.
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    if not host:
        return scheme, f"/{path}"
    if not scheme.startswith(("abfs", "wasb")):  # where a container stands before the @
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}", path.strip("/") or "/"
