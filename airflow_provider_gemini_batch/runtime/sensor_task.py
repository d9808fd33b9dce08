"""What a running sensor does: look at the jobs, judge how they ended, sum them up for XCom."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, NotFound
from airflow_provider_gemini_batch.api.models import JobProgress, JobState
from airflow_provider_gemini_batch.batch.verdict import Ended, Gone, Refused, judge_all
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.polling.policy import GoneForGood, Trouble, WillNotPass
from airflow_provider_gemini_batch.polling.progress import Progress, span
from airflow_provider_gemini_batch.polling.report import Reason, from_event
from airflow_provider_gemini_batch.runtime.client import airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.verdict import Ending, Verdict
    from airflow_provider_gemini_batch.sensors import GeminiBatchJobSensor


class SensorRun:
    """One run of a sensor in a worker; remembers failed looks for as long as the worker stays.

    :raises AirflowFailException: there is no job to wait for.
    """

    def __init__(self, sensor: GeminiBatchJobSensor) -> None:
        self._sensor = sensor
        self._troubles: dict[str, Trouble] = {}
        self._progress = Progress()
        self._hook = GeminiBatchHook(sensor.gemini_conn_id, location=sensor.location, project_id=sensor.project_id)
        # Only a worker that stays between two looks has a use for open sockets and a connection already fetched.
        self._stays = not sensor.deferrable and not sensor.reschedule
        given: Any = sensor.job_name  # a template may have made anything of it
        names = [given] if isinstance(given, str) else list(given or ())
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise AirflowFailException("job_name is empty: give the name of a job, or a list of names")
        self.names: Sequence[str] = tuple(dict.fromkeys(names))

    def look(self, *, believe_absence: bool = False) -> dict[str, Any] | None:
        """Look at all jobs; returns the XCom value when all have ended well, None when it is not yet time.

        :param believe_absence: fail at once when the service does not know a job. A worker that comes back for every
            look cannot tell how long that has been so.
        :raises AirflowException: a job ended badly, or cannot be looked at.
        """
        with ExitStack() as stack:
            stack.callback(self._hook.close)
            with airflow_errors():
                client = self._hook.client
            looks = [self._look_at(client, name, believe_absence=believe_absence) for name in self.names]
            if self._stays and not all(job is not None and job.is_done for job in looks):
                stack.pop_all()
        jobs = [job for job in looks if job is not None]
        news = self._progress.news([JobProgress.of(job) for job in jobs], time.monotonic())
        if news is not None:
            self._sensor.log.info("%s", news[0])
        return self._result(jobs) if self._all_ended(jobs) else None

    def finish(self, event: object) -> dict[str, Any] | None:
        """Judge what the trigger saw; None for an event that says nothing, as another version's during an upgrade.

        :raises AirflowException: a job ended badly, could not be looked at, or did not end in time.
        """
        report = from_event(event)
        names = ", ".join(self.names)
        if report.reason is Reason.DEADLINE:
            waited = f"{names} had not ended after {span(self._sensor.timeout)}; nothing was cancelled."
            raise self._or_skip(AirflowSensorTimeout(waited))
        if report.reason is Reason.REFUSED:
            return self._result([job for job in report.jobs if job.is_done], Refused(report.message))
        if report.reason is Reason.GONE:
            return self._result([job for job in report.jobs if job.is_done], Gone(names))
        return self._result(report.jobs) if self._all_ended(report.jobs) else None

    def _all_ended(self, jobs: Sequence[BatchJob]) -> bool:
        return len(jobs) == len(self.names) and all(job.is_done for job in jobs)

    def _look_at(self, client: BatchClient, name: str, *, believe_absence: bool) -> BatchJob | None:
        try:
            job = client.get(name, brief=True)
        except GeminiBatchError as error:
            self._excuse(name, error, believe_absence=believe_absence)
            return None
        self._troubles.pop(name, None)
        return job

    def _excuse(self, name: str, error: GeminiBatchError, *, believe_absence: bool) -> None:
        """Fail for what will not pass; remember what may."""
        interval = self._sensor.poke_interval
        judged = self._troubles.get(name, Trouble()).saw(error, time.time(), poll_interval=interval)
        if isinstance(judged, WillNotPass):
            self._result([], Refused.by(judged.error, name))
        elif isinstance(judged, GoneForGood) or (believe_absence and isinstance(error, NotFound)):
            self._result([], Gone(name))
        else:
            self._troubles[name] = judged.trouble
            self._sensor.log.warning("%s could not be looked at: %s", name, error)

    def _result(self, jobs: Sequence[BatchJob], *others: Ending) -> dict[str, Any]:
        """Give the XCom value if all ended well, else raise."""
        verdict = judge_all([*others, *(Ended(job) for job in jobs)])
        if not verdict.success:
            raise self._or_skip(_failure(verdict))
        self._sensor.log.info("%s", verdict.message)
        bad = [job.state for job in jobs if job.state is not JobState.SUCCEEDED]
        return {
            "job_name": jobs[0].name,
            "job_names": [job.name for job in jobs],
            "state": (bad[0] if bad else JobState.SUCCEEDED).value,
            "states": [job.state.value for job in jobs],
            "counts": _counts(jobs),
        }

    def _or_skip(self, error: AirflowException) -> AirflowException:
        """Skip instead of failing, where the author wants that."""
        if self._sensor.soft_fail or self._sensor.never_fail:
            skip = AirflowSkipException(f"Skipped: {error}")
            skip.__cause__ = error
            return skip
        return error


def _failure(verdict: Verdict) -> AirflowException:
    return (AirflowException if verdict.retry else AirflowFailException)(verdict.message)


def _counts(jobs: Sequence[BatchJob]) -> dict[str, int] | None:
    stats = [job.completion_stats for job in jobs if job.completion_stats is not None]
    if not stats:
        return None
    return {
        "total": sum(each.total or 0 for each in stats),
        "succeeded": sum(each.success for each in stats),
        "failed": sum(each.failure for each in stats),
    }
