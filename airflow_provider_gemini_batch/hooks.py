"""The hook: an Airflow connection in, a client of the batch service out.

Rules of this file: the client, and with it ``requests`` and ``google.auth``, is imported only when one is asked for, so
that a Dag file which names the hook stays cheap to parse. The hook raises the errors of ``api.errors``; only
:func:`airflow_errors` turns them into Airflow's.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow.sdk.bases.hook import BaseHook

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    TransportError,
)
from airflow_provider_gemini_batch.api.states import JobKind, Service
from airflow_provider_gemini_batch.connections import ConnectionSettings, read_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from airflow.sdk import Connection
    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.backends import Row
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob, BatchJobPage, BatchResult, File, FilePage

DEFAULT_CONN_ID = "gemini_batch_default"
DEFAULT_ATTEMPTS = 4

_API_OF = {
    Service.GEMINI: "Generative Language API (generativelanguage.googleapis.com)",
    Service.VERTEX: "Vertex AI API (aiplatform.googleapis.com)",
}


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn what this provider raises into what Airflow acts upon, the cause kept.

    :raises AirflowFailException: for an error that the same call would meet again: Airflow retries nothing.
    :raises AirflowException: for one that may pass: Airflow retries as the task says.
    """
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    try:
        yield
    except GeminiBatchError as error:
        kind = AirflowException if error.retryable else AirflowFailException
        raise kind(str(error)) from error


def client_from_connection(
    conn: Connection, *, location: str | None = None, project_id: str | None = None, attempts: int = 4
) -> BatchClient:
    """Make a client from a connection that has already been fetched; talks to neither Airflow nor the service.

    :param conn: a connection of type ``gemini_batch`` or ``google_cloud_platform``.
    :param location: overrides the connection's Vertex location.
    :param project_id: overrides the connection's Google Cloud project.
    :param attempts: how often a call that is safe to repeat is sent at most.
    :raises ConfigurationError: the connection cannot work; the message names the field.
    """
    return client_from_settings(read_connection(conn, location=location, project_id=project_id), attempts=attempts)


def client_from_settings(settings: ConnectionSettings, *, attempts: int = 4) -> BatchClient:
    """Make a client from a connection that has already been read.

    :param attempts: how often a call that is safe to repeat is sent at most.
    :raises ConfigurationError: the credentials cannot be loaded, or nothing names a project.
    """
    from airflow_provider_gemini_batch.api.client import BatchClient

    try:
        if settings.service is Service.GEMINI:
            return BatchClient.for_gemini(
                settings.api_key or "", base_url=settings.base_url, timeout=settings.timeout, attempts=attempts
            )
        return BatchClient.for_vertex(
            settings.project_id,
            settings.location,
            keyfile_dict=settings.keyfile_dict,
            key_path=settings.key_path,
            credential_config_file=settings.credential_config_file,
            impersonation_chain=settings.impersonation_chain,
            iam_endpoint=settings.iam_endpoint,
            quota_project_id=settings.quota_project_id,
            base_url=settings.base_url,
            storage_endpoint=settings.storage_endpoint,
            timeout=settings.timeout,
            attempts=attempts,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"Connection {settings.conn_id!r}: {error}") from error


async def aget_client_connection(conn_id: str) -> Connection:
    """Fetch a connection from an event loop, for :func:`client_from_connection` to use in whatever thread.

    Makes Airflow mask the connection's secrets in logs, as far as the running Airflow can do so from a loop.
    """
    if _has_no_async_supervisor():
        conn = BaseHook.get_connection(conn_id)
        _ = conn.extra_dejson  # reading it is what makes Airflow mask the secrets inside
        return conn
    conn = await BaseHook.aget_connection(conn_id)
    mask = getattr(conn, "aextra_dejson", None)  # Airflow 3.3; in 3.2 the whole extra is masked as one text
    if mask is not None:
        await mask()
    return conn


def _has_no_async_supervisor() -> bool:
    """Whether this is ``airflow dags test``, whose stand-in for the supervisor cannot be asked from an event loop.

    Airflow does not say so: a connection of its database is then simply not found.
    """
    from airflow.sdk.execution_time import task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return comms is not None and not hasattr(comms, "asend")


