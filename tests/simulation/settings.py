"""What a schedule is made of: everything that may happen in it, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
from simulation.clockwork import RIGHT, Skew
from simulation.world import NEVER, Weather

if TYPE_CHECKING:
    from random import Random

HOUR = 3600.0
PERSON = (
    "clear",
    "clear",
    "clear",
    "mark_failed",
    "mark_success",
    "cancel_job",
    "delete_job",
    "edit_and_clear",
    "lose_input",
    "lose_touch",
    "lose_touch",
    "lock_out",
)
TRIGGERER = ("sigterm", "sigkill", "sigstop")


@dataclass(frozen=True)
class Clocks:
    """The clocks of two workers, of triggerers, of Airflow's database, of the service, and of a gateway before it."""

    workers: tuple[Skew, Skew] = (RIGHT, RIGHT)
    triggerer: Skew = RIGHT
    airflow: Skew = RIGHT
    service: Skew = RIGHT
    gateway: Skew = RIGHT

    @property
    def agree(self) -> bool:
        """Whether all of them show the true time."""
        return set(self._all) == {RIGHT}

    @property
    def _all(self) -> tuple[Skew, ...]:
        return (*self.workers, self.triggerer, self.airflow, self.service, self.gateway)

    def most_off(self, seconds: float) -> float:
        """Return by how much times may differ, at the most, that any of them show within so many seconds."""
        return sum(skew.most_off(seconds) for skew in self._all)


@dataclass(frozen=True)
class Setting:
    """One schedule."""

    arguments: BatchArguments = field(repr=False)
    retries: int
    weather: Weather
    store: bool
    """True on Airflow 3.3: a task state store, and ``on_kill`` of triggers."""
    crash: float
    """The chance that a worker is killed at a step."""
    crashes: int
    """How often at most."""
    hiccup: float
    rows: int
    shards: int
    can_resend: bool
    output_visible: bool
    request_timeout: float
    retry_delay: float
    person: tuple[tuple[float, str], ...]
    triggerer: tuple[tuple[float, str], ...]
    clocks: Clocks
    max_active_jobs: int | None = None
    """Of the connection."""
    strangers: int = 0
    ghosts: int = 0
    """Jobs of a Dag run of the same name that was deleted."""

    @property
    def benign(self) -> bool:
        """Whether nothing but lost answers, lost workers and lost triggerers can go wrong: such a task must succeed."""
        weather, arguments = self.weather, self.arguments
        troubles = (weather.failing, weather.hopeless, weather.expiring, weather.stuck, weather.bad_rows, self.hiccup)
        limits = (arguments.timeout, arguments.queue_timeout, arguments.progress_timeout)
        return not self.person and not any(troubles) and limits == (None,) * 3 and weather.retention == NEVER


