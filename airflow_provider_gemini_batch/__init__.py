"""Gemini batch jobs for Apache Airflow: the version and the entry point by which Airflow finds the provider."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow; every Airflow process calls it, so it imports only a module of data."""
    from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO

    return PROVIDER_INFO
