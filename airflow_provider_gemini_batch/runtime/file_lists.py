"""The files that an input path means: a folder, a pattern or a list, on any storage."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    EmptyInput,
    GeminiBatchError,
    InputError,
    TransportError,
)
from airflow_provider_gemini_batch.rows.datasets import InputFile, is_data, is_dataset
from airflow_provider_gemini_batch.rows.files import local_file
from airflow_provider_gemini_batch.runtime.argument_readers import listed
from airflow_provider_gemini_batch.runtime.paths import WILD, is_lasting, is_local, local_path, object_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_gemini_batch.runtime.paths import Paths

log = logging.getLogger(__name__)

_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
# The folders that say which of the files beside them are in a table; the others are of its earlier versions.
_LOG_FOLDERS = {"_delta_log": "Delta", ".hoodie": "Hudi"}


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
    addresses = listed(given)
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


def list_files(paths: Paths, given: str, *, conn_id: str | None = None, named: str | None = None) -> list[FoundFile]:
    """Return the data files below a folder, or those that a pattern means (``*``, ``**``, ``?``), sorted by path.

    Names that begin with ``_`` or ``.`` are skipped, as other readers of datasets do.

    :param named: a pattern for files of the folder itself, of which no other is looked at.
    :raises EmptyInput: there are none. :raises ConfigurationError: they cannot be listed.
    :raises TransportError: they cannot be listed just now.
    """
    if is_local(given):
        local_path(given)  # which refuses a relative one
    root, wanted = (f"{given.rstrip('/')}/", _Wanted(named)) if named else _root_and_pattern(given)
    tables: dict[str, str] = {}
    try:
        listed = _local(root, wanted, tables) if is_local(root) else _remote(paths, root, wanted, conn_id, tables)
        # Writers of datasets leave empty files, without even a header, for partitions without rows.
        found = sorted(one for one in listed if one.size != 0)
    except GeminiBatchError:
        raise
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
    for folder, kind in tables.items():
        if any(one.path.startswith(folder) for one in found):
            raise ConfigurationError(
                f"input_path: {folder} is a {kind} table, and files of its earlier versions lie there as well: give a "
                "list of its current files, or a function that yields its rows"
            )
    return found


def reads(paths: Paths, given: str | Sequence[str], path: str, *, conn_id: str | None = None) -> str | None:
    """Return the address in an input path that means a file, in whatever spelling; None if none does.

    :param path: the file, which need not exist yet. :param conn_id: its connection.
    """
    wanted = _place(path, conn_id)
    return next((one for one in listed(given) if _means(paths, one, wanted)), None)


def _means(paths: Paths, address: str, wanted: _Place) -> bool:
    single = InputFile.parse(address)
    place = _place(single.path)
    if place.address == wanted.address and _may_be_one_store(place, wanted):
        return True
    if single.row_groups is not None or not means_several(address):
        return is_local(single.path) and _real(local_file(single.path)) == wanted.address
    folder, asked_for = _root_and_pattern(address)
    # A name in it, since the links of a folder are followed, but not the file itself.
    root = _place(f"{folder}x")
    prefix = root.address[:-1]
    return (
        _may_be_one_store(root, wanted)
        and wanted.address.startswith(prefix)
        and asked_for.file(wanted.address.removeprefix(prefix))
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


class _Wanted:
    """Which files below a folder are meant: all, or those of a pattern; hidden ones never are."""

    def __init__(self, pattern: str = "**") -> None:
        folders = takewhile(lambda one: "**" not in one, pattern.split("/")[:-1])
        self._files = re.compile(_pattern(pattern), re.DOTALL)
        self._folders = [re.compile(_pattern(one), re.DOTALL) for one in folders]
        self._is_deep = "**" in pattern

    @property
    def is_flat(self) -> bool:
        """Whether the files of the folder itself are all."""
        return not self._folders and not self._is_deep

    def file(self, below: str) -> bool:
        """Return whether a file is meant."""
        return is_data(below) and self._files.fullmatch(below) is not None

    def folder(self, below: str) -> bool:
        """Return whether there may be files in a folder that are meant."""
        names = below.split("/")
        fit = all(one.fullmatch(name) for one, name in zip(self._folders, names))  # noqa: B905  either may be longer
        return is_data(f"{below}/") and fit and (self._is_deep or len(names) <= len(self._folders))


def _root_and_pattern(given: str) -> tuple[str, _Wanted]:
    """Return the folder in which files are looked for, and which of the files below it are meant."""
    wild = WILD.search(given)
    # Whatever characters a folder's name has.
    if wild is None or (_is_folder(given) if is_local(given) else given.endswith("/")):
        return f"{given.rstrip('/')}/", _Wanted()
    root = given[: given.rfind("/", 0, wild.start()) + 1]
    return f"{root.rstrip('/')}/", _Wanted(given[len(root) :])


def _local(root: str, wanted: _Wanted, tables: dict[str, str]) -> Iterator[FoundFile]:
    """Yield the files of this machine that are meant, and note the folders of ``tables``.

    :raises OSError: a folder cannot be listed: a dataset without its files would lose the parts that they have.
    :raises ConfigurationError: a link leads nowhere, or to a folder elsewhere.
    """
    top = local_path(root)
    if not top.is_dir():
        raise FileNotFoundError(f"there is no folder {top}")
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with suppress(FileNotFoundError), os.scandir(top / above) as entries:  # it may be removed meanwhile
            for entry in entries:
                below = f"{above}{entry.name}"
                _note_table(entry.path, tables)
                may_be_meant = wanted.file(below) or wanted.folder(below)
                mode, size = _mode_and_size(entry) if may_be_meant and entry.name != "lost+found" else (0, 0)
                is_folder = stat.S_ISDIR(mode)
                is_meant = wanted.folder if is_folder else wanted.file
                if not mode or not is_meant(below) or _lies_inside(entry, top, is_meant):
                    continue
                if is_folder and entry.is_symlink():
                    raise ConfigurationError(
                        f"input_path: {entry.path} is a link to a folder, and such a link is followed only where "
                        "input_path names it: give a list of folders, or a pattern that leaves it out"
                    )
                if is_folder:
                    waiting.append(f"{below}/")
                elif stat.S_ISREG(mode):
                    yield FoundFile(entry.path, size)


def _mode_and_size(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Return what a name leads to; zeros if that is removed meanwhile."""
    try:
        facts = entry.stat()
    except FileNotFoundError:
        if not entry.is_symlink():
            return 0, 0
        raise ConfigurationError(f"input_path: {entry.path} is a broken link") from None
    return facts.st_mode, facts.st_size


