"""What a running trigger does: wait with the shared poller, log and show progress, cancel the jobs of a killed task.

Loaded when the first trigger of a process runs, never where Dag files are parsed. The client and what it imports are
loaded even later, in a thread.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import logging
import time
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from random import random
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, NotFound
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.lease import PollerLease
from airflow_provider_gemini_batch.polling.poller import Subscription
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY, PROGRESS_TEXT_KEY, WaitLog
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport
from airflow_provider_gemini_batch.polling.threads import Threads
from airflow_provider_gemini_batch.polling.within import within
from airflow_provider_gemini_batch.runtime.client import aget_client_connection, client_from_settings
from airflow_provider_gemini_batch.runtime.log_lines import many
from airflow_provider_gemini_batch.runtime.telemetry import WatchedJobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Connection

    from airflow_provider_gemini_batch.polling.policy import WaitPolicy
    from airflow_provider_gemini_batch.polling.poller import PollClient
    from airflow_provider_gemini_batch.polling.turns import TurnRequest

# One for all triggers: asyncio.to_thread would take 3 KB more for each of them that waits for a thread.
_LOG_WRITER: Final = Threads(1)
# An XCom costs the triggerer's supervisor a database call, and it makes those of all triggers one after the other.
_XCOM_SECONDS: Final = 60.0
_XCOM_REST: Final = 600.0
_XCOM_GAP: Final = 0.5
# For a whole push, during which the end of a job goes unnoticed; the first request after a start takes 9 s.
_XCOM_PATIENCE: Final = 30.0
# All of on_kill gets 30 s.
_STATE_PATIENCE: Final = 20.0
_CANCEL_PATIENCE: Final = 9.0
_CANCEL_TRIES: Final = 3
_ENDED_BY_A_USER: Final = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})


class _PollConnection:
    """A connection that has been looked up, without a repr that could show it."""

    __slots__ = ("_conn", "_location", "_project_id", "fingerprint")

    def __init__(self, conn: Connection, location: str | None, project_id: str | None) -> None:
        self._conn = conn
        self._location = location
        self._project_id = project_id
        # Its attributes one by one: get_uri() would have Airflow mask secrets, synchronously, in the event loop.
        fields = ("conn_type", "host", "schema", "login", "password", "port", "extra")
        values = json.dumps([str(getattr(conn, field, None)) for field in fields])
        self.fingerprint = hashlib.sha256(values.encode()).hexdigest()

    def client(self) -> PollClient:
        """Return a client that sends each call once, since the poller decides when to ask again."""
        with _collecting_later():  # the first client of a process is imported here
            from airflow_provider_gemini_batch.runtime.connection import read_connection

            settings = read_connection(self._conn, location=self._location, project_id=self._project_id)
            return client_from_settings(settings, attempts=1)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Keep Python's full garbage collection, which stops every thread for a tenth of a second, out of the block.

    A triggerer that has just started owes one: the objects of an import would set it off, in the middle of it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class XComGate:
    """Lets progress through only now and then, for all triggers of the process together."""

    free_at = 0.0

    @classmethod
    def passes(cls, now: float) -> bool:
        """Return whether one trigger may push now; the next may do so a moment later."""
        if now < cls.free_at:
            return False
        cls.free_at = now + _XCOM_GAP
        return True


def lease_of(conn_id: str, location: str | None, project_id: str | None) -> PollerLease:
    """Return a share in the poller that this event loop has for a connection."""

    async def connect() -> _PollConnection:
        return _PollConnection(await aget_client_connection(conn_id), location, project_id)

    return PollerLease((conn_id, location, project_id), connect)


@dataclass(frozen=True)
class TriggerTask:
    """One trigger as it runs: what its arguments say, and what Airflow gives it.

    ``task_instance`` has dag_id, task_id, run_id and map_index; None where a Dag runs without Airflow around it.
    """

    job_names: tuple[str, ...]
    gemini_conn_id: str
    location: str | None
    project_id: str | None
    policy: WaitPolicy
    memo: str
    turn: TurnRequest | None
    input_tokens: int
    log: logging.Logger
    task_instance: Any

    def lease(self) -> PollerLease:
        """Return a share in the poller of the trigger's connection."""
        return lease_of(self.gemini_conn_id, self.location, self.project_id)

    async def report(self) -> WaitReport:
        """Wait for what the trigger waits for, and return the report."""
        wait = self.sleep() if self.policy.until == "time" else self.wait()
        if self.turn is None:
            return await wait
        tasks = [asyncio.ensure_future(each) for each in (wait, self.wait_for_turn(self.turn))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # A report about jobs says more than that there is room.
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def wait_for_turn(self, turn: TurnRequest) -> WaitReport:
        """Wait until the task may create jobs, and return the report that says how many."""
        lease = self.lease()
        try:
            await self._write([(logging.INFO, f"Waiting until there is room for {many(turn.jobs, 'more job')}.")])
            turns = await lease.poller.turns.wait(turn, self.policy.poll_interval)
            return WaitReport(Reason.TURN, memo=self.memo, turns=turns)
        finally:
            lease.release()

    async def wait(self) -> WaitReport:
        """Wait until the wait is over, and return its report."""
        wait = JobWait(self.job_names, self.policy)
        subscription = Subscription(wait)
        lease = self.lease()
        try:
            lease.poller.join(subscription)
            self._report_watched(len(self.job_names))
            return await self._wait_for_report(wait, subscription)
        finally:
            self._report_watched(0)
            lease.poller.leave(subscription)
            lease.release()

    def _report_watched(self, active: int) -> None:
        tokens = self.input_tokens * active // max(len(self.job_names), 1)
        WatchedJobs.report(self.gemini_conn_id, id(self), jobs=active, tokens=tokens)

    async def sleep(self) -> WaitReport:
        """Sleep until the deadline by the wall clock, whatever the jobs do meanwhile, and return the report."""
        await asyncio.sleep(max(0.0, self.policy.deadline - time.time()))
        return WaitReport(Reason.WAKE, memo=self.memo)

    async def _wait_for_report(self, wait: JobWait, subscription: Subscription) -> WaitReport:
        words = WaitLog(wait)
        push_at, is_first = 0.0, True
        alarm: asyncio.TimerHandle | None = None
        try:
            while True:
                await subscription.wait_for_change()
                if alarm is not None:
                    alarm.cancel()
                now = time.time()
                await self._write(list(words.new_lines(now)))
                self._report_watched(
                    sum(one.progress is None or not one.progress.state.is_terminal for one in wait.jobs)
                )
                report = wait.report(self.memo)
                if report is not None:
                    return replace(report, running_since=words.running_since)
                moment = time.monotonic()
                if moment >= push_at and words.text(now) and XComGate.passes(moment):
                    pushed = await self._push(words, now, is_first=is_first)
                    push_at = moment + (_XCOM_SECONDS if pushed else _XCOM_REST)
                    if pushed:
                        is_first = False
                        continue
                # The next change may be hours away: a job that has just begun to run would be shown as queued.
                pause = max(push_at - moment, _XCOM_SECONDS * (0.5 + random() / 2))  # noqa: S311  no secret
                alarm = asyncio.get_running_loop().call_later(pause, subscription.wake)
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _write(self, lines: Sequence[tuple[int, str]]) -> None:
        """Write lines to the task's log, in a thread.

        Airflow reads the lines of all triggers one after the other, so that those of hundreds of jobs that end at once
        would hold the event loop for seconds.
        """
        if not lines:
            return
        loop, written, context = asyncio.get_running_loop(), asyncio.Event(), copy_context()

        def write() -> None:
            # A loop that is closed has nobody who waits, and a log that fails must not end a wait.
            with suppress(Exception):
                for level, line in lines:
                    context.run(self.log.log, level, "%s", line)
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(written.set)

        try:
            _LOG_WRITER.submit(write)
        except RuntimeError:  # the process cannot start another thread
            write()
        await written.wait()

    async def _push(self, words: WaitLog, now: float, *, is_first: bool) -> bool:
        """Push the progress XComs; return False where that fails, so that the next try waits longer."""
        ti = self.task_instance
        if ti is None:
            return False
        try:
            from airflow.sdk.execution_time import task_runner  # its SUPERVISOR_COMMS is set while the triggerer runs
            from airflow.sdk.execution_time.comms import GetXCom, SetXCom, XComResult

            map_index = -1 if ti.map_index is None else ti.map_index
            place: dict[str, Any] = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id}
            comms, over_at = task_runner.SUPERVISOR_COMMS, time.monotonic() + _XCOM_PATIENCE
            if is_first and self.memo:  # without a memo there was no earlier process, and asking would log an error
                question = GetXCom(key=PROGRESS_KEY, map_index=map_index, **place)
                before = await _ask(comms, question, over_at)
                words.go_on_from(before.value if isinstance(before, XComResult) else None)
            # The text is for Airflow's own page, which folds an object away; the numbers are for ours.
            # Plain values, past a custom XCom backend: the page reads the database.
            for key, value in ((PROGRESS_TEXT_KEY, words.text(now)), (PROGRESS_KEY, words.numbers(now))):
                await _ask(comms, SetXCom(key=key, value=value, map_index=map_index, **place), over_at)
        except Exception as error:  # noqa: BLE001  a failure to show progress must not end a wait
            self.log.debug("Could not push the progress: %s", type(error).__name__)
            return False
        return True

    # -- when the trigger is killed ------------------------------------------------------------------------------------

    async def cancel_jobs_of_ended_task(self) -> None:
        """Cancel the jobs of a killed trigger if a user has ended the task; leave them in every other case.

        Airflow also kills a trigger when another triggerer has taken it over, and when the task is cleared; then the
        jobs are still wanted. Only the task's own state shows the difference, so it is asked for first.
        """
        lease = self.lease()
        try:
            lease.poller.prepare()
            state = await self.task_state()
            if state in _ENDED_BY_A_USER:
                await asyncio.gather(*(self._cancel(lease, name) for name in self.job_names))
            else:
                names = ", ".join(self.job_names)
                self.log.info("Left running, since the task is %s: %s", state or "in an unknown state", names)
        finally:
            lease.release()

    async def task_state(self) -> str | None:
        """Return the state of the task that the trigger belongs to; None when Airflow does not say."""
        ti = self.task_instance
        if ti is None:
            return None
        try:
            from airflow.sdk.execution_time import task_runner  # its SUPERVISOR_COMMS is set while the triggerer runs
            from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

            question = GetTaskStates(
                dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
            )
            answer = await within(_STATE_PATIENCE, task_runner.SUPERVISOR_COMMS.asend(question), cancels=False)
            states = answer.task_states.get(ti.run_id, {}) if isinstance(answer, TaskStatesResult) else {}
        except Exception as error:  # noqa: BLE001  not knowing means leaving the jobs alone
            self.log.warning("Could not ask Airflow for the state of the task: %s", type(error).__name__)
            return None
        state = next(iter(states.values()), None) if len(states) == 1 else None
        return None if state is None else str(getattr(state, "value", state))

    async def _cancel(self, lease: PollerLease, name: str) -> None:
        try:
            running = await within(_CANCEL_PATIENCE, lease.poller.call(lambda client: _cancel_job(client, name)))
        except (GeminiBatchError, asyncio.TimeoutError) as error:
            self.log.warning("Could not cancel %s: %s", name, str(error) or "no response in time")
        else:
            self.log.info("Cancelled %s, since the task was ended" if running else "%s had ended already", name)


async def _ask(comms: Any, message: object, over_at: float) -> object:
    left = over_at - time.monotonic()
    if left <= 0:
        raise asyncio.TimeoutError
    return await within(left, comms.asend(message), cancels=False)


def _cancel_job(client: PollClient, name: str, tries: int = _CANCEL_TRIES) -> bool:
    """Cancel a job, in a thread; return False for one that has ended or is gone."""
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
        return _cancel_job(client, name, tries - 1)
    return True


def _has_ended(client: PollClient, name: str) -> bool:
    """Return whether the job has ended; a triggerer may be asked to kill a trigger long after its task succeeded."""
    try:
        return client.get(name, brief=True).is_done
    except GeminiBatchError:
        return False
