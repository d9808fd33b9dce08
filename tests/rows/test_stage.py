"""Rows from anywhere become checked wire lines in one pass, and every bad row is named before anything is sent."""

from __future__ import annotations

import gzip
import io
import json
import math
import tempfile
import tracemalloc
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.request import BatchRequest
from airflow_provider_gemini_batch.rows import csv_rows
from airflow_provider_gemini_batch.rows.input_spec import Attachment, InputSpec, job_limits
from airflow_provider_gemini_batch.rows.layout import Layout, ShardFile
from airflow_provider_gemini_batch.rows.record import InputRecord, RecordWriter
from airflow_provider_gemini_batch.rows.sending import ShardReader
from airflow_provider_gemini_batch.rows.stage import Staged, stage
from airflow_provider_gemini_batch.rows.wire_keys import unwrap_key, wrap_key, wrap_key_json
from airflow_provider_gemini_batch.rows.wire_lines import _LAYOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

BARE = '{"contents": [{"parts": [{"text": "%s"}]}]}'
KEYED = '{"key": "%s", "request": {"contents": [{"parts": [{"text": "%s"}]}]}}'


def spec(**given: Any) -> InputSpec:
    return InputSpec(**{"service": Service.GEMINI, "model": "gemini-2.5-flash", **given})


def wire(staged: Staged) -> list[dict[str, Any]]:
    assert len(staged.files) == len(staged.layout.shards)
    return [json.loads(line) for file in staged.files.values() for line in file.path.read_bytes().splitlines()]


def kept(given: InputSpec, folder: Path) -> InputRecord:
    """The record of an input."""
    with RecordWriter(store=True, file=None, needed=True) as writer:
        stage(given, folder, writer)
    done = writer.finish()
    assert done.text is not None
    return InputRecord(done.name, lambda: io.BytesIO((done.text or "").encode()))


def carried(given: InputSpec, folder: Path) -> list[bytes]:
    return list(kept(given, folder).carried())


def texts(staged: Staged) -> list[str]:
    return [item["request"]["contents"][0]["parts"][-1]["text"] for item in wire(staged)]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@given(row=st.integers(min_value=0, max_value=10**17), key=st.none() | st.text(min_size=1))
def test_a_wrapped_key_comes_back_whole(row: int, key: str | None) -> None:
    wrapped = wrap_key(row, key)
    assert wrapped[0] == "r"
    assert unwrap_key(wrapped) == (row, key)
    as_json = None if key is None else json.dumps(key).encode()
    assert json.loads(wrap_key_json(row, as_json)) == wrapped


@pytest.mark.parametrize(
    "key", ["", "17", "r", "r-1", "r01", "r1x", "R1", "r¹", "r1_0", " r1", "r" + "9" * 30, "row-1"]
)
def test_a_key_that_is_not_ours_stays_as_it_is(key: str) -> None:
    assert unwrap_key(key) == (None, key)


def test_a_list_of_all_kinds_of_rows_is_numbered_and_keyed(tmp_path: Path) -> None:
    rows = ["a", BatchRequest(text="b", key="kb"), {"key": 3, "contents": "c"}, json.loads(KEYED % ("kd", "d"))]
    given = spec(rows=rows)
    staged = stage(given, tmp_path)
    assert [item["key"] for item in wire(staged)] == ["r0", "r1-kb", "r2-3", "r3-kd"]
    assert texts(staged) == ["a", "b", "c", "d"]
    assert staged.layout.rows == 4
    record = kept(given, tmp_path)
    assert [record.key(row) for row in range(5)] == [None, "kb", "3", "kd", None]
    assert [record.key(row) for row in (3, 1, 2, 0)] == ["kd", "kb", "3", None]


