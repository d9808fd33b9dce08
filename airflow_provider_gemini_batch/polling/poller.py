"""Many jobs of one connection polled together from one event loop, in rounds of few calls.

Theory of operation. Whoever waits for jobs holds a :class:`Subscription`, made of a
:class:`~airflow_provider_gemini_batch.polling.job_wait.JobWait` and a place to sleep. The :class:`JobPoller` has one
timer, set to the time when the next job is due. When it fires, all jobs that are due, or nearly so, go into one
:class:`~airflow_provider_gemini_batch.polling.poll_round.RunningRound`, which runs in threads and passes its answers
to the loop in bundles. Only in the loop do answers reach the waits, which judge them; a bundle is processed in slices
of a few milliseconds.

Rules of this file: nothing blocks the loop, no thread changes a wait, a subscription that has left costs nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random as random_module
import time
from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    QuotaExceeded,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.polling.policy import RIDE_ALONG, poll_delay
from airflow_provider_gemini_batch.polling.poll_round import (
    THREADS,
    JobReader,
    ListHeuristics,
    PollTarget,
    RunningRound,
)
from airflow_provider_gemini_batch.polling.threads import Threads
from airflow_provider_gemini_batch.polling.turns import TurnKeeper
from airflow_provider_gemini_batch.polling.within import within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from airflow_provider_gemini_batch.api.models import JobSnapshot
    from airflow_provider_gemini_batch.polling.job_wait import JobWait, WatchedJob
    from airflow_provider_gemini_batch.polling.poll_round import PollAnswer

_T = TypeVar("_T")
log = logging.getLogger(__name__)

# A round is delayed at random by up to this part of an interval, so that not all triggerers poll at once.
_JITTER: Final = 0.05
# A first poll, and the gap between two rounds, wait this long at most, in seconds, for others to join.
_GATHER: Final = 5.0
_GAP: Final = 1.0
# The loop processes answers in slices of so many seconds, each of which wakes at most so many sleepers.
_SLICE_SECONDS: Final = 0.002
_MOST_WAKES: Final = 16
# How long after its deadline a job is still awaited because a last poll is running or about to run: the job may have
# ended while no triggerer ran.
_LAST_POLL: Final = 90.0
_LOOKUP_SECONDS: Final = 60.0
# For so long, in seconds, loading a connection is tried again: the database may be down.
_LOOKUP_PATIENCE: Final = 600.0
_BAD_CONNECTION_PATIENCE: Final = 15.0


class PollClient(JobReader, Protocol):
    """What a poller needs of a client."""

    def cancel(self, name: str) -> object:
        """Request the cancellation of a job."""

    def close(self) -> None:
        """Close the sockets."""


class PollConnection(Protocol):
    """A connection that has been looked up: equal fingerprints mean equal credentials."""

    @property
    def fingerprint(self) -> str:
        """A hash that does not reveal the credentials."""

    def client(self) -> PollClient:
        """Return a new client; may take long, so it is called in a thread."""


class Subscription:
    """A wait that a poller keeps up to date, and a place to sleep until something has changed."""

    __slots__ = ("_has_changed", "_sleeper", "targets", "wait")

    def __init__(self, wait: JobWait) -> None:
        self.wait = wait
        self.targets: Sequence[SubscribedJob] = tuple(SubscribedJob(job, self) for job in wait.jobs)
        self._sleeper: asyncio.Future[None] | None = None
        self._has_changed = False

    def wake(self) -> None:
        """Wake the sleeper; if nobody sleeps, let the next sleep end at once."""
        self._has_changed = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def wait_for_change(self) -> None:
        """Sleep until something has changed."""
        if not self._has_changed:
            self._sleeper = asyncio.get_running_loop().create_future()
            try:
                await self._sleeper
            finally:
                self._sleeper = None
        self._has_changed = False


class SubscribedJob(PollTarget):
    """One job of a subscription; it is polled next at ``due``, or with others from ``early`` on, in the loop's time."""

    __slots__ = ("due", "early", "job", "subscription")

    def __init__(self, job: WatchedJob, subscription: Subscription) -> None:
        super().__init__(job.name)
        self.job = job
        self.subscription = subscription
        self.due = self.early = 0.0

    def poll_at(self, now: float, pause: float) -> None:
        """Set when the next poll is due, ``pause`` seconds after ``now``."""
        self.due = now + pause
        self.early = self.due - RIDE_ALONG * pause


