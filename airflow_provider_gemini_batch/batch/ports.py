"""The borders of a batch: what it asks of the service, the store, the clock and the rows, and what it returns.

The runtime supplies the real ones; a simulation may supply others. Everything between them is the product's own code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gemini_batch.batch.verdict import Counts, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob, LongPrompts, Usage
    from airflow_provider_gemini_batch.batch.state import BatchState
    from airflow_provider_gemini_batch.batch.tag import Tag
    from airflow_provider_gemini_batch.polling.turns import TurnRequest


@dataclass(frozen=True)
class Plan:
    """What is to be submitted.

    ``fingerprint`` is None when the input can no longer be read; then only existing jobs can be used. ``can_resend``:
    rows without a good response can be sent again. ``by_row``: single rows can be sent; otherwise the service is given
    the output of an earlier job, from which it does the unfinished rows and copies the others. ``incomplete``: why the
    result rows would lack something that the author asked for. ``outdated``: why no more rows are to be sent. ``note``
    is what another process needs to know of the input so that it does not have to read it again: small plain values,
    opaque to everybody but their maker.
    """

    fingerprint: str | None
    shards: int
    can_resend: bool
    by_row: bool = True
    incomplete: str = ""
    outdated: str = ""
    warnings: tuple[str, ...] = ()
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Landing(Counts):
    """What was landed, in numbers. ``repairable`` are the numbers of the rows that may succeed when sent again.

    ``reasons`` counts failed rows by status and by the service's word or number for it; ``failed_keys`` names the
    first of them.
    """

    counts: dict[str, int] = field(default_factory=dict)
    usage: Usage | None = None
    output: str | None = None
    responses: list[dict[str, Any]] | None = None
    repairable: tuple[int, ...] = ()
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    long_prompts: LongPrompts | None = None
    failed_keys: tuple[str, ...] = ()

    def with_missing(self, rows: int) -> Landing:
        """Return this landing and so many more rows that were sent but have no response; they count as failed."""
        if not rows:
            return self
        counts = dict(self.counts)
        for name in ("total", "failed", "missing"):
            counts[name] = counts.get(name, 0) + rows
        return replace(self, total=self.total + rows, failed=self.failed + rows, counts=counts)


#: Input that is ready for a create call, at the service or in memory; opaque to everybody but the job service.
Prepared = Any


class JobService(Protocol):
    """The batch service as one task sees it."""

    def get(self, name: str) -> BatchJob:
        """Return one job; raises NotFound."""

    @property
    def listed_at(self) -> float | None:
        """The service's time when :meth:`find` last read its list, in seconds; None if the service did not say it."""

    def find(self, identity: str) -> Iterable[BatchJob]:
        """Yield the jobs whose tag carries this identity, as far back as the first try could reach."""

    def count_active(self, most: int) -> int:
        """Return how many jobs of the connection are active, whoever created them; stop counting at ``most``."""

    def cancel(self, name: str) -> None:
        """Request cancellation; does nothing for a job that has ended or is unknown."""

    def prepare(self, tag: Tag, rows: Sequence[int] | None, *, reuse: bool, completes: Sequence[str] = ()) -> Prepared:
        """Bring the input of one job to where the service can read it, and return it for :meth:`create`.

        ``rows`` None: the whole shard. ``reuse``: an earlier try may have left an upload. ``completes``: jobs that did
        some of the rows, oldest first; where single rows cannot be sent, the service continues from the newest output.

        :raises InputUnavailable: the rows can no longer be read, or are not those that were planned.
        """

    def keep(self, prepared: Prepared, tag: Tag) -> str | None:
        """Bring the input of a job to where another process finds it, and return its name there.

        None: the input is the author's own source, which needs no keeping.
        """

    def kept(self, name: str, tag: Tag) -> Prepared | None:
        """Return the input that was kept under a name; None when it is no longer there."""

    def create(self, prepared: Prepared, tag: Tag) -> BatchJob:
        """Send the create call once, and return the job. The call is repeated only if it certainly was not sent."""

    def discard(self, prepared: Prepared) -> None:
        """Remove the input again, after a create call that was refused."""

    def remove_inputs(self, jobs: Sequence[BatchJob]) -> None:
        """Remove what was uploaded or staged for jobs that have ended. Best effort."""


class Store(Protocol):
    """Where the state is kept between tries."""

    @property
    def lasting(self) -> bool:
        """Whether the state outlives the process. Where it does not (Airflow 3.2), a retry reads the service's list."""

    def load(self) -> str | None:
        """Return the text that was saved last; None if there is none."""

    def save(self, text: str) -> None:
        """Save the state as a text; it is safe when this returns."""