class GeminiBatchHook(BaseHook):
    """The batch service behind an Airflow connection.

    Every method of the client is here under its own name; :attr:`client` is the client itself. Use it as a context
    manager, or call :meth:`close`, to give sockets back early. Errors are those of ``api.errors``.

    :param gemini_conn_id: connection of type Gemini Batch, or of type Google Cloud, which means Vertex AI.
    :param location: Vertex location, overrides the connection's; ignored by the Gemini Developer API.
    :param project_id: Google Cloud project, overrides the connection's; ignored by the Gemini Developer API.
    """

    conn_name_attr = "gemini_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "gemini_batch"
    hook_name = "Gemini Batch"

    def __init__(
        self,
        gemini_conn_id: str = DEFAULT_CONN_ID,
        *,
        location: str | None = None,
        project_id: str | None = None,
    ) -> None:
        super().__init__()
        self.gemini_conn_id = gemini_conn_id
        self.location = location
        self.project_id = project_id

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The connection, read and checked once.

        :raises ConfigurationError: the connection cannot work.
        """
        conn = self.get_connection(self.gemini_conn_id)
        settings = read_connection(conn, location=self.location, project_id=self.project_id)
        _ = conn.extra_dejson  # reading it is what makes Airflow mask the secrets inside
        return settings

    @cached_property
    def client(self) -> BatchClient:
        """The client, made at first use and kept."""
        return client_from_settings(self.settings)

    def get_conn(self) -> BatchClient:
        """The client, under the name by which Airflow's hooks give theirs."""
        return self.client

    @property
    def service(self) -> Service:
        """Which service the connection means."""
        return self.settings.service

    def close(self) -> None:
        """Give the sockets back; the next call opens new ones."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def test_connection(self) -> tuple[bool, str]:
        """List one batch and say in words how that went; called by the Test button of Airflow's form."""
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            with client_from_settings(self.settings, attempts=1) as client:  # a person is waiting
                client.list(page_size=1)
        except GeminiBatchError as error:
            return False, explain(error, self.__dict__.get("settings"))
        except AirflowNotFoundException as error:
            return False, str(error)
        if self.service is Service.GEMINI:
            return True, "The Gemini Developer API took the key and listed its batches."
        return True, (
            f"Vertex AI took the credentials and listed the batch jobs of {_project_words(self.settings)} "
            f"in {self.settings.location}."
        )

    def create(
        self,
        model: str,
        *,
        inlined_requests: Iterable[Row] | None = None,
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
        """Make a job that generates content; costs money each time, see :meth:`.BatchClient.create`."""
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
        inlined_requests: Iterable[Row] | None = None,
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
        """Make a job that embeds texts; costs money each time, see :meth:`.BatchClient.create_embeddings`."""
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

    def get(self, name: str, *, brief: bool = False) -> BatchJob:
        """Look a job up; ``brief`` asks for state and counts alone."""
        return self.client.get(name, brief=brief)

    def list(
        self,
        *,
        page_size: int = 100,
        page_token: str | None = None,
        filter: str | None = None,  # noqa: A002  (the service's own word)
        brief: bool = False,
    ) -> BatchJobPage:
        """One page of jobs, newest first; ``filter`` is Vertex's."""
        return self.client.list(page_size=page_size, page_token=page_token, filter=filter, brief=brief)

    def list_all(
        self,
        *,
        page_size: int = 100,
        filter: str | None = None,  # noqa: A002  (the service's own word)
        brief: bool = False,
    ) -> Iterator[BatchJob]:
        """All jobs, newest first, page by page as they are read."""
        return self.client.list_all(page_size=page_size, filter=filter, brief=brief)

    def cancel(self, name: str) -> None:
        """Ask the service to cancel a job; it ends a little later."""
        self.client.cancel(name)

    def delete(self, name: str) -> None:
        """Remove a job from the service's list; its results go with it."""
        self.client.delete(name)

    def wait(
        self,
        name: str,
        *,
        poll_interval: float = 60.0,
        timeout: float | None = None,
        on_progress: Callable[[BatchJob], None] | None = None,
    ) -> BatchJob:
        """Block until a job has ended; times in seconds."""
        return self.client.wait(name, poll_interval=poll_interval, timeout=timeout, on_progress=on_progress)

    def get_responses(self, job: str | BatchJob) -> Iterator[BatchResult]:
        """The answers of a job that has ended, as the service gives them, one by one as they are read."""
        return self.client.get_responses(job)

    def iter_results(
        self, job: str | BatchJob, *, output_schema: Any = None, keep_response: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The rows of a job that has ended, as the operators land them, one by one as they are read.

        :param job: the job or its name; rows keep the keys of their authors, also where these look like ours.
        :param output_schema: pydantic model that each answer must fit; its value is in the row's ``parsed``.
        :param keep_response: put the service's whole answer into each row.
        """
        from airflow_provider_gemini_batch.data.results import Landing, iter_rows
        from airflow_provider_gemini_batch.data.schema import OutputSchema
        from airflow_provider_gemini_batch.lifecycle.identity import tag_of

        known = self.client.get(job) if isinstance(job, str) else job
        tag = tag_of(known)
        landing = Landing(
            kind=known.kind or JobKind.GENERATION,
            schema=None if output_schema is None else OutputSchema(output_schema),
            keep_response=keep_response,
            wrapped_keys=tag is not None and tag.wrapped,
        )
        return iter_rows(self.client.get_responses(known), landing)

    def upload_file(
        self,
        source: str | Path | BinaryIO,
        *,
        display_name: str | None = None,
        mime_type: str = "application/jsonl",
        name: str | None = None,
    ) -> File:
        """Upload a file to the Files API, resuming after a broken connection; Gemini Developer API only."""
        return self.client.upload_file(source, display_name=display_name, mime_type=mime_type, name=name)

    def get_file(self, name: str) -> File:
        """Look an uploaded file up."""
        return self.client.get_file(name)

    def list_files(self, *, page_size: int = 100, page_token: str | None = None) -> FilePage:
        """One page of uploaded files."""
        return self.client.list_files(page_size=page_size, page_token=page_token)

    def delete_file(self, name: str) -> None:
        """Remove an uploaded file before its 48 hours are over."""
        self.client.delete_file(name)

    def download_file(self, name: str, target: str | Path | BinaryIO) -> int:
        """Download a file to a path, which appears when whole, or into an open file; gives the number of bytes."""
        return self.client.download_file(name, target)

    def iter_download(self, name: str) -> Iterator[bytes]:
        """The pieces of a file as they come, resuming after a cut."""
        return self.client.iter_download(name)


def explain(error: GeminiBatchError, settings: ConnectionSettings | None = None) -> str:
    """Say what a failed first call means for the connection, and what to do about it.

    The service's own words are added; neither they nor ours hold a credential.
    """
    if settings is None or isinstance(error, ConfigurationError):
        return str(error)
    return f"{_verdict(error, settings)} ({error})"


def _verdict(error: GeminiBatchError, settings: ConnectionSettings) -> str:
    vertex = settings.service is Service.VERTEX
    if isinstance(error, TransportError):
        return "No connection; check Base URL, DNS, proxy and firewall."
    if isinstance(error, QuotaExceeded):
        return "The credentials are good, but their quota is used up for now."
    if isinstance(error, AccessDenied):
        return _denied(error, settings)
    if isinstance(error, NotFound) and vertex:
        return f"{_project_words(settings)} or location {settings.location} was not found; check both."
    if isinstance(error, NotFound):
        return "What answers there is not the Gemini Developer API; check Base URL."
    if isinstance(error, ApiError) and error.http_status < 500:  # noqa: PLR2004  (where HTTP's server errors begin)
        return "The service did not accept the call; check project, location and Base URL."
    return "Something answered that cannot be used now; try again, and check Base URL if it goes on."


def _denied(error: AccessDenied, settings: ConnectionSettings) -> str:
    vertex = settings.service is Service.VERTEX
    if error.reason == "SERVICE_DISABLED":
        return f"The {_API_OF[settings.service]} is not enabled in the project; enable it and wait some minutes."
    if error.reason == "API_KEY_SERVICE_BLOCKED":
        return f"The API key may not be used for the {_API_OF[settings.service]}; change the key's restrictions."
    if not vertex and (error.reason.startswith("API_KEY") or error.http_status in {400, 401}):
        return "The API key was refused; paste a valid one into the field API key."
    if error.http_status == 401:  # noqa: PLR2004
        return "The credentials were refused; check the key and the service account behind it."
    if vertex:
        return (
            f"The credentials may not list batch jobs in {_project_words(settings)}: check its name, and that the "
            "account has the permission aiplatform.batchPredictionJobs.list."
        )
    return "The API key has no permission; check that it belongs to the right project."


def _project_words(settings: ConnectionSettings) -> str:
    return f"project {settings.project_id}" if settings.project_id else "the credentials' own project"
