"""Where Airflow meets the batch: a task's arguments and context become the ports of a run, its steps become deferrals.

Imported only when a task runs. All decisions are made in ``batch``; this file holds only what needs Airflow: the task
state store, XCom, deferring, failing, asset events.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from math import inf
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ConfigurationError,
    EmptyInput,
    GeminiBatchError,
    TransportError,
)
from airflow_provider_gemini_batch.batch.ports import Done, SleepUntil, TaskFailed, TaskTry, WaitForJobs
from airflow_provider_gemini_batch.batch.run import BatchRun
from airflow_provider_gemini_batch.batch.state import BatchState
from airflow_provider_gemini_batch.polling.blocking import BlockingWait
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, from_event
from airflow_provider_gemini_batch.runtime.best_effort import best_effort, label_of_map_index, update_asset_events
from airflow_provider_gemini_batch.runtime.checks import check_local_paths
from airflow_provider_gemini_batch.runtime.client import airflow_errors, client_from_settings, with_connection
from airflow_provider_gemini_batch.runtime.failures import RetryAtOnce
from airflow_provider_gemini_batch.runtime.lineage import Lineage, lineage_of, report_to_hook_lineage
from airflow_provider_gemini_batch.runtime.log_lines import created_line, log_summary, page_of, why_rows_failed
from airflow_provider_gemini_batch.runtime.overview_writer import OverviewWriter
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.runtime.readiness import check_readiness
from airflow_provider_gemini_batch.runtime.saved_context import SavedContext
from airflow_provider_gemini_batch.runtime.shared_paths import check_mapped, check_other_tasks
from airflow_provider_gemini_batch.runtime.state_store import WallClock
from airflow_provider_gemini_batch.runtime.summary import (
    IN_ASSET_EVENTS,
    JOB_NAME_KEY,
    cost_of_landing,
    summary_of,
    summary_without_job,
)
from airflow_provider_gemini_batch.runtime.task_rows import make_work
from airflow_provider_gemini_batch.runtime.task_setup import TaskSetup, policy_of
from airflow_provider_gemini_batch.runtime.telemetry import TaskTelemetry
from airflow_provider_gemini_batch.staging.job_service import ClientJobService

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from airflow.sdk import BaseOperator, Context
    from airflow.triggers.base import BaseTrigger
    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Landing
    from airflow_provider_gemini_batch.polling.turns import TurnRequest
    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.client import OpenAccess
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings

log = logging.getLogger(__name__)

# What a task that does not wait for its jobs has no use for, and what each is if nobody gives it.
_FOR_RESPONSES = {
    "output_path": None,
    "media_path": None,
    "repair_rounds": 0,
    "max_failed_rows": None,
    "max_failure_rate": None,
}
# How long cancelling from the signal handler may take: SIGKILL follows five seconds after SIGTERM.
_KILL_TIMEOUT = 2.0


class Killed(BaseException):
    """The task was asked to stop. Like KeyboardInterrupt, it passes every ``except Exception``, ours and libraries'."""


