"""A little Airflow: tries, retries, clears, deferrals, lost workers, and persons who push buttons."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_gemini_batch.batch.tag import Tag, TaskIdentity, display_name
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger
from simulation.checks import ENDED, Checks
from simulation.clockwork import START, Clockwork, Killed
from simulation.ports import Hiccup, Inputs, Output
from simulation.settings import Setting, draw
from simulation.triggerer import Triggerers
from simulation.worker import Deferred, Worker, moment_of
from simulation.world import World

if TYPE_CHECKING:
    import asyncio


class Airflow:
    """One task instance and all that happens to it."""

    def __init__(
        self, seed: int, loop: asyncio.AbstractEventLoop, *, tracing: bool = False, setting: Setting | None = None
    ) -> None:
        self.clock = Clockwork(seed, tracing=tracing)
        self.setting = setting or draw(self.clock.random)
        clocks = self.setting.clocks
        self.world = World(self.clock, self.setting.weather, clocks.service, clocks.gateway)
        self.inputs = Inputs(rows=self.setting.rows, shards=min(self.setting.shards, self.setting.rows))
        self.output = Output(visible=self.setting.output_visible)
        self.identity = TaskIdentity("here", "dag", "task", "run")
        self.kept: dict[str, str] = {}
        self.state = "none"
        self.try_number = 0
        self.max_tries = self.setting.retries
        self.epoch = 0
        self.worker: Worker | None = None
        self.trigger_key = 0
        self.memo = ""
        self.crashes_left = self.setting.crashes
        # What the checks must know to be fair.
        self.killed = False
        self.overlapped = False
        self.losses = 0
        self.blind = False
        self.checks = Checks(self)
        self.triggerers = Triggerers(self.clock, self.world, loop, kills=self.setting.store, skew=clocks.triggerer)
        self.triggerers.bind(self._fired, lambda: self.state)
        self.world.on_made = self.checks.made
        self.world.on_stop = self.checks.stopped

    def play(self) -> list[str]:
        """Let the schedule happen, and give what went against the rules."""
        clock = self.clock
        clock.note(f"{self.setting}, arguments={vars(self.setting.arguments)}")
        for number in range(self.setting.strangers):
            clock.after(
                clock.random.uniform(0.0, 600.0),
                partial(self.world.make, f"somebody else's {number}", (0,), by="others"),
            )
        for number in range(self.setting.ghosts):
            self._make_ghost(number)
        self._new_try(0.0)
        for when, action in self.setting.person:
            clock.after(when, partial(self._act, action))
        for when, kind in self.setting.triggerer:
            clock.after(when, partial(self.triggerers.disturb, kind))
        try:
            clock.run()
        except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
            self.checks.broken(error)
        self.checks.at_the_end()
        return self.checks.violations

    def _make_ghost(self, number: int) -> None:
        """Make a job of a run that was deleted: it has the very name that a job of this run will have."""
        rnd, shard = self.clock.random, number % self.inputs.shards
        tag = Tag(self.identity.digest, self.max_tries, shard, 0, 0, self.inputs.fingerprint)
        job = self.world.make(display_name("nightly", tag), self.inputs.shard(shard), by="a deleted run")
        age = rnd.uniform(1800.0, 40 * 3600.0)
        job.made, job.listed = job.made - age, job.listed - age
        if rnd.random() < 0.7:
            job.started, job.ends = job.started - age, job.ends - age
            job.finished = {row: when - age for row, when in job.finished.items()}

    # -- tries

    def may_crash(self) -> bool:
        """Whether one more worker may be killed in this schedule."""
        self.crashes_left -= 1
        return self.crashes_left >= 0

    def _set(self, state: str) -> None:
        self.state = state
        self.clock.note(f"task: {state} (try {self.try_number} of {self.max_tries + 1})")
        if state in ENDED:
            self.checks.task_ended()

    def _new_try(self, delay: float) -> None:
        self.epoch += 1
        self.try_number += 1
        self._set("scheduled")
        epoch = self.epoch
        self.clock.after(delay + self.clock.random.uniform(0.5, 5.0), lambda: self._start(epoch, None, None))

    def _start(self, epoch: int, event: Any, memo: str | None) -> None:
        if self.epoch != epoch or self.state != "scheduled":
            return
        self._set("running")
        self.killed = False
        self.worker = Worker(self, event, memo)

    def worker_ended(self, worker: Worker, result: Any) -> None:
        """Take what a worker process left behind."""
        clock = self.clock
        clock.note(f"try {worker.number}: process ended with {type(result).__name__} {str(result)[:200]}")
        if self.checks.is_defect(result):
            self.checks.broken(result)
        if worker is not self.worker or worker.epoch != self.epoch:
            return
        self.worker = None
        # A try that could not read the store, and was told nothing, does not know what runs.
        self.blind = isinstance(result, Hiccup) and not worker.was_told
        if self.state == "restarting":
            self._new_try(0.0)
        elif self.state != "running":
            return
        elif isinstance(result, Killed):
            epoch = self.epoch
            clock.after(clock.random.choice([1.0, 60.0]), lambda: self._lost(epoch))
        elif isinstance(result, Deferred):
            self._defer(result)
        elif isinstance(result, BaseException):
            self._failed(retry=not isinstance(result, AirflowFailException))
        else:
            self.checks.succeeded(worker, result)
            self._set("success")

    def _lost(self, epoch: int) -> None:
        self.losses += 1
        if self.epoch == epoch and self.state == "running":
            self._failed(retry=True)

    def lose_touch(self) -> None:
        """A heartbeat is lost: the try counts as failed while its process goes on for a while."""
        worker = self.worker
        if worker is None or self.state != "running" or not self.may_crash():
            return
        self.clock.note(f"try {worker.number}: heartbeat lost")
        self.overlapped = True
        self.killed = True
        self.losses += 1
        self.worker = None
        self.clock.after(self.clock.random.uniform(5.0, 90.0), worker.process.kill)
        self._failed(retry=True)

    def _failed(self, *, retry: bool) -> None:
        if retry and self.try_number <= self.max_tries:
            self._set("up_for_retry")
            epoch = self.epoch
            self.clock.after(self.setting.retry_delay, lambda: self._retry(epoch))
        else:
            self._set("failed")

    def _retry(self, epoch: int) -> None:
        if self.epoch == epoch and self.state == "up_for_retry":
            self._new_try(0.0)

    # -- deferring

    def _defer(self, deferred: Deferred) -> None:
        self._set("deferred")
        self.trigger_key += 1
        key, trigger = self.trigger_key, deferred.trigger
        self.memo = deferred.memo
        if isinstance(trigger, GeminiBatchJobTrigger):
            arguments = trigger.serialize()[1]
            if arguments["until"] == "time":
                self.checks.waked_at(arguments["end_time"])
            else:
                self.checks.deferred(arguments)
            self.clock.note(f"trigger {key} watches {arguments['job_name']} until {arguments['end_time'] - START:.0f}")
            delay = self.clock.random.uniform(0.2, 2.0)
            self.clock.after(delay, lambda: self._start_trigger(key, arguments))
        else:
            at = moment_of(trigger)
            self.checks.waked_at(at)
            self.clock.note(f"trigger {key} sleeps until {at - START:.0f}")
            left = at - self.setting.clocks.triggerer.at(self.clock.now)
            delay = max(0.0, left) + self.clock.random.uniform(0.0, 2.0)
            self.clock.after(delay, lambda: self._fired(key, "a moment"))

    def _start_trigger(self, key: int, arguments: dict[str, Any]) -> None:
        if self.state == "deferred" and self.trigger_key == key:
            self.triggerers.start(key, arguments)

    def _fired(self, key: int, event: Any) -> None:
        if self.state != "deferred" or self.trigger_key != key:
            return
        self.checks.woke()
        self._set("scheduled")
        epoch, memo = self.epoch, self.memo
        self.clock.after(self.clock.random.uniform(0.5, 5.0), lambda: self._start(epoch, event, memo))
        # The trigger's row is gone: a second triggerer that runs it as well is told to drop it.
        self.clock.after(0.0, lambda: self.triggerers.drop(key))

    def _leave_trigger(self) -> None:
        if self.state == "deferred":
            self.triggerers.drop(self.trigger_key)

    # -- persons

    def _act(self, action: str) -> None:
        self.clock.note(f"person: {action}")
        if action == "clear":
            self._clear()
        elif action == "edit_and_clear":
            self.inputs.version += 1
            self.checks.edited()
            self._clear()
        elif action in ("mark_failed", "mark_success"):
            self._mark("failed" if action == "mark_failed" else "success")
        elif action == "lose_input":
            self.inputs.readable = False
        elif action == "lock_out":
            self.world.locked_out = True
        elif action == "lose_touch":
            self.lose_touch()
        else:
            self._touch_a_job(delete=action == "delete_job")

    def _clear(self) -> None:
        if self.state in {"none", "restarting"}:
            return
        self.checks.cleared(retries=self.state == "running")
        if self.state == "running":
            # A running task keeps max_tries: for the product, this is a retry.
            self.state = "restarting"
            if self.worker is not None:
                self.worker.kill_gently()
            else:
                self._new_try(0.0)
            return
        self._leave_trigger()
        self.max_tries = self.try_number + self.setting.retries
        self._new_try(0.0)

    def _mark(self, state: str) -> None:
        if self.state in ("none", *ENDED):
            return
        worker, was = self.worker, self.state
        watched = was == "deferred" and self.triggerers.is_alive(self.trigger_key)
        self.checks.ended_by_person("deferred" if watched else "unwatched")
        self._leave_trigger()
        self._set(state)
        if worker is not None and was in ("running", "restarting"):
            self.clock.after(self.clock.random.uniform(0.0, 5.0), worker.kill_gently)

    def _touch_a_job(self, *, delete: bool) -> None:
        now = self.clock.now
        jobs = [job for job in self.world.jobs.values() if "gb1-" in job.display_name and not job.deleted]
        jobs = [job for job in jobs if delete or not job.state(now).is_terminal]
        if not jobs:
            return
        job = self.clock.random.choice(jobs)
        if delete:
            self.clock.note(f"person: {job.name} deleted")
            job.deleted = True
        else:
            self.world.stop(job, "a person")
