"""Readers of arguments: what an author may write for a text, a number, a path or a choice, read into one form.

A reader takes the name of an argument and a value that is not None; it returns the value in its one form or raises
ConfigurationError with the argument's name and the type of what was given, never the value of what may hold rows.
"""

from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from numbers import Number, Real
from pathlib import PurePath
from typing import Any

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.names import in_words
from airflow_provider_gemini_batch.rows.python_rows import is_list, path_text, refuse_rows

Reader = Callable[[str, Any], Any]

# No service and no clock counts that far.
_LARGEST = 1e12
# Seconds: ten years, so that now plus a wait is still a valid date.
_LONGEST = 315_360_000
LIST_AS_TEXT = (
    "a template turns a list into text: give the output of the task itself, or set render_template_as_native_obj=True "
    "in the Dag"
)
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def is_unknown(value: object) -> bool:
    """Return whether a value is known only when the task runs: a template, what a task returns, or what holds that."""
    if isinstance(value, (list, tuple, Mapping)):
        return any(map(_is_unknown, value.values() if isinstance(value, Mapping) else value))
    return _is_unknown(value)


def _is_unknown(value: object) -> bool:
    written = value if isinstance(value, str) else path_text(value)
    return comes_from_a_task(value) if written is None else "{{" in written or "{%" in written


def comes_from_a_task(value: object) -> bool:
    """Return whether a value stands for what another task will return."""
    return not isinstance(value, type) and hasattr(value, "resolve") and hasattr(value, "iter_references")


def rows(name: str, value: Any) -> Any:  # noqa: ARG001  (its errors name the argument themselves)
    """Return rows unchanged; refuse a type that cannot be rows. Nothing is read, and no function is called."""
    refuse_rows(value)
    return value


def required(reader: Reader) -> Reader:
    """Return a reader of names that also refuses an empty text, and None, a list or a dict as a template renders it."""

    def read(name: str, value: Any) -> Any:
        if isinstance(value, str):
            value = value.strip()  # a template over several lines renders with blanks around it
            if value in {"", "None"}:
                raise ConfigurationError(f"{name} is empty; a task or template that should give it has given nothing")
            if value.startswith("['"):
                raise ConfigurationError(f"{name}: {LIST_AS_TEXT}")
            if value.startswith("{'"):
                raise ConfigurationError(
                    f"{name}: a template turns a dict into text: take the member you need, such as "
                    "{{ ti.xcom_pull('...')['job_name'] }}"
                )
        return reader(name, value)

    return read


