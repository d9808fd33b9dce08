"""Rows that code hands over: an allow list of types, and words for all others."""

from __future__ import annotations

import datetime as dt
import io
import re
from array import array
from collections import OrderedDict, UserList, deque
from decimal import Decimal
from enum import Enum
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pyarrow as pa
import pytest
from airflow.sdk import task
from airflow.sdk.definitions.xcom_arg import _ConcatResult, _MapResult
from pyarrow import dataset, parquet
from pydantic_core import from_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.requests.request import BatchRequest
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.rows.columns import records_of
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.python_rows import python_rows
from airflow_provider_gemini_batch.rows.stage import Staged, stage
from airflow_provider_gemini_batch.rows.templates import carried_line

RECORDS = [{"id": 1, "text": "a"}, {"id": 2, "text": None}]


class LazyXComSequence(UserList[Any]):
    """Stands for Airflow's, where each element and each slice is a request."""

    asked: ClassVar[list[Any]] = []

    def __getitem__(self, key: Any) -> Any:
        self.asked.append(key)
        return self.data[key]


class Frame:
    """Stands for a pandas frame, which the tests do not install: the members that are used of it."""

    def __init__(self, records: list[dict[Any, Any]]) -> None:
        self._records = records
        self.columns = list(records[0]) if records else []
        self.iloc = self

    def __getitem__(self, some: slice) -> Frame:
        made = Frame(self._records[some])
        made.columns = self.columns
        return made

    def __len__(self) -> int:
        return len(self._records)

    def to_dict(self, form: str) -> list[dict[Any, Any]]:
        assert form == "records"
        return self._records


def frame(records: list[dict[Any, Any]]) -> Any:
    kind = type("DataFrame", (Frame,), {"__module__": "pandas.core.frame"})
    return kind(records)


def yielded() -> Any:
    yield "a"
    yield "b"


@pytest.mark.parametrize(
    "given",
    [
        ["a", "b"],
        ("a", "b"),
        deque(["a", "b"]),
        UserList(["a", "b"]),
        yielded,
        lambda: ["a", "b"],
        lambda: iter(["a", "b"]),
        lambda: map(str, "ab"),
    ],
)
def test_sequences_and_functions_are_their_elements(given: Any) -> None:
    found = python_rows(given)
    assert (list(found.rows), found.columns) == (["a", "b"], None)


TABLE = pa.Table.from_pylist(RECORDS)


@pytest.mark.parametrize(
    "given",
    [
        TABLE,
        TABLE.to_batches()[0],
        dataset.dataset(TABLE),
        frame([{"id": 1, "text": "a"}, {"id": 2, "text": float("nan")}]),
        lambda: TABLE,
        TABLE.to_reader,
        lambda: iter([TABLE.slice(0, 1), TABLE.slice(1)]),
    ],
    ids=["table", "batch", "dataset", "frame", "function", "reader", "pieces"],
)
def test_a_table_is_its_records_and_its_columns_are_known(given: Any) -> None:
    found = python_rows(given)
    assert (list(found.rows), found.columns) == (RECORDS, ("id", "text"))


def test_a_large_frame_is_read_in_pieces_and_in_order() -> None:
    found = python_rows(frame([{"id": number} for number in range(3000)]))
    assert [row["id"] for row in found.rows] == list(range(3000))


async def coroutine() -> Any:
    return ["a"]


async def asynchronous() -> Any:
    yield "a"


@task
def decorated() -> list[str]:
    return ["a"]


class Series:
    """Stands for a column of pandas or polars."""

    def to_list(self) -> list[str]:
        return []


