"""Every ending of a job, waited for in the triggerer and in the worker: one task state, one message, retried or not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from dag_runs import Run

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.failures import RetryAtOnce

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

GOOD, RETRY, FINAL = "success", "up_for_retry", "failed"
KIND = {GOOD: type(None), RETRY: AirflowException, FINAL: AirflowFailException}
HALF_FAIL = {"row_error_every": 2}
TABLE = {
    "gemini_conn_id": "vertex",
    "inlined_requests": None,
    "bigquery_uri": "bq://demo-project.texts.inbox",
    "destination": "bq://demo-project.texts.answers",
}


@dataclass(frozen=True)
class Ending:
    """What happens at the service, and what is to become of the task."""

    name: str
    faults: dict[str, Any]
    state: str
    words: str
    arguments: dict[str, Any] = field(default_factory=dict)
    #: How fast the emulator's clock runs; a job lasts three of its seconds.
    speed: float = 60.0


def failed(code: int | None, state: str) -> Ending:
    ending = {"state": "FAILED"} | ({} if code is None else {"code": code, "message": "The service said so."})
    words = "without giving a reason" if code is None else f"with code {code}: The service said so"
    advice = "The same job would fail again" if state == FINAL else "A new job may succeed"
    return Ending(f"failed_{code}", {"job_ending": ending}, state, rf"failed {words}\. {advice}")


def get_answers(status: int, **more: Any) -> dict[str, Any]:
    return {"http": {"operation": "get", "status": status, **more}}


def create_answers(status: int, message: str, **more: Any) -> dict[str, Any]:
    return {"http": {"operation": "create", "status": status, "message": message, **more}}


ENDINGS = [
    Ending("succeeded", {}, GOOD, ""),
    Ending("succeeded_with_few_failed_rows", HALF_FAIL, GOOD, ""),
    Ending("failed_rows_within_the_limit", HALF_FAIL, GOOD, "", {"max_failed_rows": 2, "max_failure_rate": 0.5}),
    Ending(
        "more_failed_rows_than_the_limit",
        HALF_FAIL,
        RETRY,
        r"2 of 4 rows failed: more than max_failed_rows=1\. A retry sends them again",
        {"max_failed_rows": 1},
    ),
    Ending(
        "more_rows_failed_for_good_than_the_limit",
        HALF_FAIL | {"row_error_code": 3},
        FINAL,
        r"2 of 4 rows failed: more than max_failure_rate=0\.25\. The responses say why",
        {"max_failure_rate": 0.25},
    ),
    Ending("every_row_failed", {"row_error_every": 1}, RETRY, "4 of 4 rows failed: every row failed"),
    Ending(
        "every_row_failed_for_good",
        {"row_error_every": 1, "row_error_code": 3},
        FINAL,
        r"every row failed\. .* Failed rows: 4 error \(code 3\)\. There is no output_path: read the rows with \w+\.",
    ),
    Ending("partially_succeeded", {"job_ending": {"state": "PARTIALLY_SUCCEEDED"}}, GOOD, "", TABLE),
    *(failed(code, RETRY) for code in (8, 13, 14, 4, 2, None)),
    *(failed(code, FINAL) for code in (3, 5, 7, 9)),
    Ending(
        "cancelled_by_somebody_else",
        {"job_ending": {"state": "CANCELLED", "code": 13, "message": "Batch was cancelled."}},
        FINAL,
        "cancelled by somebody else. Clear the task to run it again",
    ),
    Ending("expired", {"expire": True}, RETRY, "ran into the service's time limit"),
    Ending("expired_half_way", {"expire": True, "partial_rows": 0.5}, RETRY, "its finished rows are kept"),
    Ending("deadline", {"hold_running": True}, RETRY, "did not end within .* and was cancelled", {"timeout": 0.4}),
    Ending(
        "deadline_left_running",
        {"hold_running": True},
        RETRY,
        "did not end within .*; it was left running",
        {"timeout": 0.4, "cancel_on_timeout": False},
    ),
    Ending(
        "unknown_state_until_the_deadline",
        {"hold_running": True, "unknown_state": "BATCH_STATE_SIMMERING"},
        RETRY,
        "did not end within",
        {"timeout": 0.4},
    ),
    Ending("errors_that_pass", get_answers(503, times=3), GOOD, ""),
    Ending(
        "stuck_in_the_queue", {"hold_pending": True}, RETRY, "never left the service's queue", {"queue_timeout": 10}
    ),
    Ending("no_progress", {"hold_running": True}, RETRY, "made no progress", {"progress_timeout": 0.4}),
    Ending("gone", get_answers(404), RETRY, "does not know .* any more"),
    Ending(
        "results_gone",
        {"output_retention": 1},
        FINAL,
        "no longer kept, or .*: clear the task to run it again",
        speed=1e5,
    ),
    Ending("output_without_rows", {"missing_every": 1}, FINAL, "or its output is empty: clear the task", speed=1e5),
    Ending("key_refused_for_once_while_waiting", get_answers(401, times=1), GOOD, ""),
    Ending("unknown_for_once_while_waiting", get_answers(404, times=1), GOOD, ""),
    Ending(
        "key_refused_until_the_deadline",
        {"hold_running": True} | get_answers(401, skip=1),
        FINAL,
        "Could not poll .*: .* 401",
        {"timeout": 60.0},
    ),
    Ending("key_refused_while_waiting", get_answers(401), FINAL, "Could not poll .*: .* 401"),
    Ending("permission_lost_while_waiting", get_answers(403), FINAL, "Could not poll .*: .* 403"),
    Ending("refused_while_waiting", get_answers(400), FINAL, "Could not poll .*: .* 400"),
    Ending("permission_missing", create_answers(403, "Permission denied."), FINAL, "Permission denied"),
    Ending(
        "region_not_served",
        create_answers(400, "User location is not supported for the API use.", error_status="FAILED_PRECONDITION"),
        FINAL,
        "is not available to this project from here",
    ),
]


@pytest.mark.slow
@pytest.mark.usefixtures("believes_soon")
@pytest.mark.parametrize("ending", ENDINGS, ids=[ending.name for ending in ENDINGS])
def test_an_ending_means_the_same_deferred_or_not(ending: Ending, service: Emulator) -> None:
    arguments = {"inlined_requests": ["One.", "Two.", "Three.", "Four."], **ending.arguments}
    with DAG("endings", schedule=None) as dag:
        for task_id, deferrable in (("deferred", True), ("waiting", False)):
            GeminiCreateBatchJobOperator(
                task_id=task_id,
                model="gemini-2.5-flash",
                deferrable=deferrable,
                poll_interval=0.1,
                retries=1,
                retry_delay=timedelta(hours=1),
                **arguments,
            )
    dag_run = Run(dag)
    service.control.speed(ending.speed)
    service.control.faults(**ending.faults)
    deferred = dag_run.attempt("deferred")
    waited = dag_run.attempt("waiting")
    # Only a job that has run out of its own time is worth a retry at once: a policy of retries knows it by its kind.
    kind = RetryAtOnce if ending.name.startswith("expired") else KIND[ending.state]
    for result in (deferred, waited):
        assert (result.state, type(result.error)) == (ending.state, kind), result.message
        assert re.search(ending.words, result.message), result.message
    assert without_names(deferred.message) == without_names(waited.message)
    assert not waited.deferrals
    if "and was cancelled" in waited.message:
        assert [job["cancel_calls"] for job in service.control.books()["jobs"]] == [1, 1]


def without_names(message: str) -> str:
    """The kind of a message: no job, task or number of it."""
    return re.sub(r"\d+(\.\d+)?( h| min| s\b)?", "#", re.sub(r"(batches|projects)/[\w/-]+", "JOB", message))
