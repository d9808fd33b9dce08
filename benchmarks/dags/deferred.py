"""Dags for a real triggerer: tasks that wait with Airflow's own trigger, many of ours, two that hold the loop."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, BaseOperator

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from benchmarks.blocker import BlockingTrigger
from benchmarks.collector import CollectingTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

ROWS = [[f"Row of {number}."] for number in range(int(os.environ["BENCH_TASKS"]))]


class WaitOperator(BaseOperator):
    """Wait with Airflow's own trigger for a moment that the run names, and do nothing else.

    :param number: tells the mapped tasks apart.
    """

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Context) -> None:
        moment = datetime.fromisoformat((context["dag_run"].conf or {})["moment"])
        self.defer(trigger=DateTimeTrigger(moment), method_name="done")

    def done(self, context: Context, event: Any) -> None:
        """End."""


class HoldOperator(BaseOperator):
    """Have a trigger hold the event loop.

    :param trigger: the one that does.
    """

    def __init__(self, *, trigger: BaseTrigger, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trigger = trigger

    def execute(self, context: Context) -> None:  # noqa: ARG002  Airflow's own signature
        self.defer(trigger=self.trigger, method_name="done")

    def done(self, context: Context, event: Any) -> None:
        """End."""


with DAG("first", schedule=None, catchup=False, max_active_tasks=128):
    WaitOperator.partial(task_id="wait").expand(number=list(range(int(os.environ["BENCH_FIRST_TASKS"]))))

with DAG("ours", schedule=None, catchup=False, max_active_tasks=128):
    GeminiCreateBatchJobOperator.partial(
        task_id="wait", model="gemini-2.5-flash", poll_interval=float(os.environ["BENCH_INTERVAL"])
    ).expand(inlined_requests=ROWS)

with DAG("collecting", schedule=None, catchup=False):
    HoldOperator(task_id="wait", trigger=CollectingTrigger())  # type: ignore[no-untyped-call]

with DAG("blocking", schedule=None, catchup=False):
    HoldOperator(task_id="wait", trigger=BlockingTrigger(0.5))
