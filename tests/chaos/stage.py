"""Where one case plays: its own emulated service, its own Dag, and the hands that reach into the running Airflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from sqlalchemy import create_engine, make_url
from waiting import wait_for

from airflow_provider_gemini_batch.emulator import Emulator
from chaos.case import ROWS
from stack.airflow_rest import FINISHED, AirflowRest

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.board import Board
    from chaos.case import Case
    from stack.local_airflow import LocalAirflow

PATIENCE = 300.0
OTHERS = "other-"
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_PROJECT, _BUCKET = "demo-project", "my-bucket"


class Stage:
    """One case in the making. The public methods are the words that steps are written in."""

    def __init__(self, case: Case, folder: Path, storage: str | None) -> None:
        self.case = case
        self._folder = folder
        self.emulator = Emulator(
            pending_seconds=0.3,
            running_seconds=1.0,
            storage_endpoint=storage,
        )
        self.emulator.start()
        self.control = self.emulator.control
        self.run_id = ""
        #: Seconds to wait for a state of the task.
        self.patience = PATIENCE
        self._frozen: list[int] = []
        self._ended_tries: dict[tuple[int, int], str] = {}
        self._frozen_triggerer = ""

    # -- setting up

    def connection(self) -> str:
        """Give the connection to this case's own service."""
        extra: dict[str, Any] = {"timeout": self.case.request_timeout}
        if self.case.service == "vertex":
            extra["staging_path"] = f"gs://{_BUCKET}/{self.case.name}"
        return self.emulator.connection(self.case.service, **extra)

    def plan(self) -> dict[str, Any]:
        """Give what the Dag file needs to know."""
        return {**self.case.plan(), "service_port": int(self.emulator.url.rpartition(":")[2])}

    def enter(self, airflow: LocalAirflow, board: Board) -> None:
        """Take the running Airflow."""
        self.airflow = airflow
        self._board = board
        self._rest = AirflowRest(airflow.base_url)

    def begin(self) -> None:
        """Set the faults and start the run."""
        conf = {}
        if self.case.kind == "sensor":
            conf["job"] = self._job_of_another()
        self.control.faults(**self.case.faults)
        self.run_id = self._rest.trigger(self.case.name, conf)

    def close(self) -> None:
        """Stop the service."""
        self._rest.forget_login()
        self.emulator.stop()

    def _job_of_another(self) -> str:
        self.control.faults(**self.case.faults)
        return self._create("watched")

    def _create(self, display_name: str) -> str:
        request = {"contents": [{"role": "user", "parts": [{"text": "Hello."}]}]}
        requests = {"requests": [{"request": request, "metadata": {"key": "r0"}}]}
        body = {"batch": {"display_name": display_name, "input_config": {"requests": requests}}}
        url = f"{self.emulator.url}/v1beta/models/gemini-2.5-flash:batchGenerateContent"
        answer = httpx.post(url, json=body, headers={"x-goog-api-key": "any-key"}, trust_env=False, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["name"])

    # -- looking

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of this case, oldest first; those of others are not counted."""
        found: list[dict[str, Any]] = self.control.books()["jobs"]
        return [job for job in found if not job["display_name"].startswith(OTHERS)]

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        """What reached the author of this case: what tries handed over, as many at a place as Airflow counts successes.

        A try that Airflow has given up while it handed its results over has delivered nothing: whoever comes after
        it never sees them. Tries are not told apart by their number: where a worker is lost while its task is being
        queued, Airflow's records say 3 of a try whose process was told 2.
        """
        left = Counter(place for (place, _), state in self._tries().items() if state == "success")
        found = []
        for line in reversed(self._handed_over()):
            left[line["map_index"]] -= 1
            if left[line["map_index"]] >= 0:
                found.append(line)
        return found

    def _handed_over(self) -> list[dict[str, Any]]:
        """What tries handed over, whether Airflow counts them or not, in the order of time."""
        return [line for line in read_lines(self._folder / "deliveries.jsonl") if line["dag_id"] == self.case.name]

    def _tries(self) -> dict[tuple[int, int], str]:
        """How each try ended, by map index and number of the try, asked for when all is over; none without a run."""
        if self.run_id and not self._ended_tries:
            path = f"/dags/{self.case.name}/dagRuns/{self.run_id}/taskInstances/batch"
            places = [task["map_index"] for task in self._rest.task_instances(self.case.name, self.run_id)]
            self._ended_tries = {
                (place, each["try_number"]): each["state"]
                for place in places
                for each in self._rest.call("GET", f"{path}/{place}/tries" if place >= 0 else f"{path}/tries")[
                    "task_instances"
                ]
            }
        return self._ended_tries

    def log(self) -> str:
        """Everything that workers and triggerers wrote down for this run, file by file."""
        files = sorted((self.airflow.home / "logs" / f"dag_id={self.case.name}").rglob("*.log*"))
        return "\n".join(path.read_text("utf-8", errors="replace") for path in files if path.is_file())

    def events(self) -> str:
        """The log in short, for a case that went wrong: time and text of each line."""
        lines = []
        for line in self.log().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                lines.append(line)
                continue
            causes = "".join(f" [{each['exc_type']}: {each['exc_value']}]" for each in entry.get("error_detail") or ())
            lines.append(f"{str(entry.get('timestamp'))[11:23]} {entry.get('event')}{causes}")
        return "\n".join(lines)

    def _wait(self, enough: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> None:
        wait_for(enough, what, seconds=seconds, pause=0.05)

    def _calls(self, operation: str) -> int:
        return int(self.control.books()["requests"].get(operation, 0))

    def _tasks(self) -> list[dict[str, Any]]:
        return self._board.wait((self.case.name, self.run_id), lambda _run, tasks: bool(tasks), "its task", seconds=60)

    # -- steps: waiting

    def until(self, state: str, try_number: int) -> None:
        """Wait until the task is in this state, in this try or a later one."""
        self._board.wait(
            (self.case.name, self.run_id),
            lambda _run, tasks: (
                bool(tasks) and all(task["state"] == state and task["try_number"] >= try_number for task in tasks)
            ),
            f"try {try_number} to be {state}",
            seconds=self.patience,
        )

    def until_over(self) -> None:
        """Wait until run and tasks have ended."""
        self._board.wait(
            (self.case.name, self.run_id),
            lambda run, tasks: run in FINISHED and all(task["state"] in _ENDED for task in tasks),
            "the end of the run",
            seconds=self.patience,
        )

    def until_created(self, count: int) -> None:
        """Wait until the service has made so many jobs."""
        self._wait(lambda: len(self.jobs) >= count, f"{count} created jobs")

    def until_called(self, operation: str, count: int) -> None:
        """Wait until so many calls of an operation have come in."""
        self._wait(lambda: self._calls(operation) >= count, f"{count} calls of {operation}")

    def until_watched(self) -> None:
        """Wait until somebody has looked at the job twice more: then whoever waits for it is at work."""
        before = self._calls("get") + self._calls("list")
        self._wait(lambda: self._calls("get") + self._calls("list") >= before + 2, "looks at the job")

    def until_asked(self) -> None:
        """Wait until the task has begun to read its rows."""
        self._wait((self._folder / f"{self.case.name}.asked").exists, "the rows to be asked for")

    def until_hit(self, kind: str) -> None:
        """Wait until a fault of one time has hit its call."""

        def hit() -> bool:
            with self.control._world.lock:
                shown = self.control._world.faults.show()
            return all(fault["times"] == 0 for fault in shown[kind])

        self._wait(hit, f"{kind} to hit")

    def until_said(self, text: str) -> None:
        """Wait until the task's log holds a text."""
        wait_for(lambda: text in self.log(), f"{text!r} to be said", seconds=PATIENCE, pause=1)

    def until_taken_over(self) -> None:
        """Wait until another triggerer has the task's trigger."""
        frozen = self._frozen_job
        self._wait(lambda: self._triggerer_job() not in (None, frozen), "a take-over")
        self.until_watched()

    def pause(self, seconds: float) -> None:
        """Let things happen that nothing tells of."""
        time.sleep(seconds)

    # -- steps: the service

    def fault(self, name: str, value: Any) -> None:
        """Set a fault."""
        self.control.faults(**{name: value})

    def calm(self) -> None:
        """Take all faults back."""
        self.control.clear_faults()

    def release(self) -> None:
        """Let go of held jobs."""
        self.control.faults(hold_running=None, hold_pending=None)
        for job in self.jobs:
            self.control.set_job(job["name"], release=True)

    def set_job(self, changes: dict[str, Any]) -> None:
        """Change the newest job, as the service or a person would."""
        self.control.set_job(self.jobs[-1]["name"], **changes)

    def crowd(self, count: int) -> None:
        """Have others create jobs that are named much alike."""
        ours = self.jobs[-1]["display_name"]
        for number in range(count):
            # Another identity under the same author's name, or our own tag with more behind it.
            near = ours.replace("gb1-", f"gb1-{number % 10}", 1) if number % 2 else f"{ours}x"
            self._create(f"{OTHERS}{near}"[:128])

    # -- steps: a person

    def mark(self, state: str) -> None:
        """Mark the task in Airflow."""
        self._rest.set_task_state(self.case.name, self.run_id, "batch", state)

    def mark_run(self, state: str) -> None:
        """Mark the Dag run in Airflow."""
        self._rest.set_run_state(self.case.name, self.run_id, state)

    def clear(self) -> None:
        """Clear the task in Airflow."""
        self._rest.clear(self.case.name, self.run_id, "batch")

    # -- steps: processes and files

    def kill(self, which: str, whole: bool = False) -> None:  # noqa: FBT001, FBT002  steps are rows of words
        """Send a signal to the process that runs the task; with ``whole`` to its supervisor as well."""
        pid = self._task_pid()
        if whole:
            os.kill(psutil.Process(pid).ppid(), signal.Signals[which])
        os.kill(pid, signal.Signals[which])

    def _task_pid(self) -> int:
        def running(_run: str, tasks: list[dict[str, Any]]) -> bool:
            return len(tasks) == 1 and tasks[0]["state"] == "running" and bool(tasks[0]["pid"])

        (task,) = self._board.wait((self.case.name, self.run_id), running, "a running process", seconds=40)
        return int(task["pid"])

    def freeze(self) -> None:
        """Stop the task's process and its supervisor without ending them."""
        pid = self._task_pid()
        self._frozen = [psutil.Process(pid).ppid(), pid]
        for each in self._frozen:
            os.kill(each, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for each in reversed(self._frozen):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)

    def wall_up(self, name: str) -> None:
        """Put a file where the folder of the results should be."""
        shutil.rmtree(self._folder / name, ignore_errors=True)
        (self._folder / name).write_text("in the way", encoding="utf-8")

    def other_host(self, name: str) -> None:
        """Take away what the first host had on its own disk."""
        shutil.rmtree(self._folder / name)

    def wall_down(self, name: str) -> None:
        """Take it away."""
        (self._folder / name).unlink()

    # -- steps: the whole Airflow

    def restart(self, component: str) -> None:
        """Stop a part of Airflow politely and start it again."""
        self.airflow.restart(component)
        self.airflow.wait_healthy()

    def restart_triggerer(self, how: str) -> None:
        """Stop the triggerer and start it again under the same name."""
        (name,) = self.airflow.triggerers()
        self.airflow.restart(name, how=signal.Signals[how])

    def restart_everything(self) -> None:
        """Stop all parts of Airflow, then start them."""
        names = ["scheduler", "dag-processor", *self.airflow.triggerers(), "api-server"]
        for name in names:
            self.airflow.stop_component(name)
        self.airflow.forget_login()
        for name in ("api-server", "scheduler", "dag-processor"):
            self.airflow.start_component(name)
        self.airflow.start_triggerer()
        self.airflow.wait_healthy()

    def second_triggerer(self) -> None:
        """Start another triggerer and wait until Airflow counts on it."""
        before = self._living_triggerers()
        self.airflow.start_triggerer()
        self._wait(lambda: self._living_triggerers() > before, "the second triggerer")

    def _living_triggerers(self) -> int:
        jobs = self._rest.call("GET", "/jobs", params={"job_type": "TriggererJob", "is_alive": True})
        return int(jobs["total_entries"])

    def stop_triggerer(self, how: str) -> None:
        """End the triggerer that was started first."""
        self.airflow.stop_triggerer(self.airflow.triggerers()[0], how=signal.Signals[how])

    def freeze_triggerer(self) -> None:
        """Stop the triggerer that was started first, without ending it."""
        self._frozen_triggerer = self.airflow.triggerers()[0]
        self._frozen_job = self._triggerer_job()
        self.airflow.send_signal(self._frozen_triggerer, signal.SIGSTOP)

    def thaw_triggerer(self) -> None:
        """Let it go on."""
        self.airflow.send_signal(self._frozen_triggerer, signal.SIGCONT)

    def _triggerer_job(self) -> int | None:
        (task,) = self._rest.task_instances(self.case.name, self.run_id)
        return (task.get("triggerer_job") or {}).get("id")

    def lock_database(self, seconds: float) -> None:
        """Keep everybody from writing to Airflow's tables of tasks and triggers, and let the job end meanwhile."""
        url = make_url(self.airflow.database_url)
        engine = create_engine(url)
        with closing(engine.raw_connection()) as database, closing(database.cursor()) as cursor:
            cursor.execute("LOCK TABLE task_instance, trigger, job IN EXCLUSIVE MODE")
            self.release()
            time.sleep(seconds)
            database.rollback()
        engine.dispose()

    # -- in the end

    def problems(self) -> list[str]:
        """Compare what came of it with what must come of it."""
        case = self.case
        with suppress(TimeoutError):
            self._wait(lambda: self._states() == case.expected_states, "the jobs to end", seconds=120)
        found: list[str] = []
        self._ended_tries = {}
        run = self._rest.run_state(case.name, self.run_id)
        self._compare(found, "the run ended", run, case.end)
        self._compare(found, "jobs created", len(self.jobs), case.created)
        self._compare(found, "deliveries", len(self.deliveries), case.deliveries)
        if len(self.deliveries) != case.deliveries:
            found += [f"try {key} ended in {state}" for key, state in sorted(self._tries().items())]
            found += [f"place {line['map_index']}, try {line['try']} handed over" for line in self._handed_over()]
        self._compare(found, "jobs ended", self._states(), case.expected_states)
        self._compare(found, "cancel calls", sum(job["cancel_calls"] for job in self.jobs), case.cancels)
        if case.kind == "create":
            whole = [line["counts"] for line in self.deliveries]
            self._compare(found, "rows delivered", [one["succeeded"] for one in whole], [case.succeeded] * len(whole))
        if case.calls is not None:
            calls = (self._folder / f"{case.name}.asked").stat().st_size
            self._compare(found, "calls of the function", calls, case.calls)
        if "carry" in case.arguments:
            rows = read_lines(Path(str(case.arguments["output_path"])))
            self._compare(found, "carried columns", [row.get("size") for row in rows], list(range(ROWS)))
        if case.said and case.said not in self.log():
            found.append(f"nobody said {case.said!r}")
        return found

    def _states(self) -> tuple[str, ...]:
        return tuple(job["state"] for job in self.jobs)

    @staticmethod
    def _compare(found: list[str], what: str, is_: object, should: object) -> None:
        if is_ != should:
            found.append(f"{what}: {is_}, not {should}")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
