"""Triggerers: they run the product's own trigger, lose it, take it over from one another, and let it go."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.api.models import JobSnapshot
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, to_event
from airflow_provider_gemini_batch.runtime.trigger_task import TriggerTask
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.polling.poller import SubscribedJob, Subscription
    from airflow_provider_gemini_batch.polling.turns import TurnRequest
    from simulation.clockwork import Clockwork, Skew
    from simulation.world import World

# Until another triggerer has noticed that one is gone, in seconds.
_UNNOTICED = (30.0, 90.0)


class _Client:
    """What a trigger can do to the service."""

    def __init__(self, world: World) -> None:
        self._world = world

    def cancel(self, name: str) -> None:
        """Ask for a job's end."""
        job = self._world.jobs.get(name)
        if job is not None:
            self._world.stop(job, "a trigger")

    def get(self, name: str, *, brief: bool = False) -> BatchJob:  # noqa: ARG002
        """Show a job."""
        return self._world.get(name)

    def create(self, model: str, *, display_name: str) -> None:  # noqa: ARG002
        """Create a job: nothing that a trigger should do, and so the simulation must be able to see it."""
        rows = next((job.rows for job in self._world.jobs.values() if job.display_name == display_name), ())
        self._world.make(display_name, rows, by="a trigger")


class _Poller:
    """Polls jobs in virtual time, as the shared poller does in real time."""

    def __init__(self, run: TriggerRun) -> None:
        self._run = run
        self._left = False
        self._credentials = 0

    def prepare(self) -> None:
        """Nothing to prepare."""

    def join(self, subscription: Subscription) -> None:
        for target in subscription.targets:
            self._run.clock.after(self._run.clock.random.uniform(0.0, 2.0), partial(self._poll, target))

    @property
    def turns(self) -> _Poller:
        """Whose turn it is: nobody else waits here, so that it is only a matter of time."""
        return self

    async def wait(self, turn: TurnRequest, poll_interval: float) -> int:
        """Wait for a turn."""
        return await self._run.turn(turn, poll_interval)

    def leave(self, subscription: Subscription) -> None:  # noqa: ARG002
        self._left = True

    async def call(self, do: Callable[[Any], Any]) -> Any:
        return do(_Client(self._run.world))

    def _poll(self, target: SubscribedJob) -> None:
        run, wait = self._run, target.subscription.wait
        if self._left or wait.is_settled or run.dead:
            return
        if run.clock.now < run.frozen_until:
            run.clock.after(run.frozen_until - run.clock.now, lambda: self._poll(target))
            return
        answer: JobSnapshot | GeminiBatchError
        try:
            answer = JobSnapshot.of(run.world.get(target.name))
        except GeminiBatchError as error:
            answer = error
        pause = wait.record(target.job, answer, run.local_now, credentials=self._credentials)
        if target.job.refused_credentials == self._credentials:
            self._credentials += 1  # the connection is looked up once more
        if target.job.report is None:
            run.clock.after(max(pause, 0.5), lambda: self._poll(target))
        if target.job.has_news or wait.is_over:
            target.subscription.wake()
            run.pump()


class _Lease:
    def __init__(self, run: TriggerRun) -> None:
        self.poller = _Poller(run)

    def release(self) -> None:
        """Nothing is shared here."""


@dataclass(frozen=True)
class SimTriggerTask(TriggerTask):
    """The product's task of a trigger; its ways out of the process, to the service and to Airflow, are replaced."""

    run: TriggerRun

    def lease(self) -> Any:
        return _Lease(self.run)

    async def task_state(self) -> str | None:
        return self.run.task_state()

    async def _write(self, lines: Sequence[tuple[int, str]]) -> None:
        """Write at once what the product writes in a thread, whose time nobody can foresee."""
        for level, line in lines:
            self.log.log(level, "%s", line)


class SimTrigger(GeminiBatchJobTrigger):
    """The product's trigger, and the triggerer that it runs in."""

    run_of_it: TriggerRun
    log: Any = logging.getLogger("simulation")

    def _task(self) -> SimTriggerTask:
        parts = super()._task()
        return SimTriggerTask(**{one.name: getattr(parts, one.name) for one in fields(parts)}, run=self.run_of_it)


