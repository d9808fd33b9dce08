"""Workers: they run the product's own task code over simulated ports."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.batch.adoption import is_of_earlier_run
from airflow_provider_gemini_batch.batch.ports import TaskTry
from airflow_provider_gemini_batch.batch.run import BatchRun
from airflow_provider_gemini_batch.runtime.client import airflow_errors
from airflow_provider_gemini_batch.runtime.create_task import TaskRun
from airflow_provider_gemini_batch.runtime.state_store import TaskStateStore
from airflow_provider_gemini_batch.runtime.task_setup import CLOCK_SLACK, policy_of
from airflow_provider_gemini_batch.runtime.telemetry import TaskTelemetry
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger
from simulation.clockwork import START, Process
from simulation.ports import RawStore, SimClock, SimService, SimWork, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Landing
    from simulation.airflow import Airflow


class Deferred(BaseException):
    """The task gives its worker back. Like Airflow's own, it passes ``except Exception``."""

    def __init__(self, trigger: Any, memo: str) -> None:
        super().__init__()
        self.trigger = trigger
        self.memo = memo


class SimTaskRun(TaskRun):
    """The product's task code; only what it opens and the ports that it makes are replaced."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        task: Any = SimpleNamespace(defer=worker.defer, outlets=(), do_xcom_push=True)
        super().__init__(
            worker.airflow.setting.arguments, task, worker.context, hook=worker.hook, make_trigger=GeminiBatchJobTrigger
        )
        self._stack = ExitStack()
        self._clock = SimClock(worker.steps, worker.skew)  # type: ignore[assignment]
        self._work: Any = worker.work
        self._anew = False
        # Metrics and spans are not of interest here.
        self._telemetry = Mock(TaskTelemetry)

    def __enter__(self) -> Self:
        self._is_open = True
        self._stack.enter_context(airflow_errors())
        return self

    def _make_run(self, memo: str) -> None:  # noqa: ARG002  the deployment keeps its name here
        worker, airflow = self._worker, self._worker.airflow
        self._service: Any = worker.service(self._before_create)
        self._run = BatchRun(
            TaskTry(
                identity=airflow.identity.digest,
                clear_count=airflow.max_tries,
                try_number=airflow.try_number,
                last_try=airflow.try_number > airflow.max_tries,
                policy=policy_of(airflow.setting.arguments, worker.hook.settings),
                service=self._service,
                store=TaskStateStore(worker.context, self._clock.sleep),
                clock=self._clock,
                rows=worker.work,
                on_job=self._announce,
            )
        )

    def _cancel_now(self) -> bool:
        for name in sorted(self._running):
            self._worker.cancel_now(name)
        return True

    def _check_readiness(self) -> None:
        """Places to write to are not of interest here."""

    def _report_lineage(self, jobs: Sequence[BatchJob], summary: dict[str, Any]) -> None:
        """Who reads and writes what is not of interest here."""

    def _count(self, landing: Landing, jobs: Sequence[BatchJob]) -> None:
        """Airflow's metrics are not of interest here."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._is_open = False
        return self._stack.__exit__(kind, error, trace)


class Worker:
    """One process of one try."""

    def __init__(self, airflow: Airflow, event: Any, memo: str | None) -> None:
        """Start it: at the beginning of a try if ``memo`` is None, else after a wait."""
        self.airflow = airflow
        self.epoch = airflow.epoch
        self.number = airflow.try_number
        self._event = event
        self._memo = memo
        self.was_told = memo is not None
        self._task_run: SimTaskRun | None = None
        name = f"try {self.number}"
        self.process = Process(airflow.clock, name, self._main, lambda result: airflow.worker_ended(self, result))
        setting, clock = airflow.setting, airflow.clock
        #: Each process runs on one of two machines.
        self.skew = setting.clocks.workers[clock.random.randrange(2)]
        self.steps = Steps(clock, self.process.pause, crash=setting.crash, die=self._die)
        self.work = SimWork(
            self.steps,
            airflow.world,
            airflow.inputs,
            airflow.output,
            can_resend=setting.can_resend,
            epoch=self.epoch,
        )
        client = SimpleNamespace(
            get=lambda name, *, brief: self.service(lambda: None).get(name)  # noqa: ARG005
        )
        settings = SimpleNamespace(
            service=Service.GEMINI,
            timeout=setting.request_timeout,
            max_active_jobs=setting.max_active_jobs,
            base_url=None,
        )
        self.hook: Any = SimpleNamespace(client=client, renew=lambda: None, settings=settings)
        store = RawStore(self.steps, airflow.kept, lambda: airflow.epoch == self.epoch, setting.hiccup)
        self.context: Any = {
            "ti": SimpleNamespace(
                map_index=-1,
                try_number=airflow.try_number,
                max_tries=airflow.max_tries,
                xcom_push=lambda **_: self.steps.step(0.1),
            ),
            "task_state_store": store if setting.store else None,
            "outlet_events": {},
        }

    def service(self, may_create: Any) -> SimService:
        """Make the port to the service."""
        airflow = self.airflow
        timeout = airflow.setting.request_timeout
        return SimService(
            self.steps,
            airflow.world,
            airflow.inputs,
            by=f"try {self.number}",
            timeout=timeout,
            may_create=may_create,
            is_earlier=self._is_earlier,
            on_sent=lambda tag, unanswered, in_vain: airflow.checks.sent(
                tag, epoch=self.epoch, unanswered=unanswered, in_vain=in_vain
            ),
        )

    def _is_earlier(self, job: BatchJob) -> bool:
        """Cut the list where the product cuts it."""
        airflow = self.airflow
        if airflow.max_tries > airflow.setting.retries:
            return False
        began = airflow.setting.clocks.airflow.at(START)
        return is_of_earlier_run(
            job,
            run_began=datetime.fromtimestamp(began, tz=timezone.utc) - CLOCK_SLACK,
            now=datetime.fromtimestamp(self.skew.at(airflow.clock.now), tz=timezone.utc),
        )

    def cancel_now(self, name: str) -> None:
        """Cancel a job from inside the signal handler."""
        with suppress(GeminiBatchError):
            self.airflow.world.cancel(name, f"try {self.number}")

    def kill_gently(self) -> None:
        """SIGTERM, and SIGKILL five seconds later."""
        if self.process.over:
            return
        self.airflow.clock.note(f"try {self.number}: SIGTERM")
        try:
            if self._task_run is not None:
                self._task_run.kill()
        except BaseException as error:  # noqa: BLE001  what the signal handler raises goes on in the process
            self.process.stop(error)
        self.airflow.clock.after(5.0, self.process.kill)

    def _die(self) -> None:
        if self.airflow.may_crash():
            self.airflow.clock.note(f"try {self.number}: SIGKILL")
            self.airflow.killed = True
            self.process.kill()

    def defer(self, *, trigger: Any, method_name: str, kwargs: dict[str, Any]) -> None:
        """Stand for the operator's way to defer."""
        assert method_name == "execute_complete"
        raise Deferred(trigger, kwargs["memo"])

    def _main(self) -> Any:
        try:
            with SimTaskRun(self) as run:
                self._task_run = run
                result: Any = run.begin() if self._memo is None else run.resume(self._event, self._memo)
        except Deferred as deferred:
            result = deferred
        # Telling Airflow is one more step at which a worker may die.
        self.steps.step(0.2)
        return result


def moment_of(trigger: Any) -> float:
    """Give the time of a DateTimeTrigger in seconds since the epoch."""
    moment: datetime = trigger.moment
    return moment.astimezone(timezone.utc).timestamp()
