"""The responses of a job that has ended, if its output exists: it may also be late, deleted, or never written."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.backends import Outcome
from airflow_provider_gemini_batch.api.errors import JobError, JobFailed, NotFound, ResultsGone
from airflow_provider_gemini_batch.api.models import BatchJob, JobState
from airflow_provider_gemini_batch.api.names import name_of_job
from airflow_provider_gemini_batch.api.responses.refusal import check_is_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_gemini_batch.api.backends import Backend
    from airflow_provider_gemini_batch.api.models import BatchResult

# An output may appear a little after its job reports SUCCEEDED; these pauses add up to a minute.
_LATE_OUTPUT_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# Longer than this after the end of a job, a missing output is not late but gone.
_LATE_OUTPUT_AGE = 600.0
_MAY_HAVE_NONE = frozenset({JobState.CANCELLED, JobState.EXPIRED})


def responses(backend: Backend, job: BatchJob | str, *, sleep: Callable[[float], None]) -> Iterator[BatchResult]:
    """Yield the responses of a job; see :meth:`.BatchClient.get_responses`."""
    name = name_of_job(job)
    outcome = _filled(_outcome(backend, name, known=None if isinstance(job, str) else job))
    if not outcome.job.is_done:
        raise JobError(f"{name} has not ended: it is {_state_words(outcome.job)}; wait for its end", job=outcome.job)
    pauses = iter(_LATE_OUTPUT_PAUSES)
    while outcome.responses is None and (outcome.job.state.ended_well or _promises_rows(outcome.job)):
        pause = next(pauses, None) if _ended_recently(outcome.job) else None
        if pause is None:
            break
        sleep(pause)
        outcome = _filled(_outcome(backend, name, known=outcome.job))
    if outcome.responses is not None:
        return outcome.responses
    if outcome.problem is not None:
        raise outcome.problem
    if outcome.job.state.ended_well:
        raise ResultsGone(f"{name} ended well, but its output is not kept any more, or it is empty")
    if outcome.job.state in _MAY_HAVE_NONE:
        return iter(())
    error = outcome.job.error
    reason = f": {error.message or f'code {error.code}'}" if error else ""
    raise JobFailed(f"{name} ended as {_state_words(outcome.job)} without responses{reason}", job=outcome.job)


def _outcome(backend: Backend, name: str, *, known: BatchJob | None) -> Outcome:
    """Return job and responses. The output file of a successful job remains for a while after the job is deleted."""
    try:
        return backend.outcome(name)
    except NotFound as error:
        check_is_service(error)
        if known is None or not known.state.ended_well:
            raise
        if known.dest is not None and known.dest.file_name:
            try:
                return Outcome(known, backend.file_results(known.dest.file_name))
            except NotFound as missing:
                check_is_service(missing)
        raise ResultsGone(f"{name} had ended well, but the service does not know it any more") from error


def _filled(outcome: Outcome) -> Outcome:
    """Return an outcome in which an empty output of a good job counts as none, as each request has at least an error.

    Otherwise all rows would count as missing, and be bought again.
    """
    if outcome.responses is None or not outcome.job.state.ended_well:
        return outcome
    first = next(outcome.responses, None)
    return replace(outcome, responses=None if first is None else chain([first], outcome.responses))


def _promises_rows(job: BatchJob) -> bool:
    """Return whether the service names an output file, or counts good rows: so it does of a job that was cut short."""
    names_file = job.dest is not None and job.dest.file_name is not None
    return names_file or (job.completion_stats is not None and job.completion_stats.success > 0)


def _state_words(job: BatchJob) -> str:
    return job.state.value if job.state is not JobState.UNKNOWN else f"in the unknown state {job.raw_state[:80]!r}"


def _ended_recently(job: BatchJob) -> bool:
    """Return whether the job ended recently, by the service's clock. Without that, assume so."""
    if job.as_of is None or job.end_time is None:
        return True
    return (job.as_of - job.end_time).total_seconds() < _LATE_OUTPUT_AGE
