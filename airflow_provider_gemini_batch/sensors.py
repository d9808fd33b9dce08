"""The sensor that waits for jobs which somebody else made. It never cancels: the jobs are not its own."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import PokeReturnValue
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, NotFound
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.hooks import DEFAULT_CONN_ID, GeminiBatchHook, airflow_errors
from airflow_provider_gemini_batch.lifecycle.events import Reason, from_event
from airflow_provider_gemini_batch.lifecycle.following import Seen
from airflow_provider_gemini_batch.lifecycle.judge import Ended, Gone, Refused, judge_all
from airflow_provider_gemini_batch.lifecycle.progress import Progress, span
from airflow_provider_gemini_batch.lifecycle.waiting import GoneForGood, Trouble, WillNotPass
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.lifecycle.judge import Ending, Verdict

# The trigger keeps the deadline itself; Airflow's own is for the case that no triggerer runs.
_SLACK: Final = timedelta(minutes=10)


class GeminiBatchJobSensor(BaseSensorOperator):
    """Wait until a batch job, or each of several, has ended well.

    Fails when one ended badly, by the same rules as the create operators, so that Airflow retries only where looking
    again could help. ``soft_fail`` skips instead. A job's failed rows fail the sensor only if all rows failed.

    XCom: ``job_name`` (the first), ``job_names``, ``state`` (of the worst), ``states`` and ``counts`` (``total``,
    ``succeeded``, ``failed`` over all jobs, or null when the service does not count).

    :param job_name: the job, or a list of jobs, as the service names them. (templated)
    :param gemini_conn_id: connection of type Gemini Batch or Google Cloud. (templated)
    :param location: Vertex location, overrides the connection's. (templated)
    :param project_id: Google Cloud project, overrides the connection's. (templated)
    :param deferrable: wait in the triggerer. Otherwise Airflow's ``mode`` says how the worker waits.

    ``poke_interval``, ``timeout``, ``soft_fail``, ``mode`` and the others are those of every Airflow sensor.
    """

    template_fields: Sequence[str] = ("job_name", "gemini_conn_id", "location", "project_id")

    def __init__(
        self,
        *,
        job_name: str | list[str],
        gemini_conn_id: str = DEFAULT_CONN_ID,
        location: str | None = None,
        project_id: str | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.gemini_conn_id = gemini_conn_id
        self.location = location
        self.project_id = project_id
        self.deferrable = deferrable
        self._troubles: dict[str, Trouble] = {}
        self._progress = Progress()

    def execute(self, context: Context) -> Any:
        """Look once, and if need be wait."""
        if not self.deferrable:
            return super().execute(context)
        began = time.time()
        with self._hook() as hook:
            jobs = self._look(hook)
        if len(jobs) == len(self._names()) and all(job.is_done for job in jobs):
            return self._result(jobs, [])
        timeout = timedelta(seconds=self.timeout)
        return self.defer(
            trigger=GeminiBatchJobTrigger(
                list(self._names()),
                self.gemini_conn_id,
                self.poke_interval,
                began + self.timeout,
                location=self.location,
                project_id=self.project_id,
            ),
            method_name="execute_complete",
            timeout=timeout + _SLACK,
        )

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Judge what the trigger saw."""
        report = from_event(event)
        if report.reason is Reason.DEADLINE:
            waited = f"{', '.join(self._names())} had not ended after {span(self.timeout)}; nothing was cancelled."
            raise self._or_skip(AirflowSensorTimeout(waited))
        if report.reason in (Reason.REFUSED, Reason.GONE):
            ending = Refused(report.message) if report.reason is Reason.REFUSED else Gone(", ".join(self._names()))
            return self._result([job for job in report.jobs if job.is_done], [ending])
        if len(report.jobs) == len(set(self._names())) and all(job.is_done for job in report.jobs):
            return self._result(report.jobs, [])
        # An event that cannot be read, from another version during an upgrade: look, and wait on.
        return self.execute(context)  # type: ignore[no-any-return]

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002  Airflow passes it
        """Look at the jobs from the worker."""
        with self._hook() as hook:
            jobs = self._look(hook, believe_absence=self.reschedule)
        news = self._progress.news([Seen.of(job) for job in jobs], time.monotonic())
        if news is not None:
            self.log.info("%s", news[0])
        if len(jobs) < len(self._names()) or not all(job.is_done for job in jobs):
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._result(jobs, []))

    def _names(self) -> Sequence[str]:
        names = [self.job_name] if isinstance(self.job_name, str) else list(self.job_name or ())
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise AirflowFailException("job_name is empty: give the name of a job, or a list of names")
        return tuple(dict.fromkeys(names))

    def _hook(self) -> GeminiBatchHook:
        return GeminiBatchHook(self.gemini_conn_id, location=self.location, project_id=self.project_id)

    def _look(self, hook: GeminiBatchHook, *, believe_absence: bool = False) -> list[BatchJob]:
        """Ask for each job; one that cannot be seen for now is left out.

        :param believe_absence: fail at once when the service does not know a job. A worker that comes back for every
            look cannot tell how long that has been so.
        """
        names = self._names()
        with airflow_errors():
            client = hook.client
        looks = [self._look_at(client, name, believe_absence=believe_absence) for name in names]
        return [job for job in looks if job is not None]

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
        judged = self._troubles.get(name, Trouble()).saw(error, time.time(), poll_interval=self.poke_interval)
        if isinstance(judged, WillNotPass):
            self._result([], [Refused.by(judged.error, name)])
        elif isinstance(judged, GoneForGood) or (believe_absence and isinstance(error, NotFound)):
            self._result([], [Gone(name)])
        else:
            self._troubles[name] = judged.trouble
            self.log.warning("%s could not be looked at: %s", name, error)

    def _result(self, jobs: Sequence[BatchJob], others: Sequence[Ending]) -> dict[str, Any]:
        """Give the XCom value if all ended well, else raise."""
        verdict = judge_all([*others, *(Ended(job) for job in jobs)])
        if not verdict.success:
            raise self._or_skip(_failure(verdict))
        self.log.info("%s", verdict.message)
        bad = [job.state for job in jobs if job.state is not JobState.SUCCEEDED]
        stats = [job.completion_stats for job in jobs if job.completion_stats is not None]
        return {
            "job_name": jobs[0].name,
            "job_names": [job.name for job in jobs],
            "state": (bad[0] if bad else JobState.SUCCEEDED).value,
            "states": [job.state.value for job in jobs],
            "counts": {
                "total": sum(each.total or 0 for each in stats),
                "succeeded": sum(each.success for each in stats),
                "failed": sum(each.failure for each in stats),
            }
            if stats
            else None,
        }

    def _or_skip(self, error: AirflowException) -> AirflowException:
        """Skip instead of failing, where the author wants that."""
        if self.soft_fail or self.never_fail:
            skip = AirflowSkipException(f"Skipped: {error}")
            skip.__cause__ = error
            return skip
        return error


def _failure(verdict: Verdict) -> AirflowException:
    return (AirflowException if verdict.retry else AirflowFailException)(verdict.message)