def wanting(context: Any, *, rows: int) -> list[str]:
    return [str(context)] * rows


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a", "b"}, "set cannot be rows: its order changes"),
        (frozenset("ab"), "frozenset cannot be rows"),
        ({"a": 1}, "dict cannot be rows: a dict is one row"),
        (OrderedDict(a=1), "OrderedDict cannot be rows: a dict is one row"),
        ({"a": 1}.keys(), "dict_keys cannot be rows"),
        ({"a": 1}.values(), "dict_values cannot be rows"),
        ("swordfish", "str cannot be rows: a text is one row"),
        (b"swordfish", "bytes cannot be rows"),
        (bytearray(b"swordfish"), "bytearray cannot be rows"),
        (None, "NoneType cannot be rows: the task or function that should give the rows returned nothing"),
        (7, "int cannot be rows"),
        (Series(), "Series cannot be rows: call its to_list()"),
        (array("i", [1]).tobytes, "bytes cannot be rows"),
        (memoryview(b"swordfish"), "memoryview cannot be rows: call its tolist()"),
        (Path("/data/in.csv"), "give the path of a file as input_path"),
        (io.StringIO("swordfish"), "give the path of a file as input_path"),
        (wanting, "the function is called without arguments and requires context, rows: bind them"),
        (partial(wanting, rows=1), "requires context"),
        (BatchRequest(text="swordfish"), "BatchRequest cannot be rows: it is one row: put it into a list"),
        (dt.date(2026, 1, 1), "date cannot be rows"),
        (yielded(), "can be read only once: hand over the function"),
        (iter(["a"]), "can be read only once"),
        (decorated, "the task decorated was not called: write decorated()"),
        (list, "the class list"),
        (pa.chunked_array([["a"]]), "ChunkedArray cannot be rows: call its to_pylist()"),
        (pa.array(["a"]), "StringArray cannot be rows: call its to_pylist()"),
        (TABLE.to_reader(), "can be read only once: hand over the function"),
        (dataset.dataset(TABLE).scanner(), "Scanner cannot be rows: call its to_table()"),
        (lambda: iter([TABLE, TABLE.drop(["text"])]), "have different columns"),
        (lambda: iter([TABLE, {"id": 1}]), "dict cannot be rows"),
        (frame([{0: "a"}]), "a column of the frame is named by int"),
        (pa.table([["a"], ["b"]], names=["x", "x"]), "two columns named x"),
        (lambda: {"a", "b"}, "set cannot be rows"),
        (lambda: iter({"a", "b"}), "set_iterator cannot be rows"),
        (lambda: None, "returned nothing"),
        (lambda: "swordfish", "str cannot be rows"),
        (asynchronous, "is asynchronous"),
        (coroutine, "is asynchronous"),
        (lambda: io.StringIO("swordfish"), "give the path of a file as input_path"),
    ],
)
def test_everything_else_is_refused_with_its_type_and_the_way_out(given: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        list(python_rows(given).rows)
    assert words in str(refused.value)
    assert "swordfish" not in str(refused.value)


def staged(folder: Path, rows: Any, **arguments: Any) -> tuple[Staged, list[Any]]:
    made = stage(InputSpec(service=Service.GEMINI, model="m", rows=rows, **arguments), folder)
    lines = [from_json(line) for file in made.files.values() for line in file.path.read_bytes().splitlines()]
    return made, lines


class Choice(Enum):
    A = "first"


NS = pa.timestamp("ns", "UTC")
TIME = 1_700_000_000_123_456_789
READ = dt.datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pa.array([[TIME]], pa.list_(NS)), [READ]),
        (pa.array([[TIME]], pa.large_list(NS)), [READ]),
        (pa.array([[TIME]], pa.list_(NS, 1)), [READ]),
        (pa.array([[("a", TIME)]], pa.map_(pa.string(), NS)), [("a", READ)]),
        (pa.array([[(TIME, "a")]], pa.map_(NS, pa.string())), [(READ, "a")]),
        (pa.array([TIME], NS).dictionary_encode(), READ),
        (pa.StructArray.from_arrays([pa.array([TIME], NS).dictionary_encode()], ["at"]), {"at": READ}),
        (pa.array([[[{"at": TIME}]]], pa.large_list(pa.list_(pa.struct([("at", NS)]), 1))), [[{"at": READ}]]),
        (pa.array([[1001]], pa.large_list(pa.time64("ns"))), [dt.time(0, 0, 0, 1)]),
        (pa.array([[1001]], pa.list_(pa.duration("ns"), 1)), [dt.timedelta(microseconds=1)]),
        (pa.array(["a"]).dictionary_encode(), "a"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_nanoseconds_are_read_wherever_they_stand_in_a_column(column: Any, read: Any) -> None:
    assert records_of(pa.record_batch([column], ["x"])) == [{"x": read}]


VALUES = {
    "day": dt.date(2026, 1, 2),
    "moment": dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.timezone.utc),
    "price": Decimal("1.50"),
    "id": UUID(int=7),
    "choice": Choice.A,
    "path": Path("/data/a.png"),
    "nested": {"a": [1, None, Choice.A, Decimal("NaN")]},
    "gone": float("nan"),
    "host": IPv4Address("10.0.0.1"),
}


