"""The trigger that waits for jobs in the triggerer, all of one connection together.

It never creates jobs, and cancels them only when a user has ended the task. Dag files import this module, so it is
light; what a running trigger needs is in :mod:`.runtime.trigger_task`.
"""

from __future__ import annotations

from inspect import signature
from math import inf, isnan
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.states import JobState
from airflow_provider_gemini_batch.runtime.argument_readers import list_of, seconds, text, texts
from airflow_provider_gemini_batch.runtime.arguments import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Sequence
    from datetime import timedelta

    from airflow_provider_gemini_batch.runtime.trigger_task import TriggerTask

_seconds = seconds(above_zero=True)


def _serialized(trigger: BaseTrigger, kind: type[BaseTrigger]) -> tuple[str, dict[str, Any]]:
    """Return the path of a trigger's class, and its arguments: each is kept as an attribute of the same name.

    :param kind: the class that names the arguments; an author's own class may pass them on with ``**kwargs``.
    """
    arguments = {name: getattr(trigger, name) for name in signature(kind).parameters}
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}", arguments


class GeminiBatchJobTrigger(BaseTrigger):
    """Wait for one batch job, or several, and fire one event.

    The event is what :func:`~airflow_provider_gemini_batch.polling.report.from_event` reads: why the wait is over
    (ended, deadline, queue or progress time-out, refused, gone), and each job's state, counts and error.

    :param job_name: the job, or a list of jobs, as the service names them.
    :param gemini_conn_id: connection of type Gemini Batch or Google Cloud.
    :param poll_interval: seconds between two polls, also as a timedelta; young jobs are polled more often, old ones
        less.
    :param end_time: deadline, in seconds since the epoch, so that it survives a restart of the triggerer; None: none.
    :param cancel_on_kill: cancel the jobs when a user ends the waiting task (Airflow 3.3). Only the task that created
        the jobs should ask for that.
    :param location: Vertex location, overrides the connection's.
    :param project_id: Google Cloud project, overrides the connection's.
    :param queue_timeout: end the wait when a job has been in the service's queue for so many seconds.
    :param progress_timeout: end the wait when a running job's counts have not changed for so many seconds, as seen by
        one triggerer: a restart starts the count again.
    :param until: ``all`` jobs, or ``any`` for the first that ends; ``time``: until ``end_time``, whatever they do.
    :param memo: a short text that the event returns unread.
    :param turn: the wait also ends when the task may create jobs: ``limit``, ``since`` and ``jobs`` of
        :class:`~airflow_provider_gemini_batch.polling.turns.TurnRequest`. Then ``job_name`` may be empty.
    :param input_tokens: about how many tokens the input of the jobs has, for the gauge ``queued_tokens``.
    """

    def __init__(
        self,
        job_name: str | list[str],
        gemini_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float | timedelta = 60.0,
        end_time: float | None = None,
        *,
        cancel_on_kill: bool = False,
        location: str | None = None,
        project_id: str | None = None,
        queue_timeout: float | timedelta | None = None,
        progress_timeout: float | timedelta | None = None,
        until: str = "all",
        memo: str = "",
        turn: dict[str, Any] | None = None,
        input_tokens: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not job_name and turn is None:
            raise ConfigurationError("A trigger needs at least one job_name")
        if not isinstance(job_name, str):
            job_name = [text("job_name", one) for one in list_of("job_name", job_name)]
        if until not in ("all", "any", "time"):
            raise ConfigurationError(f"until must be 'all', 'any' or 'time', not {until!r}")
        if until == "time" and end_time is None:
            raise ConfigurationError("until='time' needs an end_time")
        if end_time is not None and (not isinstance(end_time, (int, float)) or isnan(end_time)):
            raise ConfigurationError("end_time must be seconds since the epoch, as datetime.timestamp() returns them")
        self.job_name = job_name
        self.gemini_conn_id = gemini_conn_id
        self.poll_interval = _seconds("poll_interval", poll_interval)
        self.end_time = end_time
        self.cancel_on_kill = cancel_on_kill
        self.location = location
        self.project_id = project_id
        self.queue_timeout = None if queue_timeout is None else _seconds("queue_timeout", queue_timeout)
        self.progress_timeout = None if progress_timeout is None else _seconds("progress_timeout", progress_timeout)
        self.until = until
        self.memo = memo
        self.turn = turn
        self.input_tokens = input_tokens

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: names and numbers only, no credential and nothing of the rows."""
        return _serialized(self, GeminiBatchJobTrigger)

    @property
    def job_names(self) -> Sequence[str]:
        """The names of the jobs, always as a sequence."""
        return (self.job_name,) if isinstance(self.job_name, str) else self.job_name

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, log progress, and yield the one event."""
        from airflow_provider_gemini_batch.polling.report import to_event  # not where Dag files are parsed

        yield TriggerEvent(to_event(await self._task().report()))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the jobs if a user has ended the task, and if they are this task's own; Airflow 3.3 calls it."""
        if self.cancel_on_kill:
            from airflow_provider_gemini_batch.polling.within import to_the_end  # not where Dag files are parsed

            await to_the_end(self._task().cancel_jobs_of_ended_task())

    def _task(self) -> TriggerTask:
        """Return the running side of this trigger."""
        from airflow_provider_gemini_batch.polling.policy import WaitPolicy  # not where Dag files are parsed
        from airflow_provider_gemini_batch.polling.turns import TurnRequest
        from airflow_provider_gemini_batch.runtime.trigger_task import TriggerTask

        return TriggerTask(
            job_names=tuple(self.job_names),
            gemini_conn_id=self.gemini_conn_id,
            location=self.location,
            project_id=self.project_id,
            policy=WaitPolicy(
                deadline=inf if self.end_time is None else self.end_time,
                poll_interval=self.poll_interval,
                queue_timeout=self.queue_timeout,
                progress_timeout=self.progress_timeout,
                until=self.until,
            ),
            memo=self.memo,
            turn=None if self.turn is None else TurnRequest(**self.turn),
            input_tokens=self.input_tokens,
            log=self.log,  # type: ignore[arg-type]  # a logger of structlog's, with the same methods
            task_instance=self.task_instance,
        )


class GeminiBatchJobEventTrigger(BaseEventTrigger):
    """Fire an event whenever a job of a connection ends, whoever created it: for the ``AssetWatcher`` of an asset.

    The event's payload has ``job_name``, ``state``, ``model``, ``display_name``, ``labels``, ``counts``, ``error`` and
    ``ended_at``. Jobs that had ended before the trigger first ran fire no event. On Airflow 3.3, all triggers of a
    connection share one stream of list calls, and each keeps in its asset's state store how far it has come: after a
    restart of the triggerer no end is left out, and one may be reported twice if the triggerer was killed within a poll
    interval after it. Airflow 3.2 has no such store: a job that ends while no triggerer runs fires no event.

    Give each asset a trigger of its own: one that two assets share (equal arguments) has no store.

    :param gemini_conn_id: connection of type Gemini Batch or Google Cloud.
    :param display_name: only jobs with this display name; may hold ``*`` and ``?``.
    :param model: only jobs of this model, without ``models/``; may hold ``*`` and ``?``.
    :param labels: only jobs with all of these labels (Vertex AI).
    :param states: only jobs that end in one of these states, such as ``["SUCCEEDED"]``; None: in any.
    :param poll_interval: seconds between two list calls, also as a timedelta.
    :param location: Vertex location, overrides the connection's.
    :param project_id: Google Cloud project, overrides the connection's.
    """

    def __init__(
        self,
        gemini_conn_id: str = DEFAULT_CONN_ID,
        *,
        display_name: str = "",
        model: str = "",
        labels: dict[str, str] | None = None,
        states: list[str] | str | None = None,
        poll_interval: float | timedelta = 60.0,
        location: str | None = None,
        project_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        states = [states] if isinstance(states, str) else list(list_of("states", states or []))
        endings = [state.value for state in JobState if state.is_terminal]
        for state in states:
            if state not in endings:
                raise ConfigurationError(f"states: a job cannot end as {state!r}; use some of {', '.join(endings)}")
        self.gemini_conn_id = text("gemini_conn_id", gemini_conn_id)
        self.display_name = text("display_name", display_name or "")
        self.model = text("model", model or "")
        self.labels = dict(texts("labels", labels or {}))
        self.states = states
        self.poll_interval = _seconds("poll_interval", poll_interval)
        self.location = location
        self.project_id = project_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments: names and numbers only."""
        return _serialized(self, GeminiBatchJobEventTrigger)

    def shared_stream_key(self) -> Hashable:
        """Return the key of the stream; triggers with the same key share one (Airflow 3.3)."""
        return ("gemini_batch", self.gemini_conn_id, self.location, self.project_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield, round after round, all jobs that are known to have ended."""
        from airflow_provider_gemini_batch.runtime.event_task import rounds_of_ended_jobs  # only when it runs
        from airflow_provider_gemini_batch.runtime.trigger_task import lease_of

        lease = lease_of(kwargs["gemini_conn_id"], kwargs.get("location"), kwargs.get("project_id"))
        async for ended in rounds_of_ended_jobs(lease, kwargs["poll_interval"]):
            yield ended

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each job that ends and that this trigger is for."""
        from airflow_provider_gemini_batch.runtime.event_task import JobFilter, events  # only when it runs

        wanted = JobFilter(self.display_name, self.model, self.labels, self.states)
        async for payload in events(shared_stream, wanted, getattr(self, "asset_state_store", None)):
            yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events from a stream of its own (Airflow 3.2)."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event
