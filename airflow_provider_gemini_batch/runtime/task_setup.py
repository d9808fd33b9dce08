"""From an operator's arguments and Airflow's context to the values that a run works with; nothing is sent yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.api.backends import CREATE_TIMEOUT_FACTOR
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.batch.ports import Policy
from airflow_provider_gemini_batch.batch.state import BatchState
from airflow_provider_gemini_batch.batch.tag import TaskIdentity
from airflow_provider_gemini_batch.polling.policy import longest_wait
from airflow_provider_gemini_batch.runtime.deployment import deployment
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.runtime.state_store import TaskStateStore
from airflow_provider_gemini_batch.staging.job_service import JobSettings, job_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow.sdk import Context
    from typing_extensions import Self

    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings

# How far the service's clock and Airflow's may differ, where a look-up ends at jobs that are older than the run.
CLOCK_SLACK: Final = timedelta(minutes=15)


@dataclass(frozen=True)
class TaskSetup:
    """What one process of a task works with.

    ``folder`` is for temporary files, ``store`` for what the next process has to know. ``clear_count`` grows when a
    person clears the task; it began with ``first_clear_count``. ``is_anew``: no try of this task instance has run
    before. ``is_fresh``: nothing was bought since the task was cleared, as far as the notes say. ``run_began``: jobs
    that are older belong to an earlier run with the same id; None after a clear.
    """

    arguments: BatchArguments
    access: ServiceAccess
    folder: Path
    task: TaskIdentity
    store: TaskStateStore
    clear_count: int
    first_clear_count: int
    is_anew: bool
    is_fresh: bool
    run_began: datetime | None

    @classmethod
    def of(
        cls,
        arguments: BatchArguments,
        access: ServiceAccess,
        folder: Path,
        context: Context,
        *,
        retries: int,
        memo: str = "",
    ) -> Self:
        """Return the setup of a process whose connection is open.

        :param retries: how often Airflow itself tries the task again.
        :param memo: the notes that came with an event; empty when a try begins.
        """
        ti, run_began = context["ti"], context["dag_run"].start_date
        store = TaskStateStore(context, part=arguments.part_key or "")
        noted = BatchState.from_json(memo) or BatchState.from_json(store.load())
        has_notes = noted is not None and bool(noted.fingerprint)
        is_cleared = ti.max_tries > retries
        return cls(
            arguments,
            access,
            folder,
            identity_of(ti, arguments.part_key, noted=noted.identity if noted is not None else ""),
            store,
            clear_count=ti.max_tries,
            first_clear_count=retries,
            is_anew=ti.try_number <= 1 and not has_notes,
            is_fresh=not has_notes or (noted is not None and noted.clear_count != ti.max_tries),
            run_began=run_began - CLOCK_SLACK if run_began and not is_cleared else None,
        )

    @property
    def paths(self) -> Paths:
        """How the task reads and writes its paths."""
        return Paths.of(self.access)

    @property
    def staging(self) -> str | None:
        """The folder for what the service reads, from operator, connection or configuration."""
        return self.arguments.staging_path or self.access.settings.staging_path

    @property
    def lands(self) -> bool:
        """Whether this task lands the responses itself."""
        return self.arguments.wait_for_completion and not self.arguments.dry_run

    def kept_file(self, kind: str, clear_count: int | None = None) -> tuple[str, str | None] | None:
        """Return path and connection of a file that is kept over the wait; None if there is no place for it.

        :param clear_count: of an earlier file; None: of this one.
        """
        name = f"{self.task.digest}-{self.clear_count if clear_count is None else clear_count}.{kind}"
        if self.staging:
            return f"{self.staging.rstrip('/')}/{name}", None
        if self.arguments.output_path:
            # Some readers take *.jsonl for any name with this ending, also one that begins with a dot.
            hidden = f".{name.removesuffix('.jsonl')}"
            return f"{self.arguments.output_path.rpartition('/')[0]}/{hidden}", self.arguments.output_conn_id
        return None

    def job_settings(self, source: Mapping[str, Any]) -> JobSettings:
        """Return what every job of the task is created with.

        :param source: the input, if it is at the service already.
        """
        arguments, settings, task = self.arguments, self.access.settings, self.task
        labels = {}
        if settings.service is Service.VERTEX:
            given = {**settings.labels, **(arguments.labels or {})}
            labels = job_labels(given, dag_id=task.dag_id, task_id=task.task_id, run_id=task.run_id)
        # Responses in a table are read only for an output path.
        is_read = arguments.output_path is not None or not arguments.has_response_table
        return JobSettings(
            model=arguments.model,
            kind=arguments.kind,
            display_name=arguments.display_name,
            priority=arguments.priority,
            labels=labels,
            source=source,
            destination=arguments.destination,
            staging_path=self.staging,
            keep_input=arguments.keep_input,
            reads_responses=arguments.wait_for_completion and is_read,
            run_began=self.run_began,
        )


def policy_of(arguments: BatchArguments, settings: ConnectionSettings) -> Policy:
    """Return what the author and the connection ask of a batch."""
    return Policy(
        service_wait=longest_wait(settings.service),
        reattach=arguments.reattach,
        lookup_timeout=arguments.lookup_timeout,
        # How long the service may still act on a create call that got no response.
        request_timeout=settings.timeout * CREATE_TIMEOUT_FACTOR,
        timeout=arguments.timeout,
        cancel_on_timeout=arguments.cancel_on_timeout,
        queue_timeout=arguments.queue_timeout,
        on_stall=arguments.on_stall,
        max_resubmits=arguments.max_resubmits,
        repair_rounds=arguments.repair_rounds,
        max_active_jobs=arguments.max_active_jobs,
        max_active_jobs_of_connection=settings.max_active_jobs,
        max_failed_rows=arguments.max_failed_rows,
        max_failure_rate=arguments.max_failure_rate,
    )


def identity_of(ti: Any, part_key: str | None = None, *, noted: str = "") -> TaskIdentity:
    """Return the identity of a task instance.

    :param part_key: the part of a dataset that it does.
    :param noted: the digest that its jobs have, as far as its notes say.
    """
    map_index = -1 if ti.map_index is None else ti.map_index
    return TaskIdentity(deployment(), ti.dag_id, ti.task_id, ti.run_id, part_key or map_index, noted)
