"""The trigger that watches jobs in the triggerer, all of one connection together.

It only looks: jobs are created by workers, and cancelled from here only when a person ended the task. What it imports
costs a Dag file nothing; the client is loaded when the first trigger runs, in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, NotFound
from airflow_provider_gemini_batch.hooks import DEFAULT_CONN_ID, aget_client_connection, client_from_connection
from airflow_provider_gemini_batch.lifecycle.events import WatchReport, to_event
from airflow_provider_gemini_batch.lifecycle.following import WORTH_TELLING, Following
from airflow_provider_gemini_batch.lifecycle.progress import Progress
from airflow_provider_gemini_batch.lifecycle.waiting import Watch
from airflow_provider_gemini_batch.lifecycle.watcher import Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.sdk import Connection

    from airflow_provider_gemini_batch.lifecycle.following import Ending
    from airflow_provider_gemini_batch.lifecycle.watcher import WatchClient

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

    def client(self) -> WatchClient:
        """Make a client that sends each call once: the watcher itself knows when to look again."""
        return client_from_connection(self._conn, location=self._location, project_id=self._project_id, attempts=1)


class _XComGate:
    """Lets progress through only now and then, for all triggers of the process together."""

    free_at = 0.0

    @classmethod
    def passes(cls, now: float) -> bool:
        """Whether one may push now; the next one not before a moment later."""
        if now < cls.free_at:
            return False
        cls.free_at = now + _XCOM_GAP
        return True


class GeminiBatchJobTrigger(BaseTrigger):
    """Wait for one batch job, or several, and fire one event.

    The event is what :func:`~airflow_provider_gemini_batch.lifecycle.events.from_event` reads: why the wait is over
    (ended, deadline, queue or progress time-out, refused, gone), and each job's state, counts and error.

    :param job_name: the job, or a list of jobs, as the service names them.
    :param gemini_conn_id: connection of type Gemini Batch or Google Cloud.
    :param poll_interval: seconds between two looks; young jobs are looked at more often, old ones less.
    :param end_time: deadline, in seconds since the epoch, so that it survives a restart of the triggerer; None: none.
    :param cancel_on_kill: cancel the jobs when a person ends the waiting task (Airflow 3.3). Only the task that made
        the jobs should ask for that.
    :param location: Vertex location, overrides the connection's.
    :param project_id: Google Cloud project, overrides the connection's.
    :param queue_timeout: end the wait when a job has sat in the service's queue for so many seconds.
    :param progress_timeout: end the wait when a running job's counts have not changed for so many seconds, as seen by
        one triggerer: a restart counts anew.
    :param until: ``all`` jobs, or ``any`` for the first that ends.
    :param memo: a short text that comes back in the event, unread.
    """

    def __init__(
        self,
        job_name: str | list[str],
        gemini_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float = 60.0,
        end_time: float | None = None,
        *,
        cancel_on_kill: bool = False,
        location: str | None = None,
        project_id: str | None = None,
        queue_timeout: float | None = None,
        progress_timeout: float | None = None,
        until: str = "all",
        memo: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not job_name:
            raise ConfigurationError("A trigger needs at least one job_name")
        if poll_interval <= 0:
            raise ConfigurationError(f"poll_interval must be above 0 seconds, not {poll_interval:g}")
        if until not in ("all", "any"):
            raise ConfigurationError(f"until must be 'all' or 'any', not {until!r}")
        self.job_name = job_name
        self.gemini_conn_id = gemini_conn_id
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.cancel_on_kill = cancel_on_kill
        self.location = location
        self.project_id = project_id
        self.queue_timeout = queue_timeout
        self.progress_timeout = progress_timeout
        self.until = until
        self.memo = memo

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments: names and numbers only, no credential and nothing of the rows."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_name": self.job_name,
                "gemini_conn_id": self.gemini_conn_id,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "cancel_on_kill": self.cancel_on_kill,
                "location": self.location,
                "project_id": self.project_id,
                "queue_timeout": self.queue_timeout,
                "progress_timeout": self.progress_timeout,
                "until": self.until,
                "memo": self.memo,
            },
        )

    @property
    def job_names(self) -> Sequence[str]:
        """The jobs, as a sequence also if it is one."""
        return (self.job_name,) if isinstance(self.job_name, str) else self.job_name

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, telling of progress, and yield the one event."""
        hold = self._hold()
        following = Following(self.job_names, self._watch())
        try:
            hold.watcher.join(following)
            ending = await self._until_over(following, hold)
        finally:
            hold.watcher.leave(following)
            hold.release()
        jobs = tuple(entry.as_job() for entry in following.entries)
        event = to_event(WatchReport(ending.reason, jobs, ending.message, self.memo))
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the jobs if a person has ended the task; leave them in every other case.

        Airflow calls this as well when another triggerer has taken the trigger over, and when the task is cleared: then
        the jobs are still wanted. What tells these apart is the task's own state, so it is asked for first.
        """
        if not self.cancel_on_kill:
            return
        hold = self._hold()
        try:
            hold.watcher.prepare()
            state = await self._own_state()
            if state in _ENDED_BY_A_PERSON:
                await asyncio.gather(*(self._cancel(hold, name) for name in self.job_names))
            else:
                self.log.info("Left running, since the task is %s: %s", state or "unknown", ", ".join(self.job_names))
        finally:
            hold.release()

    def _hold(self) -> Hold:
        conn_id, location, project_id = self.gemini_conn_id, self.location, self.project_id

        async def connect() -> _Access:
            return _Access(await aget_client_connection(conn_id), location, project_id)

        return Hold((conn_id, location, project_id), connect)

    def _watch(self) -> Watch:
        return Watch(
            deadline=inf if self.end_time is None else self.end_time,
            poll_interval=self.poll_interval,
            queue_timeout=self.queue_timeout,
            progress_timeout=self.progress_timeout,
        )

    async def _until_over(self, following: Following, hold: Hold) -> Ending:
        progress = Progress()
        push_at = 0.0
        told = ""
        while True:
            await following.news()
            ending = following.ending(self.until)
            if ending is not None:
                return ending
            trouble = _trouble(following) or hold.watcher.trouble
            if trouble and not told:
                self.log.warning("Waiting goes on although %s", trouble)
            told = trouble
            news = progress.news(following.seen, time.monotonic())
            if news is None:
                continue
            line, numbers = news
            self.log.info("%s", line)
            now = time.monotonic()
            if now >= push_at and _XComGate.passes(now):
                push_at = now + _XCOM_SECONDS if await self._push(numbers) else inf

    async def _push(self, numbers: dict[str, Any]) -> bool:
        """Push the progress XCom; False where that cannot be done, so that it is not tried again."""
        ti = self.task_instance
        if ti is None:
            return False
        try:
            from airflow.sdk.execution_time.xcom import XCom  # not loaded where Dag files are parsed

            push = XCom.aset(
                "progress",
                numbers,
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=-1 if ti.map_index is None else ti.map_index,
            )
            await asyncio.wait_for(push, _XCOM_PATIENCE)
        except Exception as error:  # noqa: BLE001  progress is a courtesy: no failure of it may end a wait
            self.log.debug("Progress could not be pushed: %s", type(error).__name__)
            return False
        return True

    async def _own_state(self) -> str | None:
        """Ask Airflow for the state of the task that this trigger belongs to; None when it does not say."""
        ti = self.task_instance
        if ti is None:
            return None
        try:
            from airflow.sdk.execution_time import task_runner  # only the triggerer has these
            from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

            question = GetTaskStates(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
            )
            answer = await asyncio.wait_for(task_runner.SUPERVISOR_COMMS.asend(question), _STATE_PATIENCE)
            states = answer.task_states.get(ti.run_id, {}) if isinstance(answer, TaskStatesResult) else {}
        except Exception as error:  # noqa: BLE001  not knowing means leaving the jobs alone
            self.log.warning("The task's state could not be asked for: %s", type(error).__name__)
            return None
        state = next(iter(states.values()), None) if len(states) == 1 else None
        return None if state is None else str(getattr(state, "value", state))

    async def _cancel(self, hold: Hold, name: str) -> None:
        try:
            await asyncio.wait_for(hold.watcher.call(lambda client: _cancelled(client, name)), _CANCEL_PATIENCE)
        except (GeminiBatchError, asyncio.TimeoutError) as error:
            self.log.warning("%s could not be cancelled: %s", name, str(error) or "no answer in time")
        else:
            self.log.info("Cancelled %s, since the task was ended", name)


def _cancelled(client: WatchClient, name: str, tries: int = _CANCEL_TRIES) -> None:
    """Cancel a job, in a thread; one that is gone needs no cancelling."""
    try:
        client.cancel(name)
    except NotFound:
        return
    except GeminiBatchError as error:
        if tries <= 1 or not error.retryable:
            raise
        time.sleep(0.5)
        _cancelled(client, name, tries - 1)


def _trouble(following: Following) -> str:
    failing = [entry for entry in following.entries if entry.trouble and entry.trouble.failures >= WORTH_TELLING]
    return f"{failing[0].name} could not be looked at {WORTH_TELLING} times in a row" if failing else ""
