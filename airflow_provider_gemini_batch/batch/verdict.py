"""The one judge: what an ending means for the task, whoever asks (operator, deferred or not, and sensor).

===========================================  ========================  ========================================
ending                                       task                      retried by Airflow
===========================================  ========================  ========================================
succeeded, failed rows within limits         success                   --
partially succeeded, within limits           success                   --
either of them, too many failed rows         failed, output kept       yes, where the bad rows can be sent again
failed, code 3, 5, 7, 9 (11, 12, 16)         failed                    no
failed, any other code or none               failed                    yes, a new job
cancelled by somebody else                   failed, output kept       no: a person decided
expired                                      failed, output kept       yes
our deadline, a stall, job gone              failed                    yes
the same rows sent too often                 failed                    yes; each further try sends them once at most
results gone                                 failed                    no
refused: key, permission, region, arguments  failed                    no
===========================================  ========================  ========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.models import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_gemini_batch.api.models import BatchJob

# Invalid argument, not found, permission denied, failed precondition; out of range, unimplemented, unauthenticated:
# the same job would fail in the same way.
_FINAL_CODES: Final = frozenset({3, 5, 7, 9, 11, 12, 16})


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the task ends, and what is to be done about it.

    ``retry``: Airflow may try again (else ``AirflowFailException``); false for a success. ``what``: what happened, to
    which job. ``advice``: what to do, in a sentence of its own; empty where ``what`` says it. ``retry_at_once``:
    another try need not wait.
    """

    success: bool
    retry: bool
    what: str
    advice: str = ""
    retry_at_once: bool = False

    @property
    def message(self) -> str:
        """What happened, and what to do."""
        return " ".join(filter(None, (self.what, self.advice)))

    @property
    def advice_first(self) -> str:
        """The same with the advice first, for a log whose lines are cut at the right edge."""
        return " ".join(filter(None, (self.advice, self.what)))


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the whole task, as landed: every row that is not ok has failed."""

    total: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How many rows may fail. Without any limit, the task fails only when every row failed."""

    max_failed_rows: int | None = None
    max_failure_rate: float | None = None

    def exceeded_by(self, counts: Counts) -> str | None:
        """Return which limit is exceeded, in words; None if none is."""
        if self.max_failed_rows is None and self.max_failure_rate is None:
            return "every row failed" if counts.failed and not counts.succeeded else None
        if self.max_failed_rows is not None and counts.failed > self.max_failed_rows:
            return f"more than max_failed_rows={self.max_failed_rows}"
        # Multiplied, not divided: there may be no rows.
        if self.max_failure_rate is not None and counts.failed > self.max_failure_rate * counts.total:
            return f"more than max_failure_rate={self.max_failure_rate:g}"
        return None


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is in a terminal state, to which this task did not cancel it."""

    job: BatchJob


@dataclass(frozen=True, slots=True)
class Deadline:
    """Our own deadline came first. ``waited`` in seconds; ``cancelled``: the service accepted the cancellation."""

    job_name: str
    waited: float
    cancelled: bool = True


@dataclass(frozen=True, slots=True)
class Stalled:
    """The job made no progress. ``kind`` is ``queue`` or ``progress``; ``stuck_for`` in seconds."""

    job_name: str
    kind: str
    stuck_for: float
    cancelled: bool = True


@dataclass(frozen=True, slots=True)
class Gone:
    """The service no longer knows the job."""

    job_name: str


@dataclass(frozen=True, slots=True)
class ResultsMissing:
    """The job ended well, but its results are no longer kept."""

    job_name: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The service, or our own check of the arguments, will not let us go on."""

    reason: str
    retry: bool = False


@dataclass(frozen=True, slots=True)
class SentTooOften:
    """The fuse: the rows of one slot (``<shard>.<round>``) were sent so often that something must be wrong.

    ``this_try`` and ``in_all`` count create calls, ``job_names`` are the jobs that are known of them.
    """

    slot: str
    this_try: int
    in_all: int
    job_names: tuple[str, ...] = ()


Ending = Ended | Deadline | Stalled | Gone | ResultsMissing | Refused | SentTooOften


def judge(
    ending: Ending, *, counts: Counts | None = None, limits: Limits = Limits(), can_repair: bool = False
) -> Verdict:
    """Return what an ending means for the task.

    :param counts: the rows of the task as landed; None where nobody landed them (the sensor, or before landing): then
        the service's counters are used if they are complete.
    :param can_repair: a further try could send just the failed rows again.
    :raises ValueError: the job has not ended. An unknown state does not end a job.
    """
    match ending:
        case Ended(job):
            return _judge_job(job, counts=counts, limits=limits, can_repair=can_repair)
        case Deadline(name, waited, cancelled):
            what = f"{name} did not end within {_span(waited)}{_ending_clause(cancelled=cancelled)}"
            return _failed(f"{what}.", "Raise `timeout` if this is too short.", retry=True)
        case Stalled(name, kind, stuck_for, cancelled):
            how = "never left the service's queue" if kind == "queue" else "made no progress"
            what = f"{name} {how} for {_span(stuck_for)}{_ending_clause(cancelled=cancelled)}"
            return _failed(f"{what}.", "A new job may succeed.", retry=True)
        case Gone(name):
            what = f"The service does not know {name} any more: deleted, or made with another key."
            advice = "If the key or project of the connection has changed since, change it back before a retry."
            return _failed(what, advice, retry=True)
        case ResultsMissing(name):
            return _failed(
                f"The results of {name} are no longer kept, or its output is empty: clear the task to run it again.",
                retry=False,
            )
        case SentTooOften():
            return _failed(_sent_too_often(ending), retry=True)
        case Refused(reason, retry):
            return _failed(reason, retry=retry)