class TaskRun:
    """One process of one task: opened by ``execute`` and again by ``execute_complete``."""

    #: What was read and written, and the summary; known once results were delivered.
    lineage: tuple[Lineage, dict[str, Any]] | None = None

    def __init__(
        self,
        arguments: BatchArguments,
        task: BaseOperator,
        context: Context,
        *,
        hook: OpenAccess,
        make_trigger: Callable[..., BaseTrigger],
    ) -> None:
        """Open nothing yet.

        :param task: the operator: it defers, and has the retries and outlets.
        :param make_trigger: returns the trigger that waits for jobs.
        """
        self._arguments = arguments
        self._task = task
        self._context = context
        self._hook = hook
        self._make_trigger = make_trigger
        self._stack = ExitStack()
        self._killed = False
        self._is_open = False
        self._is_resumed = False
        self._active: dict[str, BatchJob] = {}
        self._wait: BlockingWait | None = None
        #: What a kill would cancel, and with which settings: in memory, since a signal handler cannot ask Airflow.
        self._running: set[str] = set()
        self._settings: ConnectionSettings | None = None
        #: For the link to the job.
        self.first_job_name = ""
        self._clock = WallClock()
        self._overview = OverviewWriter(
            context["ti"], arguments.model, clock=self._clock, is_killed=lambda: self._killed
        )
        self._saved_context = SavedContext(context)
        self._gives_rows_by_function = callable(arguments.inlined_requests)

    def __enter__(self) -> Self:
        """Open the connection and a folder for staged files; ``__exit__`` closes both."""
        self._is_open = True
        with ExitStack() as stack:
            stack.callback(self._leave)
            stack.enter_context(self._overview)
            stack.enter_context(airflow_errors(lambda: self._settings))
            stack.callback(self._hook.close)
            self._settings = self._hook.settings
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gemini-batch-")))
            # Up to here, an error is raised in Airflow's terms and leaves nothing open.
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            is_handled = self._stack.__exit__(kind, error, trace)
        except AirflowException as failure:
            raise failure.with_traceback(None) from None
        if isinstance(error, AirflowException | Killed) and not is_handled:
            # Its message says everything; frames of this package would push it out of sight.
            raise error.with_traceback(None)
        return is_handled

    def _leave(self) -> None:
        self._is_open = False

    def begin(self) -> dict[str, Any]:
        """Run a try from its beginning, and return the summary; a dry run ends when the input has been read."""
        self._make_run("")
        if self._arguments.dry_run:
            return self._dry_run()
        check_mapped(self._task, self._context)
        places = {name: getattr(self._arguments, name) for name in ("input_path", "output_path", "staging_path")}
        check_local_paths(places, getattr(self._task, "executor", None))
        self._check_readiness()
        self._overview.begin()
        if self._gives_rows_by_function and self._context["ti"].try_number > 1:
            self._saved_context.restore()
        try:
            whole = self._work.whole_already() if self._arguments.skip_whole_parts and self._is_fresh else None
            return self._follow(None) if whole is None else self._skip_whole(whole)
        except EmptyInput:
            if self._arguments.on_empty == "fail" or self._active:
                raise
            return self._end_without_rows()

    def _check_readiness(self) -> None:
        """Try, before anything is paid, what the landing will need.

        An earlier try may have paid for jobs: then what cannot be written to fails this try, not the task.
        """
        if self._anew:
            self._hook.settings.check_safe()
        try:
            check_other_tasks(self._task, self._context["ti"])
            self._work.output.check()
            staging = self._arguments.staging_path or self._hook.settings.staging_path
            check_readiness(self._arguments, self._work.output, Paths.of(self._hook), staging)
        except ConfigurationError as error:
            if self._anew:
                raise
            raise TransportError(str(error), sent=False) from error

    def _skip_whole(self, landing: Landing) -> dict[str, Any]:
        """Return the summary of a task without a job, whose output holds the rows of this very input."""
        return self._publish(summary_without_job("WHOLE", self._arguments.model, landing))

    def _dry_run(self) -> dict[str, Any]:
        self._work.output.check()
        try:
            self._work.plan(again=False, note={})
            estimate = self._work.estimate()
        finally:
            self._drop_kept_rows()
        log.info("Dry run: nothing was sent.")
        return {"job_name": None, "job_names": [], "state": "DRY_RUN", "model": self._arguments.model, **estimate}

    def resume(self, event: Any, memo: str) -> dict[str, Any]:
        """Continue after a wait, and return the summary. ``memo`` came with ``defer``, for triggers without one."""
        report = from_event(event)
        if not report.memo:
            report = replace(report, memo=memo)
        self._make_run(report.memo)
        # Before the input is read again, which takes a while.
        state = BatchState.from_json(report.memo) or BatchState()
        self._running = {one.name for one in state.in_use()} - {job.name for job in report.jobs if job.is_done}
        self.first_job_name = next((one.name for one in state.in_use()), "")
        self._overview.resume()
        self._anew, self._is_resumed = False, True
        for job in report.jobs:
            self._overview.job(job, created=False)
        if self.first_job_name and not self._running:
            self._overview.landing()
        if self._gives_rows_by_function:
            self._saved_context.restore()
        return self._follow(report)

    def kill(self) -> None:
        """Cancel the jobs that no further try may adopt, and stop the task's own code.

        Called inside the signal handler, so it uses only memory and a client of its own, and only for a moment. It does
        not ask Airflow for anything: the signal may have come in the middle of another request to its supervisor.
        Airflow also calls this after the task's ``execution_timeout``, whose error must reach the callbacks. Then the
        task's own code has already been left, and nothing is raised.

        :raises Killed: the task's own code is running.
        """
        self._killed = True
        ti = self._context["ti"]
        may_be_retried = ti.try_number <= ti.max_tries
        names = ", ".join(sorted(self._running))
        if not names:
            done = "No job was running."
        elif may_be_retried:
            done = f"Left running for the next try: {names}."
        elif self._arguments.cancel_on_kill:
            done = f"Cancelled {names}." if self._cancel_now() else f"Could not cancel all of {names}."
        else:
            done = f"Left running (cancel_on_kill=False): {names}."
        if self._is_open:
            raise Killed(f"The task was told to stop. {done}")

    def _cancel_now(self) -> bool:
        """Request the cancellation of what runs; return whether the service accepted all of it."""
        if self._settings is None:
            return False
        # A client of its own: the signal may have come in the middle of a call of the other.
        with client_from_settings(replace(self._settings, timeout=_KILL_TIMEOUT), attempts=1) as client:
            left = [name for name in sorted(self._running) if not _try_to_cancel(client, name)]
        return not left

    # -- following the run

    def _follow(self, report: WaitReport | None) -> dict[str, Any]:
        while True:
            if report is not None:
                self._telemetry.ran_since(report.running_since)
                self._overview.ran_since(report.running_since)
            try:
                step = self._run.advance(report)
            except TaskFailed as failure:
                raise self._failure(failure) from None
            match step:
                case Done():
                    return self._finish(step)
                case WaitForJobs():
                    if not self._arguments.wait_for_completion and step.all_created:
                        return self._finish_unwaited(step)
                    report = self._wait_for_jobs(step)
                case SleepUntil():
                    report = self._sleep_until(step)

    def _end_without_rows(self) -> dict[str, Any]:
        """Return the summary of a task that has nothing to send, or skip the task, as ``on_empty`` says."""
        if self._arguments.on_empty == "skip":
            self._drop_kept_rows()
            raise AirflowSkipException("The input has no rows (on_empty='skip').")
        log.info("The input has no rows: nothing was sent (on_empty='succeed').")
        return self._publish(summary_without_job("EMPTY", self._arguments.model, self._work.land([])))

    def _wait_for_jobs(self, step: WaitForJobs) -> WaitReport:
        arguments = self._arguments
        if self._anew:
            with best_effort("the estimate"):
                self._overview.input(self._work.estimate())
        self._overview.waiting_for_jobs()
        stalls = step.stalls_count
        policy = WaitPolicy(
            step.end_time,
            arguments.poll_interval,
            queue_timeout=arguments.queue_timeout if stalls else None,
            progress_timeout=arguments.progress_timeout if stalls else None,
            until=step.until,
        )
        if not arguments.deferrable:
            wait = self._blocking_wait(step.job_names, policy)
            report = wait.run(self._clock.sleep, memo=step.memo, breaks_at=self._next_look(step.turn))
            if report.reason is not Reason.TURN:
                self._wait = None
            return report
        return self._defer(self._trigger(step, policy), step.memo)

    def _blocking_wait(self, names: Sequence[str], policy: WaitPolicy) -> BlockingWait:
        """Return the wait that was broken off to look for a turn, which knows for how long its jobs stand still."""
        before = self._wait
        if before is not None and before.wait.policy == policy and [job.name for job in before.wait.jobs] == [*names]:
            return before
        self._wait = wait = BlockingWait(
            JobWait(names, policy),
            lambda name: self._hook.client.get(name, brief=True),
            now=self._clock.now,
            renew=self._hook.renew,
            log=lambda level, line: self._log_progress(level, line, wait),
        )
        return wait

    def _next_look(self, turn: TurnRequest | None) -> float:
        """Return when a task that does not defer next checks for room: at random, so that few check together."""
        if turn is None or turn.limit is None:
            return inf
        return self._clock.now() + self._arguments.poll_interval * (0.5 + random())  # noqa: S311  no secret

    def _log_progress(self, level: int, line: str, wait: BlockingWait) -> None:
        log.log(level, "%s", line)
        self._overview.progress(wait.text, wait.numbers)

    def _trigger(self, step: WaitForJobs | SleepUntil, policy: WaitPolicy) -> BaseTrigger:
        arguments, names = self._arguments, list(step.job_names)
        return self._make_trigger(
            names[0] if len(names) == 1 else names,
            gemini_conn_id=arguments.gemini_conn_id,
            poll_interval=arguments.poll_interval,
            end_time=policy.deadline + step.ahead,
            cancel_on_kill=arguments.cancel_on_kill,
            location=arguments.location,
            project_id=arguments.project_id,
            queue_timeout=policy.queue_timeout,
            progress_timeout=policy.progress_timeout,
            until=policy.until,
            memo=step.memo,
            turn=None if step.turn is None else step.turn._asdict(),
            input_tokens=self._work.input_tokens,
        )

    def _defer(self, trigger: BaseTrigger, memo: str) -> NoReturn:
        if self._gives_rows_by_function:
            self._saved_context.save()
        self._task.defer(trigger=trigger, method_name="execute_complete", kwargs={"memo": memo})
        raise AssertionError("defer() does not return")

    def _sleep_until(self, step: SleepUntil) -> WaitReport:
        self._overview.sleeping(step.reason, for_quota=step.for_quota)
        if not self._arguments.deferrable:
            looks_at = self._next_look(step.turn)
            self._clock.sleep(max(0.0, min(step.at, looks_at) - self._clock.now()))
            return WaitReport(Reason.TURN if looks_at < step.at else Reason.WAKE, memo=step.memo, turns=1)
        if step.job_names or step.turn is not None:
            # Our own trigger and not Airflow's, since it cancels the jobs when a person ends the task meanwhile.
            self._defer(self._trigger(step, WaitPolicy(step.at, until="time")), step.memo)
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        moment = datetime.fromtimestamp(step.at + step.ahead, tz=timezone.utc)
        return self._defer(DateTimeTrigger(moment), step.memo)

    def _failure(self, failure: TaskFailed) -> AirflowException:
        landing = failure.landing
        ti = self._context["ti"]
        is_final = not failure.verdict.retry or ti.try_number > ti.max_tries
        if is_final:
            self._drop_kept_rows()
        message, in_short = failure.verdict.message, failure.verdict.advice_first
        if isinstance(failure.__cause__, AccessDenied):
            message = in_short = with_connection(failure.__cause__, self._settings)
        if landing is not None:
            cost = self._cost(landing)
            self._overview.kept(landing, cost)
            if is_final:
                # Another try would land these rows again, and count them then.
                self._telemetry.landed((), landing, between=self._work.landed_between)
            log_summary(landing, cost)
            # Callbacks and alerts see the error, and not the log.
            if why := why_rows_failed(landing):
                message = f"{message} Failed rows: {why}."
            if landing.output:
                message = f"{message} The rows are at {landing.output}."
            elif landing.total:
                message = f"{message} There is no output_path: read the rows with GeminiGetBatchResponsesOperator."
        log.error("%s", in_short)
        log.debug("Raised by:", exc_info=failure.__cause__ or failure)
        if not failure.verdict.retry:
            return AirflowFailException(message)
        return RetryAtOnce(message) if failure.verdict.retry_at_once else AirflowException(message)

    # -- what the author gets

    def _announce(self, job: BatchJob) -> None:
        """Log a job and push its name as soon as it exists, so that a crash cannot hide it."""
        first = not self._active
        self.first_job_name = self.first_job_name or job.name
        self._active[job.name] = job
        if job.is_done:
            self._running.discard(job.name)
        else:
            self._running.add(job.name)
        if first:
            # For the link and for people. A retry does not use it: it goes by its notes and the service's list.
            with best_effort("the job's name"):
                self._context["ti"].xcom_push(key=JOB_NAME_KEY, value=job.name)
        is_new = job.name in self._service.created
        if is_new or not self._is_resumed:
            self._telemetry.job(job, created=is_new)
        if is_new:
            log.info("%s", created_line(job, self._arguments.model.rpartition("/")[2], self._hook.settings.base_url))
        elif not self._is_resumed and (page := page_of(job, self._hook.settings.base_url)):
            log.info("%s is at %s", job.name, page)
        self._overview.job(job, created=is_new)

    def _finish_unwaited(self, step: WaitForJobs) -> dict[str, Any]:
        # Those that ended before the last was created also belong to this task.
        state = BatchState.from_json(step.memo) or BatchState()
        jobs = [self._active[one.name] for one in state.in_use() if one.name in self._active]
        total = sum(job.completion_stats.total or 0 for job in jobs if job.completion_stats is not None)
        names = ", ".join(step.job_names)
        if unused := [name for name, unset in _FOR_RESPONSES.items() if getattr(self._arguments, name) != unset]:
            log.warning(
                "Not waiting for %s (wait_for_completion=False), so these have no effect: %s. Read the rows with "
                "GeminiGetBatchResponsesOperator when the job has ended.",
                names,
                ", ".join(unused),
            )
        else:
            log.info("Not waiting for %s (wait_for_completion=False).", names)
        self._overview.submitted()
        # This task does not come back, and nobody else needs its rows.
        return self._publish(summary_of(jobs, counts={"total": total, "succeeded": 0, "failed": 0}))

    def _finish(self, step: Done) -> dict[str, Any]:
        landing = step.landing
        counts = landing.counts or {"total": landing.total, "succeeded": landing.succeeded, "failed": landing.failed}
        usage = landing.usage.shown() if landing.usage is not None else None
        summary = summary_of(step.jobs, counts=counts, usage=usage, output=landing.output, responses=landing.responses)
        summary["cost"] = self._cost(landing, step.jobs)
        self._telemetry.landed(step.jobs, landing, between=self._work.landed_between)
        goes_to_xcom = landing.responses is not None and self._task.do_xcom_push
        if not goes_to_xcom and not landing.output and landing.total:
            log.warning(
                "The result rows %s and there is no output_path: they stay with the service as long as it keeps them. "
                "Set output_path, or read them with GeminiGetBatchResponsesOperator.",
                f"do not fit into XCom (max_xcom_bytes={self._arguments.max_xcom_bytes})"
                if landing.responses is None
                else "do not go into XCom (do_xcom_push=False)",
            )
        self._publish(summary)
        if self._arguments.output_path:
            # Only now: before the output has its final name, a crash would lose what was paid for.
            self._service.remove_responses(step.jobs)
        self._report_lineage(step.jobs, summary)
        self._overview.delivered(step.jobs, landing, summary["cost"])
        log_summary(landing, summary["cost"])
        return summary

    def _publish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return the summary, after Airflow was given what others take of it and the kept rows were removed."""
        update_asset_events(self._task.outlets, self._context, {name: summary[name] for name in IN_ASSET_EVENTS})
        label_of_map_index(self._context)
        self._drop_kept_rows()
        return summary

    def _drop_kept_rows(self) -> None:
        try:
            self._work.remove_kept()
        except (GeminiBatchError, OSError) as error:
            log.warning("Could not remove the rows that were kept for this task: %s", error)

    def _report_lineage(self, jobs: Sequence[BatchJob], summary: dict[str, Any]) -> None:
        """Report what was read and written: to Airflow now, to OpenLineage when its listener asks the operator."""
        with best_effort("lineage"):
            places = [self._service.place_of_responses(job) for job in jobs]
            lineage = lineage_of(self._arguments, summary, [place for place in places if place])
            self.lineage = (lineage, summary)
            report_to_hook_lineage(self._hook, lineage)

    def _cost(self, landing: Landing, jobs: Sequence[BatchJob] = ()) -> dict[str, Any] | None:
        return cost_of_landing(landing, self._arguments.model, jobs)

    # -- assembling the ports

    def _make_run(self, memo: str) -> None:
        arguments, ti = self._arguments, self._context["ti"]
        retries = self._task.retries or 0
        setup = TaskSetup.of(arguments, self._hook, self._folder, self._context, retries=retries, memo=memo)
        self._anew, self._is_fresh = setup.is_anew, setup.is_fresh
        self._work = work = make_work(setup)
        self._stack.callback(work.close)
        self._telemetry = TaskTelemetry(ti, arguments, self._hook.service)
        self._service = ClientJobService(
            self._hook.client,
            setup.job_settings(work.source),
            supply=work.supply,
            before_create=self._before_create,
        )
        self._run = BatchRun(
            TaskTry(
                identity=setup.task.digest,
                clear_count=setup.clear_count,
                try_number=ti.try_number,
                last_try=ti.try_number > ti.max_tries,
                policy=policy_of(arguments, self._hook.settings),
                service=self._service,
                store=setup.store,
                clock=self._clock,
                rows=work,
                on_job=self._announce,
                is_movable=bool(arguments.part_key),
            )
        )

    def _before_create(self) -> None:
        if self._killed:
            raise Killed("The task was told to stop; the create call was not sent.")
        self._telemetry.creating()


def _try_to_cancel(client: BatchClient, name: str) -> bool:
    try:
        client.cancel(name)
    except GeminiBatchError as error:
        log.warning("Could not cancel %s: %s", name, error)
        return False
    return True
