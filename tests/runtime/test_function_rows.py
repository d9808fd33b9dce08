"""Rows that a function gives: called once for a submission, kept while its job runs, none taken from another run."""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from task_context import StateStore, task_context

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.rows.files import LocalFiles
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.stage import stage
from airflow_provider_gemini_batch.runtime.outputs import SavedRows
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.runtime.task_setup import identity_of

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator
    from airflow_provider_gemini_batch.runtime.create_task import TaskRun


class Function:
    """Gives the rows that it was last told to, and counts its calls."""

    def __init__(self, *rows: str) -> None:
        self.rows = rows
        self.calls = 0

    def __call__(self) -> list[str]:
        self.calls += 1
        return list(self.rows)


def spec(function: Function) -> InputSpec:
    return InputSpec(service=Service.GEMINI, model="gemini-2.5-flash", rows=function)


def kept(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_of_an_earlier_try_are_used_and_the_function_is_not_called(tmp_path: Path) -> None:
    path, function = tmp_path / "rows.jsonl", Function("one")
    spool = SavedRows(str(path), Paths())
    spool.spec(spec(function), again=False)
    function.rows = ("two",)
    spool.spec(spec(function), again=False)
    assert (function.calls, kept(path)) == (1, ["one"])


def test_a_first_try_takes_no_rows_that_a_deleted_run_left(tmp_path: Path) -> None:
    path, function = tmp_path / "rows.jsonl", Function("old")
    SavedRows(str(path), Paths()).spec(spec(function), again=False)
    function.rows = ("new",)
    SavedRows(str(path), Paths(), anew=True).spec(spec(function), again=False)
    assert kept(path) == ["new"]


@pytest.mark.parametrize("anew", [True, False])
def test_after_a_wait_the_function_is_never_called(tmp_path: Path, *, anew: bool) -> None:
    path, function = tmp_path / "rows.jsonl", Function("one")
    spool = SavedRows(str(path), Paths(), anew=anew)
    with pytest.raises(InputError, match="not at"):
        spool.spec(spec(function), again=True)
    spool.spec(spec(function), again=False)
    spool.spec(spec(function), again=True)
    assert (function.calls, kept(path)) == (1, ["one"])


def test_a_bad_row_is_named_by_its_place_in_what_the_function_gave(tmp_path: Path) -> None:
    found = SavedRows(str(tmp_path / "rows.jsonl"), Paths()).spec(spec(Function("one", " ", "three", "")), again=False)
    with pytest.raises(InputError, match="item 1: the text is empty\n  item 3: the text is empty"):
        stage(found, tmp_path)


def begin(function: Function, folder: Path, **arguments: Any) -> tuple[Any, TaskRun]:
    options = {"output_path": f"{folder}/out.jsonl", **arguments}
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=function, **options)
    return task, task.task_run(task_context())


