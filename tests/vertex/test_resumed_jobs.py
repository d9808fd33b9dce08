"""Rows that are not ours to read are not bought again: the next job goes on from what the one before it left."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors
from task_context import StateStore, task_context
from vertex.bench import FLASH, rows_of

from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vertex.bench import Bench

    from airflow_provider_gemini_batch.api.google.storage import ObjectStore

TEN = [f"k{n}" for n in range(10)]
HALF = {"expire": True, "partial_rows": 0.5}


@dataclass
class Life:
    """One task instance over its tries, each in a context of its own; time passes when it waits."""

    emulator: Emulator
    store: ObjectStore
    folder: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: StateStore = field(default_factory=StateStore)
    tries: int = 0
    max_tries: int = 9

    @property
    def base(self) -> str:
        return f"gs://data/{self.folder.name}"

    @property
    def output(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that were landed."""
        return rows_of(self.output.read_bytes())

    @property
    def ok(self) -> list[str]:
        return sorted(row["key"] for row in self.rows if row["status"] == "ok")

    def put(self, uri: str, content: bytes) -> None:
        with self.store.write_whole(uri) as handle:
            handle.write(content)

    def tried(self, *, last: bool = False, waits: bool = True, **faults: Any) -> dict[str, Any] | str:
        """Run the next try with these faults of the service; gives the summary, or the words of its failure."""
        self.emulator.control.clear_faults()
        self.emulator.control.faults(**faults)
        self.tries += 1
        with DAG("d", schedule=None):
            task = GeminiCreateBatchJobOperator(
                task_id="t",
                model=FLASH,
                gemini_conn_id="vertex",
                lookup_timeout=1.0,
                wait_for_completion=waits,
                **{"gcs_uri": f"{self.base}/in/rows.jsonl", "output_path": str(self.output), **self.arguments},
            )
        memo: str | None = None
        while True:
            tries = self.max_tries + 1 if last else self.tries
            now = task_context(self.notes, try_number=tries, max_tries=self.max_tries)
            context: Any = {**now, "outlet_events": OutletEventAccessors()}
            try:
                with task.task_run(context) as run:
                    return run.begin() if memo is None else run.resume(None, memo)
            except TaskDeferred as deferred:
                memo = (deferred.kwargs or {})["memo"]
                self.emulator.control.advance(3600)
            except AirflowException as failure:
                return str(failure)

    def succeeds(self, **how: Any) -> dict[str, Any]:
        found = self.tried(**how)
        assert isinstance(found, dict), found
        return found

    def fails(self, **how: Any) -> str:
        found = self.tried(**how)
        assert isinstance(found, str), found
        return found

    @property
    def done(self) -> list[tuple[int, int]]:
        """Of each job, how many rows were answered in its output, and how many of them an earlier job had answered."""
        return [(job["succeeded"], job["reused"]) for job in self.emulator.control.books()["jobs"]]

    @property
    def billed(self) -> int:
        """How many tokens of input were billed."""
        tokens: int = self.emulator.control.bill()["tokens"]["input_text"]
        return tokens


@pytest.fixture
def life(gcs: str, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    with Emulator(speed=0, storage_endpoint=gcs) as emulator:
        stage = f"gs://stage/{tmp_path.name}"
        monkeypatch.setenv(
            "AIRFLOW_CONN_VERTEX", emulator.connection("vertex", storage_endpoint=gcs, staging_path=stage)
        )
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", emulator.url)
        made = Life(emulator, store, tmp_path)
        made.put(f"{made.base}/in/rows.jsonl", object_of_rows())
        emulator.control.put_table("p.d.in", {"request": "JSON", "key": "STRING"}, table_of_rows())
        yield made


def request() -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "Say something about this row."}]}]}


def object_of_rows() -> bytes:
    return "\n".join(json.dumps({"request": request(), "custom_id": key}) for key in TEN).encode()


def table_of_rows() -> list[dict[str, Any]]:
    return [{"key": key, "request": json.dumps(request())} for key in TEN]


