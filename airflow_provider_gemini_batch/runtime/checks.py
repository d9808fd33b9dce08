"""Arguments that cannot work with a connection's service or on several workers: refused at once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.google.bigquery import NO_LIBRARY
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.api.names import bigquery_uri, gcs_uri, gemini_model, labels, vertex_model
from airflow_provider_gemini_batch.api.vertex_rules import check_job
from airflow_provider_gemini_batch.runtime.argument_readers import listed
from airflow_provider_gemini_batch.runtime.paths import is_local
from airflow_provider_gemini_batch.runtime.readiness import is_installed
from airflow_provider_gemini_batch.staging.places import is_inside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments

log = logging.getLogger(__name__)

# Executors that run all tasks on the scheduler's own machine.
_ON_THIS_MACHINE = ("LocalExecutor", "SequentialExecutor", "DebugExecutor", "InProcessExecutor")
# What ``[gemini_batch] local_paths`` may say.
_LOCAL_PATHS = ("warn", "refuse", "allow")


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
    check_job(
        model,
        location,
        source_table=arguments.bigquery_uri is not None,
        response_table=arguments.has_response_table,
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
    uris = listed(arguments.gcs_uri)
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
    reads_table = arguments.has_response_table and arguments.output_path is not None
    if reads_table and not is_installed("google.cloud.bigquery"):
        raise ConfigurationError(f"output_path: {NO_LIBRARY}, or leave output_path out to have table and counts only")
    place = arguments.destination or staging or ""
    inside = is_inside(place, uris)
    if inside is not None:
        raise ConfigurationError(
            f"the responses would be written to {place}, inside the input {inside}, and be read as rows the next time: "
            "give another destination"
        )


def check_local_paths(given: Mapping[str, str | Sequence[str] | None], executor: str | None) -> None:
    """Warn about paths that other workers may not see, or refuse them if ``[gemini_batch] local_paths`` says so.

    :param given: paths by the name of their argument.
    :param executor: the task's own; None for the deployment's.
    :raises ConfigurationError: local paths are refused here, or the option is none of ``warn``, ``refuse``, ``allow``.
    """
    from airflow.sdk.configuration import conf

    choice = conf.get("gemini_batch", "local_paths", fallback="").strip().lower() or "warn"
    if choice not in _LOCAL_PATHS:
        raise ConfigurationError(f"[gemini_batch] local_paths must be {', '.join(_LOCAL_PATHS)}, not {choice[:40]!r}")
    local = [name for name, value in given.items() if any(is_local(path) for path in listed(value))]
    if choice == "allow" or not local or not is_remote(executor or conf.get("core", "executor", fallback="")):
        return
    words = (
        f"{', '.join(local)}: a local path, and the task may continue on another worker, which sees it only "
        "where the disk is shared. Use an object store"
    )
    if choice == "refuse":
        raise ConfigurationError(f"{words} ([gemini_batch] local_paths = refuse); nothing was sent")
    log.warning("%s, or say that the disk is shared: [gemini_batch] local_paths = allow.", words)


def is_remote(executor: str) -> bool:
    """Return whether an executor, named as in ``[core] executor``, may run tasks on other machines.

    An unknown one counts as remote: a needless warning costs less than missing rows.
    """
    for one in executor.split(","):
        # "team=a.b.CeleryExecutor:alias", each part of it optional.
        name = one.rpartition("=")[2].strip().partition(":")[0].rpartition(".")[2]
        if name and name not in _ON_THIS_MACHINE:
            return True
    return False
