"""Rows that code hands over: an allow list of types, and words for all others."""

from __future__ import annotations

import datetime as dt
import io
from collections import OrderedDict, UserList, deque
from typing import Any

import pyarrow as pa
import pytest
from airflow.sdk import task
from pyarrow import dataset

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.requests.request import BatchRequest
from airflow_provider_gemini_batch.rows.python_rows import python_rows

RECORDS = [{"id": 1, "text": "a"}, {"id": 2, "text": None}]


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
    ],
    ids=["table", "batch", "dataset", "frame", "function"],
)
def test_a_table_is_its_records_and_its_columns_are_known(given: Any) -> None:
    found = python_rows(given)
    assert (list(found.rows), found.columns) == (RECORDS, ("id", "text"))


def test_a_large_frame_is_read_in_pieces_and_in_order() -> None:
    found = python_rows(frame([{"id": number} for number in range(3000)]))
    assert [row["id"] for row in found.rows] == list(range(3000))


async def asynchronous() -> Any:
    yield "a"


@task
def decorated() -> list[str]:
    return ["a"]


class Series:
    """Stands for a column of pandas or polars."""


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
        (Series(), "Series cannot be rows: call its tolist()"),
        (BatchRequest(text="swordfish"), "BatchRequest cannot be rows: it is one row: put it into a list"),
        (dt.date(2026, 1, 1), "date cannot be rows"),
        (yielded(), "can be read only once: hand over the function"),
        (iter(["a"]), "can be read only once"),
        (decorated, "the task decorated was not called: write decorated()"),
        (list, "the class list"),
        (pa.chunked_array([["a"]]), "ChunkedArray cannot be rows: call its to_pylist()"),
        (frame([{0: "a"}]), "a column of the frame is named by int"),
        (pa.table([["a"], ["b"]], names=["x", "x"]), "two columns named x"),
        (lambda: {"a", "b"}, "set cannot be rows"),
        (lambda: iter({"a", "b"}), "set_iterator cannot be rows"),
        (lambda: None, "returned nothing"),
        (lambda: "swordfish", "str cannot be rows"),
        (asynchronous, "is asynchronous"),
        (lambda: io.StringIO("swordfish"), "give the path of a file as input_path"),
    ],
)
def test_everything_else_is_refused_with_its_type_and_the_way_out(given: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        list(python_rows(given).rows)
    assert words in str(refused.value)
    assert "swordfish" not in str(refused.value)
