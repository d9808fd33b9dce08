"""A real Airflow on loopback: its own home, ports and processes, started for a test and gone after it."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil
import requests
from waiting import wait_for

from stack.airflow_rest import AirflowRest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
#: Whether this Airflow keeps notes of a task from one try to the next, as 3.3 does.
HAS_STORE = find_spec("airflow.models.task_state_store") is not None
# Long enough for two busy cores: four Python programs import Airflow at once.
START_SECONDS = 150.0
HEALTHY = ("scheduler", "dag_processor", "triggerer")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class LocalAirflow(AirflowRest):
    """Scheduler (LocalExecutor), api-server, dag-processor and triggerers of one Airflow.

    :param dags: folders with Dag files; a folder of its own (``self.dags``, for files written by tests) is always there
    :param connections: connection id to Airflow's JSON (a text or a dict), handed over as ``AIRFLOW_CONN_*``
    :param triggerers: how many triggerers to start
    :param parallelism: worker slots
    :param database_url: a SQLAlchemy URL of an empty PostgreSQL database; SQLite in the home otherwise
    :param settings: more environment variables, such as ``AIRFLOW__SCHEDULER__...``
    :param home: a folder to keep; by default a temporary one that goes with the Airflow
    :param port: of the api-server; a free one by default
    """

    def __init__(
        self,
        dags: Sequence[Path] = (),
        *,
        connections: Mapping[str, object] | None = None,
        triggerers: int = 1,
        parallelism: int = 4,
        database_url: str | None = None,
        settings: Mapping[str, str] | None = None,
        home: Path | None = None,
        port: int | None = None,
    ) -> None:
        self._temporary = home is None
        self.home = home or Path(tempfile.mkdtemp(prefix="gemini-batch-airflow-"))
        self.dags = self.home / "dags"
        self.database_url = database_url or f"sqlite:///{self.home / 'airflow.db'}"
        api_port, self._worker_log_port = free_ports(2)
        super().__init__(f"http://127.0.0.1:{port or api_port}")
        self._triggerers = triggerers
        self._next_triggerer = 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = self._make_environment(port or api_port, dags, parallelism)
        for conn_id, value in (connections or {}).items():
            self._environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = (
                value if isinstance(value, str) else json.dumps(value)
            )
        self._environment.update(settings or {})

    def _make_environment(self, port: int, dags: Sequence[Path], parallelism: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        bundles = [
            {
                "name": f"dags-{number}",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(folder)},
            }
            for number, folder in enumerate([self.dags, *dags])
        ]
        return kept | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # Else a Dag with a schedule would start a run nobody asked for.
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__FERNET_KEY": "ZmFrZS1mZXJuZXQta2V5LTMyLWJ5dGVzLWxvbmchISE=",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            "AIRFLOW__API__BASE_URL": self.base_url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "no-secret-only-for-tests",
            "AIRFLOW__API_AUTH__JWT_SECRET": "no-secret-only-for-tests-no-secret-only-for-tests",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._worker_log_port),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            # Short loops: a test waits for each of them.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            # A supervisor that misses the end of its task's process sits there for so long. With Airflow's five seconds
            # a job of the emulator ends meanwhile, and the scheduler takes the task that resumes for one that was lost.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_GCE_CHECK": "true",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    # Life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make the database and start all components; returns when all are healthy, in a quarter to half a minute."""
        self.dags.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        try:
            self._make_database()
            self.start_component("api-server")
            self.start_component("scheduler")
            self.start_component("dag-processor")
            for _ in range(self._triggerers):
                self.start_triggerer()
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes, gently at first, and remove a temporary home."""
        atexit.unregister(self.stop)
        self.forget_login()
        names = sorted(self._processes, key=lambda name: name == "api-server")
        trees = {name: self._tree(name) for name in names}
        for name in names:
            self._signal_group(name, signal.SIGCONT)
            self._processes[name].terminate()
        self._wait_gone([process for tree in trees.values() for process in tree], seconds=1.5)
        for name in names:
            self._end(name, trees[name])
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    def wait_healthy(self, *, seconds: float = START_SECONDS) -> None:
        """Wait until Airflow itself says that scheduler, dag-processor and triggerer are alive."""
        deadline = time.monotonic() + seconds
        while True:
            health = self.health()
            if all(health.get(name) == "healthy" for name in HEALTHY if name != "triggerer" or self.triggerers()):
                return
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() >= deadline:
                reason = f"{', '.join(dead)} ended" if dead else f"not healthy within {seconds:g} s"
                raise RuntimeError(f"Airflow: {reason}; {health}\n{self.component_logs()}")
            time.sleep(0.3)

    def health(self) -> dict[str, str | None]:
        """Status by component, as the api-server tells it; empty while that does not answer."""
        try:
            answer = requests.get(f"{self.base_url}/api/v2/monitor/health", timeout=10, proxies={"http": ""})
            return {name: value.get("status") for name, value in answer.json().items() if isinstance(value, dict)}
        except (requests.RequestException, ValueError):
            return {}

    def cli(self, *arguments: str) -> str:
        """Run an ``airflow`` command in this Airflow's environment and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)} ended with {done.returncode}\n{done.stderr[-4000:]}")
        return done.stdout

    def _make_database(self) -> None:
        if not self.database_url.startswith("sqlite"):
            self.cli("db", "migrate")
            return
        database = self.home / "airflow.db"
        if not database.exists():
            shutil.copyfile(self._migrated_template(), database)

    def _migrated_template(self) -> Path:
        # A migration takes 10 seconds and always ends in the same tables, so each version of Airflow does it once.
        CACHE.mkdir(exist_ok=True)
        template = CACHE / f"airflow-{version('apache-airflow-core')}.sqlite"
        with (CACHE / "airflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not template.exists():
                self.cli("db", "migrate")
                shutil.copyfile(self.home / "airflow.db", template.with_suffix(".new"))
                template.with_suffix(".new").rename(template)
        return template

    # Components

    def start_component(self, name: str, *, command: str | None = None, **more: str) -> None:
        """Start ``airflow <command>`` under this name, in its own session; ``more`` goes to its environment."""
        if name in self._processes:
            raise RuntimeError(f"{name} is running")
        logs = self.home / "component-logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            self._processes[name] = self._spawn((command or name).split(), log, more)

    def _spawn(self, command: list[str], log: IO[bytes], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", *command],
            env=self._environment | dict(more),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stop_component(self, name: str, *, how: signal.Signals = signal.SIGTERM, seconds: float = 15) -> None:
        """End one component: politely (SIGTERM, then force) or at once (SIGKILL), its children included."""
        tree = self._tree(name)
        self._signal_group(name, signal.SIGCONT)
        if how is not signal.SIGKILL:
            # To the component alone, as an init system does: it ends its children itself.
            self._processes[name].send_signal(how)
            self._wait_gone(tree, seconds=seconds)
        self._end(name, tree)

    def restart(self, name: str, *, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop one component and start it again under the same name."""
        self.stop_component(name, how=how)
        if name == "api-server":
            self.forget_login()
        if name.startswith("triggerer"):
            self._start_triggerer_named(name)
        else:
            self.start_component(name)

    def send_signal(self, name: str, which: signal.Signals) -> None:
        """Send a signal to a component and all its children (SIGSTOP, SIGCONT, SIGKILL ...)."""
        for process in self._tree(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(which)

    def start_triggerer(self) -> str:
        """Start one more triggerer and return its name."""
        name = f"triggerer-{self._next_triggerer}"
        self._next_triggerer += 1
        self._start_triggerer_named(name)
        return name

    def _start_triggerer_named(self, name: str) -> None:
        # Two triggerers of one machine need two ports for their logs.
        more = {"AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_ports(1)[0])}
        self.start_component(name, command="triggerer", **more)

    def stop_triggerer(self, name: str, *, how: signal.Signals = signal.SIGTERM) -> None:
        """End one triggerer."""
        self.stop_component(name, how=how)

    def triggerers(self) -> list[str]:
        """Names of the triggerers that we started and did not stop."""
        return [name for name in self._processes if name.startswith("triggerer")]

    def pid(self, name: str) -> int:
        """Process id of a component."""
        return self._processes[name].pid

    def worker_processes(self) -> list[int]:
        """Process ids of the tasks that run now: none of them means that no worker is held.

        A task is a child of one of the LocalExecutor's own processes, which are the scheduler's children.
        """
        found = []
        for process in self._tree("scheduler"):
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = process.parent()
                if parent is not None and "LocalExecutor" in " ".join(parent.cmdline()):
                    found.append(process.pid)
        return found

    def wait_no_worker(self, *, seconds: float = 15) -> None:
        """Wait until no task holds a process: one takes a moment to end after it has told its state."""
        wait_for(
            self.worker_processes,
            lambda: f"tasks to end that hold {self.worker_processes()}",
            enough=lambda held: not held,
            seconds=seconds,
            pause=0.1,
        )

    def component_logs(self, *, lines: int = 60) -> str:
        """The last lines that each component printed."""
        parts = []
        for path in sorted((self.home / "component-logs").glob("*.log")):
            last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path.stem}", *last]))
        return "\n".join(parts)

    def _tree(self, name: str) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._processes[name].pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _wait_gone(self, processes: Sequence[psutil.Process], *, seconds: float) -> None:
        # Orphans may stay zombies for as long as the machine's first process does not care; they count as gone.
        deadline = time.monotonic() + seconds
        left = list(processes)
        while left and time.monotonic() < deadline:
            for own in self._processes.values():
                own.poll()
            left = [each for each in left if _alive(each)]
            time.sleep(0.05)

    def _signal_group(self, name: str, which: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._processes[name].pid, which)

    def _end(self, name: str, tree: Sequence[psutil.Process]) -> None:
        # Tasks have process groups of their own, so the group of the component is not enough.
        self._signal_group(name, signal.SIGKILL)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._processes.pop(name).wait(timeout=15)
