"""From an Airflow connection to a client of the batch service, and from our errors to Airflow's.

The client, and with it ``requests`` and ``google.auth``, is imported only when one is asked for; so is what reads a
connection.
"""

from __future__ import annotations

import errno
import logging
import re
import shutil
import tempfile
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

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
from airflow_provider_gemini_batch.api.states import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import Connection
    from pydantic import JsonValue

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings

log = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class ServiceAccess(Protocol):
    """A connection that has been read and the client that it makes; :class:`.GeminiBatchHook` is one."""

    @property
    def settings(self) -> ConnectionSettings:
        """The connection, read and checked once."""

    @property
    def client(self) -> BatchClient:
        """The client, made at first use and kept."""

    @property
    def service(self) -> Service:
        """Which service the connection means."""


class OpenAccess(ServiceAccess, Protocol):
    """An access whose connection can be read again and whose sockets can be closed."""

    def close(self) -> None:
        """Close the sockets; the next call opens new ones."""

    def renew(self) -> None:
        """Read the connection again and use its credentials from now on; keep the old ones if that fails."""


_API_OF = {
    Service.GEMINI: "Generative Language API (generativelanguage.googleapis.com)",
    Service.VERTEX: "Vertex AI API (aiplatform.googleapis.com)",
}
_NOT_OFFERED = (
    "The service is not available to this project from here; enable billing for the project, or run this in a "
    "region that the service supports."
)
_OTHER_CALLERS = "The API key's restrictions exclude this machine; change them."
# By the reason in an error. Source: https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
_LACKING = {
    "SERVICE_DISABLED": "The {api} is not enabled in the project; enable it and wait some minutes.",
    "BILLING_DISABLED": "The project has no billing account; link one to it and wait some minutes.",
    "CONSUMER_SUSPENDED": "Google has suspended the project; its console says why.",
    "USER_PROJECT_DENIED": "The account may not use the project that pays for its calls; give it the role Service "
    "Usage Consumer there.",
    "API_KEY_SERVICE_BLOCKED": "The API key may not be used for the {api}; change the key's restrictions.",
    "API_KEY_IP_ADDRESS_BLOCKED": _OTHER_CALLERS,
    "API_KEY_HTTP_REFERRER_BLOCKED": _OTHER_CALLERS,
}


@contextmanager
def airflow_errors(settings: Callable[[], ConnectionSettings | None] = lambda: None) -> Iterator[None]:
    """Turn what this provider raises into what Airflow acts upon, and log it first, in one line.

    The provider's own error stays the new one's ``__context__``; it says the same, so tracebacks do not repeat it. Log
    at debug level to see where it came from.

    :param settings: returns the connection, once it has been read; errors about its credentials then name it.
    :raises AirflowFailException: for an error that the same call would meet again, so that Airflow does not retry.
    :raises AirflowException: for an error that may pass, so that Airflow retries as the task says.
    """
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    try:
        yield
    except GeminiBatchError as error:
        kind = AirflowException if error.retryable else AirflowFailException
        # A name with half of a surrogate pair could not be written to a log.
        message = with_connection(error, settings()).encode(errors="backslashreplace").decode()
        log.error("%s", message)  # noqa: TRY400  (one line: what is raised below brings its own traceback)
        log.debug("Raised by:", exc_info=error)
        raise kind(message) from None
    except OSError as error:
        if error.errno not in _FULL:
            raise
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free >> 20
        message = (
            f"a disk of this worker is full, or this user's part of it ({error.strerror}). Rows pass through the "
            f"temporary folder, {folder}, where {free} MiB are free: make room there and where output_path and "
            "staging_path lead, or let TMPDIR name a larger disk"
        )
        log.error("%s", message)  # noqa: TRY400  (as above)
        log.debug("Raised by:", exc_info=error)
        raise AirflowException(message) from None


def client_from_settings(settings: ConnectionSettings, *, attempts: int = 4) -> BatchClient:
    """Return a client for a connection that has already been read.

    :param attempts: how often a call that is safe to repeat is sent at most.
    :raises ConfigurationError: the credentials cannot be loaded, or nothing names a project.
    """
    from airflow_provider_gemini_batch.api.client import BatchClient

    owner = f"connection {settings.conn_id!r}"
    mask_credentials(settings)
    try:
        if settings.service is Service.GEMINI:
            return BatchClient.for_gemini(
                settings.api_key or "",
                base_url=settings.base_url,
                timeout=settings.timeout,
                attempts=attempts,
                owner=owner,
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
            owner=owner,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"Connection {settings.conn_id!r}: {error}") from error


