"""A stand-in for the service, in memory: it lists, gets, cancels, fails on demand, and counts every call."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_gemini_batch.api.errors import NotFound
from airflow_provider_gemini_batch.api.models import (
    BatchJob,
    CompletionStats,
    JobSnapshot,
    JobState,
    Service,
    SnapshotPage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

T = TypeVar("T")


def made(name: str, state: JobState = JobState.RUNNING, done: int | None = None, total: int = 10) -> BatchJob:
    """A job as a brief look shows it."""
    stats = None if done is None else CompletionStats(total=total, success=done)
    return BatchJob(name=name, service=Service.GEMINI, state=state, raw_state=state.value, completion_stats=stats)


class FakeService:
    """Jobs, newest first in the list, and the calls that were made."""

    def __init__(self, names: Iterable[str] = (), *, latency: float = 0.0) -> None:
        self.jobs = {name: made(name) for name in names}
        self.unlisted: set[str] = set()
        self.latency = latency
        self.calls: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], Exception | None] = lambda _verb, _name: None
        self.closed = 0
        self.made = 0
        self._lock = threading.Lock()

    def _called(self, verb: str, name: str) -> None:
        with self._lock:
            self.calls.append((verb, name))
        if self.latency:
            time.sleep(self.latency)
        if (error := self.fail(verb, name)) is not None:
            raise error

    def get(self, name: str, *, brief: bool = False) -> BatchJob:
        assert brief
        self._called("get", name)
        if name not in self.jobs:
            raise NotFound(f"{name} not found", http_status=404, status="NOT_FOUND")
        return self.jobs[name]

    def snapshots(self, *, page_size: int = 100, page_token: str | None = None) -> SnapshotPage:
        assert page_size == 100
        self._called("list", page_token or "")
        shown = [JobSnapshot.of(job) for name, job in reversed(self.jobs.items()) if name not in self.unlisted]
        start = int(page_token or 0)
        rest = start + page_size < len(shown)
        return SnapshotPage(shown[start : start + page_size], str(start + page_size) if rest else None)

    def cancel(self, name: str) -> None:
        self._called("cancel", name)

    def close(self) -> None:
        self.closed += 1

    # What a connection that has been looked up offers.
    fingerprint = "same"

    def client(self) -> FakeService:
        self.made += 1
        return self

    async def connect(self) -> FakeService:
        return self

    # For tests.
    def put(self, name: str, state: JobState = JobState.RUNNING, done: int | None = None) -> None:
        self.jobs[name] = made(name, state, done)

    def finish(self, *names: str) -> None:
        for name in names:
            self.put(name, JobState.SUCCEEDED)

    def count(self, verb: str) -> int:
        return sum(made == verb for made, _ in self.calls)


class _Selector:
    """Lets the loop's clock jump to the next timer as soon as nobody is at work."""

    def __init__(self, loop: VirtualLoop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def select(self, timeout: float | None = None) -> Any:
        # What a thread has posted before it ended is seen here: it ends after that.
        at_work = bool(own_threads())
        events = self._inner.select(_HANGING if at_work and timeout != 0 else 0)
        if not events and timeout:
            self._loop.now += timeout
        elif not events and timeout is None:
            return self._inner.select(_HANGING)
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# A thread that brings nothing for so many real seconds hangs: time goes on without it.
_HANGING = 0.2


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait for time to pass: an hour takes a moment, the same on every machine."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self._selector = _Selector(self, self._selector)  # type: ignore[has-type]

    def time(self) -> float:
        return self.now


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gemini-batch-poll"]


def quickly(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time; nothing of it may be left behind."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(asyncio.wait_for(work, 100_000.0))
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        assert not left, left
        return result
    finally:
        loop.close()
