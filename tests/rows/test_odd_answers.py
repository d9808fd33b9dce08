"""One odd row never costs the others: bytes, numbers, keys and shapes that the service has been seen to send."""

from __future__ import annotations

import gzip
import json
import tempfile
from datetime import date, datetime, timezone
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_provider_gemini_batch.api.errors import UnexpectedResponse
from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, LongPrompts, ServiceError, Usage
from airflow_provider_gemini_batch.api.responses.content import block_reason, finish_reason
from airflow_provider_gemini_batch.api.responses.lines import OverlongLine, lines_of, result_rows, unpacked
from airflow_provider_gemini_batch.api.responses.reading import (
    inline_results,
    parse_result_line,
    parse_vertex_line,
    read_lines,
    result_of,
    vertex_result_of,
)
from airflow_provider_gemini_batch.api.wire import key_text
from airflow_provider_gemini_batch.rows.delivery import Origin, deliver, target_of
from airflow_provider_gemini_batch.rows.files import LocalFiles
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, iter_rows
from airflow_provider_gemini_batch.rows.media import MediaFolder
from airflow_provider_gemini_batch.runtime.outputs import storable

if TYPE_CHECKING:
    from collections.abc import Iterable

GOOD: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2},
}
RAW = json.dumps(GOOD).encode()


def landed(
    folder: Path,
    results: Iterable[BatchResult],
    *,
    name: str = "out.jsonl",
    types: dict[str, str] | None = None,
    **spec: Any,
) -> tuple[list[dict[str, Any]], LandingSummary]:
    output = str(folder / name)
    summary, _ = deliver(
        target_of(output),
        LocalFiles(),
        [list(results).__iter__],
        LandingSpec(**{"kind": JobKind.GENERATION, "wrapped_keys": False, **spec}),
        Origin(task="t", run="r", job_names=("b",), carried_types=types or {}),
        workdir=folder,
    )
    if name.endswith(".parquet"):
        return parquet.read_table(output).to_pylist(), summary
    return [json.loads(line) for line in Path(output).read_bytes().split(b"\n") if line], summary


def text_of(line: bytes) -> Any:
    response = parse_result_line(line, 0).response
    assert response is not None
    return response["candidates"][0]["content"]["parts"][0]["text"]


def with_text(text: bytes) -> bytes:
    return b'{"key":"a","response":{"candidates":[{"content":{"parts":[{"text":"' + text + b'"}]}}]}}'


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"a\tb\x01c", "a\tb\x01c"),
        (b"\\u0000", "\0"),
        (b"\\ud83d\\ude04", "\U0001f604"),
        ("\U0001f604\u2028\u0085".encode(), "\U0001f604\u2028\u0085"),
        (b"x\\ud800y", "x?y"),
        (b"x\\udc00", "x?"),
        (b"x\xff", "x\ufffd"),
    ],
)
def test_every_text_that_has_been_seen_is_read(written: bytes, read: str) -> None:
    assert text_of(with_text(written)) == read


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_costs_nothing(mark: bytes) -> None:
    lines = list(lines_of([mark + b'{"key":"a","response":' + RAW + b"}\n", b'{"key":"b","response":' + RAW + b"}"]))
    found = [parse_result_line(line, place) for place, line in enumerate(lines)]
    assert [(result.key, result.response) for result in found] == [("a", GOOD), ("b", GOOD)]
    assert parse_vertex_line(lines[0], 0).response == GOOD


def test_a_line_with_ten_pictures_is_read_whole() -> None:
    line = b'{"key":"a","x":"' + b"x" * (109 << 20) + b'"}'
    (found,) = result_rows(line[at : at + (4 << 20)] for at in range(0, len(line), 4 << 20))
    assert type(found) is bytes
    assert found == line


def test_characters_whose_halves_are_encoded_apart_are_whole() -> None:
    halves = b'{"key":"\xed\xa0\xbd\xed\xb8\x84 \xed\xa0\xbd"}'
    assert parse_result_line(halves, 0).key == "\U0001f604 \ufffd"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_file_in_utf_16_is_read(size: int) -> None:
    text = "".join(f'{{"key":"{key}","x":"\u00e4\U0001f604\u0a0a"}}\n' for key in "ab")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        packed = (text if encoding == "utf-16" else "\ufeff" + text).encode(encoding)
        chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
        assert [line.decode() for line in lines_of(unpacked(chunks))] == text.splitlines(keepends=True)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("padding", [b"", b"\0", bytes(512)])
