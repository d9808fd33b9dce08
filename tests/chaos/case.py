"""What a case is: what is done to a task, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "gemini-2.5-flash"
ROWS = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table.

    :param name: also the name of its Dag and connection: letters, digits, underscores.
    :param done: what is done, in words.
    :param faults: switches of the emulator from the beginning, see ``emulator/faults.py``.
    :param steps: what is done while the task runs: methods of ``Stage`` with their arguments.
    :param arguments: of the operator, beside those that all cases share.
    :param request_timeout: of the connection, in seconds; a create call waits five times as long.
    :param end: how the run ends.
    :param created: how many jobs there are in the end.
    :param deliveries: how often results reached the author.
    :param states: how the jobs end, oldest first; by default all well.
    :param cancels: how many cancel calls the jobs got, in all.
    :param succeeded: how many rows of each delivery succeed.
    :param calls: how often the function that gives the rows is called; None: any number.
    :param said: a text that the task's log must hold, so that a case cannot pass without what it is about.
    :param kill: seed and seconds: each task is killed once, at a moment of its own within so many seconds.
    :param alone: it shakes the whole Airflow, so nothing may run beside it.
    """

    name: str
    done: str
    faults: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[tuple[Any, ...], ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "create"
    service: str = "gemini"
    retries: int = 2
    retry_delay: float = 1.0
    request_timeout: float = 1.5
    slow_rows: float | None = None
    mapped: int = 0
    end: str = "success"
    created: int = 1
    deliveries: int = 1
    states: tuple[str, ...] | None = None
    cancels: int = 0
    succeeded: int = ROWS
    calls: int | None = None
    said: str = ""
    kill: tuple[int, float] | None = None
    alone: bool = False

    def plan(self) -> dict[str, Any]:
        """Give what the Dag file needs to know, as plain values."""
        arguments: dict[str, Any] = {"gemini_conn_id": self.conn_id}
        if self.kind == "sensor":
            arguments |= {"job_name": "{{ dag_run.conf['job'] }}", "poke_interval": 1.0, "timeout": 600.0}
        else:
            arguments |= {"model": MODEL, "poll_interval": 1.0, "lookup_timeout": 6.0}
            if not self.mapped and self.slow_rows is None and "input_path" not in self.arguments:
                arguments["inlined_requests"] = [f"Row {number}." for number in range(ROWS)]
        plan: dict[str, Any] = {
            "dag_id": self.name,
            "kind": self.kind,
            "rows": ROWS,
            "retries": self.retries,
            "retry_delay": self.retry_delay,
            "arguments": arguments | dict(self.arguments),
        }
        if self.slow_rows is not None:
            plan["slow_rows"] = self.slow_rows
        if self.mapped:
            plan["mapped"] = self.mapped
        if self.kill is not None:
            plan["kill_seed"], plan["kill_window"] = self.kill
        return plan

    @property
    def conn_id(self) -> str:
        """The connection that leads to this case's own service."""
        return f"chaos_{self.name}"

    @property
    def expected_states(self) -> tuple[str, ...]:
        """How the jobs end, oldest first."""
        return ("SUCCEEDED",) * self.created if self.states is None else self.states