def judge_all(endings: Iterable[Ending]) -> Verdict:
    """Return what the endings of several jobs mean for their task: the worst decides.

    The task may be retried only if every bad ending allows it.

    :raises ValueError: there is no ending, or a job has not ended.
    """
    verdicts = [judge(ending) for ending in endings]
    if not verdicts:
        raise ValueError("Nothing has ended")
    failures = [verdict for verdict in verdicts if not verdict.success]
    if not failures:
        return verdicts[0]
    # Shards that broke the same limit say nearly the same; one line for each distinct message.
    what, advice = (" ".join(dict.fromkeys(getattr(each, name) for each in failures)) for name in ("what", "advice"))
    retry, at_once = (all(getattr(verdict, name) for verdict in failures) for name in ("retry", "retry_at_once"))
    return Verdict(success=False, retry=retry, what=what, advice=advice.strip(), retry_at_once=at_once)


def _judge_job(job: BatchJob, *, counts: Counts | None, limits: Limits, can_repair: bool) -> Verdict:
    match job.state:
        case JobState.SUCCEEDED | JobState.PARTIALLY_SUCCEEDED:
            return _judge_rows(job, counts or _counted_by_service(job), limits=limits, can_repair=can_repair)
        case JobState.FAILED:
            code = job.error.code if job.error else None
            words = _words(job)
            if code in _FINAL_CODES:
                return _failed(
                    f"{job.name} failed{words}.",
                    "The same job would fail again: fix the cause, then clear the task.",
                    retry=False,
                )
            return _failed(f"{job.name} failed{words}.", "A new job may succeed.", retry=True)
        case JobState.CANCELLED:
            what = f"{job.name} was cancelled by somebody else."
            return _failed(what, "Clear the task to run it again.", retry=False)
        case JobState.EXPIRED:
            what = f"{job.name} ran into the service's time limit; its finished rows are kept."
            return Verdict(success=False, retry=True, what=what, retry_at_once=True)
        case _:
            raise ValueError(f"{job.name} has not ended: {job.raw_state or job.state.value}")


def _judge_rows(job: BatchJob, counts: Counts | None, *, limits: Limits, can_repair: bool) -> Verdict:
    if counts is None:
        return Verdict(success=True, retry=False, what=f"{job.name} succeeded.")
    rows = f"{job.name}: {counts.failed} of {counts.total} rows failed"
    broken = limits.exceeded_by(counts)
    if broken is None:
        return Verdict(success=True, retry=False, what=f"{rows}.")
    advice = "A retry sends them again" if can_repair else "The responses say why: fix the cause, then clear the task"
    return _failed(f"{rows}: {broken}.", f"{advice}.", retry=can_repair)


def _counted_by_service(job: BatchJob) -> Counts | None:
    stats = job.completion_stats
    if stats is None or stats.total is None or stats.success + stats.failure != stats.total:
        return None
    return Counts(stats.total, stats.success, stats.failure)


def _failed(what: str, advice: str = "", *, retry: bool) -> Verdict:
    return Verdict(success=False, retry=retry, what=what, advice=advice)


def _sent_too_often(ending: SentTooOften) -> str:
    shard, _, round_ = ending.slot.partition(".")
    rows = f"The rows of shard {shard}" if round_ == "0" else f"The rows of repair round {round_}"
    known = f" (known of them: {', '.join(ending.job_names)})" if ending.job_names else ""
    return (
        f"{rows} were submitted {ending.this_try} times in this try and {ending.in_all} times in all{known}, and no "
        "job could be used: nothing more is bought. The log says why each was replaced; compare the clocks of the "
        "workers, of the service and of a gateway between them, and look into the service's list of jobs."
    )


def _ending_clause(*, cancelled: bool) -> str:
    return " and was cancelled" if cancelled else "; it was left running"


def _words(job: BatchJob) -> str:
    """Return the service's code and message, which were cleaned when they were read."""
    if job.error is None:
        return " without giving a reason"
    code = "" if job.error.code is None else f" with code {job.error.code}"
    return f"{code}: {job.error.message.rstrip('.')}" if job.error.message else code


def _span(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
