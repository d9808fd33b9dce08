"""Rows of Vertex jobs: the import with its traps, and the answered lines.

Import traps (the job fails with code 3): a line that is not a JSON object, no ``request`` in it, nesting deeper than
15, member names that begin with ``$`` or hold a space, empty objects, null for ``contents``, ``parts`` or ``text``,
a member that is a list in one line and a scalar in another.
Row traps: contents without a role fail the row, a value beside ``request`` that is a string of digits becomes a
number, and the order is lost.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator import schema
from airflow_provider_gemini_batch.emulator.answers import digest_of, embedding_of, gist_of
from airflow_provider_gemini_batch.emulator.row_checks import RowCheck
from airflow_provider_gemini_batch.emulator.rows import AnswerPlan, Tally, dump_line
from airflow_provider_gemini_batch.emulator.wire import STATUS_NAMES, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_DEPTH = 15
_REQUIRED = frozenset({"contents", "content", "parts", "text"})
_HTTP_OF_GRPC = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 13: 500, 14: 503, 16: 401}
_DIGITS = re.compile(r"\d{1,18}")
_LEGACY = re.compile(r"(text-embedding-\d|text-multilingual-embedding|textembedding-gecko)")
LEGACY_DIMENSIONS = 768


#: Stands before a line that an earlier job has answered.
DONE = b"\x01"
#: What a job adds to a row.
_ADDED = frozenset({"status", "response", "processed_time", "error", "predictions"})
#: What a line of answers says of its own.
_WRITTEN = frozenset({"request", "status", "response", "processed_time"})


class ImportTrap(Exception):
    """The input cannot be imported: line number and reason."""


def is_legacy(model: str) -> bool:
    """Return whether a model takes the older embedding lines ``{"content": ...}``."""
    return _LEGACY.search(model) is not None


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines of a stream of bytes."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


class Importer:
    """Checks rows as the service's table import does; one object sees all rows of a job.

    :param legacy: whether rows are those of the older embedding models.
    :param from_table: whether rows come from a table, which has types already.
    """

    def __init__(self, *, legacy: bool, from_table: bool = False) -> None:
        self.from_table = from_table
        self._legacy = legacy
        self._kinds: dict[str, str] = {}
        #: How many rows there are, and how many of them an earlier job has answered.
        self.rows = 0
        self.done = 0
        #: Types of the table's columns; names that stand beside ``request`` in lines.
        self.columns: dict[str, str] = {}
        self.beside: set[str] = set()

    def take(self, lines: Iterable[bytes], *, resumes: bool = False) -> Iterator[bytes]:
        """Yield the lines that hold rows; raises ImportTrap.

        :param resumes: whether the lines are an earlier job's output. Rows that it answered come marked with ``DONE``,
            the others as they were before.
        """
        for line in lines:
            if not line.strip():
                continue
            self.rows += 1
            row = self._read(line)
            if resumes and is_answered(row, legacy=self._legacy):
                self.done += 1
                yield DONE + line
                continue
            if resumes:
                row = _as_it_was(row)
            self._check(row)
            yield dump_line(row)[:-1] if resumes else line

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            row = decode(line.decode())
        except (ValueError, RecursionError) as error:
            raise ImportTrap(f"row {self.rows} is not valid JSON") from error
        if not isinstance(row, dict):
            raise ImportTrap(f"row {self.rows} is not a JSON object")
        return row

    def _check(self, row: dict[str, Any]) -> None:
        wanted = "content" if self._legacy else "request"
        if wanted not in row:
            raise ImportTrap(f"row {self.rows} has no {wanted}")
        self.beside.update(row.keys() - {"request"})
        if not self.from_table:
            self._walk(row, "", 1)

    def _walk(self, value: Any, path: str, depth: int) -> None:
        if isinstance(value, dict):
            if depth > MAX_DEPTH:
                raise ImportTrap(f"row {self.rows} is nested deeper than {MAX_DEPTH}")
            if not value:
                raise ImportTrap(
                    f"row {self.rows}: Cannot store struct '{path.lstrip('.').replace('[]', '')}' with no fields"
                )
            for name, item in value.items():
                if name.startswith("$") or " " in name or not name:
                    raise ImportTrap(f"row {self.rows} has a member that cannot be a column: {name!r}")
                if item is None and name in _REQUIRED:
                    raise ImportTrap(f"row {self.rows} has null for {name}")
                self._kind(item, f"{path}.{name}")
                self._walk(item, f"{path}.{name}", depth + 1)
        elif isinstance(value, list):
            for item in value:
                self._walk(item, path + "[]", depth + 1)

    def _kind(self, value: Any, path: str) -> None:
        if value is None:
            return
        kind = "list" if isinstance(value, list) else "object" if isinstance(value, dict) else "scalar"
        if self._kinds.setdefault(path, kind) != kind:
            raise ImportTrap(f"row {self.rows} has a {kind} at {path}, another row a {self._kinds[path]}")


def is_answered(row: dict[str, Any], *, legacy: bool) -> bool:
    """Return whether a row of an output has an answer."""
    if row.get("status") or row.get("error"):
        return False
    return bool(row.get("predictions" if legacy else "response"))


def _as_it_was(row: dict[str, Any]) -> dict[str, Any]:
    """Return the input row that an unanswered row of an output was made of."""
    if isinstance(row.get("instance"), dict):
        return dict(row["instance"])
    return {name: value for name, value in row.items() if name not in _ADDED}


def to_table_row(row: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """Return an output line as a row of a table with these columns."""
    flat = {**row.get("instance", {}), **row}
    if "predictions" in flat:
        flat["predictions"] = json.dumps(flat["predictions"])
    return {column: flat[column] for column in columns if flat.get(column) is not None}


def status_text(error: dict[str, Any]) -> str:
    """Return the free text in which Vertex reports a row's error."""
    code = _HTTP_OF_GRPC.get(int(error["code"]), 500)
    body = {"error": {"code": code, "message": error.get("message", ""), "status": STATUS_NAMES.get(code, "UNKNOWN")}}
    if code == 400:  # noqa: PLR2004 - bad request
        return f"Bad Request: {json.dumps(body)}"
    return f"Internal error occurred. Failed to get generateContentResponse: {json.dumps(body)}"


