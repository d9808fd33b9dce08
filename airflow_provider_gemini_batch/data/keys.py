"""The key that a row carries on the wire: its number and, behind it, the author's own key.

``r17-order-9`` is row 17 (counted from 0 over all jobs of a task) with the author's key ``order-9``; ``r17`` has none.
An answer thus finds its place without a table of keys in memory, and the letter keeps Vertex from making a number of
it.
"""

from __future__ import annotations

import re

_WIRE_KEY = re.compile(r"r(0|[1-9][0-9]{0,17})(?:-(.*))?", re.DOTALL)


def wrap_key(row: int, author_key: str | None) -> str:
    """The key to send for a row. A key that is empty counts as none: the input checks refuse it before."""
    return f"r{row}-{author_key}" if author_key else f"r{row}"


def unwrap_key(wire_key: str | None) -> tuple[int | None, str | None]:
    """Row number and author's key; ``(None, key)`` for a key that :func:`wrap_key` did not make."""
    found = _WIRE_KEY.fullmatch(wire_key) if wire_key is not None else None
    if found is None:
        return None, wire_key
    return int(found[1]), found[2] or None
