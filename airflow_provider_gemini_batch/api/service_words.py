"""The service's own words made fit for a log: short, on one line, without rows, credentials or control characters.

The service repeats values of a request in some of its messages, so anybody who shares a project can put text into them.
Texts are cut before they are searched, and every search takes linear time: this runs in a process that many tasks
share.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_READ: Final = 4_000
_LONGEST_MESSAGE: Final = 500
_LONGEST_WORDS: Final = 300
_LONGEST_NAME: Final = 100
_MOST_LINES: Final = 20
_BAD_LINE = re.compile(r"Error on line (\d{1,12}): {0,10}(.*)")
_A_LINE = re.compile(r"\bline\s{1,3}\d{1,12}\b", re.IGNORECASE)
_INVALID_VALUE = re.compile(r"Invalid value at '[^']{0,200}'(?: \([^)]{0,200}\))?(?=, )")
_IDENTIFIER = re.compile(r"[\w.$@/:{}\[\]-]{0,100}\Z")
# From after an opening quotation mark to the closing one, including escaped characters.
_TO_END: Final = {mark: re.compile(rf"[^{mark}\\]*(?:\\.[^{mark}\\]*)*{mark}", re.DOTALL) for mark in "\"'"}
_MARK = re.compile(r"[\"']")
# API keys, old and new, and OAuth tokens, including those of others.
_CREDENTIAL = re.compile(r"\b(?:AIza|AQ\.|ya29\.)[\w.~+/-]{10,}|(?<=\bapi_key:)[^\s'\"]+")
_STATUS = re.compile(r"[A-Z][A-Z0-9_]{0,62}\Z")


def message_words(message: str, secrets: Iterable[str] = ()) -> str:
    """Return the message of a refused call in safe words, with the numbers of the lines that it names.

    :param secrets: texts that must not show, should the service repeat them.
    """
    text = _cut(message, secrets)
    text = _without_values(text)
    bad_lines = _BAD_LINE.findall(text)
    if bad_lines:
        shown = "; ".join(f"line {number}: {_drop_quoted(reason)[:200]}" for number, reason in bad_lines[:_MOST_LINES])
        more = len(bad_lines) - _MOST_LINES
        return shown + (f"; and {more} more lines" if more > 0 else "")
    return _on_one_line(_drop_quoted(text))[:_LONGEST_MESSAGE]


def job_words(message: str) -> str:
    """Return the message of a job's own error, without anything that may repeat a row."""
    text = _without_values(_on_one_line(_cut(message)))
    line = _A_LINE.search(text)
    return _drop_quoted(text if line is None else text[: line.end()])[:_LONGEST_WORDS]


def name_word(value: object) -> str:
    """Return a short name that the service uses, such as a state's; empty if there is none."""
    return _on_one_line(_printable(value[:_LONGEST_NAME])) if isinstance(value, str) else ""


def status_word(value: object) -> str:
    """Return a canonical status or reason, such as ``NOT_FOUND``; empty for anything else."""
    return value if isinstance(value, str) and _STATUS.match(value) else ""


def _cut(text: str, secrets: Iterable[str] = ()) -> str:
    # Remove secrets first: a cut through one would leave its beginning.
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _CREDENTIAL.sub("***", _printable(text[:_MOST_READ]))


def _printable(text: str) -> str:
    """Replace control characters, including invisible ones and those that change the direction of text."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _without_values(text: str) -> str:
    """Drop the value that follows the name of an invalid field."""
    found = _INVALID_VALUE.search(text)
    return text if found is None else text[: found.end()]


def _drop_quoted(text: str) -> str:
    """Keep quoted names of fields and files; drop any other quoted text, which may be from a row."""
    parts: list[str] = []
    at = 0
    for mark in _MARK.finditer(text):
        begin = mark.start()
        if begin < at or (mark[0] == "'" and text[begin - 1 : begin].isalnum()):  # within a text, or an apostrophe
            continue
        parts.append(text[at:begin])
        end = _TO_END[mark[0]].match(text, begin + 1)
        if end is None:  # it was cut off
            return "".join([*parts, "'...'"])
        quoted = end[0][:-1]
        parts.append(f"{mark[0]}{quoted}{mark[0]}" if _IDENTIFIER.match(quoted) else "'...'")
        at = end.end()
    return "".join([*parts, text[at:]])
