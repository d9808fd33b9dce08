"""The same looks, errors, clock and credentials lead to the same report, whoever drives the wait.

The four: the poller of a triggerer, the blocking wait of a worker, a sensor that pokes, and ``BatchClient.wait``.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polling.fake_service import VirtualLoop, made
from polling.scene import subscribe

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    JobTimedOut,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import BatchJob, JobSnapshot, JobState, SnapshotPage
from airflow_provider_gemini_batch.polling import poller
from airflow_provider_gemini_batch.polling.blocking import BlockingWait
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.poller import JobPoller
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport
from airflow_provider_gemini_batch.runtime import sensor_task
from airflow_provider_gemini_batch.runtime.sensor_task import SensorRun, SensorSetup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START = 1_000_000.0
DENIED = AccessDenied("key refused", http_status=401, status="UNAUTHENTICATED")
FORBIDDEN = AccessDenied("not yours", http_status=403, status="PERMISSION_DENIED")
MISSING = NotFound("no such job", http_status=404, status="NOT_FOUND")
REFUSAL = ApiError("precondition", http_status=400, status="FAILED_PRECONDITION")
BUSY = QuotaExceeded("slower", http_status=429)
LATER = QuotaExceeded("much slower", http_status=429, retry_after=200.0)
DOWN = ServiceUnavailable("down", http_status=503)
RESET = TransportError("reset", sent=True)
PAGE = UnexpectedResponse("a login page")
WRONG = ConfigurationError("no project")
QUEUED, RUNNING, NAPPING = JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN
DONE, FAILED, EXPIRED = JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED

#: What a question about a job is answered with: a state, a state with counts, or an error.
Said = JobState | tuple[JobState, int] | GeminiBatchError


def answer(name: str, said: Said) -> BatchJob:
    if isinstance(said, GeminiBatchError):
        raise said
    state, done = said if isinstance(said, tuple) else (said, None)
    return made(name, state, done)


@dataclass
class Service:
    """What is said about each job.

    ``script``: by job, what is said from a number of seconds on, the last of it for ever. ``sequence``: what is said to
    one question after the other, the last of it for ever. ``rotated``: from this second on, the connection has another
    key, and the old one is refused from ``refused`` on.
    """

    script: dict[str, Sequence[tuple[float, Said]]] = field(default_factory=dict)
    sequence: Sequence[Said] = ()
    rotated: float = inf
    refused: float = inf
    asked: int = 0

    def ask(self, name: str, at: float, key: str) -> BatchJob:
        if key == "old" and at >= self.refused:
            raise DENIED
        if self.sequence:
            self.asked += 1
            return answer(name, self.sequence[min(self.asked, len(self.sequence)) - 1])
        return answer(name, [said for since, said in self.script[name] if at >= since][-1])

    def key(self, at: float) -> str:
        return "new" if at >= self.rotated else "old"


@dataclass
class Reader:
    """A client as a driver sees it: it has the key that the connection had when it was made."""

    service: Service
    names: Sequence[str]
    now: Callable[[], float]
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.fingerprint = self.service.key(self.now() - START)

    def get(self, name: str, *, brief: bool = False) -> BatchJob:
        assert brief
        return self.service.ask(name, self.now() - START, self.fingerprint)

    def snapshots(self, *, page_size: int = 100, page_token: str | None = None) -> SnapshotPage:
        assert (page_size, page_token) == (100, None)
        seen = [self.seen(name) for name in self.names]
        return SnapshotPage([snapshot for snapshot in seen if snapshot is not None], None)

    def seen(self, name: str) -> JobSnapshot | None:
        """What the list shows of a job; raises what concerns the whole list."""
        try:
            return JobSnapshot.of(self.get(name, brief=True))
        except GeminiBatchError as error:
            if error in (DENIED, BUSY, LATER):
                raise
            return None

    def client(self) -> Reader:
        return self

    def cancel(self, name: str) -> None:
        raise AssertionError(name)

    def close(self) -> None:
        """Nothing is open."""


class Clock:
    """A clock that a sleep advances."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds


