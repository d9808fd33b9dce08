"""A file for rows that arrive too early: added in any order, taken out in the order of their numbers.

Rows are gathered in buckets of neighbours; a bucket that has filled its buffer is appended to the file as one extent,
and each bucket is read back as a whole, so that neither writing nor reading costs a system call per row. Memory holds
the buffers (at most 8 MiB) and one bucket (a 512th of the file), and nothing else of a row.
"""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUCKETS_LOG2 = 9
_EXTENT_BYTES = 16 << 10
_PIECE_ROWS = 128
_BLOCK_BYTES = 1 << 20


class _Extent(NamedTuple):
    """A piece of the file: the numbers and lengths of some lines, eight bytes each, then the lines."""

    start: int
    rows: int
    width: int


class _Bucket:
    """Neighbouring rows: ``lines`` by row, older ones in ``extents``; ``final`` counts the final ones."""

    __slots__ = ("extents", "final", "lines", "width")

    def __init__(self) -> None:
        self.lines: dict[int, bytes] = {}
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

    def add(self, row: int, line: bytes, is_final: bool = False) -> None:  # noqa: FBT001, FBT002  (for each row)
        """Add the line of a row. ``is_final``: no other line can replace it; pass it at most once for each row."""
        bucket = self._buckets[row >> self.shift]
        bucket.lines[row] = line
        bucket.width += len(line)
        bucket.final += is_final
        self.waiting += is_final
        if bucket.width >= _EXTENT_BYTES:
            self._write(bucket)

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
            self._handle.close()
            self._handle = None
            self._path.unlink(missing_ok=True)

    def _write(self, bucket: _Bucket) -> None:
        if self._handle is None:
            self._handle = self._path.open("w+b", buffering=0)
        head = array("q", bucket.lines)
        head.extend(map(len, bucket.lines.values()))
        block = b"".join((head.tobytes(), *bucket.lines.values()))
        if os.pwrite(self._handle.fileno(), block, self._size) != len(block):
            raise OSError(errno.ENOSPC, "no room for the rows that wait for their turn")
        bucket.extents.append(_Extent(self._size, len(bucket.lines), len(block)))
        self._extents += 1
        self._size += len(block)
        bucket.lines.clear()
        bucket.width = 0

    def _read(self, number: int, first: int, end: int) -> list[bytes]:
        """Return the lines of a bucket from ``first`` on, and forget it."""
        bucket, self._buckets[number] = self._buckets[number], _Bucket()
        found = [b""] * (end - first)
        for extent in bucket.extents:
            assert self._handle is not None  # noqa: S101  (an extent is in it)
            block = os.pread(self._handle.fileno(), extent.width, extent.start)
            if len(block) != extent.width:
                raise OSError(errno.EIO, "the file of the rows that wait for their turn was cut")
            place = 16 * extent.rows
            head = array("q", block[:place])
            for row, width in zip(head[: extent.rows], head[extent.rows :], strict=True):
                if row >= first:
                    found[row - first] = block[place : place + width]
                place += width
        for row, line in bucket.lines.items():
            if row >= first:
                found[row - first] = line
        self.waiting -= bucket.final
        self._extents -= len(bucket.extents)
        if bucket.extents and not self._extents and self._handle is not None:
            # Nothing waits on the disk any more.
            self._handle.truncate(0)
            self._size = 0
        return found


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
