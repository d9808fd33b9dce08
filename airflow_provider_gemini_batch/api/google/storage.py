"""gs:// objects through gcsfs, the library under Airflow's own object storage, with the connection's credentials.

This uses ``gcsfs.core.GCSFileSystem``: the package's newer default class first asks for the bucket's type over gRPC,
which hangs on any endpoint that is not Google's own. gcsfs (extra ``vertex``) is imported at first use.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.credentials import google_failure
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    TransportError,
)
from airflow_provider_gemini_batch.api.google.output_folder import StoredObject
from airflow_provider_gemini_batch.api.responses.refusal import THE_CONNECTION, error_from_status
from airflow_provider_gemini_batch.api.urls import checked_base_url, is_local_url
from airflow_provider_gemini_batch.api.wire import time_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_gemini_batch.api.credentials import GoogleCredential

READ_BYTES = 4 * 2**20
_BLOCK_BYTES = 8 * 2**20
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_SESSION = re.compile(r"upload_id=[^&\s'\"]+")


class _WithoutSessions(logging.Filter):
    """Keeps upload sessions out of gcsfs's log: their addresses give the right to write."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _SESSION.sub("upload_id=***", record.getMessage()), ()
        if record.exc_info and _SESSION.search(str(record.exc_info[1])):
            record.exc_info = None
        return True


logging.getLogger("gcsfs").addFilter(_WithoutSessions())


