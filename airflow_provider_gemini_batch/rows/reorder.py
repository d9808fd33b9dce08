"""A file for rows that came too early: put in at any order, taken out in the order of their numbers.

Rows are gathered in buckets of neighbours; a bucket that has filled its buffer is appended to the file as one extent.
In the end each bucket is read whole, so that neither writing nor reading costs a system call a row. Memory holds the
buffers (at most 8 MiB), one bucket (the file's size by 512) twice, and twelve bytes a row.
"""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUCKETS_LOG2 = 9
_EXTENT_BYTES = 16 << 10
_PIECE_ROWS = 128
_BLOCK_BYTES = 1 << 20


class Spill:
    """Lines by row number. A line that is put in again replaces the one before."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._rows = rows
        self._handle: BinaryIO | None = None
        self._size = 0
        self._shift = max(0, rows.bit_length() - _BUCKETS_LOG2)
        buckets = (rows >> self._shift) + 1
        self._held = [bytearray() for _ in range(buckets)]
        self._written = [0] * buckets
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(buckets)]
        self._starts = array("q", bytes(8 * rows))
        self._widths = array("i", bytes(4 * rows))

    def add(self, row: int, line: bytes) -> None:
        """Put in the line of a row."""
        bucket = row >> self._shift
        held = self._held[bucket]
        self._starts[row] = self._written[bucket] + len(held)
        self._widths[row] = len(line)
        held += line
        if len(held) >= _EXTENT_BYTES:
            self._write(bucket)

    def pieces(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        """All rows from ``first`` on as ``(row, next row, bytes)``; empty bytes for a row that was never put in."""
        for bucket in range(first >> self._shift, len(self._held)):
            begin = max(first, bucket << self._shift)
            end = min(self._rows, (bucket + 1) << self._shift)
            block = self._read(bucket)
            for row in range(begin, end, _PIECE_ROWS):
                last = min(end, row + _PIECE_ROWS)
                places = zip(self._starts[row:last], self._widths[row:last], strict=True)
                lines = [block[start : start + width] for start, width in places]
                if all(lines):
                    yield row, last, b"".join(lines)
                else:
                    yield from ((row + index, row + index + 1, line) for index, line in enumerate(lines))

    def close(self) -> None:
        """Remove the file."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
            self._path.unlink(missing_ok=True)

    def _write(self, bucket: int) -> None:
        if self._handle is None:
            self._handle = self._path.open("w+b", buffering=0)
        held = self._held[bucket]
        width = len(held)
        if self._handle.write(held) != width:
            raise OSError(errno.ENOSPC, "no room for the rows that wait for their turn")
        self._extents[bucket].append((self._size, width))
        self._size += width
        self._written[bucket] += width
        held.clear()

    def _read(self, bucket: int) -> bytes:
        found: list[bytes | bytearray] = []
        if self._handle is not None:
            number = self._handle.fileno()
            found += [os.pread(number, width, start) for start, width in self._extents[bucket]]
        found.append(self._held[bucket])
        self._held[bucket] = bytearray()
        return b"".join(found)


class Waiting:
    """Lines that wait for one decision, read back in the order they came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: BinaryIO | None = None

    def add(self, line: bytes) -> None:
        """Put in a line, newline included."""
        if self._handle is None:
            self._handle = self._path.open("wb", buffering=_BLOCK_BYTES)
        self._handle.write(line)

    def take(self) -> Iterator[bytes]:
        """All lines; what is put in afterwards begins anew."""
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
