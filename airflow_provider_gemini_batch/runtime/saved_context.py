"""What a function leaves in Airflow's context while it makes the rows: saved before the wait, put back after it.

Airflow reads the context when the task ends: the names in ``map_index_template``, the extras of ``outlet_events``.
After a wait that is another process, in which the function is not called again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.runtime.best_effort import best_effort

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.sdk import BaseOperator

log = logging.getLogger(__name__)

_KEY = "gemini_batch_context"
# Labels and extras are short; what is longer would burden Airflow's database.
_MOST_BYTES = 16 * 1024


class SavedContext:
    """What one process of a task adds to its context; what was there from the start is Airflow's own."""

    def __init__(self, context: Any, task: BaseOperator) -> None:
        self._context = context
        self._task = task
        self._own: Collection[str] = frozenset(context)

    def save(self) -> None:
        """Save what was added, before the process ends in a deferral."""
        with best_effort("what the function left in the context"):
            left = {"names": self._names(), "assets": self._assets(), "aliases": self._aliases()}
            if not any(left.values()):
                return
            text = to_json(left).decode()
            if len(text) > _MOST_BYTES:
                log.warning("What the function left in the context is too large to be kept over the wait; it is lost.")
                return
            store = self._context.get("task_state_store")
            if store is not None:
                store.set(_KEY, text)  # outlives a retry, which does not call the function again either
            else:
                self._context["ti"].xcom_push(key=_KEY, value=text)

    def restore(self) -> None:
        """Put back what an earlier process saved."""
        with best_effort("what the function left in the context"):
            store, ti = self._context.get("task_state_store"), self._context["ti"]
            text = (
                store.get(_KEY)
                if store is not None
                else ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index, key=_KEY)
            )
            if not isinstance(text, str):
                return
            left = from_json(text)
            for name, value in left["names"].items():
                self._context.setdefault(name, value)
            events = self._context["outlet_events"]
            for outlet in self._task.outlets or ():
                uri = getattr(outlet, "uri", None)
                if uri in left["assets"]:
                    events[outlet].extra.update(left["assets"][uri])
                for alias, name, address, extra in left["aliases"]:
                    if uri is None and getattr(outlet, "name", None) == alias:
                        from airflow.sdk import Asset

                        events[outlet].add(Asset(name=name, uri=address), extra=extra)

    def _names(self) -> dict[str, Any]:
        return {name: value for name, value in self._context.items() if name not in self._own and _is_plain(value)}

    def _assets(self) -> dict[str, Any]:
        found = {}
        for outlet in self._task.outlets or ():
            if getattr(outlet, "uri", None):
                extra = self._context["outlet_events"][outlet].extra
                if extra and _is_plain(extra):
                    found[outlet.uri] = extra
        return found

    def _aliases(self) -> list[Any]:
        return [
            [event.source_alias_name, event.dest_asset_key.name, event.dest_asset_key.uri, event.extra]
            for outlet in self._task.outlets or ()
            if getattr(outlet, "uri", None) is None and hasattr(outlet, "name")
            for event in self._context["outlet_events"][outlet].asset_alias_events
            if _is_plain(event.extra)
        ]


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(one) for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))
