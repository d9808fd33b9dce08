"""Rows that a function gives: called once for a submission, kept while its job runs, none taken from another run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from dag_runs import Run

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.data.spec import InputSpec
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.storage import Paths
from airflow_provider_gemini_batch.task_files import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator


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
    spool = Spool(str(path), Paths())
    spool.spec(spec(function), again=False)
    function.rows = ("two",)
    spool.spec(spec(function), again=False)
    assert (function.calls, kept(path)) == (1, ["one"])


def test_a_first_try_takes_no_rows_that_a_deleted_run_left(tmp_path: Path) -> None:
    path, function = tmp_path / "rows.jsonl", Function("old")
    Spool(str(path), Paths()).spec(spec(function), again=False)
    function.rows = ("new",)
    Spool(str(path), Paths(), anew=True).spec(spec(function), again=False)
    assert kept(path) == ["new"]


@pytest.mark.parametrize("anew", [True, False])
def test_after_a_wait_the_function_is_never_called(tmp_path: Path, *, anew: bool) -> None:
    path, function = tmp_path / "rows.jsonl", Function("one")
    spool = Spool(str(path), Paths(), anew=anew)
    with pytest.raises(InputError, match="removed"):
        spool.spec(spec(function), again=True)
    spool.spec(spec(function), again=False)
    spool.spec(spec(function), again=True)
    assert (function.calls, kept(path)) == (1, ["one"])


def one(function: Function, folder: Path, **arguments: Any) -> Run:
    with DAG("function_rows", schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="t",
            model="gemini-2.5-flash",
            inlined_requests=function,
            output_path=f"{folder}/out.jsonl",
            poll_interval=0.1,
            retry_delay=timedelta(hours=1),
            **arguments,
        )
    return Run(dag)


@pytest.mark.slow
def test_a_run_that_was_deleted_and_made_again_sends_the_rows_of_today(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(job_ending={"value": {"state": "FAILED", "code": 3, "message": "no"}, "times": 1})
    function = Function("Old.", "Older.")
    run = one(function, tmp_path)
    assert run.attempt("t").state == "failed"
    (rows,) = [path for path in tmp_path.iterdir() if path.name.endswith(".rows.jsonl")]
    old = rows.read_bytes()
    function.rows = ("New.",)
    again = one(function, tmp_path)
    # The name of the kept rows is that of the task instance, which a run made again under its id shares.
    again_rows = _path_of(again, tmp_path)
    again_rows.write_bytes(old)
    outcome = again.attempt("t")
    assert outcome.state == "success", outcome.message
    assert [job["rows"] for job in service.control.books()["jobs"]] == [2, 1]
    assert function.calls == 2


def _path_of(run: Run, folder: Path) -> Path:
    from airflow_provider_gemini_batch.task_run import _identity

    return folder / f".{_identity(run.instance('t')).digest}-0.rows.jsonl"