@pytest.mark.usefixtures("emulator")
def test_a_full_disk_is_told_in_words_and_tried_again() -> None:
    def full() -> list[str]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=full)
    with pytest.raises(AirflowException, match=r"disk of this worker is full.* \(No space .*TMPDIR") as caught:
        task.execute(task_context())
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet", ""])
def test_a_reader_of_a_pattern_meets_no_file_but_the_output(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DuckDB and polars take *.parquet for any such name, also one that begins with a dot.
    written: list[str] = []
    real = LocalFiles.write_whole

    def noted(files: LocalFiles, path: str) -> Any:
        written.append(path.rpartition("/")[2])
        return real(files, path)

    monkeypatch.setattr(LocalFiles, "write_whole", noted)
    task, _ = begin(Function("One."), tmp_path, output_path=f"{tmp_path}/{output}", repair_rounds=1)
    with pytest.raises(TaskDeferred), task.task_run(task_context(StateStore())) as run:
        run.begin()
    assert written
    assert [name for name in written if name.endswith((".jsonl", ".parquet"))] == []


def test_a_run_that_was_deleted_and_made_again_sends_the_rows_of_today(emulator: Emulator, tmp_path: Path) -> None:
    function = Function("New.")
    _, run = begin(function, tmp_path)
    # What is kept has the name of the task instance, which a run that was made again under its id shares.
    rows = tmp_path / f".{identity_of(task_context()['ti']).digest}-0.rows"
    rows.write_text('"Old."\n"Older."\n')
    with pytest.raises(TaskDeferred), run:
        run.begin()
    assert (kept(rows), function.calls) == (["New."], 1)
    assert [job["rows"] for job in emulator.control.books()["jobs"]] == [1]


@pytest.mark.parametrize("arguments", [{"dry_run": True}, {"wait_for_completion": False}], ids=["dry run", "no wait"])
@pytest.mark.usefixtures("emulator")
def test_rows_are_not_kept_for_nobody(arguments: dict[str, Any], tmp_path: Path) -> None:
    function = Function("One.")
    _, run = begin(function, tmp_path, **arguments)
    with run:
        run.begin()
    assert function.calls == 1
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_task_that_has_failed_for_good_are_not_kept(emulator: Emulator, tmp_path: Path) -> None:
    emulator.control.faults(job_ending={"state": "FAILED", "code": 3, "message": "no"})
    function = Function("One.")
    task, run = begin(function, tmp_path)
    with pytest.raises(TaskDeferred) as deferred, run:
        run.begin()
    assert len(list(tmp_path.iterdir())) == 1
    emulator.control.advance(3600)
    with pytest.raises(AirflowFailException), task.task_run(task_context()) as again:
        again.resume(None, (deferred.value.kwargs or {})["memo"])
    assert function.calls == 1
    assert list(tmp_path.iterdir()) == []


def test_rows_that_were_kept_before_a_clear_are_removed_with_those_of_today(emulator: Emulator, tmp_path: Path) -> None:
    store = StateStore()
    task, _ = begin(Function("One."), tmp_path)
    with pytest.raises(TaskDeferred), task.task_run(task_context(store)) as run:
        run.begin()
    (old,) = tmp_path.glob(".*.rows")
    assert old.name.endswith("-0.rows")
    # A person clears the task while it waits, so that the first try never comes to its end.
    cleared = task_context(store, max_tries=1, try_number=2)
    with pytest.raises(TaskDeferred) as deferred, task.task_run(cleared) as run:
        run.begin()
    assert len(list(tmp_path.glob(".*.rows"))) == 2
    emulator.control.advance(3600)
    with task.task_run(cleared) as run:
        run.resume(None, (deferred.value.kwargs or {})["memo"])
    assert not list(tmp_path.glob(".*"))


def saved(path: Path, rows: Any, **arguments: Any) -> list[Any]:
    made = InputSpec(service=Service.GEMINI, model="m", rows=rows, **arguments)
    read_again = SavedRows(str(path), Paths()).spec(made, again=False)
    staged = stage(read_again, path.parent)
    return [json.loads(line) for file in staged.files.values() for line in file.path.read_bytes().splitlines()]


TABLE = pa.table({"id": [1, 2], "prompt": ["a", "b"]})


@pytest.mark.parametrize("rows", [lambda: TABLE, lambda: iter(TABLE.to_batches()), TABLE.to_reader])
def test_a_frame_of_a_function_is_read_as_a_frame_that_is_handed_over(rows: Any, tmp_path: Path) -> None:
    lines = saved(tmp_path / "rows.jsonl", rows, key_field="id")
    assert [line["key"] for line in lines] == ["r0-1", "r1-2"]
    assert [line["request"]["contents"][0]["parts"] for line in lines] == [[{"text": "a"}], [{"text": "b"}]]
    with pytest.raises(InputError, match="key_field: there is no column 'idd'; there are id, prompt"):
        saved(tmp_path / "other.jsonl", rows, key_field="idd", prompt_template="{prompt}")
    with pytest.raises(ConfigurationError, match="say with prompt_template what to make of the columns x, y"):
        saved(tmp_path / "third.jsonl", lambda: pa.table({"x": [1], "y": [2]}))
    assert not list(tmp_path.glob("*.part"))


def test_what_a_function_gives_is_saved_as_it_is_meant(tmp_path: Path) -> None:
    row = {"price": Decimal("1.50"), "gone": float("nan"), "day": date(2026, 1, 2), "many": (1, None)}
    (line,) = saved(tmp_path / "rows.jsonl", lambda: [row], prompt_template="{price}|{gone}|{day}|{many}")
    assert line["request"]["contents"][0]["parts"][0]["text"] == "1.50||2026-01-02|[1,null]"


class Named(NamedTuple):
    id: int


def test_a_row_of_a_database_or_a_library_is_refused_with_what_makes_a_dict_of_it(tmp_path: Path) -> None:
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    series = type("Series", (), {"to_dict": dict})()
    cases = {"_asdict": Named(1), "dict()": database.execute("select 1 as id").fetchone(), "to_dict()": series}
    database.close()
    for how, row in cases.items():
        with pytest.raises(InputError, match=re.escape(f"(give {'its ' if how != 'dict()' else ''}{how}")):
            saved(tmp_path / "rows.jsonl", lambda row=row: [row], prompt_template="{id}")
    with pytest.raises(InputError, match="not a list: give a dict that names the columns"):
        saved(tmp_path / "rows.jsonl", lambda: [(1, "a")], prompt_template="{id}")


@pytest.mark.parametrize("odd", [{"a", "b"}, b"a", object(), iter("a")], ids=["set", "bytes", "object", "iterator"])
def test_what_would_be_other_rows_the_next_time_is_not_saved(odd: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="item 1: the row holds in 'tools'"):
        saved(tmp_path / "rows.jsonl", lambda: ["one", {"text": "two", "tools": [odd]}])
    assert not list(tmp_path.iterdir())


def test_a_row_without_a_bottom_or_with_half_a_character_is_not_saved(tmp_path: Path) -> None:
    deep: Any = "a"
    for _ in range(5000):
        deep = [deep]
    for odd in (deep, "\ud800"):
        with pytest.raises(InputError, match="item 0: it cannot be written as JSON"):
            saved(tmp_path / "rows.jsonl", lambda odd=odd: [{"text": odd}])
