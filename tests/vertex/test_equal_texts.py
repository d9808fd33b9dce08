"""Texts that come twice, with models whose answers carry no keys: each row gets its answer, whatever job it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from vertex.bench import LEGACY, rows_of

if TYPE_CHECKING:
    from vertex.bench import Bench

TEXTS = ["Same.", "Two.", "Three.", "Same.", "Same.", "Six."]


@pytest.mark.parametrize(
    ("faults", "arguments", "jobs"),
    [
        ({}, {"max_rows_per_job": 2}, [2, 2, 2]),
        ({"row_error_every": 4, "row_error_rounds": r"-0\.0\.0-"}, {"repair_rounds": 1}, [6, 1]),
    ],
    ids=["in several jobs", "in a repair"],
)
def test_equal_texts_are_told_apart_by_their_jobs(
    faults: dict[str, Any], arguments: dict[str, Any], jobs: list[int], bench: Bench
) -> None:
    bench.emulator.control.faults(shuffle=True, **faults)
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(model=LEGACY, inlined_requests=TEXTS, output_path=str(output), **arguments)
    rows = rows_of(output.read_bytes())
    assert summary["counts"] == {"total": 6, "succeeded": 6, "failed": 0}
    assert [row["key"] for row in rows] == list("012345")
    assert rows[0]["embedding"] == rows[3]["embedding"] == rows[4]["embedding"]
    assert len({tuple(row["embedding"]) for row in rows}) == 4
    assert sorted(job["rows"] for job in bench.jobs) == sorted(jobs)