def test_packed_results_are_read_in_pieces_of_any_size_and_with_zeros_after_each_member(
    size: int, padding: bytes
) -> None:
    packed = gzip.compress(b"one\n") + padding + gzip.compress(b"two\n") + padding
    assert b"".join(unpacked(packed[at : at + size] for at in range(0, len(packed), size))) == b"one\ntwo\n"
    with pytest.raises(UnexpectedResponse):
        list(unpacked([packed + b"\0x"]))


LIST = [{"key": "a", "x": '\\" }{ \U0001f604\n'}, {"key": "b", "response": {"y": [{}, {"z": "\\\\"}]}}, {}]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LIST),
        json.dumps(LIST, indent=2),
        "\ufeff\n" + json.dumps(LIST, indent=1, ensure_ascii=False) + "\n",
        "[\n" + ",\n".join(map(json.dumps, LIST)) + "\n]",
        "\n".join(json.dumps(row, indent=2) for row in LIST),
        "\r\n".join(json.dumps([row]) for row in LIST),
    ],
    ids=["one line", "indented", "mark", "a line each", "objects", "lists"],
)
def test_a_list_of_rows_is_read_whatever_its_lines_are(text: str, size: int) -> None:
    data = text.encode()
    found = list(result_rows(data[at : at + size] for at in range(0, len(data), size)))
    assert [json.loads(row) for row in found] == LIST
    assert b"".join(result_rows([gzip.compress(data)])) == b"".join(found)


def test_an_object_that_never_ends_costs_none_of_the_lines_behind_it() -> None:
    lines = [b'[{"key":"a\n', b'{"key":"b"}\n', b'{"key":"c"}\n']
    assert list(result_rows(lines))[1:] == lines[1:]
    found = list(result_rows([b'[{"a":"' + b"x" * 3000 + b'"},', b'{"b":1}, {"c":"' + b"y" * 3000], limit=1000))
    assert [type(row) for row in found] == [OverlongLine, bytes, OverlongLine]
    assert found[1] == b'{"b":1}\n'


@pytest.mark.parametrize("size", [5, 64, 5000])
@pytest.mark.parametrize("torn", ["{", "{ ", '{"key":"t', '{"key":"t","x":{"y":"}{', '{"key":"t","x":[{'])
@pytest.mark.parametrize("form", ["{}", "[\n{}\n]", "[\n  {}]", "[{}]", "[{}\n"])
def test_a_row_that_broke_off_costs_no_other_in_a_file_of_any_size(form: str, torn: str, size: int) -> None:
    keys = [f"k{number:02}" for number in range(40)]
    end = "]\n[" if form == "[{}]" else ",\n  " if form.startswith("[\n  ") else ",\n"
    rows = [f'{{"key":"{key}","x":"}} {{ }}"}}' for key in keys]
    data = form.replace("{}", end.join([*rows[:3], torn, *rows[3:]])).encode()
    for limit in (200, 10_000):
        lines = result_rows((data[at : at + size] for at in range(0, len(data), size)), limit=limit)
        found = [result.key for result in read_lines(lines, parse_result_line)]
        assert [key for key in found if key in keys] == keys
        assert len(found) <= len(keys) + 1


@pytest.mark.parametrize("first", ["{\n", "{ \r\n", "{\n\n"])
def test_a_first_row_that_is_a_brace_costs_no_other(first: str) -> None:
    data = (first + "".join(f'{{"key":"k{number}"}}\n' for number in range(30))).encode()
    assert [parse_result_line(row, 0).key for row in result_rows([data], limit=40)][1:] == [f"k{n}" for n in range(30)]


def test_an_indented_row_beyond_the_limit_costs_no_other() -> None:
    rows = [{"key": "a"}, {"key": "b", "x": [{"y": "z" * 50}] * 20}, {"key": "c"}]
    found = list(result_rows([json.dumps(rows, indent=2).encode()], limit=500))
    assert [type(row) for row in found] == [bytes, OverlongLine, bytes]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("odd", [None, 5, "a, {b}", True, [], [1, 2]])
