"""What a running sensor does: poll the jobs, judge how they ended, sum them up for XCom."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.api.names import in_words
from airflow_provider_gemini_batch.batch.verdict import Ended, Gone, Refused, judge_all
from airflow_provider_gemini_batch.polling.blocking import BlockingWait
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.progress import span
from airflow_provider_gemini_batch.polling.report import Reason, from_event
from airflow_provider_gemini_batch.runtime.argument_readers import listed
from airflow_provider_gemini_batch.runtime.arguments import SensorArguments, read_arguments
from airflow_provider_gemini_batch.runtime.client import airflow_errors
from airflow_provider_gemini_batch.runtime.log_lines import many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.polling.report import WaitReport
    from airflow_provider_gemini_batch.runtime.client import OpenAccess


@dataclass(frozen=True)
class SensorSetup:
    """What a sensor was given; times in seconds, ``began`` since the epoch.

    ``job_name`` may be anything that a template rendered. ``stays``: this process also makes the next poll.
    ``forgets``: another process makes it, and knows nothing of this one. ``skips``: a failure skips the task.
    """

    job_name: Any
    poll_interval: float
    timeout: float
    began: float
    stays: bool
    forgets: bool
    skips: bool
    log: logging.Logger


class SensorRun:
    """One run of a sensor in a worker; remembers failed polls for as long as the worker stays.

    :raises AirflowFailException: there is no job to wait for.
    """

    def __init__(self, arguments: SensorSetup, hook: OpenAccess) -> None:
        self._arguments = arguments
        self._hook = hook
        with airflow_errors():
            given = read_arguments(SensorArguments, {"job_name": arguments.job_name}).job_name
        names = listed(given)
        if not names:
            raise AirflowFailException("job_name is empty: give the name of a job, or a list of names")
        if long := next((name for name in names if in_words(name) != repr(name)), None):
            # A template turns a whole output into text, which may hold prompts and responses.
            raise AirflowFailException(
                f"job_name must be the name of a job, not {in_words(long)}; of another task's output take the member: "
                'task.output["job_name"]'
            )
        self.names: Sequence[str] = tuple(dict.fromkeys(names))
        self._driver = BlockingWait(
            JobWait(self.names, WaitPolicy(arguments.began + arguments.timeout, arguments.poll_interval)),
            lambda name: self._hook.client.get(name, brief=True),
            now=time.time,
            renew=self._hook.renew,
            log=lambda level, line: arguments.log.log(level, "%s", line),
        )

    def poll(self) -> dict[str, Any] | None:
        """Poll all jobs; return the XCom value when all have ended well, None while they have not.

        An answer that is believed only when repeated is asked for again here, if the next poll would not know of it.

        :raises AirflowException: a job ended badly, or cannot be polled.
        """
        with ExitStack() as stack:
            stack.callback(self._hook.close)
            with airflow_errors():
                _ = self._hook.client  # fail at once with a connection that cannot work, instead of polling again
            self._driver.poll(all_jobs=True)
            while self._arguments.forgets and self._driver.is_in_doubt:
                time.sleep(self._driver.pause)
                self._driver.pass_time(self._driver.pause)
                self._driver.poll()
            report = self._driver.wait.report()
            if report is None and self._arguments.stays:
                stack.pop_all()  # this process polls again: keep the sockets and the connection
        return None if report is None else self._judge(report)

    def finish(self, event: object) -> dict[str, Any] | None:
        """Return the XCom value for what the trigger saw; None if its event cannot be read, as during an upgrade.

        :raises AirflowException: a job ended badly, could not be polled, or did not end in time.
        """
        try:
            return self._judge(from_event(event))
        except AirflowSkipException as skip:
            # Airflow replaces its text when the trigger is over.
            self._arguments.log.warning("%s", skip)
            raise

    def _judge(self, report: WaitReport) -> dict[str, Any] | None:
        ended = [job for job in report.jobs if job.is_done]
        if report.reason is Reason.DEADLINE:
            waited = f"The sensor waited for {span(self._arguments.timeout)}; nothing was cancelled."
            what = f"{report.message.rstrip('.')}. {waited}"
            advice = "Raise `timeout` if this is too short."
            self._log_failure(f"{advice} {what}")
            raise self._or_skip(AirflowSensorTimeout(f"{what} {advice}"))
        if report.reason is Reason.REFUSED:
            return self._result(ended, Refused(report.message))
        if report.reason is Reason.GONE:
            # The message begins with "The service does not know <name>: ", for each of them.
            gone = [name for name in self.names if f" {name}: " in report.message]
            return self._result(ended, Gone(", ".join(gone or self.names)))
        return self._result(ended) if len(ended) == len(self.names) else None

    def _result(self, jobs: Sequence[BatchJob], *others: Gone | Refused) -> dict[str, Any]:
        """Return the XCom value if all jobs ended well, else raise."""
        verdict = judge_all([*others, *(Ended(job) for job in jobs)])
        if not verdict.success:
            self._log_failure(verdict.advice_first)
            kind = AirflowException if verdict.retry else AirflowFailException
            raise self._or_skip(kind(verdict.message))
        counts = _counts(jobs)
        level = logging.WARNING if counts and counts["failed"] else logging.INFO
        self._arguments.log.log(level, "%s", _line_of_success(jobs, counts))
        bad = [job.state for job in jobs if job.state is not JobState.SUCCEEDED]
        return {
            "job_name": jobs[0].name,
            "job_names": [job.name for job in jobs],
            "state": (bad[0] if bad else JobState.SUCCEEDED).value,
            "states": [job.state.value for job in jobs],
            "counts": counts,
        }

    def _log_failure(self, line: str) -> None:
        if not self._arguments.skips:
            self._arguments.log.error("%s", line)

    def _or_skip(self, error: AirflowException) -> AirflowException:
        """Return the error, or one that skips the task if the author asked for that."""
        if self._arguments.skips:
            skip = AirflowSkipException(f"Skipped: {error}")
            skip.__cause__ = error
            return skip
        return error


def _line_of_success(jobs: Sequence[BatchJob], counts: dict[str, int] | None) -> str:
    who = jobs[0].name if len(jobs) == 1 else f"All {len(jobs):,} jobs"
    if not counts or not counts["total"]:
        return f"{who} succeeded."
    failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
    return f"{who} succeeded: {counts['succeeded']:,} of {many(counts['total'], 'row')} ok{failed}."


def _counts(jobs: Sequence[BatchJob]) -> dict[str, int] | None:
    stats = [job.completion_stats for job in jobs if job.completion_stats is not None]
    if not stats:
        return None
    return {
        "total": sum(each.total or 0 for each in stats),
        "succeeded": sum(each.success for each in stats),
        "failed": sum(each.failure for each in stats),
    }
