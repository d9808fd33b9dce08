"""Paths as an author writes them: a local path, or any address that Airflow's ObjectStoragePath opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_gemini_batch.api.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_gemini_batch.data.output import Files

_BUFFER = 1 << 20


def is_local(path: str) -> bool:
    """Whether a path lies on this machine's own disks."""
    return "://" not in path or path.startswith("file://")


def local_path(path: str) -> Path:
    """Give the file of a local path. Raises ConfigurationError for a relative one: a worker's folder is nobody's."""
    found = Path(path.removeprefix("file://")).expanduser()
    if not found.is_absolute():
        raise ConfigurationError(
            f"{path!r} is relative; give the whole path, since workers start in folders of their own"
        )
    return found


def object_path(path: str, conn_id: str | None = None) -> ObjectStoragePath:
    """Give Airflow's path for an address; ``conn_id`` names the connection unless the address does."""
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(path, conn_id=conn_id) if conn_id else ObjectStoragePath(path)


def open_for_reading(path: str, conn_id: str | None = None) -> BinaryIO:
    """Open a path for reading bytes. Raises ConfigurationError naming the path when it cannot be opened."""
    try:
        if is_local(path):
            return local_path(path).open("rb", buffering=_BUFFER)
        return cast("BinaryIO", object_path(path, conn_id).open("rb"))  # type: ignore[no-untyped-call]
    except (OSError, ImportError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {_reason(error)}") from error


def files_of(path: str, conn_id: str | None = None) -> Files:
    """Give the file system that a path lies on, for writing whole files or none."""
    from airflow_provider_gemini_batch.data.output import LocalFiles, OpenedFiles

    if is_local(path):
        local_path(path)
        return LocalFiles()

    def opened(name: str, mode: str) -> BinaryIO:
        return cast("BinaryIO", object_path(name, conn_id).open(mode))  # type: ignore[no-untyped-call]

    def removed(name: str) -> None:
        found = object_path(name, conn_id)
        if found.exists():
            found.unlink()

    return OpenedFiles(opened, lambda name: bool(object_path(name, conn_id).exists()), removed)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
