"""Files as reading and delivery use them: written whole or not at all, on this machine or on an object store."""

from __future__ import annotations

import os
import secrets
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.google.storage import closed_or_discarded
from airflow_provider_gemini_batch.api.names import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Files(Protocol):
    """The operations that delivery needs from a file system."""

    def read(self, path: str) -> BinaryIO:
        """Open for reading. Raises FileNotFoundError."""

    def write_whole(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open for writing; the file is there when the block ends well, and not when it raises."""

    def exists(self, path: str) -> bool:
        """True when there is a file."""

    def remove(self, path: str) -> None:
        """Remove the file, if it exists."""


def _partial_name(name: str) -> str:
    # The beginning of the name, since a file system bounds how long one may be.
    return f".{name[:40]}.{secrets.token_hex(6)}.part"


@dataclass(frozen=True)
class LocalFiles:
    """Files of this machine; folders are made as needed, ``file://`` is understood.

    ``private``: only the owner can read what is written, whatever the umask.
    """

    private: bool = False

    def read(self, path: str) -> BinaryIO:
        """Open for reading."""
        return local_file(path).open("rb")

    @contextmanager
    def write_whole(self, path: str) -> Iterator[BinaryIO]:
        """Write under a temporary name in the same folder and rename at the end."""
        target = local_file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(_partial_name(target.name))
        try:
            mode = 0o600 if self.private else 0o666
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def exists(self, path: str) -> bool:
        """True when there is a file."""
        return local_file(path).exists()

    def remove(self, path: str) -> None:
        """Remove it."""
        local_file(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class OpenedFiles:
    """Files of an object store, through three callables: ``open(path, mode)``, ``exists(path)``, ``remove(path)``.

    ``move(path, new_path)`` is for file systems on which a file grows under its name while it is written.
    """

    open: Callable[[str, str], BinaryIO]
    exists_: Callable[[str], bool]
    remove_: Callable[[str], None]
    move: Callable[[str, str], None] | None = None

    def read(self, path: str) -> BinaryIO:
        """Open for reading."""
        return self.open(path, "rb")

    @contextmanager
    def write_whole(self, path: str) -> Iterator[BinaryIO]:
        """Write under the final name, where an object appears when it is closed; a file that grows gets it at the end.

        Both are discarded when the block raises.
        """
        if self.move is None:
            handle = self.open(path, "wb")
            with closed_or_discarded(handle):
                yield handle
            return
        folder, slash, name = path.rpartition("/")
        partial = f"{folder}{slash}{_partial_name(name)}"
        try:
            with closing(self.open(partial, "wb")) as handle:
                yield handle
            self.move(partial, path)
        except BaseException:
            with suppress(Exception):
                self.remove(partial)
            raise

    def exists(self, path: str) -> bool:
        """True when there is an object."""
        return self.exists_(path)

    def remove(self, path: str) -> None:
        """Remove it."""
        with suppress(FileNotFoundError):
            self.remove_(path)


def local_file(path: str) -> Path:
    """Return a path of this machine as authors write it: plain, with ``file://`` or with ``~``.

    :raises ConfigurationError: ``~`` names a user whom this machine does not know.
    """
    try:
        return Path(path.removeprefix("file://")).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{in_words(path)} begins with the home folder of a user whom this machine does not know: give the whole "
            "path"
        ) from None
