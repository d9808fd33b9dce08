"""Whose turn it is to create a job: tasks that wait for room at the service, served the longest waiting first.

A connection may bound how many of its jobs are active at once (``max_active_jobs``), and the service has a quota of its
own. Workers and triggerers share no lock, only the service's list. So a task that may not create a job yet waits in the
triggerer, in one queue for each connection. The list is read for all of them together, and as many are let through as
there is room for. Each counts as an active job until its job shows up in the list, and reads the list itself before it
creates one, since another triggerer may have let others through.

=========================  =============================================================================================
a task waits               it is let through when
=========================  =============================================================================================
below ``max_active_jobs``  fewer jobs are active than that, those counted that were let through and are not in the list
after a refusal (429)      a job of the connection has ended, and nobody has taken its place; else when its pause ends
=========================  =============================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_gemini_batch.api.errors import AccessDenied, GeminiBatchError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.api.paging import pages_of
from airflow_provider_gemini_batch.polling.policy import job_age, longest_wait, poll_delay
from airflow_provider_gemini_batch.polling.poll_round import PAGE_SIZE
from airflow_provider_gemini_batch.polling.within import within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_gemini_batch.api.models import JobSnapshot
    from airflow_provider_gemini_batch.polling.poll_round import JobReader

log = logging.getLogger(__name__)

# How long, in seconds, the job of a task that was let through may take to show up in the list.
_TAKEN_FOR: Final = 120.0
# A read is delayed at random by up to this part of a pause, so that triggerers do not let tasks through together.
_JITTER: Final = 0.25
# Two reads are so many seconds apart at least.
_GATHER: Final = 1.0
# For so long after a change, in seconds, the list is read as often as a young job is polled.
_LIVELY: Final = 300.0
# No job of any service is active when it is older than this.
_OLDEST: Final = longest_wait(Service.VERTEX)
# After so many reads in a row that failed for good, one task after the other is let through, to meet the error itself.
_REFUSALS: Final = 3


class TurnRequest(NamedTuple):
    """What a task waits for.

    ``limit``: how many jobs of the connection may be active; None: unknown, any job that ends makes room. ``since``:
    when the task began to wait, in seconds since the epoch. ``jobs``: how many it would create at once.
    """

    limit: int | None
    since: float
    jobs: int = 1


class ListedJobs(NamedTuple):
    """What a read of the list found: how many jobs are active, and how many were made and ended since the last read."""

    active: int
    made: int
    ended: int


class JobList:
    """The service's list of jobs, of which each read covers the part that can have changed."""

    def __init__(self) -> None:
        self._active: set[str] = set()
        self._ended: set[str] = set()
        self._is_read = False

    def read(self, reader: JobReader) -> ListedJobs:
        """Return what is in the list now, read until all further jobs are known to have ended; called in a thread.

        :raises UnexpectedResponse: the list has no end.
        """
        before, known = self._active, self._ended
        active: set[str] = set()
        ended: set[str] = set()
        earlier: set[str] = set()
        for page in pages_of(lambda token: reader.snapshots(page_size=PAGE_SIZE, page_token=token)):
            for job in page.snapshots:
                (ended if job.progress.state.is_terminal or _is_old(job) else active).add(job.name)
            last = page.snapshots[-1] if page.snapshots else None
            if last is not None and _is_old(last):
                break
            if page.next_page_token and last is not None and last.name in known and before <= active | ended:
                earlier = known
                break
        self._ended = earlier | ended
        made = (active | ended) - before - known if self._is_read else set()
        self._active, self._is_read = active, True
        # A job that is no longer in the list was deleted.
        return ListedJobs(len(active), len(made), len((before - active) | (made & ended)))


