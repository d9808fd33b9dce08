"""Arguments that cannot work with a connection's service, or in mapped tasks: refused before anything is sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.google.bigquery import NO_LIBRARY
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.api.names import bigquery_uri, gcs_uri, gemini_model, labels, vertex_model
from airflow_provider_gemini_batch.api.vertex_rules import check_job
from airflow_provider_gemini_batch.runtime.argument_readers import is_unknown
from airflow_provider_gemini_batch.runtime.readiness import is_installed
from airflow_provider_gemini_batch.staging.places import is_inside

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments


def check_mapped(task: BaseOperator, map_index: int | None) -> None:
    """Refuse in a mapped task what the Dag file gives to all of them alike: one would take or replace another's rows.

    The first may be the only one, and goes on.

    :raises ConfigurationError: names the argument.
    """
    if not map_index or map_index < 0 or not task.has_dag():  # type: ignore[no-untyped-call]
        return
    written = task.dag.task_dict.get(task.task_id, task)
    if written is task:  # which holds the rendered values
        return
    given = getattr(written, "partial_kwargs", None) or vars(written)
    for name, instead in (("part_key", ""), ("output_path", ", or a folder (a path that ends in /) for all of them")):
        value = given.get(name)
        is_literal = isinstance(value, (str, os.PathLike)) and not is_unknown(value)
        if is_literal and not (instead and str(value).endswith("/")):
            raise ConfigurationError(
                f"{name} is the same for all mapped tasks: give each its own, with {{{{ ti.map_index }}}} in it"
                f"{instead}"
            )


def check_settings(arguments: BatchArguments, service: Service, location: str) -> None:
    """Refuse now what the create call would refuse when rows have been uploaded or staged for it.

    :param location: where Vertex AI is to run the job.
    :raises ConfigurationError: names the argument and says what to do.
    """
    if service is Service.GEMINI:
        gemini_model(arguments.model)
        if arguments.labels:
            raise ConfigurationError("labels: jobs of the Gemini API have none; only Vertex AI takes them")
        return
    model = vertex_model(arguments.model)
    destination = arguments.destination or ""
    check_job(
        model,
        location,
        source_table=arguments.bigquery_uri is not None,
        answer_table=destination.startswith("bq://") or (arguments.bigquery_uri is not None and not destination),
    )
    labels(arguments.labels or {})
    if arguments.priority is not None:
        raise ConfigurationError("priority: Vertex AI has none; only the Gemini API takes one")


def check_places(arguments: BatchArguments, service: Service, staging: str | None) -> None:
    """Refuse what has no place to be read from or written to.

    :param staging: the folder for what Vertex AI reads and writes, from operator, connection or configuration.
    :raises ConfigurationError: names the argument and says what to do.
    """
    if service is Service.GEMINI:
        if arguments.destination is not None:
            raise ConfigurationError(
                "destination is for Vertex AI; on the Gemini API results are landed with output_path"
            )
        return
    uris = [arguments.gcs_uri] if isinstance(arguments.gcs_uri, str) else list(arguments.gcs_uri or ())
    for uri in uris:
        gcs_uri(uri, "gcs_uri")
    if arguments.bigquery_uri is not None:
        bigquery_uri(arguments.bigquery_uri, "bigquery_uri")
    if arguments.destination is not None:
        check = bigquery_uri if arguments.destination.startswith("bq://") else gcs_uri
        check(arguments.destination, "destination")
    needs_staging = arguments.bigquery_uri is None and not (uris and arguments.destination)
    if needs_staging and not (staging or "").startswith("gs://"):
        what = "writes responses to" if uris else "reads rows from"
        raise ConfigurationError(
            f"Vertex AI {what} Cloud Storage: give {'destination or ' if uris else ''}staging_path (operator, "
            "connection or [gemini_batch] in the configuration), a gs:// folder"
        )
    destination = arguments.destination or ""
    to_table = destination.startswith("bq://") or (arguments.bigquery_uri and not destination)
    if to_table and arguments.output_path is not None and not is_installed("google.cloud.bigquery"):
        raise ConfigurationError(f"output_path: {NO_LIBRARY}, or leave output_path out to have table and counts only")
    place = destination or staging or ""
    inside = is_inside(place, uris)
    if inside is not None:
        raise ConfigurationError(
            f"the responses would be written to {place}, inside the input {inside}, and be read as rows the next time: "
            "give another destination"
        )
