"""What the client asks of a batch service; the wire formats are in ``gemini`` and ``vertex`` and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_gemini_batch.api.errors import UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TypeAlias

    from airflow_provider_gemini_batch.api.errors import UnknownOutput
    from airflow_provider_gemini_batch.api.models import (
        BatchJob,
        BatchJobPage,
        BatchResult,
        JobKind,
        JobSource,
        Service,
        SnapshotPage,
    )
    from airflow_provider_gemini_batch.api.requests.request import BatchRequest, CheckedLine

    RequestLike: TypeAlias = str | Mapping[str, Any] | BatchRequest | CheckedLine

CREATE_TIMEOUT_FACTOR: Final = 5.0
"""How many times longer a create call may take: the service first checks every line of a file of up to 2 GB."""


@dataclass(frozen=True)
class NewJob:
    """A job to create, as the caller described it; each backend refuses what its service cannot do.

    ``settings`` holds the given ones of generation_config, system_instruction, request_defaults, task_type and
    output_dimensionality: no service has them for a whole job, so they go into each request.
    """

    kind: JobKind
    model: str
    inlined_requests: Iterable[RequestLike] | None = field(default=None, repr=False)
    file_name: str | None = None
    gcs_uris: tuple[str, ...] = ()
    bigquery_uri: str | None = None
    destination: str | None = None
    display_name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    priority: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A job as it is now, and its responses; None: there are none, or not yet.

    :param problem: why an existing output cannot be read; while the output is late, this may change.
    """

    job: BatchJob
    responses: Iterator[BatchResult] | None
    problem: UnknownOutput | None = None


def check_is_asked(name: str, asked: str | None, description: str) -> None:
    """Raise UnexpectedResponse if the job in a response is not the one that was asked for, as from a gateway's cache.

    Vertex AI may show the project's number in place of its id, so only the ends of the names are compared.
    """
    if asked is not None and name.rpartition("/")[2] != asked.rpartition("/")[2]:
        raise UnexpectedResponse(f"{description}: the response describes another job")


class Backend(Protocol):
    """One batch service. Its methods check the form of names and never change them silently."""

    service: Service

    def create(self, new: NewJob) -> BatchJob:
        """Create a job. The call is sent once; it is repeated only if it certainly did not leave."""

    def get(self, name: str, *, brief: bool) -> BatchJob:
        """Return one job; ``brief`` omits where its responses are."""

    def list(self, *, page_size: int, page_token: str | None, filter_: str | None, brief: bool) -> BatchJobPage:
        """Return a page of jobs, newest first."""

    def snapshots(self, *, page_size: int, page_token: str | None) -> SnapshotPage:
        """Return a page of snapshots of jobs, newest first."""

    def cancel(self, name: str) -> None:
        """Request cancellation. Raises ApiError when the service refuses, as it may once the job has ended."""

    def delete(self, name: str) -> None:
        """Remove a job from the service."""

    def outcome(self, name: str) -> Outcome:
        """Return one job with its responses."""

    def output_source(self, name: str) -> JobSource | None:
        """Return the output of a job as a source from which a new job can complete it; None: not possible."""

    def file_results(self, file_name: str) -> Iterator[BatchResult]:
        """Yield the results in an output file. Raises NotFound when it does not exist yet, or no longer."""
