"""What both kinds of source share: the answers are read from jobs and landed at the output."""

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
    """What both kinds of source share: the answers are read from jobs and landed at the output."""

    #: Source arguments of the create call, for input that lies at the service already.
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
        """Tell whether the output that lies there was made from this job; None without an output path."""
        return self._output.holds(job_name)

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:
        """Read, check and fingerprint the input."""
        raise NotImplementedError

    def whole_already(self) -> Landing | None:
        """Return what another run has landed of this very input; only for rows of ours."""
        return None

    def forget_input(self) -> Plan:
        """Go on without the input."""
        raise NotImplementedError

    def estimate(self) -> dict[str, Any]:
        """Tell what the input comes to; of rows that are not ours, nothing is known but their names."""
        return {"source": dict(self.source)}

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        """Read the answers and count, without keeping them."""
        raise NotImplementedError

    @property
    def input_tokens(self) -> int:
        """About how many tokens the input has; 0 for rows that nobody has read."""
        return 0

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Write one row for each, and the manifest last."""
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
                beside=self._beside(),
                max_xcom_bytes=self._arguments.max_xcom_bytes,
            )
        except ResultsGone:
            return self._landed_before(names)
        return landing_of(summary, output=self._output.path, responses=responses)

    def _landed_before(self, job_names: Sequence[str]) -> Landing:
        """Give what an earlier try has landed; it may have died after removing the answers, before it could say so.

        To be called while the error is handled, which is raised again when there is no such output.
        """
        manifest = self._output.made_from(job_names)
        if manifest is None:
            raise  # noqa: PLE0704  (called from an except clause)
        return self._landed_already(manifest)

    def _landed_already(self, manifest: Manifest) -> Landing:
        log.info("The rows of %s are at %s already.", ", ".join(manifest.job_names), manifest.output)
        counts = dict(manifest.counts)
        return Landing(
            total=counts["total"],
            succeeded=counts["succeeded"],
            failed=counts["failed"],
            counts=counts,
            usage=manifest.usage,
            output=manifest.output,
        )

    def close(self) -> None:
        """Close what is open."""

    def delivered(self) -> None:
        """Remove what was kept for as long as the answers were not with the author."""

    def _sources(self, jobs: Sequence[BatchJob]) -> list[ResponseSource]:
        return [ResponseSource(lambda job=job: self._answers(job), self._rows_of(job)) for job in jobs]  # type: ignore[misc]

    def _answers(self, job: BatchJob) -> Iterator[BatchResult]:
        """Open the answers of a job; one that failed may have left some, or none."""
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

    def _beside(self) -> str:
        """Return a hash of what the rows hold beside what the fingerprint stands for."""
        return ""

    def _carried_types(self) -> Mapping[str, str]:
        """Columns of the input that go into the output, and what they hold."""
        return {}


def landing_of(
    summary: LandingSummary, *, output: str | None = None, responses: list[dict[str, Any]] | None = None
) -> Landing:
    """Return a summary in the words of a run."""
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
