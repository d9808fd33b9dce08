"""The input is read once: what landing needs is kept when the job is made, whichever host lands the answers."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from pyarrow import csv, parquet
from task_context import StateStore, task_context

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, to_event

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

TEXTS = [f"Text {number}." for number in range(1, 13)]
ROWS = [{"id": f"row-{number}", "size": number, "text": text} for number, text in enumerate(TEXTS, start=1)]
COLUMNS: dict[str, Any] = {"key_field": "id", "carry": ["size"], "prompt_template": "{text}"}


@dataclass
class Task:
    """One task instance, whose processes run on hosts of the test's choice."""

    service: Emulator
    monkeypatch: pytest.MonkeyPatch
    arguments: dict[str, Any]
    retries: int = 0
    store: StateStore | None = field(default_factory=StateStore)
    try_number: int = 1
    memo: str = ""
    trigger: Any = None

    def process(self, host: str, event: Any = None, **changed: Any) -> Any:
        """Start a try, or go on after a wait, and give what becomes of it; a deferral gives None."""
        self.monkeypatch.setattr("socket.gethostname", lambda: host)
        arguments = {"model": "gemini-2.5-flash", "lookup_timeout": 0.0, **self.arguments, **changed}
        task = GeminiCreateBatchJobOperator(task_id="t", retries=self.retries, **arguments)
        context = task_context(self.store, try_number=self.try_number, max_tries=self.retries)
        try:
            if self.memo:
                return task.execute_complete(context, event, memo=self.memo)
            return task.execute(context)
        except TaskDeferred as deferred:
            self.memo = (deferred.kwargs or {})["memo"]
            self.trigger = deferred.trigger
            self.service.control.advance(3600)
            return None
        except Exception:
            self.try_number, self.memo = self.try_number + 1, ""
            raise

    def sizes(self) -> list[int]:
        return [job["rows"] for job in self.service.control.books()["jobs"]]


@pytest.fixture
def service(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection(timeout=0.5))
    gemini_batch_emulator.control.speed(0)
    return gemini_batch_emulator


