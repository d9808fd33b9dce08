"""The key that a row carries on the wire: its number and, behind it, the author's own key.

``r17-order-9`` is row 17 (counted from 0 over all jobs of a task) with the author's key ``order-9``; ``r17`` has none.
An answer thus finds its place without a table of keys in memory, and the letter keeps Vertex from making a number of
it.
"""

from __future__ import annotations

_LONGEST_NUMBER = 18


def wrap_key(row: int, author_key: str | None) -> str:
    """The key to send for a row. A key that is empty counts as none: the input checks refuse it before."""
    return f"r{row}-{author_key}" if author_key else f"r{row}"


def unwrap_key(wire_key: str | None) -> tuple[int | None, str | None]:
    """Row number and author's key; ``(None, key)`` for a key that :func:`wrap_key` did not make."""
    if wire_key is not None and wire_key[:1] == "r":
        number, _, author_key = wire_key[1:].partition("-")
        # Written as wrap_key writes it, or not ours: int() would take more.
        plain = number.isascii() and number.isdecimal() and len(number) <= _LONGEST_NUMBER
        if plain and (number[0] != "0" or number == "0"):
            return int(number), author_key or None
    return None, wire_key


def wrap_key_json(row: int, author_key_json: bytes | None) -> bytes:
    """The same as :func:`wrap_key` for a key that is JSON already."""
    return b'"r%d"' % row if author_key_json is None else b'"r%d-%b' % (row, author_key_json[1:])
