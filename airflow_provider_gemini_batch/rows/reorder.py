"""A file for rows that arrive too early: added in any order, taken out in the order of their numbers.

Rows are gathered in buckets of neighbours; a bucket that has filled its buffer is appended to the file as one extent,
many of them at a time, and each bucket is read back as a whole, so that neither writing nor reading costs a system call
per row. Memory holds the buffers (at most 8 MiB) and one bucket (a 512th of the file), and nothing else of a row.
"""

from __future__ import annotations

import errno
import os
from array import array
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_BUCKETS_LOG2 = 9
_EXTENT_BYTES = 16 << 10
_PIECE_ROWS = 128
_BLOCK_BYTES = 1 << 18


class _Extent(NamedTuple):
    """A piece of the file: some lines, then their rows' numbers, eight bytes each."""

    start: int
    rows: int
    width: int


class _Bucket:
    """Neighbouring rows: ``lines`` and their ``rows``, older ones in ``extents``; ``final`` counts the final ones."""

    __slots__ = ("extents", "final", "lines", "rows", "width")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.rows = array("q")
        self.width = 0
        self.final = 0
        self.extents: list[_Extent] = []


class Spill:
    """Lines by row number. Adding a line again replaces the previous one.

    ``waiting`` counts the final lines that have not been taken out; a bucket has ``1 << shift`` rows.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._rows = rows
        self._handle: BinaryIO | None = None
        self._size = 0
        self._extents = 0
        self.shift = max(0, rows.bit_length() - _BUCKETS_LOG2)
        self._buckets = [_Bucket() for _ in range((rows >> self.shift) + 1)]
        self.waiting = 0

    def add(self, rows: Sequence[int], lines: Iterable[bytes], *, is_final: bool = False) -> None:
        """Add the lines of some rows, newlines included: many at a time cost less than one by one.

        :param is_final: no other line can replace them; pass it at most once for each row.
        """
        shift, buckets = self.shift, self._buckets
        for row, line in zip(rows, lines, strict=True):
            bucket = buckets[row >> shift]
            bucket.rows.append(row)
            bucket.lines.append(line)
            bucket.width += len(line)
            bucket.final += is_final
            if bucket.width >= _EXTENT_BYTES:
                self._write(bucket)
        self.waiting += is_final * len(rows)

    def settle(self, row: int) -> None:
        """Mark the line of a row, already added, as final."""
        self._buckets[row >> self.shift].final += 1
        self.waiting += 1

    def is_whole(self, first: int) -> bool:
        """Return whether all rows from ``first`` to the end of its bucket have a final line."""
        bucket = first >> self.shift
        return self._buckets[bucket].final == min(self._rows, (bucket + 1) << self.shift) - first > 0

    def take(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        """Take out and yield the rows from ``first`` to the end of its bucket; see :meth:`pieces`."""
        number = first >> self.shift
        end = min(self._rows, (number + 1) << self.shift)
        lines = self._read(number, first, end)
        for begin in range(0, end - first, _PIECE_ROWS):
            piece = lines[begin : begin + _PIECE_ROWS]
            row = first + begin
            if all(piece):
                yield row, row + len(piece), b"".join(piece)
            else:
                yield from ((row + index, row + index + 1, line) for index, line in enumerate(piece))

    def pieces(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield all rows from ``first`` on as ``(row, next row, bytes)``; empty bytes for a row without a line."""
        for number in range(first >> self.shift, len(self._buckets)):
            yield from self.take(max(first, number << self.shift))

    def close(self) -> None:
        """Remove the file."""
        if self._handle is not None:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # a full disk has no room for the last block, which nobody needs any more
                self._handle.close()
            self._handle = None

    def _write(self, bucket: _Bucket) -> None:
        if self._handle is None:
            self._handle = self._path.open("w+b", buffering=_BLOCK_BYTES)
        block = b"".join((*bucket.lines, bucket.rows))
        self._handle.write(block)
        bucket.extents.append(_Extent(self._size, len(bucket.lines), len(block)))
        self._extents += 1
        self._size += len(block)
        bucket.lines.clear()
        del bucket.rows[:]
        bucket.width = 0

    def _read(self, number: int, first: int, end: int) -> list[bytes]:
        """Return the lines of a bucket from ``first`` on, and forget it."""
        bucket, self._buckets[number] = self._buckets[number], _Bucket()
        begin = number << self.shift
        found = [b""] * (end - begin)
        if self._handle is not None and bucket.extents:
            self._handle.flush()
            for extent in bucket.extents:
                block = os.pread(self._handle.fileno(), extent.width, extent.start)
                if len(block) != extent.width:
                    raise OSError(errno.EIO, "the file of the rows that wait for their turn was cut")
                rows = array("q", block[-8 * extent.rows :])
                for row, line in zip(rows, BytesIO(block), strict=False):  # BytesIO yields lines
                    found[row - begin] = line
            self._extents -= len(bucket.extents)
            if not self._extents:
                # Nothing waits on the disk any more.
                self._handle.seek(0)
                self._handle.truncate()
                self._size = 0
        for row, line in zip(bucket.rows, bucket.lines, strict=True):
            found[row - begin] = line
        self.waiting -= bucket.final
        return found[first - begin :]


class Waiting:
    """Lines that wait for one decision, read back in the order they came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: BinaryIO | None = None

    def add(self, line: bytes) -> None:
        """Add a line, newline included."""
        if self._handle is None:
            self._handle = self._path.open("wb", buffering=_BLOCK_BYTES)
        self._handle.write(line)

    def take(self) -> Iterator[bytes]:
        """Yield all lines and forget them."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
            with self._path.open("rb", buffering=_BLOCK_BYTES) as handle:
                yield from handle

    def close(self) -> None:
        """Remove the file."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        self._path.unlink(missing_ok=True)
