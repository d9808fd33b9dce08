"""The file for rows that came too early gives back what was put in, in order, whatever the order before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.rows.reorder import Spill

ROWS = 5000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spill") / "spill.jsonl"


def taken_out(spill: Spill, first: int, rows: int) -> dict[int, bytes]:
    """The lines by row; on the way, that the pieces follow each other from the first row to the last."""
    found: dict[int, bytes] = {}
    expected = first
    for row, last, piece in spill.pieces(first):
        assert row == expected
        lines = piece.splitlines(keepends=True)
        assert len(lines) == last - row or (not lines and last == row + 1)
        found.update(zip(range(row, last), lines, strict=False))
        expected = last
    assert expected == max(first, rows)
    return found


@given(
    rows=st.sampled_from([1, 2, 255, 256, 257, 1024, ROWS]),
    puts=st.lists(st.tuples(st.integers(0, ROWS - 1), st.sampled_from([1, 50, 9000, 33_000])), max_size=60),
    dense=st.booleans(),
    first=st.integers(0, ROWS),
)
def test_rows_come_out_in_order_as_they_were_last_put_in(
    place: Path,
    rows: int,
    puts: list[tuple[int, int]],
    dense: bool,  # noqa: FBT001
    first: int,
) -> None:
    spill = Spill(place, rows)
    wanted: dict[int, bytes] = {}
    every = [(row, 20) for row in reversed(range(rows))] if dense else []
    for turn, (row, width) in enumerate([*every, *puts]):
        line = b"%d %d %s\n" % (row % rows, turn, b"x" * width)
        spill.add([row % rows], [line])
        wanted[row % rows] = line
    first = min(first, rows)
    assert taken_out(spill, first, rows) == {row: line for row, line in wanted.items() if row >= first}
    spill.close()
    assert not place.exists()


def test_whole_neighbourhoods_come_out_in_one_piece(place: Path) -> None:
    spill = Spill(place, ROWS)
    for row in reversed(range(ROWS)):
        spill.add([row], [b"%d\n" % row])
    assert len(list(spill.pieces(0))) < ROWS // 10
    spill.close()


def test_a_file_that_was_cut_is_an_error_and_no_row_is_written_half(place: Path) -> None:
    spill = Spill(place, 2)
    spill.add([1], [b"x" * 400_000 + b"\n"])
    os.truncate(place, 20_000)
    with pytest.raises(OSError, match="was cut"):
        list(spill.pieces(0))
    spill.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("width", [20_000, 400_000])
def test_a_full_disk_is_an_error_and_no_file_is_left(width: int, tmp_path: Path) -> None:
    place = tmp_path / "spill.jsonl"
    place.symlink_to("/dev/full")
    spill = Spill(place, 2)

    def put_in_and_take_out() -> None:
        spill.add([1], [b"x" * width + b"\n"])
        list(spill.pieces(0))

    with pytest.raises(OSError, match="No space left"):
        put_in_and_take_out()
    spill.close()
    assert not place.is_symlink()
