"""Gemini batch jobs for Apache Airflow: the version and the entry point by which Airflow finds the provider."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description; every Airflow process asks for it, so only a module of data is imported."""
    from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO

    return PROVIDER_INFO
