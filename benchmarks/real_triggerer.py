"""Many deferred tasks in the triggerer of a real Airflow, and how often that says that its event loop was blocked.

One triggerer, PostgreSQL, one connection, the emulator as the service. The jobs run until all tasks are deferred and
have been watched for a while; then all end at once. What the triggerer logs is counted phase by phase, and each warning
is laid to this provider, to garbage collection or to neither, by notes of what held the loop. In the end a trigger
blocks the loop on purpose and must be found out, so that none counted means none there.

Before ours, as many tasks wait with Airflow's own trigger. A triggerer owes a full garbage collection when it has just
started, and when it has a quarter more objects than at the last one: who sets it off is chance. So it is done before
Airflow's own and before ours, and what is counted is what each of them adds.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

import psutil
from sqlalchemy import create_engine, text

from benchmarks import blocked, triggerer_notes
from benchmarks.blocked import Cause
from benchmarks.machine import ROOT, Claims, table

sys.path.insert(0, str(ROOT / "tests"))

from chaos.postgres import postgres

from airflow_provider_gemini_batch.emulator import Emulator
from stack.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

TASKS = 500
INTERVAL = 10.0
WATCHED_SECONDS = 120.0
IDLE_SECONDS = 30.0
#: How long the tasks wait that come first, with Airflow's own trigger: until all are there, at so many seconds each.
FIRST_SECONDS = 60.0
SECONDS_A_TASK = 0.5
_PATIENCE = 2400.0
_SETTINGS = {
    # Airflow's defaults, which are patient: 500 tasks start on a machine with less to give than they ask for.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "5",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
}


class Look(NamedTuple):
    """What there has been until a moment."""

    at: float
    warnings: int
    #: Those of the warnings that are laid to each cause.
    provider: int
    collections: int
    others: int
    requests: int
    #: CPU seconds of the process that has the event loop, and of those around it.
    loop: float
    around: float


class Triggerer:
    """A real Airflow, seen from its one triggerer.

    :param tasks: how many tasks there are.
    """

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        causes = [cause.value for cause in Cause]
        self.rows = [["tasks", "phase", "seconds", "warnings", *causes, "requests", "CPU s of the loop", "around it"]]
        self._causes: list[Cause] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.database_url = stack.enter_context(postgres())
            self.emulator = stack.enter_context(Emulator(pending_seconds=0.3, running_seconds=1.0))
            self.airflow = self._airflow()
            triggerer_notes.prepare(self.airflow.home)
            stack.enter_context(self.airflow)
            self._stack = stack.pop_all()
        self._database = create_engine(self.database_url)
        self._stack.callback(self._database.dispose)
        (self._name,) = self.airflow.triggerers()
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _airflow(self) -> LocalAirflow:
        return LocalAirflow(
            [ROOT / "benchmarks" / "dags"],
            connections={"gemini_batch_default": self.emulator.connection("gemini")},
            database_url=self.database_url,
            settings={
                **_SETTINGS,
                "PYTHONPATH": str(ROOT),
                "BENCH_TASKS": str(self.tasks),
                "BENCH_FIRST_TASKS": str(self.tasks),
                "BENCH_INTERVAL": str(INTERVAL),
            },
        )

    def _begin(self) -> None:
        """Get to know the triggerer's processes."""
        supervisor = psutil.Process(self.airflow.pid(self._name))
        children = supervisor.children(recursive=True)
        # The process with the loop is forked, and keeps the name; that of the log server changes it.
        (self._loop,) = [child for child in children if child.cmdline()[-1:] == ["triggerer"]]
        self._around = [supervisor, *(child for child in children if child != self._loop)]
        self._mark = self._look()

    def _judge(self) -> None:
        """Judge the warnings that are new in the log."""
        home, pid = self.airflow.home, self._loop.pid
        log = (home / "component-logs" / f"{self._name}.log").read_text("utf-8", errors="replace")
        collections, held = triggerer_notes.collections(home, pid), triggerer_notes.held(home, pid)
        late = triggerer_notes.late(home, pid)
        for warned in blocked.warnings(log, late)[len(self._causes) :]:
            cause = blocked.cause(warned, collections, held)
            print(f"    blocked for {warned.blocked - blocked.SLEEP:.2f} s {cause.value}", flush=True)
            print(f"      {blocked.places(warned, held)}", flush=True)
            for each in collections:
                if each.within(warned.began, warned.at):
                    took = each.ended - each.began
                    print(f"      a full collection of {took:.2f} s, set off by {each.what}", flush=True)
            self._causes.append(cause)

    def _look(self) -> Look:
        self._judge()
        requests: dict[str, int] = self.emulator.control.books()["requests"]
        return Look(
            time.monotonic(),
            len(self._causes),
            self._causes.count(Cause.PROVIDER),
            self._causes.count(Cause.COLLECTION),
            self._causes.count(Cause.OTHER),
            sum(requests.values()),
            _cpu(self._loop),
            sum(map(_cpu, self._around)),
        )

    def phase(self, whose: str, name: str) -> Look:
        """End a phase; gives what there was in it."""
        time.sleep(1.0)  # a line takes a moment from the loop into the log
        before, self._mark = self._mark, self._look()
        spent = Look(*(now - then for now, then in zip(self._mark, before, strict=True)))  # type: ignore[arg-type]
        numbers = [f"{spent.at:.0f}", *(f"{number}" for number in spent[1:6]), *(f"{cpu:.1f}" for cpu in spent[6:])]
        self.rows.append([whose, name, *numbers])
        print(f"  {whose}, {name}: {spent.at:.0f} s, {spent.warnings} warnings", flush=True)
        return spent

    def states(self, dag_id: str) -> dict[str, int]:
        """How many tasks of a Dag are in which state, asked of the database: Airflow's API has enough to do."""
        query = text("SELECT COALESCE(state, 'none'), COUNT(*) FROM task_instance WHERE dag_id = :dag GROUP BY 1")
        with self._database.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query, {"dag": dag_id})}

    def taken(self) -> int:
        """How many triggers the triggerer has been given."""
        with self._database.connect() as connection:
            return int(connection.execute(text("SELECT COUNT(triggerer_id) FROM trigger")).scalar_one())

    def until(self, dag_id: str, run_id: str, enough: Callable[[dict[str, int]], bool]) -> None:
        """Wait for states of tasks.

        :raises RuntimeError: a task failed, or it took too long; says why.
        """
        deadline = time.monotonic() + _PATIENCE
        while not enough(states := self.states(dag_id)):
            if states.keys() & {"failed", "up_for_retry", "upstream_failed"} or time.monotonic() > deadline:
                told = self.airflow.explain(dag_id, run_id).splitlines()
                failed = "\n".join([line for line in told if line.startswith(" ") or "failed" in line][:60])
                raise RuntimeError(f"{dag_id}: {states}\n{failed}\n{self.airflow.component_logs(lines=15)}")
            time.sleep(1.0)

    def until_deferred(self, dag_id: str, run_id: str) -> None:
        """Wait until the triggerer has all tasks, and each has been looked at."""
        self.until(dag_id, run_id, lambda states: states == {"deferred": self.tasks} and self.taken() == self.tasks)
        time.sleep(INTERVAL)

    def until_over(self, dag_id: str, run_id: str) -> None:
        """Wait until all tasks have ended well."""
        self.until(dag_id, run_id, lambda states: states == {"success": self.tasks})


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def settle(triggerer: Triggerer) -> None:
    """Have the triggerer do the full collection that it may owe, which is nobody's."""
    triggerer.airflow.expect_run("collecting", triggerer.airflow.trigger("collecting"))
    triggerer.phase("one that collects garbage", "all")


