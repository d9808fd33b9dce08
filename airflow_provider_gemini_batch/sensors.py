"""The sensor that waits for jobs which somebody else created. It never cancels them, since they are not its own.

Dag files import this module, so it is light; what a running sensor needs is in :mod:`.runtime.sensor_task`.
"""

from __future__ import annotations

import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue

from airflow_provider_gemini_batch.runtime.argument_readers import flag
from airflow_provider_gemini_batch.runtime.arguments import (
    DEFAULT_CONN_ID,
    SensorArguments,
    argument_names,
    check_parsed,
    default_deferrable,
)
from airflow_provider_gemini_batch.runtime.dag_errors import naming_the_task
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_gemini_batch.runtime.sensor_task import SensorRun

# The trigger keeps the deadline itself; Airflow's own time-out is for the case that no triggerer runs.
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
    :param deferrable: wait in the triggerer; default: ``[operators] default_deferrable`` where somebody has set it,
        else True. Otherwise Airflow's ``mode`` says how the worker waits.

    ``poke_interval``, ``timeout``, ``soft_fail``, ``mode`` and the others are those of every Airflow sensor.
    """

    #: When this process began to wait, in seconds since the epoch.
    _began: float | None = None

    template_fields: Sequence[str] = argument_names(SensorArguments)

    def __init__(
        self,
        *,
        job_name: str | list[str],
        gemini_conn_id: str | None = DEFAULT_CONN_ID,
        location: str | None = None,
        project_id: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.gemini_conn_id = DEFAULT_CONN_ID if gemini_conn_id is None else gemini_conn_id
        self.location = location
        self.project_id = project_id
        with naming_the_task(self.operator_name, self.task_id):
            self.deferrable = default_deferrable() if deferrable is None else flag("deferrable", deferrable)
            check_parsed(SensorArguments, {name: getattr(self, name) for name in self.template_fields})

    @cached_property
    def _run(self) -> SensorRun:
        from airflow_provider_gemini_batch.hooks import GeminiBatchHook  # not where Dag files are parsed
        from airflow_provider_gemini_batch.runtime.client import airflow_errors
        from airflow_provider_gemini_batch.runtime.sensor_task import SensorRun, SensorSetup

        with airflow_errors():
            hook = GeminiBatchHook(self.gemini_conn_id, location=self.location, project_id=self.project_id)
        return SensorRun(
            SensorSetup(
                job_name=self.job_name,
                poll_interval=self.poke_interval,
                timeout=self.timeout,
                began=self._began or time.time(),
                stays=not self.deferrable and not self.reschedule,
                forgets=not self.deferrable and self.reschedule,
                skips=self.soft_fail or self.never_fail,
                log=self.log,  # type: ignore[arg-type]  # a logger of structlog's, with the same methods
            ),
            hook,
        )

    def execute(self, context: Context) -> Any:
        """Poll once, wait if that is necessary, and return the XCom value."""
        # Before Airflow begins to count: its own words for a time-out would not say how the jobs are.
        self._began = began = time.time()
        if not self.deferrable:
            return super().execute(context)
        result = self._run.poll()
        if result is not None:
            return result
        return self.defer(
            trigger=GeminiBatchJobTrigger(
                list(self._run.names),
                self.gemini_conn_id,
                self.poke_interval,
                began + self.timeout,
                location=self.location,
                project_id=self.project_id,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + _SLACK,
        )

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Return the XCom value for what the trigger saw; if its event cannot be read, poll and wait again."""
        result = self._run.finish(event)
        return self.execute(context) if result is None else result

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002  Airflow passes it
        """Poll the jobs from the worker; return whether all have ended well."""
        result = self._run.poll()
        return False if result is None else PokeReturnValue(is_done=True, xcom_value=result)