def test_a_callable_may_return_or_yield_rows(tmp_path: Path) -> None:
    def yields() -> Any:
        yield from ("a", "b")

    assert texts(stage(spec(rows=yields), tmp_path)) == ["a", "b"]
    assert texts(stage(spec(rows=lambda: ["a", "b"]), tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((x for x in "ab"), "is a generator"),
        ("text", "str cannot be rows"),
        ({"text": "x"}, "dict cannot be rows"),
        (lambda: "text", "str cannot be rows"),
        (lambda: 7, "int cannot be rows"),
    ],
)
def test_what_is_not_a_list_of_rows_is_refused(rows: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        stage(spec(rows=rows), tmp_path)


def test_lines_of_openais_batch_files_are_staged_in_the_services_own_form(tmp_path: Path) -> None:
    body = '{"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}'
    line = f'{{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {body}}}'
    staged = stage(spec(path=write(tmp_path, "in.jsonl", line)), tmp_path)
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    assert wire(staged) == [
        {"key": "r0-a", "request": {"contents": contents, "generationConfig": {"maxOutputTokens": 5}}}
    ]
    assert (staged.expected.output_tokens, staged.expected.unbounded_rows) == (5, 0)
    assert "OpenAI" in " ".join(staged.warnings)


@pytest.mark.parametrize("name", ["responseSchema", "response_schema", "responseJsonSchema", "response_json_schema"])
@pytest.mark.parametrize("argument", ["generation_config", "request_defaults"])
def test_a_second_schema_beside_the_output_schema_is_refused(name: str, argument: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {argument: {name: {"type": "object"}}, "response_schema": {"type": "OBJECT"}}
    with pytest.raises(ConfigurationError, match="either output_schema or generation_config with a schema"):
        stage(spec(rows=["x"], **given), tmp_path)


class Modality(Enum):
    IMAGE = "IMAGE"


PICTURE = {"responseModalities": ["TEXT", "IMAGE"]}


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"text": "x", "generation_config": {"responseModalities": ("TEXT", "IMAGE")}}, {}),
        ({"text": "x", "generation_config": {"responseModalities": ["TEXT", Modality.IMAGE]}}, {}),
        (BatchRequest(text="x", generation_config={"response_modalities": ("TEXT", "IMAGE")}), {}),
        ("x", {"generation_config": {"responseModalities": ("TEXT", Modality.IMAGE)}}),
        ("x", {"request_defaults": {"generation_config": {"responseModalities": ("TEXT", "IMAGE")}}}),
    ],
)
def test_a_request_is_judged_by_what_is_sent_whatever_types_python_gives_it(
    row: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    staged = stage(spec(rows=[row], **settings), tmp_path)
    assert wire(staged)[0]["request"]["generationConfig"] == PICTURE
    assert staged.expected.response_modality == "image"


@pytest.mark.parametrize("where", ["row", "request_defaults"])
def test_tools_in_a_tuple_are_seen_by_the_estimate_and_by_the_rules_of_vertex(where: str, tmp_path: Path) -> None:
    tools: dict[str, Any] = {"tools": ({"google_search": {}},)}
    given: dict[str, Any] = {"rows": [{"text": "x", **tools}]}
    if where != "row":
        given = {"rows": ["x"], where: tools}
    assert "searches are billed by the query" in " ".join(stage(spec(**given), tmp_path).expected.unknown)
    with pytest.raises(InputError, match="google_search is empty, which fails Vertex AI's import"):
        stage(spec(service=Service.VERTEX, project="p", location="us-central1", **given), tmp_path)


@pytest.mark.parametrize("ending", ["jsonl", "txt", "csv", "jsonl.gz"])
def test_a_line_that_no_memory_holds_is_named_before_it_is_read(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "MOST_BYTES_OF_A_ROW", 1 << 20)
    long = "x" * (1 << 20) + "\nrest"
    content = f'"text"\n"{long}'
    path = tmp_path / f"in.{ending}"
    path.write_bytes(gzip.compress(content.encode()) if ending.endswith("gz") else content.encode())
    with pytest.raises(InputError, match="line 2 is longer than 1 MiB, and each row must be a line of its own"):
        stage(spec(path=str(path)), tmp_path)


def test_a_quote_that_is_never_closed_ends_before_memory_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "MOST_BYTES_OF_A_ROW", 1 << 20)
    path = write(tmp_path, "in.csv", 'text\n"open' + "\nmore and more" * 200_000)
    with pytest.raises(InputError, match=r"line 2: not CSV from here on .*, perhaps a quote that is never closed"):
        stage(spec(path=path), tmp_path)


