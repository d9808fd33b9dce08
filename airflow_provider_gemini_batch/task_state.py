"""What a run needs of the machine and of Airflow between two tries: the time, and a place for its notes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

_STORE_KEY = "gemini_batch"


class WallClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since the epoch. Wall clock, not monotonic: a wait may go on in another process."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Pause this process."""
        time.sleep(seconds)


class TaskStateStore:
    """The ledger in Airflow's task state store; nowhere on Airflow 3.2, which has none."""

    def __init__(self, context: Context) -> None:
        self._store: Any = context.get("task_state_store")

    @property
    def lasting(self) -> bool:
        """Whether notes outlive this process."""
        return self._store is not None

    def load(self) -> str | None:
        """Read the notes of earlier tries."""
        text = self._store.get(_STORE_KEY) if self._store is not None else None
        return text if isinstance(text, str) else None

    def save(self, text: str) -> None:
        """Keep the notes; raises when Airflow does not take them, and then nothing is sent either."""
        if self._store is not None:
            self._store.set(_STORE_KEY, text)
