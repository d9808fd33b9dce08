"""The trigger against the emulator: one event, told progress, and a careful hand when a task is killed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from airflow.sdk import Connection
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, GetXCom, SetXCom, TaskStatesResult, XComResult
from polling.fake_service import own_threads
from runtime.tasks import made
from waiting import wait_for

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.overview import read_progress
from airflow_provider_gemini_batch.polling import lease, poller
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.progress import WaitLog
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, from_event
from airflow_provider_gemini_batch.runtime import trigger_task
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

QUICK = 0.05


class Supervisor:
    """Stands where Airflow's supervisor answers the triggerer."""

    def __init__(self, state: str = "deferred") -> None:
        self.state = state
        self.pushed: list[SetXCom] = []
        self.asked: list[GetTaskStates] = []
        self.silent = False
        self.seconds = 0.0
        self.was_kept_waiting = False
        self.speaks: asyncio.Event | None = None
        self.kept: Any = None

    async def asend(self, message: Any) -> Any:
        if not isinstance(message, (SetXCom, GetXCom, GetTaskStates)):
            return None  # asks for secrets to be masked
        if self.silent:
            self.was_kept_waiting = True
            await asyncio.Event().wait()
        if self.speaks is not None:
            self.was_kept_waiting = True
            await self.speaks.wait()
        await asyncio.sleep(self.seconds)
        if isinstance(message, SetXCom):
            self.pushed.append(message)
            return None
        if isinstance(message, GetXCom):
            return XComResult(key=message.key, value=self.kept)
        self.asked.append(message)
        return TaskStatesResult(task_states={"run": {"t": self.state}})


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr(trigger_task.XComGate, "free_at", 0.0)
    return supervisor


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not lease._pollers
    wait_for(lambda: not own_threads(), "the end of our threads")


def _polls(emulator: Emulator) -> int:
    """How often the jobs have been asked for."""
    requests = emulator.control.books()["requests"]
    return int(requests.get("list", 0) + requests.get("get", 0))


def trigger(job_name: str | list[str], **arguments: Any) -> GeminiBatchJobTrigger:
    made = GeminiBatchJobTrigger(job_name, "c", **{"poll_interval": QUICK, **arguments})
    task_instance: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="run", map_index=-1)
    made.task_instance = task_instance
    return made


async def fired(trigger: GeminiBatchJobTrigger) -> WaitReport:
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    assert json.loads(json.dumps(events[0].payload)) == events[0].payload
    return from_event(events[0].payload)


