"""Paths as an author writes them: a local path, gs:// on Vertex AI, or any address that ObjectStoragePath opens."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_gemini_batch.api.errors import (
    NEVER_READABLE,
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    TransportError,
)
from airflow_provider_gemini_batch.api.names import in_words
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.rows.files import LocalFiles, OpenedFiles, local_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow.sdk import ObjectStoragePath

    from airflow_provider_gemini_batch.api.google.storage import ObjectStore
    from airflow_provider_gemini_batch.rows.files import Files
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess

_BUFFER = 1 << 20
WILD = re.compile(r"[*?\[]")
"""A character of a pattern of paths."""
_FILE_SYSTEMS = {
    "s3": "apache-airflow-providers-amazon[s3fs]",
    "gs": "apache-airflow-providers-google, or 'airflow-provider-gemini-batch[vertex]' for a connection to Vertex AI",
    "abfs": "apache-airflow-providers-microsoft-azure",
    "abfss": "apache-airflow-providers-microsoft-azure",
    "wasb": "apache-airflow-providers-microsoft-azure",
}


def is_local(path: str) -> bool:
    """Return whether a path lies on this machine's own disks."""
    return "://" not in path or path.startswith("file://")


def local_path(path: str) -> Path:
    """Return a local path, which must be absolute.

    :raises ConfigurationError: it is relative, and workers start in different folders.
    """
    found = local_file(path)
    if not found.is_absolute():
        raise ConfigurationError(
            f"{in_words(path)} is relative; give the whole path, since workers start in folders of their own"
        )
    return found


def object_path(path: str, conn_id: str | None = None) -> ObjectStoragePath:
    """Return Airflow's path for an address; ``conn_id`` names the connection unless the address does."""
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(path, conn_id=conn_id) if conn_id else ObjectStoragePath(path)


@dataclass(frozen=True)
class Paths:
    """How one task reads and writes its paths.

    ``store`` returns the Cloud Storage of the task's own connection, if that means Vertex AI: gs:// addresses without a
    connection go through it, so that they need neither a second connection nor Google's provider. All other addresses
    go through Airflow's ObjectStoragePath.
    """

    store: Callable[[], ObjectStore] | None = None

    @classmethod
    def of(cls, access: ServiceAccess) -> Paths:
        """Return the paths of a task that uses this connection."""
        return cls((lambda: access.client.storage) if access.service is Service.VERTEX else None)

    def open_for_reading(self, path: str, conn_id: str | None = None) -> BinaryIO:
        """Return a path opened for reading bytes.

        :raises ConfigurationError: it cannot be read, and trying again would not help; names the path.
        :raises TransportError: it could not be read just now.
        """
        try:
            if is_local(path):
                return local_path(path).open("rb", buffering=_BUFFER)
            store = self.store_for(path, conn_id)
            if store is not None:
                return store.open(path)
            return cast("BinaryIO", object_path(path, conn_id).open("rb"))  # type: ignore[no-untyped-call]
        except NotFound as error:
            raise ConfigurationError(f"cannot read {path}: the object does not exist") from error
        except (OSError, ImportError, ValueError) as error:
            raise path_error(f"cannot read {path}", error, end="; nothing was sent") from error

    def files_of(self, path: str, conn_id: str | None = None, *, private: bool = False) -> Files:
        """Return the file system that a path lies on, for writing whole files or none.

        :param private: files on this machine are readable by their owner only.
        """
        if is_local(path):
            local_path(path)
            return LocalFiles(private=private)
        store = self.store_for(path, conn_id)
        if store is not None:
            return StoreFiles(store)

        _check_file_system(path, conn_id)

        remote = _Remote(conn_id, is_store=object_path(path, conn_id).fs.async_impl)
        return OpenedFiles(remote.open, remote.exists, remote.remove, None if remote.is_store else remote.move)

    def store_for(self, path: str, conn_id: str | None = None) -> ObjectStore | None:
        """Return the task's own Cloud Storage if an address goes through it, else None."""
        named = conn_id is not None or "@" in path.partition("://")[2].partition("/")[0]
        return self.store() if self.store is not None and path.startswith("gs://") and not named else None


