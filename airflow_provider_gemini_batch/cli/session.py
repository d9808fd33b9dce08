"""What all commands share: the connection that the options name, and the exit codes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.runtime.client import client_from_settings
from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings, read_connection

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_gemini_batch.api.client import BatchClient

_OF_VERTEX = ("location", "project_id", "staging_path")
DONE, REFUSED, NOT_SUCCEEDED, TIMED_OUT = 0, 1, 3, 4
INTERRUPTED, PIPE_CLOSED = 130, 141


def connection_settings(arguments: Namespace) -> ConnectionSettings:
    """Return the Airflow connection that the options name: from the environment, a secrets backend, or the database.

    :raises ConfigurationError: the connection does not exist or cannot work.
    """
    from airflow.sdk.bases.hook import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    conn_id = arguments.conn_id
    try:
        conn = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        if variable in os.environ:
            raise ConfigurationError(
                f"{variable} in the environment cannot be read: it must be a connection as JSON or as a URI"
            ) from None
        raise ConfigurationError(
            f"Connection {conn_id!r} was not found: create it in Airflow, or set {variable} in the environment"
        ) from None
    settings = read_connection(conn, location=arguments.location, project_id=arguments.project_id)
    for option in _OF_VERTEX:
        if getattr(arguments, option, None) is not None and settings.service is Service.GEMINI:
            raise ConfigurationError(
                f"--{option.replace('_', '-')} is for Vertex AI, and connection {conn_id!r} is for the Gemini "
                "Developer API: leave it out, or name another connection with --conn-id"
            )
    return settings


def open_client(arguments: Namespace) -> BatchClient:
    """Return a client for the connection that the options name."""
    return client_from_settings(connection_settings(arguments))
