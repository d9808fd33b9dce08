"""What a run needs of the machine and of Airflow between two tries: the time, and a place for its notes."""

from __future__ import annotations

import logging
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import AirflowRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

T = TypeVar("T")
log = logging.getLogger(__name__)

_STORE_KEY = "gemini_batch"
_RECORD_KEY = "gemini_batch_input"
# Airflow's own client has already retried by then, so these pauses are longer than its own.
_PAUSES = (1.0, 5.0)


class WallClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since the epoch. Wall clock, not monotonic: a wait may go on in another process."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment in this process."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pause this process."""
        time.sleep(seconds)


class TaskStateStore:
    """A task's notes in Airflow's task state store; nowhere on Airflow 3.2, which has none."""

    def __init__(self, context: Context, sleep: Callable[[float], None] = time.sleep, *, part: str = "") -> None:
        """Read nothing yet.

        :param part: the key of the dataset's part that this task instance does: it must not read another part's notes.
        :param sleep: pauses this process, in seconds.
        """
        self._store: Any = context.get("task_state_store")
        self._sleep = sleep
        suffix = f"_{sha256(part.encode()).hexdigest()[:12]}" if part else ""
        self._state_key, self._record_key = f"{_STORE_KEY}{suffix}", f"{_RECORD_KEY}{suffix}"
        self._has_record = False

    @property
    def lasting(self) -> bool:
        """Whether notes outlive this process."""
        return self._store is not None

    def load(self) -> str | None:
        """Return the notes of earlier tries; None if there are none."""
        return self._read(self._state_key)

    def save(self, text: str) -> None:
        """Save the notes; raises when Airflow does not store them, and then nothing is sent either."""
        if self._store is not None:
            self._with_retries(lambda: self._store.set(self._state_key, text))

    def load_record(self) -> str | None:
        """Return the input record; None if there is none."""
        return self._read(self._record_key)

    def save_record(self, text: str) -> None:
        """Save the input record."""
        if self._store is not None:
            self._with_retries(lambda: self._store.set(self._record_key, text))
            self._has_record = True

    def drop_record(self) -> None:
        """Remove the input record, if there is one."""
        if self._store is not None and (self._has_record or self.load_record() is not None):
            self._with_retries(lambda: self._store.delete(self._record_key))
            self._has_record = False

    def _read(self, key: str) -> str | None:
        if self._store is None:
            return None
        text = self._with_retries(lambda: self._store.get(key))
        return text if isinstance(text, str) else None

    def _with_retries(self, call: Callable[[], T]) -> T:
        """Return what a call returns, repeated where Airflow fails: the name of a job just created must be saved."""
        for pause in _PAUSES:
            try:
                return call()
            except AirflowRuntimeError as error:  # noqa: PERF203  three rounds
                log.warning("Airflow's store of task states does not answer (%s): asking again.", error)
                self._sleep(pause)
        return call()
