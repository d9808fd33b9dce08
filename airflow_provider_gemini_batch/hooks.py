"""The hook: an Airflow connection in, a client of the batch service out.

Rules of this file: the client, and with it ``requests`` and ``google.auth``, is imported only at its first use, so that
a Dag file which imports the hook stays cheap to parse. The hook raises the errors of ``api.errors``; only
:func:`airflow_errors` turns them into Airflow's.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow.sdk.bases.hook import BaseHook

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.runtime.argument_readers import required, seconds, text
from airflow_provider_gemini_batch.runtime.arguments import DEFAULT_CONN_ID
from airflow_provider_gemini_batch.runtime.client import airflow_errors, client_from_settings, explain, project_words
from airflow_provider_gemini_batch.runtime.deployment import NAMELESS, deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.backends import RequestLike
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob, BatchJobPage, BatchResult, File, FilePage, JobSource
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings

__all__ = ["GeminiBatchHook", "airflow_errors"]

log = logging.getLogger(__name__)


class GeminiBatchHook(BaseHook):
    """The batch service behind an Airflow connection.

    The hook has every method of the client under the same name; :attr:`client` is the client itself. Use the hook as a
    context manager, or call :meth:`close`, to close its sockets early. Errors are those of ``api.errors``.

    :param gemini_conn_id: connection of type Gemini Batch, or of type Google Cloud, which means Vertex AI.
    :param location: Vertex location, overrides the connection's; ignored by the Gemini Developer API.
    :param project_id: Google Cloud project, overrides the connection's; ignored by the Gemini Developer API.
    :raises ConfigurationError: one of them is not a text.
    """

    conn_name_attr = "gemini_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "gemini_batch"
    hook_name = "Gemini Batch"

    def __init__(
        self,
        gemini_conn_id: str | None = DEFAULT_CONN_ID,
        *,
        location: str | None = None,
        project_id: str | None = None,
    ) -> None:
        super().__init__()
        # Anything but a text may be the output of a task, which must be neither looked up nor shown.
        self.gemini_conn_id = (
            DEFAULT_CONN_ID if gemini_conn_id is None else required(text)("gemini_conn_id", gemini_conn_id)
        )
        self.location = None if location is None else text("location", location)
        self.project_id = None if project_id is None else text("project_id", project_id)

    @cached_property
    def settings(self) -> ConnectionSettings:
        """Return the settings of the connection, read and checked once.

        :raises ConfigurationError: the connection cannot work.
        """
        from airflow_provider_gemini_batch.runtime.connection import read_connection

        conn = self.get_connection(self.gemini_conn_id)
        settings = read_connection(conn, location=self.location, project_id=self.project_id)
        _ = conn.extra_dejson  # reading it is what makes Airflow mask the secrets inside
        if settings.unsafe:
            log.warning("%s", settings.unsafe)
        return settings

    @cached_property
    def client(self) -> BatchClient:
        """Return the client; it is made at first use."""
        return client_from_settings(self.settings)

    def get_conn(self) -> BatchClient:
        """Return the client, under the name that Airflow's hooks use."""
        return self.client

    @property
    def service(self) -> Service:
        """Return which service the connection selects."""
        return self.settings.service

    def close(self) -> None:
        """Close all sockets; the next call opens new ones."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()

    def renew(self) -> None:
        """Read the connection again and use its credentials; keep the old ones if that fails."""
        from airflow.sdk.exceptions import AirflowException

        before = self.__dict__.pop("settings", None)
        try:
            renewed = client_from_settings(self.settings)
        except (GeminiBatchError, AirflowException):
            self.__dict__["settings"] = before
        else:
            self.client.replace_by(renewed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def test_connection(self) -> tuple[bool, str]:
        """Return whether one job can be listed, and a message; called by the Test button of Airflow's form."""
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            self.settings.check_safe()
            with client_from_settings(self.settings, attempts=1) as client:  # a person is waiting
                client.list(page_size=1)
        except GeminiBatchError as error:
            return False, explain(error, self.__dict__.get("settings"))
        except AirflowNotFoundException as error:
            return False, str(error)
        if self.service is Service.GEMINI:
            said = "The Gemini Developer API accepted the key and listed its batches."
        else:
            said = (
                f"Vertex AI accepted the credentials and listed the batch jobs of {project_words(self.settings)} "
                f"in {self.settings.location}."
            )
        return True, said if deployment() else f"{said} {NAMELESS}"

    def create(
        self,
        model: str,
        *,
        inlined_requests: Iterable[RequestLike] | None = None,
        file_name: str | None = None,
        gcs_uri: str | Sequence[str] | None = None,
        bigquery_uri: str | None = None,
        destination: str | None = None,
        display_name: str | None = None,
        generation_config: Mapping[str, Any] | None = None,
        system_instruction: str | Mapping[str, Any] | None = None,
        request_defaults: Mapping[str, Any] | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> BatchJob:
        """Create a job that generates content; each call costs money, see :meth:`.BatchClient.create`."""
        self.settings.check_safe()
        return self.client.create(
            model,
            inlined_requests=inlined_requests,
            file_name=file_name,
            gcs_uri=gcs_uri,
            bigquery_uri=bigquery_uri,
            destination=destination,
            display_name=display_name,
            generation_config=generation_config,
            system_instruction=system_instruction,
            request_defaults=request_defaults,
            priority=priority,
            labels=labels,
        )

    def create_embeddings(
        self,
        model: str,
        *,
        inlined_requests: Iterable[RequestLike] | None = None,
        file_name: str | None = None,
        gcs_uri: str | Sequence[str] | None = None,
        bigquery_uri: str | None = None,
        destination: str | None = None,
        display_name: str | None = None,
        task_type: str | None = None,
        output_dimensionality: int | None = None,
        request_defaults: Mapping[str, Any] | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> BatchJob:
        """Create a job that embeds texts; each call costs money, see :meth:`.BatchClient.create_embeddings`."""
        self.settings.check_safe()
        return self.client.create_embeddings(
            model,
            inlined_requests=inlined_requests,
            file_name=file_name,
            gcs_uri=gcs_uri,
            bigquery_uri=bigquery_uri,
            destination=destination,
            display_name=display_name,
            task_type=task_type,
            output_dimensionality=output_dimensionality,
            request_defaults=request_defaults,
            priority=priority,
            labels=labels,
        )

    def get(self, name: BatchJob | str, *, brief: bool = False) -> BatchJob:
        """Return a job as it is now; with ``brief``, only its state and counts are read."""
        return self.client.get(name, brief=brief)

    def list(
        self,
        *,
        page_size: int = 100,
        page_token: str | None = None,
        filter: str | None = None,  # noqa: A002  (the service's own word)
        brief: bool = False,
    ) -> BatchJobPage:
        """Return one page of jobs, newest first; ``filter`` is for Vertex AI only."""
        return self.client.list(page_size=page_size, page_token=page_token, filter=filter, brief=brief)

    def list_all(
        self,
        *,
        page_size: int = 100,
        filter: str | None = None,  # noqa: A002  (the service's own word)
        brief: bool = False,
    ) -> Iterator[BatchJob]:
        """Yield all jobs, newest first; pages are read as they are needed."""
        return self.client.list_all(page_size=page_size, filter=filter, brief=brief)

    def cancel(self, name: BatchJob | str) -> None:
        """Request the cancellation of a job, which ends a little later."""
        self.client.cancel(name)

    def delete(self, name: BatchJob | str) -> None:
        """Delete a job and its results from the service."""
        self.client.delete(name)

    def wait(
        self,
        name: BatchJob | str,
        *,
        poll_interval: float | timedelta = 60.0,
        timeout: float | timedelta | None = None,
        on_progress: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Block until a job has ended; times in seconds, or as a timedelta. See :meth:`.BatchClient.wait`."""
        return self.client.wait(
            name,
            poll_interval=seconds(above_zero=True)("poll_interval", poll_interval),
            timeout=None if timeout is None else seconds()("timeout", timeout),
            on_progress=on_progress,
            renew=self.renew,
        )

    def get_responses(self, job: str | BatchJob) -> Iterator[BatchResult]:
        """Yield the responses of a job that has ended, in the service's form and order."""
        return self.client.get_responses(job)

    def iter_results(
        self, job: str | BatchJob, *, output_schema: Any = None, keep_response: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield the result rows of a job that has ended, in the form that the operators write.

        :param job: the job or its name; rows keep their author's keys, even if these look like ours.
        :param output_schema: pydantic model that each response must fit; its value is in the row's ``parsed``.
        :param keep_response: put the service's whole response into each row.
        """
        from airflow_provider_gemini_batch.api.models import BatchJob
        from airflow_provider_gemini_batch.rows.landing import iter_rows
        from airflow_provider_gemini_batch.rows.schema import OutputSchema
        from airflow_provider_gemini_batch.runtime.responses_task import spec_of_job

        known = job if isinstance(job, BatchJob) else self.client.get(job)
        schema = None if output_schema is None else OutputSchema(output_schema)
        landing = spec_of_job(known, keep_response=keep_response, schema=schema)
        return iter_rows(self.client.get_responses(known), landing)

    def check_readable(self, destination: str) -> None:
        """Raise the error that reading responses at a gs:// or bq:// address would raise; Vertex AI only."""
        self.client.check_readable(destination)

    def output_source(self, job: BatchJob | str) -> JobSource | None:
        """Return the input with which a new job completes an ended one; None if there is none. Vertex AI only."""
        return self.client.output_source(job)

    def upload_file(
        self,
        source: str | Path | BinaryIO,
        *,
        display_name: str | None = None,
        mime_type: str = "application/jsonl",
        name: str | None = None,
        wait: float = 600.0,
    ) -> File:
        """Upload a file to the Files API; wait at most ``wait`` seconds until it can be used. Not on Vertex AI."""
        return self.client.upload_file(source, display_name=display_name, mime_type=mime_type, name=name, wait=wait)

    def wait_for_file(self, file: File | str, *, timeout: float = 600.0) -> File:
        """Return an upload once the service has processed it; see :meth:`.BatchClient.wait_for_file`."""
        return self.client.wait_for_file(file, timeout=timeout)

    def get_file(self, name: str) -> File:
        """Return an uploaded file."""
        return self.client.get_file(name)

    def list_files(self, *, page_size: int = 100, page_token: str | None = None) -> FilePage:
        """Return one page of uploaded files."""
        return self.client.list_files(page_size=page_size, page_token=page_token)

    def delete_file(self, name: str) -> None:
        """Delete an uploaded file; otherwise the service does so after 48 hours."""
        self.client.delete_file(name)

    def download_file(self, name: str, target: str | Path | BinaryIO) -> int:
        """Download a file to a path, which appears when complete, or into an open file; return the number of bytes."""
        return self.client.download_file(name, target)

    def iter_download(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in pieces; a broken download is resumed."""
        return self.client.iter_download(name)
