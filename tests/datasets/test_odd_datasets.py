"""Datasets whose files, runs or commits are not as one would wish."""

from __future__ import annotations

import gzip
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timezone
from math import inf
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from datasets.board import MODEL, Board, write_part
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet
from pydantic import BaseModel

from airflow_provider_gemini_batch.api.errors import ConfigurationError, TransportError
from airflow_provider_gemini_batch.datasets import GeminiBatchDataset
from airflow_provider_gemini_batch.rows import delivery
from airflow_provider_gemini_batch.rows.files import LocalFiles
from airflow_provider_gemini_batch.rows.python_rows import python_rows
from airflow_provider_gemini_batch.runtime import create_task, readiness
from airflow_provider_gemini_batch.runtime.file_lists import addresses_of
from airflow_provider_gemini_batch.runtime.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


class Answer(BaseModel):
    """What a response is to hold."""

    text: str


def rows_of(board: Board) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = arrow_dataset.dataset(board.target).to_table().to_pylist()
    return found


def write_csv(path: Path, count: int, *, separator: str = ",", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(("id", "text")), *(f"{path.stem[:1]}-{n}{separator}Text {n} é." for n in range(count))]
    data = "".join(f"{line}\n" for line in lines).encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


class Killed(BaseException):
    """What ends a process between two writes."""


