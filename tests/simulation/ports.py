"""The product's ports as the simulation supplies them: every call takes time, may fail, and may be the last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_gemini_batch.api.errors import InputError, ServiceUnavailable
from airflow_provider_gemini_batch.batch.ports import Landing, Plan
from airflow_provider_gemini_batch.batch.tag import Tag, display_name, tag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from simulation.clockwork import Clockwork, Skew
    from simulation.world import World


class Superseded(AirflowRuntimeError):
    """Airflow's API does not know this try any more."""

    def __init__(self) -> None:
        super().__init__(ErrorResponse(error=ErrorType.GENERIC_ERROR))


class Hiccup(AirflowRuntimeError):
    """The metadata database is not there for a moment."""

    def __init__(self) -> None:
        super().__init__(ErrorResponse(error=ErrorType.API_SERVER_ERROR))


class Steps:
    """What the ports of one worker process share: its pauses, and the places where it may die."""

    def __init__(
        self, clock: Clockwork, pause: Callable[[float], None], *, crash: float, die: Callable[[], None]
    ) -> None:
        self.clock = clock
        self._pause = pause
        self._crash = crash
        self._die = die

    def step(self, longest: float = 0.4) -> None:
        """Take some time, or die."""
        if self.clock.chance(self._crash):
            self._die()
        self._pause(self.clock.random.uniform(0.0, longest))

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self._pause(seconds)


class SimClock:
    """The worker's clock."""

    def __init__(self, steps: Steps, skew: Skew) -> None:
        self._steps = steps
        self._skew = skew

    def now(self) -> float:
        return self._skew.at(self._steps.clock.now)

    def monotonic(self) -> float:
        return self._steps.clock.now

    def sleep(self, seconds: float) -> None:
        self._steps.pause(seconds)


class RawStore:
    """Airflow's task state store, which answers only the try that is now."""

    def __init__(self, steps: Steps, kept: dict[str, str], current: Callable[[], bool], hiccup: float) -> None:
        self._steps = steps
        self._kept = kept
        self._current = current
        self._hiccup = hiccup

    def get(self, key: str) -> str | None:
        self._call()
        return self._kept.get(key)

    def set(self, key: str, text: str) -> None:
        self._call()
        self._kept[key] = text
        self._steps.step(0.05)

    def _call(self) -> None:
        self._steps.step(0.05)
        if not self._current():
            raise Superseded
        if self._steps.clock.chance(self._hiccup):
            raise Hiccup


@dataclass(frozen=True)
class Ready:
    """Input that lies ready."""

    rows: tuple[int, ...]


class SimService:
    """The batch service through a client that loses answers."""

    def __init__(
        self,
        steps: Steps,
        world: World,
        inputs: Inputs,
        *,
        by: str,
        timeout: float,
        may_create: Callable[[], None],
        is_earlier: Callable[[BatchJob], bool],
        on_sent: Callable[[Tag, bool, bool], None],
    ) -> None:
        self._steps = steps
        self._world = world
        self._inputs = inputs
        self._by = by
        self._timeout = timeout
        self._may_create = may_create
        self.created: set[str] = set()
        self.listed_at: float | None = None
        self._is_earlier = is_earlier
        self._on_sent = on_sent

    def get(self, name: str) -> BatchJob:
        self._steps.step()
        job = self._world.get(name)
        self._steps.step(0.1)
        return job

    def find(self, identity: str) -> Iterator[BatchJob]:
        self._steps.step()
        listed = self._world.listed()
        self.listed_at = self._world.date()
        for position, job in enumerate(listed):
            if position % 5 == 4:
                # The next page: by then the list may have moved.
                self._steps.step()
                self._world.weather_check()
                self.listed_at = self._world.date()
            if self._is_earlier(job):
                return
            tag = tag_of(job)
            if tag is not None and tag.identity == identity:
                yield job

    def cancel(self, name: str) -> None:
        self._steps.step()
        self._world.cancel(name, self._by)
        self._steps.step(0.1)

    def prepare(
        self,
        tag: Tag,
        rows: Sequence[int] | None,
        *,
        reuse: bool,  # noqa: ARG002
        completes: Sequence[str] = (),  # noqa: ARG002
    ) -> Ready:
        self._steps.step(5.0)
        return Ready(self._inputs.shard(tag.shard) if rows is None else tuple(rows))

    def keep(self, prepared: Ready, tag: Tag) -> str:
        self._steps.step(5.0)
        name = f"files/{tag}"
        self._world.files[name] = prepared.rows
        return name

    def kept(self, name: str, tag: Tag) -> Ready | None:  # noqa: ARG002
        self._steps.step()
        rows = self._world.files.get(name)
        return None if rows is None else Ready(rows)

    def count_active(self, most: int) -> int:
        self._steps.step()
        self._world.weather_check()
        return min(most, sum(not job.is_done for job in self._world.listed()))

    def create(self, prepared: Ready, tag: Tag) -> BatchJob:
        self._steps.step(0.1)
        self._may_create()
        acted, late, error = self._world.fate_of_create()
        name = display_name("nightly", tag)
        clock = self._steps.clock
        if error is None or error.may_have_acted:
            self._on_sent(tag, error is not None, acted == "never")
        if isinstance(error, ServiceUnavailable):
            late = min(late, 0.4)  # the service itself has answered, not a gateway: it acts on the call no more
        if acted == "late":
            clock.after(late, lambda: self._world.make(name, prepared.rows, by=self._by))
        job = self._world.make(name, prepared.rows, by=self._by) if acted == "now" else None
        self._steps.step(1.0 if error is None else clock.random.choice([0.5, self._timeout]))
        if error is not None or job is None:
            clock.note(f"{self._by}: create {tag} -> {type(error).__name__} (acted {acted}, {late:.1f} s)")
            assert error is not None
            raise error
        return self._world.shown(job)

    def discard(self, prepared: Ready) -> None:  # noqa: ARG002
        self._steps.step(0.1)

    def remove_inputs(self, jobs: Sequence[BatchJob]) -> None:  # noqa: ARG002
        self._steps.step(0.1)


