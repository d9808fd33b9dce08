"""What a running trigger does: wait with the shared watcher, tell of progress, see to the jobs of a killed task.

Loaded when the first trigger of a process runs, never where Dag files are parsed. The client with all that it needs is
loaded later still, in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, NotFound
from airflow_provider_gemini_batch.polling.job_wait import WORTH_TELLING, Following
from airflow_provider_gemini_batch.polling.lease import Hold
from airflow_provider_gemini_batch.polling.policy import Watch
from airflow_provider_gemini_batch.polling.progress import Progress
from airflow_provider_gemini_batch.polling.report import Reason, WatchReport, to_event
from airflow_provider_gemini_batch.runtime.client import aget_client_connection, client_from_connection

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_gemini_batch.polling.job_wait import Ending
    from airflow_provider_gemini_batch.polling.poller import PollClient
    from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

_PROGRESS: Final = "progress"
# An XCom costs the triggerer's supervisor a call to the database, which it does one after the other for all triggers.
_XCOM_SECONDS: Final = 60.0
_XCOM_GAP: Final = 0.25
_XCOM_PATIENCE: Final = 10.0
# The first question after a start can take 9 s; all of on_kill gets 30 s.
_STATE_PATIENCE: Final = 20.0
_CANCEL_PATIENCE: Final = 9.0
_CANCEL_TRIES: Final = 3
_ENDED_BY_A_PERSON: Final = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})


class _Access:
    """A connection that has been looked up, without a repr that could show it."""

    __slots__ = ("_conn", "_location", "_project_id", "print")

    def __init__(self, conn: Connection, location: str | None, project_id: str | None) -> None:
        self._conn = conn
        self._location = location
        self._project_id = project_id
        # Its attributes one by one: get_uri() would have Airflow mask secrets, synchronously, in the event loop.
        fields = ("conn_type", "host", "schema", "login", "password", "port", "extra")
        values = json.dumps([str(getattr(conn, field, None)) for field in fields])
        self.print = hashlib.sha256(values.encode()).hexdigest()

    def client(self) -> PollClient:
        """Make a client that sends each call once: the watcher itself knows when to look again."""
        return client_from_connection(self._conn, location=self._location, project_id=self._project_id, attempts=1)


class XComGate:
    """Lets progress through only now and then, for all triggers of the process together."""

    free_at = 0.0

    @classmethod
    def passes(cls, now: float) -> bool:
        """Whether one may push now; the next one not before a moment later."""
        if now < cls.free_at:
            return False
        cls.free_at = now + _XCOM_GAP
        return True


def _hold(trigger: GeminiBatchJobTrigger) -> Hold:
    """Take a share in the watcher of the trigger's connection."""
    conn_id, location, project_id = trigger.gemini_conn_id, trigger.location, trigger.project_id

    async def connect() -> _Access:
        return _Access(await aget_client_connection(conn_id), location, project_id)

    return Hold((conn_id, location, project_id), connect)


async def wait(trigger: GeminiBatchJobTrigger) -> dict[str, Any]:
    """Wait until the trigger's wait is over; returns its event."""
    if trigger.until == "time":
        await _sleep(trigger)
        return to_event(WatchReport(Reason.WAKE, memo=trigger.memo))
    watch = Watch(
        deadline=inf if trigger.end_time is None else trigger.end_time,
        poll_interval=trigger.poll_interval,
        queue_timeout=trigger.queue_timeout,
        progress_timeout=trigger.progress_timeout,
    )
    following = Following(trigger.job_names, watch)
    hold = _hold(trigger)
    try:
        hold.watcher.join(following)
        ending = await _until_over(trigger, following, hold)
    finally:
        hold.watcher.leave(following)
        hold.release()
    jobs = tuple(entry.as_job() for entry in following.entries)
    return to_event(WatchReport(ending.reason, jobs, ending.message, trigger.memo, following.stalled))


async def _sleep(trigger: GeminiBatchJobTrigger) -> None:
    """Sleep until the trigger's end time, which is on the wall clock."""
    await asyncio.sleep(max(0.0, (trigger.end_time or 0.0) - time.time()))


async def _until_over(trigger: GeminiBatchJobTrigger, following: Following, hold: Hold) -> Ending:
    progress = Progress()
    push_at = 0.0
    told = ""
    while True:
        await following.news()
        ending = following.ending(trigger.until)
        if ending is not None:
            return ending
        trouble = _trouble(following) or hold.watcher.trouble
        if trouble and not told:
            trigger.log.warning("Waiting goes on although %s", trouble)
        told = trouble
        news = progress.news(following.seen, time.monotonic())
        if news is None:
            continue
        line, numbers = news
        trigger.log.info("%s", line)
        now = time.monotonic()
        if now >= push_at and XComGate.passes(now):
            push_at = now + _XCOM_SECONDS if await _push(trigger, numbers) else inf