@pytest.mark.parametrize("beginning", ["\ufeff", "\ufeff\r\n", "\ufeff \n"])
def test_json_lines_of_every_form_are_read_and_blank_ones_left_out(beginning: str, tmp_path: Path) -> None:
    lines = [KEYED % ("a", "1"), "", BARE % "2", '"3"', '{"text": "4", "key": "d"}', "  "]
    staged = stage(spec(path=write(tmp_path, "in.jsonl", beginning + "\n".join(lines))), tmp_path)
    assert [item["key"] for item in wire(staged)] == ["r0-a", "r1", "r2", "r3-d"]
    assert texts(staged) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("service", list(Service))
@pytest.mark.parametrize("defaults", [None, {"temperature": 0.5}, {"topK": 3}])
def test_the_short_way_and_the_long_way_make_the_same_requests(
    service: Service, defaults: dict[str, Any] | None, tmp_path: Path
) -> None:
    request = {"contents": [{"role": "user", "parts": [{"text": 'a "quoted" ä'}]}], "generationConfig": {"topK": 7}}
    forms = [request, {"key": "kä", "request": request}, {"request": request, "key": "k2"}]
    layouts: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"ensure_ascii": False}]
    for number, (form, layout) in enumerate((form, layout) for form in forms for layout in layouts):
        path = write(tmp_path, f"in{number}.jsonl", json.dumps(form, **layout) + "\n")
        from_line = stage(spec(service=service, path=path, generation_config=defaults), tmp_path)
        from_line_wire = wire(from_line)
        from_list = stage(spec(service=service, rows=[form], generation_config=defaults), tmp_path)
        assert from_line_wire == wire(from_list)


@pytest.mark.parametrize("layout", ['{"key":"k","request": %s}', '{"key": "k", "request":  %s}'])
def test_blanks_before_a_request_are_sent_as_in_earlier_versions_whose_jobs_are_found_by_them(
    layout: str, tmp_path: Path
) -> None:
    staged = stage(spec(path=write(tmp_path, "in.jsonl", layout % BARE % "a")), tmp_path)
    assert staged.files[0].path.read_text() == f'{{"key":"r0-k","request": {BARE % "a"}}}\n'


@pytest.mark.parametrize("text", ["a" * 200_000, r"\n" * 100_000])
def test_the_layout_of_a_line_with_a_long_key_is_seen_in_little_memory(text: str) -> None:
    line = f'{{"key":"{text}","request":{{"contents":[]}}}}'.encode()
    tracemalloc.start()
    try:
        _LAYOUT.match(line)
        assert tracemalloc.get_traced_memory()[1] < len(line)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("member", ['"key": "r1", "request": ', '"request": '])
def test_no_line_can_name_another_row_behind_a_second_request(member: str, tmp_path: Path) -> None:
    line = KEYED % ("r1", "first")
    twice = line[:-1] + ", " + member + BARE % "last" + "}"
    staged = stage(spec(path=write(tmp_path, "in.jsonl", f"{twice}\n{BARE % 'b'}\n")), tmp_path)
    assert [item["key"] for item in wire(staged)] == ["r0-r1", "r1"]
    assert texts(staged) == ["last", "b"]


@pytest.mark.parametrize("order", [["request", "key"], ["key", "request"]])
def test_settings_that_are_empty_in_a_row_are_those_of_all_rows(order: list[str], tmp_path: Path) -> None:
    request = {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "generationConfig": {}}
    members = {"key": "k", "request": request}
    path = write(tmp_path, "in.jsonl", json.dumps({name: members[name] for name in order}) + "\n")
    staged = stage(spec(service=Service.VERTEX, path=path, generation_config={"topK": 3}), tmp_path)
    assert wire(staged)[0]["request"]["generationConfig"] == {"topK": 3}