@pytest.mark.parametrize(
    "faults",
    [
        HALF,
        {"job_ending": {"state": "FAILED", "code": 13}, "partial_rows": 0.5},
        {**HALF, "output_layout": {"layout": "shards", "count": 3}, "row_error_every": 3},
        {**HALF, "output_layout": "incremental"},
        {**HALF, "unfinished_rows": "empty"},
        {**HALF, "output_layout": {"packed": "name"}},
        {**HALF, "output_layout": {"packed": True, "layout": "shards", "older": True}},
        {**HALF, "output_layout": {"form": "pretty"}, "row_error_every": 3},
    ],
    ids=["expired", "failed", "shards", "incremental", "empty", "gz", "packed shards", "one list"],
)
def test_a_retry_does_only_what_the_job_before_it_left_undone(life: Life, faults: dict[str, Any]) -> None:
    life.arguments = {"destination": f"{life.base}/answers"} if "output_layout" in faults else {}
    life.fails(**faults)
    ((before, _),) = life.done
    summary = life.succeeds()
    assert life.done[1] == (10, before)
    assert (life.ok, len(life.rows)) == (TEN, 10)
    assert summary["counts"] == {"total": 10, "succeeded": 10, "failed": 0}
    assert summary["job_names"] == [job["name"] for job in life.emulator.control.books()["jobs"]]
    # What the author is told is what was billed: each row once.
    assert summary["usage"]["input_tokens"] == life.billed


def test_a_third_try_goes_on_from_the_second_job_or_from_the_first_if_that_one_left_nothing(life: Life) -> None:
    life.fails(**HALF)
    life.fails(expire=True)
    life.fails(**HALF)
    life.succeeds()
    assert life.done == [(5, 0), (0, 0), (7, 5), (10, 7)]
    assert (life.ok, len(life.rows)) == (TEN, 10)


def test_rows_of_the_first_job_count_if_the_last_try_ends_early_without_any(life: Life) -> None:
    life.fails(**HALF)
    # Vertex AI shows no counts of cancelled jobs: only reading tells that this one left nothing.
    life.fails(last=True, job_ending={"state": "CANCELLED"})
    assert life.ok == TEN[:5]


def test_the_last_job_alone_counts_if_it_ends_early_with_rows(life: Life) -> None:
    life.fails(**HALF)
    life.fails(last=True, **HALF)
    assert (len(life.ok), len(life.rows)) == (7, 10)


def test_an_output_that_lacks_rows_is_not_gone_on_from_and_none_is_missing_in_the_end(life: Life) -> None:
    life.fails(**HALF, unfinished_rows="omit")
    life.succeeds()
    assert life.done == [(5, 0), (10, 0)]
    assert (life.ok, len(life.rows)) == (TEN, 10)


def test_of_jobs_that_took_over_nothing_from_each_other_the_one_with_most_rows_counts_in_the_end(life: Life) -> None:
    life.fails(expire=True, partial_rows=0.7, unfinished_rows="omit")
    life.fails(last=True, expire=True, partial_rows=0.2, unfinished_rows="omit")
    assert life.ok == TEN[:7]


def test_a_try_that_died_after_it_went_on_uses_the_job_that_it_made(life: Life) -> None:
    life.fails(**HALF)
    life.succeeds(waits=False)
    life.succeeds()
    assert life.done == [(5, 0), (10, 5)]
    assert (life.ok, len(life.rows)) == (TEN, 10)


def test_without_notes_the_tag_tells_that_a_job_goes_on_from_another(life: Life) -> None:
    life.fails(**HALF)
    life.succeeds(waits=False)
    life.notes.clear()
    life.succeeds()
    assert life.done == [(5, 0), (10, 5)]
    assert (life.ok, len(life.rows)) == (TEN, 10)


@pytest.mark.parametrize("table", [False, True])
def test_a_repair_round_sends_failed_rows_again_by_going_on_from_the_output(life: Life, *, table: bool) -> None:
    life.arguments = {"repair_rounds": 2, **({"destination": "bq://p.d.answers"} if table else {})}
    summary = life.succeeds(row_error_every=5, row_error_rounds=r"-0\.0\.0-")
    assert life.done == [(8, 0), (10, 8)]
    assert summary["counts"] == {"total": 10, "succeeded": 10, "failed": 0}
    assert (life.ok, len(life.rows)) == (TEN, 10)
    assert summary["usage"]["input_tokens"] == life.billed


def test_a_repair_that_is_cut_short_is_gone_on_from(life: Life) -> None:
    life.arguments = {"repair_rounds": 1}
    life.succeeds(row_error_every=5, waits=False)
    assert "time limit" in life.fails(**HALF)
    life.succeeds()
    assert life.done[2] == (10, 9)
    assert (life.ok, len(life.rows)) == (TEN, 10)


