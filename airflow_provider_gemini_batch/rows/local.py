"""Paths of this machine as authors write them: plain, with ``file://`` or with ``~``."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.names import in_words


def local_file(path: str) -> Path:
    """Return the path. Raises ConfigurationError when ``~`` names a user whom this machine does not know."""
    try:
        return Path(path.removeprefix("file://")).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{in_words(path)} begins with the home folder of a user whom this machine does not know: give the whole "
            "path"
        ) from None
