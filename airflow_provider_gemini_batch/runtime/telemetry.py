"""Metrics and traces of a running task or trigger, for Airflow's own: counts, times and names, never content.

Rules of this file: the batch has been paid for, so nothing here can fail the task; errors are logged at debug level.
Spans are sent where Airflow's traces are on, with the names of OpenTelemetry's conventions for generative AI.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_gemini_batch.api.states import JobKind, Service
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.runtime.best_effort import best_effort

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Landing
    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments

_PREFIX: Final = "gemini_batch"
COUNTERS: Final = (
    "rows.succeeded",
    "rows.failed",
    "input_tokens",
    "output_tokens",
    "thinking_tokens",
    "cached_tokens",
    "jobs.created",
    "jobs.adopted",
)
TIMERS: Final = ("queue_duration", "run_duration", "landing_duration")
GAUGES: Final = ("active_jobs", "queued_tokens")
_PROVIDERS: Final = {Service.GEMINI: "gcp.gemini", Service.VERTEX: "gcp.vertex_ai"}
_USAGE: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "thinking_tokens": "gen_ai.usage.reasoning.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
}
_OPERATIONS: Final = {JobKind.GENERATION: "generate_content", JobKind.EMBEDDINGS: "embeddings"}


class TaskTelemetry:
    """The metrics and spans of one task in one of its processes."""

    def __init__(self, ti: Any, arguments: BatchArguments, service: Service) -> None:
        model = arguments.model.rpartition("/")[2]
        self._tags = {"dag_id": ti.dag_id, "task_id": ti.task_id, "model": model}
        self._about = {
            "gen_ai.operation.name": _OPERATIONS[arguments.kind],
            "gen_ai.provider.name": _PROVIDERS[service],
            "gen_ai.request.model": model,
        }
        self._create_began = time.time()
        self._running_since: float | None = None

    def creating(self) -> None:
        """Record that a create call is about to be sent."""
        self._create_began = time.time()

    def ran_since(self, moment: float | None) -> None:
        """Record when a job was first seen to run, since the Gemini API does not say when it started."""
        self._running_since = self._running_since or moment

    def job(self, job: BatchJob, *, created: bool) -> None:
        """Count a job that came into use; send a span, ``submit``, for one that was just created."""
        with best_effort("metrics"):
            _stats().incr(f"{_PREFIX}.jobs.{'created' if created else 'adopted'}", 1, tags=self._tags)
        if created:
            self._trace("submit", self._create_began, time.time(), {"gen_ai.response.id": job.name})

    def landed(self, jobs: Iterable[BatchJob], landing: Landing, *, between: tuple[float, float] | None) -> None:
        """Count rows and tokens; send, also as spans, how long jobs were queued, how long they ran and landing took.

        Every landing has the rows of all tries, so this is for the last one: of a success, or of a final failure.

        :param between: when landing began and ended, in seconds since the epoch; None if another process landed.
        """
        usage = landing.usage.shown() if landing.usage is not None else {}
        with best_effort("metrics"):
            counts = {"rows.succeeded": landing.succeeded, "rows.failed": landing.failed, **usage}
            for name, count in counts.items():
                _stats().incr(f"{_PREFIX}.{name}", count, tags=self._tags)
        for job in jobs:
            self._waited(job)
        if between is None:
            return
        began, ended = between
        self._record_duration("landing_duration", began, ended)
        about = {"gemini_batch.rows.succeeded": landing.succeeded, "gemini_batch.rows.failed": landing.failed}
        about |= {attribute: usage[name] for name, attribute in _USAGE.items() if name in usage}
        self._trace("land", began, ended, about)

    def _waited(self, job: BatchJob) -> None:
        moments = (job.create_time, job.start_time, job.end_time)
        created, started, ended = (None if moment is None else moment.timestamp() for moment in moments)
        started = started or self._running_since
        self._record_duration("queue_duration", created, started)
        self._record_duration("run_duration", started, ended)
        if created is not None and ended is not None:
            tag = tag_of(job)
            name = "repair" if tag is not None and tag.round else "wait"
            about = {"gen_ai.response.id": job.name, "gemini_batch.job.state": job.state.words}
            self._trace(name, created, ended, about)

    def _record_duration(self, timer: str, began: float | None, ended: float | None) -> None:
        if began is not None and ended is not None:
            with best_effort("metrics"):
                _stats().timing(f"{_PREFIX}.{timer}", timedelta(seconds=max(ended - began, 0.0)), tags=self._tags)

    def _trace(self, name: str, began: float, ended: float, about: Mapping[str, Any]) -> None:
        with best_effort("a span"):
            from opentelemetry import trace
            from opentelemetry.trace import SpanKind

            span = trace.get_tracer("airflow_provider_gemini_batch").start_span(
                f"{_PREFIX}.{name}",
                kind=SpanKind.CLIENT,
                start_time=int(began * 1e9),
                attributes={**self._about, **about},
            )
            span.end(end_time=int(max(began, ended) * 1e9))


class WatchedJobs:
    """The jobs that the triggers of this process wait for, by connection: two gauges, sent on each change."""

    _jobs: ClassVar[dict[tuple[str, int], tuple[int, int]]] = {}
    _sums: ClassVar[dict[str, tuple[int, int]]] = {}

    @classmethod
    def report(cls, conn_id: str, trigger: int, jobs: int, tokens: int) -> None:
        """Send how many jobs of a trigger have not ended, and about how many tokens they hold; 0 when it is over."""
        before, now = cls._jobs.pop((conn_id, trigger), (0, 0)), (jobs, tokens)
        if jobs:
            cls._jobs[conn_id, trigger] = now
        if before == now:
            return
        # Added up step by step: there may be ten thousand triggers.
        active, queued = cls._sums.get(conn_id, (0, 0))
        sums = cls._sums[conn_id] = (active + jobs - before[0], queued + tokens - before[1])
        with best_effort("metrics"):
            # The triggerer sets up Airflow's own metrics, a task's process those of the SDK.
            from airflow.observability.stats import Stats

            tags = {"conn_id": conn_id, "hostname": socket.gethostname()}
            for name, value in zip(GAUGES, sums, strict=True):
                Stats.gauge(f"{_PREFIX}.{name}", value, tags=tags)


def _stats() -> Any:
    from airflow.sdk.observability.stats import Stats

    return Stats
