"""The state of a task: the table of what may happen to a record, and what is written down of it."""

from __future__ import annotations

from typing import Any

import pytest
from batch.made_up_jobs import INPUT, TASK, job, record, slot
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.state import (
    TRANSITIONS,
    UNRECORDED,
    BatchState,
    JobEvent,
    JobRecord,
    NotAllowed,
    PendingCreate,
)

FACTS = ("created", "created_this_try", "in_use", "inherited", "cancelled_by_us", "delivered", "results_expired")
some_facts = st.fixed_dictionaries(dict.fromkeys(FACTS, st.booleans()))
moments = st.none() | st.floats(1e9, 2e9)


def facts_of(one: JobRecord) -> dict[str, bool]:
    return {fact: getattr(one, fact) for fact in FACTS}


@given(some_facts, st.sampled_from(JobEvent))
def test_an_event_does_to_a_record_what_the_table_says_or_nothing(facts: dict[str, bool], event: JobEvent) -> None:
    known: dict[str, Any] = facts
    before = JobRecord("batches/1", **known)
    row = TRANSITIONS[event]
    state = BatchState(records={before.name: before})
    if all(facts[fact] for fact in row.needs) and not any(facts[fact] for fact in row.forbids):
        expected = {**facts, **dict.fromkeys(row.sets, True), **dict.fromkeys(row.clears, False)}
        assert facts_of(state.happened(event, before.name)) == expected
    else:
        with pytest.raises(NotAllowed, match=f"{event.name} may not happen to batches/1"):
            state.happened(event, before.name)
        assert state.records == {before.name: before}


def test_every_event_is_in_the_table_and_every_fact_can_become_true() -> None:
    assert set(TRANSITIONS) == set(JobEvent)
    assert {fact for row in TRANSITIONS.values() for fact in row.sets} == set(FACTS)


@given(
    st.dictionaries(st.text(min_size=1), st.builds(dict, facts=some_facts, at=moments), max_size=4),
    st.dictionaries(st.text(min_size=1), st.builds(PendingCreate, st.floats(1e9, 2e9), st.booleans()), max_size=2),
    st.integers(0, 5),
)
def test_what_is_written_down_is_read_back(records: dict[str, Any], pending: dict[str, Any], count: int) -> None:
    state = BatchState(
        clear_count=count,
        fingerprint=INPUT,
        records={name: JobRecord(name, submitted_at=of["at"], **of["facts"]) for name, of in records.items()},
        pending=pending,
        input={"rows": 3},
        sends={"0.0": count},
        input_settled=True,
        began=1e9,
        trigger_ahead=7.0,
    )
    again = BatchState.from_json(state.to_json())
    assert again is not None
    assert again == state
    assert list(again.records) == list(state.records)


@pytest.mark.parametrize("text", [None, "", "nonsense", "[]", "7", '{"version":3}', "{}", '{"version":2,"jobs":7}'])
def test_what_somebody_else_wrote_is_nothing(text: str | None) -> None:
    assert BatchState.from_json(text) is None


# Written by version 0.1.0: while it waited for two shards, one of them its own; and after a clear, with a lost call.
WAITING_1 = (
    '{"began":1800000000.5,"cancelled":["batches/a"],"delivered":["batches/a"],"fingerprint":"0123456789ab",'
    '"fresh":["batches/c"],"generation":2,"jobs":["batches/a","batches/b","batches/c"],"made":["batches/a",'
    '"batches/c"],"shards":2,"stalled":1,"taken":["batches/b"],"version":1,"watching":["batches/b","batches/c"]}'
)
LOST_1 = (
    '{"fingerprint":"0123456789ab","generation":1,"gone":{"batches/a":1800000100.0},"intents":{"?":1800000000.0,'
    '"gb1-rje3dymvbd-1-0.0.1-0123456789ab":1800000090.25},"jobs":["batches/a"],"looked_up":true,"lost":["batches/a"],'
    '"quota_refusals":2,"rounds":1,"troubles":3,"version":1}'
)


def test_notes_of_version_0_1_0_are_read() -> None:
    state = BatchState.from_json(WAITING_1)
    assert state == BatchState(
        clear_count=2,
        fingerprint=INPUT,
        shards=2,
        records={
            "batches/a": JobRecord("batches/a", created=True, cancelled_by_us=True, delivered=True),
            "batches/b": JobRecord("batches/b", in_use=True, inherited=True),
            "batches/c": JobRecord("batches/c", in_use=True, created=True, created_this_try=True),
        },
        stall_resubmits=1,
        input_settled=True,
        began=1800000000.5,
    )
    state = BatchState.from_json(LOST_1)
    assert state == BatchState(
        clear_count=1,
        fingerprint=INPUT,
        records={"batches/a": JobRecord("batches/a", missing_since=1800000100.0, results_expired=True)},
        pending={
            UNRECORDED: PendingCreate(1800000000.0),
            "gb1-rje3dymvbd-1-0.0.1-0123456789ab": PendingCreate(1800000090.25),
        },
        input_settled=True,
        extra_round=1,
        looked_up=True,
        quota_refusals=2,
        errors=3,
    )


def test_a_new_try_keeps_what_is_known_of_the_jobs_and_drops_what_belongs_to_the_waiting() -> None:
    one = JobRecord("batches/1", created=True, created_this_try=True, in_use=True, inherited=True, missing_since=1e9)
    before = BatchState(
        clear_count=1,
        fingerprint=INPUT,
        records={one.name: one},
        pending={"gb1": PendingCreate(1e9)},
        input={"rows": 3},
        sends={"0.0": 4},
        sends_this_try={"0.0": 2},
        stall_resubmits=1,
        began=1e9,
        input_settled=True,
    )
    retry, cleared = before.next_try(1), before.next_try(2)
    kept = JobRecord("batches/1", created=True, inherited=True)
    assert retry == BatchState(1, INPUT, 0, {one.name: kept}, before.pending, {"rows": 3}, {"0.0": 4}, 1)
    fresh = JobRecord("batches/1", created=True)
    assert cleared == BatchState(2, "", 0, {one.name: fresh}, before.pending, {}, {"0.0": 4}, 0)


def test_a_job_that_the_list_shows_counts_once_and_does_not_hide_what_was_asked_for() -> None:
    state = BatchState()
    asked = state.observe(job(JobState.SUCCEEDED), 1e9)
    listed = [job(JobState.RUNNING), job(JobState.RUNNING), job(JobState.RUNNING, name="batches/2")]
    state.record_listed(listed, TASK.digest, 1e9)
    assert state.records["batches/one"] == asked
    assert [one.name for one in state.seen()] == ["batches/one", "batches/2"]


def test_the_fuse_counts_what_was_sent_or_seen_and_takes_back_what_was_refused() -> None:
    state, tag = BatchState(), slot().tag(0)
    for _ in range(5):
        assert state.may_send(tag, try_number=1, resubmits=0)
        state.record_send(tag, 1e9)
    assert not state.may_send(tag, try_number=1, resubmits=0)
    assert state.may_send(slot(shard=1).tag(0), try_number=1, resubmits=0)
    state.take_back_send(tag)
    assert state.may_send(tag, try_number=1, resubmits=0)
    unwritten = BatchState(
        records={f"batches/{n}": record(job(JobState.FAILED, name=f"batches/{n}")) for n in range(6)}
    )
    assert not unwritten.may_send(tag, try_number=2, resubmits=0)
    assert unwritten.may_send(tag, try_number=3, resubmits=0)
