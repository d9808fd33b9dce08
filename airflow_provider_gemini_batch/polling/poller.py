"""Many jobs of one connection watched together from one event loop, in rounds of few calls.

Theory of operation. Whoever waits for jobs holds a :class:`Following`. Its entries belong to a :class:`JobPoller`,
which has one timer, set to the time when the next entry is due. When it fires, what is due, or nearly so, goes into one
:class:`~airflow_provider_gemini_batch.polling.poll_plan.Round`, which runs in threads and hands its answers back to the
loop in bundles. There, and only there, entries change; a bundle is worked off in slices of a few milliseconds.

Rules of this file: nothing blocks the loop, no thread changes an entry, and an entry that leaves costs nothing more.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random as random_module
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ConfigurationError,
    GeminiBatchError,
    UnexpectedAnswer,
)
from airflow_provider_gemini_batch.polling.job_wait import WORTH_TELLING, Entry, Following
from airflow_provider_gemini_batch.polling.policy import poll_delay
from airflow_provider_gemini_batch.polling.poll_plan import Habit, JobReader
from airflow_provider_gemini_batch.polling.poll_round import THREADS, Flight
from airflow_provider_gemini_batch.polling.report import Reason
from airflow_provider_gemini_batch.polling.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from airflow_provider_gemini_batch.api.models import JobSnapshot
    from airflow_provider_gemini_batch.polling.poll_plan import Answer, Target

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# Jobs due within this part of their interval ride along; a round comes late by at most half of it, by chance.
_RIDE_ALONG: Final = 0.1
_JITTER: Final = 0.05
# A first look, and the gap between two rounds, wait this long at most, in seconds, for others to join.
_GATHER: Final = 5.0
_GAP: Final = 1.0
# The loop takes answers in slices of so many seconds, which wake so many followers at most.
_SLICE_SECONDS: Final = 0.002
_MOST_WAKES: Final = 16
# How long after its deadline a job may still be waited for because a last look is under way, or about to be.
_LAST_LOOK: Final = 90.0
_LOOKUP_SECONDS: Final = 60.0
# A connection that cannot be had is asked for again, up to so long: a database may be away.
_LOOKUP_PATIENCE: Final = 600.0
_NONSENSE_PATIENCE: Final = 15.0


class PollClient(JobReader, Protocol):
    """What a watcher needs of a client."""

    def cancel(self, name: str) -> object:
        """Ask for a job to be cancelled."""

    def close(self) -> None:
        """Give the sockets back."""


class Access(Protocol):
    """A connection that has been looked up: equal prints mean equal credentials."""

    @property
    def print(self) -> str:
        """A fingerprint that gives nothing away."""

    def client(self) -> PollClient:
        """Make a client; may take long, so it is called in a thread."""


class JobPoller:
    """Looks at the jobs of one connection for all who follow them in one event loop.

    :param connect: looks the connection up; awaited once, and again when credentials are refused.
    :param now: the wall clock, for deadlines; everything else goes by the loop's time.
    :param random: numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Access]],
        *,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.habit = Habit()
        self.threads = Threads(THREADS)
        self._connect = connect
        self._now = now
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._aliases: dict[str, str] = {}
        self._flights: set[Flight] = set()
        self._inbox: deque[tuple[Flight, Answer | Entry | None]] = deque()
        self._wakes = 1
        self._slice_ended = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0
        self._failures = 0
        self._client: PollClient | None = None
        self._print = ""
        self._connecting: asyncio.Task[None] | None = None
        self._lookups = 0
        self._closed = False
        self.trouble = ""

    # -- those who follow ----------------------------------------------------------------------------------------------

    def join(self, following: Following) -> None:
        """Watch the jobs of a follower; the first look comes soon."""
        for entry in following.entries:
            entry.due = self._loop.time() + min(_GATHER, _RIDE_ALONG * entry.watch.poll_interval)
            self._entries[entry.name] = (*self._entries.get(entry.name, ()), entry)
            self._look_by(entry.due)

    def leave(self, following: Following) -> None:
        """Forget a follower. What is under way for it goes on and is then dropped."""
        for entry in following.entries:
            others = tuple(other for other in self._entries.get(entry.name, ()) if other is not entry)
            if others:
                self._entries[entry.name] = others
            else:
                self._entries.pop(entry.name, None)
                self._aliases.pop(entry.shown, None)

    def close(self) -> None:
        """Stop for good; threads end by themselves."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        for flight in self._flights:
            flight.round.give_up(UnexpectedAnswer("Nobody waits any more"))
        self._drop_client()

    def prepare(self) -> None:
        """Have a client made, if there is none, so that a :meth:`call` that follows need not wait for it."""
        if self._client is None:
            self._reconnect()

    async def call(self, work: Callable[[PollClient], _T]) -> _T:
        """Have something done with the client, in one of the threads, before the rounds that wait."""
        if self._client is None:
            self.prepare()
            while self._client is None and self._connecting is not None:
                await asyncio.shield(self._connecting)
        client = self._client
        if client is None:
            raise ConfigurationError("No client could be made from the connection")
        return await self._in_thread(lambda: work(client))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        future: asyncio.Future[_T] = self._loop.create_future()

        def settle(result: _T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001  it is raised where the result is awaited
                self.post(settle, None, error)
            else:
                self.post(settle, result, None)

        self.threads.submit(run, first=True)
        return await future

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Without a context of its own, what the rounds log would go to the log of whoever joined last.
        self._timer = self._loop.call_at(when, self._tick, context=contextvars.Context())

    def loop_time(self) -> float:
        """Tell the time that the rounds go by."""
        return self._loop.time()

    def _look_by(self, when: float) -> None:
        if self._timer is None or when < self._timer.when():
            self._set_timer(when)

    def _all(self) -> Iterator[Entry]:
        for entries in self._entries.values():
            for entry in entries:
                if entry.ending is None:
                    yield entry

    def _tick(self) -> None:
        self._timer = None
        if self._closed:
            return
        now = self._loop.time()
        due = [
            entry
            for entry in self._all()
            if not entry.busy and entry.due - _RIDE_ALONG * entry.watch.poll_interval <= now
        ]
        if self._client is None:
            self._reconnect()
        if self._client is None or now < self._not_before or len(self._flights) >= THREADS:
            self._end_overdue(due, by=self._patience)
        elif due:
            self._start(self._client, due)
        for flight in self._flights:
            if flight.last_call <= now:
                self._end_overdue(flight.entries, by=_LAST_LOOK)
                flight.last_call = self._last_call(flight.entries)
        self._schedule()

    def _schedule(self) -> None:
        """Set the timer to the next thing that can happen."""
        if self._closed or not self._entries:
            return
        nearest = min((entry for entry in self._all() if not entry.busy), key=_due, default=None)
        when = min((flight.last_call for flight in self._flights), default=inf)
        if nearest is not None:
            jitter = min(_GAP, _JITTER * nearest.watch.poll_interval) * self._random()
            start = max(nearest.due + jitter, self._not_before)
            if len(self._flights) >= THREADS or (self._client is None and self._connecting is not None):
                start = inf  # set again when a round has landed, or the connection is there
            when = min(when, start)
            if start > nearest.due + jitter:
                when = min(when, self._first_deadline())
        if when < inf:
            self._set_timer(when)

    def _first_deadline(self) -> float:
        """When the first wait ends, by the loop's time: only of interest while no round can start."""
        first = min((entry.watch.deadline for entry in self._all() if not entry.busy), default=inf)
        return self._loop.time() + max(0.01, first + self._patience - self._now())

    @property
    def _patience(self) -> float:
        """Seconds beyond a deadline for a last look: a job may have ended while no triggerer ran to see it.

        None, once it is clear that looking does not work.
        """
        return 0.0 if self.trouble else _LAST_LOOK

    def _end_overdue(self, entries: Iterable[Entry], *, by: float) -> None:
        """End waits whose deadline has passed by so many seconds and for which no last look can be had."""
        now = self._now()
        for entry in entries:
            if entry.ending is None and entry.watch.overdue(now - by):
                entry.overdue(f"; {self.trouble or 'the service could not be asked'}")
                entry.following.tell()

    def _start(self, client: JobReader, due: list[Entry]) -> None:
        now = self._loop.time()
        flight = Flight(self, client, due, last_call=self._last_call(due))
        self._not_before = now + min(_GAP, _RIDE_ALONG * min(entry.watch.poll_interval for entry in due))
        try:
            self.threads.submit(flight.begin)
        except RuntimeError:
            _log.warning("No thread could be started; looking is put off")
            self._not_before = now + _GATHER
            return
        self._flights.add(flight)
        for entry in due:
            entry.busy = True

    def _last_call(self, entries: Iterable[Entry]) -> float:
        """When the first deadline of a round has passed for so long that its answer is not waited for any more."""
        first = min((entry.watch.deadline for entry in entries if entry.ending is None), default=inf)
        return self._loop.time() + max(0.0, first - self._now()) + _LAST_LOOK

    def watched(self, shown: str) -> Target | None:
        """Find a watched job by the name that the list shows. Called from threads: it only reads."""
        entries = self._entries.get(self._aliases.get(shown, shown))
        return entries[0] if entries else None

    def post(self, function: Callable[..., object], *args: object) -> bool:
        """Have something called in the loop, from a thread; False when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *args, context=contextvars.Context())
        except RuntimeError:
            return False
        return True

    def _landed(self, flight: Flight) -> None:
        """A round is over, and all that it brought has been taken."""
        self._flights.discard(flight)
        for entry in flight.entries:
            entry.busy = False
        error = flight.round.stopped_by
        if error is None:
            self._failures, self.trouble = 0, ""
        else:
            self._slow_down(error, flight)
        self._schedule()

    def _slow_down(self, error: GeminiBatchError, flight: Flight) -> None:
        """The service wants fewer calls, or is not there: all wait together."""
        self._failures += 1
        shortest = min((entry.watch.poll_interval for entry in flight.entries), default=60.0)
        pause = poll_delay(None, shortest, failures=self._failures, retry_after=flight.round.retry_after)
        self._not_before = self._loop.time() + pause * (1.0 + _JITTER * self._random())
        self.trouble = f"the service has not answered {self._failures} times in a row: {error}"
        if self._failures == WORTH_TELLING:
            self._inbox.extend((flight, entry) for entry in self._all())

    # -- answers -------------------------------------------------------------------------------------------------------

    def received(self, flight: Flight, arrivals: Iterable[Answer | None]) -> None:
        """Take a bundle of answers, None at the end of the round; called in the loop."""
        working = bool(self._inbox)
        self._inbox.extend((flight, arrival) for arrival in arrivals)
        if not working:
            self._work_off()

    def _work_off(self) -> None:
        """Take a slice of what has come in; the rest waits until everybody else in the loop had a turn."""
        began = time.monotonic()
        if began - self._slice_ended > _SLICE_SECONDS:  # those who were woken last had much to do, or others had
            self._wakes = max(1, self._wakes // 2)
        elif self._wakes < _MOST_WAKES:
            self._wakes += 1
        wakes = 0
        while self._inbox and wakes < self._wakes and time.monotonic() - began < _SLICE_SECONDS:
            wakes += self._take(*self._inbox[0])
            self._inbox.popleft()
        self._slice_ended = time.monotonic()
        if self._inbox:
            self._loop.call_soon(self._work_off)
        elif self._flights and not self._closed:
            self._look_by(self._loop.time() + _GAP)  # somebody may be due before the slowest of the round has landed

    def _take(self, flight: Flight, arrival: Answer | Entry | None) -> int:
        """Take one thing; returns how many followers it woke."""
        if arrival is None:
            self._landed(flight)
            return 0
        if isinstance(arrival, Entry):
            arrival.following.tell()
            return 1
        name, answer = arrival
        wakes = 0
        for entry in self._entries.get(name, ()):
            entry.busy = False
            if answer is not None and entry.ending is None and self._digest(entry, answer, flight.began):
                entry.following.tell()
                wakes += 1
        return wakes

    def _digest(self, entry: Entry, answer: JobSnapshot | GeminiBatchError, asked_at: float) -> bool:
        now = self._now()
        if isinstance(answer, AccessDenied) and not entry.watch.overdue(now) and self._may_be_mended(entry):
            news, pause = False, max(_GAP, _RIDE_ALONG * entry.watch.poll_interval)
        elif isinstance(answer, GeminiBatchError):
            news, pause = entry.failed(answer, now)
        else:
            if answer.name != entry.name:
                self._aliases[answer.name] = entry.name
            news, pause = entry.saw(answer, now)
        # Counted from the beginning of the round, so that all whom it answered are due together again.
        entry.due = asked_at + pause
        return news

    # -- the connection ------------------------------------------------------------------------------------------------

    def _may_be_mended(self, entry: Entry) -> bool:
        """Credentials may have been changed since: look them up once after a first refusal, before it is believed."""
        if entry.denied_at is None:
            entry.denied_at = self._lookups
            self._reconnect()
        return self._lookups == entry.denied_at

    def _reconnect(self) -> None:
        if self._connecting is None and not self._closed:
            task = contextvars.Context().run(self._loop.create_task, self._look_up())
            self._connecting = task

    async def _look_up(self) -> None:
        """Look the connection up until it can be had; keep the client if nothing has changed."""
        began = self._loop.time()
        attempt = 0
        while True:
            try:
                access = await asyncio.wait_for(self._connect(), _LOOKUP_SECONDS)
                if self._client is None or access.print != self._print:
                    client = await self._in_thread(access.client)
                    self._drop_client()
                    self._client, self._print = client, access.print
                self.trouble = ""
                break
            except Exception as error:  # noqa: BLE001  whatever it is, jobs wait for it: it is told to them in the end
                nonsense = isinstance(error, ConfigurationError)
                patience = _NONSENSE_PATIENCE if nonsense else _LOOKUP_PATIENCE
                if self._loop.time() - began >= patience:
                    if self._client is None:
                        self._refuse_all(error)
                    break
                attempt += 1
                self.trouble = f"the connection cannot be had: {_words(error)}"
                if attempt == 1:
                    _log.warning("%s; trying again", self.trouble)
                self._end_overdue(self._all(), by=0.0)
                self._schedule()
                await asyncio.sleep(min(_LOOKUP_SECONDS, patience, 2.0**attempt))
        self._lookups += 1
        self._connecting = None
        self._schedule()

    def _refuse_all(self, error: Exception) -> None:
        for entry in self._all():
            message = f"{entry.name} cannot be looked at, the connection cannot be had: {_words(error)}"
            entry.end(Reason.REFUSED, message)
            entry.following.tell()

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self.threads.submit(lambda: _close(client))


def _close(client: PollClient) -> None:
    try:
        client.close()
    except Exception:  # noqa: BLE001  nothing depends on it
        _log.debug("A client could not be closed", exc_info=True)


def _due(entry: Entry) -> float:
    return entry.due


def _words(error: Exception) -> str:
    """Say what went wrong; what is not our own error may hold anything, so only its kind is named."""
    return str(error) if isinstance(error, GeminiBatchError) else type(error).__name__
