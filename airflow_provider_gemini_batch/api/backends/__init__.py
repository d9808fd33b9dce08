"""What the client asks of a batch service; the wire formats are in ``gemini`` and ``vertex`` and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

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

    Row: TypeAlias = str | Mapping[str, Any] | BatchRequest | CheckedLine

CREATE_TIMEOUT_FACTOR: Final = 5.0
"""A create call may take so many times the ordinary time-out: it checks every line of a file of up to 2 GB first."""


@dataclass(frozen=True)
class NewJob:
    """A job to be made, as the caller put it; each backend takes what its service can do and refuses the rest.

    ``settings`` holds those of generation_config, system_instruction, request_defaults, task_type and
    output_dimensionality that were given: no service has them for a whole job, so they go into each request.
    """

    kind: JobKind
    model: str
    inlined_requests: Iterable[Row] | None = field(default=None, repr=False)
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
    """A job as it is now, and its answers as far as the service has any to give (None: there are none, or not yet).

    :param problem: why an output that is there cannot be read; it may still change while the output is late.
    """

    job: BatchJob
    answers: Iterator[BatchResult] | None
    problem: UnknownOutput | None = None


class Backend(Protocol):
    """One batch service. Names have been checked for their form when a method returns, never silently changed."""

    service: Service

    def create(self, new: NewJob) -> BatchJob:
        """Make a job; sent once, unless it surely never left."""

    def get(self, name: str, *, brief: bool) -> BatchJob:
        """Ask for one job; brief leaves out where its answers are."""

    def list(self, *, page_size: int, page_token: str | None, filter_: str | None, brief: bool) -> BatchJobPage:
        """Ask for a page of jobs, newest first."""

    def snapshots(self, *, page_size: int, page_token: str | None) -> SnapshotPage:
        """Ask for a page of looks at jobs, newest first."""

    def cancel(self, name: str) -> None:
        """Ask the service to stop a job; ApiError when it refuses, as it may for one that has ended."""

    def delete(self, name: str) -> None:
        """Remove a job from the service."""

    def outcome(self, name: str) -> Outcome:
        """Ask for one job with its answers."""

    def output_source(self, name: str) -> JobSource | None:
        """Say where a new job can read what this one left, which the service then completes; None: nowhere."""

    def file_results(self, file_name: str) -> Iterator[BatchResult]:
        """Open an output file by its name; NotFound when it is not there (any more, or yet)."""