def by_poller(service: Service, names: Sequence[str], policy: WaitPolicy) -> WaitReport:
    loop = VirtualLoop()
    assert loop.now == START

    async def connect() -> Reader:
        return Reader(service, names, loop.time)

    async def play() -> WaitReport:
        shared = JobPoller(connect, now=loop.time, random=lambda: 0.0)
        subscription = subscribe(*names, **policy._asdict())
        shared.join(subscription)
        while (report := subscription.wait.report("memo")) is None:
            await subscription.wait_for_change()
        shared.leave(subscription)
        shared.close()
        return report

    try:
        return loop.run_until_complete(asyncio.wait_for(play(), 1_000_000.0))
    finally:
        loop.close()


def by_worker(service: Service, names: Sequence[str], policy: WaitPolicy) -> WaitReport:
    clock = Clock()
    reader = Reader(service, names, clock.now)
    wait = BlockingWait(
        JobWait(names, policy), lambda name: reader.get(name, brief=True), now=clock.now, renew=reader.renew
    )
    return wait.run(clock.sleep, memo="memo")


def by_sensor(
    service: Service, names: Sequence[str], policy: WaitPolicy, monkeypatch: pytest.MonkeyPatch
) -> WaitReport:
    clock = Clock()
    monkeypatch.setattr(sensor_task, "time", SimpleNamespace(time=clock.now, sleep=clock.sleep))
    reader = Reader(service, names, clock.now)
    hook: Any = SimpleNamespace(client=reader, close=reader.close, renew=reader.renew)
    arguments = SensorSetup(
        job_name=list(names),
        poll_interval=policy.poll_interval,
        timeout=policy.deadline - START,
        began=START,
        stays=True,
        forgets=False,
        skips=False,
        log=logging.getLogger("sensor"),
    )
    run = SensorRun(arguments, hook)
    while (report := run._driver.wait.report("memo")) is None:
        with suppress(AirflowException):  # what a report means for the task
            run.poll()
        # Airflow pokes at an interval of its own; here at the moments that the judge asks for.
        clock.sleep(run._driver.pause)
    return report


