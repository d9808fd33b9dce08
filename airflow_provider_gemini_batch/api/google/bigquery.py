"""Responses that Vertex AI wrote into a BigQuery table, read through Google's own client (extra ``bigquery``).

``BIGQUERY_EMULATOR_HOST`` is read by that client; an endpoint on this machine gets no credentials.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.credentials import google_failure
from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    TransportError,
    UnknownOutput,
)
from airflow_provider_gemini_batch.api.legacy import INSTANCE
from airflow_provider_gemini_batch.api.responses.reading import vertex_result_of
from airflow_provider_gemini_batch.api.responses.refusal import THE_CONNECTION, error_from_status
from airflow_provider_gemini_batch.api.urls import is_local_url, is_secure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.api.credentials import GoogleCredential
    from airflow_provider_gemini_batch.api.models import BatchResult

NO_LIBRARY = (
    "reading rows of a BigQuery table needs Google's client: pip install 'airflow-provider-gemini-batch[bigquery]'"
)
# The only column of a response table that is not read. The author's own columns are read: they name the rows.
_REQUEST = "request"
_RESPONSES = frozenset({"response", "predictions"})
# https://cloud.google.com/bigquery/docs/error-messages
_OF_QUOTA = frozenset({"rateLimitExceeded", "quotaExceeded"})
_PAGE_ROWS = 1000
_SECONDS = 60.0


class ResponseTables:
    """Tables that jobs wrote, read page by page with a client's credentials."""

    def __init__(self, credential: GoogleCredential, *, project: str) -> None:
        self._credential = credential
        self._project = project

    def __repr__(self) -> str:
        return "ResponseTables(bq://)"

    def results(self, uri: str) -> Iterator[BatchResult]:
        """Yield the responses in a table, in no particular order. Errors in opening it are raised at once.

        :raises ConfigurationError: the extra ``bigquery`` is not installed.
        :raises NotFound: the table does not exist, or no longer.
        """
        table = names.bigquery_uri(uri, "table").removeprefix("bq://")
        with _table_errors(uri):
            client = self._client()
            found = client.get_table(table, timeout=_SECONDS)
            present = {column.name for column in found.schema}
            columns = [column for column in found.schema if column.name != _REQUEST]
            if not _RESPONSES & present:
                raise UnknownOutput(
                    f"{uri} has neither a column 'response' nor 'predictions': no responses are known in it"
                )
            rows = client.list_rows(found, selected_fields=columns, page_size=_PAGE_ROWS, timeout=_SECONDS)
        return _results(uri, rows)

    def check_readable(self, uri: str) -> None:
        """Raise the error that reading a table would raise, before the table exists. Makes one call.

        :raises ConfigurationError: the extra ``bigquery`` is not installed.
        :raises NotFound: the dataset does not exist. :raises AccessDenied: these credentials may not read in it.
        """
        dataset = names.bigquery_uri(uri, "destination").removeprefix("bq://").replace(":", ".").split(".")[:2]
        with _table_errors(f"bq://{'.'.join(dataset)}"):
            next(iter(self._client().list_tables(".".join(dataset), max_results=1, timeout=_SECONDS)), None)

    def count(self, uri: str) -> int:
        """Return how many rows a table has. Raises NotFound when the table does not exist."""
        table = names.bigquery_uri(uri, "table").removeprefix("bq://")
        with _table_errors(uri):
            return int(self._client().get_table(table, timeout=_SECONDS).num_rows or 0)

    def _client(self) -> Any:
        try:
            from google.auth.credentials import AnonymousCredentials
            from google.cloud import bigquery
        except ImportError as error:
            raise ConfigurationError(NO_LIBRARY) from error
        endpoint = os.environ.get("BIGQUERY_EMULATOR_HOST", "")
        local = is_local_url(endpoint)
        if endpoint and not is_secure(endpoint):
            raise ConfigurationError(
                "BIGQUERY_EMULATOR_HOST must be https://, or http:// on this machine: credentials are sent there"
            )
        credentials = AnonymousCredentials() if local else self._credential.google  # type: ignore[no-untyped-call]
        return bigquery.Client(project=self._project, credentials=credentials)


def _results(uri: str, rows: Any) -> Iterator[BatchResult]:
    with _table_errors(uri):
        for position, row in enumerate(rows):
            yield vertex_result_of(_plain(row), position)


def _plain(row: Any) -> dict[str, Any]:
    """Return a row in the form of a line of a file: a column of JSON may arrive as text."""
    # A table has the column, though it is not read; the others are the author's, whatever their names.
    members: dict[str, Any] = {_REQUEST: None}
    for name, value in row.items():
        members[name] = value if isinstance(value, Decimal) else _to_json_value(value)
    if "content" in members and "predictions" in members:
        members.setdefault("instance", {name: members[name] for name in INSTANCE if members.get(name) is not None})
    return members


def _to_json_value(value: Any) -> Any:
    """Return a value as BigQuery writes it into JSON: bytes as base64, times and other types as text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {name: _to_json_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json_value(inner) for inner in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


@contextmanager
def _table_errors(uri: str) -> Iterator[None]:
    """Turn errors of Google's client into ours."""
    what = f"read of {uri}"
    try:
        yield
    except (GeminiBatchError, GeneratorExit):
        raise
    except Exception as error:
        if type(error).__module__.startswith("google.auth"):
            # Not as the cause: errors of google-auth hold the whole response of a token endpoint.
            raise google_failure(error, what, THE_CONNECTION) from None
        code = getattr(error, "code", None)
        raise _translate_error(what, int(code) if isinstance(code, int) else 0, error) from error


def _translate_error(what: str, status: int, error: Exception) -> GeminiBatchError:
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(f"{what}: the table does not exist", http_status=status, status="NOT_FOUND")
    found = getattr(error, "errors", None)
    reasons = {one.get("reason") for one in found if isinstance(one, Mapping)} if isinstance(found, list) else set()
    if reasons & _OF_QUOTA:  # a 403, like a refusal of the credentials
        status = HTTPStatus.TOO_MANY_REQUESTS
    if status:
        return error_from_status(status, what)
    return TransportError(f"{what} failed: {type(error).__name__}", sent=True)
