"""One Dag for each case that ``$CHAOS_FOLDER/dags.json`` describes; what a task hands over is written down."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.sensors import GeminiBatchJobSensor

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(os.environ["CHAOS_FOLDER"])
OPERATORS: dict[str, Any] = {"create": GeminiCreateBatchJobOperator, "sensor": GeminiBatchJobSensor}


def write_line(kind: str, context: Any, **values: Any) -> None:
    """Append one line to ``<kind>.jsonl``; short lines of an append are whole, whoever else writes."""
    ti = context["ti"]
    line = {"dag_id": ti.dag_id, "run_id": ti.run_id, "map_index": ti.map_index, "try": ti.try_number, **values}
    with (FOLDER / f"{kind}.jsonl").open("a", encoding="utf-8") as target:
        target.write(json.dumps(line) + "\n")


def deliver(context: Any, result: Any) -> None:
    """Write down that results have reached the author: this runs when the operator has returned them."""
    write_line("deliveries", context, jobs=result["job_names"], counts=result["counts"], output=result.get("output"))


def slow_rows(dag_id: str, count: int, seconds: float, *, columns: bool) -> Callable[[], list[Any]]:
    """Rows that take their time, once: whoever looks finds a task that has not sent anything yet.

    With ``columns`` they have some, and other texts at each call.
    """

    def rows() -> list[Any]:
        mark = FOLDER / f"{dag_id}.asked"
        is_first = not mark.exists()
        with mark.open("a", encoding="utf-8") as calls:
            calls.write(".")
        if is_first:
            time.sleep(seconds)
        if columns:
            return [{"id": f"r{number}", "size": number, "text": f"{time.time()}"} for number in range(count)]
        return [f"Row {number}." for number in range(count)]

    return rows


def killer(seed: int, port: int, window: float) -> Callable[[Any], None]:
    """Give a hook that has SIGKILL hit each task once, at a moment of its own around its create call.

    One in three is hit within ``window`` seconds of its start, the others within so many seconds of the first
    connection to the service, which is the create call's. Every fifth takes the task's supervisor with it, as the
    loss of a machine does.
    """

    def arm(context: Any) -> None:
        ti = context["ti"]
        mark = FOLDER / "killed" / f"{ti.dag_id}-{ti.map_index}"
        if mark.exists():
            return
        mark.parent.mkdir(exist_ok=True)
        chance = random.Random(f"{seed}-{ti.map_index}")
        delay, at_once, whole = chance.uniform(0, window), ti.map_index % 3 == 0, ti.map_index % 5 == 0
        # A process that got away is followed by one that has less time.
        armed = mark.with_suffix(".armed")
        with armed.open("a", encoding="utf-8") as count:
            count.write(".")
        delay /= 4 ** (armed.stat().st_size - 1)

        def strike() -> None:
            time.sleep(delay)
            mark.touch()
            write_line("kills", context, at=time.time(), delay=delay, whole=whole)
            if whole:
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

        fuse = threading.Thread(target=strike, daemon=True)

        def on_event(event: str, values: tuple[Any, ...]) -> None:
            if event == "socket.connect" and values[1][1:2] == (port,) and not fuse.ident:
                fuse.start()

        if at_once:
            fuse.start()
        else:
            sys.addaudithook(on_event)

    return arm


def make_dag(plan: dict[str, Any]) -> DAG:
    """Make the Dag of one case: one task, named ``batch``, mapped if the plan says so."""
    arguments: dict[str, Any] = dict(plan["arguments"])
    arguments["retry_delay"] = timedelta(seconds=plan.get("retry_delay", 1.0))
    arguments["retries"] = plan["retries"]
    arguments["post_execute"] = deliver
    if "slow_rows" in plan:
        arguments["inlined_requests"] = slow_rows(
            plan["dag_id"], plan["rows"], plan["slow_rows"], columns="carry" in arguments
        )
    if "kill_seed" in plan:
        arguments["pre_execute"] = killer(plan["kill_seed"], plan["service_port"], plan["kill_window"])
    operator = OPERATORS[plan["kind"]]
    with DAG(plan["dag_id"], schedule=None, catchup=False, max_active_tasks=128, params=plan.get("params", {})) as dag:
        if plan.get("mapped"):
            rows = [[f"Row {row} of {task}." for row in range(plan["rows"])] for task in range(plan["mapped"])]
            operator.partial(task_id="batch", **arguments).expand(inlined_requests=rows)
        else:
            operator(task_id="batch", **arguments)
    return dag


for _plan in json.loads((FOLDER / "dags.json").read_text("utf-8")):
    globals()[_plan["dag_id"]] = make_dag(_plan)
