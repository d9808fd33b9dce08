"""From a row of the input to its key, its request and the columns to carry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.requests.fields import MEMBERS, check_json, kind_of, shown
from airflow_provider_gemini_batch.api.requests.request import BatchRequest, RequestDefaults, normalise, row_key
from airflow_provider_gemini_batch.api.wire import what_json_lacks
from airflow_provider_gemini_batch.rows.prompt import Template, as_text, list_names, no_column
from airflow_provider_gemini_batch.rows.python_rows import plain

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.rows.input_spec import Attachment, InputSpec

_TEXT_COLUMNS = ("text", "prompt")


class Shaped(NamedTuple):
    """One row ready to be written: the request is in REST form, without its attachments."""

    key: str | None
    request: Mapping[str, Any]
    attachments: tuple[Attachment, ...] = ()


class Shaper:
    """Turns rows into requests as the spec says."""

    def __init__(
        self, spec: InputSpec, defaults: RequestDefaults, columns: Sequence[str] | None, warnings: set[str]
    ) -> None:
        self._spec = spec
        self._normalise = partial(normalise, kind=spec.kind, defaults=defaults, warnings=warnings)
        self._template = None if spec.prompt_template is None else Template(spec.prompt_template)
        self._helpers = frozenset(name for _, name in named_columns(spec))
        self._own = self._helpers - MEMBERS[spec.kind] - {"text", "request", "contents", "content"}
        self._text_column = None
        if columns is not None:
            check_columns(named_columns(spec), columns)
            if self._template is None:
                self._text_column = text_of_columns(columns)
            else:
                self._template.check(columns)
        if self._template is not None and not self._template.has_places and spec.media_field is None:
            raise ConfigurationError(
                "prompt_template names no column, so every row would send the same prompt: write {column} where a "
                "value of the row belongs"
            )
        self.plain = not self._helpers and self._template is None and columns is None
        """True when a row is only a request, so that its JSON may be sent unchanged."""

    def shape(self, value: Any) -> Shaped:
        """Return the key, the request and the attachments of a row. Raises InputError."""
        if self.plain:
            return Shaped(*self._normalise(value))
        if isinstance(value, BatchRequest):
            value = value.members()
        if not isinstance(value, Mapping):
            if self._helpers or self._template is not None:
                instead = ": give a dict that names the columns" if isinstance(value, (list, tuple)) else ""
                raise InputError(f"the row must be an object with columns, not {kind_of(value)}{instead}")
            return Shaped(*self._normalise(value))
        key, request = self._normalise(self._request_row(value))
        if self._spec.key_field is not None:
            key = _key_of(_column(value, self._spec.key_field, "key_field"))
        return Shaped(key, request, self._attachments(value))

    def _request_row(self, row: Mapping[str, Any]) -> Any:
        if self._template is not None:
            made: dict[str, Any] = {"text": self._template.fill(row)}
        elif self._text_column is not None:
            made = {"text": as_text(row[self._text_column])}
        else:
            made = {name: value for name, value in row.items() if name not in self._own}
        if self._spec.title_field is not None:
            title = as_text(_column(row, self._spec.title_field, "title_field"))
            if title:
                made = (
                    {**made, "title": title}
                    if "request" not in made
                    else made | {"request": {**made["request"], "title": title}}
                )
        return made

    def _attachments(self, row: Mapping[str, Any]) -> tuple[Attachment, ...]:
        if self._spec.media_field is None or self._spec.attach is None:
            return ()
        found = plain(row.get(self._spec.media_field))
        if found is None or found == "":
            return ()
        paths = found if type(found) is list else [found]
        if not all(isinstance(path, str) and path for path in paths):
            raise InputError(f"media_field: '{shown(self._spec.media_field)}' must hold a path or a list of paths")
        return tuple(self._spec.attach(path) for path in paths)


def carried_line(row: Any, carry: Sequence[str]) -> bytes:
    """Return the carried columns of a row as one line of JSON; a column that the row lacks is null."""
    if isinstance(row, BatchRequest):
        row = row.members()
    columns = row if isinstance(row, Mapping) else {}
    carried = {name: plain(columns.get(name)) for name in carry}
    for name, value in carried.items():
        if not isinstance(value, str) and not (isinstance(value, bytes) and _is_utf8(value)):
            check_json(value, f"carry: the column '{shown(name)}' holds")
    try:
        # Older versions of pydantic-core do not know the addresses of ipaddress.
        return to_json(carried, inf_nan_mode="strings", fallback=str) + b"\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"carry: a column cannot be written as JSON: it holds {what_json_lacks(error)}") from None


def _is_utf8(value: bytes) -> bool:
    """Return whether these are a text; Parquet of some writers has texts as bytes."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _key_of(value: Any) -> str:
    """Return a column's value as a key; frames and databases use more types for keys than JSON has."""
    value = plain(value)
    # pandas turns whole numbers into floats when one is missing; databases have decimals.
    is_whole = isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value)
    return row_key(int(value) if is_whole else value)


