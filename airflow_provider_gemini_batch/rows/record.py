"""What landing needs of each row: its key and its carried columns, kept when the job is made.

A compact file (or, when small, a text in Airflow's task state store): a line that names the record, then one line a
row with its key, its carried columns and, for models that do not return keys, what identifies the row; each is JSON or
empty, with tabs between them. The host that lands the responses reads it from front to back.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager, ExitStack, closing
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

MOST_BYTES_IN_STORE = 32 * 1024
"""Airflow warns about values above 64 KiB."""

_VERSION = 1
_EMPTY = b"\t\t\n"
_BLOCK_BYTES = 256 << 10
_NO_PLACE = (
    "carry (and embedding models that return no keys) need a place where columns and keys are kept until the responses "
    "come: give staging_path or output_path; nothing was sent"
)


class RecordLine(NamedTuple):
    """What is kept of one row; each member is JSON, or empty."""

    key: bytes = b""
    carried: bytes = b""
    instance: bytes = b""


class Kept(NamedTuple):
    """Where a record is: ``text`` is to be put into the store; ``in_file``: it is in the file; else nothing was kept.

    ``dropped``: there was something to keep, but no place for it.
    """

    name: str
    text: str | None
    in_file: bool
    dropped: bool = False


class RecordWriter:
    """Keeps one line for each row, in the store or in a file.

    Used as a context manager: when the block raises, the file is discarded.
    """

    def __init__(
        self,
        *,
        store: bool,
        file: Callable[[], AbstractContextManager[BinaryIO]] | None,
        needed: bool,
    ) -> None:
        """Prepare to write.

        :param store: whether a small record can go into the task state store.
        :param file: opens a file for a larger record; None: there is no place for one.
        :param needed: whether the author's arguments cannot be met without a record.
        """
        self.name = secrets.token_hex(8)
        self._carried = sha256()
        self._file = file
        self._needed = needed
        self._most = MOST_BYTES_IN_STORE if store else 0
        self._stack = ExitStack()
        self._handle: BinaryIO | None = None
        self._held = bytearray(to_json({"version": _VERSION, "record": self.name}) + b"\n")
        self._empty = 0
        self._rows = 0
        self._dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None and self._handle is not None:
            self._flush(self._handle)
        return self._stack.__exit__(kind, error, trace)

    def add(self, key: bytes, carried: bytes, instance: bytes) -> None:
        """Add the next row; see :class:`RecordLine`.

        :raises ConfigurationError: the record is too large for the store, and there is no file.
        """
        if not key and not carried and not instance:
            self._empty += 1
            return
        self._carried.update(carried)
        self._add(1, b"%b\t%b\t%b\n" % (key, carried, instance))

    def add_keys(self, keys: Sequence[bytes]) -> None:
        """Add rows of which only the keys are kept, all of them or none; see :meth:`add`."""
        if any(keys):
            self._add(len(keys), _EMPTY.join(keys) + _EMPTY)
        else:
            self._empty += len(keys)

    def _add(self, rows: int, lines: bytes) -> None:
        if self._dropped:
            return
        if self._empty:
            self._put(_EMPTY * self._empty)
            self._empty = 0
        self._rows += rows
        self._put(lines)

    def _put(self, piece: bytes) -> None:
        self._held += piece
        if self._handle is None and len(self._held) > self._most:
            if self._file is None:
                if self._needed:
                    raise ConfigurationError(_NO_PLACE)
                self._dropped = True
                self._held.clear()
                return
            self._handle = self._stack.enter_context(self._file())
        if self._handle is not None and len(self._held) >= _BLOCK_BYTES:
            self._flush(self._handle)

    def _flush(self, handle: BinaryIO) -> None:
        handle.write(self._held)
        self._held.clear()

    @property
    def carried_digest(self) -> str:
        """A hash of all carried columns that were added so far."""
        return self._carried.hexdigest()[:12]

    def finish(self) -> Kept:
        """Return where the record is. Call it after the block. Nothing is kept if all rows were empty."""
        if self._handle is not None:
            return Kept(self.name, None, in_file=True)
        if self._dropped or not self._rows:
            return Kept(self.name, None, in_file=False, dropped=self._dropped)
        return Kept(self.name, self._held.decode(), in_file=False)


class InputRecord:
    """A record, read back."""

    def __init__(self, name: str, opener: Callable[[], BinaryIO]) -> None:
        """Remember how to open the record; each pass from the front opens it again."""
        self._name = name
        self._opener = opener
        self._lines: Iterator[RecordLine] | None = None
        self._next = 0

    def check(self) -> None:
        """Raise InputUnavailable unless the record exists and has this name."""
        with closing(self._open()):
            pass

    def carried(self) -> Iterator[bytes]:
        """Yield the carried columns of each row as a line of JSON; an empty line where nothing was kept."""
        for line in self.lines():
            yield line.carried + b"\n"

    def key(self, row: int) -> str | None:
        """Return the author's key of a row. Fast as long as rows are asked for in ascending order."""
        if self._lines is None or row < self._next:
            self._lines, self._next = self.lines(), 0
        for line in self._lines:
            self._next += 1
            if self._next > row:
                return str(from_json(line.key)) if line.key else None
        return None

    def of_rows(self, rows: Sequence[int]) -> Iterator[tuple[int, RecordLine]]:
        """Yield what was kept of some rows, given in ascending order."""
        wanted = iter(rows)
        row = next(wanted, None)
        for number, line in enumerate(self.lines()):
            if row is None:
                return
            if number == row:
                yield row, line
                row = next(wanted, None)

    def lines(self) -> Iterator[RecordLine]:
        """Yield what was kept, row by row; empty rows at the end may be missing."""
        with closing(self._open()) as handle:
            for line in handle:
                key, carried, instance = line[:-1].split(b"\t")
                yield RecordLine(key, carried, instance)

    def _open(self) -> BinaryIO:
        handle = self._opener()
        try:
            head = from_json(handle.readline() or b"null")
            if head["version"] == _VERSION and head["record"] == self._name:
                return handle
        except (ValueError, TypeError, KeyError):
            pass
        handle.close()
        raise InputUnavailable("what was kept of the input for this task has been replaced by something else")