class Backend:
    """As much of a backend as waiting needs."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.seen: dict[str, BatchJob] = {}

    def get(self, name: str, *, brief: bool) -> BatchJob:
        if brief:
            self.seen[name] = self.reader.get(name, brief=True)
        return self.seen[name]


def by_client(service: Service, names: Sequence[str], policy: WaitPolicy) -> tuple[Reason, str]:
    """What ``BatchClient.wait`` makes of it: the reason, and the words that must be in the report."""
    clock = Clock()
    reader = Reader(service, names, clock.now)
    backend: Any = Backend(reader)
    transport: Any = SimpleNamespace(sleep=clock.sleep, close=reader.close)
    client = BatchClient(backend, transport, clock=clock.now)
    timeout = None if policy.deadline == inf else policy.deadline - START
    try:
        job = client.wait(names[0], poll_interval=policy.poll_interval, timeout=timeout, renew=reader.renew)
    except JobTimedOut as error:
        return Reason.DEADLINE, str(error).partition(": ")[2].removesuffix("; the job goes on")
    except NotFound as error:
        return Reason.GONE, str(error)
    except GeminiBatchError as error:
        return Reason.REFUSED, str(error)
    return Reason.ENDED, job.state.words


@dataclass(frozen=True)
class Case:
    """What happens, and how the wait is to end."""

    name: str
    jobs: dict[str, Sequence[tuple[float, Said]]]
    reason: Reason
    words: str
    policy: dict[str, Any] = field(default_factory=dict)
    rotated: float = inf
    refused: float = inf


def one(*script: tuple[float, Said]) -> dict[str, Sequence[tuple[float, Said]]]:
    return {"batches/a": script}


LATE = {"timeout": 400.0}
CASES = [
    Case("ends well", one((0, QUEUED), (100, RUNNING), (300, DONE)), Reason.ENDED, "batches/a has ended: succeeded"),
    Case("ends badly", one((0, RUNNING), (50, FAILED)), Reason.ENDED, "batches/a has ended: failed"),
    Case("has ended before", one((0, EXPIRED)), Reason.ENDED, "batches/a has ended: expired"),
    Case("ends at the deadline", one((0, RUNNING), (400, DONE)), Reason.ENDED, "has ended: succeeded", LATE),
    Case("deadline", one((0, RUNNING)), Reason.DEADLINE, "had not ended at the deadline; it was running", LATE),
    Case("unknown state", one((0, NAPPING)), Reason.DEADLINE, "deadline; it was UNKNOWN", LATE),
    Case("down for a while", one((0, DOWN), (90, RUNNING), (200, RESET), (350, DONE)), Reason.ENDED, "succeeded"),
    Case("down for good", one((0, RUNNING), (90, DOWN)), Reason.DEADLINE, "the last poll failed: down", LATE),
    Case("quota for good", one((0, RUNNING), (90, LATER)), Reason.DEADLINE, "last poll failed: much slower", LATE),
    Case("quota for a while", one((0, LATER), (150, RUNNING), (500, DONE)), Reason.ENDED, "succeeded"),
    Case("unreadable", one((0, PAGE), (500, DONE)), Reason.ENDED, "succeeded"),
    Case("setting", one((0, WRONG)), Reason.REFUSED, "Could not poll batches/a: no project"),
    Case("setting at the deadline", one((0, WRONG)), Reason.DEADLINE, "no project", {"timeout": 0.0}),
    Case("key refused", one((0, RUNNING), (50, DENIED)), Reason.REFUSED, "Could not poll batches/a: key refused"),
    Case("refused for once", one((0, RUNNING), (61, DENIED), (65, RUNNING), (99, DONE)), Reason.ENDED, "succeeded"),
    Case("key rotated", one((0, RUNNING), (300, DONE)), Reason.ENDED, "succeeded", {}, rotated=99, refused=99),
    Case("rotated late", one((0, RUNNING), (300, DONE)), Reason.REFUSED, "key refused", {}, rotated=150, refused=99),
    Case("refused at the deadline", one((0, RUNNING), (397, DENIED)), Reason.DEADLINE, "key refused", LATE),
    Case("refused since the start, late", one((0, DENIED)), Reason.DEADLINE, "key refused", {"timeout": 2.0}),
    Case("no permission", one((0, FORBIDDEN)), Reason.REFUSED, "not yours"),
    Case("unknown just after creation", one((0, MISSING), (100, RUNNING), (200, DONE)), Reason.ENDED, "succeeded"),
    Case("never known", one((0, MISSING)), Reason.GONE, "The service does not know batches/a: no such job"),
    Case("deleted", one((0, RUNNING), (90, MISSING)), Reason.GONE, "does not know batches/a"),
    Case("missing for once", one((0, RUNNING), (90, MISSING), (130, DONE)), Reason.ENDED, "succeeded"),
    Case("missing at the deadline", one((0, RUNNING), (345, MISSING)), Reason.DEADLINE, "no such job", LATE),
    Case("refused otherwise", one((0, REFUSAL)), Reason.REFUSED, "Could not poll batches/a: precondition"),
    Case("refused otherwise for once", one((0, REFUSAL), (50, DONE)), Reason.ENDED, "succeeded"),
    Case(
        "stuck in the queue",
        one((0, QUEUED)),
        Reason.QUEUE_TIMEOUT,
        "batches/a is still in the queue of the service after queue_timeout=100 s",
        {"queue_timeout": 100.0},
    ),
    Case(
        "no progress",
        one((0, QUEUED), (100, (RUNNING, 3))),
        Reason.PROGRESS_TIMEOUT,
        "batches/a has made no progress for progress_timeout=100 s",
        {"progress_timeout": 100.0},
    ),
    Case(
        "two end",
        {"batches/a": [(0, RUNNING), (100, DONE)], "batches/b": [(0, RUNNING), (500, FAILED)]},
        Reason.ENDED,
        "batches/a has ended: succeeded; batches/b has ended: failed",
    ),
    Case(
        "one ends and the other does not",
        {"batches/a": [(0, RUNNING), (100, DONE)], "batches/b": [(0, RUNNING)]},
        Reason.DEADLINE,
        "batches/b had not ended at the deadline; it was running",
        LATE,
    ),
    Case(
        "the first of two",
        {"batches/a": [(0, RUNNING)], "batches/b": [(0, RUNNING), (100, DONE)]},
        Reason.ENDED,
        "batches/b has ended: succeeded",
        {"until": "any"},
    ),
    Case(
        "one stuck and one refused, the stuck one first",
        {"batches/a": [(0, QUEUED)], "batches/b": [(0, WRONG)]},
        Reason.REFUSED,
        "Could not poll batches/b: no project",
        {"queue_timeout": 0.0},
    ),
    Case(
        "one refused and one stuck, the refused one first",
        {"batches/a": [(0, WRONG)], "batches/b": [(0, QUEUED)]},
        Reason.REFUSED,
        "Could not poll batches/a: no project",
        {"queue_timeout": 0.0},
    ),
    Case(
        "both refused",
        {"batches/a": [(0, FORBIDDEN)], "batches/b": [(0, FORBIDDEN)]},
        Reason.REFUSED,
        "Could not poll batches/a: not yours; Could not poll batches/b: not yours",
    ),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The poller does not wait for others to join, so that its questions come when the judge wants them."""
    monkeypatch.setattr(poller, "_GATHER", 0.0)
    monkeypatch.setattr(poller, "_GAP", 0.0)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_all_drivers_give_the_same_report(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    given_policy = dict(case.policy)
    policy = WaitPolicy(START + given_policy.pop("timeout", inf), poll_interval=10.0, **given_policy)
    names = list(case.jobs)

    def service() -> Service:
        return Service(case.jobs, rotated=case.rotated, refused=case.refused)

    report = by_worker(service(), names, policy)
    assert (report.reason, report.memo) == (case.reason, "memo")
    assert case.words in report.message
    assert by_poller(service(), names, policy) == report
    if set(given_policy) <= {"timeout"}:  # a sensor has no other time-outs, and waits for all
        assert by_sensor(service(), names, policy, monkeypatch) == report
    if len(names) == 1 and not given_policy:
        reason, words = by_client(service(), names, policy)
        assert reason is report.reason
        assert words in report.message


said = st.sampled_from([
    QUEUED, RUNNING, NAPPING, (RUNNING, 1), (RUNNING, 2), DONE, FAILED,
    DENIED, FORBIDDEN, MISSING, REFUSAL, BUSY, LATER, DOWN, RESET, PAGE, WRONG,
])  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    sequence=st.lists(said, min_size=1, max_size=12),
    timeout=st.sampled_from([0.0, 7.0, 45.0, 130.0, 1000.0, 5_000.0]),
    interval=st.sampled_from([5.0, 10.0, 60.0]),
)
@example(sequence=[RUNNING, DENIED, DENIED], timeout=45.0, interval=10.0)
@example(sequence=[MISSING, DENIED, MISSING, REFUSAL, MISSING], timeout=1000.0, interval=60.0)
def test_any_sequence_of_answers_leads_to_the_same_report(
    sequence: list[Said], timeout: float, interval: float
) -> None:
    policy = WaitPolicy(START + timeout, poll_interval=interval)
    names = ["batches/a"]
    report = by_worker(Service(sequence=sequence), names, policy)
    assert by_poller(Service(sequence=sequence), names, policy) == report
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert by_sensor(Service(sequence=sequence), names, policy, monkeypatch) == report
    reason, words = by_client(Service(sequence=sequence), names, policy)
    assert reason is report.reason
    assert words in report.message


def test_a_wait_that_was_broken_off_counts_the_time_until_it_goes_on() -> None:
    clock, asked = Clock(), []
    reader = Reader(Service({"batches/a": [(0.0, RUNNING), (60.0, DONE)]}), ["batches/a"], clock.now)

    def get(name: str) -> BatchJob:
        asked.append(clock.time - START)
        return reader.get(name, brief=True)

    wait = BlockingWait(JobWait(["batches/a"], WaitPolicy(inf, 60.0)), get, now=clock.now)
    assert wait.run(clock.sleep, breaks_at=START).reason is Reason.TURN
    clock.sleep(58.0)
    assert wait.run(clock.sleep).reason is Reason.ENDED
    assert asked == [0.0, 58.0, 118.0]