def _lies_inside(entry: os.DirEntry[str], top: Path, is_meant: Callable[[str], bool]) -> bool:
    """Return whether this is a link to what is found where it lies."""
    if not entry.is_symlink():
        return False
    inside = os.path.relpath(_real(Path(entry.path)), _real(top))
    return inside == "." or (not inside.startswith("../") and is_meant(inside))


def _remote(
    paths: Paths, root: str, wanted: _Wanted, conn_id: str | None, tables: dict[str, str]
) -> Iterator[FoundFile]:
    """Yield the objects that are meant, and note the folders of ``tables``."""
    store = paths.store_for(root, conn_id)
    scheme, _, rest = root.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if store is not None:
        filesystem, folder = store.filesystem, rest
    else:
        path = object_path(root, conn_id)
        filesystem, folder = path.fs, path.path
    for facts in _listed(filesystem, folder.rstrip("/"), wanted):
        address = f"{scheme}://{user}{at}{facts['name'].lstrip('/')}"
        _note_table(address, tables)
        if facts.get("type", "file") == "file" and wanted.file(address.removeprefix(root)):
            yield FoundFile(address, facts.get("size"))


def _note_table(path: str, tables: dict[str, str]) -> None:
    for name, kind in _LOG_FOLDERS.items():
        folder, found, _ = f"{path}/".partition(f"/{name}/")
        if found:
            tables[f"{folder}/"] = kind


def _listed(filesystem: Any, top: str, wanted: _Wanted) -> Iterator[Mapping[str, Any]]:
    """Yield what a file system says of the files below a folder, and maybe of others."""
    find = getattr(type(filesystem), "_find", type(filesystem).find)
    # fsspec's own way goes from folder to folder and leaves out one that fails; object stores have a better one.
    if find.__module__ not in {"fsspec.spec", "fsspec.asyn"} and not wanted.is_flat:
        yield from filesystem.find(top, detail=True).values()
        return
    filesystem.invalidate_cache(top)
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        with suppress(FileNotFoundError):
            for facts in filesystem.ls(folder, detail=True):
                name = facts["name"].rstrip("/")
                yield facts
                is_folder = facts.get("type", "file") == "directory"
                if is_folder and name != folder and wanted.folder(name.removeprefix(f"{top}/")):
                    waiting.append(name)


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