class Clock(Protocol):
    """Time in seconds, and short pauses."""

    def now(self) -> float:
        """Return the wall-clock time since the epoch, which other processes share and somebody may set."""

    def monotonic(self) -> float:
        """Return a time that nobody can set, which is meaningful within this process only."""

    def sleep(self, seconds: float) -> None:
        """Pause in the worker."""


class Rows(Protocol):
    """The rows of the task: reading them in, and landing what comes back."""

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:
        """Read, check and fingerprint the input. Raises ConfigurationError; nothing has been sent.

        :param again: jobs were already created from this input, by another process.
        :param note: the note of the plan that this task instance made since it was last cleared; empty if there is
            none. With a note, the input is not read.
        """

    def forget_input(self) -> Plan:
        """Return the plan for input that cannot be read, or is not what the jobs were created from."""

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        """Return which rows, of one shard or of all, have to be sent again; the responses are read but not landed."""

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Write the result rows of the jobs, all of them or none; later jobs repair the rows of earlier ones.

        :raises ResultsGone: the service no longer keeps them.
        """

    def was_delivered(self, job_name: str) -> bool | None:
        """Return whether the existing output was landed from this job; None when there is no output to look at."""


@dataclass(frozen=True)
class Policy:
    """What the author asked for; times in seconds."""

    service_wait: float
    reattach: bool = True
    lookup_timeout: float = 120.0
    request_timeout: float = 60.0
    timeout: float | None = None
    cancel_on_timeout: bool = True
    queue_timeout: float | None = None
    on_stall: str = "fail"
    max_resubmits: int = 1
    repair_rounds: int = 0
    max_active_jobs: int | None = None
    max_active_jobs_of_connection: int | None = None
    max_failed_rows: int | None = None
    max_failure_rate: float | None = None

    @property
    def resubmits(self) -> int:
        """How often a stalled job is replaced at most."""
        return self.max_resubmits if self.on_stall == "resubmit" else 0


@dataclass(frozen=True)
class TaskTry:
    """One try of one task instance, and all that it works with.

    ``identity``: :attr:`TaskIdentity.digest`. ``clear_count`` grows when a person clears the task, not on a retry.
    ``try_number``: 1, 2 ... over all clears. ``last_try``: Airflow will not try again by itself, so what still runs is
    cancelled on failure. ``on_job`` is called with each job that comes into use, as soon as it exists. ``is_movable``:
    another task instance may have run under this identity before, as parts of a dataset do when their number changes.
    """

    identity: str
    clear_count: int
    try_number: int
    last_try: bool
    policy: Policy
    service: JobService
    store: Store
    clock: Clock
    rows: Rows
    on_job: Callable[[BatchJob], None] = lambda _job: None
    is_movable: bool = False

    @property
    def is_first(self) -> bool:
        """Whether nothing under this identity can have run before."""
        return self.try_number <= 1 and not self.is_movable

    def save(self, state: BatchState) -> None:
        """Save the state; it is safe when this returns."""
        self.store.save(state.to_json())


@dataclass(frozen=True)
class WaitForJobs:
    """Wait for jobs: all of them, or (``until`` "any") for the first that ends; not beyond ``end_time``.

    ``end_time`` is in seconds since the epoch by our clock; a triggerer's is ``ahead`` of it by so many seconds.
    ``stalls_count`` False: a stalled job does not end the wait. ``turn``: the wait also ends when more jobs may be
    created. ``all_created``: no further job is needed, as far as can be known before these end.
    """

    job_names: tuple[str, ...]
    end_time: float
    until: str
    memo: str
    stalls_count: bool = True
    ahead: float = 0.0
    turn: TurnRequest | None = None
    all_created: bool = True


@dataclass(frozen=True)
class SleepUntil:
    """Wait until a moment by our clock; a triggerer's is ``ahead`` of it by so many seconds.

    ``job_names`` are jobs that may run meanwhile, so that they can be cancelled if a person ends the task. ``turn``:
    the wait also ends when jobs may be created. ``for_quota``: the service accepts no more calls, or no more jobs.
    """

    at: float
    memo: str
    reason: str
    job_names: tuple[str, ...] = ()
    ahead: float = 0.0
    turn: TurnRequest | None = None
    for_quota: bool = False


@dataclass(frozen=True)
class Done:
    """The batch is over and delivered; ``jobs`` in the order of their use."""

    jobs: tuple[BatchJob, ...]
    landing: Landing
    memo: str


class TaskFailed(Exception):
    """The batch ends without success.

    ``verdict`` says whether Airflow may try again; ``landing`` what was landed; ``deadline`` that our time was over;
    ``refused`` that the service refused to show the jobs, which may still run.
    """

    def __init__(
        self, verdict: Verdict, *, landing: Landing | None = None, deadline: bool = False, refused: bool = False
    ) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict
        self.landing = landing
        self.deadline = deadline
        self.refused = refused