def run(trigger: GeminiBatchJobTrigger) -> WaitReport:
    return asyncio.run(asyncio.wait_for(fired(trigger), 30.0))


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread; the block ends when both are done, and fails if either did."""
    with ThreadPoolExecutor(1) as other:
        done = other.submit(act)
        yield
    done.result()


def while_it_ends(emulator: Emulator, trigger: GeminiBatchJobTrigger) -> WaitReport:
    """Run a trigger whose jobs end after it has polled them."""

    def end() -> None:
        wait_for(lambda: _polls(emulator), "a poll")
        emulator.control.advance(3600.0)

    with meanwhile(end):
        return run(trigger)


async def stopped(emulator: Emulator, trigger: GeminiBatchJobTrigger, *, is_kill: bool = True) -> None:
    """Do what the triggerer does when somebody acts on the task, or another triggerer has taken over; or it stops."""
    task = asyncio.create_task(fired(trigger))
    await asyncio.to_thread(wait_for, lambda: _polls(emulator), "a poll")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if is_kill:
        await trigger.on_kill()
    await trigger.cleanup()


def test_the_log_of_a_wait_is_written_outside_the_event_loop(client: BatchClient, emulator: Emulator) -> None:
    lines: list[tuple[str, bool]] = []

    def write(_: Any, level: str, event: MutableMapping[str, Any]) -> str:  # noqa: ARG001
        in_loop = threading.current_thread() is threading.main_thread()
        lines.append((str(event["event"]), in_loop))
        raise structlog.DropEvent

    waiting: Any = trigger(made(client))
    waiting._log = structlog.wrap_logger(
        None, processors=[write], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
    )
    while_it_ends(emulator, waiting)
    assert any("succeeded" in line for line, _ in lines)
    assert not any(in_loop for _, in_loop in lines)


def test_the_event_says_how_the_job_ended(client: BatchClient, emulator: Emulator) -> None:
    name = made(client)
    emulator.control.advance(3600.0)
    report = run(trigger(name, memo="m"))
    assert report.reason is Reason.ENDED
    assert report.memo == "m"
    assert [(job.name, job.state) for job in report.jobs] == [(name, JobState.SUCCEEDED)]
    assert report.jobs[0].completion_stats is not None
    assert report.jobs[0].completion_stats.success == 2


def test_a_job_that_ends_while_it_is_watched_is_noticed(client: BatchClient, emulator: Emulator) -> None:
    assert while_it_ends(emulator, trigger(made(client))).reason is Reason.ENDED


def test_two_jobs_are_waited_for_together(client: BatchClient, emulator: Emulator) -> None:
    names = [made(client), made(client)]
    emulator.control.advance(3600.0)
    report = run(trigger(names))
    assert [job.name for job in report.jobs] == names
    assert {job.state for job in report.jobs} == {JobState.SUCCEEDED}


def test_the_deadline_is_a_moment_and_not_a_span(client: BatchClient) -> None:
    report = run(trigger(made(client), end_time=time.time() - 5.0))
    assert report.reason is Reason.DEADLINE
    assert report.jobs[0].state is JobState.PENDING


def test_a_refused_key_ends_the_wait_and_says_so(
    client: BatchClient, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = made(client)
    wrong = {**json.loads(emulator.connection()), "password": "bad-AIza"}
    monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(wrong))
    report = run(trigger(name))
    assert report.reason is Reason.REFUSED
    assert "AIza" not in report.message


def test_a_connection_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "_BAD_CONNECTION_PATIENCE", 0.1)
    monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps({"conn_type": "gemini_batch"}))
    report = run(trigger("batches/x"))
    assert report.reason is Reason.REFUSED
    assert "'c'" in report.message


def test_masks_that_the_service_refuses_are_left_out_and_the_call_is_repeated(
    client: BatchClient, emulator: Emulator
) -> None:
    name = made(client)
    emulator.control.advance(3600.0)
    emulator.control.faults(refuse_fields=True)
    assert run(trigger(name)).reason is Reason.ENDED


def test_a_trigger_survives_serialisation() -> None:
    given: dict[str, Any] = {
        "job_name": ["batches/a", "batches/b"],
        "gemini_conn_id": "c",
        "poll_interval": 12.5,
        "end_time": 1e9,
        "cancel_on_kill": True,
        "location": "europe-west4",
        "project_id": "p",
        "queue_timeout": 1.0,
        "progress_timeout": 2.0,
        "until": "any",
        "memo": "memo",
        "turn": None,
        "input_tokens": 9,
    }
    path, arguments = GeminiBatchJobTrigger(**given).serialize()
    assert path == "airflow_provider_gemini_batch.triggers.GeminiBatchJobTrigger"
    assert arguments == given
    again = GeminiBatchJobTrigger(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, given)


def test_spans_of_time_are_kept_as_seconds() -> None:
    span = timedelta(minutes=2)
    made = GeminiBatchJobTrigger("b", "c", span, queue_timeout=span, progress_timeout=span)
    arguments = made.serialize()[1]
    assert [arguments[name] for name in ("poll_interval", "queue_timeout", "progress_timeout")] == [120.0] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"job_name": ""}, "needs at least one job_name"),
        ({"job_name": []}, "needs at least one job_name"),
        ({"job_name": {"job_name": "b"}}, "job_name must be"),
        ({"job_name": ["b", {"job_name": "b"}]}, "job_name must be"),
        ({"poll_interval": 0}, "poll_interval must be above 0"),
        ({"poll_interval": float("nan")}, "poll_interval must be"),
        ({"queue_timeout": "soon"}, "queue_timeout must be"),
        ({"until": "some"}, "until must be 'all', 'any' or 'time', not 'some'"),
        ({"until": "time"}, "until='time' needs an end_time"),
        ({"end_time": "2026-12-01T10:00:00+00:00"}, "end_time must be seconds since the epoch"),
        ({"end_time": datetime(2026, 12, 1, tzinfo=timezone.utc)}, "end_time must be seconds since the epoch"),
        ({"end_time": float("nan")}, "end_time must be seconds since the epoch"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_the_task_is_deferred(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        GeminiBatchJobTrigger(**{"job_name": "b", **arguments})


def test_a_run_of_a_dag_without_airflow_around_it_has_no_task_instance_and_works(
    client: BatchClient, emulator: Emulator
) -> None:
    name = made(client)
    emulator.control.advance(3600.0)
    bare = GeminiBatchJobTrigger(name, "c", QUICK, cancel_on_kill=True)
    assert run(bare).reason is Reason.ENDED
    asyncio.run(bare.on_kill())
    assert client.get(name).state is JobState.SUCCEEDED


# -- progress ----------------------------------------------------------------------------------------------------------


def test_progress_is_pushed_once_a_minute_at_most_as_a_line_and_as_numbers(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    name = made(client)
    supervisor.kept = {"samples": [[1_000, 0, 0], [2_000, 1, 0]], "started_at": 900.0}

    def move() -> None:
        wait_for(lambda: len(supervisor.pushed) == 2, "progress")
        for seconds in (1.5, 0.1, 0.1):
            polls = _polls(emulator)
            emulator.control.advance(seconds)
            wait_for(lambda: _polls(emulator) > polls, "a poll")  # noqa: B023  called before the next turn
        # A poll that is under way may see this end already, and be the last.
        emulator.control.advance(3600.0)

    with meanwhile(move):
        run(trigger(name, memo="m"))
    line, numbers = supervisor.pushed
    assert (line.key, numbers.key) == ("progress", "gemini_batch_progress")
    assert line.task_id == numbers.task_id == "t"
    assert line.value == "pending: 0 of 2 rows done"
    value: Any = numbers.value
    assert json.loads(json.dumps(value)) == value
    assert read_progress(value).started_at == 900.0
    assert [sample.at for sample in read_progress(value).samples][:2] == [1000.0, 2000.0], "an earlier process's"


def test_a_supervisor_that_does_not_answer_holds_nothing_up(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger_task, "_XCOM_PATIENCE", 0.1)
    supervisor.silent = True
    name = made(client)
    assert while_it_ends(emulator, trigger(name)).reason is Reason.ENDED
    assert supervisor.was_kept_waiting


def test_a_slow_supervisor_bounds_a_whole_push_and_a_repeated_one_takes_over_the_samples_once(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger_task, "_XCOM_PATIENCE", 0.5)
    supervisor.kept = {"samples": [[1_000, 0, 0]]}
    supervisor.seconds = 0.3
    words = WaitLog(JobWait(("batches/b",), WaitPolicy(inf, 60.0)))
    task = trigger("batches/b", memo="m")._task()

    async def play() -> None:
        for _ in range(2):
            assert not await task._push(words, 1.0, is_first=True)

    asyncio.run(play())
    assert words._all_samples() == [(1_000, 0, 0)]


@pytest.mark.parametrize("fails_first", [False, True])
def test_what_could_not_be_pushed_at_once_is_pushed_later_even_if_nothing_else_happens(
    client: BatchClient,
    emulator: Emulator,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fails_first: bool,
) -> None:
    for name, value in (("_XCOM_PATIENCE", 0.1), ("_XCOM_REST", 0.5), ("_XCOM_SECONDS", 1.0)):
        monkeypatch.setattr(trigger_task, name, value)
    supervisor.silent = fails_first
    emulator.control.faults(hold_running=True)
    job_name = made(client)

    def states() -> list[Any]:
        return [each.value["state"] for each in supervisor.pushed if isinstance(each.value, dict)]

    def move() -> None:
        wait_for(lambda: supervisor.was_kept_waiting if fails_first else states(), "the first push")
        supervisor.silent = False
        emulator.control.advance(300.0)
        wait_for(lambda: "RUNNING" in states(), "the push of what was seen since")
        emulator.control.clear_faults()
        emulator.control.advance(3600.0)

    with meanwhile(move):
        assert run(trigger(job_name)).reason is Reason.ENDED


def test_all_triggers_of_a_process_share_the_right_to_push() -> None:
    gate = trigger_task.XComGate
    gate.free_at = 0.0
    assert gate.passes(100.0)
    assert not gate.passes(100.1)
    assert gate.passes(101.0)


# -- killing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_task_that_a_person_ended_takes_its_job_with_it(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor, state: str
) -> None:
    name = made(client)
    supervisor.state = state
    asyncio.run(stopped(emulator, trigger(name, cancel_on_kill=True)))
    assert client.get(name).state in (JobState.CANCELLED, JobState.CANCELLING)
    assert supervisor.asked[0].task_ids == ["t"]
    assert supervisor.asked[0].run_ids == ["run"]


def test_a_job_is_cancelled_though_airflow_cancels_the_trigger_again_and_again_meanwhile(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    name = made(client)
    supervisor.state = "failed"

    async def play() -> None:
        supervisor.speaks = asyncio.Event()
        killing = asyncio.create_task(asyncio.wait_for(trigger(name, cancel_on_kill=True).on_kill(), 30.0))
        await asyncio.to_thread(wait_for, lambda: supervisor.was_kept_waiting, "the question for the task's state")
        for _ in range(3):
            killing.cancel("user-action")
            await asyncio.sleep(0)
        supervisor.speaks.set()
        await asyncio.gather(killing, return_exceptions=True)
        requests = emulator.control.books
        await asyncio.to_thread(wait_for, lambda: requests()["requests"].get("cancel"), "the cancellation")

    asyncio.run(play())
    assert client.get(name).state in (JobState.CANCELLED, JobState.CANCELLING)


@pytest.mark.parametrize("state", ["deferred", "queued", "scheduled", "running", "restarting", "up_for_retry"])
def test_a_cleared_task_or_one_taken_over_leaves_its_job_running(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor, state: str
) -> None:
    name = made(client)
    supervisor.state = state
    asyncio.run(stopped(emulator, trigger(name, cancel_on_kill=True)))
    assert client.get(name).state is JobState.PENDING


def test_a_trigger_that_was_lost_to_another_does_not_cancel_what_has_ended(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    name = made(client)
    emulator.control.set_job(name, state="SUCCEEDED")
    supervisor.state = "success"
    asyncio.run(stopped(emulator, trigger(name, cancel_on_kill=True)))
    assert not emulator.control.books()["requests"].get("cancel")


def test_a_state_that_cannot_be_read_leaves_the_job_running(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger_task, "_STATE_PATIENCE", 0.1)
    name = made(client)
    supervisor.silent = True
    asyncio.run(stopped(emulator, trigger(name, cancel_on_kill=True)))
    assert client.get(name).state is JobState.PENDING


def test_only_those_who_made_the_jobs_cancel_them(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    name = made(client)
    supervisor.state = "failed"
    asyncio.run(stopped(emulator, trigger(name)))
    assert client.get(name).state is JobState.PENDING
    assert not supervisor.asked
    assert not emulator.control.books()["requests"].get("cancel")


def test_a_stop_of_the_triggerer_cancels_nothing(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    name = made(client)
    supervisor.state = "failed"
    asyncio.run(stopped(emulator, trigger(name, cancel_on_kill=True), is_kill=False))
    assert client.get(name).state is JobState.PENDING


def test_all_jobs_of_a_killed_task_are_cancelled_also_when_a_call_fails_at_first(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    names = [made(client), made(client), made(client)]
    supervisor.state = "failed"
    emulator.control.faults(http={"operation": "cancel", "status": 503, "times": 1})
    asyncio.run(stopped(emulator, trigger(names, cancel_on_kill=True)))
    assert all(client.get(name).state in (JobState.CANCELLED, JobState.CANCELLING) for name in names)


def test_a_cancel_that_is_refused_is_not_repeated(
    client: BatchClient, emulator: Emulator, supervisor: Supervisor
) -> None:
    supervisor.state = "failed"
    emulator.control.faults(http={"operation": "cancel", "status": 403})
    asyncio.run(stopped(emulator, trigger(made(client), cancel_on_kill=True)))
    assert emulator.control.books()["requests"]["cancel"] == 1


class OwnTrigger(GeminiBatchJobTrigger):
    """A trigger of an author, who passes on what there is."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)


def test_an_authors_subclass_is_serialised_with_the_arguments_of_its_base() -> None:
    path, arguments = OwnTrigger(job_name="batches/1", poll_interval=5.0).serialize()
    assert path.endswith("test_trigger.OwnTrigger")
    assert OwnTrigger(**arguments).serialize() == (path, arguments)
    assert (arguments["job_name"], arguments["poll_interval"], arguments["memo"]) == ("batches/1", 5.0, "")


def test_hardly_any_garbage_is_collected_while_the_client_is_imported_and_made() -> None:
    collections: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        collections.append(phase)

    connection = Connection(conn_id="c", conn_type="gemini_batch", host="http://127.0.0.1:1", password="k")
    looked_up = trigger_task._PollConnection(connection, None, None)
    before = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1, 1, 1)
    try:
        collections.clear()
        client = looked_up.client()
        in_all = len(collections)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    client.close()
    assert gc.isenabled()
    assert in_all <= 10  # before the block and behind it; hundreds within
