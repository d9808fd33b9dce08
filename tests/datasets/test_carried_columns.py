"""Carried columns of datasets: their types over all parts, and parts that get others without a new job."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from airflow.sdk.exceptions import AirflowException
from datasets.board import CARRY, Board, BreaksOff, write_part
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet

if TYPE_CHECKING:
    from pathlib import Path


def test_carried_columns_that_have_changed_are_written_without_paying_for_the_responses_again(board: Board) -> None:
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 3)
    board.run_whole()
    texts = arrow_dataset.dataset(board.target).to_table(columns=["id", "text", "day"]).to_pylist()
    table = parquet.read_table(board.source / "a.parquet")
    table = table.set_column(table.schema.get_field_index("note"), "note", pa.array(["new"] * 3))
    parquet.write_table(table, board.source / "a.parquet")
    board.again("second").run_whole()
    notes = arrow_dataset.dataset(board.target).to_table(columns=["note"]).column("note").to_pylist()
    assert sorted(notes) == ["new", "new", "new", "note 0", "note 1", "note 2"]
    for run, carry in (("fewer", CARRY[:1]), ("none", ()), ("more", CARRY)):
        board.again(run, carry=carry).run_whole()
        found = arrow_dataset.dataset(board.target)
        assert [name for name in found.schema.names if name in CARRY] == [*carry]
    assert found.to_table(columns=["id", "text", "day"]).to_pylist() == texts
    assert len({parquet.read_schema(path) for path in board.target.glob("*.parquet")}) == 1
    assert len(board.states()) == 2


def test_columns_that_were_out_of_reach_when_a_part_was_landed_come_with_the_next_run(board: Board) -> None:
    board.carry = ["v"]
    board.source.mkdir()
    path = board.source / "a.csv"
    path.write_text("id,text,v\n1,One.,a\n2,Two.,b\n")
    parts = board.plan()
    board.run_part(0, parts[0])
    whole = path.read_text()
    path.write_text("id,text,v\n1,Another.,c\n")
    (record,) = [name for name in board.instances[0].store if name.startswith("gemini_batch_input")]
    del board.instances[0].store[record]
    board.end_all()
    with pytest.raises(AirflowException, match="Columns to be carried into the output are out of reach"):
        board.run_part(0, parts[0])
    assert arrow_dataset.dataset(board.target).to_table().column("v").to_pylist() == [None, None]
    path.write_text(whole)
    board.again("next").run_whole()
    assert arrow_dataset.dataset(board.target).to_table().column("v").to_pylist() == ["a", "b"]
    assert len(board.states()) == 1


@pytest.mark.parametrize("reads", range(4))
def test_a_storage_that_breaks_off_while_a_part_gets_other_columns_buys_nothing(
    reads: int, board: Board, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(tmp_path / "a.parquet", 3)
    bucket.put(f"{tmp_path}/a.parquet", "/bucket/in/a.parquet")
    remote: Any = Board(board.service, "memory://bucket/in", "memory://bucket/out", carry=["id"])  # type: ignore[arg-type]
    remote.run_whole()
    real = type(bucket)._open

    def breaking(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        found = real(self, path, mode, **options)
        is_part = mode == "rb" and "/part-" in path and path.endswith(".parquet")
        return BreaksOff(found.getvalue(), reads) if is_part else found

    again = remote.again("again", carry=["id", "day"])
    (part,) = again.plan()
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "_open", breaking)
        with pytest.raises(OSError, match="Socket is closed"):
            again.run_part(0, part)
    assert again.run_part(0, part)["state"] == "WHOLE"
    assert len(board.states()) == 1


@pytest.mark.parametrize("response", [False, True])
def test_json_lines_get_other_carried_columns_without_a_new_job(response: bool, board: Board, tmp_path: Path) -> None:  # noqa: FBT001
    board.arguments = {"keep_response": response, "output_path": f"{tmp_path}/o.jsonl"}
    (tmp_path / "a.csv").write_text("id,text,v\n1,One.,5\n2,Two.,\n")
    rows: list[list[dict[str, Any]]] = []
    for run, carry in enumerate((["v"], [], ["id", "v"], ["id"])):
        board.carry = carry
        again = board.again(f"{run}")
        for _ in range(2):
            again.run_part(0, {"input_path": f"{tmp_path}/a.csv"})
            again.end_all()
        rows.append([json.loads(line) for line in (tmp_path / "o.jsonl").read_bytes().splitlines()])
        assert [[row.pop(name) for name in carry] for row in rows[-1]] == [
            [{"id": key, "v": v}[name] for name in carry] for key, v in (("1", "5"), ("2", ""))
        ]
        assert ([*rows[-1][0]][-1] == "response") is response
    assert all(one == rows[0] for one in rows)
    assert len(board.states()) == 1
    # What is there is damaged, so it is bought again.
    (tmp_path / "o.jsonl").write_text("{}\n")
    board.again("damaged", carry=["v"]).run_part(0, {"input_path": f"{tmp_path}/a.csv"})
    assert len(board.states()) == 2


@pytest.mark.parametrize("left", [None, 0, 100])
def test_json_lines_that_are_gone_or_lost_their_end_are_bought_again(
    left: int | None, board: Board, tmp_path: Path
) -> None:
    board.arguments = {"output_path": f"{tmp_path}/o.jsonl"}
    (tmp_path / "a.csv").write_text("id,text\n1,One.\n2,Two.\n")
    output = tmp_path / "o.jsonl"
    for run in ("first", "whole", "damaged"):
        if run == "damaged":
            whole = output.read_bytes()
            output.unlink() if left is None else output.write_bytes(whole[:left])
        again = board.again(run, carry=[])
        for _ in range(2):
            again.run_part(0, {"input_path": f"{tmp_path}/a.csv"})
            again.end_all()
        assert len(output.read_bytes().splitlines()) == 2
    assert len(board.states()) == 2


def test_types_of_carried_columns_do_not_matter_to_json_lines(board: Board, tmp_path: Path) -> None:
    board.carry = ["v"]
    (tmp_path / "a.csv").write_text("id,text,v\n1,One.,5\n")
    for run, types in (("a", {}), ("b", {"v": "int"})):
        part = {"input_path": f"{tmp_path}/a.csv", "output_path": f"{tmp_path}/o.jsonl", "carry_types": types}
        again = board.again(run)
        again.run_part(0, part)
        again.end_all()
        again.run_part(0, part)
    assert len(board.states()) == 1


def test_the_services_own_json_stays_behind_carried_columns_that_change(board: Board) -> None:
    board.arguments = {"keep_response": True}
    write_part(board.source / "a.parquet", 3)
    for run, carry in (("a", ["id"]), ("b", ["day", "id"])):
        board.again(run, carry=carry).run_whole()
        found = arrow_dataset.dataset(board.target)
        assert found.schema.names[-len(carry) - 1 :] == [*carry, "response"]
        assert all("responseId" in row["response"] for row in found.to_table().to_pylist())
    assert len(board.states()) == 1


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ((pa.string(), pa.dictionary(pa.int32(), pa.string())), pa.string()),
        ((pa.timestamp("us", "UTC"), pa.timestamp("ms", "Europe/Berlin")), pa.timestamp("us", "UTC")),
        ((pa.int32(), pa.float64()), pa.float64()),
        ((pa.decimal128(9, 2), pa.decimal128(12, 4)), pa.decimal128(12, 4)),
        ((pa.int64(), pa.decimal128(9, 2)), pa.decimal128(22, 2)),
        ((pa.decimal128(9, 2), pa.uint32()), pa.decimal128(12, 2)),
        ((pa.large_string(), pa.null()), pa.string()),
        ((pa.large_string(), pa.string_view()), pa.string()),
        ((pa.uint64(), pa.int64()), pa.decimal128(20, 0)),
        ((pa.list_(pa.timestamp("us", "UTC")), pa.list_(pa.timestamp("us", "Europe/Berlin"))), pa.string()),
        ((pa.struct([("a", pa.int64())]), pa.struct([("a", pa.string())])), pa.string()),
    ],
    ids=str,
)
def test_columns_that_files_store_differently_are_one_column(
    kinds: tuple[pa.DataType, pa.DataType], found: pa.DataType, board: Board
) -> None:
    board.carry = ["id", "v"]
    board.source.mkdir()
    for name, kind in zip("ab", kinds, strict=True):
        empty = pa.array([None, None], type=kind if not pa.types.is_dictionary(kind) else pa.string()).cast(kind)
        table = pa.table({"id": [f"{name}1", f"{name}2"], "text": ["One.", "Two."], "v": empty})
        parquet.write_table(table, board.source / f"{name}.parquet")
    assert board.run_whole()["counts"]["succeeded"] == 4
    assert arrow_dataset.dataset(board.target).schema.field("v").type == found


@pytest.mark.parametrize(
    ("first", "late", "found"),
    [
        (pa.array([1, None]), pa.array([0.5, 2]), [1.0, None, 0.5, 2.0]),
        (pa.array([None, None], pa.null()), pa.array([date(2026, 1, 1)] * 2), [None, None, *[date(2026, 1, 1)] * 2]),
        (pa.array([1, None]), pa.array([Decimal("0.50")] * 2), [Decimal(1), None, *[Decimal("0.5")] * 2]),
        (
            pa.array([Decimal("0.5")] * 2),
            pa.array([Decimal("12.3456")] * 2),
            [*[Decimal("0.5")] * 2, *[Decimal("12.3456")] * 2],
        ),
        (pa.array([1, None]), pa.array([2**64 - 1] * 2, pa.uint64()), [Decimal(1), None, *[Decimal(2**64 - 1)] * 2]),
        (pa.array([2**60 + 1] * 2), pa.array([0.5, 2]), [float(2**60 + 1)] * 2 + [0.5, 2.0]),
    ],
    ids=str,
)
def test_a_late_file_with_a_wider_type_does_not_buy_the_other_parts_again(
    first: pa.Array, late: pa.Array, found: list[Any], board: Board
) -> None:
    board.carry = ["v"]
    board.source.mkdir()
    for run, values in (("a", first), ("b", late)):
        table = pa.table({"id": [f"{run}1", f"{run}2"], "text": ["One.", "Two."], "v": values})
        parquet.write_table(table, board.source / f"{run}.parquet")
        assert board.again(run).run_whole()["parts"] == (1 if run == "a" else 2)
    rows = arrow_dataset.dataset(board.target).to_table(columns=["key", "text", "v"]).to_pylist()
    assert [row["v"] for row in sorted(rows, key=lambda row: str(row["key"]))] == found
    assert all(row["text"] for row in rows)
    assert len({parquet.read_schema(path) for path in board.target.glob("*.parquet")}) == 1
    assert len(board.states()) == 2


@pytest.mark.parametrize("kind", ["int", "float", "bool", "date", "timestamp", "timestamp_utc", "decimal(5,2)"])
def test_an_empty_cell_of_a_csv_is_null_in_a_column_with_a_type(kind: str, board: Board) -> None:
    board.carry = ["v", "w"]
    board.source.mkdir()
    (board.source / "a.csv").write_text("id,text,v,w\n1,One.,,\n")
    board.run_whole(carry_types={"v": kind})
    (row,) = arrow_dataset.dataset(board.target).to_table().to_pylist()
    assert (row["v"], row["w"], row["warning"]) == (None, "", None)


def test_a_value_that_a_type_has_lost_is_not_taken_from_the_old_part(board: Board) -> None:
    board.carry = ["v"]
    board.source.mkdir()
    (board.source / "a.csv").write_text("id,text,v\n1,One.,1.5\n2,Two.,2\n")
    for run, kind, values in (("a", "int", [None, 2]), ("b", "float", [1.5, 2.0])):
        board.again(run).run_whole(carry_types={"v": kind})
        found = arrow_dataset.dataset(board.target).to_table()
        assert found.column("v").to_pylist() == values
        assert found.column("warning").to_pylist() == [
            "v: the column cannot hold this row's value" * (run == "a") or None,
            None,
        ]
    assert len(board.states()) == 1


def test_a_carried_column_that_a_file_lacks_is_null_in_its_part(board: Board) -> None:
    board.carry = ["v", "day"]
    for path, row in (("day=1/a", {"id": "a", "text": "A.", "v": 1}), ("b", {"id": "b", "text": "B."})):
        (board.source / path).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist([row]), board.source / f"{path}.parquet")
    assert board.run_whole()["counts"]["succeeded"] == 2
    found = arrow_dataset.dataset(board.target).to_table(columns=["key", "v", "day"])
    assert sorted(found.to_pylist(), key=lambda row: row["key"]) == [
        {"key": "a", "v": 1, "day": "1"},
        {"key": "b", "v": None, "day": None},
    ]


def test_a_carried_column_that_no_line_of_a_part_has_is_null_in_it(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    board.carry = ["v", "day"]
    for path, row in (("day=2026-01-01/a", {"id": "a", "text": "A.", "v": 1}), ("b", {"id": "b", "text": "B."})):
        (board.source / path).parent.mkdir(parents=True, exist_ok=True)
        (board.source / f"{path}.jsonl").write_text(json.dumps(row) + "\n")
    board.run_whole(carry_types={"v": "int", "day": "date"})
    found = arrow_dataset.dataset(board.target).to_table(columns=["v", "day"]).to_pylist()
    assert sorted(found, key=str) == [{"v": 1, "day": date(2026, 1, 1)}, {"v": None, "day": None}]
    assert "carry: no row has a column day, v: it is null in this part" in caplog.text
