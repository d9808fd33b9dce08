"""The list filter of Vertex: comparisons joined by AND, OR, NOT and parentheses.

Grammar after Google's AIP-160, where OR binds closer than AND; fields and operators after the reference of
``batchPredictionJobs.list``. Both spellings of a field are read.
"""

from __future__ import annotations

import fnmatch
import re
from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.wire import ApiError, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

    Test = Callable[[dict[str, Any]], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<open>\() | (?P<close>\)) | (?P<op><=|>=|!=|=|<|>|:) |
        "(?P<quoted>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)' | (?P<word>[^\s()<>=!:"']+)
    )""",
    re.VERBOSE,
)
_FIELDS = {
    "displayName": ("=", "!=", ":"),
    "modelDisplayName": ("=", "!="),
    "state": ("=", "!="),
    "createTime": ("=", "!=", "<", "<=", ">", ">="),
    "labels": ("=", "!=", ":"),
}
_ORDER = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_SPELLINGS = {"display_name": "displayName", "model_display_name": "modelDisplayName", "create_time": "createTime"}


def _bad(text: str) -> ApiError:
    return ApiError(400, f"Invalid list filter: {text}")


def compile_filter(text: str) -> Test:
    """Return a test of a job's JSON object; ApiError 400 for a filter that cannot be read."""
    if not text.strip():
        return lambda _job: True
    parser = _Parser(text)
    test = parser.sequence()
    if parser.tokens:
        raise _bad(text)
    return test


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        place, text = 0, text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None or match.lastgroup is None:
                raise _bad(text)
            kind = "text" if match.lastgroup in ("quoted", "single") else match.lastgroup
            self.tokens.append((kind, re.sub(r"\\(.)", r"\1", match.group(match.lastgroup))))
            place = match.end()

    def _at(self, kind: str, *values: str) -> bool:
        return bool(self.tokens) and self.tokens[0][0] == kind and (not values or self.tokens[0][1] in values)

    def _take(self, kind: str) -> str:
        if not self._at(kind):
            raise _bad(self.text)
        return self.tokens.pop(0)[1]

    def sequence(self) -> Test:
        tests = [self._either()]
        while self.tokens and not self._at("close"):
            if self._at("word", "AND"):
                self.tokens.pop(0)
            tests.append(self._either())
        return lambda job: all(test(job) for test in tests)

    def _either(self) -> Test:
        tests = [self._one()]
        while self._at("word", "OR"):
            self.tokens.pop(0)
            tests.append(self._one())
        return lambda job: any(test(job) for test in tests)

    def _one(self) -> Test:
        if self._at("word", "NOT"):
            self.tokens.pop(0)
            inner = self._one()
            return lambda job: not inner(job)
        if self._at("open"):
            self.tokens.pop(0)
            inner = self.sequence()
            self._take("close")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        name = self._take("word")
        if name.startswith("-"):
            raise _bad(self.text)
        operator = self._take("op")
        kind = "text" if self._at("text") else "word"
        value = self._take(kind)
        head, _, key = name.partition(".")
        head = _SPELLINGS.get(head, head)
        if operator not in _FIELDS.get(head, ()) or (key != "") != (head == "labels"):
            raise _bad(self.text)
        if head == "createTime":
            return _time_test(operator, value, self.text)
        return _text_test(head, key, operator, value)


def _time_test(operator: str, value: str, text: str) -> Test:
    try:
        moment = parse_time(value)
    except ValueError as error:
        raise _bad(text) from error
    compare = _ORDER[operator]
    return lambda job: compare(parse_time(job["createTime"]), moment)


def _text_test(field: str, key: str, operator: str, value: str) -> Test:
    def read(job: dict[str, Any]) -> str | None:
        if field == "labels":
            found = (job.get("labels") or {}).get(key)
        elif field == "modelDisplayName":
            found = str(job.get("model", "")).rsplit("/", 1)[-1]
        else:
            found = job.get(field)
        return None if found is None else str(found)

    def test(job: dict[str, Any]) -> bool:
        found = read(job)
        if operator == "!=":
            return found != value
        if operator == "=":
            return found == value
        if found is None:
            return False
        pattern = value if "*" in value else f"*{value}*"
        return fnmatch.fnmatchcase(found, pattern.replace("[", "[[]").replace("?", "[?]"))

    return test
