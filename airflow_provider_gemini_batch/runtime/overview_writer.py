"""Writes a task's :class:`~..batch.overview.Overview` to XCom, for the page and the command line.

It is written straight to Airflow's database, past a custom XCom backend, because the page reads it there. It must not
disturb the task: what cannot be written is left out.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.batch.overview import (
    MOST_FAILED_KEYS,
    OVERVIEW_KEY,
    Event,
    JobOverview,
    Overview,
    read_overview,
)
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY, PROGRESS_TEXT_KEY
from airflow_provider_gemini_batch.runtime.log_lines import most_first, statuses_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from types import TracebackType

    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Clock, Landing

log = logging.getLogger(__name__)

_JOB_NAMES = re.compile(
    r"\b(?:batches/[\w-]+|projects/[\w.:-]{1,100}/locations/[\w-]{1,60}/batchPredictionJobs/\d+)\s*"
)
_LONGEST_REASON: Final = 80
_PROGRESS_SECONDS: Final = 30.0


class OverviewWriter:
    """The overview of one task instance, in one of its processes.

    As a context manager around all that the task does, it also writes how the task failed.
    """

    def __init__(
        self, ti: RuntimeTaskInstanceProtocol, model: str, *, clock: Clock, is_killed: Callable[[], bool]
    ) -> None:
        """Write nothing yet.

        :param is_killed: returns whether the task was asked to stop, in a signal handler; then nothing can be written.
        """
        self._ti = ti
        self._clock = clock
        self._is_killed = is_killed
        self._overview = Overview(model=model.rpartition("/")[2])
        self._is_known = False
        self._progress_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A deferral is not an Exception.
        if isinstance(error, Exception) and not self._is_killed():
            if not self._is_known and self._has_pushed():
                self._load()
            message = str(error) or type(error).__name__
            self._add(f"Failed: {_short(message, 250)}")
            self._step("failed", message, ended=True)

    def begin(self) -> None:
        """Write that a try has begun."""
        self._is_known = True
        if self._ti.try_number > 1:
            self._add(f"Try {self._ti.try_number} began.")
        self._push()
        # The trigger continues with what it finds here, so an earlier try's progress must go.
        self._set(PROGRESS_KEY, {"done": 0, "failed": 0, "samples": []})

    def resume(self) -> None:
        """Read what an earlier process of this try wrote, to continue with it."""
        self._is_known = True
        self._load()

    def job(self, job: BatchJob, *, created: bool) -> None:
        """Record a job that came into use, or its new state; written with the next step."""
        tag = tag_of(job)
        stats = job.completion_stats
        known = next((each for each in self._overview.jobs if each.name == job.name), None)
        now = JobOverview(
            name=job.name,
            shard=tag.shard if tag is not None else 0,
            round=tag.round if tag is not None else 0,
            state=job.state.value,
            adopted=known.adopted if known is not None else not created,
            submitted_at=_seconds(job.create_time) or (known.submitted_at if known else None) or self._now,
            started_at=_seconds(job.start_time) or (known.started_at if known else None),
            ended_at=(_seconds(job.end_time) or self._now) if job.is_done else None,
            total=(stats.total if stats else None) or (known.total if known else None),
            done=stats.success + stats.failure if stats else known.done if known else None,
            failed=stats.failure if stats else known.failed if known else None,
        )
        self._overview = replace(
            self._overview.with_job(now), service=job.service.value, display_name=job.display_name or ""
        )
        if known is None:
            verb = "Submitted" if created else "Adopted"
            kind = f", repair round {now.round}" if now.round else f", shard {now.shard + 1}" if now.shard else ""
            self._add(f"{verb} {job.name}{kind}.")
        elif job.is_done and known.ended_at is None:
            self._add(f"{job.name} ended: {job.state.words}.")

    def input(self, estimate: Mapping[str, Any]) -> None:
        """Record what was read: rows and jobs."""
        rows, jobs = estimate.get("rows"), estimate.get("jobs")
        if not isinstance(rows, int) or self._overview.total is not None:
            return
        text = f"Read {rows:,} rows" + (f" for {jobs:,} jobs." if isinstance(jobs, int) and jobs > 1 else ".")
        # It is recorded after the jobs were submitted, but happened before.
        events = self._overview.events
        read = Event(events[0].at if events else self._now, text)
        cost = estimate.get("estimated_cost") or {}
        self._overview = replace(
            self._overview,
            total=rows,
            events=(read, *events),
            estimated_usd=cost.get("usd"),
            is_estimate_open=bool(cost.get("open_bound")),
        )

    def ran_since(self, moment: float | None) -> None:
        """Record when a job was first seen to run, where the service does not say when it started."""
        if self._overview.started_at is None:
            self._overview = replace(self._overview, started_at=moment)

    def waiting_for_jobs(self) -> None:
        """Write that the task waits for its jobs."""
        repairs = any(job.round and job.ended_at is None for job in self._overview.jobs)
        self._step("repairing" if repairs else "running")

    def progress(self, text: str, numbers: dict[str, Any] | None) -> None:
        """Write how far the jobs have come, now and then, while the task itself waits for them."""
        if numbers is not None and self._now >= self._progress_at:
            self._progress_at = self._now + _PROGRESS_SECONDS
            self._set(PROGRESS_TEXT_KEY, text)
            self._set(PROGRESS_KEY, numbers)

    def sleeping(self, reason: str, *, for_quota: bool) -> None:
        """Write that the task waits for something else than a job, and for what."""
        phase = "waiting for quota" if for_quota else "waiting"
        if (self._overview.phase, self._overview.why) != (phase, _short(reason)):
            self._add(f"Waiting: {reason}")
        self._step(phase, reason)

    def landing(self) -> None:
        """Write that responses are being read."""
        self._step("landing")

    def submitted(self) -> None:
        """Write that the task ended without waiting for its jobs."""
        self._step("submitted")

    def delivered(self, jobs: Iterable[BatchJob], landing: Landing, cost: Mapping[str, Any] | None) -> None:
        """Write what was landed, and the final state of the jobs."""
        for job in jobs:
            self.job(job, created=False)
        self.kept(landing, cost)
        where = f" to {landing.output}" if landing.output else ""
        self._add(f"Landed {landing.total:,} rows{where}: {landing.succeeded:,} ok, {landing.failed:,} failed.")
        self._step("succeeded", ended=True)

    def kept(self, landing: Landing, cost: Mapping[str, Any] | None) -> None:
        """Record what was landed of a batch that failed; written with the failure."""
        # Only so many are kept.
        reasons = {status: most_first(words) for status, words in landing.reasons.items()}
        statuses = statuses_of(landing)
        usage = landing.usage
        self._overview = replace(
            self._overview,
            total=landing.total,
            succeeded=landing.succeeded,
            failed=landing.failed,
            by_status={"ok": landing.succeeded, **statuses},
            reasons=reasons,
            failed_keys=landing.failed_keys[:MOST_FAILED_KEYS],
            output=landing.output or "",
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            thinking_tokens=usage.thinking_tokens if usage else None,
            cached_tokens=usage.cached_tokens if usage else None,
            usd=cost.get("usd") if cost else None,
            is_upper_bound=bool(cost and cost.get("upper_bound")),
            is_open_bound=bool(cost and cost.get("open_bound")),
        )

    # -- inside

    @property
    def _now(self) -> float:
        return round(self._clock.now(), 1)

    def _add(self, text: str) -> None:
        self._overview = self._overview.with_event(self._now, text)

    def _step(self, phase: str, why: str = "", *, ended: bool = False) -> None:
        self._overview = replace(self._overview, phase=phase, why=_short(why), ended_at=self._now if ended else None)
        self._push()

    def _push(self) -> None:
        self._set(OVERVIEW_KEY, self._overview.to_value())

    def _set(self, key: str, value: Any) -> None:
        from airflow.sdk.bases.xcom import BaseXCom

        try:
            BaseXCom.set(key, value, **self._place())
        except Exception as error:  # noqa: BLE001  what people see of a task must not end it
            log.debug("Could not write the overview: %s", type(error).__name__)

    def _load(self) -> None:
        from airflow.sdk.bases.xcom import BaseXCom

        try:
            self._overview = read_overview(BaseXCom.get_one(key=OVERVIEW_KEY, **self._place())) or self._overview
        except Exception as error:  # noqa: BLE001  as above
            log.debug("Could not read the overview: %s", type(error).__name__)

    def _has_pushed(self) -> bool:
        """Return whether there is an overview to read; reading one that does not exist would log an error."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import GetXComCount

        place = {name: value for name, value in self._place().items() if name != "map_index"}
        try:
            answer = task_runner.SUPERVISOR_COMMS.send(GetXComCount(key=OVERVIEW_KEY, **place))
        except Exception:  # noqa: BLE001  as above
            return False
        return bool(getattr(answer, "len", 0))

    def _place(self) -> dict[str, Any]:
        ti = self._ti
        index = -1 if ti.map_index is None else ti.map_index
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": index}


def _short(message: str, longest: int = _LONGEST_REASON) -> str:
    """Return the first sentence without the names of jobs, cut where a word ends."""
    first = re.split(r"(?<=[^\d])\.\s|[;\n]", _JOB_NAMES.sub("", message.strip()), maxsplit=1)[0].rstrip(".")
    if len(first) <= longest:
        return first
    return first[: longest - 1].rsplit(" ", 1)[0].rstrip(",:") + "\N{HORIZONTAL ELLIPSIS}"


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else round(moment.timestamp(), 1)
