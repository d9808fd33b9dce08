"""Neutral, frozen values that every layer uses: jobs, states, counts, files, rows.

Rules of this file: no wire name, no network, no Airflow. Backends turn the service's JSON into these values; nothing
else may read that JSON. A state that we do not know is :attr:`JobState.UNKNOWN`, with its raw name beside it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_gemini_batch.api.states import NEVER_STARTED, JobKind, JobState, Service

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BatchJob",
    "BatchJobPage",
    "BatchResult",
    "CompletionStats",
    "File",
    "FilePage",
    "JobDestination",
    "JobKind",
    "JobProgress",
    "JobSnapshot",
    "JobSource",
    "JobState",
    "Service",
    "ServiceError",
    "SnapshotPage",
    "Usage",
]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceError(_Value):
    """Why a job or a row failed, in the service's words. ``code`` is the gRPC number (3 bad argument, 8 quota ...)."""

    code: int | None = None
    message: Annotated[str, Field(repr=False)] = ""


class CompletionStats(_Value):
    """How many requests of a job are done. The service's counters lag: never infer the end of a job from them."""

    total: int | None = None
    success: int = 0
    failure: int = 0
    pending: int | None = None


class JobSource(_Value):
    """Where a job reads its requests. If all members are empty, they were inline, or the service does not say."""

    file_name: str | None = None
    gcs_uris: tuple[str, ...] = ()
    bigquery_uri: str | None = None


class JobDestination(_Value):
    """Where a job writes its responses; on Cloud Storage and BigQuery the actual place, once the service reports it."""

    file_name: str | None = None
    inlined: bool = False
    gcs_uri: str | None = None
    bigquery_uri: str | None = None


class BatchJob(_Value):
    """One batch job of either service, as of the moment of asking.

    ``name`` is ``batches/<id>`` or ``projects/<p>/locations/<l>/batchPredictionJobs/<id>``; ``model`` is without
    ``models/``; times are the service's, with a zone. ``as_of`` is the service's time when it responded (its ``Date``
    header), so that an age can be computed from one clock.
    """

    name: str
    service: Service
    state: JobState
    raw_state: str = ""
    kind: JobKind | None = None
    display_name: str = ""
    model: str = ""
    create_time: datetime | None = None
    start_time: datetime | None = None
    update_time: datetime | None = None
    end_time: datetime | None = None
    as_of: datetime | None = None
    completion_stats: CompletionStats | None = None
    error: ServiceError | None = None
    src: JobSource = JobSource()
    dest: JobDestination | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    priority: int | None = None

    @property
    def is_done(self) -> bool:
        """True when the job has ended, well or not."""
        return self.state.is_terminal

    @property
    def succeeded(self) -> bool:
        """True when the job ended well as a whole; single rows may still have failed."""
        return self.state is JobState.SUCCEEDED

    @property
    def failed(self) -> bool:
        """True when the service gave up on the job."""
        return self.state is JobState.FAILED

    @property
    def cancelled(self) -> bool:
        """True when somebody cancelled the job and it has ended."""
        return self.state is JobState.CANCELLED

    @property
    def expired(self) -> bool:
        """True when the job reached the service's own time limit."""
        return self.state is JobState.EXPIRED

    @property
    def running(self) -> bool:
        """True when the job has left the queue and has not ended."""
        return not self.is_done and self.state not in NEVER_STARTED

    @property
    def never_started(self) -> bool:
        """True while the job waits in the service's queue."""
        return self.state in NEVER_STARTED

    @property
    def progress(self) -> float | None:
        """Percent of requests done, or None when the service reports no counts."""
        stats = self.completion_stats
        if stats is None or not stats.total:
            return None
        return 100.0 * (stats.success + stats.failure) / stats.total


class BatchJobPage(_Value):
    """One page of the list of jobs, newest first; ``as_of`` is the service's time when it responded."""

    batch_jobs: tuple[BatchJob, ...] = ()
    next_page_token: str | None = None
    as_of: datetime | None = None

    @property
    def has_more_pages(self) -> bool:
        """True when the service has a further page; a page may be empty and still have one."""
        return bool(self.next_page_token)


class JobProgress(Struct, frozen=True, gc=False):
    """What changes in a job while it runs. ``counted`` is False when the service reports no counts."""

    state: JobState = JobState.UNKNOWN
    raw_state: str = ""
    total: int | None = None
    success: int = 0
    failure: int = 0
    error: ServiceError | None = None
    counted: bool = False

    @classmethod
    def from_parts(
        cls, state: JobState, raw_state: str, stats: CompletionStats | None, error: ServiceError | None
    ) -> JobProgress:
        """Return the progress that these values of the service describe."""
        if stats is None:
            return cls(state, raw_state, error=error)
        return cls(state, raw_state, stats.total, stats.success, stats.failure, error, counted=True)

    @classmethod
    def of(cls, job: BatchJob) -> JobProgress:
        """Return the progress of a job."""
        return cls.from_parts(job.state, job.raw_state, job.completion_stats, job.error)

    @property
    def done(self) -> int:
        """Requests that have a response, good or bad."""
        return self.success + self.failure

    @property
    def words(self) -> str:
        """The state as the log and the page call it; an unknown one by the service's own name."""
        return self.raw_state if self.state is JobState.UNKNOWN and self.raw_state else self.state.words


