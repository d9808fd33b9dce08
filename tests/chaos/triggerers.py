"""Fifty deferred tasks and two triggerers, one of which is stopped, killed, frozen and restarted in turn."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from itertools import cycle
from typing import TYPE_CHECKING

from chaos.case import Case
from chaos.play import SETTINGS, Theatre
from chaos.postgres import postgres

if TYPE_CHECKING:
    from chaos.stage import Stage

TASKS = 50
SECONDS = 180.0
#: Long enough for another triggerer to start, and to be given the work of the silent one.
FROZEN_SECONDS = float(SETTINGS["AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD"]) + 20
ROUNDS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP)


def play_triggerers(*, database: str = "postgres", tasks: int = TASKS, seconds: float = SECONDS) -> int:
    """Play on PostgreSQL or SQLite; return 1 if a job was cancelled or made twice, or a task failed."""
    case = Case(
        name="triggerers",
        done=f"{tasks} deferred tasks on {database}, two triggerers shaken for {seconds:.0f} s",
        mapped=tasks,
        # Bound to the jobs, so that each can be let go alone.
        faults={"hold_running": {"times": 2 * tasks, "value": True}},
        created=tasks,
        deliveries=tasks,
    )
    began = time.monotonic()
    with ExitStack() as stack:
        url = stack.enter_context(postgres()) if database == "postgres" else None
        theatre = stack.enter_context(Theatre([case], at_a_time=8, triggerers=2, database_url=url))
        (stage,) = theatre.stages
        stage.patience = 900.0
        problems: list[str] = []
        try:
            stage.begin()
            stage.until("deferred", 1)
            stage.until_watched()
            print(f"{tasks} tasks are deferred after {time.monotonic() - began:.0f} s", flush=True)
            shaken = shake(stage, seconds)
            stage.until_watched()
            stage.release()
            stage.until_over()
        except TimeoutError as error:
            problems.append(str(error))
            shaken = 0
        problems += stage.problems()
        left = stage.log().count("Left running")
        print(
            f"{database}: {shaken} triggerers shaken, on_kill fired {left} times while a task waited; "
            f"{len(stage.jobs)} jobs, {len(stage.deliveries)} deliveries, {time.monotonic() - began:.0f} s"
        )
        for problem in problems:
            print(f"      {problem}")
        if problems:
            print(stage.events())
            print(theatre.airflow.component_logs())
    return 1 if problems else 0


def shake(stage: Stage, seconds: float) -> int:
    """Stop, kill or freeze one triggerer after the other; an eighth of the jobs ends in each round."""
    deadline = time.monotonic() + seconds
    airflow = stage.airflow
    for count, how in enumerate(cycle(ROUNDS)):
        names = sorted(airflow.triggerers())
        name = names[count % len(names)]
        running = [job for job in stage.jobs if job["state"] == "RUNNING"]
        # However many rounds there are, some jobs run on to the end.
        for job in running[: len(running) // 8]:
            stage.control.set_job(job["name"], release=True)
        if how is signal.SIGSTOP:
            airflow.send_signal(name, signal.SIGSTOP)
            time.sleep(FROZEN_SECONDS)
            airflow.send_signal(name, signal.SIGCONT)
        else:
            airflow.restart(name, how=how)
        print(f"  {how.name} for {name}; {sum(job['state'] == 'RUNNING' for job in stage.jobs)} jobs run", flush=True)
        if time.monotonic() >= deadline:
            return count + 1
        time.sleep(8)
    raise AssertionError("cycle() does not end")
