"""The rows of a run, as far as both kinds of source share it: responses are read from jobs and landed at the output."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import JobFailed, ResultsGone
from airflow_provider_gemini_batch.batch.ports import Landing, Plan
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, ResponseSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob, BatchResult
    from airflow_provider_gemini_batch.rows.delivery import Manifest
    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess
    from airflow_provider_gemini_batch.runtime.outputs import Output

log = logging.getLogger(__name__)


class TaskWork:
    """What both kinds of source share: responses are read from jobs and landed at the output."""

    #: Source arguments of the create call, for input that is at the service already.
    source: Mapping[str, Any] = {}
    #: Where the lines of our own rows come from.
    supply: Any = None
    #: When rows were last landed by this process, in seconds since the epoch.
    landed_between: tuple[float, float] | None = None

    def __init__(self, arguments: BatchArguments, access: ServiceAccess, folder: Path, output: Output) -> None:
        self._arguments = arguments
        self._access = access
        self._folder = folder
        self._output = output

    @property
    def _client(self) -> BatchClient:
        return self._access.client

    @property
    def output(self) -> Output:
        """Where the rows are landed."""
        return self._output

    def was_delivered(self, job_name: str) -> bool | None:
        """Return whether the existing output was landed from this job; None without an output path."""
        return self._output.holds(job_name)

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
        names = [job.name for job in jobs]
        try:
            summary, responses = self._output.write(
                self._sources(jobs),
                self._landing(),
                job_names=names,
                fingerprint=self._fingerprint() or "",
                carried_types=self._carried_types(),
                content_hash=self._content_hash(),
                max_xcom_bytes=self._arguments.max_xcom_bytes,
            )
        except ResultsGone:
            return self._landed_before(names)
        return landing_of(summary, output=self._output.path, responses=responses)

    def _landed_before(self, job_names: Sequence[str]) -> Landing:
        """Return what an earlier try has landed, which may have died after it removed the responses.

        To be called from an ``except`` clause, whose error is raised again when there is no such output.
        """
        manifest = self._output.existing_manifest(job_names)
        if manifest is None:
            raise  # noqa: PLE0704  (called from an except clause)
        return self._landed_already(manifest)

    def _landed_already(self, manifest: Manifest) -> Landing:
        output = self._output.landing_path
        log.info("The rows of %s are at %s already.", ", ".join(manifest.job_names), output)
        self._output.mark_whole()
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
        return [ResponseSource(lambda job=job: self._responses(job), self._rows_of(job)) for job in jobs]  # type: ignore[misc]

    def _responses(self, job: BatchJob) -> Iterator[BatchResult]:
        """Return the responses of a job; one that failed may have none."""
        try:
            return self._client.get_responses(job)
        except JobFailed:
            return iter(())

    def _rows_of(self, job: BatchJob) -> Sequence[int] | None:  # noqa: ARG002
        return None

    def _landing(self) -> LandingSpec:
        raise NotImplementedError

    def _fingerprint(self) -> str | None:
        return None

    def _content_hash(self) -> str:
        """Return a hash of all that decides what the rows hold; empty where they are never skipped as whole."""
        return ""

    def _carried_types(self) -> Mapping[str, str]:
        """Return the columns of the input that go into the output, with their types."""
        return {}


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
