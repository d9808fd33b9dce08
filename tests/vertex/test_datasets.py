"""A dataset whose files and parts are objects of Cloud Storage, reached by the connection to Vertex AI alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from datasets.board import Board, write_part
from pyarrow import parquet

if TYPE_CHECKING:
    from pathlib import Path

    from vertex.bench import Bench


FLAT, DEEP = ["a b.parquet", "c%20[1].parquet"], ["day=1/d.parquet"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [("", FLAT + DEEP), ("*.parquet", FLAT), ("**/*.parquet", FLAT + DEEP), ("day=*/*.parquet", DEEP)],
)
def test_a_dataset_of_objects_is_planned_run_and_committed(
    given: str, meant: list[str], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", os.environ["AIRFLOW_CONN_VERTEX"])
    bench.emulator.control.speed(0)
    base = f"gs://data/{tmp_path.name}"
    for number, name in enumerate([*FLAT, *DEEP, "_temporary/e.parquet"]):
        write_part(tmp_path / "in" / f"{number}.parquet", 3)
        bench.put(f"{base}/in/{name}", (tmp_path / "in" / f"{number}.parquet").read_bytes())
    bench.put(f"{base}/in/", b"")  # as a browser makes a folder
    places: Any = {"source": f"{base}/in", "target": f"{base}/out"}
    board = Board(bench.emulator, carry=["id", "price"], **places)
    parts = board.plan(input_path=f"{base}/in/{given}")
    assert [part["input_path"] for part in parts] == [[f"{base}/in/{name}"] for name in meant]
    board.run_all(parts)
    board.end_all()
    board.run_all(parts)
    assert board.commit(parts)["counts"]["succeeded"] == 3 * len(meant)

    def landed() -> list[str]:
        return [f"{base}/out/{name}" for name in bench.objects(f"{base}/out") if name.startswith("part-")]

    rows = [parquet.read_table(pa.BufferReader(bench.read(uri))) for uri in landed()]
    assert sum(map(len, rows)) == 3 * len(meant)
    bench.put(f"{base}/in/day=1/new.parquet", (tmp_path / "in" / "0.parquet").read_bytes())
    bench.store.delete(f"{base}/in/{meant[0]}")
    again = board.again("again")
    left = again.plan(input_path=[f"{base}/in/day=1/new.parquet", *(f"{base}/in/{name}" for name in meant[1:])])
    again.run_all(left)
    again.end_all()
    again.run_part(0, left[0])
    assert again.commit(left)["parts"] == len(landed()) == len(meant)
    assert len(bench.jobs) == len(meant) + 1
    assert "_SUCCESS" in bench.objects(f"{base}/out")