class ObjectStore:
    """Cloud Storage, opened at first use; addresses are complete: ``gs://bucket/object``.

    :param endpoint: base URL of another Cloud Storage; ``STORAGE_EMULATOR_HOST`` is read when it is None. An endpoint
        on this machine gets no credentials.
    """

    def __init__(self, credential: GoogleCredential, *, project: str, endpoint: str | None) -> None:
        self._credential = credential
        self._project = project
        self._endpoint = checked_base_url(endpoint) if endpoint else None
        self._lock = threading.Lock()
        self._made: Any = None

    def __repr__(self) -> str:
        return "ObjectStore(gs://)"

    @property
    def filesystem(self) -> Any:
        """The gcsfs filesystem, for libraries that take one."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        try:
            from aiohttp import ClientTimeout
            from gcsfs.core import GCSFileSystem
        except ImportError as error:
            raise ConfigurationError(
                "Cloud Storage needs gcsfs: pip install 'airflow-provider-gemini-batch[vertex]'"
            ) from error
        endpoint = self._endpoint or _emulator_from_environment()
        local = endpoint is not None and is_local_url(endpoint)
        # The default is five minutes for a whole call: too short for a slow connection, too long for a dead one.
        patience = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        # gcsfs caches instances by their arguments; ours hold credentials and end with the client.
        return GCSFileSystem(
            project=self._project,
            token="anon" if local else self._credential.google,
            endpoint_url=endpoint,
            use_listings_cache=False,
            # Proxies from the environment, as for all other calls.
            session_kwargs={"trust_env": not local, "timeout": patience},
            skip_instance_cache=True,
        )

    def open(self, uri: str, mode: str = "rb") -> BinaryIO:
        """Open an object for reading, or for writing: it appears when closed."""
        with _storage_errors("open", uri):
            return cast("BinaryIO", self.filesystem.open(names.gcs_uri(uri, "address"), mode, block_size=_BLOCK_BYTES))

    @contextmanager
    def write_whole(self, uri: str) -> Iterator[BinaryIO]:
        """Open an object for writing; it is there when the block ends well, and not when it raises.

        Failures of the object's writes are raised as ours, anything else in the block as it is.
        """
        handle: Any = self.open(uri, "wb")
        send = handle.flush

        def flush(force: bool = False) -> None:  # noqa: FBT001, FBT002  (fsspec's signature)
            with _storage_errors("write", uri):
                send(force)

        # fsspec writes, and closes, by this method.
        handle.flush = flush
        with closed_or_discarded(handle):
            yield handle

    def exists(self, uri: str) -> bool:
        """Return whether an object exists."""
        with _storage_errors("look-up", uri):
            return bool(self.filesystem.exists(names.gcs_uri(uri, "address")))

    def is_object(self, uri: str) -> bool:
        """Return whether an object, and not only a folder, has this address."""
        try:
            return bool(self._info(uri)["type"] == "file")
        except NotFound:
            return False

    def matching(self, address: str) -> list[str]:
        """Return the objects that the service reads for an address, sorted.

        A ``*`` also matches slashes; an address that ends in a slash means everything below it.
        """
        pattern = f"{address}*" if address.endswith("/") else address
        if "*" not in pattern:
            return [address]
        pieces = pattern.split("*")
        folder = pieces[0].rpartition("/")[0]
        with _storage_errors("list", address):
            found = self.filesystem.find(names.gcs_uri(folder, "address"))
        return sorted(uri for path in found if _matches(uri := f"gs://{path}", pieces))

    def delete(self, uri: str) -> None:
        """Delete an object, if it exists."""
        try:
            with _storage_errors("delete", uri):
                self.filesystem.rm_file(names.gcs_uri(uri, "address"))
        except NotFound:
            return

    def delete_folder(self, uri: str) -> None:
        """Delete all objects whose addresses begin with this one and a slash."""
        base = names.gcs_uri(uri, "address").rstrip("/")
        with _storage_errors("list", uri):
            found = self.filesystem.find(base)
        for path in found:
            self.delete(f"gs://{path}")

    def upload(self, path: str | os.PathLike[str], uri: str) -> None:
        """Copy a local file to an object, which appears when it is whole."""
        with _storage_errors("upload", uri):
            self.filesystem.put_file(os.fspath(path), names.gcs_uri(uri, "address"))

    def check_readable(self, uri: str) -> None:
        """Raise the error that reading under an address would raise: extra, bucket or permission. Makes one list call.

        :raises ConfigurationError: gcsfs is missing. :raises NotFound: the bucket does not exist.
        :raises AccessDenied: these credentials may not list the bucket.
        """
        bucket, _, prefix = names.gcs_uri(uri, "destination").removeprefix("gs://").partition("/")
        with _storage_errors("list", uri):
            filesystem = self.filesystem
            # gcsfs lists a missing bucket like a folder that does not exist yet, so this makes the call itself.
            filesystem.call("GET", "b/{}/o", bucket, prefix=prefix, maxResults=1, json_out=True)

    def list_folder(self, folder: str) -> list[StoredObject]:
        """Return the objects directly in a folder, sorted; an empty list if the folder does not exist."""
        base = names.gcs_uri(folder, "folder").rstrip("/")
        try:
            with _storage_errors("list", folder):
                # No glob: the folder's name is a time with colons, and may contain wildcard characters.
                found = self.filesystem.ls(base, detail=True)
        except NotFound:
            return []
        return sorted(
            _to_stored_object(item) for item in found if item["name"].rstrip("/") != base.removeprefix("gs://")
        )

    def iter_bytes(self, uri: str) -> Iterator[bytes]:
        """Yield an object's bytes in pieces of 4 MiB; each is a ranged read of its own, which gcsfs retries.

        Raises ApiError when the object is replaced while it is read.
        """
        info = self._info(uri)
        size, generation = int(info["size"]), info.get("generation")
        for begin in range(0, size, READ_BYTES):
            yield self._range(uri, begin, min(size, begin + READ_BYTES))
        if size > READ_BYTES and self._info(uri).get("generation") != generation:
            raise ApiError(f"{uri} was replaced while it was read: read it again", http_status=412)

    def _info(self, uri: str) -> dict[str, Any]:
        with _storage_errors("look-up", uri):
            return cast("dict[str, Any]", self.filesystem.info(names.gcs_uri(uri, "address")))

    def _range(self, uri: str, begin: int, end: int) -> bytes:
        with _storage_errors("read", uri):
            data = bytes(self.filesystem.cat_file(uri, start=begin, end=end))
        if len(data) != end - begin:
            raise TransportError(f"read of {uri}: {len(data)} bytes came instead of {end - begin}", sent=True)
        return data


@contextmanager
def closed_or_discarded(handle: Any) -> Iterator[None]:
    """Close a file of fsspec that was opened for writing when the block ends well; discard it when something raises."""
    try:
        yield
        handle.close()
    except BaseException as error:
        with suppress(Exception):
            handle.discard()
        # fsspec closes, and so uploads, an open file when it is garbage-collected: mark it as closed.
        with suppress(Exception):
            handle.closed = True
        # Frames in gcsfs hold views of its buffer. Collecting a buffer together with a view of it ends the process on
        # Python 3.12.1, and is an error on 3.13.0.
        found: BaseException | None = error
        while found is not None:
            traceback.clear_frames(found.__traceback__)
            found = found.__cause__ or found.__context__
        raise


def _matches(uri: str, pieces: list[str]) -> bool:
    """Return whether an address has these pieces in turn, with anything between them; needs no backtracking."""
    first, *middle, last = pieces
    if not uri.startswith(first):
        return False
    position, end = len(first), len(uri) - len(last)
    for piece in middle:
        found = uri.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return position <= end and uri.endswith(last)


def _to_stored_object(item: Mapping[str, Any]) -> StoredObject:
    name = str(item["name"]).rstrip("/").rpartition("/")[2]
    if item.get("type") == "directory":
        return StoredObject(f"{name}/", 0)
    return StoredObject(name, int(item.get("size") or 0), time_of(item.get("updated")))


def _emulator_from_environment() -> str | None:
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    if not host:
        return None
    return checked_base_url(host if "://" in host else f"http://{host}")


@contextmanager
def _storage_errors(operation: str, uri: str) -> Iterator[None]:
    """Turn errors of gcsfs into ours, without a cause: theirs hold upload sessions and whole responses."""
    what = f"{operation} of {uri}"
    try:
        yield
    except GeminiBatchError:
        raise
    except FileNotFoundError:
        raise NotFound(f"{what}: the object does not exist", http_status=404, status="NOT_FOUND") from None
    except PermissionError:
        raise AccessDenied(f"{what}: these credentials may not", http_status=403, status="PERMISSION_DENIED") from None
    except Exception as error:  # noqa: BLE001  (it is raised as one of ours)
        raise _translate_error(what, error) from None


def _translate_error(what: str, error: Exception) -> GeminiBatchError:
    # gcsfs turns a token that could not be fetched into a 401 that blames the key.
    for one in (error, error.__cause__):
        if type(one).__module__.startswith("google.auth") and isinstance(one, Exception):
            return google_failure(one, what, THE_CONNECTION)
    code = getattr(error, "code", None) or getattr(error, "status", None)
    status = int(code) if isinstance(code, (int, str)) and str(code).isdigit() else 0
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):  # which is all that gcsfs says of a 403
        status = 403
    if status:
        return error_from_status(status, what)
    # Of the network's errors the system's own words are safe: "Name or service not known".
    reason = getattr(error, "strerror", None) if isinstance(error, OSError) else None
    return TransportError(f"{what} failed: {reason or type(error).__name__}", sent=True)
