"""Jobs made up for decisions: only what a decision may look at."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobDestination, JobState, Service
from airflow_provider_gemini_batch.batch.adoption import Slot
from airflow_provider_gemini_batch.batch.state import JobRecord
from airflow_provider_gemini_batch.batch.tag import TaskIdentity, display_name, tag_of

NOON = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
TASK = TaskIdentity("here", "dag", "task", "run")
INPUT = "0123456789ab"
OTHER_INPUT = "ba9876543210"


def slot(*, clear_count: int = 0, shard: int = 0, round: int = 0, fingerprint: str | None = INPUT) -> Slot:  # noqa: A002
    return Slot(TASK.digest, clear_count, shard, round, fingerprint)


def job(
    state: JobState,
    *,
    name: str = "batches/one",
    submission: int = 0,
    clear_count: int = 0,
    fingerprint: str = INPUT,
    minute: float = 0,
    finished: int = 0,
    at: Slot | None = None,
    **members: Any,
) -> BatchJob:
    where = at or slot(clear_count=clear_count, fingerprint=fingerprint)
    return BatchJob(
        name=name,
        service=Service.GEMINI,
        state=state,
        display_name=display_name("nightly", where.tag(submission)),
        create_time=NOON + timedelta(minutes=minute),
        completion_stats=CompletionStats(total=10, success=finished) if finished else None,
        dest=JobDestination(inlined=True) if finished else None,
        **members,
    )


def record(of: BatchJob, **facts: Any) -> JobRecord:
    """What a task knows of a job: as it was seen, and the facts."""
    return JobRecord(of.name, job=of, tag=tag_of(of), **facts)
