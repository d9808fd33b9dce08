"""The files that an input path means: a folder, a pattern or a list, on any storage."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    EmptyInput,
    InputError,
    TransportError,
)
from airflow_provider_gemini_batch.rows.datasets import InputFile, is_data, is_dataset
from airflow_provider_gemini_batch.rows.local import local_file
from airflow_provider_gemini_batch.runtime.paths import WILD, is_lasting, is_local, local_path, object_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_gemini_batch.runtime.paths import Paths

log = logging.getLogger(__name__)

_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}


class FoundFile(NamedTuple):
    """A file; ``size`` is None where nobody says it."""

    path: str
    size: int | None = None


def means_several(path: str | Sequence[str] | None) -> bool:
    """Return whether an input path means several files: a list, a pattern, a folder."""
    if path is None:
        return False
    if not isinstance(path, str):
        return True
    is_folder = _is_folder(path) if is_local(path) else None
    return is_dataset(path) if is_folder is None else is_folder  # whatever characters its name has


def _is_folder(path: str) -> bool | None:
    """Return whether a local path is a folder; None where nothing can be seen."""
    found = local_file(path)
    with suppress(OSError, ValueError):
        return stat.S_ISDIR(found.stat().st_mode)
    return None


def addresses_of(paths: Paths, given: str | Sequence[str]) -> list[str]:
    """Return the addresses of all files that an input path means; see :func:`find_files`."""
    return [file.path for file in find_files(paths, given)]


def find_files(paths: Paths, given: str | Sequence[str]) -> list[FoundFile]:
    """Return all files that an input path means, each once, sorted; a list keeps its own order.

    :raises EmptyInput: there are none. :raises ConfigurationError: some cannot be listed.
    """
    addresses = [given] if isinstance(given, str) else given
    found: dict[str, FoundFile] = {}
    for one in addresses:
        if InputFile.parse(one).row_groups is not None or not means_several(one) or _is_object(paths, one):
            name = str(local_path(one)) if is_local(one) else one
            found.setdefault(name, FoundFile(name))
            continue
        try:
            found.update((file.path, file) for file in list_files(paths, one))
        except EmptyInput as error:
            if len(addresses) > 1:  # the others are not to be left out because of this one
                raise InputError(str(error)) from error
            raise
    if not found:
        raise EmptyInput("the input has no files; set on_empty to 'skip' or 'succeed' if that may happen")
    return list(found.values())


def _is_object(paths: Paths, address: str) -> bool:
    """Return whether an address with the characters of a pattern is the name of an object, and not of a folder.

    :raises TransportError: this cannot be seen just now.
    """
    if is_local(address) or address.endswith("/") or WILD.search(address) is None:
        return False
    try:
        if (store := paths.store_for(address)) is not None:
            return store.is_object(address)
        path = object_path(address)
        return bool(path.fs.info(path.path).get("type", "file") == "file")
    except (OSError, ImportError, ValueError) as error:
        if is_lasting(error):
            return False  # listing it says what is wrong
        raise TransportError(f"cannot list {address} just now: {type(error).__name__}", sent=False) from error


def list_files(paths: Paths, given: str, *, conn_id: str | None = None) -> list[FoundFile]:
    """Return the data files below a folder, or those that a pattern means (``*``, ``**``, ``?``), sorted by path.

    Names that begin with ``_`` or ``.`` are skipped, as other readers of datasets do.

    :raises EmptyInput: there are none. :raises ConfigurationError: they cannot be listed.
    :raises TransportError: they cannot be listed just now.
    """
    if is_local(given):
        local_path(given)  # which refuses a relative one
    root, pattern = _root_and_pattern(given)
    # As the files below it are listed: without file:// or a tilde.
    shown = f"{str(local_path(root)).rstrip('/')}/" if is_local(root) else root
    try:
        listed = _local(root) if is_local(root) else _remote(paths, root, conn_id)
        found = sorted(
            one
            for one in listed
            # Writers of datasets leave empty files, without even a header, for partitions without rows.
            if one.size != 0 and _is_meant(one.path.removeprefix(shown), pattern)
        )
    except (OSError, ImportError, ValueError) as error:
        if is_lasting(error):
            raise ConfigurationError(
                f"input_path: cannot list {given}: {str(error) or type(error).__name__}"
            ) from error
        raise TransportError(f"cannot list {given} just now: {type(error).__name__}", sent=False) from error
    if not found:
        raise EmptyInput(
            f"input_path: {given} holds no files, or only empty ones; set on_empty to 'skip' or 'succeed' if that may "
            "happen"
        )
    return found


def reads(paths: Paths, given: str | Sequence[str], path: str, *, conn_id: str | None = None) -> str | None:
    """Return the address in an input path that means a file, in whatever spelling; None if none does.

    :param path: the file, which need not exist yet. :param conn_id: its connection.
    """
    wanted = _place(path, conn_id)
    return next((one for one in ([given] if isinstance(given, str) else given) if _means(paths, one, wanted)), None)


def _means(paths: Paths, address: str, wanted: _Place) -> bool:
    single = InputFile.parse(address)
    place = _place(single.path)
    if place.address == wanted.address and _may_be_one_store(place, wanted):
        return True
    if single.row_groups is not None or not means_several(address):
        return is_local(single.path) and _real(local_file(single.path)) == wanted.address
    folder, pattern = _root_and_pattern(address)
    # A name in it, since the links of a folder are followed, but not the file itself.
    root = _place(f"{folder}x")
    prefix = root.address[:-1]
    return (
        _may_be_one_store(root, wanted)
        and wanted.address.startswith(prefix)
        and _is_meant(wanted.address.removeprefix(prefix), pattern)
        and not _is_object(paths, address)
    )


def plain_address(path: str) -> str:
    """Return an address in its one spelling, without a connection."""
    return _place(path).address


class _Place(NamedTuple):
    """A file in its one spelling: links in its folder are followed. ``conn_id``: where its address names one."""

    address: str
    conn_id: str | None = None


def _place(path: str, conn_id: str | None = None) -> _Place:
    if is_local(path):
        found = local_file(path)
        return _Place(f"{_real(found.parent).rstrip('/')}/{found.name}")
    scheme, _, rest = path.partition("://")
    host, slash, name = rest.partition("/")
    named, _, bucket = host.rpartition("@")
    return _Place(f"{_SCHEMES.get(scheme, scheme)}://{bucket}{slash}{name}", named or conn_id)


def _real(path: Path) -> str:
    with suppress(ValueError):  # no file has such a name, and reading it says so
        return os.path.realpath(path)
    return str(path)


def _may_be_one_store(one: _Place, other: _Place) -> bool:
    """Two connections that are both named may lead to different stores."""
    return None in {one.conn_id, other.conn_id} or one.conn_id == other.conn_id


def _root_and_pattern(given: str) -> tuple[str, re.Pattern[str] | None]:
    """Return the folder in which files are looked for, and the pattern of their paths below it."""
    wild = WILD.search(given)
    # Whatever characters a folder's name has.
    if wild is None or (_is_folder(given) if is_local(given) else given.endswith("/")):
        return f"{given.rstrip('/')}/", None
    root = given[: given.rfind("/", 0, wild.start()) + 1]
    return f"{root.rstrip('/')}/", re.compile(_pattern(given[len(root) :]), re.DOTALL)


def _is_meant(below: str, pattern: re.Pattern[str] | None) -> bool:
    return is_data(below) and (pattern is None or pattern.fullmatch(below) is not None)


def _local(root: str) -> Iterator[FoundFile]:
    folder = local_path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")

    def failed(error: OSError) -> None:
        if isinstance(error, PermissionError) and error.filename != str(folder):
            log.warning("%s is left out: this worker may not list it.", error.filename)
        elif not isinstance(error, FileNotFoundError):  # which is removed meanwhile
            raise error

    # Path.rglob() of Python 3.12 leaves out a folder that fails for a moment.
    for place, _, names in os.walk(folder, onerror=failed):
        for name in names:
            with suppress(FileNotFoundError):
                path = Path(place, name)
                facts = path.stat()
                if stat.S_ISREG(facts.st_mode):
                    yield FoundFile(str(path), facts.st_size)


def _remote(paths: Paths, root: str, conn_id: str | None) -> Iterator[FoundFile]:
    store = paths.store_for(root, conn_id)
    scheme, _, rest = root.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if store is not None:
        filesystem, folder = store.filesystem, rest
    else:
        path = object_path(root, conn_id)
        filesystem, folder = path.fs, path.path
    for name, facts in filesystem.find(folder.rstrip("/"), detail=True).items():
        if facts.get("type", "file") == "file":
            yield FoundFile(f"{scheme}://{user}{at}{name.lstrip('/')}", facts.get("size"))


def _pattern(given: str) -> str:
    """Return a regular expression for the paths that a pattern means; ``*`` stays within a folder."""
    pieces = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", given):
        if piece == "**/":
            pieces.append("(?:.*/)?")
        elif piece == "**":
            pieces.append(".*")
        elif piece == "*":
            pieces.append("[^/]*")
        elif piece == "?":
            pieces.append("[^/]")
        elif piece.startswith("[") and piece.endswith("]"):
            pieces.append(fnmatch.translate(piece).removeprefix("(?s:")[: -len(r")\Z")])
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)