def test_text_files_hold_a_prompt_a_line(tmp_path: Path) -> None:
    assert texts(stage(spec(path=write(tmp_path, "in.txt", "one\n\ntwo\r\n")), tmp_path)) == ["one", "two"]


def test_a_packed_file_is_unpacked_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"text\nhello\n"))
    assert texts(stage(spec(path=str(tmp_path / "in.csv.gz")), tmp_path)) == ["hello"]


def test_csv_fills_the_template_and_keeps_json_and_doubled_braces(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", 'id,body,First Name\n1,"a\nb",Ada\n2,c,Alan\n')
    template = 'Sum {body} for {First Name}: {"a": {body}} {{}} {{id}}'
    given = spec(path=path, prompt_template=template, key_field="id", carry=("id", "First Name"))
    staged = stage(given, tmp_path)
    assert texts(staged) == [
        'Sum a\nb for Ada: {"a": a\nb} {} {id}',
        'Sum c for Alan: {"a": c} {} {id}',
    ]
    assert [item["key"] for item in wire(staged)] == ["r0-1", "r1-2"]
    assert [json.loads(line) for line in carried(given, tmp_path)] == [
        {"id": "1", "First Name": "Ada"},
        {"id": "2", "First Name": "Alan"},
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt_template": "{boddy}"}, "there is no column 'boddy'; there are id, body"),
        ({"key_field": "nr", "prompt_template": "{body}"}, "key_field: there is no column 'nr'"),
        ({"carry": ("url",), "prompt_template": "{body}"}, "carry: there is no column 'url'"),
        ({}, "prompt_template"),
    ],
)
def test_a_column_that_the_table_lacks_is_refused_naming_those_it_has(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        stage(spec(path=write(tmp_path, "in.csv", "id,body\n1,a\n"), **given), tmp_path)
    assert words in str(refused.value)


def test_rows_of_any_shape_go_through_a_template(tmp_path: Path) -> None:
    rows = [{"id": 1, "body": "x", "tags": ["a"]}, {"id": 2, "body": None, "tags": []}]
    staged = stage(spec(rows=rows, prompt_template="{body} {tags} {id}", key_field="id", carry=("tags",)), tmp_path)
    assert texts(staged) == ['x ["a"] 1', " [] 2"]
    assert staged.carried_types == {"tags": "json"}


def test_request_rows_may_carry_columns_beside(tmp_path: Path) -> None:
    row = {"id": "x1", "url": "u", "contents": "hello"}
    given = spec(rows=[row], key_field="id", carry=("url",))
    assert wire(stage(given, tmp_path))[0]["key"] == "r0-x1"
    assert carried(given, tmp_path) == [b'{"url":"u"}\n']


@pytest.mark.parametrize("value", [b"\xff", [b"text"], {"a": b"\xff"}, [b"\xc3"]], ids=repr)
def test_a_carried_column_of_bytes_that_are_not_text_is_named(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"item 0: carry: the column 'url' holds bytes.*: give base64 as a text"):
        stage(spec(rows=[{"text": "x", "id": b"t\xc3\xbc", "url": value}], carry=("id", "url")), tmp_path)
    assert carried(spec(rows=[{"text": "x", "id": b"t\xc3\xbc"}], carry=("id",)), tmp_path) == [
        '{"id":"tü"}\n'.encode()
    ]


def test_a_column_that_no_row_has_cannot_be_carried(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row has a column url"):
        stage(spec(rows=[{"text": "x"}], carry=("url",)), tmp_path)


def test_rows_of_a_file_that_lack_a_role_get_one_where_the_service_asks_for_it(tmp_path: Path) -> None:
    request = {"contents": [{"parts": [{"text": "a"}, {"text": "b"}]}]}
    path = write(tmp_path, "in.jsonl", json.dumps({"key": "k", "request": request}))
    (line,) = wire(stage(spec(service=Service.VERTEX, path=path), tmp_path))
    assert line["request"]["contents"] == [{**request["contents"][0], "role": "user"}]


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "text": ["a", "b"], "score": [0.5, None]})
    parquet.write_table(table, tmp_path / "in.parquet")
    staged = stage(spec(path=str(tmp_path / "in.parquet"), key_field="id", carry=("score",)), tmp_path)
    assert texts(staged) == ["a", "b"]
    assert staged.carried_types == {"score": "float"}


