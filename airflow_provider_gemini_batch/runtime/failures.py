"""Failures of a task that a retry policy distinguishes."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException


class RetryAtOnce(AirflowException):
    """The task has failed, and waiting before the next try would change nothing."""
