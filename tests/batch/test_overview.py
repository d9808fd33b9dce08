"""What people see of a batch, written down and read back: whatever stands there, reading it breaks nothing."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.batch.overview import (
    MOST_EVENTS,
    MOST_FAILED_KEYS,
    MOST_JOBS,
    PHASES,
    Event,
    JobOverview,
    Overview,
    Sample,
    read_overview,
    read_progress,
)
from airflow_provider_gemini_batch.polling.progress import MOST_SAMPLES, thin_out

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
storable = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.text(storable, max_size=50)
counts = st.integers(0, 2**40)
maybe_counts = st.none() | counts
times = st.none() | st.integers(1, 2**32).map(float)
jobs = st.builds(
    JobOverview,
    name=st.text(storable, min_size=1, max_size=30),
    shard=counts,
    round=counts,
    state=texts,
    adopted=st.booleans(),
    submitted_at=times,
    started_at=times,
    ended_at=times,
    total=maybe_counts,
    done=maybe_counts,
    failed=maybe_counts,
)
overviews = st.builds(
    Overview,
    phase=st.sampled_from(PHASES),
    why=texts,
    model=texts,
    service=texts,
    display_name=texts,
    total=maybe_counts,
    succeeded=maybe_counts,
    failed=maybe_counts,
    submitted_at=times,
    started_at=times,
    ended_at=times,
    input_tokens=maybe_counts,
    output_tokens=maybe_counts,
    thinking_tokens=maybe_counts,
    cached_tokens=maybe_counts,
    usd=st.none() | st.floats(0, 1e6, allow_subnormal=False),
    is_upper_bound=st.booleans(),
    is_open_bound=st.booleans(),
    output=texts,
    jobs_total=counts,
    jobs=st.lists(jobs, max_size=4).map(tuple),
    events=st.lists(st.builds(Event, at=st.integers(0, 2**32).map(float), text=texts), max_size=4).map(tuple),
    by_status=st.dictionaries(st.text(storable, min_size=1, max_size=9), counts, max_size=4),
    reasons=st.dictionaries(
        st.text(storable, min_size=1, max_size=9), st.dictionaries(texts, counts, min_size=1, max_size=3), max_size=3
    ),
    failed_keys=st.lists(texts, max_size=5).map(tuple),
)


@given(overviews)
def test_what_was_written_is_read_back_the_same(overview: Overview) -> None:
    assert read_overview(json.loads(json.dumps(overview.to_value()))) == overview


@given(overviews, st.sampled_from([one.name for one in fields(Overview)]), anything)
def test_a_member_of_any_shape_breaks_no_reading_and_no_other_member(overview: Overview, name: str, odd: Any) -> None:
    value = {**overview.to_value(), name: odd}
    read = read_overview(value)
    assert read is not None
    for one in fields(Overview):
        if one.name != name:
            assert getattr(read, one.name) == getattr(overview, one.name)


def test_no_key_of_a_row_and_no_word_of_the_service_keeps_an_overview_out_of_a_database() -> None:
    odd = Overview(failed_keys=("a\0b",), reasons={"error\0": {"\0": 1}}, jobs=(JobOverview(name="j\0"),))
    written = odd.to_value()
    assert "\\u0000" not in json.dumps(written)
    assert written["failed_keys"] == ["a\ufffdb"]


@given(anything)
def test_a_value_of_any_shape_is_an_overview_or_none(value: Any) -> None:
    found = read_overview(value)
    assert found is None or isinstance(value, dict)
    read_progress(value)


@given(st.dictionaries(st.sampled_from(["at", "samples", "each", "total", "done", "state", "started_at"]), anything))
def test_a_progress_of_any_shape_is_read(value: dict[str, Any]) -> None:
    progress = read_progress(value)
    assert len(progress.samples) <= MOST_SAMPLES


@pytest.mark.parametrize("value", [None, "text", 3, [], {}, {"version": 2}, {"version": "1"}, {"phase": "running"}])
def test_what_is_not_an_overview_of_this_version_is_not_read(value: object) -> None:
    assert read_overview(value) is None


@given(st.integers(0, 400))
def test_samples_are_thinned_out_between_the_first_and_the_last(number: int) -> None:
    samples = [Sample(float(at), at, 0) for at in range(number)]
    kept = thin_out(samples)
    assert len(kept) <= MOST_SAMPLES
    assert set(kept) <= set(samples)
    assert (kept[:1], kept[-1:]) == (samples[:1], samples[-1:])


def test_lists_end_and_keep_what_is_newest() -> None:
    overview = Overview()
    for number in range(100):
        overview = overview.with_event(number, f"event {number}").with_job(JobOverview(f"batches/{number}"))
    assert len(overview.events) == MOST_EVENTS
    assert (overview.events[0].text, overview.events[-1].text) == ("event 0", "event 99")
    assert len(overview.jobs) == MOST_JOBS
    assert overview.jobs[-1].name == "batches/99"
    assert overview.jobs_total == 100


def test_no_key_of_a_row_and_no_number_of_reasons_makes_an_overview_large() -> None:
    reasons = {f"word {number}": 1 for number in range(10_000)}
    overview = Overview(failed_keys=("k" * 1_000_000,) * MOST_FAILED_KEYS, reasons={"error": reasons}, why="w" * 10_000)
    assert len(json.dumps(overview.to_value())) < 10_000


def test_a_job_that_is_known_is_renewed_in_its_place() -> None:
    overview = Overview().with_job(JobOverview("a", submitted_at=5.0)).with_job(JobOverview("b", submitted_at=3.0))
    overview = overview.with_job(JobOverview("a", state="RUNNING", submitted_at=5.0, started_at=9.0))
    assert [job.name for job in overview.jobs] == ["a", "b"]
    assert overview.jobs[0].state == "RUNNING"
    assert (overview.submitted_at, overview.started_at, overview.jobs_total) == (3.0, 9.0, 2)