def kill_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many changes of files happen, and none after them."""
    left = [writes]

    def counted(real: Any) -> Any:
        def call(self: Any, path: str) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(self, path)

        return call

    for name in ("remove", "write_whole"):
        monkeypatch.setattr(LocalFiles, name, counted(getattr(LocalFiles, name)))


#: What the commit below does to files: four removals, then the manifest of the dataset and its mark.
CHANGES = 6


@pytest.mark.parametrize("writes", range(CHANGES + 1))
def test_a_commit_that_was_killed_between_two_writes_is_completed_by_the_next(
    writes: int, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.carry = ["id"]
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 2)
    board.run_whole()
    (board.source / "a.parquet").unlink()
    again = board.again("again")
    parts = again.plan()
    again.run_all(parts)
    with monkeypatch.context() as patch:
        kill_after(writes, patch)
        with pytest.raises(Killed) if writes < CHANGES else nullcontext():
            again.commit(parts)
    assert (board.target / "_SUCCESS").exists() == (writes in {0, CHANGES})
    assert again.commit(parts)["counts"]["total"] == 2
    assert sorted(row["id"] for row in rows_of(board)) == ["b-0", "b-1"]
    (left,) = parts
    files = {path.relative_to(board.target).as_posix() for path in board.target.rglob("*") if path.is_file()}
    name = f"part-{left['part_key']}"
    assert files == {"_SUCCESS", f"{name}.parquet", f"_gemini_batch/{name}.json", "_gemini_batch/dataset.json"}


@pytest.mark.parametrize("carry", [["v"], ["v", "id"]], ids=["wider", "more"])
@pytest.mark.parametrize("writes", range(4))
def test_a_part_that_died_while_it_got_other_columns_is_not_paid_again(
    writes: int, carry: list[str], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.carry = ["v"]
    board.source.mkdir()
    for run, values in (("a", [1, 2]), ("b", [0.5, 2.5])):
        table = pa.table({"id": [f"{run}1", f"{run}2"], "text": ["One.", "Two."], "v": values})
        parquet.write_table(table, board.source / f"{run}.parquet")
        if run == "a":
            board.again(run).run_whole()
    board.carry = carry
    parts = board.plan()
    with monkeypatch.context() as patch:
        patch.setattr(readiness, "_try_to_write", lambda *_: None)
        kill_after(writes, patch)
        with pytest.raises(Killed):  # before the part, _SUCCESS or one of two manifests
            board.again("b").run_part(0, parts[0])
    assert (board.target / "_SUCCESS").exists() == (writes < 2)
    for run, again in (("c", ["v"]), ("d", carry)):
        board.again(run, carry=again).run_whole()
        found = {tuple(row[name] for name in again) for row in rows_of(board)}
        assert found == {one[: len(again)] for one in ((1.0, "a1"), (2.0, "a2"), (0.5, "b1"), (2.5, "b2"))}
    assert len(board.states()) == 2


def test_a_part_that_died_before_its_manifest_goes_when_its_file_does(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.carry = ["id"]
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 2)
    parts = board.plan()
    board.run_all(parts)
    board.end_all()
    with monkeypatch.context() as patch:
        patch.setattr(delivery.Manifest, "to_json", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            board.run_part(0, parts[0])
    board.run_part(1, parts[1])
    (board.source / "a.parquet").unlink()
    assert board.commit(board.plan())["counts"]["total"] == 2
    assert len(rows_of(board)) == 2


def test_a_copy_that_a_person_made_of_a_part_is_left_alone(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    write_part(board.source / "a.parquet", 2)
    board.run_whole()
    (part,) = board.target.glob("part-*.parquet")
    copy = part.with_name("part-copy.parquet")
    copy.write_bytes(part.read_bytes())
    again = board.again("again")
    parts = again.plan()
    again.run_all(parts)
    again.commit(parts)
    assert copy.exists()
    assert "part-copy.parquet is not of this dataset's plan" in caplog.text


def test_links_and_names_of_others_in_the_folder_do_not_fail_a_commit(board: Board) -> None:
    board.carry = ["id"]
    write_part(board.source / "a.parquet", 2)
    board.target.mkdir()
    (board.target / "latest").symlink_to(board.target / "gone")
    (board.target / os.fsdecode(b"part-\xff.parquet")).write_bytes(b"x")
    assert board.run_whole()["counts"]["succeeded"] == 2


@pytest.mark.parametrize("name", ["a b", "x" * 90])
def test_a_copy_with_the_name_of_a_key_that_no_file_can_have_does_not_remove_its_part(
    board: Board, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write_part(board.source / "a.parquet", 2)
    parts = [{**part, "part_key": name} for part in board.plan()]
    board.run_all(parts)
    board.end_all()
    board.run_all(parts)
    (part,) = board.target.glob("part-*.parquet")
    copy = part.with_name(f"part-{name}.parquet")
    copy.write_bytes(part.read_bytes())
    assert board.commit(parts)["counts"]["total"] == 2
    assert part.exists()
    assert copy.exists()
    assert f"{copy} is not of this dataset's plan" in caplog.text


def test_an_input_that_is_empty_for_a_moment_removes_no_part(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    write_part(board.source / "a.parquet", 2)
    board.run_whole()
    board.again("empty").commit([], on_empty="succeed")
    assert len(rows_of(board)) == 2
    assert "nothing is removed" in caplog.text


def test_two_commits_of_one_dataset_at_a_time_leave_it_whole(board: Board) -> None:
    board.carry = ["id"]
    for number in range(6):
        write_part(board.source / f"{number}.parquet", 1)
    board.run_whole()
    for number in range(4):
        (board.source / f"{number}.parquet").unlink()
    again = board.again("again")
    parts = again.plan()
    again.run_all(parts)
    with ThreadPoolExecutor(4) as pool:
        totals = [one.result() for one in [pool.submit(again.commit, parts) for _ in range(8)]]
    assert all(one == totals[0] for one in totals)
    assert (board.target / "_SUCCESS").exists()
    assert len(rows_of(board)) == 2


def test_success_is_gone_from_the_first_part_that_is_replaced_to_the_commit(board: Board) -> None:
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 2)
    board.run_whole()
    same = board.again("same")
    parts = same.plan()
    same.run_all(parts)
    assert (board.target / "_SUCCESS").exists()
    write_part(board.source / "b.parquet", 3)
    third = board.again("third")
    parts = third.plan()
    third.run_all(parts)
    third.end_all()
    third.run_all(parts)
    assert not (board.target / "_SUCCESS").exists()
    third.commit(parts)
    assert (board.target / "_SUCCESS").exists()


def test_a_part_that_shrinks_has_its_new_rows_alone(board: Board) -> None:
    board.carry = ["id"]
    for count in (6, 2, 0, 5):
        table = pa.table({"id": [f"{n}" for n in range(count)], "text": [f"Text {n}" for n in range(count)]})
        table = table.cast(pa.schema([("id", pa.string()), ("text", pa.string())]))
        board.source.mkdir(exist_ok=True)
        parquet.write_table(table, board.source / "x.parquet", row_group_size=2)
        write_part(board.source / "y.parquet", 1)
        total = board.again(f"run-{count}").run_whole(rows_per_part=2)["counts"]["total"]
        assert total == len(rows_of(board)) == count + 1


def test_files_of_one_name_in_several_folders_are_parts_of_their_own(board: Board) -> None:
    board.carry = ["id"]
    for folder in ("x", "y", "y/x"):
        write_csv(board.source / folder / "a.csv", 2)
    assert board.run_whole()["counts"]["succeeded"] == 6
    assert len(board.states()) == len(list(board.target.glob("*.parquet"))) == 3


def test_one_file_named_in_several_ways_is_one_part(board: Board) -> None:
    write_csv(board.source / "a.csv", 2)
    given = [f"{board.source}/a.csv", f"file://{board.source}/a.csv", f"{board.source}/", f"{board.source}//*.csv"]
    assert len(board.plan(input_path=given, carry=[])) == 1


def test_rows_of_each_part_may_name_files_below_the_whole_input(board: Board) -> None:
    board.carry = []
    board.arguments = {"media_field": "file"}
    for name in ("rows/a.csv", "rows/deep/b.csv", ".files/note.txt"):
        path = board.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,text,file\n1,Read it.,.files/note.txt\n")
    assert board.run_whole()["counts"]["succeeded"] == 2
    own = {"part_arguments": {"key_field": "id", "media_field": "file", "media_root": f"{board.source}/.files"}}
    assert all("media_root" not in part for part in board.plan(**own))


def test_csv_of_any_dialect_packed_or_not_are_one_dataset(board: Board) -> None:
    board.carry = ["id"]
    write_csv(board.source / "a.csv", 2)
    write_csv(board.source / "b.csv", 2, separator=";")
    write_csv(board.source / "c.tsv", 2, separator="\t")
    write_csv(board.source / "d.csv.gz", 2, separator=";")
    write_csv(board.source / "e.csv", 2, encoding="utf-16")
    (board.source / "f.csv").write_bytes('id,text\r\nf-0,"Text, 0\r\nmore é."\r\nf-1,Text.\r\n'.encode("utf-8-sig"))
    assert board.run_whole()["counts"]["succeeded"] == 12
    assert len({row["id"] for row in rows_of(board)}) == 12


def test_packed_text_and_parquet_do_not_go_together(board: Board) -> None:
    write_csv(board.source / "a.csv.gz", 2)
    write_part(board.source / "b.parquet", 2)
    with pytest.raises(AirflowFailException, match="several formats: csv, parquet; take one"):
        board.plan()


@pytest.mark.parametrize("form", ["csv", "jsonl", "txt"])
def test_files_without_rows_are_empty_parts_of_the_same_schema(form: str, board: Board) -> None:
    board.carry = [] if form == "txt" else ["id"]
    if form == "txt":
        board.arguments = {"prompt_template": None, "key_field": None}
    lines = {"csv": "id,text\n{}", "jsonl": "\n{}", "txt": "\n{}"}[form]
    row = {"csv": "1,One.\n", "jsonl": json.dumps({"id": "1", "text": "One."}) + "\n", "txt": "One.\n"}[form]
    board.source.mkdir()
    (board.source / f"a.{form}").write_text(lines.format(""))
    (board.source / f"b.{form}").write_text(lines.format(row))
    (board.source / f"c.{form}").write_bytes(b"")
    (board.source / "empty").mkdir()
    board.arguments["on_empty"] = "succeed"
    options = {"carry_types": {"id": "int"}} if form == "jsonl" else {}
    for run in ("one", "two"):
        totals = board.again(run).run_whole(**options)
        assert totals["counts"] == {"total": 1, "succeeded": 1, "failed": 0}
        assert (totals["parts"], len(rows_of(board))) == (2, 1)
    assert len({parquet.read_schema(path).remove_metadata() for path in board.target.glob("*.parquet")}) == 1
    assert len(board.states()) == 1


def test_a_file_that_is_replaced_between_plan_and_part_is_not_mixed(board: Board) -> None:
    board.carry = []
    board.arguments = {"key_field": None}

    def write(texts: list[str], size: int = 2) -> None:
        board.source.mkdir(exist_ok=True)
        parquet.write_table(pa.table({"text": texts}), board.source / "x.parquet", row_group_size=size)

    write([f"Old {n}" for n in range(6)])
    parts = board.plan(rows_per_part=2)
    board.run_part(0, parts[0])
    for texts, size in (([f"New {n}" for n in range(6)], 2), ([f"Old {n}" for n in range(1, 7)], 2), (["Old"] * 6, 1)):
        write(texts, size)
        with pytest.raises(AirflowFailException, match="replaced since the input was planned"):
            board.again("x").run_part(1, parts[1])
    write([f"Old {n}" for n in range(8)])
    assert board.run_part(1, parts[1]) is None
    assert len(board.states()) == 2


@pytest.mark.parametrize(
    ("changed", "bought"),
    [
        ({"model": "gemini-2.5-pro"}, 1),
        ({"prompt_template": "Say: {text}"}, 1),
        ({"system_instruction": "Be brief."}, 1),
        ({"generation_config": {"temperature": 1}}, 1),
        ({"output_schema": Answer}, 1),
        ({"keep_response": True}, 1),
        ({"key_field": None}, 1),
        ({"max_cost_usd": 5.0}, 0),
        ({"max_failed_rows": 1}, 0),
        ({"display_name": "other"}, 0),
        ({"poll_interval": 5.0}, 0),
        ({"max_rows_per_job": 1}, 0),
    ],
    ids=str,
)
def test_a_whole_part_is_skipped_unless_its_rows_would_differ(
    changed: dict[str, Any], bought: int, board: Board
) -> None:
    write_part(board.source / "a.parquet", 2)
    board.run_whole()
    board.again("again", arguments=changed).run_whole()
    assert len(board.states()) == 1 + bought


@pytest.mark.parametrize("left", [0, 100])
def test_a_part_whose_file_lost_its_end_is_made_again(
    left: int, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 2)
    board.run_whole()
    damaged = min(board.target.glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:left])
    board.again("again").run_whole()
    assert len(rows_of(board)) == 4
    assert len(board.states()) == 3
    assert "has lost its end" in caplog.text


@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_commit_refuses_a_part_whose_file_is_gone_or_lost_its_end(left: int | None, board: Board) -> None:
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 2)
    board.run_whole()
    damaged = min(board.target.glob("*.parquet"))
    whole = damaged.read_bytes()
    damaged.unlink() if left is None else damaged.write_bytes(whole[:left])
    parts = board.plan()
    with pytest.raises(AirflowFailException, match="1 of 2 parts are not whole"):
        board.commit(parts)
    assert not (board.target / "_SUCCESS").exists()
    damaged.write_bytes(whole)
    assert board.commit(parts)["counts"]["total"] == 4


def test_the_manifest_of_a_later_version_that_counts_other_tokens_buys_nothing(board: Board) -> None:
    write_part(board.source / "a.parquet", 2)
    board.run_whole()
    (path,) = (board.target / "_gemini_batch").glob("part-*.json")
    members = json.loads(path.read_bytes())
    members["usage"]["smell_tokens"] = 5
    path.write_text(json.dumps(members))
    assert board.again("again").run_whole()["counts"]["total"] == 2
    assert len(board.states()) == 1


@pytest.mark.parametrize("key", ["a/b", "../up", "ü ß", "_hidden", "x" * 200, "a.parquet", "day=2026-01-01", "7"])
def test_a_part_key_of_the_authors_own_may_have_any_characters(key: str, board: Board) -> None:
    board.carry = ["id"]
    write_part(board.source / "a.parquet", 2)
    parts = [{"part_key": key, "input_path": [f"{board.source}/a.parquet"]}]
    for run in ("one", "two"):
        one = board.again(run)
        one.run_all(parts)
        one.end_all()
        one.run_all(parts)
        assert one.commit(parts)["counts"]["succeeded"] == 2
    assert len(board.states()) == 1
    assert [path.parent for path in board.target.rglob("*.parquet")] == [board.target]
    assert len(rows_of(board)) == 2


@pytest.mark.parametrize("name", ["a [1].csv", "b*?.csv", "c#row_groups=0-1.csv", "d é%20'.csv", "day=1.csv"])
def test_files_may_have_any_name(name: str, board: Board, bucket: Any) -> None:
    board.carry = ["id"]
    write_csv(board.source / name, 2)
    assert board.run_whole()["counts"]["succeeded"] == 2
    bucket.put(f"{board.source}/", "/bucket/in/", recursive=True)
    remote: Any = Board(board.service, "memory://bucket/in", "memory://bucket/out", carry=["id"])  # type: ignore[arg-type]
    assert remote.run_whole()["counts"]["succeeded"] == 2


def test_a_column_that_the_folders_of_the_output_name_cannot_be_carried_too(board: Board) -> None:
    write_part(board.source / "a.parquet", 2)
    board.target = board.target / "day=2026-01-01"
    parts = board.plan(carry=["id"])
    for refused in (board.plan, lambda: board.run_part(0, parts[0])):
        with pytest.raises(AirflowFailException, match="its folders name the column day, which the rows have as well"):
            refused()
    assert board.states() == []
    board.again("without", carry=["id"]).run_whole()
    assert parquet.read_table(board.target.parent).column("day").to_pylist() == ["2026-01-01"] * 2


@pytest.mark.parametrize("name", ["key", "text", "error"])
def test_a_folder_of_the_output_cannot_have_the_name_of_a_column_of_result_rows(name: str, board: Board) -> None:
    write_part(board.source / "a.parquet", 2)
    parts = board.plan()
    board.target = board.target / f"{name}=de"
    for refused in (board.plan, lambda: board.run_part(0, parts[0])):
        with pytest.raises(AirflowFailException, match=f"its folders name the column {name}, which the rows have"):
            refused()
    assert board.states() == []


def test_a_name_that_is_not_utf_8_is_refused(board: Board) -> None:
    write_csv(board.source / os.fsdecode(b"caf\xe9.csv"), 2)
    with pytest.raises(AirflowFailException, match=r"caf\\udce9\.csv' is not UTF-8: rename the file"):
        board.plan()


@pytest.mark.parametrize("folder", ["o[1]", "o*", "o?"])
def test_removing_an_object_named_like_a_pattern_removes_no_other(folder: str, bucket: Any) -> None:
    for each in (folder, "o1"):
        bucket.pipe_file(f"/bucket/{each}/_SUCCESS", b"x")
    path = f"memory://bucket/{folder}/_SUCCESS"
    Paths().files_of(path).remove(path)
    assert bucket.find("/bucket") == ["/bucket/o1/_SUCCESS"]


def test_an_object_that_cannot_be_seen_just_now_is_not_taken_for_a_pattern_without_files(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(*_: object, **__: object) -> None:
        raise ConnectionResetError

    bucket.pipe_file("/bucket/b.csv", b"text")
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "info", reset)
        with pytest.raises(TransportError, match=r"cannot list memory://bucket/a\[1\]\.csv just now"):
            addresses_of(Paths(), "memory://bucket/a[1].csv")


def test_a_part_that_cannot_be_seen_just_now_is_not_taken_for_one_that_is_missing(
    board: Board, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = type(bucket)._open

    def reset(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.endswith(".parquet"):
            raise ConnectionResetError
        return opened(self, path, *args, **kwargs)

    write_part(board.source / "a.parquet", 2)
    on_store: Any = "memory://bucket/out"
    board.again("one", target=on_store).run_whole()
    again = board.again("again", target=on_store)
    parts = again.plan()
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "_open", reset)
        patch.setattr(create_task, "check_readiness", lambda *_: None)
        for step in (lambda: again.run_all(parts), lambda: again.commit(parts)):
            with pytest.raises(ConnectionResetError):
                step()
    assert len(board.states()) == 1
    assert again.run_all(parts)
    assert again.commit(parts)["parts"] == 1


def test_a_folder_that_cannot_be_listed_says_why_also_where_its_error_has_no_text(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    bucket.pipe_file("/bucket/a/b.csv", b"text")
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "find", refuse)
        with pytest.raises(ConfigurationError, match=r"cannot list memory://bucket/a/: PermissionError"):
            addresses_of(Paths(), "memory://bucket/a/")


def test_a_budget_counts_what_is_packed_and_what_each_row_is_sent_with(board: Board) -> None:
    write_csv(board.source / "a.csv", 3000)
    write_csv(board.source / "p" / "a.csv.gz", 3000)

    def estimate(path: str, **options: Any) -> float:
        of_parts = {"generation_config": {"maxOutputTokens": 1}, **options}
        given: Any = {"carry": [], "max_cost_usd": 0.0001, "part_arguments": of_parts}
        with pytest.raises(AirflowFailException, match=r"above max_cost_usd=0\.0001; nothing was sent") as refused:
            board.plan(input_path=f"{board.source}/{path}", **given)
        return float(re.findall(r"the estimate is (\S+) USD", str(refused.value))[0])

    plain = estimate("a.csv")
    assert [estimate(path) for path in ("p/a.csv.gz", "p/")] == [plain, plain]
    brief, long = (estimate("a.csv", system_instruction="Be brief. " * count) for count in (10, 40))
    assert 0 < 2 * (brief - plain) < long - plain


def test_a_budget_counts_only_columns_of_parquet_that_are_sent(board: Board) -> None:
    board.source.mkdir()
    texts = {"id": [f"{number}" for number in range(500)], "text": [f"Text {number}." for number in range(500)]}
    wide = {"scan": [bytes(10_000)] * 500, "note.text": ["note " * 100] * 500}
    given: Any = {"max_cost_usd": 0.000001, "part_arguments": {"generation_config": {"maxOutputTokens": 1}}}
    said = []
    for more, carry in (({}, []), (wide, []), (wide, ["note.text", "id"])):
        parquet.write_table(pa.table({**texts, **more}), board.source / "a.parquet", use_dictionary=False)
        with pytest.raises(AirflowFailException, match="the estimate is") as refused:
            board.plan(carry=carry, **given)
        said.append(str(refused.value))
    assert said[1:] == said[:1] * 2


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (pa.timestamp("ns"), 1_700_000_000_123_456_789, datetime(2023, 11, 14, 22, 13, 20, 123456)),  # noqa: DTZ001
        (pa.timestamp("ns", "UTC"), 1_789, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)),
        (pa.time64("ns"), 1_789, "00:00:00.000001"),
        (pa.list_(pa.struct([("t", pa.timestamp("ns"))])), [{"t": 1_789}], '[{"t":"1970-01-01T00:00:00.000001"}]'),
        # Amsterdam was 19 minutes and 32 seconds ahead.
        (pa.timestamp("s", "Europe/Amsterdam"), -2_208_988_800, datetime(1900, 1, 1, tzinfo=timezone.utc)),
        (pa.list_(pa.timestamp("s", "Europe/Amsterdam")), [-2_208_988_800], '["1900-01-01 00:19:32+00:19:32"]'),
        (pa.float64(), -inf, -inf),
    ],
    ids=str,
)
def test_values_that_json_has_no_form_for_are_carried_as_they_are_and_nanoseconds_as_microseconds(
    kind: Any, value: Any, found: Any, board: Board
) -> None:
    board.carry = ["v"]
    board.arguments = {"key_field": None}
    board.source.mkdir()
    table = pa.table({"text": ["One.", "Two."], "v": pa.array([value, None], kind)})
    parquet.write_table(table, board.source / "a.parquet")
    board.run_whole()
    assert [row["v"] for row in rows_of(board)] == [found, None]
    assert [row["v"] for row in python_rows(table).rows][1] is None


def test_a_dataset_that_is_one_part_is_marked_as_whole_by_whoever_finds_it_so(board: Board) -> None:
    write_part(board.source / "a.parquet", 2)
    board.arguments = {"input_path": f"{board.source}/a.parquet"}
    for run in ("one", "two"):
        one = board.again(run)
        one.run_part(-1, {})
        one.end_all()
        done = one.run_part(-1, {}) if run == "one" else None
        assert (board.target / "_SUCCESS").exists(), done
        (board.target / "_SUCCESS").unlink()
    assert len(board.states()) == 1


def test_a_dataset_copied_elsewhere_is_known_by_where_it_lies(board: Board) -> None:
    for name in "ab":
        write_part(board.source / f"{name}.parquet", 2)
    board.run_whole()
    moved = board.again("moved", target=board.target.with_name("moved"))
    board.target.rename(moved.target)
    next(moved.target.glob("*.parquet")).unlink()
    moved.run_whole()
    assert len(rows_of(moved)) == 4
    assert len(board.states()) == 3


def test_an_empty_dataset_does_what_on_empty_says(board: Board) -> None:
    board.source.mkdir()
    with pytest.raises(AirflowFailException, match="holds no files"):
        board.plan()
    with pytest.raises(AirflowSkipException):
        board.plan(on_empty="skip")
    (board.source / "a.parquet").touch()
    assert board.plan(on_empty="succeed") == []
    assert board.commit([], on_empty="succeed")["counts"] == {"total": 0, "succeeded": 0, "failed": 0}
    assert (board.target / "_SUCCESS").exists()
    with DAG("d", schedule=None):
        group = GeminiBatchDataset(group_id="g", model=MODEL, input_path="/in/", output_path="/out/", on_empty="skip")
    assert group.plan.on_empty == "skip"
    assert group.part.partial_kwargs["on_empty"] == "succeed"


def test_two_parts_of_one_key_are_refused(board: Board) -> None:
    write_part(board.source / "a.parquet", 2)
    parts = board.plan()
    with pytest.raises(AirflowFailException, match="have the same key"):
        board.commit(parts * 2)
