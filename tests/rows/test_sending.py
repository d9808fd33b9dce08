"""The lines of a job's rows are read again when they are needed, those of the next job ahead, and only if unchanged."""

from __future__ import annotations

import json
from concurrent.futures import wait
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from rows.test_stage import files, spec
from waiting import wait_for

from airflow_provider_gemini_batch.api.errors import InputUnavailable
from airflow_provider_gemini_batch.rows.sending import ShardReader
from airflow_provider_gemini_batch.rows.stage import stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path


class Watched(list[str]):
    """Rows that tell how far they were read, and that can wait or fail at the first row of the third job."""

    def __init__(self) -> None:
        super().__init__(f"text {row}" for row in range(9))
        self.taken: list[str] = []
        self.may_go_on = Event()
        self.may_go_on.set()
        self.fault: Exception | None = None
        self.has_failed = False

    def __iter__(self) -> Iterator[str]:
        self.taken = []
        for number in range(len(self)):
            if number == 6:
                assert self.may_go_on.wait(30)
                if self.fault is not None:
                    self.has_failed = True
                    raise self.fault
            self.taken.append(self[number])
            yield self[number]


@pytest.fixture
def third_job(tmp_path: Path) -> Iterator[tuple[Watched, ShardReader]]:
    """A reader that has written the lines of the first two of three jobs, and rows that were checked."""
    rows = Watched()
    given = spec(rows=rows, max_rows_per_job=3)
    staged = stage(given, tmp_path)
    rows.taken = []
    with closing(ShardReader(given, staged.layout, tmp_path, staged.files)) as reader:
        reader.shard(0)
        yield rows, reader


def test_the_lines_of_the_next_job_are_written_while_the_caller_uploads_those_of_one(
    third_job: tuple[Watched, ShardReader], tmp_path: Path
) -> None:
    rows, reader = third_job
    reader.shard(1)
    wait_for(lambda: len(rows.taken) == len(rows), "the rows of the third job", seconds=10)
    found = [json.loads(line) for line in reader.shard(2).path.read_bytes().splitlines()]
    assert [line["request"]["contents"][0]["parts"][0]["text"] for line in found] == ["text 6", "text 7", "text 8"]
    assert sorted(path.name for path in tmp_path.glob("shard-*")) == ["shard-00001.jsonl", "shard-00002.jsonl"]


def test_a_fault_in_reading_ahead_shows_when_its_job_is_wanted(third_job: tuple[Watched, ShardReader]) -> None:
    rows, reader = third_job
    rows.fault = OSError("the disk is gone")
    reader.shard(1)
    with pytest.raises(OSError, match="the disk is gone"):
        reader.shard(2)


def test_a_fault_in_reading_ahead_does_not_matter_to_other_rows(
    third_job: tuple[Watched, ShardReader], tmp_path: Path
) -> None:
    rows, reader = third_job
    rows.fault = OSError("the disk is gone")
    reader.shard(1)
    wait_for(lambda: rows.has_failed, "the fault")
    rows.fault = None
    assert reader.subset([6, 8], tmp_path / "again.jsonl").rows == 2
    assert reader.shard(2).rows == 3


def test_whoever_stops_waits_for_one_row_at_most(
    third_job: tuple[Watched, ShardReader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, reader = third_job
    rows.may_go_on.clear()
    reader.shard(1)

    def release_and_wait(futures: list[Future[Any]]) -> None:
        rows.may_go_on.set()
        wait(futures)

    monkeypatch.setattr("airflow_provider_gemini_batch.rows.sending.wait", release_and_wait)
    reader.close()
    assert rows.taken[-1] == "text 6"
    assert not (tmp_path / "shard-00002.jsonl").exists()


@pytest.mark.parametrize("beforehand", [[], [0], [2], [1, 0], [0, 1], [0, 1, 2], [0, 1, 0], [0, 1, 3]], ids=str)
def test_rows_can_be_sent_again_byte_for_byte(beforehand: list[int], tmp_path: Path) -> None:
    given = spec(rows=[f"text {row}" for row in range(10)], max_rows_per_job=3)
    lines = [line for file in files(given, tmp_path) for line in file.path.read_bytes().splitlines(keepends=True)]
    reader = ShardReader(given, stage(given, tmp_path).layout, tmp_path)
    for index in beforehand:
        assert reader.shard(index).path.read_bytes() == b"".join(lines[3 * index : 3 * index + 3])
    again = reader.subset([1, 5, 9], tmp_path / "again.jsonl")
    assert again.path.read_bytes() == lines[1] + lines[5] + lines[9]
    assert (again.rows, again.bytes, list(again.numbers)) == (3, again.path.stat().st_size, [1, 5, 9])
    with pytest.raises(IndexError):
        reader.subset([10], tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "changed",
    [["a", "b", "c", "d"], ["a", "b", "x", "d", "e"], ["a", "b", "c", "e", "d"], ["a", "b", "c", {}, "e"], []],
    ids=["shorter", "another row", "another order", "a bad row", "empty"],
)
def test_rows_that_read_differently_are_not_sent(changed: list[Any], tmp_path: Path) -> None:
    layout = stage(spec(rows=["a", "b", "c", "d", "e"], max_rows_per_job=2), tmp_path).layout
    reader = ShardReader(spec(rows=changed), layout, tmp_path)
    with pytest.raises(InputUnavailable, match="has changed"):
        [reader.shard(shard.index) for shard in layout.shards]
    with pytest.raises(InputUnavailable, match="has changed"):
        reader.subset([0, 2, 3, 4], tmp_path / "again.jsonl")


def test_a_change_behind_the_rows_of_a_job_does_not_matter_to_it(tmp_path: Path) -> None:
    layout = stage(spec(rows=["a", "b", "c"], max_rows_per_job=2), tmp_path).layout
    reader = ShardReader(spec(rows=["a", "b", "x"], max_rows_per_job=2), layout, tmp_path)
    assert reader.shard(0).rows == 2
    assert reader.subset([1], tmp_path / "again.jsonl").rows == 1


def test_rows_that_are_sent_again_fill_one_job_at_most(tmp_path: Path) -> None:
    def sent(wanted: Sequence[int], **limits: int) -> list[int]:
        given = spec(rows=[f"text {row}" for row in range(10)], **limits)
        layout = stage(given, tmp_path).layout
        return list(ShardReader(given, layout, tmp_path).subset(wanted, tmp_path / "again.jsonl").numbers)

    assert sent([1, 5, 7, 9], max_rows_per_job=3) == [1, 5, 7]
    assert sent([1, 5, 7], max_rows_per_job=3) == [1, 5, 7]
    width = stage(spec(rows=["text 0"]), tmp_path).layout.shards[0].bytes
    assert sent(range(4, 10), max_bytes_per_job=2 * width) == [4, 5]