def test_what_is_not_an_object_in_a_list_keeps_its_place(odd: Any, size: int) -> None:
    rows: list[Any] = [odd, {"x": 1}, odd, odd, {"x": [2]}, {}, odd]
    for text in (json.dumps(rows), json.dumps(rows, indent=1) + "\n", json.dumps(rows[1:-1])):
        data = text.encode()
        found = [json.loads(row) for row in result_rows(data[at : at + size] for at in range(0, len(data), size))]
        assert found == json.loads(text)
    assert list(result_rows([b"[\n]\n"])) == []
    rest = list(result_rows([b'[{"a":1}]\n t": 5}]\n[{"b":2}]\n[{"c":3}]']))
    assert [json.loads(row) for row in (rest[0], *rest[2:])] == [{"a": 1}, [{"b": 2}], [{"c": 3}]]


@pytest.mark.parametrize("odd", ["x\ty", "\xff", r"\x", r"\"{"])
def test_an_object_over_several_lines_stays_whole_whatever_its_texts_hold(odd: str) -> None:
    first = '{"key":"a","response":{"candidates":[\n{"content":{"parts":[{"text":"' + odd + '"}]}}\n]}}'
    data = f"[\n{first},\n{json.dumps({'key': 'b', 'response': {'x': 1}}, indent=1)}\n]".encode("latin-1")
    for size in (7, len(data)):
        found = result_rows(data[at : at + size] for at in range(0, len(data), size))
        results = [parse_result_line(row, 0) for row in found]
        assert [(one.key, one.response is not None) for one in results] == [("a", True), ("b", True)]


def test_a_quotation_mark_too_many_in_a_list_costs_no_row_that_begins_with_its_line() -> None:
    texts = ("x {} y", "{", "}", 'a "{b}"')
    rows = [json.dumps({"key": f"k{n}", "response": {"x": text}}) for n, text in enumerate(texts)]
    data = ",\n".join([f"[\n{rows[0]}", '"broken', *rows[1:]]).encode() + b"\n]"
    for size in (7, len(data)):
        found = result_rows(data[at : at + size] for at in range(0, len(data), size))
        results = [parse_result_line(row, 0) for row in found]
        assert [one.key for one in results if one.response is not None] == ["k0", "k1", "k2", "k3"]


@pytest.mark.parametrize("word", ["A" * 500, "OD\0D", "OD\nD \u202e", "9" * 500, "\ud83d-X"])
def test_the_service_s_word_for_a_failure_is_short_and_printable(word: str) -> None:
    for made in (finish_reason({"finishReason": word}), block_reason({"promptFeedback": {"blockReason": word}})):
        assert made
        assert made != "UNKNOWN"
        assert len(made) <= 100
        assert made.isprintable()


@pytest.mark.parametrize("word", ["  ", "\n", "\0\0", "\u202e", "\u200b", "\ud83d"])
def test_a_word_without_a_character_to_show_is_unknown_and_not_missing(word: str) -> None:
    assert finish_reason({"finishReason": word}) == block_reason({"promptFeedback": {"blockReason": word}}) == "UNKNOWN"
    said = {"candidates": [{"content": {"parts": [{"text": "par"}]}, "finishReason": word}]}
    row = next(iter_rows([BatchResult("k", said, None, 0)], LandingSpec(kind=JobKind.GENERATION, wrapped_keys=False)))
    assert (row["status"], row["finish_reason"], row["text"]) == ("invalid_output", "UNKNOWN", "par")


@pytest.mark.parametrize("code", ["100000000000", 100000000000, 1e11])
def test_a_code_beyond_32_bits_is_told_in_whatever_form_it_comes(code: Any) -> None:
    error = result_of({"key": "k", "error": {"code": code}}, 0).error
    assert error is not None
    assert (error.code, error.message) == (None, " (the code 100000000000 is beyond 32 bits)")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (1, "STOP"),
        (2, "MAX_TOKENS"),
        (3.0, "SAFETY"),
        ("2", "MAX_TOKENS"),
        (17, "17"),
        ("stop", "STOP"),
        ("", None),
        ({}, None),
        (["STOP"], "UNKNOWN"),
        ({"a": 1}, "UNKNOWN"),
        (True, "UNKNOWN"),
        (1.5, "UNKNOWN"),
        ("9" * 5000, "9" * 100),
    ],
)
def test_a_finish_reason_by_number_is_known(told: Any, reason: str | None) -> None:
    assert finish_reason({"finishReason": told}) == reason


