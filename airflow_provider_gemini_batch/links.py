"""The extra links of a task: to its batch's page, to its job at Google, to its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class GeminiBatchLink(BaseOperatorLink):
    """Leads to the batch's own page in this Airflow."""

    name = "Gemini batch"
    xcom_key = "gemini_batch_link"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address of the page, which exists as soon as the task has begun."""
        from airflow_provider_gemini_batch.ui.addresses import Place, batch_page

        return batch_page(Place(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index))


class GeminiBatchJobLink(BaseOperatorLink):
    """Leads to the job in the Cloud console (Vertex AI) or to the batches in AI Studio (Gemini Developer API)."""

    name = "Job at Google"
    xcom_key = "gemini_batch_job_link"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  Airflow's signature
        """Return the page of the job that the task was given, else of the first that it used.

        Airflow asks in the process that has just run the task, so the operator itself knows the job. The XCom with the
        job's name is not read: where there is none yet, Airflow would log an error.

        :returns: a URL, or an empty text while there is no job, which hides the button.
        """
        return job_url(getattr(operator, "job_name", None) or getattr(operator, "first_job_name", None))


class GeminiBatchOutputLink(BaseOperatorLink):
    """Leads to the output, where a browser can look at it: on Cloud Storage or in BigQuery."""

    name = "Batch output"
    xcom_key = "gemini_batch_output_link"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  Airflow's signature
        """Return the output's page; an empty text, which hides the button, for a place that has none."""
        from airflow_provider_gemini_batch.api.errors import ConfigurationError
        from airflow_provider_gemini_batch.runtime.argument_readers import path
        from airflow_provider_gemini_batch.ui.addresses import output_page

        given = getattr(operator, "output_path", None) or getattr(operator, "destination", None)
        try:
            return output_page(path("output_path", given))
        except ConfigurationError:  # it is not a path
            return ""


def job_url(job_name: object) -> str:
    """Return the page of a job, or of the first of several, by its name alone; an empty text without one."""
    if isinstance(job_name, list | tuple):
        return job_url(job_name[0]) if job_name else ""
    from airflow_provider_gemini_batch.ui.addresses import job_page

    return job_page(job_name) if isinstance(job_name, str) else ""
