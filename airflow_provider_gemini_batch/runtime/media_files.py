"""The files that rows may name: those below ``media_root``, and nothing else that the worker could read.

A row may come from a customer, and the file that it names is sent to Google. So it must not name a key on the worker, a
device, or another connection of Airflow's:

* A path is resolved, links included, and must lie below a root, whose scheme and connection are used.
* Only regular files are opened; their size and the time to read them are limited.
"""

from __future__ import annotations

import io
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.rows.files import local_file
from airflow_provider_gemini_batch.runtime.argument_readers import listed
from airflow_provider_gemini_batch.runtime.paths import is_local, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_BYTES = 2_000_000_000
"""What the Files API takes in one file (https://ai.google.dev/gemini-api/docs/files)."""

MOST_SECONDS = 600.0
"""How long reading one file may take."""

_NO_NAME = "media_field: no file can have such a name"
_FOREIGN = "media_field: the file is not below media_root"


class MediaFiles:
    """Opens what rows name, below the roots."""

    def __init__(
        self,
        roots: Sequence[str],
        opener: Callable[[str], BinaryIO],
        *,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check the roots, which are as an author wrote them.

        :param opener: opens addresses that are not on this machine.
        :param most_bytes: how large one file may be.
        :param most_seconds: how long reading it may take.
        :raises ConfigurationError: there is no root, or one of them is relative.
        """
        if not roots:
            raise ConfigurationError(
                "media_field: give media_root, the folder (or several) below which rows may name files; only with "
                "input_path it is known: the folder of the input"
            )
        self._folders = [local_path(root).resolve() for root in roots if is_local(root)]
        self._prefixes = [root.rstrip("/") + "/" for root in roots if not is_local(root)]
        self._open = opener
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._now = now

    def address(self, named: str) -> str:
        """Return the whole address of a file that a row names, by itself or relative to a root.

        :raises InputError: it is not below a root; the message does not repeat the name.
        """
        if "\0" in named:
            raise InputError("media_field: the name of the file holds a NUL character")
        try:
            named.encode()
        except UnicodeEncodeError:
            raise InputError(_NO_NAME) from None
        if "://" in named and not named.startswith("file://"):
            return self._object(named)
        path = Path(named.removeprefix("file://"))
        if path.is_absolute() or self._folders:
            return str(self._local(path))
        # Without the root's connection, which _object adds again when it has found the root.
        scheme, _, rest = self._prefixes[0].partition("://")
        return self._object(f"{scheme}://{rest[rest.partition('/')[0].find('@') + 1 :]}{named}")

    def open(self, address: str) -> BinaryIO:
        """Open a file by its whole address.

        :raises InputError: it is not there, not a regular file, too large, or takes too long; the last two while
            reading.
        """
        handle = self._open_local(address) if is_local(address) else self._open(address)
        bounded = _Bounded(handle, self._most_bytes, self._most_seconds, self._now)
        return cast("BinaryIO", io.BufferedReader(cast("Any", bounded)))

    def _local(self, path: Path) -> Path:
        try:
            for folder in self._folders:
                # An absolute path replaces the folder.
                found = (folder / path).resolve()
                if found.is_relative_to(folder) and (path.is_absolute() or found.exists()):
                    return found
        except (OSError, RuntimeError):  # a name that is too long, a ring of links
            raise InputError(_NO_NAME) from None
        if self._folders and not path.is_absolute() and ".." not in path.parts:
            raise InputError("media_field: the file does not exist below media_root")
        raise InputError(_FOREIGN)

    def _object(self, named: str) -> str:
        scheme, _, rest = named.partition("://")
        place, _, key = rest.partition("/")
        own, at_own, bucket = place.rpartition("@")
        folded = key.casefold()
        if any(part in {"", ".", ".."} for part in key.split("/")) or "%2e" in folded or "%2f" in folded:
            raise InputError(_FOREIGN)
        for prefix in self._prefixes:
            root_scheme, _, root_rest = prefix.partition("://")
            connection, at, root = (
                root_rest.rpartition("@") if "@" in root_rest.partition("/")[0] else ("", "", root_rest)
            )
            if root_scheme == scheme and f"{bucket}/{key}".startswith(root) and own in {"", connection}:
                return f"{scheme}://{connection}{at}{bucket}/{key}"
        if at_own:
            raise InputError("media_field: a row may not name a connection other than that of media_root")
        # Relative to a root that carries its connection: the bucket was checked without it.
        raise InputError(_FOREIGN)

    def _open_local(self, address: str) -> BinaryIO:
        path = address.removeprefix("file://")
        try:
            # Non-blocking: opening a pipe would wait until somebody writes into it.
            number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"media_field: the file cannot be read: {error.strerror}") from None
        facts = os.fstat(number)
        if not self._is_below(path, facts):
            os.close(number)
            raise InputError(_FOREIGN)
        if not stat.S_ISREG(facts.st_mode):
            os.close(number)
            raise InputError("media_field: what the row names is not a regular file")
        if facts.st_size > self._most_bytes:
            os.close(number)
            raise _too_large(self._most_bytes)
        return os.fdopen(number, "rb")

    def _is_below(self, path: str, facts: os.stat_result) -> bool:
        """Return whether the opened file lies below a root: since the check, a folder may have become a link."""
        try:
            now = Path(path).resolve(strict=True)
            return any(map(now.is_relative_to, self._folders)) and os.path.samestat(now.stat(), facts)
        except (OSError, RuntimeError):
            return False


def default_roots(input_path: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the folders of the input, below which its rows may name files; none for other sources."""
    folders = []
    for path in listed(input_path):
        # Of a pattern, the part before its first wildcard; a folder of this machine needs no slash at its end.
        fixed = path[: min((at for mark in "*?[" if (at := path.find(mark)) >= 0), default=len(path))]
        folder = path.rstrip("/") if is_local(path) and local_file(path).is_dir() else fixed.rpartition("/")[0]
        if folder and not folder.endswith((":/", ":")):
            folders.append(folder)
    return tuple(dict.fromkeys(folders))


def _too_large(most: int) -> InputError:
    return InputError(f"media_field: the file is larger than {most} bytes")


class _Bounded(io.RawIOBase):
    """A stream that raises an error when it is too long or takes too long."""

    def __init__(self, handle: BinaryIO, most: int, seconds: float, now: Callable[[], float]) -> None:
        super().__init__()
        self._handle = handle
        self._left = most
        self._most = most
        self._seconds = seconds
        self._now = now
        self._until = now() + seconds

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._handle.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = self._handle.seek(offset, whence)
        self._left = self._most - position
        return position

    def tell(self) -> int:
        return self._handle.tell()

    def readinto(self, buffer: Any) -> int:
        if self._now() > self._until:
            raise InputError(f"media_field: reading the file took longer than {self._seconds:g} seconds")
        block = self._handle.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise _too_large(self._most)
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._handle.close()
        super().close()
