"""Neutral, frozen values that every layer speaks: jobs, states, counts, files, rows.

Rules of this file: no wire name, no network, no Airflow. A backend turns the service's JSON into these values and
nothing else may read that JSON. A state that we do not know is :attr:`JobState.UNKNOWN`; its raw name travels beside
it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
    """How many requests of a job are done. The service's counters lag: never tell the end of a job from them."""

    total: int | None = None
    success: int = 0
    failure: int = 0
    pending: int | None = None


class JobSource(_Value):
    """Where a job reads its requests. All members empty: inline requests, or the service does not say."""

    file_name: str | None = None
    gcs_uris: tuple[str, ...] = ()
    bigquery_uri: str | None = None


class JobDestination(_Value):
    """Where a job writes its answers; for Cloud Storage and BigQuery what the service really used, once it says so."""

    file_name: str | None = None
    inlined: bool = False
    gcs_uri: str | None = None
    bigquery_uri: str | None = None


class BatchJob(_Value):
    """One batch job of either service, as of the moment of asking.

    ``name`` is ``batches/<id>`` or ``projects/<p>/locations/<l>/batchPredictionJobs/<id>``; ``model`` is without
    ``models/``; times are the service's, with a zone. ``as_of`` is the service's clock when it answered (its ``Date``
    header), so that an age can be told from one clock alone.
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
        """True when the service gave the job up."""
        return self.state is JobState.FAILED

    @property
    def cancelled(self) -> bool:
        """True when somebody cancelled the job and it has ended."""
        return self.state is JobState.CANCELLED

    @property
    def expired(self) -> bool:
        """True when the job ran into the service's own time limit."""
        return self.state is JobState.EXPIRED

    @property
    def running(self) -> bool:
        """True when the job has left the queue and has not ended."""
        return not self.is_done and self.state not in NEVER_STARTED

    @property
    def never_started(self) -> bool:
        """True while the job sits in the service's queue."""
        return self.state in NEVER_STARTED

    @property
    def progress(self) -> float | None:
        """Percent of requests done, or None when the service does not tell."""
        stats = self.completion_stats
        if stats is None or not stats.total:
            return None
        return 100.0 * (stats.success + stats.failure) / stats.total


class BatchJobPage(_Value):
    """One page of the list of jobs, newest first."""

    batch_jobs: tuple[BatchJob, ...] = ()
    next_page_token: str | None = None

    @property
    def has_more_pages(self) -> bool:
        """True when the service has a further page; a page may be empty and still have one."""
        return bool(self.next_page_token)


class JobProgress(NamedTuple):
    """What changes of a job while it runs. ``counted`` is False when the service tells no counts."""

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
        """Put together what the service tells."""
        if stats is None:
            return cls(state, raw_state, error=error)
        return cls(state, raw_state, stats.total, stats.success, stats.failure, error, counted=True)

    @classmethod
    def of(cls, job: BatchJob) -> JobProgress:
        """Take from a job what may change."""
        return cls.from_parts(job.state, job.raw_state, job.completion_stats, job.error)

    @property
    def done(self) -> int:
        """Requests that have an answer, good or bad."""
        return self.success + self.failure

    @property
    def words(self) -> str:
        """The state as the log and the page call it; an unknown one by the service's own name."""
        return self.raw_state if self.state is JobState.UNKNOWN and self.raw_state else self.state.words


class JobSnapshot(NamedTuple):
    """One job as of a moment: two tuples where a :class:`BatchJob` is a dozen objects.

    For those who look at thousands again and again: Python's full garbage collection, which stops every thread, comes
    the sooner the more objects are alive at a time.
    """

    name: str
    progress: JobProgress
    create_time: datetime | None = None
    start_time: datetime | None = None
    as_of: datetime | None = None

    @classmethod
    def of(cls, job: BatchJob) -> JobSnapshot:
        """Take from a job what a look at it tells."""
        return cls(job.name, JobProgress.of(job), job.create_time, job.start_time, job.as_of)


class SnapshotPage(NamedTuple):
    """One page of the list of jobs, newest first, as looks at them."""

    snapshots: list[JobSnapshot]
    next_page_token: str | None


class File(_Value):
    """A file of the Files API. Uploads live 48 hours; results of a batch are downloaded, neither got nor deleted."""

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
        """True when the service can use the file; one that says nothing of a state can be used."""
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
    """What one answer used, or many together: tokens in all, then the parts of them that have a price of their own.

    ``input_tokens`` holds prompt and tool results, cached ones included; ``output_tokens`` does not hold the thinking,
    which is text whatever the answer is. What is not listed under a modality is text. ``tool_tokens`` are those of tool
    results, within the input. ``searches`` are the queries that the service showed; it may bill more. Tokens of a
    modality that nobody knows are in ``other_tokens``, which are in the totals, too. ``uncounted_answers`` told no
    count that could be read.

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
        """Add two counts."""
        return Usage(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: Usage) -> Usage:
        """Take a part away."""
        return Usage(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def has_counts(self) -> bool:
        """True when the service told of any tokens."""
        return any(self[:-1])

    def shown(self) -> dict[str, int]:
        """Return the four totals, and of the other counts those that are not zero."""
        return {name: count for place, (name, count) in enumerate(self._asdict().items()) if place < _TOTALS or count}


_TOTALS = 4

LONG_PROMPT = 200_000
"""Prompts of more tokens than this have prices of their own on some models."""


class LongPrompts(NamedTuple):
    """How many answers had long prompts, and what these used."""

    rows: int
    usage: Usage


class BatchResult:
    """One answer as the service gave it, with its key as the service gave it back.

    Exactly one of ``response`` (the service's JSON object) and ``error`` is set. ``beside`` holds what else stood in
    the answer's line: columns and members of the input that came back. ``billed`` is a response whose tokens count
    although the row failed. Not a pydantic model, since results come by the million. The repr shows the kind of ending,
    never the answer.
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
        """Return the same answer under another key."""
        return BatchResult(key, self.response, self.error, self.position, beside=self.beside, billed=self.billed)

    def __eq__(self, other: object) -> bool:
        """Compare keys, answers and places."""
        if not isinstance(other, BatchResult):
            return NotImplemented
        mine = (self.key, self.response, self.error, self.position)
        return mine == (other.key, other.response, other.error, other.position)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Name the row without showing what is in it."""
        return f"BatchResult(position={self.position}, ok={self.error is None})"