def test_values_of_code_stand_in_prompts_keys_and_results_as_they_are_meant(tmp_path: Path) -> None:
    template = "|".join(f"{{{name}}}" for name in VALUES)
    made, (line,) = staged(
        tmp_path, [VALUES], prompt_template=template, key_field="id", carry=("nested", "choice", "host")
    )
    assert line["request"]["contents"][0]["parts"][0]["text"] == (
        "2026-01-02|2026-01-02 03:04:00+00:00|1.50|00000000-0000-0000-0000-000000000007|first|/data/a.png|"
        '{"a":[1,null,"first",null]}||10.0.0.1'
    )
    assert line["key"] == "r0-00000000-0000-0000-0000-000000000007"
    assert made.carried_types == {"nested": "json", "choice": "str", "host": "str"}
    carried = from_json(carried_line(VALUES, ("nested", "choice", "host")))
    assert carried == {"nested": {"a": [1, None, "first", None]}, "choice": "first", "host": "10.0.0.1"}


@pytest.mark.parametrize(
    ("key", "written"), [(dt.date(2026, 1, 2), "2026-01-02"), (3.0, "3"), (Decimal("4.0"), "4"), (5, "5")]
)
def test_a_key_of_a_frame_or_a_database_is_written_out(key: Any, written: str, tmp_path: Path) -> None:
    _, (line,) = staged(tmp_path, [{"id": key, "text": "a"}], prompt_template="{text}", key_field="id")
    assert line["key"] == f"r0-{written}"


class Odd:
    """Shows its address, another one in each process."""


# Fingerprints must not differ from process to process: a retry would buy the batch again.
@pytest.mark.parametrize(
    ("odd", "word"),
    [({"a", "b"}, "set"), (frozenset("ab"), "set"), (Odd(), "Odd"), ((x for x in "ab"), "generator"), (b"a", "bytes")],
    ids=["set", "frozenset", "object", "generator", "bytes"],
)
def test_values_that_differ_from_process_to_process_are_refused_wherever_they_stand(
    odd: Any, word: str, tmp_path: Path
) -> None:
    given: list[tuple[Any, dict[str, Any]]] = [
        ([{"x": odd}], {"prompt_template": "{x}"}),
        ([{"x": [odd]}], {"prompt_template": "{x}"}),
        (lambda: [{"x": {"y": odd}}], {"prompt_template": "{x}"}),
        ([{"text": "a", "x": [odd]}], {"carry": ("x",)}),
        ([{"text": "a", "generationConfig": {"stopSequences": odd}}], {}),
        (lambda: [{"contents": [{"parts": [{"text": "a"}, {"inlineData": {"data": odd}}]}]}], {}),
        ([BatchRequest(text="a", extra={"tools": [{"x": odd}]})], {}),
        (["a"], {"generation_config": {"stop_sequences": odd}}),
        (["a"], {"request_defaults": {"safetySettings": [{"x": odd}]}}),
        (["a"], {"system_instruction": {"parts": [{"text": odd}]}}),
    ]
    for rows, arguments in given:
        with pytest.raises(InputError, match=word):
            staged(tmp_path, rows, **arguments)
    # What nobody sends does no harm.
    assert staged(tmp_path, [{"text": "a", "x": odd}], prompt_template="{text}")[0].layout.rows == 1


