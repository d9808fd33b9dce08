"""A line may hold several rows, or a list of them: each is read by itself, and nothing beside it costs it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from airflow_provider_gemini_batch.api.models import BatchResult
from airflow_provider_gemini_batch.api.responses.reading import (
    parse_result_line,
    parse_vertex_line,
    read_lines,
    result_of,
)

GOOD: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2},
}
RAW = json.dumps(GOOD).encode()


@pytest.mark.parametrize("odd", ["9" * 5000, "-1." + "9" * 5000, '"\\x"', "[" * 3000 + "]" * 3000])
def test_of_two_rows_on_one_line_neither_is_lost_for_what_a_parser_refuses(odd: str) -> None:
    rows = [f'{{"key":"{key}","response":{RAW.decode()},"junk":{odd}}}' for key in "ab"]
    found = list(read_lines([" ".join(rows).encode()], parse_result_line))
    assert [(one.key, one.response) for one in found] == [("a", GOOD), ("b", GOOD)]


def test_many_objects_on_one_line_are_taken_apart_in_linear_time() -> None:
    whole = BatchResult("k", GOOD, None, 0)
    found = read_lines([b"{}" * 500_000], lambda line, at: whole if isinstance(line, str) else result_of(None, at))
    assert sum(1 for _ in found) == 500_000


def test_of_millions_of_objects_on_one_line_few_are_in_memory() -> None:
    line = b"{}" * 500_000
    tracemalloc.start()
    try:
        whole = BatchResult("k", GOOD, None, 0)
        found = read_lines([line], lambda line, at: whole if isinstance(line, str) else result_of(None, at))
        assert next(found) is whole
        assert tracemalloc.get_traced_memory()[1] < 8 * len(line)
    finally:
        tracemalloc.stop()


def test_a_row_whose_error_has_our_own_words_is_parsed_once() -> None:
    seen = []

    def parse(line: bytes | str, position: int) -> BatchResult:
        seen.append(position)
        return parse_result_line(line, position)

    line = b'{"key":"k","error":{"message":"this line of the results is not a JSON object"}}'
    assert [one.key for one in read_lines([line], parse)] == ["k"]
    assert seen == [0]


@pytest.mark.parametrize("parse", [parse_result_line, parse_vertex_line])
@pytest.mark.parametrize(("between", "around"), [("", "{}"), (" ", "{}"), (",\t", "{},"), (",", "[{}]")])
def test_a_line_that_holds_several_rows_costs_none(parse: Any, between: str, around: str) -> None:
    rows = [f'{{"key":"{key}","response":{RAW.decode()}}}' for key in "abc"]
    line = (around.format(between.join(rows)) + "\n").encode()
    found = list(read_lines([line, rows[0].encode()], parse))
    assert [(one.key, one.response, one.position) for one in found] == [
        (key, GOOD, place) for place, key in enumerate("abca")
    ]


@pytest.mark.parametrize("line", ["{0} 5 {1}", "[{0}, null, {1}]", "[{0}, [1], {1}]", '[[{0}], "x", {1}]'])
def test_what_stands_between_rows_on_one_line_costs_none_of_them(line: str) -> None:
    rows = [f'{{"key":{key},"response":{RAW.decode()}}}' for key in ("1.10", '"b"')]
    found = list(read_lines([line.format(*rows).encode()], parse_result_line))
    assert [(one.key, one.response, one.position) for one in (found[0], found[-1])] == [
        ("1.10", GOOD, 0),
        ("b", GOOD, 2),
    ]
    assert (found[1].response, len(found)) == (None, 3)


def test_of_a_line_that_breaks_off_the_rows_before_are_read() -> None:
    good = '{"key":"a","response":' + RAW.decode() + "}"
    found = list(read_lines([good.encode() + b'{"key":"b","respon', b"5 6", b"[]", b"["], parse_result_line))
    assert [(one.key, one.error is None, one.position) for one in found] == [
        ("a", True, 0), ("b", False, 1), (None, False, 2), (None, False, 3), (None, False, 4),
    ]  # fmt: skip