def _imported(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _echo(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request as it comes out of the import: its parts carry explicit nulls."""
    contents = request.get("contents")
    if not isinstance(contents, list):
        return request
    echoed = []
    for content in contents:
        parts = content.get("parts") if isinstance(content, dict) else None
        if isinstance(parts, list):
            plain = [
                {"fileData": None, "inlineData": None, **part} if isinstance(part, dict) else part for part in parts
            ]
            echoed.append({**content, "parts": plain})
        else:
            echoed.append(content)
    return {**request, "contents": echoed}


def _complaint(request: Any, rows: RowCheck) -> dict[str, Any] | None:
    try:
        rows.request(request)
    except schema.Complaint as complaint:
        return {"code": 3, "message": f"Invalid request: {complaint.text}"}
    for content in [] if rows.embeds else request.get("contents") or []:
        if content.get("role") not in ("user", "model"):
            return {"code": 3, "message": "Please use a valid role: user, model."}
    return None


def answer_vertex_lines(
    lines: Iterable[bytes], plan: AnswerPlan, tally: Tally, stamp: str, *, imported: bool = True
) -> Iterator[bytes]:
    """Yield the output lines of a Vertex job, and count them.

    :param stamp: what ``processed_time`` says in every row.
    :param imported: whether rows have gone through the import of JSON lines, which leaves its traces.
    """
    answerer = plan.answerer()
    check = RowCheck(embeds=plan.embeds, vertex=True, strict=plan.strict)
    legacy = is_legacy(plan.model)
    number = 0
    for line in lines:
        if line.startswith(DONE):
            tally.succeeded += 1
            tally.reused += 1
            row = decode(line[1:].decode())
            yield dump_line(_as_answered(row) if legacy else row)
            continue
        number += 1
        row = decode(line.decode())
        if legacy:
            answered = _legacy_row(row, plan, tally, number)
        else:
            request = row["request"]
            key = row.get("key", row.get("custom_id"))
            wrong = _complaint(request, check)
            within = plan.limit is None or number <= plan.limit
            answer = {"error": wrong} if wrong and within else plan.answer(answerer, request, key, number)
            if answer is None:
                answered = _unfinished(row, plan)
            else:
                answered = _row(row, answer, plan, stamp, imported=imported)
                tally.count(answer)
        if answered is None or plan.every("missing_every", number):
            continue
        if plan.every("missing_key_every", number):
            answered = {name: answered[name] for name in answered if name not in ("key", "custom_id")}
        encoded = dump_line(answered)
        yield encoded
        if plan.every("duplicate_every", number):
            yield encoded


def _unfinished(row: dict[str, Any], plan: AnswerPlan) -> dict[str, Any] | None:
    """Return what the output says of a row that was not done: by default the row alone, without answer or status."""
    kind = plan.faults.get("unfinished_rows", plan.rest)
    if kind == "omit":
        return None
    alone = {"instance": row} if is_legacy(plan.model) else row
    return {**alone, "response": {}, "status": ""} if kind == "empty" else alone


def _as_answered(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the older embedding models as its job wrote it, wherever it comes from."""
    if "instance" in row:
        return row
    instance = {name: value for name, value in row.items() if name not in _ADDED}
    return {"instance": instance, "predictions": row["predictions"], "status": ""}


def _row(
    row: dict[str, Any], answer: dict[str, Any], plan: AnswerPlan, stamp: str, *, imported: bool
) -> dict[str, Any]:
    others = {name: value for name, value in row.items() if name not in _WRITTEN}
    beside = {name: _imported(value) for name, value in others.items()} if imported else others
    error = answer.get("error")
    status = status_text(error) if error else ""
    if plan.embeds and not error:
        return {**beside, "request": row["request"], "response": answer["response"]}
    return {
        "status": status,
        "processed_time": stamp,
        "request": _echo(row["request"]) if imported else row["request"],
        "response": answer.get("response") or {},
        **beside,
    }


def _legacy_row(row: dict[str, Any], plan: AnswerPlan, tally: Tally, number: int) -> dict[str, Any] | None:
    text = str(row["content"])
    if plan.limit is not None and number > plan.limit and plan.rest != "error":
        return _unfinished(row, plan)
    if plan.every("row_error_every", number) or (plan.limit is not None and number > plan.limit):
        tally.failed += 1
        return {
            "instance": row,
            "predictions": [],
            "status": status_text({"code": 13, "message": gist_of("Internal error.")}),
        }
    tally.succeeded += 1
    tokens = max(1, len(text) // 4)
    tally.prompt_tokens += tokens
    tally.billed["input_text"] = tally.billed.get("input_text", 0) + tokens
    dimensions = int(row.get("outputDimensionality") or row.get("output_dimensionality") or LEGACY_DIMENSIONS)
    values = embedding_of(digest_of([text]), dimensions)
    prediction = {"embeddings": {"statistics": {"token_count": tokens, "truncated": False}, "values": values}}
    return {"instance": row, "predictions": [prediction], "status": ""}