def test_a_row_without_a_bottom_is_refused(tmp_path: Path) -> None:
    deep: Any = "a"
    for _ in range(5000):
        deep = [deep]
    for arguments in ({"prompt_template": "{x}"}, {"carry": ("x",)}, {}):
        with pytest.raises(InputError, match="item 0: the row is nested too deeply"):
            staged(tmp_path, [{"text": "a", "x": deep} if arguments else {"contents": "a", "tools": deep}], **arguments)


def test_frames_of_pandas_become_rows_as_they_are_meant(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas", reason="runs where pandas is installed; Frame above stands for it")
    frame_ = pd.DataFrame(
        {"id": [1.0, 2.0], "n": pd.array([3, None], dtype="Int64"), "at": [pd.Timestamp("2026-01-02"), pd.NaT]},
        index=["x", "y"],
    )
    frame_["kind"] = pd.Categorical(["a", None])
    frame_["list"] = [[1, pd.NA], pd.Series([3]).to_numpy()]
    made, lines = staged(
        tmp_path,
        lambda: iter([frame_.iloc[:1], frame_.iloc[1:]]),
        prompt_template="{n}|{at}|{kind}|{list}",
        key_field="id",
        carry=("n", "at", "kind", "list"),
    )
    texts = [line["request"]["contents"][0]["parts"][0]["text"] for line in lines]
    assert texts == ["3|2026-01-02 00:00:00|a|[1,null]", "|||[3]"]
    assert [line["key"] for line in lines] == ["r0-1", "r1-2"]
    assert made.carried_types == {"n": "int", "at": "str", "kind": "str", "list": "json"}
    for given, words in ((frame_["n"], "call its to_list()"), (frame_.index, "call its to_list()")):
        with pytest.raises(ConfigurationError, match=re.escape(words)):
            python_rows(given)


def test_frames_of_polars_become_rows_as_they_are_meant(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars", reason="runs where polars is installed; the provider does not need it")
    given = {"n": [3, None], "x": [1.5, float("nan")], "at": [dt.date(2026, 1, 2), None], "list": [[1, None], []]}
    made, lines = staged(
        tmp_path, pl.DataFrame(given), prompt_template="{n}|{x}|{at}|{list}", carry=("n", "x", "at", "list")
    )
    texts = [line["request"]["contents"][0]["parts"][0]["text"] for line in lines]
    assert texts == ["3|1.5|2026-01-02|[1,null]", "|||[]"]
    assert made.carried_types == {"n": "int", "x": "float", "at": "str", "list": "json"}
    for other, words in ((pl.DataFrame(given).lazy(), "call its collect()"), (pl.Series([1]), "call its to_list()")):
        with pytest.raises(ConfigurationError, match=re.escape(words)):
            python_rows(other)


def test_an_arrow_dataset_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string())])
    with parquet.ParquetWriter(tmp_path / "a.parquet", schema, use_dictionary=False) as writer:
        for group in range(100):
            writer.write_table(pa.table({"text": [f"{group:02d}" * 10_000] * 200}))
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in python_rows(dataset.dataset(tmp_path)).rows]
    assert len(held) == 100 * 200
    assert max(held) < 200 << 20  # half of it; pyarrow reads some 60 MB ahead of whoever is slow


@pytest.mark.parametrize("count", [0, 3, 256, 600])
def test_what_mapped_tasks_returned_is_asked_for_in_slices(count: int) -> None:
    texts = [f"row {number}" for number in range(count)]
    lazy = LazyXComSequence(texts)
    for given, expected in (
        (lazy, texts),
        (_MapResult(lazy, [str.upper, str.lower]), texts),
        (_ConcatResult([lazy, ["last"], _MapResult(lazy, [str.title])]), [*texts, "last", *map(str.title, texts)]),
    ):
        LazyXComSequence.asked.clear()
        assert list(python_rows(given).rows) == expected
        assert all(isinstance(key, slice) for key in LazyXComSequence.asked)
        assert len(LazyXComSequence.asked) <= 2 * (count // 256 + 1)