def test_a_task_that_is_cleared_after_its_rows_were_delivered_goes_on_from_nothing(life: Life) -> None:
    life.fails(**HALF)
    life.succeeds()
    life.max_tries += 1
    life.succeeds()
    assert life.done == [(5, 0), (10, 5), (10, 0)]


def test_a_retry_mends_rows_beyond_the_limit(life: Life) -> None:
    life.arguments = {"max_failed_rows": 1}
    assert "A retry sends them again" in life.fails(row_error_every=5)
    life.succeeds()
    assert life.done == [(8, 0), (10, 8)]


def test_rows_that_the_service_answered_are_not_bought_again_by_a_repair(life: Life) -> None:
    life.arguments = {"repair_rounds": 1}
    assert life.succeeds(truncated_every=2)["counts"]["truncated"] == 5
    assert len(life.done) == 1


@pytest.mark.parametrize("landed", [True, False])
def test_a_table_is_gone_on_from_into_a_table_of_its_own(life: Life, *, landed: bool) -> None:
    life.arguments = {"gcs_uri": None, "bigquery_uri": "bq://p.d.in", "destination": "bq://p.d.answers"}
    life.arguments |= {} if landed else {"output_path": None}
    life.fails(**HALF)
    summary = life.succeeds()
    assert life.done == [(5, 0), (10, 5)]
    assert summary["counts"] == {"total": 10, "succeeded": 10, "failed": 0}
    made = life.emulator.control.books()["jobs"][1]["output"]["bigqueryOutputTable"]
    assert made.startswith("answers_gb1_")
    if landed:
        assert (life.ok, len(life.rows)) == (TEN, 10)
    else:
        assert summary["output"] == f"bq://p.d.{made}"


def test_an_author_s_table_of_yesterday_is_not_gone_on_from(life: Life) -> None:
    life.arguments = {"gcs_uri": None, "bigquery_uri": "bq://p.d.in", "destination": "bq://p.d.answers"}
    answered = [{**row, "response": {"candidates": [{}]}, "status": ""} for row in table_of_rows()]
    columns = {"request": "JSON", "key": "STRING", "response": "JSON", "status": "STRING"}
    life.emulator.control.put_table("p.d.answers", columns, answered)
    life.fails(expire=True)
    life.succeeds()
    assert life.done == [(0, 0), (10, 0)]


def test_without_the_library_a_table_is_done_from_the_start(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.arguments = {"gcs_uri": None, "bigquery_uri": "bq://p.d.in", "output_path": None}
    monkeypatch.setitem(sys.modules, "google.cloud.bigquery", None)
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    life.fails(**HALF)
    life.succeeds()
    assert life.done == [(5, 0), (10, 0)]


def test_a_job_that_could_not_read_an_output_is_followed_by_one_that_does_all(life: Life) -> None:
    life.fails(**HALF)
    assert "The same job would fail again" in life.fails(job_ending={"state": "FAILED", "code": 3})
    assert life.ok == TEN[:5]
    life.max_tries += 1
    life.succeeds()
    assert life.done[2] == (10, 0)
    assert (life.ok, len(life.rows)) == (TEN, 10)


@pytest.mark.parametrize("uri", ["rows.jsonl", "*.jsonl", "row*"])
def test_a_job_without_counts_is_compared_with_what_it_read(life: Life, uri: str) -> None:
    # Vertex AI shows no counts of cancelled jobs.
    life.arguments = {"gcs_uri": f"{life.base}/in/{uri}"}
    assert "cancelled by somebody else" in life.fails(job_ending={"state": "CANCELLED"}, partial_rows=0.5)
    life.max_tries += 1
    life.succeeds()
    assert life.done == [(5, 0), (10, 5)]


# -- in Airflow's own runner


def test_a_job_that_is_stuck_is_gone_on_from_by_its_successor(bench: Bench) -> None:
    bench.put(f"gs://data/{bench.folder.name}/in/rows.jsonl", object_of_rows())
    output = bench.folder / "out.jsonl"
    bench.emulator.control.faults(
        hold_running={"value": True, "times": 1}, cancel_ending="cancelled_partial", partial_rows=0.5
    )
    bench.go(
        gcs_uri=f"gs://data/{bench.folder.name}/in/rows.jsonl",
        output_path=str(output),
        on_stall="resubmit",
        progress_timeout=1.0,
        timeout=60.0,
    )
    assert [job["reused"] for job in bench.jobs] == [0, 5]
    assert sorted(row["key"] for row in rows_of(output.read_bytes())) == TEN
