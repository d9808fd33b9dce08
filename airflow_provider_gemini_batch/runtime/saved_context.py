"""What a function leaves in Airflow's context while it makes the rows: saved before the wait, put back after it.

Airflow reads the context when the task ends: the names in ``map_index_template``, the extras and partitions
of ``outlet_events``. After a wait that is another process, in which the function is not called again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias
from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.runtime.best_effort import best_effort

if TYPE_CHECKING:
    from collections.abc import Collection

log = logging.getLogger(__name__)

_KEY = "gemini_batch_context"
# Labels and extras are short; what is longer would burden Airflow's database.
_MOST_BYTES = 16 * 1024


class SavedContext:
    """What one process of a task adds to its context; what was there from the start is Airflow's own."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._own: Collection[str] = frozenset(context)

    def save(self) -> None:
        """Save what was added, before the process ends in a deferral."""
        with best_effort("what the function left in the context"):
            left = {"names": self._names(), "events": self._events()}
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
            for name, uri, extra, partitions, of_alias in left["events"]:
                event = self._context["outlet_events"][Asset(name=name, uri=uri) if uri else AssetAlias(name)]
                event.extra.update(extra)
                if partitions:
                    event.add_partitions(partitions)
                for part_name, part_uri, part_extra in of_alias:
                    event.add(Asset(name=part_name, uri=part_uri), extra=part_extra)

    def _names(self) -> dict[str, Any]:
        return {name: value for name, value in self._context.items() if name not in self._own and _is_plain(value)}

    def _events(self) -> list[Any]:
        """Return what the function said of assets and aliases, by whichever of their names it reached them."""
        found = []
        for key in self._context["outlet_events"]:
            event = self._context["outlet_events"][key]
            extra = event.extra if _is_plain(event.extra) else {}
            partitions = sorted(getattr(event, "partition_keys", ()))  # Airflow 3.3
            of_alias = [
                [one.dest_asset_key.name, one.dest_asset_key.uri, one.extra]
                for one in event.asset_alias_events
                if _is_plain(one.extra)
            ]
            if extra or partitions or of_alias:
                found.append([key.name, getattr(key, "uri", None), extra, partitions, of_alias])
        return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(one) for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))