class TurnQueue:
    """Decides who is let through. Plain values in and out; ``now`` is any clock that only goes forward, in seconds."""

    def __init__(self) -> None:
        self._waiting: dict[int, TurnRequest] = {}
        self._next = 0
        #: Until when the jobs of tasks that were let through count although the list does not show them.
        self._taken: deque[float] = deque()
        #: How many jobs ended, less those that took their places or may still do so.
        self._freed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, request: TurnRequest) -> int:
        """Add a request to the queue; return the number of its place."""
        self._next += 1
        self._waiting[self._next] = request
        return self._next

    def leave(self, place: int) -> None:
        """Remove a place from the queue."""
        self._waiting.pop(place, None)

    def serve(self, listed: ListedJobs, now: float) -> dict[int, int]:
        """Let tasks through, the longest waiting first, each with one job before any has a second one.

        :returns: how many jobs each place that was let through may create; those places have left the queue.
        """
        expected = min(listed.made, len(self._taken))
        for _ in range(expected):
            self._taken.popleft()
        while self._taken and self._taken[0] <= now:
            self._taken.popleft()
        self._freed = max(0, self._freed + listed.ended - (listed.made - expected))
        served: dict[int, int] = {}
        waiting = sorted(self._waiting, key=lambda place: (self._waiting[place].since, place))
        while waiting:
            waiting = [place for place in waiting if self._has_room(place, listed.active)]
            for place in waiting:
                if self._has_room(place, listed.active):
                    served[place] = served.get(place, 0) + 1
                    self._taken.append(now + _TAKEN_FOR)
                    self._freed = max(0, self._freed - 1)
            waiting = [place for place in waiting if served.get(place, 0) < self._waiting[place].jobs]
        for place in served:
            del self._waiting[place]
        return served

    def _has_room(self, place: int, active: int) -> bool:
        limit = self._waiting[place].limit
        return self._freed > 0 if limit is None else active + len(self._taken) < limit


class TurnKeeper:
    """Reads the list for all tasks of one event loop that wait for their turn with one connection.

    :param call: runs a function with the client of that connection, in a thread.
    :param renew: looks the connection up again, because its credentials were refused.
    :param random: numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        call: Callable[[Callable[[JobReader], ListedJobs]], Awaitable[ListedJobs]],
        renew: Callable[[], None],
        *,
        random: Callable[[], float],
    ) -> None:
        self._call = call
        self._renew = renew
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._queue = TurnQueue()
        self._jobs = JobList()
        self._sleepers: dict[int, asyncio.Future[int]] = {}
        self._intervals: dict[int, float] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._changed_at = -inf
        self._news = asyncio.Event()

    async def wait(self, request: TurnRequest, poll_interval: float) -> int:
        """Wait for a turn; return how many jobs may be created.

        :param poll_interval: seconds between two reads of the list; fewer while jobs come and go.
        """
        place = self._queue.join(request)
        self._sleepers[place] = self._loop.create_future()
        self._intervals[place] = poll_interval
        if self._keeping is None or self._keeping.done():
            # Without a context of its own, it would log into the task log of whoever came first.
            self._keeping = contextvars.Context().run(self._loop.create_task, self._keep())
        self._changed_at = self._loop.time()
        self.poll_soon()
        try:
            return await self._sleepers[place]
        finally:
            self._queue.leave(place)
            del self._sleepers[place], self._intervals[place]

    def poll_soon(self) -> None:
        """Read the list soon, since a task has joined or a job has ended."""
        self._news.set()

    def close(self) -> None:
        """Stop reading."""
        if self._keeping is not None:
            self._keeping.cancel()

    async def _keep(self) -> None:
        failures = 0
        while self._sleepers:
            # Those who come together are served together.
            await asyncio.sleep(_GATHER)
            self._news.clear()
            try:
                listed = await self._call(self._jobs.read)
            except Exception as error:  # noqa: BLE001  whatever it is, it must not leave anybody waiting for ever
                failures += 1
                if isinstance(error, AccessDenied):
                    self._renew()
                may_pass = isinstance(error, GeminiBatchError) and error.retryable
                if failures >= _REFUSALS and not may_pass:
                    self._let_through(dict.fromkeys(sorted(self._sleepers)[:1], 1))
            else:
                failures = 0
                self._serve(listed)
            await self._pause(failures)

    def _serve(self, listed: ListedJobs) -> None:
        now = self._loop.time()
        served = self._queue.serve(listed, now)
        if served or listed.made or listed.ended:
            self._changed_at = now
        self._let_through(served)

    def _let_through(self, served: dict[int, int]) -> None:
        for place, jobs in served.items():
            sleeper = self._sleepers.get(place)
            if sleeper is not None and not sleeper.done():
                sleeper.set_result(jobs)

    async def _pause(self, failures: int) -> None:
        """Sleep until the list should be read again: a short time while jobs come and go."""
        interval = min(self._intervals.values(), default=0.0)
        quiet_for = self._loop.time() - self._changed_at
        pause = poll_delay(0.0 if quiet_for < _LIVELY else quiet_for, interval, failures=failures)
        with contextlib.suppress(asyncio.TimeoutError):
            await within(pause * (1.0 + _JITTER * self._random()), self._news.wait())


def _is_old(job: JobSnapshot) -> bool:
    return (job_age(job) or 0.0) > _OLDEST
