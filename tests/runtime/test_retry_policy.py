"""When a failed batch task is tried again, by what has gone wrong; Airflow 3.3 asks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow import sdk
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization
from dag_runs import Run
from task_context import task_context

from airflow_provider_gemini_batch.api.errors import QuotaExceeded, ServiceUnavailable
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator, GeminiGetBatchJobOperator
from airflow_provider_gemini_batch.retry_policies import GeminiBatchRetryPolicy
from airflow_provider_gemini_batch.runtime.client import airflow_errors

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.errors import GeminiBatchError
    from airflow_provider_gemini_batch.emulator import Emulator

HAS_POLICIES = hasattr(sdk, "RetryPolicy")
needs_policies = pytest.mark.skipif(not HAS_POLICIES, reason="Airflow 3.3 brought retry policies")


def quota(retry_after: float | None) -> QuotaExceeded:
    return QuotaExceeded("no quota", http_status=429, retry_after=retry_after)


def decided(error: GeminiBatchError) -> Any:
    with pytest.raises(AirflowException) as raised, airflow_errors():
        raise error
    return GeminiBatchRetryPolicy(longest_delay=timedelta(minutes=10)).evaluate(raised.value, 1, 3)


@needs_policies
@pytest.mark.parametrize(
    ("error", "action", "seconds"),
    [
        (quota(37.0), "retry", 37),
        (quota(86400.0), "retry", 600),
        (quota(0.0), "retry", 1),
        (quota(None), "default", None),
        (ServiceUnavailable("down", http_status=503), "default", None),
    ],
)
def test_the_delay_is_the_services_own_where_it_names_one(
    error: GeminiBatchError, action: str, seconds: float | None
) -> None:
    decision = decided(error)
    delay = None if decision.retry_delay is None else decision.retry_delay.total_seconds()
    assert (decision.action.value, delay) == (action, seconds)


@needs_policies
def test_a_job_that_expired_is_tried_again_at_once(emulator: Emulator) -> None:
    emulator.control.faults(job_ending={"state": "EXPIRED"})
    task = GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", inlined_requests=["x"])
    with pytest.raises(TaskDeferred) as deferred, task.task_run(task_context(max_tries=1)) as run:
        run.begin()
    emulator.control.advance(200_000)
    with pytest.raises(AirflowException) as raised, task.task_run(task_context(max_tries=1)) as run:
        run.resume(None, (deferred.value.kwargs or {})["memo"])
    decision = GeminiBatchRetryPolicy().evaluate(raised.value, 1, 3)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(seconds=1))


@needs_policies
def test_airflow_itself_waits_as_the_policy_says(service: Emulator) -> None:
    policy: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(hours=1), "retry_policy": GeminiBatchRetryPolicy()}
    with DAG("policy", schedule=None) as dag:
        GeminiGetBatchJobOperator(task_id="quota", job_name="batches/a", **policy)
        GeminiGetBatchJobOperator(task_id="gone", job_name="batches/a", **policy)
        GeminiCreateBatchJobOperator(task_id="expired", model="gemini-2.5-flash", inlined_requests=["x"], **policy)
    run = Run(dag)
    service.control.faults(http={"operation": "get", "status": 429, "retry_info": "37s"})
    assert run.attempt("quota").state == "up_for_retry"
    service.control.faults(http=None, job_ending={"state": "EXPIRED"})
    service.control.speed(1e6)
    assert run.attempt("expired").state == "up_for_retry"
    assert run.attempt("gone").state == "failed"
    delays = [run.instance(name).retry_delay_override for name in ("quota", "expired", "gone")]
    assert delays == [37, 1, None]


@needs_policies
def test_a_dag_with_the_policy_can_be_stored() -> None:
    with DAG("d", schedule=None) as dag:
        GeminiCreateBatchJobOperator(
            task_id="t", model="m", inlined_requests=["x"], retries=2, retry_policy=GeminiBatchRetryPolicy()
        )
    DagSerialization.to_dict(dag)
    policy = GeminiBatchRetryPolicy.deserialize(GeminiBatchRetryPolicy(longest_delay=9).serialize())
    assert policy.longest_delay == timedelta(seconds=9)


@pytest.mark.skipif(HAS_POLICIES, reason="Airflow 3.3 has retry policies: only 3.2 refuses them")
def test_an_airflow_without_policies_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"needs Airflow 3\.3"):
        GeminiBatchRetryPolicy()