def let_airflows_own_come_first(triggerer: Triggerer) -> None:
    """Run tasks that wait with Airflow's own trigger and do nothing else."""
    moment = datetime.now(timezone.utc) + timedelta(seconds=FIRST_SECONDS + SECONDS_A_TASK * triggerer.tasks)
    run_id = triggerer.airflow.trigger("first", {"moment": moment.isoformat()})
    triggerer.until("first", run_id, lambda states: states == {"success": triggerer.tasks})
    triggerer.phase(f"{triggerer.tasks} of Airflow's own", "all")


def watch_ours(triggerer: Triggerer, watched: float) -> list[Look]:
    """Run our tasks; gives what each phase took, the second of which is the watching."""
    whose = f"{triggerer.tasks} of this provider"
    triggerer.emulator.control.faults(hold_running=True)
    run_id = triggerer.airflow.trigger("ours")
    triggerer.until_deferred("ours", run_id)
    phases = [triggerer.phase(whose, "until all were deferred")]
    time.sleep(watched)
    phases.append(triggerer.phase(whose, "watched"))
    triggerer.emulator.control.faults(hold_running=None)
    triggerer.until("ours", run_id, lambda states: "deferred" not in states)
    phases.append(triggerer.phase(whose, "until all ends were noticed"))
    triggerer.until_over("ours", run_id)
    return [*phases, triggerer.phase(whose, "until all tasks had ended")]


def measure(claims: Claims, *, tasks: int = TASKS, watched: float = WATCHED_SECONDS) -> str:
    """Count the warnings while our tasks come, wait and end, and see that a trigger that blocks is found out."""
    print(f"  {tasks} tasks in a real Airflow ...", flush=True)
    with Triggerer(tasks) as triggerer:
        time.sleep(IDLE_SECONDS)
        triggerer.phase("none", "idle")
        settle(triggerer)
        let_airflows_own_come_first(triggerer)
        settle(triggerer)
        ours = watch_ours(triggerer, watched)
        blocking = triggerer.airflow.trigger("blocking")
        triggerer.airflow.expect_run("blocking", blocking)
        seen = triggerer.phase("one that blocks for 0.5 s", "all")
    assert seen.provider, "a trigger blocked the loop, and that was not seen or not laid to it"
    claims.add(f"{tasks} tasks in a real triggerer, warnings while it watches them", ours[1].warnings, 0)
    claims.add(
        f"{tasks} tasks in a real triggerer, warnings because of this provider",
        sum(phase.provider for phase in ours),
        0,
    )
    heading = f"{tasks} deferred tasks in the triggerer of a real Airflow, looks every {INTERVAL:g} s"
    return table(heading, triggerer.rows)
