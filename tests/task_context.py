"""A task instance's context without a database: what the product's task code looks at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class StateStore(dict[str, Any]):
    """Stands for Airflow's task state store, which outlives a try."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def task_context(store: StateStore | None = None, **changed: Any) -> Any:
    """The context of a first try that has no further one; ``changed`` are members of the task instance."""
    ti = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1, "try_number": 1, "max_tries": 0, **changed}
    pushed: Callable[..., None] = lambda **_: None  # noqa: E731
    kept = {} if store is None else {"task_state_store": store}
    return {"ti": SimpleNamespace(**ti, xcom_push=pushed), "dag_run": SimpleNamespace(start_date=None), **kept}
