"""A badly written trigger, which shows that the triggerer's warning would be seen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class BlockingTrigger(BaseTrigger):
    """Block the event loop, then fire.

    :param seconds: how long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.blocker.BlockingTrigger", {"seconds": self.seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        time.sleep(self.seconds)  # noqa: ASYNC251  the fault that is wanted
        yield TriggerEvent(True)  # type: ignore[no-untyped-call]  # noqa: FBT003