@dataclass(frozen=True)
class _Remote:
    """What the file systems of fsspec do with the files of one connection.

    ``is_store``: they are objects, whose stores are asynchronous in fsspec. Elsewhere (SFTP, SMB, HDFS) a file grows
    while it is written, in a folder that is there.

    The file system of a path is used: methods of one without a connection go past what Airflow's attach() was given.
    """

    conn_id: str | None
    is_store: bool

    def open(self, name: str, mode: str) -> BinaryIO:
        found = object_path(name, self.conn_id)
        if mode == "wb" and not self.is_store:
            found.fs.makedirs(found.path.rpartition("/")[0], exist_ok=True)
        return cast("BinaryIO", found.open(mode))  # type: ignore[no-untyped-call]

    def exists(self, name: str) -> bool:
        found = object_path(name, self.conn_id)
        try:
            found.fs.info(found.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        # exists() of many file systems takes every error for absence: what is whole would be paid again.
        return True

    def remove(self, name: str) -> None:
        found = object_path(name, self.conn_id)
        # rm() takes a name for a pattern, and would remove other files; not every file system has rm_file().
        remove = found.fs.rm if WILD.search(name) is None else found.fs.rm_file
        if self.exists(name):
            remove(found.path)

    def move(self, name: str, to: str) -> None:
        source, target = object_path(name, self.conn_id), object_path(to, self.conn_id)
        if "mv" not in vars(type(source.fs)):
            # fsspec's own also takes a name for a pattern.
            source.fs.cp_file(source.path, target.path)
            self.remove(name)
            return
        try:
            source.fs.mv(source.path, target.path)
        except OSError:
            # Some do not replace what is there.
            if not (self.exists(name) and self.exists(to)):
                raise
            self.remove(to)
            source.fs.mv(source.path, target.path)


@dataclass(frozen=True)
class StoreFiles:
    """Objects of a client's Cloud Storage as landing uses files; see :class:`~..rows.files.Files`."""

    store: ObjectStore

    def read(self, path: str) -> BinaryIO:
        """Return an object opened for reading. Raises FileNotFoundError."""
        try:
            return self.store.open(path)
        except NotFound as error:
            raise FileNotFoundError(path) from error

    def write_whole(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Return an object opened for writing; it exists when the block ends well, and does not when it raises."""
        return self.store.write_whole(path)

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        return self.store.exists(path)

    def remove(self, path: str) -> None:
        """Remove an object; do nothing if it does not exist."""
        self.store.delete(path)


def _check_file_system(path: str, conn_id: str | None) -> None:
    """Refuse an address whose file system is not installed here.

    :raises ConfigurationError: names what to install.
    """
    scheme = path.partition("://")[0]
    try:
        _ = object_path(path, conn_id).fs
    except (ImportError, ValueError) as error:
        package = _FILE_SYSTEMS.get(scheme, "the Airflow provider that brings it")
        raise ConfigurationError(
            f"there is no file system for {scheme}:// here ({reason_of(error)}): install {package} on every worker"
        ) from error


def is_lasting(error: Exception) -> bool:
    """Return whether another try would meet this error of a path again."""
    return isinstance(error, (*NEVER_READABLE, FileExistsError, ImportError, ValueError)) or (
        isinstance(error, OSError) and error.errno in {errno.ENAMETOOLONG, errno.ELOOP}
    )


def path_error(what: str, error: Exception, *, end: str = "") -> GeminiBatchError:
    """Return the error for a path that cannot be used: one that Airflow retries, if that may help.

    :param end: the end of its message.
    """
    if is_lasting(error):
        return ConfigurationError(f"{what}: {reason_of(error)}")
    return TransportError(f"{what} just now: {reason_of(error)}{end}", sent=False)


def reason_of(error: Exception) -> str:
    """Return why a path cannot be used, without the path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