class TriggerRun:
    """One trigger in one triggerer."""

    def __init__(
        self,
        triggerers: Triggerers,
        key: int,
        arguments: dict[str, Any],
        *,
        fire: Callable[[int, Any], None],
        task_state: Callable[[], str | None],
    ) -> None:
        self.clock = triggerers.clock
        self.world = triggerers.world
        self.key = key
        self.arguments = arguments
        self.fire = fire
        self.task_state = task_state
        self._skew = triggerers.skew
        self.frozen_until = 0.0
        self.dead = False
        self._loop = triggerers.loop
        self._trigger = SimTrigger(**json.loads(json.dumps(arguments)))
        self._trigger.run_of_it = self
        self._sleeper: asyncio.Future[int] = self._loop.create_future()
        self._task = self._loop.create_task(self._follow())
        self.pump()

    async def _follow(self) -> None:
        if self.arguments["until"] == "time":
            # It sleeps in real time; here it sleeps in ours.
            self.clock.after(self.arguments["end_time"] - self.local_now, self._end_sleep)
            if self.arguments["turn"] is not None:
                self.clock.after(self._until_turn(self.arguments["poll_interval"]), lambda: self._end_sleep(1))
            turns, memo = await self._sleeper, self.arguments["memo"]
            self.fire(self.key, to_event(WaitReport(Reason.TURN if turns else Reason.WAKE, memo=memo, turns=turns)))
            return
        events = self._trigger.run()
        try:
            async for event in events:
                self.clock.note(f"trigger {self.key} fires {event.payload['reason']}")
                self.fire(self.key, json.loads(json.dumps(event.payload)))
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    @property
    def local_now(self) -> float:
        """The time by the triggerer's clock."""
        return self._skew.at(self.clock.now)

    def _until_turn(self, poll_interval: float) -> float:
        return self.clock.random.uniform(1.0, 3 * poll_interval)

    async def turn(self, turn: TurnRequest, poll_interval: float) -> int:
        """Wait for a turn."""
        self.clock.after(self._until_turn(poll_interval), lambda: self._end_sleep(turn.jobs))
        return await self._sleeper

    def _end_sleep(self, turns: int = 0) -> None:
        if self.clock.now < self.frozen_until:
            self.clock.after(self.frozen_until - self.clock.now, lambda: self._end_sleep(turns))
        elif not self.dead and not self._sleeper.done():
            self._sleeper.set_result(turns)
            self.pump()

    def pump(self) -> None:
        """Let the event loop do what can be done now."""
        if self.dead:
            return
        self._wait_for(_breath())
        if self._task.done() and not self.dead:
            self.dead = True
            error = self._task.exception()
            if error is not None:
                raise error
            self._wait_for(self._trigger.cleanup())

    def drop(self, *, kill: bool, clean: bool = True) -> None:
        """End the trigger: ``kill`` calls ``on_kill`` first, as Airflow does for one that it was told to drop."""
        if self.dead:
            return
        self.dead = True
        if clean:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                self._wait_for(_both(self._task))
            if kill:
                self.clock.note(f"trigger {self.key}: on_kill, the task is {self.task_state()}")
                self._wait_for(self._trigger.on_kill())
            self._wait_for(self._trigger.cleanup())
        else:
            # SIGKILL: nothing of it runs any more, but the loop of this process must forget it.
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                self._wait_for(_both(self._task))

    def _wait_for(self, what: Awaitable[Any]) -> None:
        self._loop.run_until_complete(what)


async def _breath() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def _both(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


class Triggerers:
    """All triggerers; which of them runs a trigger does not matter, only that it may change."""

    def __init__(
        self, clock: Clockwork, world: World, loop: asyncio.AbstractEventLoop, *, kills: bool, skew: Skew
    ) -> None:
        """Start with no trigger.

        :param kills: whether Airflow calls ``on_kill`` of triggers (3.3).
        :param skew: their clock.
        """
        self.clock = clock
        self.skew = skew
        self.world = world
        self.loop = loop
        self.outage = 0.0
        self._kills = kills
        self._assigned: TriggerRun | None = None
        self._runs: list[TriggerRun] = []
        self._fire: Callable[[int, Any], None] = lambda _key, _event: None
        self._task_state: Callable[[], str | None] = lambda: None

    def bind(self, fire: Callable[[int, Any], None], task_state: Callable[[], str | None]) -> None:
        """Take the way back to Airflow."""
        self._fire = fire
        self._task_state = task_state

    def start(self, key: int, arguments: dict[str, Any]) -> None:
        """Run a trigger."""
        self._assigned = TriggerRun(self, key, arguments, fire=self._fire, task_state=self._task_state)
        self._runs.append(self._assigned)

    def is_alive(self, key: int) -> bool:
        """Whether a triggerer runs this trigger: in the seconds before it does, and after a loss, none can act."""
        return any(run.key == key and not run.dead for run in self._runs)

    def drop(self, key: int) -> None:
        """Let go of a trigger whose task no longer waits for it; the triggerers notice a little later."""
        for run in self._runs:
            if run.key == key and not run.dead:
                self._notice_later(run)
        if self._assigned is not None and self._assigned.key == key:
            self._assigned = None

    def _notice_later(self, run: TriggerRun) -> None:
        delay = self.clock.random.uniform(0.0, 3.0)
        self.clock.after(max(run.frozen_until - self.clock.now, 0.0) + delay, lambda: run.drop(kill=self._kills))

    def disturb(self, kind: str) -> None:
        """Stop, kill or freeze the triggerer that runs the trigger."""
        run = self._assigned
        if run is None or run.dead:
            return
        rnd = self.clock.random
        self.clock.note(f"triggerer: {kind}")
        if kind == "sigterm":
            run.drop(kill=False)
            self._take_over(run, rnd.uniform(1.0, 10.0))
        elif kind == "sigkill":
            run.drop(kill=False, clean=False)
            self._take_over(run, rnd.uniform(*_UNNOTICED))
        else:
            frozen = rnd.uniform(5.0, 200.0)
            run.frozen_until = self.clock.now + frozen
            noticed = rnd.uniform(*_UNNOTICED)
            if noticed < frozen:
                self._take_over(run, noticed)
                # It wakes up, sees that the trigger is no longer its own, and drops it as if a user had said so.
                self._notice_later(run)
            else:
                self.outage += frozen

    def _take_over(self, lost: TriggerRun, delay: float) -> None:
        self.outage += delay

        def take() -> None:
            if self._assigned is lost:
                self.start(lost.key, lost.arguments)

        self.clock.after(delay, take)
