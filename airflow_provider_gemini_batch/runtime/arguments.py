"""What the arguments of a create operator may be, checked when the Dag is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.operators import _CreateBatchJob


def check_numbers(operator: _CreateBatchJob) -> None:
    """Refuse numbers and choices that mean nothing.

    :raises ConfigurationError: names the argument and what it may be.
    """
    if operator.poll_interval <= 0:
        raise ConfigurationError(f"poll_interval must be above 0 seconds, not {operator.poll_interval}")
    if operator.on_stall not in {"fail", "resubmit"}:
        raise ConfigurationError(f"on_stall must be 'fail' or 'resubmit', not {operator.on_stall!r}")
    if operator.max_failure_rate is not None and not 0 <= operator.max_failure_rate <= 1:
        raise ConfigurationError(f"max_failure_rate must lie between 0 and 1, not {operator.max_failure_rate}")
    for name in ("timeout", "queue_timeout", "progress_timeout"):
        seconds = getattr(operator, name)
        if seconds is not None and seconds <= 0:
            raise ConfigurationError(f"{name} must be above 0 seconds, not {seconds}")
    for name in ("max_active_jobs", "max_rows_per_job", "max_bytes_per_job"):
        least = getattr(operator, name)
        if least is not None and least < 1:
            raise ConfigurationError(f"{name} must be at least 1, not {least}")
    for name in ("max_failed_rows", "max_resubmits", "repair_rounds", "lookup_timeout", "max_xcom_bytes"):
        value = getattr(operator, name)
        if value is not None and value < 0:
            raise ConfigurationError(f"{name} must not be negative, but it is {value}")