@pytest.fixture
def make(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(**arguments: Any) -> Task:
        own = {name: arguments.pop(name) for name in ("retries", "store") if name in arguments}
        return Task(service, monkeypatch, arguments, **own)

    return make


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_that_read_differently_at_every_start_are_bought_once(make: Any, tmp_path: Path) -> None:
    task = make(output_path=f"{tmp_path}/out.jsonl", retries=3, **COLUMNS)
    for moment in range(3):
        rows = [{**row, "text": f"It is {moment}: {row['text']}", "size": 100 * moment} for row in ROWS]
        done = task.process(f"host-{moment}", inlined_requests=rows)
        if done:
            break
    assert task.sizes() == [12]
    assert done["counts"] == {"total": 12, "succeeded": 12, "failed": 0}
    assert {row["size"] for row in read_rows(tmp_path / "out.jsonl")} == {0}


def test_a_retry_uses_the_job_of_other_rows_that_is_paid_for(make: Any, tmp_path: Path) -> None:
    task = make(output_path=f"{tmp_path}/out.jsonl", retries=3, **COLUMNS)
    assert task.process("host-a", inlined_requests=ROWS) is None
    (tmp_path / "out.jsonl").mkdir()  # landing fails
    with pytest.raises(Exception, match=r"out\.jsonl"):
        task.process("host-b", inlined_requests=ROWS[1:])
    (tmp_path / "out.jsonl").rmdir()
    assert task.process("host-c", inlined_requests=ROWS[2:])["counts"]["succeeded"] == 12
    assert task.sizes() == [12]


@pytest.mark.parametrize("store", [StateStore(), None], ids=["store", "no store"])
def test_answers_that_are_missing_are_counted_where_the_input_is_out_of_reach(
    store: StateStore | None, make: Any, service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(missing_every=3, shuffle=True)
    path = write_rows(tmp_path / "a" / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", max_failed_rows=0, store=store, **COLUMNS)
    assert task.process("host-a") is None
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(AirflowException, match="4 of 12 rows failed"):
        task.process("host-b")
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["key"] for row in rows] == [row["id"] for row in ROWS]
    assert [row["status"] for row in rows] == ["ok", "ok", "missing"] * 4
    assert [row["size"] for row in rows] == [row["size"] for row in ROWS]
    assert task.sizes() == [12]


class Whim:
    """A function that gives other rows each time."""

    def __init__(self, **columns: Any) -> None:
        self.calls = 0
        self.columns = columns

    def __call__(self) -> list[dict[str, Any]]:
        self.calls += 1
        return [{**row, **self.columns, "text": f"{row['text']} Call {self.calls}."} for row in ROWS]


def test_rows_of_a_function_are_bought_once_although_the_second_host_has_none_of_them(
    make: Any, tmp_path: Path
) -> None:
    function = Whim()
    task = make(inlined_requests=function, output_path=f"{tmp_path}/out/out.jsonl", retries=2, **COLUMNS)
    assert task.process("host-a") is None
    shutil.rmtree(tmp_path / "out")
    done = task.process("host-b")
    assert done["counts"] == {"total": 12, "succeeded": 12, "failed": 0}
    assert [row["size"] for row in read_rows(tmp_path / "out" / "out.jsonl")] == [row["size"] for row in ROWS]
    assert (function.calls, task.sizes()) == (1, [12])


def test_columns_that_are_out_of_reach_fail_the_task_with_the_answers_kept(make: Any, tmp_path: Path) -> None:
    # Too large for the store, so that they are on the first host's own disk.
    function = Whim(size="x" * 8000)
    task = make(inlined_requests=function, output_path=f"{tmp_path}/out/out.jsonl", retries=1, **COLUMNS)
    assert task.process("host-a") is None
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(AirflowException, match=r"read on host host-a .* this is host-b") as first:
        task.process("host-b")
    assert not isinstance(first.value, AirflowFailException)
    with pytest.raises(AirflowException, match="out of reach"):
        task.process("host-b")
    rows = read_rows(tmp_path / "out" / "out.jsonl")
    assert [row["status"] for row in rows] == ["ok"] * 12
    assert (function.calls, task.sizes()) == (1, [12])


def test_columns_of_an_input_that_has_changed_go_with_no_answer(make: Any, tmp_path: Path) -> None:
    rows = [{**row, "size": "x" * 8000} for row in ROWS]
    path = write_rows(tmp_path / "a" / "in.jsonl", rows)
    task = make(input_path=path, output_path=f"{tmp_path}/out/out.jsonl", retries=1, **COLUMNS)
    assert task.process("host-a") is None
    shutil.rmtree(tmp_path / "out")
    write_rows(tmp_path / "a" / "in.jsonl", rows[::-1])
    for _ in range(2):
        with pytest.raises(AirflowException, match="has changed since its jobs were made"):
            task.process("host-b")
    assert [row["status"] for row in read_rows(tmp_path / "out" / "out.jsonl")] == ["ok"] * 12


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("is_retry", [False, True])
def test_a_column_that_the_dag_carries_only_since_the_job_runs_is_read_from_the_input(
    is_retry: bool,  # noqa: FBT001
    output: str,
    make: Any,
    tmp_path: Path,
) -> None:
    task = make(input_path=write_rows(tmp_path / "in.jsonl", ROWS), output_path=f"{tmp_path}/{output}", **COLUMNS)
    assert task.process("host-a") is None
    task.memo = "" if is_retry else task.memo
    task.try_number += is_retry
    assert task.process("host-b", carry=["id", "size"])["counts"]["succeeded"] == 12
    path = tmp_path / output
    rows = read_rows(path) if path.suffix == ".jsonl" else parquet.read_table(path).to_pylist()
    assert [(row["id"], row["size"]) for row in rows] == [(row["id"], row["size"]) for row in ROWS]
    assert task.sizes() == [12]


def test_a_try_after_the_landing_takes_what_is_landed_although_nothing_is_kept_any_more(
    make: Any, tmp_path: Path
) -> None:
    # Too large for the store, so that they are beside the output until the task succeeds.
    task = make(inlined_requests=Whim(size="x" * 8000), output_path=f"{tmp_path}/out.jsonl", retries=1, **COLUMNS)
    assert task.process("host-a") is None
    done = task.process("host-a")
    landed = (tmp_path / "out.jsonl").read_bytes()
    # The worker dies before Airflow hears of the success.
    assert task.process("host-b")["counts"] == done["counts"]
    assert (tmp_path / "out.jsonl").read_bytes() == landed


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_rows_that_failed_are_not_sent_again_from_an_input_that_is_not_the_same(
    change: str, make: Any, service: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.control.faults(row_error_every=4)
    path = write_rows(tmp_path / "a" / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", repair_rounds=1, max_failed_rows=2, **COLUMNS)
    assert task.process("host-a") is None
    if change == "gone":
        shutil.rmtree(tmp_path / "a")
    else:
        write_rows(tmp_path / "a" / "in.jsonl", ROWS[::-1])
    with pytest.raises(AirflowException, match="3 of 12 rows failed"):
        task.process("host-b")
    assert task.sizes() == [12]
    assert "read on host host-a" in caplog.text
    assert "as it was, or clear the task" in caplog.text
    assert [row["status"] for row in read_rows(tmp_path / "out.jsonl")].count("ok") == 9


@pytest.mark.parametrize(
    "more", [{"max_rows_per_job": 5, "max_active_jobs": 1}, {"repair_rounds": 1}], ids=["jobs", "repair"]
)
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_files_that_come_while_jobs_run_do_not_change_the_rows_that_are_still_to_be_sent(
    more: dict[str, int], form: str, make: Any, service: Emulator, tmp_path: Path
) -> None:
    def put(name: str, first: int) -> None:
        path = tmp_path / "in" / f"{name}.{form}"
        path.parent.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(ROWS[first : first + 4])
        if form == "parquet":
            parquet.write_table(table, path)
        elif form == "csv":
            csv.write_csv(table, path)
        else:
            write_rows(path, table.to_pylist())

    for first, name in enumerate("bdf"):
        put(name, 4 * first)
    if "repair_rounds" in more:
        service.control.faults(missing_every=3)
    task = make(input_path=f"{tmp_path}/in/", output_path=f"{tmp_path}/out.jsonl", **more, **COLUMNS)
    assert task.process("host-a") is None
    service.control.clear_faults()
    for name in "aceg":
        put(name, 0)
    hosts = iter("bcde")
    while (done := task.process(f"host-{next(hosts)}")) is None:
        pass
    assert done["counts"] == {"total": 12, "succeeded": 12, "failed": 0}
    assert [row["key"] for row in read_rows(tmp_path / "out.jsonl")] == [row["id"] for row in ROWS]


def test_rows_that_failed_are_sent_again_from_the_same_input(make: Any, service: Emulator, tmp_path: Path) -> None:
    service.control.faults(row_error_every={"value": 4, "times": 1})
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", repair_rounds=1, max_failed_rows=0, **COLUMNS)
    assert task.process("host-a") is None
    assert task.process("host-b") is None
    assert task.process("host-a")["counts"]["succeeded"] == 12
    assert task.sizes() == [12, 3]


def test_jobs_that_wait_for_their_turn_are_made_of_the_same_input_alone(make: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(
        input_path=path,
        output_path=f"{tmp_path}/out.jsonl",
        max_rows_per_job=3,
        max_active_jobs=1,
        retries=1,
        **COLUMNS,
    )
    assert task.process("host-a") is None
    assert task.process("host-b") is None
    write_rows(tmp_path / "in.jsonl", [*ROWS[:7], {**ROWS[7], "text": "Other."}, *ROWS[8:]])
    with pytest.raises(AirflowException, match="the input has changed"):
        task.process("host-c")
    assert task.sizes() == [3, 3]
    with pytest.raises(AirflowException, match="the input has changed"):
        task.process("host-c")
    assert [row["status"] for row in read_rows(tmp_path / "out.jsonl")] == ["ok"] * 6 + ["missing"] * 6
    assert task.sizes() == [3, 3]


@pytest.mark.parametrize("missing", ["a job", "responses"])
def test_no_rows_are_sent_to_another_model_than_those_of_the_jobs_that_are_paid_for(
    missing: str, make: Any, service: Emulator, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"max_rows_per_job": 6, "max_active_jobs": 1}
    words = "cannot be sent: .* made for gemini-2.5-flash.* now gemini-2.5-pro"
    if missing == "responses":
        words = "3 of 12 rows failed"
        service.control.faults(row_error_every={"value": 4, "times": 1})
        more = {"repair_rounds": 1, "max_failed_rows": 0}
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", retries=1, **more, **COLUMNS)
    assert task.process("host-a") is None
    sizes = task.sizes()
    for _ in range(2):
        with pytest.raises(AirflowException, match=words):
            task.process("host-b", model="gemini-2.5-pro")
    assert task.sizes() == sizes
    assert len(read_rows(tmp_path / "out.jsonl")) == 12
    while (done := task.process("host-c", model="models/gemini-2.5-flash")) is None:
        pass
    assert done["counts"]["succeeded"] == 12


def test_a_retry_takes_the_new_model_where_nothing_is_paid_for_the_former(
    make: Any, service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(job_ending={"value": {"state": "FAILED", "code": 13, "message": "no"}, "times": 1})
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", retries=1, **COLUMNS)
    assert task.process("host-a") is None
    with pytest.raises(AirflowException, match="13"):
        task.process("host-a")
    assert task.process("host-b", model="gemini-2.5-pro") is None
    assert task.process("host-b", model="gemini-2.5-pro")["counts"]["succeeded"] == 12
    models = [job["model"] for job in service.control.books()["jobs"]]
    assert models == ["models/gemini-2.5-flash", "models/gemini-2.5-pro"]


TURN = to_event(WaitReport(Reason.TURN, turns=1))


@pytest.mark.parametrize("rows", [12, 600], ids=["sent inside the call", "uploaded"])
def test_a_job_that_waits_for_its_turn_needs_the_input_no_more(
    rows: int, make: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection(max_active_jobs=1))
    path = write_rows(tmp_path / "a" / "in.jsonl", [{**ROWS[n % 12], "id": f"row-{n}"} for n in range(rows)])
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", max_failed_rows=0, **COLUMNS)
    assert task.process("host-a") is None
    assert task.sizes() == []
    trigger = type(task.trigger)(**task.trigger.serialize()[1])
    assert (trigger.job_names, trigger.until, trigger.turn["limit"]) == ([], "time", 1)
    shutil.rmtree(tmp_path / "a")
    assert task.process("host-b", TURN) is None
    assert task.sizes() == [rows]
    assert task.process("host-c")["counts"]["succeeded"] == rows
    assert service.control.books()["files"] == []


def test_a_function_is_called_once_although_its_job_waits_for_its_turn(
    make: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection(max_active_jobs="1"))
    function = Whim()
    task = make(inlined_requests=function, prompt_template="{text}", key_field="id")
    assert task.process("host-a") is None
    assert task.process("host-b", TURN) is None
    assert task.process("host-a")["counts"]["succeeded"] == 12
    assert (function.calls, task.sizes()) == (1, [12])


LATER = [
    (of_connection, {"max_active_jobs": own, "wait_for_completion": waits})
    for of_connection, own in (("", 2), (9, None))
    for waits in (True, False)
]


@pytest.mark.parametrize("limits", LATER, ids=str)
def test_rows_of_a_function_that_would_be_gone_before_their_turn_are_refused_or_kept(
    limits: tuple[Any, dict[str, Any]], make: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_connection, own = limits
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection(max_active_jobs=of_connection))
    function, event = Whim(), to_event(WaitReport(Reason.TURN, turns=9))
    given = {"inlined_requests": function, "prompt_template": "{text}", "max_rows_per_job": 4, **own}
    task = make(**given)
    with pytest.raises(AirflowFailException, match="3 jobs, of which some are created after others"):
        task.process("host-a")
    assert task.sizes() == []
    task = make(**given, staging_path=str(tmp_path))
    results = [task.process("host-a", event)]
    while results[-1] is None:
        results.append(task.process("host-a", event))
    assert len(results[-1]["job_names"]) == 3
    assert (task.sizes(), function.calls, list(tmp_path.iterdir())) == ([4, 4, 4], 2, [])


def test_a_task_that_waits_for_no_job_waits_until_all_are_created(
    make: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection(max_active_jobs=9))
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, max_rows_per_job=6, wait_for_completion=False, **COLUMNS)
    assert task.process("host-a") is None
    assert task.process("host-b", TURN) is None
    assert task.trigger.turn["jobs"] == 1
    assert len(task.process("host-c", TURN)["job_names"]) == 2


def test_a_task_that_waits_for_no_job_names_also_those_that_ended_before_the_last_was_created(
    make: Any, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, max_rows_per_job=6, max_active_jobs=1, wait_for_completion=False, **COLUMNS)
    assert task.process("host-a") is None
    assert len(task.process("host-b")["job_names"]) == 2


def test_a_task_that_waits_for_no_job_fails_when_rows_are_left_that_cannot_be_sent(make: Any, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, max_rows_per_job=3, max_active_jobs=2, wait_for_completion=False, **COLUMNS)
    assert task.process("host-a") is None
    write_rows(tmp_path / "in.jsonl", ROWS[:9])
    assert task.process("host-a") is None, "it waits for the job of the rows that could be sent"
    with pytest.raises(AirflowException, match="Rows that still need a response cannot be sent"):
        task.process("host-a")
    assert task.sizes() == [3, 3, 3]


def test_a_task_that_does_not_defer_also_waits_for_its_turn(
    make: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection(max_active_jobs=1))
    service.control.speed(100_000)
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, max_rows_per_job=4, deferrable=False, poll_interval=0.02, **COLUMNS)
    assert task.process("host-a")["counts"]["succeeded"] == 12
    assert task.sizes() == [4, 4, 4]


def test_a_job_that_stands_still_is_noticed_while_another_waits_for_its_turn(
    make: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection(max_active_jobs=1))
    service.control.speed(100_000)
    service.control.faults(hold_running=True)
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(
        input_path=path,
        max_rows_per_job=6,
        deferrable=False,
        poll_interval=0.1,
        progress_timeout=0.6,
        timeout=100,
        **COLUMNS,
    )
    with pytest.raises(AirflowException, match="made no progress for"):
        task.process("host-a")
    assert task.sizes() == [6]


def test_many_columns_are_kept_in_a_file_for_its_owner_alone_until_the_rows_are_landed(
    make: Any, tmp_path: Path
) -> None:
    rows = [{**row, "size": "x" * 8000} for row in ROWS]
    task = make(inlined_requests=rows, output_path=f"{tmp_path}/out.jsonl", **COLUMNS)
    assert task.process("host-a") is None
    (kept,) = tmp_path.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not any(text in kept.read_text("utf-8") for text in TEXTS)
    assert task.process("host-b", inlined_requests=["other"])["counts"]["succeeded"] == 12
    assert {row["size"] for row in read_rows(tmp_path / "out.jsonl")} == {"x" * 8000}
    assert not kept.exists()


def test_small_columns_are_kept_in_the_store_until_the_rows_are_landed(make: Any, tmp_path: Path) -> None:
    task = make(inlined_requests=ROWS, output_path=f"{tmp_path}/out.jsonl", **COLUMNS)
    assert task.process("host-a") is None
    assert sorted(task.store) == ["gemini_batch", "gemini_batch_input"]
    assert list(tmp_path.iterdir()) == []
    assert not any(text in json.dumps(task.store) for text in TEXTS)
    assert task.process("host-b")["counts"]["succeeded"] == 12
    assert sorted(task.store) == ["gemini_batch"]


@pytest.mark.parametrize(("store", "size"), [(StateStore(), 8000), (None, 1)], ids=["too large", "no store"])
def test_columns_without_a_place_are_refused_before_anything_is_sent(
    store: StateStore | None, size: int, make: Any, service: Emulator
) -> None:
    task = make(inlined_requests=[{**row, "size": "x" * size} for row in ROWS], store=store, **COLUMNS)
    with pytest.raises(AirflowFailException, match=r"carry .* give staging_path or output_path; nothing was sent"):
        task.process("host-a")
    assert service.control.books()["requests"] == {}


def test_keys_without_a_place_are_read_again_for_rows_without_an_answer(make: Any, service: Emulator) -> None:
    service.control.faults(missing_every=3)
    task = make(inlined_requests=ROWS, store=None, key_field="id", prompt_template="{text}")
    assert task.process("host-a") is None
    done = task.process("host-b")
    assert [row["key"] for row in done["responses"]] == [row["id"] for row in ROWS]


def test_a_task_of_version_0_1_0_that_waits_is_landed_and_what_is_missing_counted(
    make: Any, service: Emulator, tmp_path: Path
) -> None:
    service.control.faults(missing_every=3)
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", max_failed_rows=0, prompt_template="{text}")
    assert task.process("host-a") is None
    notes = {name: value for name, value in json.loads(task.memo).items() if name != "input"}
    task.memo = task.store["gemini_batch"] = json.dumps(notes)
    write_rows(tmp_path / "in.jsonl", ROWS[1:])
    with pytest.raises(AirflowException, match="4 of 12 rows failed"):
        task.process("host-b")
    assert task.sizes() == [12]


@pytest.mark.parametrize(
    ("executor", "times"),
    [
        ("LocalExecutor", 0),
        ("CeleryExecutor", 1),
        ("KubernetesExecutor", 1),
        ("LocalExecutor,airflow.providers.celery.executors.celery_executor.CeleryExecutor:far", 1),
        ("some.where.OtherExecutor", 1),
    ],
)
def test_a_local_path_where_other_workers_may_continue_gives_a_warning(
    executor: str, times: int, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("logging.Logger.warning", lambda _, words, *rest: told.append(words % rest))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    make(inlined_requests=TEXTS, output_path=f"{tmp_path}/out.jsonl").process("host-a")
    assert sum("output_path: a local path" in words for words in told) == times
    monkeypatch.setenv("AIRFLOW__GEMINI_BATCH__LOCAL_PATHS", "allow")
    make(inlined_requests=TEXTS, output_path=f"{tmp_path}/other.jsonl").process("host-a")
    assert sum("a local path" in words for words in told) == times


def test_local_paths_are_refused_where_the_deployment_says_so(
    make: Any, service: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__GEMINI_BATCH__LOCAL_PATHS", "refuse")
    path = write_rows(tmp_path / "in.jsonl", ROWS)
    task = make(input_path=path, output_path=f"{tmp_path}/out.jsonl", prompt_template="{text}")
    with pytest.raises(AirflowFailException, match=r"^input_path, output_path: a local path, .* nothing was sent"):
        task.process("host-a")
    assert service.control.books()["requests"] == {}
    monkeypatch.setenv("AIRFLOW__GEMINI_BATCH__LOCAL_PATHS", "maybe")
    with pytest.raises(AirflowFailException, match="local_paths must be warn, refuse, allow"):
        task.process("host-a")