def _trouble(following: Following) -> str:
    failing = [entry for entry in following.entries if entry.trouble and entry.trouble.failures >= WORTH_TELLING]
    return f"{failing[0].name} could not be looked at {WORTH_TELLING} times in a row" if failing else ""


async def _push(trigger: GeminiBatchJobTrigger, numbers: dict[str, Any]) -> bool:
    """Push the progress XCom; False where that cannot be done, so that it is not tried again."""
    ti = trigger.task_instance
    if ti is None:
        return False
    try:
        from airflow.sdk.execution_time import task_runner  # its SUPERVISOR_COMMS is set while the triggerer runs
        from airflow.sdk.execution_time.comms import SetXCom
        from airflow.sdk.execution_time.xcom import XCom

        map_index = -1 if ti.map_index is None else ti.map_index
        place: dict[str, Any] = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id}
        # What XCom.aset does, which Airflow 3.2 has not got.
        value = XCom.serialize_value(numbers, key=_PROGRESS, map_index=map_index, **place)
        message = SetXCom(key=_PROGRESS, value=value, map_index=map_index, **place)
        await asyncio.wait_for(task_runner.SUPERVISOR_COMMS.asend(message), _XCOM_PATIENCE)
    except Exception as error:  # noqa: BLE001  progress is a courtesy: no failure of it may end a wait
        trigger.log.debug("Progress could not be pushed: %s", type(error).__name__)
        return False
    return True


async def see_to_jobs(trigger: GeminiBatchJobTrigger) -> None:
    """Cancel the jobs of a killed trigger if a person has ended the task; leave them in every other case.

    Airflow kills a trigger as well when another triggerer has taken it over, and when the task is cleared: then the
    jobs are still wanted. What tells these apart is the task's own state, so it is asked for first.
    """
    hold = _hold(trigger)
    try:
        hold.watcher.prepare()
        state = await _task_state(trigger)
        if state in _ENDED_BY_A_PERSON:
            await asyncio.gather(*(_cancel(trigger, hold, name) for name in trigger.job_names))
        else:
            names = ", ".join(trigger.job_names)
            trigger.log.info("Left running, since the task is %s: %s", state or "in an unknown state", names)
    finally:
        hold.release()


async def _task_state(trigger: GeminiBatchJobTrigger) -> str | None:
    """Ask Airflow for the state of the task that a trigger belongs to; None when it does not say."""
    ti = trigger.task_instance
    if ti is None:
        return None
    try:
        from airflow.sdk.execution_time import task_runner  # its SUPERVISOR_COMMS is set while the triggerer runs
        from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

        question = GetTaskStates(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
        answer = await asyncio.wait_for(task_runner.SUPERVISOR_COMMS.asend(question), _STATE_PATIENCE)
        states = answer.task_states.get(ti.run_id, {}) if isinstance(answer, TaskStatesResult) else {}
    except Exception as error:  # noqa: BLE001  not knowing means leaving the jobs alone
        trigger.log.warning("The task's state could not be asked for: %s", type(error).__name__)
        return None
    state = next(iter(states.values()), None) if len(states) == 1 else None
    return None if state is None else str(getattr(state, "value", state))


async def _cancel(trigger: GeminiBatchJobTrigger, hold: Hold, name: str) -> None:
    try:
        running = await asyncio.wait_for(hold.watcher.call(lambda client: _cancelled(client, name)), _CANCEL_PATIENCE)
    except (GeminiBatchError, asyncio.TimeoutError) as error:
        trigger.log.warning("%s could not be cancelled: %s", name, str(error) or "no answer in time")
    else:
        trigger.log.info("Cancelled %s, since the task was ended" if running else "%s had ended already", name)


def _cancelled(client: PollClient, name: str, tries: int = _CANCEL_TRIES) -> bool:
    """Cancel a job, in a thread; False for one that has ended or is gone."""
    if _has_ended(client, name):
        return False
    try:
        client.cancel(name)
    except NotFound:
        return False
    except GeminiBatchError as error:
        if tries <= 1 or not error.retryable:
            raise
        time.sleep(0.5)
        return _cancelled(client, name, tries - 1)
    return True


def _has_ended(client: PollClient, name: str) -> bool:
    """Look first: a triggerer that lost the trigger to another is told to kill it when the task has long succeeded."""
    try:
        return client.get(name, brief=True).is_done
    except GeminiBatchError:
        return False