def test_embeddings_take_title_and_task_type(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", "id,text,head\n1,a,H\n2,b,\n")
    staged = stage(
        spec(kind=JobKind.EMBEDDINGS, path=path, title_field="head", task_type="RETRIEVAL_DOCUMENT"), tmp_path
    )
    first, second = (item["request"] for item in wire(staged))
    assert first == {"content": {"parts": [{"text": "a"}]}, "title": "H", "taskType": "RETRIEVAL_DOCUMENT"}
    assert "title" not in second


class NumpyArray:
    """As numpy's own, which is not among the tests' packages: comparing it gives a value for each member."""

    __module__ = "numpy"
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, members: list[Any]) -> None:
        self._members = members

    def __eq__(self, other: object) -> NumpyArray:  # type: ignore[override]
        return NumpyArray([one == other for one in self._members])

    def __ne__(self, other: object) -> NumpyArray:  # type: ignore[override]
        return NumpyArray([one != other for one in self._members])

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array with more than one element is ambiguous.")

    def tolist(self) -> list[Any]:
        return self._members


def test_media_goes_in_front_of_the_prompt_and_only_its_content_counts_in_the_fingerprint(tmp_path: Path) -> None:
    def attach(uri: str) -> Any:
        return lambda path: Attachment({"fileData": {"fileUri": uri + path, "mimeType": "image/png"}}, f"hash-{path}")

    rows: list[dict[str, Any]] = [
        {"text": "What is it?", "image": "a.png"},
        {"text": "And this?", "image": ["b.png", "c.png"]},
        {"text": "x"},
    ]
    first = stage(spec(rows=rows, media_field="image", attach=attach("one/")), tmp_path)
    parts = [item["request"]["contents"][0]["parts"] for item in wire(first)]
    assert [len(part) for part in parts] == [2, 3, 1]
    assert parts[0][0] == {"fileData": {"fileUri": "one/a.png", "mimeType": "image/png"}}
    again = stage(spec(rows=rows, media_field="image", attach=attach("two/")), tmp_path)
    assert again.layout.fingerprint == first.layout.fingerprint
    rows[0]["image"] = "other.png"
    assert (
        stage(spec(rows=rows, media_field="image", attach=attach("one/")), tmp_path).layout.fingerprint
        != first.layout.fingerprint
    )
    rows = [{"text": "x", "image": found} for found in (NumpyArray(["a.png", "b.png"]), NumpyArray([]), math.nan, "")]
    parts = [
        item["request"]["contents"][0]["parts"]
        for item in wire(stage(spec(rows=rows, media_field="image", attach=attach("")), tmp_path))
    ]
    assert [len(part) for part in parts] == [3, 1, 1, 1]