def test_lines_end_at_line_feeds_and_nowhere_else() -> None:
    line = '{"key":"a","x":"\u2028\u2029\u0085\x0b\x0c"}'.encode()
    assert list(lines_of([line[:9], line[9:] + b"\n\r\n", line])) == [line + b"\n", line]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 7), st.integers(1, 40))
def test_one_line_beyond_the_limit_costs_no_other(lines: list[bytes], piece: int, limit: int) -> None:
    whole = b"\n".join(line.replace(b"\n", b"") for line in lines)
    chunks = [whole[start : start + piece] for start in range(0, len(whole), piece)]
    wanted = [line for line in BytesIO(whole) if len(line) > limit or not line.isspace()]
    found = list(lines_of(chunks, limit=limit))
    assert [isinstance(line, OverlongLine) for line in found] == [len(line) > limit for line in wanted]
    for line, whole_line in zip(found, wanted, strict=True):
        if isinstance(line, OverlongLine):
            assert (line.size, line.limit) == (len(whole_line), limit)
            assert whole_line.startswith(line)
        else:
            assert line == whole_line


@pytest.mark.parametrize("parse", [parse_result_line, parse_vertex_line])
def test_a_row_that_cannot_be_read_is_an_error_under_its_own_key(parse: Any) -> None:
    deep = b'{"key":"r7-a","response":' + b"[" * 5000 + b"]" * 5000 + b"}"
    for line in (deep, b'\xef\xbb\xbf {"custom_id": "r7-a", "x": {', '{"key": "r7-a"'):
        result = parse(line, 0)
        assert result.key == "r7-a"
        assert result.error is not None
    assert parse(b'{"response": {"key": "other"', 0).key is None


@pytest.mark.parametrize("make", [result_of, vertex_result_of])
def test_a_response_that_is_a_text_of_json_is_read(make: Any) -> None:
    assert make({"key": "a", "response": json.dumps(GOOD)}, 0).response == GOOD
    assert make({"key": "a", "response": "no json"}, 0).error is not None


def test_a_row_beyond_the_limit_is_an_error_under_its_own_key() -> None:
    long = b'{"key":"r7-a","response":{"x":"' + b"y" * 10_000 + b'"}}\n'
    (line,) = lines_of([long[:5000], long[5000:]], limit=1000)
    assert len(line) <= 4096
    result = parse_result_line(line, 3)
    assert (result.key, result.response) == ("r7-a", None)
    assert result.error is not None
    assert "10035 bytes" in result.error.message
    assert result.error.code == 11


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"key":12,"response":%b}', "12"),
        (b'{"key":1.10,"response":%b}', "1.10"),
        (b'{"key":12345678901234567890.123456789,"response":%b}', "12345678901234567890.123456789"),
        (b'{"key":-7,"response":%b}', "-7"),
        (b'{"key":true,"response":%b}', "true"),
        (b'{"key":"2026-11-26","response":%b}', "2026-11-26"),
        (b'{"custom_id":99999999999999999999,"response":%b}', "99999999999999999999"),
        (b'{"metadata":{"key":5},"response":%b}', "5"),
    ],
)
def test_every_scalar_key_is_kept_as_text(line: bytes, text: str) -> None:
    for parse in (parse_result_line, parse_vertex_line):
        assert parse(line % RAW, 0).key == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1.10"), "1.10"),
        (date(2026, 11, 26), "2026-11-26"),
        (datetime(2026, 11, 26, 1, 2, tzinfo=timezone.utc), "2026-11-26T01:02:00+00:00"),
        (False, "false"),
        ([1], None),
        (None, None),
        ({}, None),
    ],
)
def test_keys_of_a_table_are_texts(value: Any, text: str | None) -> None:
    assert key_text(value) == text


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_rows_of_sources_that_are_not_read_keep_their_names_and_columns(name: str, tmp_path: Path) -> None:
    lines = [{"product_id": 7, "shop": "b", "response": GOOD}, {"product_id": 8, "shop": [1], "response": GOOD}]
    results = [result_of(line, place) for place, line in enumerate(lines)]
    rows, summary = landed(tmp_path, results, name=name, types={"shop": "str"}, key_field="product_id", carry=("shop",))
    assert [(row["key"], row["shop"]) for row in rows] == [("7", "b"), ("8", "[1]")]
    assert summary.by_position == 0


