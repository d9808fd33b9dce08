"""Bytes in pieces of any size to whole lines, without a copy of more than one line."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LINE_END = 10


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the lines that hold anything, their ends with them; the last needs none. Long lines cost linear time."""
    begun: list[bytes] = []
    for chunk in chunks:
        for line in BytesIO(chunk):
            if line[-1] != _LINE_END:
                begun.append(line)
            elif begun:
                begun.append(line)
                whole = b"".join(begun)
                begun.clear()
                if not whole.isspace():
                    yield whole
            elif not line.isspace():
                yield line
    last = b"".join(begun)
    if last.strip():
        yield last
