"""Prompt templates: ``{column}`` is replaced by the row's value; a likely mistake is refused, never sent.

=====================================  ===========================================================================
in the template                        becomes
=====================================  ===========================================================================
``{column}``                           the value of that column, letter for letter as the input spells it
``{{`` and ``}}``                      one literal brace each
``{"a": {"b": 1}}``, ``{"a": {x}}``    JSON stays as it is, with columns filled in
anything else in braces                refused: ``{price:.2f}``, ``{ price }``, ``{Price}``, ``{}``, ``{0}``, ``{a.b}``
=====================================  ===========================================================================
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.names import a_few
from airflow_provider_gemini_batch.api.requests.fields import HAVE_TEXTS, check_json, kind_of, shown
from airflow_provider_gemini_batch.api.wire import what_json_lacks
from airflow_provider_gemini_batch.rows.python_rows import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BRACES = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
# A name in double braces with blanks around it, or one that only Airflow has, is Jinja, which these templates are not.
# After another brace, it is an escaped pair.
_JINJA = re.compile(
    r"""(?<!\{) (?:
        \{\{-? \s+ [\w.\[\]'"]+ (?:\s*\|[^{}]*)? \s+ -?\}\}
      | \{\{-? \s* (?:data_interval_(?:start|end)|[dt]s(?:_nodash)?|logical_date|run_id)\b [^{}:]* \}\}
      | \{\{-? \s* (?:conn|dag|dag_run|macros|params|task|task_instance|ti|var)[.\[] [^{}:]* \}\}
      | \{%
    )""",
    re.VERBOSE,
)
_LITERAL_BRACES = "for braces that are meant write {{ and }}"


class Template:
    """A prompt with places for columns; see the table above.

    :raises ConfigurationError: a brace has no partner, or the template is Jinja's.
    """

    def __init__(self, template: str) -> None:
        if _JINJA.search(template):
            raise ConfigurationError(
                "prompt_template is not rendered by Jinja: write {column} for a value of the row; " + _LITERAL_BRACES
            )
        #: Literal texts and names of columns, in turn.
        self._pieces: list[str] = [""]
        self._escaped: list[str] = re.findall(r"\{\{([^{}]*)\}\}", template)
        self._split(template)

    @property
    def has_places(self) -> bool:
        """Whether the template names any column."""
        return len(self._pieces) > 1

    @property
    def columns(self) -> list[str]:
        """The columns that the template names."""
        return self._pieces[1::2]

    def _split(self, template: str) -> None:
        opened: list[str] = []  # braces that wait for their partner, of JSON or doubled
        position = 0
        for found in _BRACES.finditer(template):
            self._pieces[-1] += template[position : found.start()]
            position = found.end()
            brace = found[0]
            if brace == "{{":
                opened.append(brace)
                self._pieces[-1] += "{"
            elif brace == "}}" and opened[-2:] != ["{", "{"] and opened[-1:] != ["{"]:
                del opened[-1:]
                self._pieces[-1] += "}"
            elif brace == "{" and _opens_json(template, found.end()):
                opened.append(brace)
                self._pieces[-1] += brace
            elif set(brace) == {"}"} and opened[-len(brace) :] == ["{"] * len(brace):
                del opened[-len(brace) :]
                self._pieces[-1] += brace
            elif brace in {"{", "}", "}}"}:
                raise self._unpaired_brace(brace[0], template, found.start())
            elif _opens_json(brace, 1) or (opened and not brace[1:-1].strip()):
                self._pieces[-1] += brace
            else:
                self._pieces += [brace[1:-1], ""]
        self._pieces[-1] += template[position:]
        if "{" in opened:
            raise self._unpaired_brace("{", template, len(template))

    @staticmethod
    def _unpaired_brace(brace: str, template: str, position: int) -> ConfigurationError:
        line = template.count("\n", 0, position) + 1
        return ConfigurationError(f"prompt_template, line {line}: a '{brace}' has no partner; {_LITERAL_BRACES}")

    def check(self, columns: Sequence[str]) -> None:
        """Raise InputError when a place names no column, or when all columns are in double braces."""
        for name in self._pieces[1::2]:
            if name not in columns:
                raise InputError(no_column("prompt_template", name, columns))
        if not self.has_places and (meant := next((name for name in self._escaped if name in columns), None)):
            name = shown(meant)
            raise InputError(
                f"prompt_template: {{{{{name}}}}} stands for {{{name}}} itself; write {{{name}}} for the column's value"
            )

    def fill(self, row: Mapping[str, Any]) -> str:
        """Return the prompt of one row. Raises InputError when the row lacks a column or nothing was filled in."""
        pieces = self._pieces
        if len(pieces) == 1:
            return pieces[0]
        filled = []
        empty = True
        for index, piece in enumerate(pieces):
            if index % 2 == 0:
                filled.append(piece)
            elif piece in row:
                value = as_text(row[piece])
                empty = empty and not value.strip()
                filled.append(value)
            else:
                raise InputError(no_column("prompt_template", piece, list(row)))
        if empty:
            raise InputError("every column of prompt_template is empty")
        return "".join(filled)


def as_text(value: Any) -> str:
    """Return a value as text for a prompt; a missing value (None, NaN, NaT) becomes empty text.

    :raises InputError: the text would be meaningless in a prompt, or would differ from process to process.
    """
    if isinstance(value, str):
        return value
    value = plain(value)
    if value is None:
        return ""
    if type(value) is float or type(value) is int:
        return str(value)
    if isinstance(value, (bool, list, dict)):
        check_json(value, "a column holds")
        try:
            # Older versions of pydantic-core do not know the addresses of ipaddress.
            return to_json(value, inf_nan_mode="null", fallback=str).decode()
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"a column cannot be written as JSON: it holds {what_json_lacks(error)}") from None
    if isinstance(value, HAVE_TEXTS):
        return str(value)
    raise InputError(f"a column holds {kind_of(value)}, which cannot stand in a prompt: give a text")


def list_names(columns: Sequence[object]) -> str:
    """Return the first twenty column names for a message; names with blanks at an end are put in quotes."""
    names = map(shown, columns)
    return a_few([repr(name) if name != name.strip() else name for name in names], 20) or "none"


def no_column(argument: str, name: str, columns: Sequence[str]) -> str:
    """Return the message for an argument that names a missing column, with the column that may be meant."""
    texts = [column for column in columns if isinstance(column, str)]
    bare = re.split(r"[:!.\[]", name.strip(), maxsplit=1)[0].strip()
    if bare and bare != name and bare in texts:
        return (
            f"{argument}: {{{shown(name)}}} is not a column, '{shown(bare)}' is: write {{{shown(bare)}}}; formats, "
            f"blanks and members of a value are not supported ({_LITERAL_BRACES})"
        )
    if not name.strip() or name.strip().isdigit():
        return f"{argument}: {{{shown(name)}}} names no column; there are {list_names(columns)} ({_LITERAL_BRACES})"
    folded = {column.strip().casefold(): column for column in texts}
    close = folded.get(bare.casefold()) or next(iter(difflib.get_close_matches(name, texts, n=1, cutoff=0.8)), None)
    meant = f"; is '{shown(close)}' meant?" if close else ""
    return f"{argument}: there is no column '{shown(name)}'; there are {list_names(columns)}{meant}"


def _opens_json(template: str, position: int) -> bool:
    """Return whether an opening brace is followed by a member of a JSON object."""
    return template[position:].lstrip()[:1] == '"'
