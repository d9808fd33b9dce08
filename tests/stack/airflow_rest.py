"""A small client of Airflow's public REST API: what the tests ask a running Airflow, and how they wait for it."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import requests
from waiting import wait_for

FINISHED = frozenset({"success", "failed"})
#: How long a call is repeated that a busy Airflow did not take.
_BUSY_SECONDS = 30.0
_SERVER_ERROR = 500


class AirflowRest:
    """Calls as an admin of the simple auth manager. A refusal is an error with Airflow's own words."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._session: requests.Session | None = None

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call ``/api/v2<path>`` and return the JSON answer (None when there is none).

        A 500 is asked again: on SQLite, Airflow answers so to one of two who write at the same moment, and has done
        nothing. So is a look whose connection the server closed because it had been idle.
        """
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            answer = self._ask(method, path, options)
            if answer.ok:
                return answer.json() if answer.content else None
            if answer.status_code != _SERVER_ERROR or time.monotonic() >= deadline:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
            time.sleep(0.3)

    def page(self, path: str) -> str:
        """Return the text of a page of the api-server, as this user sees it."""
        answer = self._logged_in().get(f"{self.base_url}{path}", timeout=60)
        answer.raise_for_status()
        return answer.text

    def _ask(self, method: str, path: str, options: dict[str, Any]) -> requests.Response:
        url = f"{self.base_url}/api/v2{path}"
        try:
            return self._logged_in().request(method, url, timeout=60, **options)
        except requests.ConnectionError:
            if method != "GET":
                raise
            self.forget_login()
            return self._logged_in().request(method, url, timeout=60, **options)

    def _logged_in(self) -> requests.Session:
        if self._session is None:
            session = requests.Session()
            session.trust_env = False
            token = session.get(f"{self.base_url}/auth/token", timeout=60)
            token.raise_for_status()
            session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
            self._session = session
        return self._session

    def forget_login(self) -> None:
        """Drop pooled connections, for a restarted api-server."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # Dags and runs

    def wait_dag(self, dag_id: str, *, seconds: float = 90) -> None:
        """Wait until the Dag is parsed; a Dag file that cannot be imported is said at once."""

        def is_parsed() -> bool:
            known = self.call("GET", "/dags", params={"dag_id_pattern": dag_id, "limit": 100})["dags"]
            if any(dag["dag_id"] == dag_id for dag in known):
                return True
            broken = self.call("GET", "/importErrors")["import_errors"]
            if broken:
                raise RuntimeError("\n".join(f"{each['filename']}: {each['stack_trace']}" for each in broken))
            return False

        wait_for(is_parsed, f"Dag {dag_id} to be parsed", seconds=seconds, pause=0.3)

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, *, run_id: str | None = None) -> str:
        """Unpause the Dag as soon as it is parsed, start a run of it and return the run_id.

        For a Dag without a schedule; one with a schedule starts a run of its own when it is unpaused.
        """
        self.unpause(dag_id)
        # A name of ours: a call that is repeated cannot start a second run.
        body = {"logical_date": None, "conf": conf or {}, "dag_run_id": run_id or f"manual__{uuid4().hex[:12]}"}
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def unpause(self, dag_id: str) -> None:
        """Wait until the Dag is parsed and let it run."""
        self.wait_dag(dag_id)
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def wait_scheduled_run(self, dag_id: str, *, seconds: float = 60) -> str:
        """Unpause a Dag whose schedule began, wait for the run that the scheduler makes and return its run_id."""
        self.unpause(dag_id)
        runs: list[dict[str, Any]] = wait_for(
            lambda: self.call("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"],
            f"a scheduled run of {dag_id}",
            seconds=seconds,
            pause=0.3,
        )
        return str(runs[0]["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def wait_run(self, dag_id: str, run_id: str, *, seconds: float = 120) -> str:
        """Wait until the run has ended and return its state."""
        return wait_for(
            lambda: self.run_state(dag_id, run_id),
            lambda: f"the end of {dag_id}\n{self.explain(dag_id, run_id)}",
            enough=FINISHED.__contains__,
            seconds=seconds,
            pause=0.3,
        )

    def expect_run(self, dag_id: str, run_id: str, state: str = "success", *, seconds: float = 180) -> None:
        """Wait for the end of a run; AssertionError with the logs of what failed when it is another end."""
        ended = self.wait_run(dag_id, run_id, seconds=seconds)
        if ended != state:
            raise AssertionError(f"{dag_id} ended as {ended}, not {state}\n{self.explain(dag_id, run_id)}")

    def explain(self, dag_id: str, run_id: str) -> str:
        """State of each task of a run, with the last log lines of those that failed."""
        lines = []
        for task in self.task_instances(dag_id, run_id):
            lines.append(f"{task['task_id']}[{task['map_index']}] {task['state']}, try {task['try_number']}")
            if task["state"] in {"failed", "up_for_retry"}:
                path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
                found = self.call("GET", path, params={"map_index": task["map_index"]})["content"]
                for line in found[-20:]:
                    lines.append(f"    {line['event']}" if isinstance(line, dict) else f"    {line}")
                    causes = line.get("error_detail") or () if isinstance(line, dict) else ()
                    lines += [f"        {each['exc_type']}: {each['exc_value']}" for each in causes]
        return "\n".join(lines)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run success or failed, as the button in the UI does."""
        self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": state})

    # Task instances

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run, mapped ones included."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self.call("GET", path, params={"limit": 1000})["task_instances"]
        return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, Any] | None:
        """Return one task instance, None while it is not there."""
        for each in self.task_instances(dag_id, run_id):
            if each["task_id"] == task_id and each["map_index"] == map_index:
                return each
        return None

    def wait_task_state(
        self, dag_id: str, run_id: str, task_id: str, *states: str, map_index: int = -1, seconds: float = 90
    ) -> dict[str, Any]:
        """Wait until the task is in one of the states and return the instance."""
        return wait_for(
            lambda: self.task_instance(dag_id, run_id, task_id, map_index=map_index) or {},
            lambda: f"{dag_id}.{task_id} to be {' or '.join(states)}\n{self.explain(dag_id, run_id)}",
            enough=lambda found: found.get("state") in states,
            seconds=seconds,
            pause=0.3,
        )

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, *, map_index: int = -1) -> None:
        """Mark a task success, failed or skipped, as the button in the UI does."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        if map_index >= 0:
            path += f"/{map_index}"
        self.call("PATCH", path, json={"new_state": state})

    def clear(self, dag_id: str, run_id: str, *task_ids: str) -> None:
        """Clear tasks of a run (all of them when none is named), as the button in the UI does."""
        body: dict[str, Any] = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
        if task_ids:
            body["task_ids"] = list(task_ids)
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return an XCom's value; RuntimeError when there is none."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path, params={"map_index": map_index, "deserialize": False})["value"]

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the task's extra links: name to URL."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        links: dict[str, str | None] = self.call("GET", path)["extra_links"]
        return links

    def logs(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> list[str]:
        """Return the log lines of one try, each as JSON-like text with all its fields."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        params: dict[str, str | int] = {"map_index": map_index, "full_content": "true"}
        content = self.call("GET", path, params=params, headers={"Accept": "application/json"})["content"]
        return [str(line) for line in content]
