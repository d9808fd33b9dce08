"""Failures of a task that a retry policy tells apart."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException


class RetryAtOnce(AirflowException):
    """The task has failed, and another try need not wait for anything."""