@pytest.mark.parametrize("member", ["key", "custom_id", "id"])
def test_the_usual_names_need_no_key_field(member: str, tmp_path: Path) -> None:
    rows, _ = landed(tmp_path, [vertex_result_of({member: 40 + place, "response": GOOD}, place) for place in range(2)])
    assert [row["key"] for row in rows] == ["40", "41"]


def test_rows_that_are_known_by_their_place_alone_are_counted(tmp_path: Path) -> None:
    results = [result_of({"response": GOOD}, 0), result_of({"key": "", "response": GOOD}, 1)]
    results.append(result_of({"key": "k", "response": GOOD}, 2))
    rows, summary = landed(tmp_path, results)
    assert [row["key"] for row in rows] == ["0", "1", "k"]
    assert summary.by_position == 2
    assert summary.counts["by_position"] == 2


def test_a_column_of_the_author_named_status_is_not_an_error() -> None:
    result = result_of({"key": "a", "status": "active", "response": GOOD}, 0)
    assert result.error is None
    assert vertex_result_of({"key": "a", "status": "active", "response": GOOD}, 0).error is None


ODD: list[tuple[dict[str, Any], str]] = [
    ({"usageMetadata": {"promptTokenCount": 2**70}}, "promptTokenCount is not a count"),
    ({"usageMetadata": {"promptTokenCount": str(2**64)}}, "promptTokenCount is not a count"),
    ({"usageMetadata": {"promptTokenCount": -1}}, "promptTokenCount"),
    (
        {"usageMetadata": {"promptTokenCount": 2**63 - 1, "toolUsePromptTokenCount": 9}},
        "input_tokens is beyond 64 bits",
    ),
    ({"usageMetadata": {"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1e300}]}}, "promptTokensDetails"),
]


@pytest.mark.parametrize(("member", "words"), ODD)
def test_odd_counts_are_told_by_the_row_and_parquet_lands_them_all(
    member: dict[str, Any], words: str, tmp_path: Path
) -> None:
    results = [result_of({"key": "a", "response": {**GOOD, **member}}, 0), result_of({"key": "b", "response": GOOD}, 1)]
    rows, summary = landed(tmp_path, results, name="out.parquet")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert words in rows[0]["warning"]
    assert rows[1]["warning"] is None
    assert (summary.usage.uncounted_answers, summary.warned) == (1, ("a",))


def test_a_code_beyond_32_bits_costs_no_row(tmp_path: Path) -> None:
    results = [
        result_of({"key": "a", "error": {"code": 2**40, "message": "m"}}, 0),
        result_of({"key": "b", "response": GOOD}, 1),
    ]
    rows, _ = landed(tmp_path, results, name="out.parquet")
    assert rows[0]["error"]["code"] is None
    assert str(2**40) in rows[0]["error"]["message"]
    assert rows[1]["status"] == "ok"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ('["a"]', "not a list of numbers"),
        ("[true]", "not a list of numbers"),
        ("[[1]]", "not a list of numbers"),
        ("7", "not a list of numbers"),
        ("[0.1, NaN]", "not a finite number"),
        ("[1e999]", "not a finite number"),
        ("[0.1, 1e39]", "not a finite number of 32 bits"),
        (f"[0.1, 1{'0' * 39}]", "not a finite number of 32 bits"),
        (f"[-{'9' * 39}.5, 1]", "not a finite number of 32 bits"),
        (f"[{'7' * 400}]", "too large"),
        ("[]", "no embedding"),
        ("null", "no embedding"),
    ],
)
def test_a_bad_vector_fails_only_its_own_row(values: str, words: str, tmp_path: Path) -> None:
    lines = [
        f'{{"key":"{key}","response":{{"embedding":{{"values":{v}}},"tokenCount":1}}}}'
        for key, v in (("a", values), ("b", "[1]"))
    ]
    results = [parse_result_line(line.encode(), place) for place, line in enumerate(lines)]
    rows, summary = landed(tmp_path, results, name="out.parquet", kind=JobKind.EMBEDDINGS)
    assert [row["status"] for row in rows] == ["invalid_output", "ok"]
    assert words in rows[0]["error"]["message"]
    # It was paid for, and may be right in a form that is newer than this.
    assert summary.aside is not None
    (line,) = summary.aside.read_bytes().splitlines()
    kept = json.loads(line)
    assert (kept["why"], kept["key"], [*kept["response"]]) == ("unread", "a", ["embedding", "tokenCount"])


def test_a_vector_in_a_form_that_is_not_known_is_kept_in_its_row_or_aside(tmp_path: Path) -> None:
    line = json.dumps({"key": "a", "response": {"quantized": {"int8": "AAEC", "scale": 0.5}}}).encode()
    for keep_response, rows_known in ((True, 1), (False, 1), (False, None)):
        results = [parse_result_line(line.replace(b'"a"', b'"r0"') if rows_known else line, 0)]
        rows, summary = landed(tmp_path, results, kind=JobKind.EMBEDDINGS, keep_response=keep_response, rows=rows_known)
        kept = rows[0] if keep_response else json.loads((summary.aside or tmp_path).read_bytes())
        assert kept["response"] == {"quantized": {"int8": "AAEC", "scale": 0.5}}
        assert (summary.aside is None) == keep_response


def test_a_vector_that_is_too_long_is_cut_and_normalised_and_one_too_short_fails_its_row(tmp_path: Path) -> None:
    vectors = {"a": [3.0, 4.0, 12.0], "b": [1.0], "c": [0.5, 0.25]}
    lines = [json.dumps({"key": key, "response": {"embedding": {"values": v}}}) for key, v in vectors.items()]
    results = [parse_vertex_line(line.encode(), place) for place, line in enumerate(lines)]
    rows, _ = landed(tmp_path, results, kind=JobKind.EMBEDDINGS, dimensions=2)
    assert [row["embedding"] for row in rows] == [[0.6, 0.8], [1.0], [0.5, 0.25]]
    assert "had 3 values; it was cut to 2 and normalised" in rows[0]["warning"]
    assert [row["status"] for row in rows] == ["ok", "invalid_output", "ok"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", 1, [2**70, "text", "9" * 5000, 1.5, True, "12_34"]),
        ("float", "1.5", ["text", 10**400, True, "1_5"]),
        ("decimal(5,2)", "1.50", ["text", [1], 12345, True, "1_5"]),
        ("date", "2026-01-31", ["2026-02-31", "text", 5, {"d": 1}]),
        ("timestamp", "2026-01-01T00:00:00", ["2026-13-01", "text", 1767225600, 1.5]),
        # A time that is before the year 1 in UTC: how .NET writes that there is none.
        (
            "timestamp_utc",
            "2026-01-01T01:00:00+01:00",
            ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "x", 1767225600],
        ),
    ],
)
def test_a_carried_value_that_its_column_cannot_hold_is_told_and_costs_no_row(
    kind: str, good: Any, bad: list[Any], tmp_path: Path
) -> None:
    from airflow_provider_gemini_batch.rows.writers import ParquetSink

    path = tmp_path / "x.parquet"
    with path.open("wb") as handle:
        sink = ParquetSink(handle, kind=JobKind.GENERATION, parsed=False, response=False, carried={"n": kind})
        for value in (good, *bad):
            row = {"key": "a", "status": "ok", "text": "t", "usage": None, "error": None, "n": value}
            sink.write(json.dumps(row).encode() + b"\n")
        sink.close()
    first, *others = parquet.read_table(path).to_pylist()
    assert (first["n"] is None, first["warning"]) == (False, None)
    assert [row["n"] for row in others] == [None] * len(bad)
    assert all("the column cannot hold this row's value" in row["warning"] for row in others)