class JobSnapshot(Struct, frozen=True, gc=False):
    """One job as of a moment, in two objects that garbage collection does not count.

    This is for polling thousands of jobs: the more counted objects live at a time, the more often Python runs its full
    garbage collection, which stops every thread. A :class:`BatchJob` takes a dozen of them.
    """

    name: str
    progress: JobProgress
    create_time: datetime | None = None
    start_time: datetime | None = None
    as_of: datetime | None = None

    @classmethod
    def of(cls, job: BatchJob) -> JobSnapshot:
        """Return the snapshot of a job."""
        return cls(job.name, JobProgress.of(job), job.create_time, job.start_time, job.as_of)


class SnapshotPage(NamedTuple):
    """One page of the list of jobs, newest first, as snapshots."""

    snapshots: list[JobSnapshot]
    next_page_token: str | None


class File(_Value):
    """A file of the Files API. Uploads are kept for 48 hours; outputs of batches can only be downloaded."""

    name: str
    display_name: str = ""
    mime_type: str = ""
    size_bytes: int | None = None
    create_time: datetime | None = None
    expiration_time: datetime | None = None
    sha256_hex: str | None = None
    uri: str = ""
    state: str = ""
    source: str = ""
    error: ServiceError | None = None

    @property
    def is_ready(self) -> bool:
        """True when the service can use the file, as it can if it reports no state."""
        return self.state in {"ACTIVE", "", "STATE_UNSPECIFIED"}

    @property
    def has_failed(self) -> bool:
        """True when the service has given up on the file."""
        return self.state == "FAILED"


class FilePage(_Value):
    """One page of the list of files."""

    files: tuple[File, ...] = ()
    next_page_token: str | None = None


class Usage(NamedTuple):
    """What one response used, or many together: the totals, then the parts of them that have prices of their own.

    ``input_tokens`` includes prompt, tool results and cached tokens. ``output_tokens`` excludes the thinking, which is
    text whatever the modality of the response. Tokens without a modality are text. ``tool_tokens`` are those of tool
    results, within the input. ``searches`` counts the queries that the service showed; it may bill more.
    ``other_tokens`` are those of an unknown modality, included in the totals. ``uncounted_answers`` counts responses
    without a readable count.

    Source: https://ai.google.dev/api/generate-content#UsageMetadata
    """

    input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0
    tool_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    input_video_tokens: int = 0
    cached_audio_tokens: int = 0
    cached_image_tokens: int = 0
    cached_video_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    output_video_tokens: int = 0
    other_tokens: int = 0
    searches: int = 0
    uncounted_answers: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum of two usages."""
        return Usage(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: Usage) -> Usage:
        """Return this usage less another one."""
        return Usage(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def has_counts(self) -> bool:
        """True when the service reported any tokens."""
        return any(self[:-1])

    def shown(self) -> dict[str, int]:
        """Return the four totals, and of the other counts those that are not zero."""
        return {name: count for place, (name, count) in enumerate(self._asdict().items()) if place < _TOTALS or count}


_TOTALS = 4

LONG_PROMPT = 200_000
"""On some models, prompts of more tokens than this have prices of their own."""


class LongPrompts(NamedTuple):
    """How many responses had long prompts, and what these used."""

    rows: int
    usage: Usage


class BatchResult:
    """One response as the service sent it, with the key that the service returned.

    Exactly one of ``response`` (the service's JSON object) and ``error`` is set. ``beside`` holds what else was in the
    line: columns and members of the input that came back. ``billed`` is a response whose tokens count although the row
    failed. Not a pydantic model, since there are millions of results. The repr never shows the response.
    """

    __slots__ = ("beside", "billed", "error", "key", "position", "response")

    def __init__(
        self,
        key: str | None,
        response: dict[str, Any] | None,
        error: ServiceError | None,
        position: int,
        *,
        beside: Mapping[str, Any] | None = None,
        billed: dict[str, Any] | None = None,
    ) -> None:
        self.key = key
        self.response = response
        self.error = error
        self.position = position
        self.beside: Mapping[str, Any] = {} if beside is None else beside
        self.billed = response if billed is None else billed

    def with_key(self, key: str) -> BatchResult:
        """Return the same response under another key."""
        return BatchResult(key, self.response, self.error, self.position, beside=self.beside, billed=self.billed)

    def __eq__(self, other: object) -> bool:
        """Compare keys, responses and positions."""
        if not isinstance(other, BatchResult):
            return NotImplemented
        mine = (self.key, self.response, self.error, self.position)
        return mine == (other.key, other.response, other.error, other.position)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return position and success, never the response."""
        return f"BatchResult(position={self.position}, ok={self.error is None})"
