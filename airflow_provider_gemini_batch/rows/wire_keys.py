"""The key that is sent for a row: its number, followed by the author's own key.

``r17-order-9`` is row 17 (counted from 0 over all jobs of a task) with the author's key ``order-9``; ``r17`` has none.
So a response leads to its row without a table of keys in memory, and the letter keeps Vertex AI from turning the key
into a number.
"""

from __future__ import annotations

import re

_WRAPPED = re.compile(r"r(0|[1-9][0-9]{0,17})(?:-(.*))?", re.DOTALL).fullmatch


def wrap_key(row: int, author_key: str | None) -> str:
    """Return the key to send for a row. An empty key counts as none: the checks of the input refuse it earlier."""
    return f"r{row}-{author_key}" if author_key else f"r{row}"


def unwrap_key(wire_key: str | None) -> tuple[int | None, str | None]:
    """Return row number and author's key; ``(None, key)`` for a key that :func:`wrap_key` did not make."""
    found = None if wire_key is None else _WRAPPED(wire_key)
    return (None, wire_key) if found is None else (int(found[1]), found[2] or None)


def wrap_key_json(row: int, author_key_json: bytes | None) -> bytes:
    """Return :func:`wrap_key`'s result as JSON, for a key that is JSON already."""
    return b'"r%d"' % row if author_key_json is None else b'"r%d-%b' % (row, author_key_json[1:])
