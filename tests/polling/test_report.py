"""What a trigger says, and what its task understands."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobState, Service, ServiceError
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, from_event, to_event

counts = st.builds(
    CompletionStats,
    total=st.none() | st.integers(0),
    success=st.integers(0),
    failure=st.integers(0),
    pending=st.none() | st.integers(0),
)
errors = st.builds(ServiceError, code=st.none() | st.integers(0, 16), message=st.text(max_size=500))
jobs = st.builds(
    BatchJob,
    name=st.text().map(lambda end: f"batches/{end}"),
    service=st.just(Service.GEMINI),
    state=st.sampled_from(JobState),
    raw_state=st.text(min_size=1),
    completion_stats=st.none() | counts,
    error=st.none() | errors,
)
reports = st.builds(
    WaitReport,
    reason=st.sampled_from(Reason),
    jobs=st.lists(jobs).map(tuple),
    message=st.text(max_size=1000),
    memo=st.text(),
    stalled=st.lists(st.text()).map(tuple),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
EVENT = to_event(
    WaitReport(Reason.ENDED, (BatchJob(name="batches/1", service=Service.GEMINI, state=JobState.SUCCEEDED),))
)


@given(reports)
def test_a_report_survives_the_way_through_json(report: WaitReport) -> None:
    assert from_event(json.loads(json.dumps(to_event(report)))) == report


@pytest.mark.parametrize("event", [None, "2026-11-21T12:00:00+00:00", datetime(2026, 11, 21, tzinfo=timezone.utc), 7])
def test_another_triggers_moment_is_a_wake_up(event: object) -> None:
    assert from_event(event) == WaitReport(Reason.WAKE)


@given(json_values, st.sampled_from(["version", "reason", "jobs", "message", "memo", "stalled"]))
def test_no_event_makes_a_task_fail_by_its_shape(value: Any, member: str) -> None:
    assert isinstance(from_event(value), WaitReport)
    assert isinstance(from_event({**EVENT, member: value}), WaitReport)
    assert isinstance(from_event({**EVENT, "jobs": [{**EVENT["jobs"][0], "counts": value}]}), WaitReport)


def test_an_event_of_another_version_wakes_the_task_with_its_memo() -> None:
    report = from_event({**EVENT, "version": 2, "memo": "m", "jobs": "other"})
    assert (report.reason, report.memo) == (Reason.WAKE, "m")


def test_a_state_of_a_later_version_is_unknown_and_keeps_its_name() -> None:
    event = {**EVENT, "jobs": [{**EVENT["jobs"][0], "state": "HIBERNATING", "raw_state": "BATCH_STATE_HIBERNATING"}]}
    (job,) = from_event(event).jobs
    assert (job.state, job.raw_state) == (JobState.UNKNOWN, "BATCH_STATE_HIBERNATING")


def test_the_service_is_told_from_the_name() -> None:
    vertex = BatchJob(
        name="projects/p/locations/l/batchPredictionJobs/1", service=Service.VERTEX, state=JobState.RUNNING
    )
    assert from_event(to_event(WaitReport(Reason.DEADLINE, (vertex,)))).jobs[0].service is Service.VERTEX


def test_an_event_stays_small_and_holds_no_rows_or_places() -> None:
    job = BatchJob(
        name="batches/1",
        service=Service.GEMINI,
        state=JobState.FAILED,
        display_name="nightly report",
        error=ServiceError(code=3, message="x" * 10_000),
        labels={"team": "secret project"},
    )
    written = json.dumps(to_event(WaitReport(Reason.ENDED, (job,), message="y" * 10_000)))
    assert len(written) < 2_000
    assert "nightly" not in written
    assert "secret" not in written
