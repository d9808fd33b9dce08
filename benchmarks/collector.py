"""A trigger that does the full garbage collection which a triggerer may owe, so that those who come next owe none."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class CollectingTrigger(BaseTrigger):
    """Collect garbage, then fire."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.collector.CollectingTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        gc.collect()
        yield TriggerEvent(True)  # type: ignore[no-untyped-call]  # noqa: FBT003
