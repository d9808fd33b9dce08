"""Rows of the author's own on Vertex AI: staged, answered, landed, and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vertex.bench import rows_of

if TYPE_CHECKING:
    from vertex.bench import Bench


def test_rows_are_staged_answered_and_landed_and_nothing_is_left(bench: Bench) -> None:
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(inlined_requests=["One.", {"key": "two", "text": "Two."}], output_path=str(output))
    rows = rows_of(output.read_bytes())
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [row["key"] for row in rows][1] == "two"
    assert summary["counts"] == {"total": 2, "succeeded": 2, "failed": 0}
    assert summary["output"] == str(output)
    assert bench.objects() == []