OPENAI = {
    "id": "x1",
    "object": "chat.completion",
    "model": "gemini-2.5-flash",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Blue"}}],
    "usage": {"promptTokens": 5, "completionTokens": 1, "totalTokens": 46},
}


def openai(body: Any, status: int = 200) -> dict[str, Any]:
    return {"custom_id": "r1", "response": {"status_code": status, "body": body}}


@pytest.mark.parametrize("parse", [result_of, vertex_result_of])
def test_answers_in_openais_form_are_read_with_their_tokens(parse: Any, tmp_path: Path) -> None:
    rows, summary = landed(tmp_path, [parse(openai(OPENAI), 0)])
    assert (rows[0]["key"], rows[0]["text"], rows[0]["finish_reason"]) == ("r1", "Blue", "STOP")
    assert summary.usage == Usage(5, 1, 40)


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 46}, Usage(5, 1, 40)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 9,
                "total_tokens": 14,
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(5, 5, 4),
        ),
        (
            {"promptTokens": 5, "promptTokensDetails": {"cached_tokens": 3, "audio_tokens": 2}},
            Usage(5, cached_tokens=3, input_audio_tokens=2),
        ),
    ],
)
def test_tokens_of_openais_form_are_read_in_both_spellings(
    usage: dict[str, Any], wanted: Usage, tmp_path: Path
) -> None:
    assert landed(tmp_path, [result_of(openai({**OPENAI, "usage": usage}), 0)])[1].usage == wanted