def draw(rnd: Random) -> Setting:
    """Draw a schedule. Most things go well in most schedules, or their troubles would hide one another."""

    def sometimes(chance: float, value: float) -> float:
        return value if rnd.random() < chance else 0.0

    duration = rnd.choice([60.0, 600.0, 600.0, 3 * HOUR])
    stuck = sometimes(0.1, 0.5)
    request_timeout = 60.0
    arguments = BatchArguments(
        deferrable=rnd.random() < 0.8,
        # What gets stuck is waited for two days: few looks, or there would be few schedules.
        poll_interval=HOUR if stuck else (rnd.choice([30.0, 60.0]) if duration < HOUR else 600.0),
        timeout=rnd.choice([None, None, None, duration, 3 * duration]),
        cancel_on_timeout=rnd.random() < 0.9,
        cancel_on_kill=rnd.random() < 0.9,
        reattach=rnd.random() < 0.93,
        queue_timeout=rnd.choice([None, None, None, duration]),
        progress_timeout=rnd.choice([None, None, None, 1.5 * duration]),
        on_stall=rnd.choice(["fail", "resubmit"]),
        max_resubmits=rnd.choice([1, 2]),
        repair_rounds=rnd.choice([0, 0, 1, 2]),
        max_active_jobs=rnd.choice([None, None, None, 1, 2]),
        max_failed_rows=rnd.choice([None, None, 0, 2]),
        max_xcom_bytes=1 << 20,
    )
    retries = rnd.choice([0, 1, 2, 3])
    weather = Weather(
        lost=sometimes(0.3, rnd.choice([0.3, 0.8])),
        quota=sometimes(0.1, 0.5),
        refused=sometimes(0.15, rnd.choice([0.02, 0.1])),
        flaky_404=sometimes(0.05, 0.05),
        lag=sometimes(0.5, 0.95 * arguments.lookup_timeout),
        late=rnd.uniform(0.0, request_timeout),
        duration=duration,
        failing=sometimes(0.15, 0.5),
        hopeless=sometimes(0.05, 0.5),
        expiring=sometimes(0.15, 0.5),
        stuck=stuck,
        bad_rows=sometimes(0.3, rnd.choice([0.1, 0.5, 1.0])),
        cancel_delay=rnd.choice([1.0, 60.0]),
        cancel_in_vain=rnd.choice([0.0, 0.3]),
        says_cancelling=rnd.random() < 0.5,
        retention=rnd.choice([NEVER, NEVER, NEVER, 4 * duration]),
    )
    # Persons and triggerers act while jobs run, or somewhat later.
    horizon = 3 * duration + 300.0
    clocks = _clocks(rnd, horizon)
    return Setting(
        arguments=arguments,
        retries=retries,
        weather=weather,
        store=rnd.random() < 0.65,
        crash=sometimes(0.4, rnd.choice([0.01, 0.05])),
        crashes=rnd.choice([1, 2, 5]),
        hiccup=sometimes(0.05, 0.03),
        rows=rnd.choice([1, 3, 6]),
        shards=rnd.choice([1, 1, 1, 2, 3]),
        can_resend=rnd.random() < 0.7,
        output_visible=rnd.random() < 0.6,
        request_timeout=request_timeout,
        retry_delay=rnd.choice([0.0, 10.0, 300.0]),
        person=_events(rnd, PERSON, horizon, 0.35),
        triggerer=_events(rnd, TRIGGERER, horizon, 0.3),
        strangers=rnd.choice([0, 0, 3, 12]),
        ghosts=rnd.choice([0, 0, 0, 1, 2]) if clocks.agree else 0,
        clocks=clocks,
        max_active_jobs=rnd.choice([None, None, None, 1, 2]),
    )


def _clocks(rnd: Random, horizon: float) -> Clocks:
    """Draw clocks that agree in most schedules; in the others each may be off, drift and jump, by hours."""
    if rnd.random() < 0.6:
        service = rnd.choice([RIGHT, RIGHT, RIGHT, Skew(30 * HOUR)])
        return Clocks(service=service, gateway=service)

    def skew() -> Skew:
        if rnd.random() < 0.5:
            return RIGHT
        jumps = rnd.choice([0, 0, 1, 2])
        return Skew(
            ahead=rnd.choice([0.0, rnd.uniform(-120.0, 120.0), rnd.uniform(-8 * HOUR, 8 * HOUR)]),
            drift=rnd.choice([0.0, 0.0, rnd.uniform(-0.01, 0.01)]),
            jumps=tuple((rnd.uniform(0.0, horizon), rnd.uniform(-6 * HOUR, 6 * HOUR)) for _ in range(jumps)),
        )

    # When the run began, by Airflow's clock, is compared with when the service says that a job was created: the one may
    # be off by minutes, and the other ahead by hours, or a job would be taken for one of an earlier run.
    service = Skew(rnd.choice([0.0, rnd.uniform(0.0, 8 * HOUR)]), rnd.choice([0.0, rnd.uniform(0.0, 0.01)]))
    if rnd.random() < 0.3:
        service = Skew(service.ahead, service.drift, ((rnd.uniform(0.0, horizon), rnd.uniform(0.0, 6 * HOUR)),))
    return Clocks((skew(), skew()), skew(), Skew(rnd.uniform(-120.0, 120.0)), service, skew())


def _events(rnd: Random, kinds: tuple[str, ...], horizon: float, chance: float) -> tuple[tuple[float, str], ...]:
    count = rnd.choice([1, 1, 2, 3]) if rnd.random() < chance else 0
    return tuple(sorted((rnd.uniform(0.0, horizon), rnd.choice(kinds)) for _ in range(count)))