class ColumnTypes:
    """Finds one type for each carried column: ``bool``, ``int``, ``float``, ``str``, or ``json`` where they differ."""

    def __init__(self, names: Sequence[str]) -> None:
        self._types: dict[str, str | None] = dict.fromkeys(names)
        self._unmet = set(names)

    def add(self, row: Any) -> None:
        """Note the types of one row's values."""
        columns = row.members() if isinstance(row, BatchRequest) else row
        if not isinstance(columns, Mapping):
            return
        for name, before in self._types.items():
            if name in columns:
                self._unmet.discard(name)
                value = columns[name]
                now = before if value is None else _type_word(value)
                if before is None:
                    self._types[name] = now
                elif now != before:
                    self._types[name] = "float" if {before, now} == {"int", "float"} else "json"

    def unmet(self) -> list[str]:
        """Columns that no row had."""
        return sorted(self._unmet)

    def found(self) -> dict[str, str]:
        """The type of every column; one that was null throughout is text."""
        return {name: form or "str" for name, form in self._types.items()}


def _type_word(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return "int" if -(2**63) <= value < 2**63 else "json"
    known = {str: "str", bool: "bool", float: "float", dict: "json", list: "json", tuple: "json"}
    if kind not in known and (made := plain(value)) is not value:
        return "str" if made is None else _type_word(made)
    # Dates, decimals and the like are written as JSON strings; other numbers stay numbers.
    return known.get(kind) or ("json" if isinstance(value, (int, float, Mapping, Sequence)) else "str")


def with_attachments(request: Mapping[str, Any], attachments: Sequence[Attachment]) -> Mapping[str, Any]:
    """Return a request with the files before the first content's other parts, as the service's guide recommends."""
    if not attachments:
        return request
    files = [dict(attachment.part) for attachment in attachments]
    if "content" in request:  # of an embedding
        return {**request, "content": {**request["content"], "parts": [*files, *request["content"]["parts"]]}}
    first, *rest = request["contents"]
    return {**request, "contents": [{**first, "parts": [*files, *first["parts"]]}, *rest]}


def check_columns(named: Sequence[tuple[str, str]], columns: Sequence[str]) -> None:
    """Raise InputError if an argument names a missing column."""
    for argument, name in named:
        if name not in columns:
            raise InputError(no_column(argument, name, columns))


def named_columns(spec: InputSpec) -> list[tuple[str, str]]:
    """Return pairs of an argument and a column that it names."""
    named = [("key_field", spec.key_field), ("title_field", spec.title_field), ("media_field", spec.media_field)]
    return [(argument, name) for argument, name in named if name is not None] + [("carry", name) for name in spec.carry]


def needed_columns(spec: InputSpec, columns: Sequence[str]) -> set[str]:
    """Return the columns of a table that its rows are made of. Raises ConfigurationError."""
    texts = [text_of_columns(columns)] if spec.prompt_template is None else Template(spec.prompt_template).columns
    return {*texts, *(name for _, name in named_columns(spec))}


def text_of_columns(columns: Sequence[str]) -> str:
    """Return the column that holds the prompt when there is no template. Raises ConfigurationError."""
    if len(columns) == 1:
        return columns[0]
    for name in _TEXT_COLUMNS:
        if name in columns:
            return name
    raise ConfigurationError(
        f"say with prompt_template what to make of the columns {list_names(columns)}, or call one of them 'text'"
    )


def _column(row: Mapping[str, Any], name: str, argument: str) -> Any:
    if name not in row:
        raise InputError(no_column(argument, name, list(row)))
    return row[name]
