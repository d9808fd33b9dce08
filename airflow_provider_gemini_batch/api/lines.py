"""Bytes in pieces of any size to whole lines, without a copy of more than one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the lines that hold anything, without their ends; the last needs none. Long lines cost linear time."""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        begun.append(first)
        if not rest:
            continue
        line = b"".join(begun)
        if line.strip():
            yield line
        begun = [rest.pop()]
        for line in rest:
            if line.strip():
                yield line
    line = b"".join(begun)
    if line.strip():
        yield line