def test_a_row_of_a_function_that_is_none_is_a_bad_row_at_any_position(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 bad rows") as refused:
        stage(spec(rows=lambda: iter([None, "a", None])), tmp_path)
    assert "item 0:" in str(refused.value)
    assert "item 2:" in str(refused.value)


def test_every_bad_line_is_named_up_to_twenty(tmp_path: Path) -> None:
    lines = [
        BARE % "good",
        "{",
        BARE % "good",
        '{"conents": "x"}',
        "[1]",
        '{"contents": "x", "generationConfig": {"topp": 1}}',
    ]
    with pytest.raises(InputError) as refused:
        stage(spec(path=write(tmp_path, "in.jsonl", "\n".join(lines))), tmp_path)
    told = str(refused.value)
    assert "4 bad rows" in told
    assert [line.split(":")[0].strip() for line in told.splitlines()[1:]] == ["line 2", "line 4", "line 5", "line 6"]
    with pytest.raises(InputError) as refused:
        stage(spec(path=write(tmp_path, "in.jsonl", "{\n" * 50)), tmp_path)
    assert "at least 20 bad rows" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 21


def test_no_message_shows_what_is_in_a_row(tmp_path: Path) -> None:
    lines = ['{"contents": "secret", "shoe": "secret"}', '{"contents": secret}', '{"contents": [{"secret": 1}]}', '"']
    with pytest.raises(InputError) as refused:
        stage(spec(path=write(tmp_path, "in.jsonl", "\n".join(lines))), tmp_path)
    assert "secret" not in str(refused.value)


def test_a_key_used_twice_is_named_with_both_places(tmp_path: Path) -> None:
    lines = [KEYED % ("a", "1"), KEYED % ("b", "2"), KEYED % ("a", "3"), KEYED % ("a", "4")]
    with pytest.raises(InputError) as refused:
        stage(spec(path=write(tmp_path, "in.jsonl", "\n".join(lines)), max_rows_per_job=2), tmp_path)
    assert "line 3: the key 'a' was used before, in line 1" in str(refused.value)
    assert "line 4: the key 'a' was used before, in line 1" in str(refused.value)


def test_a_key_that_comes_back_after_many_others_is_found(tmp_path: Path) -> None:
    # More keys than memory holds.
    lines = [KEYED % (f"k{row}", "x") for row in range(40_000)]
    path = write(tmp_path, "in.jsonl", "\n".join([*lines, KEYED % ("k7", "x")]))
    with pytest.raises(InputError, match=r"line 40001: the key 'k7' was used before, in line 8$"):
        stage(spec(path=path), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("in.jsonl", "", "no rows"),
        ("in.jsonl", "\n\n", "no rows"),
        ("in.csv", "", "no rows"),
        ("in.csv", "text\n", "no rows"),
        ("in.csv", "a,a\n1,2\n", "each column once"),
        ("in.csv", "text,b\n1\n", "1 cells, the header has 2"),
        ("in.csv", 'text\n"open', "not CSV from here on"),
        ("in.jsonl", "[\n{}\n]", "one JSON array"),
        ("in.parquet", "no parquet", "not a Parquet file"),
        ("in.docx", "x", "give a function that yields a text for each row"),
        ("in.txt", "a\x00", "NUL"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, text)
    if words:
        with pytest.raises(ConfigurationError) as refused:
            stage(spec(path=path), tmp_path)
        assert words in str(refused.value)
    else:
        assert stage(spec(path=path), tmp_path).layout.rows == 1


def attach(path: str) -> Attachment:
    raise AssertionError(path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rows": None}, "either as rows or as a path"),
        ({"path": "x.jsonl"}, "either as rows or as a path"),
        ({"rows": [{"text": "x", "m": 7}], "media_field": "m", "attach": attach}, "'m' must hold a path or a list"),
        ({"carry": ("status",)}, "carry cannot take status"),
        ({"carry": ("x", "x")}, "carry names a column twice"),
        ({"carry": ("x",), "carry_types": {"y": "int"}}, "carry_types: y is not in carry"),
        ({"carry": ("x",), "carry_types": {"x": "integer"}}, "unknown type 'integer'"),
        (
            {"response_schema": {}, "generation_config": {"responseSchema": {}}},
            "either output_schema or generation_config",
        ),
        ({"rows": None, "path": "x.jsonl", "encoding": "latin-1"}, "encoding is for CSV and text files only"),
        ({"rows": None, "path": "x.jsonl", "csv_delimiter": ";"}, "csv_delimiter is for CSV files only"),
        (
            {"rows": None, "path": "x.parquet", "encoding": "latin-1"},
            "encoding is for CSV and text files only; the input is",
        ),
        ({"rows": None, "path": "x.parquet", "csv_delimiter": ";"}, "csv_delimiter is for CSV and text files only"),
    ],
)
def test_arguments_that_cannot_work_are_refused(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        stage(spec(**{"rows": ["a"], **given}), tmp_path)


def test_what_exceeds_a_job_becomes_several_numbered_through(tmp_path: Path) -> None:
    given = spec(rows=["x"] * 10, max_rows_per_job=4)
    layout = stage(given, tmp_path).layout
    assert [(shard.index, shard.first_row, shard.rows) for shard in layout.shards] == [(0, 0, 4), (1, 4, 4), (2, 8, 2)]
    lines = [json.loads(line) for file in files(given, tmp_path) for line in file.path.read_bytes().splitlines()]
    assert [item["key"] for item in lines] == [f"r{row}" for row in range(10)]
    width = layout.shards[0].bytes // 4
    by_bytes = spec(rows=["x"] * 10, max_bytes_per_job=3 * width)
    assert [shard.rows for shard in stage(by_bytes, tmp_path).layout.shards] == [3, 3, 3, 1]
    assert all(file.bytes == file.path.stat().st_size <= 3 * width for file in files(by_bytes, tmp_path))


def files(given: InputSpec, folder: Path) -> Iterator[ShardFile]:
    """The lines of each job in turn."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    staged = stage(given, folder)
    reader = ShardReader(given, staged.layout, folder, staged.files)
    for shard in staged.layout.shards:
        yield reader.shard(shard.index)
        assert len(list(folder.glob("shard-*"))) <= 2
    reader.close()


def test_a_row_that_no_job_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"item 1: the request has \d+ bytes; a job takes 200"):
        stage(spec(rows=["x", "x" * 500], max_bytes_per_job=200), tmp_path)


def test_the_services_limits_hold_where_the_author_sets_none() -> None:
    assert job_limits(Service.GEMINI, JobKind.GENERATION) == (None, 2_000_000_000)
    assert job_limits(Service.VERTEX, JobKind.GENERATION) == (200_000, 1_000_000_000)
    assert job_limits(Service.VERTEX, JobKind.EMBEDDINGS, "gemini-embedding-001").rows == 1_000_000
    assert job_limits(Service.VERTEX, JobKind.EMBEDDINGS, "text-embedding-005").rows == 30_000
    assert spec(rows=[""], service=Service.VERTEX, max_rows_per_job=10**9).limits().rows == 200_000


def test_a_column_is_carried_under_any_name_that_the_output_row_does_not_have(tmp_path: Path) -> None:
    row = {"text": "t", "embedding": "e"}
    vectors = spec(rows=[row], kind=JobKind.EMBEDDINGS, prompt_template="{text}", carry=("text",))
    assert carried(vectors, tmp_path) == [b'{"text":"t"}\n']
    texts = spec(rows=[row], prompt_template="{text}", carry=("embedding",))
    assert carried(texts, tmp_path) == [b'{"embedding":"e"}\n']
    with pytest.raises(ConfigurationError, match="carry cannot take text: result rows already have columns"):
        stage(spec(rows=[row], carry=("text",)), tmp_path)
    with pytest.raises(ConfigurationError, match="carry cannot take embedding, status"):
        stage(spec(rows=[row], kind=JobKind.EMBEDDINGS, carry=("status", "embedding")), tmp_path)


def test_the_fingerprint_knows_everything_that_decides_about_the_answers(tmp_path: Path) -> None:
    base: dict[str, Any] = {"rows": ["a", "b"], "project": "p", "location": "l"}
    first = stage(spec(**base), tmp_path).layout.fingerprint
    assert len(first) == 12
    assert stage(spec(**base), tmp_path).layout.fingerprint == first
    others: list[dict[str, Any]] = [
        {"rows": ["b", "a"]},
        {"rows": ["a", "b", "c"]},
        {"rows": ["ab", ""][:1]},
        {"model": "gemini-2.5-pro"},
        {"service": Service.VERTEX},
        {"project": "q"},
        {"location": "m"},
        {"generation_config": {"temperature": 0}},
        {"system_instruction": "s"},
        {"response_schema": {"type": "STRING"}},
        {"request_defaults": {"safetySettings": []}},
        {"max_rows_per_job": 1},
    ]
    seen = {first} | {stage(spec(**{**base, **other}), tmp_path).layout.fingerprint for other in others}
    assert len(seen) == len(others) + 1


def test_the_fingerprint_does_not_care_how_the_model_is_spelled(tmp_path: Path) -> None:
    spellings = ("gemini-2.5-flash", "models/gemini-2.5-flash")
    assert len({stage(spec(rows=["a"], model=model), tmp_path).layout.fingerprint for model in spellings}) == 1


def test_tokens_are_estimated_and_warnings_kept(tmp_path: Path) -> None:
    staged = stage(spec(rows=[{"contents": "x" * 4000, "config": {"temperature": 1}}]), tmp_path)
    assert 1000 <= staged.estimated_input_tokens <= 1100
    assert staged.warnings == ("SDK-style 'config' was turned into the REST form",)


def test_a_schema_goes_into_every_request(tmp_path: Path) -> None:
    staged = stage(spec(rows=["a"], response_schema={"type": "STRING"}), tmp_path)
    assert wire(staged)[0]["request"]["generationConfig"] == {
        "responseSchema": {"type": "STRING"},
        "responseMimeType": "application/json",
    }


@pytest.mark.parametrize("name", ["responseMimeType", "response_mime_type"])
def test_a_schema_and_responses_that_are_not_json_are_refused(name: str, tmp_path: Path) -> None:
    def staged(kind: str | None) -> Staged:
        given = spec(rows=["a"], response_schema={"type": "STRING"}, generation_config={name: kind})
        return stage(given, tmp_path)

    for kind in ("text/plain", "text/x.enum"):
        with pytest.raises(ConfigurationError, match="output_schema needs responses in JSON"):
            staged(kind)
    for fine in (None, "application/json"):
        assert wire(staged(fine))[0]["request"]["generationConfig"]["responseMimeType"] == "application/json"


def test_the_input_is_closed_whatever_happens(tmp_path: Path) -> None:
    handles: list[io.BytesIO] = []

    def opener(_: str) -> io.BytesIO:
        handles.append(io.BytesIO(b"{\n" * 30))
        return handles[-1]

    with pytest.raises(InputError, match="at least 20 bad rows"):
        stage(spec(path="any.jsonl", opener=opener), tmp_path)
    assert handles[0].closed


def test_the_repr_of_a_spec_shows_no_prompt() -> None:
    shown = repr(spec(rows=["secret"], prompt_template="secret {a}", system_instruction="secret"))
    assert "secret" not in shown


def test_a_layout_comes_back_from_its_numbers(tmp_path: Path) -> None:
    layout = stage(spec(rows=["x"] * 7, max_rows_per_job=3), tmp_path).layout
    assert Layout.from_plain(json.loads(json.dumps(layout.plain()))) == layout
    assert [layout.shard_of(row).index for row in range(7)] == [0, 0, 0, 1, 1, 1, 2]


def test_the_fingerprint_is_that_of_version_0_1_0(tmp_path: Path) -> None:
    # Jobs that an earlier version made are found by it: another one would buy them again.
    def attach(uri: str) -> Attachment:
        return Attachment({"fileData": {"fileUri": uri, "mimeType": "image/png"}}, "h")

    pictures: dict[str, Any] = {
        "rows": [{"text": "a", "image": "i"}, {"text": "b"}],
        "media_field": "image",
        "attach": attach,
        "generation_config": {"temperature": 0},
    }
    vertex = {"service": Service.VERTEX, "project": "p", "location": "l"}
    known = {
        "95092cf68919": spec(rows=["a", "b"]),
        "762dbc219692": spec(rows=["x"] * 10, max_rows_per_job=4),
        "3c152cb94cfc": spec(**vertex, **pictures),
        "4c86a748f023": spec(rows=["t"], kind=JobKind.EMBEDDINGS, model="gemini-embedding-001"),
    }
    assert [stage(given, tmp_path).layout.fingerprint for given in known.values()] == list(known)