class JobPoller:
    """Polls the jobs of one connection for all subscriptions in one event loop.

    :param connect: looks the connection up; awaited once, and again when credentials are refused.
    :param now: the wall clock, for deadlines; everything else goes by the loop's time.
    :param random: numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[PollConnection]],
        *,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._heuristics = ListHeuristics()
        self._threads = Threads(THREADS)
        self._connect = connect
        self._now = now
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, tuple[SubscribedJob, ...]] = {}
        self._aliases: dict[str, str] = {}
        #: The running rounds: when each began, which jobs it asks about, and until when its answers are awaited.
        self._rounds: dict[RunningRound, _Asked] = {}
        self._inbox: deque[tuple[RunningRound, PollAnswer | None]] = deque()
        self._wakes = 1
        self._slice_ended = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0
        self._failures = 0
        self._client: PollClient | None = None
        self._fingerprint = ""
        self._connecting: asyncio.Task[None] | None = None
        self._cannot_connect = False
        self._why_not = "it was not loaded"
        self._lookups = 0
        self._closed = False
        #: For tasks that may not create a job yet.
        self.turns = TurnKeeper(self.call, self.renew, random=random)

    # -- subscriptions -------------------------------------------------------------------------------------------------

    def join(self, subscription: Subscription) -> None:
        """Start to poll the jobs of a subscription, the first time within a few seconds."""
        for target in subscription.targets:
            target.poll_at(self._loop.time(), min(_GATHER, RIDE_ALONG * subscription.wait.policy.poll_interval))
            self._targets[target.name] = (*self._targets.get(target.name, ()), target)
            self._poll_by(target.due)

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscription; the answers to its open questions are dropped."""
        for target in subscription.targets:
            others = tuple(other for other in self._targets.get(target.name, ()) if other is not target)
            if others:
                self._targets[target.name] = others
            else:
                self._targets.pop(target.name, None)
                self._aliases.pop(target.shown, None)

    def close(self) -> None:
        """Stop for good; threads end by themselves."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self.turns.close()
        for running in self._rounds:
            running.round.stop(UnexpectedResponse("No task waits any longer"))
        self._drop_client()

    def prepare(self) -> None:
        """Start to make a client, if there is none, so that a later :meth:`call` need not wait for it."""
        if self._client is None:
            self.renew()

    def renew(self) -> None:
        """Start to look the connection up again, because its credentials were refused."""
        if self._connecting is None and not self._closed:
            self._connecting = contextvars.Context().run(self._loop.create_task, self._look_up())

    async def call(self, work: Callable[[PollClient], _T]) -> _T:
        """Return what ``work`` returns for the client; it runs in one of the threads, before rounds that wait."""
        if self._client is None:
            self.prepare()
            while self._client is None and self._connecting is not None:
                await asyncio.shield(self._connecting)
        client = self._client
        if client is None:
            raise ConfigurationError(f"could not load the Airflow connection: {self._why_not}")
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
                self._post(settle, None, error)
            else:
                self._post(settle, result, None)

        self._threads.submit(run, first=True)
        return await future

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Without a context of its own, a round would log into the task log of whoever joined last.
        self._timer = self._loop.call_at(when, self._tick, context=contextvars.Context())

    def _poll_by(self, when: float) -> None:
        if self._timer is None or when < self._timer.when():
            self._set_timer(when)

    def _open(self) -> Iterator[SubscribedJob]:
        """Yield the jobs about which a question would still change something."""
        for targets in self._targets.values():
            for target in targets:
                if target.job.report is None and not target.subscription.wait.is_settled:
                    yield target

    def _idle(self) -> Iterator[SubscribedJob]:
        return (target for target in self._open() if not target.job.is_asked)

    def _tick(self) -> None:
        self._timer = None
        if self._closed:
            return
        now = self._loop.time()
        due = [target for target in self._idle() if target.early <= now]
        if self._client is None:
            self.renew()
        if now < self._not_before:
            # A last poll is made even if the service asked for fewer calls: the job may have ended.
            due = [target for target in due if target.subscription.wait.is_overdue(self._now())]
        if not self._can_ask:
            self._end_overdue(due, by=self._last_poll_seconds)
        elif due:
            self._start(due)
        for asked in self._rounds.values():
            if asked.last_call <= now:
                self._end_overdue(asked.targets, by=_LAST_POLL)
                asked.last_call = self._answers_due(asked.targets)
        self._schedule()

    def _schedule(self) -> None:
        """Set the timer to the next thing that can happen."""
        if self._closed or not self._targets:
            return
        nearest = min(self._idle(), key=lambda target: target.due, default=None)
        when = min((asked.last_call for asked in self._rounds.values()), default=inf)
        if nearest is not None:
            jitter = min(_GAP, _JITTER * nearest.subscription.wait.policy.poll_interval) * self._random()
            start = max(nearest.due + jitter, self._not_before)
            if len(self._rounds) >= THREADS or (self._client is None and self._connecting is not None):
                start = inf  # set again when a round has ended, or the connection is there
            when = min(when, start)
            if start > nearest.due + jitter:
                when = min(when, self._first_deadline())
        if when < inf:
            self._set_timer(when)

    @property
    def _can_ask(self) -> bool:
        return self._client is not None and len(self._rounds) < THREADS

    def _first_deadline(self) -> float:
        """Return when the first wait ends, by the loop's time; it matters only while no ordinary round can start."""
        first = min((target.subscription.wait.policy.deadline for target in self._idle()), default=inf)
        patience = 0.0 if self._can_ask else self._last_poll_seconds
        return self._loop.time() + max(0.01, first + patience - self._now())

    @property
    def _last_poll_seconds(self) -> float:
        """How many seconds a last poll may take after a deadline; 0 when polling is known to fail."""
        return 0.0 if self._failures or self._cannot_connect else _LAST_POLL

    def _end_overdue(self, targets: Iterable[SubscribedJob], *, by: float) -> None:
        """End the waits whose deadline passed so many seconds ago, since no last poll can be made or answered."""
        now = self._now()
        for target in targets:
            if target.job.report is None and target.subscription.wait.is_overdue(now - by):
                errors = target.job.errors
                last = errors.last if errors is not None else None
                self._record(target, last or TransportError("the service did not answer in time", sent=False))

    def _start(self, due: list[SubscribedJob]) -> None:
        client, now = self._client, self._loop.time()
        if client is None:
            return
        running = RunningRound(
            client,
            {target.name: target for target in due}.values(),
            self._heuristics,
            watched=self._watched,
            submit=self._threads.submit,
            deliver=lambda running, answers: self._post(self._receive, running, answers or [None]),
        )
        gap = min(_GAP, *(RIDE_ALONG * target.subscription.wait.policy.poll_interval for target in due))
        self._not_before = max(self._not_before, now + gap)
        try:
            self._threads.submit(running.run)
        except RuntimeError:
            log.warning("No thread could be started; polling is put off")
            self._not_before = now + _GATHER
            return
        self._rounds[running] = _Asked(due, now, self._lookups, self._answers_due(due))
        for target in due:
            target.job.is_asked = True

    def _answers_due(self, targets: Iterable[SubscribedJob]) -> float:
        """Return until when the answers of a round are awaited: some time after the first deadline of its jobs."""
        first = min((one.subscription.wait.policy.deadline for one in targets if one.job.report is None), default=inf)
        return self._loop.time() + max(0.0, first - self._now()) + _LAST_POLL

    def _watched(self, shown: str) -> PollTarget | None:
        """Return a watched job by the name that the list shows. Called from threads, so it only reads."""
        targets = self._targets.get(self._aliases.get(shown, shown))
        return targets[0] if targets else None

    def _post(self, function: Callable[..., object], *args: object) -> bool:
        """Call something in the loop, from a thread; return False when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *args, context=contextvars.Context())
        except RuntimeError:
            return False
        return True

    def _end_round(self, running: RunningRound) -> None:
        """End a round whose answers have all been recorded."""
        asked = self._rounds.pop(running)
        error = running.round.stopped_by
        for target in asked.targets:
            if target.job.is_asked:
                self._record(target, error, asked)
        if error is None:
            self._failures = 0
        else:
            self._slow_down(error, asked.targets)
        self._schedule()

    def _slow_down(self, error: GeminiBatchError, targets: Iterable[SubscribedJob]) -> None:
        """Postpone all polls, since the service wants fewer calls or is unavailable."""
        self._failures += 1
        shortest = min((target.subscription.wait.policy.poll_interval for target in targets), default=60.0)
        retry_after = error.retry_after if isinstance(error, QuotaExceeded) else None
        pause = poll_delay(None, shortest, failures=self._failures, retry_after=retry_after)
        self._not_before = self._loop.time() + pause * (1.0 + _JITTER * self._random())

    # -- answers -------------------------------------------------------------------------------------------------------

    def _receive(self, running: RunningRound, answers: Iterable[PollAnswer | None]) -> None:
        """Accept a bundle of answers, None at the end of the round; called in the loop."""
        working = bool(self._inbox)
        self._inbox.extend((running, answer) for answer in answers)
        if not working:
            self._process_slice()

    def _process_slice(self) -> None:
        """Process a slice of the answers; the rest waits until everything else in the loop had a turn."""
        began = time.monotonic()
        if began - self._slice_ended > _SLICE_SECONDS:  # those who were woken last, or others, kept the loop busy
            self._wakes = max(1, self._wakes // 2)
        elif self._wakes < _MOST_WAKES:
            self._wakes += 1
        wakes = 0
        while self._inbox and wakes < self._wakes and time.monotonic() - began < _SLICE_SECONDS:
            wakes += self._take(*self._inbox[0])
            self._inbox.popleft()
        self._slice_ended = time.monotonic()
        if self._inbox:
            self._loop.call_soon(self._process_slice)
        elif self._rounds and not self._closed:
            self._poll_by(self._loop.time() + _GAP)  # a job may be due before the slowest answer of the round arrives

    def _take(self, running: RunningRound, answer: PollAnswer | None) -> int:
        """Process one answer; return how many sleepers it woke."""
        if answer is None:
            self._end_round(running)
            return 0
        name, what = answer
        asked = self._rounds[running]
        targets = self._targets.get(name, ())
        if what is not None and not isinstance(what, GeminiBatchError) and what.name != name:
            self._aliases[what.name] = name
        return sum(self._record(target, what, asked) for target in targets)

    def _record(
        self, target: SubscribedJob, answer: JobSnapshot | GeminiBatchError | None, asked: _Asked | None = None
    ) -> bool:
        """Record an answer in its wait; return whether that woke somebody."""
        wait, job = target.subscription.wait, target.job
        lookups = self._lookups if asked is None else asked.lookups
        pause = wait.record(job, answer, self._now(), credentials=lookups)
        if job.refused_credentials is not None and job.refused_credentials == self._lookups:
            self.renew()
        # Counted from the beginning of the round, so that all of its jobs are due together again.
        target.poll_at(self._loop.time() if asked is None else asked.began, pause)
        if not job.has_news and not wait.is_over:
            return False
        if job.report is not None:
            self.turns.poll_soon()
        target.subscription.wake()
        return True

    # -- the connection ------------------------------------------------------------------------------------------------

    async def _look_up(self) -> None:
        """Look the connection up until it can be loaded; keep the client if the credentials are the same."""
        began = self._loop.time()
        attempt = 0
        while True:
            try:
                connection = await within(_LOOKUP_SECONDS, self._connect(), cancels=False)
                if self._client is None or connection.fingerprint != self._fingerprint:
                    client = await self._in_thread(connection.client)
                    self._drop_client()
                    self._client, self._fingerprint = client, connection.fingerprint
                break
            except Exception as error:  # noqa: BLE001  any failure here must reach the waiting jobs
                self._why_not = _words(error)
                words = f"could not load the Airflow connection: {self._why_not}"
                is_bad = isinstance(error, ConfigurationError)
                patience = _BAD_CONNECTION_PATIENCE if is_bad else _LOOKUP_PATIENCE
                if self._client is None:
                    is_last = self._loop.time() - began >= patience
                    self._record_error(ConfigurationError(words) if is_last else TransportError(words, sent=False))
                if self._loop.time() - began >= patience:
                    break
                attempt += 1
                self._cannot_connect = True
                self._schedule()
                await asyncio.sleep(min(_LOOKUP_SECONDS, patience, 2.0**attempt))
        self._lookups += 1
        if self._cannot_connect and self._client is not None:
            self._cannot_connect = False
            for target in self._idle():
                target.poll_at(self._loop.time(), 0.0)
        self._connecting = None
        self._schedule()

    def _record_error(self, error: GeminiBatchError) -> None:
        for target in list(self._open()):
            self._record(target, error)

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._threads.submit(lambda: _close(client))


@dataclass(slots=True)
class _Asked:
    """What a poller knows of a running round.

    ``lookups``: how often the connection had been looked up. ``last_call``: until when answers are awaited.
    """

    targets: Sequence[SubscribedJob]
    began: float
    lookups: int
    last_call: float


def _close(client: PollClient) -> None:
    try:
        client.close()
    except Exception:  # nothing depends on it
        log.debug("Could not close a client", exc_info=True)


def _words(error: Exception) -> str:
    """Return what went wrong; of an error that is not ours only the kind, since its text may hold anything."""
    return str(error) if isinstance(error, GeminiBatchError) else type(error).__name__
