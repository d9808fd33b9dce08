"""The extra link of a task: from the task to its job's page at Google."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.names import job_page_url
from airflow_provider_gemini_batch.runtime.summary import JOB_NAME_KEY

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class GeminiBatchJobLink(BaseOperatorLink):
    """Leads to the job in the Cloud console (Vertex AI) or to the batches in AI Studio (Gemini Developer API)."""

    @property
    def name(self) -> str:
        """The text on the button."""
        return "Gemini batch job"

    @property
    def xcom_key(self) -> str:
        """The key under which Airflow keeps the finished link."""
        return "gemini_batch_job_link"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Make the link from the job that the task was given or, failing that, from the one that it made.

        :returns: a URL, or an empty text while there is no job, which hides the button.
        """
        # Airflow's own module of this name is where a custom XCom backend is looked up, in 3.2 and in 3.3.
        from airflow.sdk.execution_time.xcom import XCom

        given = getattr(operator, "job_name", None)
        # Asking for an XCom that is not there puts an error into the task's log.
        return job_url(given or XCom.get_value(ti_key=ti_key, key=JOB_NAME_KEY))


def job_url(job_name: object) -> str:
    """Page of a job, told from its name alone; of the first, where there are several; empty when there is none."""
    if isinstance(job_name, list | tuple):
        return job_url(job_name[0]) if job_name else ""
    try:
        return job_page_url(job_name) if isinstance(job_name, str) else ""
    except ConfigurationError:
        return ""
