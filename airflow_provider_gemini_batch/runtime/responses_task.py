"""Landing the responses of one job, whoever created it, as ``GeminiGetBatchResponsesOperator`` does."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.states import JobKind
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.rows.landing import LandingSpec, ResponseSource
from airflow_provider_gemini_batch.runtime.log_lines import log_summary
from airflow_provider_gemini_batch.runtime.outputs import Output
from airflow_provider_gemini_batch.runtime.summary import summary_of
from airflow_provider_gemini_batch.runtime.task_setup import identity_of
from airflow_provider_gemini_batch.runtime.task_work import landing_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.rows.schema import OutputSchema
    from airflow_provider_gemini_batch.runtime.arguments import ResponsesArguments
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess


log = logging.getLogger(__name__)


def spec_of_job(job: BatchJob, *, keep_response: bool, schema: OutputSchema | None = None) -> LandingSpec:
    """Return how to land the responses of a job of which nothing else is known."""
    tag = tag_of(job)
    return LandingSpec(
        kind=job.kind or JobKind.GENERATION,
        schema=schema,
        keep_response=keep_response,
        wrapped_keys=tag is not None and tag.wrapped,
    )


def land_responses(arguments: ResponsesArguments, access: ServiceAccess, context: Context) -> dict[str, Any]:
    """Land the responses of one job that has ended, and return the summary.

    :raises GeminiBatchError: the job has not ended, or has no responses.
    """
    with tempfile.TemporaryDirectory(prefix="gemini-batch-") as folder:
        output = Output.of(arguments, access, Path(folder), identity_of(context["ti"]))
        output.check()
        job = access.client.get(arguments.job_name, brief=True)
        summary, responses = output.write(
            [ResponseSource(lambda: access.client.get_responses(job))],
            spec_of_job(job, keep_response=arguments.keep_response),
            replace(output.origin, job_names=(job.name,)),
        )
    if not job.succeeded:
        log.warning("%s was %s: its output has only the rows that it had finished.", job.name, job.state.words)
    log_summary(landing_of(summary, output=output.path, responses=responses), None)
    return summary_of(
        [job], counts=summary.counts, usage=summary.usage.shown(), output=output.path, responses=responses
    )