def text(name: str, value: Any) -> str:
    """Return a text; a number counts as one, since native rendering turns digits into a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise _wrong(name, "must be a text", value)
    return str(value)


def list_of(name: str, value: Any) -> Sequence[Any]:
    """Return a list."""
    if is_list(value):
        return list(value)
    raise _wrong(name, "must be a text, or a list of texts", value)


def instruction(name: str, value: Any) -> Any:
    """Return a system instruction, whose form is checked with those of the rows; a number as a text."""
    if isinstance(value, Mapping) or is_list(value):
        return value
    if isinstance(value, (str, Real, Decimal)):
        return text(name, value)
    raise _wrong(name, "must be a text, or a content as a dict", value)


def schema(name: str, value: Any) -> Any:
    """Return a type for responses; what Gemini cannot take of it is refused when the task runs."""
    if isinstance(value, (str, bytes, Number, Mapping, Sequence)) or hasattr(type(value), "model_dump"):
        raise ConfigurationError(
            f"{name} must be a pydantic model, the class itself, not {type(value).__name__}; a schema of your own goes "
            "into generation_config, as responseSchema"
        )
    return value


def choice(*allowed: str) -> Reader:
    """Return a reader of one of these words."""
    listed = " or ".join(map(repr, allowed))

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong(name, f"must be {listed}", value)
        if value not in allowed:
            raise ConfigurationError(f"{name} must be {listed}, not {in_words(value)}")
        return value

    return read


def flag(name: str, value: Any) -> bool:
    """Return True or False, also given as a text, as a template renders it."""
    if isinstance(value, bool):
        return value
    truth = _TRUTHS.get(str(value).strip().lower()) if isinstance(value, (str, int)) else None
    if truth is None:
        raise _wrong(name, "must be True or False", value)
    return truth


def whole(*, at_least: int | None = 0) -> Reader:
    """Return a reader of whole numbers, also given as a text, as a template renders them."""

    def read(name: str, value: Any) -> int:
        number = _number(name, value, "must be a whole number")
        if number != int(number):
            raise ConfigurationError(f"{name} must be a whole number, not {number:g}")
        if at_least is not None and number < at_least:
            least = f"must be at least {at_least}, not" if at_least else "must not be negative, but it is"
            raise ConfigurationError(f"{name} {least} {number:g}")
        return int(number)

    return read


def seconds(*, above_zero: bool = False) -> Reader:
    """Return a reader of seconds, given as a number or a timedelta."""

    def read(name: str, value: Any) -> float:
        number = (
            value.total_seconds()
            if isinstance(value, timedelta)
            else _number(name, value, "must be a number of seconds or a timedelta")
        )
        if above_zero and number <= 0:
            raise ConfigurationError(f"{name} must be above 0 seconds, not {number:g}")
        if number < 0:
            raise ConfigurationError(f"{name} must not be negative, but it is {number:g}")
        if number > _LONGEST:
            raise ConfigurationError(f"{name} must be at most {_LONGEST} seconds, which are ten years")
        return float(number)

    return read


def rate(name: str, value: Any) -> float:
    """Return a share between 0 and 1."""
    number = float(_number(name, value, "must be a number between 0 and 1"))
    if not 0 <= number <= 1:
        raise ConfigurationError(f"{name} must be between 0 and 1, not {number:g}")
    return number


def usd(name: str, value: Any) -> float:
    """Return an amount of money above zero."""
    number = float(_number(name, value, "must be a number of US dollars"))
    if number <= 0:
        raise ConfigurationError(f"{name} must be above 0 US dollars, not {number:g}")
    return number


def path(name: str, value: Any) -> str:
    """Return the address of a path: a text, ``pathlib.Path``, asset, UPath or ObjectStoragePath with its connection."""
    address = value if isinstance(value, str) else path_text(value)
    if address is None:
        raise _wrong(name, "must be a path: a text, a pathlib.Path or an ObjectStoragePath", value)
    address = address.strip()  # a template over several lines renders with blanks around it
    if address.startswith("['"):
        raise ConfigurationError(f"{name}: {LIST_AS_TEXT}")
    conn_id = getattr(value, "conn_id", None)
    scheme, separator, rest = address.partition("://")
    if not separator:
        return f"file://{address[5:]}" if address[:6].lower() == "file:/" else os.path.expanduser(address)  # noqa: PTH111
    scheme, place = scheme.lower(), rest.partition("/")[0]
    if scheme == "file" and (place.endswith("@") or place == "localhost"):
        return f"file://{rest[len(place) :]}"  # a disk has neither a connection nor a host
    return f"{scheme}://{conn_id}@{rest}" if conn_id and scheme != "file" and "@" not in place else f"{scheme}://{rest}"


def whole_path(name: str, value: Any) -> str:
    """Return the address of a path, which must not be relative: workers start in different folders."""
    address = path(name, value)
    if "://" not in address and address[:1] not in {"/", "~"} and not os.path.isabs(address):  # noqa: PTH117
        raise ConfigurationError(
            f"{name}: {in_words(address)} is relative; give the whole path, since workers start in folders of their own"
        )
    return address


def listed(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the texts of an argument that may be one text or a list of them; empty for None."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def several(reader: Reader) -> Reader:
    """Return a reader of one value, or of a list of them."""

    def read(name: str, value: Any) -> Any:
        return [reader(name, one) for one in value] if is_list(value) else reader(name, value)

    return read


def folder(name: str, value: Any) -> str:
    """Return the address of the folder of a dataset, which ends in a slash."""
    address = whole_path(name, value)
    if not address.endswith("/"):
        raise ConfigurationError(f"{name} of a dataset is a folder: give it as a text with a slash at its end")
    return address


def part_keys(name: str, value: Any) -> tuple[str, ...]:
    """Return the keys of parts, given as what a plan returns."""
    if isinstance(value, Mapping) or not isinstance(value, Sequence):
        raise _wrong(name, "must be what the plan returns", value)
    for one in value:
        if not isinstance(one, Mapping) or not isinstance(one.get("part_key"), str):
            raise ConfigurationError(f"{name} must be what the plan returns: a list of dicts with a part_key")
    return tuple(one["part_key"] for one in value)


def path_list(name: str, value: Any) -> tuple[str, ...]:
    """Return paths as a tuple, given as one or as a list."""
    return listed(several(required(whole_path))(name, value))


def delimiter(name: str, value: Any) -> str:
    """Return the one character between the cells of a CSV."""
    known = {"tab": "\t", "\\t": "\t"}
    if isinstance(value, str):
        value = known.get(value.lower(), value)
    if not isinstance(value, str) or len(value) != 1 or value in '"\r\n':
        raise _wrong(name, "must be one character, such as ';' or '\\t'", value)
    return value


def codec(name: str, value: Any) -> str:
    """Return the name of a text encoding that Python knows."""
    try:
        "".encode(value)  # Python's codecs that are not encodings of texts, such as base64, raise LookupError
        return codecs.lookup(value).name
    except (LookupError, TypeError, ValueError):
        raise _wrong(name, "must be an encoding that Python knows, such as utf-8, utf-16 or cp1252", value) from None


def columns(name: str, value: Any) -> tuple[str, ...]:
    """Return names of columns; one alone may be given as a text."""
    if isinstance(value, str):
        if value.startswith(("['", '["')):
            raise ConfigurationError(f"{name}: {LIST_AS_TEXT}")
        return (value,)
    if not is_list(value):
        raise _wrong(name, "must be a list of column names", value)
    names = tuple(one.value if isinstance(one, Enum) else one for one in value)
    for one in names:
        if not isinstance(one, str):
            raise _wrong(name, "must be a list of column names", one)
    return names


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return a dict, also given as the text of a JSON object, as a template renders a variable or a parameter."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ConfigurationError(f"{name} must be a dict, or the text of a JSON object") from None
    if not isinstance(value, Mapping):
        raise _wrong(name, "must be a dict", value)
    return value


def texts(name: str, value: Any) -> Mapping[str, str]:
    """Return a dict of texts."""
    return {key: text(f"{name}[{key!r}]", one) for key, one in mapping(name, value).items()}


def _number(name: str, value: Any, wanted: str) -> float:
    """Return a finite number, also given as a text."""
    number: Any = value
    if isinstance(value, str):
        try:
            number = float(value.strip())
        except ValueError:
            raise ConfigurationError(f"{name} {wanted}, not {in_words(value)}") from None
    is_number = isinstance(number, (Real, Decimal)) and not isinstance(number, bool)
    if not is_number:
        raise _wrong(name, wanted, value)
    try:
        is_known = math.isfinite(number)
    except TypeError:  # numpy's timedelta64 claims to be a number
        raise _wrong(name, wanted, value) from None
    except OverflowError:
        is_known = True
    if not is_known:
        raise ConfigurationError(f"{name} {wanted}, not {number}")
    if abs(number) > _LARGEST:
        raise ConfigurationError(f"{name} {wanted}, and no larger than {_LARGEST:g}")
    return number  # type: ignore[no-any-return]  # what behaves as a number, numpy's included


def _wrong(name: str, wanted: str, value: object) -> ConfigurationError:
    """Return an error without the value, since a dict may be the output of a task, with prompts or responses in it."""
    hint = ""
    if isinstance(value, PurePath):
        hint = "; for what is in the file, read_text() it"
    elif isinstance(value, Enum):
        hint = "; give its value"
    elif isinstance(value, Mapping):
        member = "output" if name.endswith("_path") else name if name in value else "job_name"
        # Airflow knows a member as an XCom of its own; of ours, only job_name always is one.
        how = "" if member == "job_name" else ", with multiple_outputs=True on that task"
        hint = f'; take the member you need from the output of a task: task.output["{member}"]{how}'
    elif hasattr(value, "task_id") and hasattr(value, "output"):
        hint = '; it is a task: give its output, for the name of a job task.output["job_name"]'
    elif comes_from_a_task(value):
        hint = "; it is known only when the other task has run"
    elif isinstance(getattr(value, "name", None), str):
        hint = "; give its name"
    elif hasattr(value, "model_dump"):
        hint = "; give its model_dump(mode='json', exclude_none=True)"
    elif is_list(value):
        hint = "; for one task each, map the task over the list with .expand()"
    given = in_words(value) if isinstance(value, str) else type(value).__name__
    return ConfigurationError(f"{name} {wanted}, not {given}{hint}")
