"""Names for the types of carried columns, the same in a plan, in a manifest and in Parquet.

``bool``, ``int``, ``float``, ``str``, ``json`` (JSON as text), ``date``, ``timestamp``, ``timestamp_utc`` (both in
microseconds) and ``decimal(precision,scale)``. Between input and output, values are kept as JSON: dates, times and
decimals as texts.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIMPLE = ("bool", "int", "float", "str", "json", "date", "timestamp", "timestamp_utc")
_UNREADABLE = (OverflowError, ValueError, LookupError)
_DECIMAL = re.compile(r"decimal\(([1-9][0-9]?),\s?([0-9]{1,2})\)")


def check_word(word: Any) -> str:
    """Return the name of a type unchanged. Raises ConfigurationError for an unknown name."""
    if isinstance(word, str) and (word in _SIMPLE or _DECIMAL.fullmatch(word)):
        return word
    raise ConfigurationError(
        f"carry_types: unknown type {str(word)[:40]!r}; known are {', '.join(_SIMPLE)} and decimal(precision,scale)"
    )


def word_of(kind: Any) -> str:
    """Return the name for an Arrow type; a type without a name of its own becomes ``str`` or ``json``."""
    from pyarrow import types

    if types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if types.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "timestamp_utc"
    for is_it, word in (
        (types.is_boolean, "bool"),
        (types.is_integer, "int"),
        (types.is_floating, "float"),
        (types.is_date, "date"),
        (types.is_nested, "json"),
    ):
        if is_it(kind):
            return word
    return "str"


def records_of(batch: Any) -> list[dict[str, Any]]:
    """Return the records of an Arrow batch. Nanoseconds, for which Python has no type, become microseconds.

    :raises InputError: Python has no type for a value either; names the column.
    """
    import pyarrow as pa

    wanted = pa.schema([(one.name, _in_microseconds(one.type)) for one in batch.schema])
    if wanted.types != batch.schema.types:
        batch = pa.Table.from_batches([batch]).cast(wanted, safe=False)
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except _UNREADABLE:
        raise InputError(_fault_of_column(batch)) from None
    return found


def _fault_of_column(batch: Any) -> str:
    for name in batch.schema.names:
        try:
            batch.column(name).to_pylist()
        except UnicodeDecodeError:  # noqa: PERF203  a column, not a row
            return f"the column {name!r} holds bytes that are not UTF-8, and says that it is a text: write it as UTF-8"
        except _UNREADABLE:
            return (
                f"the column {name!r} holds a date or time before the year 1 or after 9999, a time zone that this "
                "machine does not know, or a struct with two members of one name: replace it by a null, or make the "
                "column a text"
            )
    return "a column has no form in Python"


def _in_microseconds(kind: Any) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if getattr(kind, "unit", None) == "ns":
        plain = pa.time64("us") if types.is_time64(kind) else pa.duration("us")
        return pa.timestamp("us", kind.tz) if types.is_timestamp(kind) else plain
    if types.is_struct(kind):
        return pa.struct([(one.name, _in_microseconds(one.type)) for one in kind])
    if types.is_map(kind):
        return pa.map_(_in_microseconds(kind.key_type), _in_microseconds(kind.item_type))
    if types.is_dictionary(kind) and not types.is_nested(kind.value_type):
        inner = _in_microseconds(kind.value_type)
        return kind if inner == kind.value_type else inner
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        size = kind.list_size if types.is_fixed_size_list(kind) else -1
        return pa.list_(_in_microseconds(kind.value_type), size)
    return pa.large_list(_in_microseconds(kind.value_type)) if types.is_large_list(kind) else kind


def arrow_type(word: str) -> Any:
    """Return the Arrow type for a name."""
    import pyarrow as pa

    if found := _DECIMAL.fullmatch(word):
        precision, scale = int(found[1]), int(found[2])
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)  # noqa: PLR2004
    made = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamp_utc": pa.timestamp("us", tz="UTC"),
    }
    return made.get(word, pa.string())


def reader_of(word: str) -> Callable[[Any], Any] | None:
    """Return a function that converts a value from JSON, or from a CSV cell, to this type; None for JSON.

    For a value that does not fit, the function returns a text that no type takes, and the writer reports it. An empty
    text, which a CSV has for a missing value, is null for types other than texts.
    """
    if word == "str":
        return _text
    convert = _decimal if _DECIMAL.fullmatch(word) else _CONVERTERS.get(word)
    if convert is None:
        return None

    def read(value: Any) -> Any:
        if value is None or value == "":
            return None
        try:
            return convert(value)
        except (ValueError, TypeError, ArithmeticError):
            # Arrow would take some of these: 1.5 as the whole number 1, and 5 as a day in January 1970.
            return "misfit"

    return read


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else to_json(value, inf_nan_mode="null").decode()


def _number(value: Any) -> Any:
    """Return a number, or the digits of one. Python would also read ``12_34``, which is a name."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    found = int(_number(value))
    if isinstance(value, float) and found != value:
        raise ValueError
    return found


def _truth(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _naive(value: Any) -> datetime:
    return _moment(value).replace(tzinfo=None)


def _utc(value: Any) -> datetime:
    found = _moment(value)
    return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(_iso(value).replace("Z", "+00:00"))  # Python 3.10 cannot parse a trailing Z


def _iso(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _decimal(value: Any) -> Decimal:
    return Decimal(str(_number(value)))


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "bool": _truth,
    "int": _whole,
    "float": lambda value: float(_number(value)),
    "date": lambda value: date.fromisoformat(_iso(value)[:10]),
    "timestamp": _naive,
    "timestamp_utc": _utc,
}
