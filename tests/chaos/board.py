"""What a running Airflow says of all its tasks, asked once for everybody who waits for one of them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import requests

from stack.airflow_rest import AirflowRest

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE = 0.6


class Board:
    """The latest view of all runs and task instances, refreshed by one thread: many cases share one api-server."""

    def __init__(self, base_url: str) -> None:
        self._rest = AirflowRest(base_url)
        self._fresh = threading.Condition()
        self._tasks: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._runs: dict[tuple[str, str], str] = {}
        #: When the view that is shown was asked for.
        self._asked_at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="board", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join(10)
        self._rest.forget_login()

    def _keep_looking(self) -> None:
        while not self._over.wait(_PAUSE):
            asked_at = time.monotonic()
            try:
                runs = self._all("/dags/~/dagRuns", "dag_runs")
                tasks = self._all("/dags/~/dagRuns/~/taskInstances", "task_instances")
            except (requests.RequestException, RuntimeError, ValueError, KeyError):
                # The Airflow is being shaken: a restarted api-server wants a new login.
                self._rest.forget_login()
                continue
            grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for task in tasks:
                grouped.setdefault((task["dag_id"], task["dag_run_id"]), []).append(task)
            with self._fresh:
                self._runs = {(run["dag_id"], run["dag_run_id"]): run["state"] for run in runs}
                self._tasks = grouped
                self._asked_at = asked_at
                self._fresh.notify_all()

    def _all(self, path: str, member: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._rest.call("GET", path, params={"limit": 1000})[member]
        return found

    def wait(
        self, key: tuple[str, str], enough: Callable[[str, list[dict[str, Any]]], bool], what: str, *, seconds: float
    ) -> list[dict[str, Any]]:
        """Wait until a run's state and tasks are as wished, in a view that is newer than this call.

        :param key: dag_id and run_id.
        :raises TimeoutError: says what was waited for, and what there is.
        """
        began = time.monotonic()
        with self._fresh:
            while True:
                tasks = self._tasks.get(key, [])
                if self._asked_at >= began and enough(self._runs.get(key, ""), tasks):
                    return tasks
                left = began + seconds - time.monotonic()
                if left <= 0:
                    seen = [(task["state"], task["try_number"]) for task in tasks]
                    raise TimeoutError(f"waited {seconds:g} s for {what}; run {self._runs.get(key)}, tasks {seen}")
                self._fresh.wait(left)