class Inputs:
    """The rows of the task, and whether they can still be read."""

    def __init__(self, *, rows: int, shards: int) -> None:
        self.rows = rows
        self.shards = shards
        self.version = 0
        self.readable = True

    @property
    def fingerprint(self) -> str:
        """Twelve digits over what is sent."""
        return hashlib.sha256(f"{self.rows}/{self.version}".encode()).hexdigest()[:12]

    def shard(self, index: int) -> tuple[int, ...]:
        """The rows of a shard."""
        return tuple(row for row in range(self.rows) if row % self.shards == index)


@dataclass(frozen=True)
class Delivery:
    """What was landed at one moment."""

    when: float
    epoch: int
    jobs: tuple[str, ...]
    good: frozenset[int]
    total: int


class Output:
    """What lies at the author's place; landing replaces it whole."""

    def __init__(self, *, visible: bool) -> None:
        self.visible = visible
        self.landed: list[Delivery] = []

    def came_from(self, name: str) -> bool | None:
        """Read the manifest, if there is an output."""
        if not self.visible:
            return None
        return bool(self.landed) and name in self.landed[-1].jobs


class SimWork:
    """The rows of the task and its output."""

    landed_between = None
    input_tokens = 0

    def __init__(
        self, steps: Steps, world: World, inputs: Inputs, output: Output, *, can_resend: bool, epoch: int
    ) -> None:
        self._steps = steps
        self._world = world
        self._inputs = inputs
        self._output = output
        self._can_resend = can_resend
        self._epoch = epoch
        self._forgotten = False

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        self._steps.step()
        if not self._inputs.readable or self._forgotten:
            return Plan(None, self._inputs.shards, can_resend=False)
        if self._inputs.rows == 0:
            raise InputError("no rows")
        return Plan(self._inputs.fingerprint, self._inputs.shards, can_resend=self._can_resend)

    def forget_input(self) -> Plan:
        self._forgotten = True
        return Plan(None, self._inputs.shards, can_resend=False)

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        rows = self._inputs.shard(shard) if shard is not None else tuple(range(self._inputs.rows))
        return self._landing(self._good(jobs), rows)

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        good = self._good(jobs)
        self._steps.step(5.0)
        landing = self._landing(good, tuple(range(self._inputs.rows)))
        names = tuple(job.name for job in jobs)
        now = self._steps.clock.now
        self._output.landed.append(Delivery(now, self._epoch, names, frozenset(good), landing.total))
        self._steps.clock.note(f"try {self._epoch}: landed {sorted(good)} from {', '.join(names)}")
        self._steps.step(0.1)
        return landing

    def remove_kept(self) -> None:
        self._steps.step(0.1)

    def was_delivered(self, job_name: str) -> bool | None:
        self._steps.step(0.05)
        return self._output.came_from(job_name)

    def _good(self, jobs: Sequence[BatchJob]) -> set[int]:
        good: set[int] = set()
        for job in jobs:
            self._steps.step(1.0)
            good.update(row for row, well in self._world.answers(job.name).items() if well)
        return good

    def _landing(self, good: set[int], rows: Sequence[int]) -> Landing:
        bad = tuple(row for row in rows if row not in good)
        return Landing(
            len(rows),
            len(rows) - len(bad),
            len(bad),
            output="the output" if self._output.visible else None,
            responses=None if self._output.visible else [],
            repairable=bad if self._can_resend else (),
        )
