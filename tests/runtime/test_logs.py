"""The whole log of each ending, as a person reads it who opens it after a failure; see ``logs/``."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from dag_runs import Run
from task_log import caught_log, check

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.batch.ports import Landing
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.log_lines import failed_rows_line
from airflow_provider_gemini_batch.runtime.state_store import WallClock
from airflow_provider_gemini_batch.sensors import GeminiBatchJobSensor
from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

HALF = {"row_error_every": 2}


@dataclass(frozen=True)
class Story:
    """What happens at the service, try by try, and what the author asked for."""

    name: str
    tries: tuple[dict[str, Any], ...] = ({},)
    arguments: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    is_cleared: bool = False


def no_rows() -> list[str]:
    return []


def ends(state: str, **more: Any) -> dict[str, Any]:
    return {"job_ending": {"state": state, **more}}


def create(status: int, **more: Any) -> dict[str, Any]:
    return {"http": {"operation": "create", "status": status, **more}}


def get(status: int, **more: Any) -> dict[str, Any]:
    return {"http": {"operation": "get", "status": status, **more}}


STORIES = [
    Story("success"),
    Story("success_waiting", arguments={"deferrable": False}),
    Story("success_in_xcom", arguments={"output_path": None}),
    Story("two_jobs", arguments={"max_rows_per_job": 2, "deferrable": False}),
    Story("not_waited_for", arguments={"wait_for_completion": False, "output_path": None}),
    Story("dry_run", arguments={"dry_run": True}),
    Story("failed_rows_within_limits", (HALF | {"blocked_every": 3},), {"max_failed_rows": 3}),
    Story("failed_rows_above_limits", (HALF,), {"max_failed_rows": 1}),
    Story("failed_rows_above_limits_then_mended", (HALF, {}), {"max_failed_rows": 1}, retries=1),
    Story("every_row_failed_for_good", ({"row_error_every": 1, "row_error_code": 3},)),
    Story("repair", (HALF | {"row_error_rounds": r"-[0-9]\.0\.0-"},), {"repair_rounds": 1}),
    Story("failed_for_a_while", (ends("FAILED", code=13, message="Internal error."), {}), retries=1),
    Story("failed_for_good", (ends("FAILED", code=3, message="The input is malformed."),)),
    Story("cancelled_by_somebody", (ends("CANCELLED", code=1, message="Batch was cancelled."),)),
    Story("expired", ({"expire": True, "partial_rows": 0.5}, {}), retries=1),
    Story("deadline", ({"hold_running": True},), {"timeout": 0.4}),
    Story("deadline_then_adopted", ({"hold_running": True}, {}), {"timeout": 0.4, "cancel_on_timeout": False}, 1),
    Story("stuck_in_the_queue", ({"hold_pending": True},), {"queue_timeout": 0.4}),
    Story("no_progress", ({"hold_running": True},), {"progress_timeout": 0.4}),
    Story("gone", (get(404),)),
    Story("key_refused", (create(401, message="API key not valid."),)),
    Story("key_refused_while_waiting", (get(401),)),
    Story("polling_fails_for_a_while", (get(503, times=4),)),
    Story("response_of_the_create_call_lost", ({"reset": {"operation": "create", "when": "after", "times": 1}},)),
    Story("quota_wait", (create(429, times=1, retry_after=1, message="Quota exceeded."),)),
    Story("quota_wait_waiting", (create(429, times=1, retry_after=1, message="Quota."),), {"deferrable": False}),
    Story(
        "region_refused",
        (create(400, error_status="FAILED_PRECONDITION", message="User location is not supported for the API use."),),
    ),
    Story("empty_input_fails", arguments={"inlined_requests": no_rows}),
    Story("empty_input_is_skipped", arguments={"inlined_requests": no_rows, "on_empty": "skip"}),
    Story("empty_input_succeeds", arguments={"inlined_requests": no_rows, "on_empty": "succeed"}),
    Story("bad_input", arguments={"inlined_requests": [{"key": "a", "text": "One."}, {"key": "a", "text": "Two."}]}),
    Story("above_the_cost_limit", arguments={"max_cost_usd": 1e-9, "generation_config": {"maxOutputTokens": 10}}),
    Story("cleared", ({}, {}), {}, is_cleared=True),
]


def test_of_many_reasons_the_most_frequent_are_named() -> None:
    landing = Landing(90, 0, 90, {"error": 90}, reasons={"error": {**dict.fromkeys("1234567", 1), "8": 83}})
    assert "90 error (83 code 8, 1 code 1, 1 code 2, 1 code 3, 1 code 4)" in failed_rows_line(landing)


@pytest.mark.slow
@pytest.mark.usefixtures("believes_soon")
@pytest.mark.parametrize("story", STORIES, ids=[story.name for story in STORIES])
def test_the_log_of_an_ending_reads_as_its_file(story: Story, service: Emulator, tmp_path: Path) -> None:
    if len(story.tries) > 1 and not HAS_STORE:
        pytest.skip("Airflow 3.2 keeps no notes between tries: a retry looks for jobs first, for minutes, and says so")
    with DAG("stories", schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="t",
            model="gemini-2.5-flash",
            poll_interval=0.1,
            retries=story.retries,
            retry_delay=timedelta(hours=1),
            **{
                "inlined_requests": ["One.", "Two.", "Three.", "Four."],
                "output_path": f"{tmp_path}/out.jsonl",
                **story.arguments,
            },
        )
    # A job that is not held has ended at the first poll: which of its states are seen on the way is a matter of luck.
    service.control.speed(1e4)
    run = Run(dag)
    with caught_log() as log:
        for number, faults in enumerate(story.tries):
            if number:
                service.control.clear_faults()
                log.say("cleared by a person" if story.is_cleared else f"try {number + 1}")
                if story.is_cleared:
                    run.clear("t")
            service.control.faults(**faults)
            run.attempt("t")
    is_held = any(name.startswith("hold") for faults in story.tries for name in faults)
    check(story.name, log.text(folder=str(tmp_path), is_held=is_held))


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 1])
def test_the_log_of_a_kill_says_what_became_of_the_job(
    retries: int, service: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(WallClock, "sleep", lambda *_: signal.raise_signal(signal.SIGTERM))
    service.control.faults(hold_pending=True)
    with DAG("killed", schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="t", model="gemini-2.5-flash", inlined_requests=["One."], deferrable=False, retries=retries
        )
    run = Run(dag)
    with caught_log() as log:
        run.attempt("t")
    check(f"killed_with_{retries}_retries", log.text(folder=str(tmp_path), is_held=True))


SENSOR_STORIES = [
    Story("sensor_success"),
    Story("sensor_success_with_failed_rows", (HALF,)),
    Story("sensor_failed", (ends("FAILED", code=13, message="Internal error."),)),
    Story("sensor_timeout", ({"hold_running": True},), {"timeout": 1.0}),
    Story("sensor_skips_a_failure", (ends("EXPIRED"),), {"soft_fail": True}),
    Story("sensor_refused", (get(401),)),
    Story("sensor_gone", (get(404),)),
]


@pytest.mark.slow
@pytest.mark.usefixtures("believes_soon")
@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("story", SENSOR_STORIES, ids=[story.name for story in SENSOR_STORIES])
def test_the_log_of_a_sensor_reads_as_its_file(
    story: Story, service: Emulator, tmp_path: Path, *, deferrable: bool
) -> None:
    (faults,) = story.tries
    service.control.speed(0)
    # How a job and its rows end is settled when it is created.
    service.control.faults(**{name: value for name, value in faults.items() if name not in ("http", "hold_running")})
    with BatchClient.for_gemini("hidden-key", base_url=service.url) as client:
        job_name = client.create("gemini-2.5-flash", inlined_requests=["One.", "Two."]).name
    with DAG("stories", schedule=None) as dag:
        GeminiBatchJobSensor(
            task_id="t",
            job_name=job_name,
            poke_interval=0.1,
            deferrable=deferrable,
            **{"timeout": 60, **story.arguments},
        )

    def happen() -> None:
        service.control.faults(**faults)
        service.control.speed(1e4)

    run = Run(dag)
    if not deferrable:
        happen()
    with caught_log() as log:
        run.attempt("t", meanwhile=happen)
    check(story.name if deferrable else f"{story.name}_waiting", log.text(folder=str(tmp_path), is_held=True))