def mask_credentials(settings: ConnectionSettings) -> None:
    """Keep the secrets inside a key out of Airflow's logs, since Airflow itself masks only the key as a whole."""
    from airflow_provider_gemini_batch.runtime.connection import secrets_in

    keys = (settings.keyfile_dict, settings.credential_config_file)
    found: list[JsonValue] = [text for key in keys for text in secrets_in(key)]
    if not found:
        return
    from airflow.sdk.log import mask_secret

    # In one call: each one is a request to Airflow's supervisor.
    mask_secret(found)


async def aget_client_connection(conn_id: str) -> Connection:
    """Return a connection, fetched from an event loop; :func:`~.connection.read_connection` takes it in any thread.

    Airflow then masks the connection's secrets in logs, as far as this Airflow can do so from a loop.
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
    """Return whether this is ``airflow dags test``, whose supervisor cannot be asked from an event loop.

    Airflow raises no error for it: a connection in its database is then simply not found.
    """
    from airflow.sdk.execution_time import task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return comms is not None and not hasattr(comms, "asend")


def with_connection(error: GeminiBatchError, settings: ConnectionSettings | None) -> str:
    """Return the text of an error; for refused credentials it names the connection and the field to check."""
    if settings is None or not isinstance(error, AccessDenied):
        return str(error)
    advice = _denied(error, settings) or "The credentials lack a permission; give it to their account."
    return f"Connection {settings.conn_id!r}: {advice} ({_without_advice(error)})"


def explain(error: GeminiBatchError, settings: ConnectionSettings | None = None) -> str:
    """Return what a failed first call means for the connection, and what to do about it.

    The service's own words are added; neither they nor ours hold a credential.
    """
    if settings is None or isinstance(error, ConfigurationError):
        return str(error)
    return f"{_verdict(error, settings)} ({_without_advice(error)})"


def _without_advice(error: GeminiBatchError) -> str:
    """Return the text of an error without the advice that one about credentials ends with, as better is at hand."""
    return re.split(" Check the (?:credentials|API key) in ", str(error))[0]


def _verdict(error: GeminiBatchError, settings: ConnectionSettings) -> str:
    vertex = settings.service is Service.VERTEX
    if isinstance(error, TransportError):
        return "No connection; check Base URL, DNS, proxy and firewall."
    if isinstance(error, QuotaExceeded):
        return "The credentials are good, but their quota is used up for now."
    if isinstance(error, AccessDenied):
        return _denied(error, settings) or (
            f"The credentials may not list batch jobs in {project_words(settings)}: check its name, and that the "
            "account has the permission aiplatform.batchPredictionJobs.list."
        )
    if isinstance(error, NotFound) and vertex:
        return f"{project_words(settings)} or location {settings.location} was not found; check both."
    if isinstance(error, NotFound):
        return "The server at this address is not the Gemini Developer API; check Base URL."
    if isinstance(error, ApiError) and error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "The service did not accept the call; check project, location and Base URL."
    return "The response cannot be used; try again, and check Base URL if this goes on."


def _denied(error: AccessDenied, settings: ConnectionSettings) -> str:
    """Return what refused credentials lack; empty for a missing permission of an account, which only the call names."""
    vertex = settings.service is Service.VERTEX
    if error.reason in _LACKING:
        return _LACKING[error.reason].format(api=_API_OF[settings.service])
    if error.status == "FAILED_PRECONDITION":
        return _NOT_OFFERED
    if not vertex and (error.reason.startswith("API_KEY") or error.http_status in {400, 401}):
        return "The API key was refused; paste a valid one into the field API key."
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        return "The credentials were refused; check the key and the service account behind it."
    if vertex:
        return ""
    # A text, since such an error has no reason.
    if "reported as leaked" in str(error):
        return "Google has blocked the API key, since it was published; create another one."
    return "The API key has no permission; check that it belongs to the right project."


def project_words(settings: ConnectionSettings) -> str:
    """Return how a message names the Google Cloud project of a connection."""
    return f"project {settings.project_id}" if settings.project_id else "the credentials' own project"