def test_other_endings_of_openais_form_become_statuses_and_codes(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    bodies: list[tuple[Any, int]] = [
        ({"choices": [{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [call]}}]}, 200),
        ({"choices": [{"finish_reason": "length", "message": {"content": "cut"}}]}, 200),
        ({"choices": [{"finish_reason": "content_filter", "message": {}}]}, 200),
        ({"error": {"message": "no", "code": "bad"}}, 400),
        ([{"error": {"message": "slow", "code": 429}}], 429),
        ("not json", 500),
        (None, 200),
    ]
    rows, _ = landed(tmp_path, [result_of(openai(body, status), 0) for body, status in bodies])
    assert [row["status"] for row in rows] == ["ok", "truncated", "blocked", "error", "error", "error", "error"]
    assert rows[0]["function_calls"] == [{"id": "c", "name": "f", "args": {"a": 1}}]
    assert [row["error"]["code"] for row in rows[3:6]] == [3, 8, 13]


def test_embeddings_in_openais_form_are_read(tmp_path: Path) -> None:
    body = {"object": "list", "data": [{"embedding": [0.5, 1]}], "usage": {"promptTokens": 3, "totalTokens": 3}}
    rows, summary = landed(tmp_path, [result_of(openai(body), 0)], kind=JobKind.EMBEDDINGS)
    assert (rows[0]["embedding"], summary.usage) == ([0.5, 1], Usage(3))


@pytest.mark.parametrize("nested", [True, False])
def test_inline_answers_are_read_nested_once_or_twice_and_with_a_null_among_them(nested: bool) -> None:  # noqa: FBT001
    items = [{"metadata": {"key": "a"}, "response": GOOD}, None, {"response": GOOD, "metadata": {"key": "c"}}]
    found: Any = {"inlinedResponses": {"inlinedResponses": items} if nested else items}
    results = list(inline_results(found))
    assert [(result.key, result.position) for result in results] == [("a", 0), (None, 1), ("c", 2)]
    assert results[1].error is not None
    assert "neither a response nor an error" in results[1].error.message
    assert list(inline_results({})) == []
    assert list(inline_results({"inlinedResponses": 7})) == []


def test_a_table_of_older_embeddings_is_read_from_text_or_json() -> None:
    predictions = [{"embeddings": {"statistics": {"token_count": 2}, "values": [0.2, 0.1]}}]
    for written in (predictions, json.dumps(predictions), [json.dumps(predictions[0])]):
        result = vertex_result_of({"content": "alpha", "predictions": written, "status": ""}, 0)
        assert result.response == {"embedding": {"values": [0.2, 0.1]}, "tokenCount": 2}


def test_a_failed_row_that_used_tokens_is_in_the_sum(tmp_path: Path) -> None:
    failed = {"key": "a", "status": "Bad Request: {}", "response": {"usageMetadata": {"promptTokenCount": 9}}}
    rows, summary = landed(tmp_path, [vertex_result_of(failed, 0)])
    assert (rows[0]["status"], rows[0]["usage"]["input_tokens"], summary.usage) == ("error", 9, Usage(9))


def test_reasons_are_counted_by_status_and_word(tmp_path: Path) -> None:
    def ended(reason: str) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": [{"text": "t"}]}, "finishReason": reason}]}

    results = [
        BatchResult(None, ended(reason), None, 0) for reason in ("SAFETY", "SAFETY", "MAX_TOKENS", "NO_IMAGE", "STOP")
    ]
    results += [BatchResult(None, None, ServiceError(code=8), 0), BatchResult(None, None, ServiceError(), 0)]
    reasons = {
        "blocked": {"SAFETY": 2},
        "truncated": {"MAX_TOKENS": 1},
        "invalid_output": {"NO_IMAGE": 1},
        "error": {"8": 1, "": 1},
    }
    assert landed(tmp_path, results)[1].reasons == reasons
    known = [
        result if result.key else BatchResult(f"r{row}", result.response, result.error, 0)
        for row, result in enumerate(results)
    ]
    assert landed(tmp_path, known, rows=len(known), wrapped_keys=True)[1].reasons == reasons


