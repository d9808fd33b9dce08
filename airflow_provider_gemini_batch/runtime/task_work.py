"""The rows of a run, as far as both kinds of source share it: responses are read from jobs and landed at the output."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import JobFailed, ResultsGone
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.batch.ports import Landing, Plan
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, ResponseSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob, BatchResult
    from airflow_provider_gemini_batch.rows.delivery import Manifest, Origin
    from airflow_provider_gemini_batch.runtime.outputs import Output
    from airflow_provider_gemini_batch.runtime.task_setup import TaskSetup

log = logging.getLogger(__name__)


class TaskWork:
    """What both kinds of source share: responses are read from jobs and landed at the output."""

    #: Source arguments of the create call, for input that is at the service already.
    source: Mapping[str, Any] = {}
    #: Where the lines of our own rows come from.
    supply: Any = None
    #: When rows were last landed by this process, in seconds since the epoch.
    landed_between: tuple[float, float] | None = None

    def __init__(self, setup: TaskSetup, output: Output) -> None:
        self._arguments = setup.arguments
        self._access = setup.access
        self._folder = setup.folder
        #: Where the rows are landed.
        self.output = output

    def was_delivered(self, job_name: str) -> bool | None:
        """Return whether the existing output was landed from this job; None without an output path."""
        return self.output.holds(job_name)

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:
        """Return the plan: read, check and fingerprint the input."""
        raise NotImplementedError

    def whole_already(self) -> Landing | None:
        """Return what another run has landed of this very input; None for input at the service."""
        return None

    def forget_input(self) -> Plan:
        """Return the plan without the input."""
        raise NotImplementedError

    def estimate(self) -> dict[str, Any]:
        """Return how large the input is; for input at the service, only its name is known."""
        return {"source": dict(self.source)}

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        """Return what the responses of the jobs count up to, without landing them."""
        raise NotImplementedError

    @property
    def input_tokens(self) -> int:
        """About how many tokens the input has; 0 for rows that were not read here."""
        return 0

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Write the result rows, and the manifest last."""
        began = time.time()
        try:
            return self._land(jobs)
        finally:
            self.landed_between = (began, time.time())

    def _land(self, jobs: Sequence[BatchJob]) -> Landing:
        try:
            summary, responses = self.output.write(self._sources(jobs), self._landing(), self._origin(jobs))
        except ResultsGone:
            return self._landed_before(jobs)
        return landing_of(summary, output=self.output.path, responses=responses)

    def _landed_before(self, jobs: Sequence[BatchJob]) -> Landing:
        """Return what an earlier try has landed, which may have died after it removed the responses.

        To be called from an ``except`` clause, whose error is raised again when the output does not exist.
        """
        manifest = self.output.existing_manifest([job.name for job in jobs])
        if manifest is None:
            raise  # noqa: PLE0704  (called from an except clause)
        return self._landed_already(manifest)

    def _landed_already(self, manifest: Manifest) -> Landing:
        output = self.output.landing_path
        log.info("The rows of %s are at %s already.", ", ".join(manifest.origin.job_names), output)
        self.output.mark_whole()
        counts = dict(manifest.counts)
        return Landing(
            total=counts["total"],
            succeeded=counts["succeeded"],
            failed=counts["failed"],
            counts=counts,
            usage=manifest.usage,
            output=output,
        )

    def close(self) -> None:
        """Close what is open."""

    def remove_kept(self) -> None:
        """Remove what was kept until the results were delivered."""

    def _sources(self, jobs: Sequence[BatchJob]) -> list[ResponseSource]:
        in_order = self._access.service is not Service.VERTEX
        return [ResponseSource(lambda job=job: self._responses(job), self._rows_of(job), in_order) for job in jobs]  # type: ignore[misc]

    def _responses(self, job: BatchJob) -> Iterator[BatchResult]:
        """Return the responses of a job; one that failed may have none."""
        try:
            return self._access.client.get_responses(job)
        except JobFailed:
            return iter(())

    def _rows_of(self, job: BatchJob) -> Sequence[int] | None:  # noqa: ARG002
        return None

    def _landing(self) -> LandingSpec:
        raise NotImplementedError

    def _origin(self, jobs: Sequence[BatchJob]) -> Origin:
        """Return where the result rows of these jobs come from."""
        return replace(self.output.origin, job_names=tuple(job.name for job in jobs))


def landing_of(
    summary: LandingSummary, *, output: str | None = None, responses: list[dict[str, Any]] | None = None
) -> Landing:
    """Return a summary as the landing that a run expects."""
    return Landing(
        total=summary.rows,
        succeeded=summary.succeeded,
        failed=summary.failed,
        counts=summary.counts,
        usage=summary.usage,
        output=output,
        responses=responses,
        repairable=tuple(summary.repairable),
        reasons=summary.reasons,
        long_prompts=summary.long_prompts,
        failed_keys=summary.failed_keys,
    )