def test_an_answer_that_a_later_job_repeats_is_paid_once_and_a_new_one_twice(tmp_path: Path) -> None:
    from airflow_provider_gemini_batch.rows.landing import land
    from airflow_provider_gemini_batch.runtime.outputs import NullSink

    def job(*names: str) -> list[BatchResult]:
        lines = [
            json.dumps({"key": f"r{row}", "response": {**GOOD, "responseId": name}}) for row, name in enumerate(names)
        ]
        return [parse_result_line(line.encode(), 0) for line in lines]

    cut = {**GOOD, "responseId": "cut", "candidates": [{**GOOD["candidates"][0], "finishReason": "MAX_TOKENS"}]}
    first = [*job("x", "y"), BatchResult("r2", cut, None, 0)]
    spec = LandingSpec(kind=JobKind.GENERATION, rows=3)
    summary = land([first.__iter__, job("x", "other", "mended").__iter__], NullSink(), spec, tmp_path)
    # x, y, the one that was cut; then, again, only those that are new.
    assert summary.usage == Usage(5 * 5, 2 * 5)
    assert (summary.succeeded, summary.duplicate) == (3, 2)


def test_answers_to_long_prompts_are_summed_apart_too(tmp_path: Path) -> None:
    def used(tokens: int) -> dict[str, Any]:
        return {**GOOD, "usageMetadata": {"promptTokenCount": tokens, "candidatesTokenCount": 1}}

    lines = [json.dumps({"key": "a", "response": used(tokens)}).encode() for tokens in (200_000, 200_001, 300_000)]
    summary = landed(tmp_path, [parse_result_line(line, 0) for line in lines])[1]
    assert summary.long_prompts == LongPrompts(2, Usage(500_001, 2))
    assert summary.usage == Usage(700_001, 3)


def test_a_row_for_xcom_holds_no_u0000() -> None:
    assert storable({"a\0": ["b\0", 1, {"c": None}]}) == {"a\ufffd": ["b\ufffd", 1, {"c": None}]}


NAMES = [
    "candidates", "content", "parts", "text", "thought", "inlineData", "mimeType", "data", "fileData", "fileUri",
    "functionCall", "args", "executableCode", "finishReason", "index", "usageMetadata", "promptTokenCount", "modality",
    "promptTokensDetails", "tokenCount", "embedding", "values", "promptFeedback", "blockReason", "responseId", "usage",
    "groundingMetadata", "webSearchQueries", "choices", "message", "tool_calls", "status_code", "body", "error",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["STOP", "MAX_TOKENS", "IMAGE", "AUDIO", "image/png", "audio/L16;rate=0", "AAAA", "\ud800", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=14,
)
LINES = st.dictionaries(
    st.sampled_from(["key", "custom_id", "response", "error", "status", "instance", "predictions", "metadata", "shop"]),
    VALUES | st.fixed_dictionaries({"candidates": st.lists(st.fixed_dictionaries({"content": VALUES}), max_size=2)}),
    max_size=5,
)


@settings(max_examples=150)
@given(st.lists(LINES, min_size=1, max_size=4), st.sampled_from(list(JobKind)), st.booleans())
def test_whatever_the_service_says_becomes_one_row_for_each_answer(
    lines: list[dict[str, Any]],
    kind: JobKind,
    known: bool,  # noqa: FBT001
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        media = MediaFolder(f"{folder}/media", LocalFiles())
        for parse in (parse_result_line, parse_vertex_line):
            for name in ("out.jsonl", "out.parquet"):
                results = [parse(json.dumps(line).encode(), place) for place, line in enumerate(lines)]
                spec: dict[str, Any] = {"rows": len(lines)} if known else {"carry": ("shop",), "keep_response": True}
                rows, summary = landed(
                    Path(folder), results, name=name, kind=kind, media=media, types={"shop": "str"}, **spec
                )
                assert len(rows) == summary.rows == len(lines)
                assert all(isinstance(row["key"], str) for row in rows)
