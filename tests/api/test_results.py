"""Answers of jobs: inline and from a file alike, late ones waited for, and those that are not there named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_provider_gemini_batch.api.backends import Outcome, gemini
from airflow_provider_gemini_batch.api.errors import JobError, JobFailed, NotFound, ResultsGone
from airflow_provider_gemini_batch.api.models import (
    BatchJob,
    BatchResult,
    CompletionStats,
    JobDestination,
    JobState,
    Service,
)
from airflow_provider_gemini_batch.api.responses.lines import OverlongLine, objects_of_list, without_lists
from airflow_provider_gemini_batch.api.responses.results import responses

if TYPE_CHECKING:
    from api.virtual_time import VirtualTime

    from airflow_provider_gemini_batch.api.backends import Backend
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

FLASH = "gemini-2.5-flash"


def row(key: str) -> dict[str, Any]:
    return {"key": key, "request": {"contents": [{"parts": [{"text": f"Row {key}."}]}]}}


def made(client: BatchClient, source: str, count: int = 5) -> BatchJob:
    if source == "inline":
        return client.create(FLASH, inlined_requests=[row(f"k{n}") for n in range(count)])
    lines = b"".join(
        b'{"key":"k%d","request":{"contents":[{"parts":[{"text":"Row k%d."}]}]}}\n' % (n, n) for n in range(count)
    )
    return client.create(FLASH, file_name=client.upload_file(io.BytesIO(lines)).name)


both = pytest.mark.parametrize("source", ["inline", "file"])


@both
def test_responses_look_alike_wherever_they_are(client: BatchClient, emulator: Emulator, source: str) -> None:
    emulator.control.faults(row_error_every=2, row_error_code=3, row_error_message="bad part")
    job = made(client, source)
    emulator.control.advance(60)
    answers = list(client.get_responses(job))
    assert [answer.key for answer in answers] == [f"k{n}" for n in range(5)]
    assert [answer.position for answer in answers] == list(range(5))
    assert [answer.error is None for answer in answers] == [True, False, True, False, True]
    error = answers[1].error
    assert error is not None
    assert (error.code, error.message) == (3, "bad part")
    assert answers[0].response is not None
    assert "Row k0." in answers[0].response["candidates"][0]["content"]["parts"][0]["text"]
    assert "Row" not in repr(answers[0])


@both
def test_a_job_made_by_somebody_else_is_read_by_its_name(client: BatchClient, emulator: Emulator, source: str) -> None:
    name = made(client, source).name
    emulator.control.advance(60)
    assert len(list(client.get_responses(name))) == 5


def test_answers_without_keys_come_with_their_position(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(metadata_missing=True)
    job = made(client, "inline")
    emulator.control.advance(60)
    assert [(answer.key, answer.position) for answer in client.get_responses(job)] == [(None, n) for n in range(5)]


@both
def test_the_error_says_that_a_job_has_not_ended(client: BatchClient, source: str) -> None:
    job = made(client, source)
    with pytest.raises(JobError, match=rf"{job.name} has not ended: it is PENDING; wait for its end") as caught:
        client.get_responses(job)
    assert caught.value.job is not None


@both
@pytest.mark.parametrize("kind", ["absent", "refused"])
def test_a_late_output_is_waited_for(
    client: BatchClient, emulator: Emulator, clock: VirtualTime, source: str, kind: str
) -> None:
    emulator.control.faults(late_output=20, late_output_kind=kind)
    job = made(client, source)
    emulator.control.advance(10)
    assert client.get(job.name).succeeded
    assert len(list(client.get_responses(job))) == 5
    if not (source == "inline" and kind == "refused"):
        assert 1.0 <= sum(clock.pauses) <= 60.0


def test_an_output_that_does_not_come_is_gone(client: BatchClient, emulator: Emulator, clock: VirtualTime) -> None:
    emulator.control.faults(late_output=10_000)
    job = made(client, "file")
    emulator.control.advance(60)
    with pytest.raises(ResultsGone, match="output is not kept any more"):
        client.get_responses(job)
    assert sum(clock.pauses) == 60.0


@both
def test_an_empty_output_counts_as_gone_after_a_minute(
    client: BatchClient, emulator: Emulator, clock: VirtualTime, source: str
) -> None:
    emulator.control.faults(missing_every=1)
    job = made(client, source)
    emulator.control.advance(60)
    with pytest.raises(ResultsGone, match="or it is empty"):
        client.get_responses(job)
    assert sum(clock.pauses) == 60.0


@both
def test_a_job_that_was_cut_short_may_have_no_row(client: BatchClient, emulator: Emulator, source: str) -> None:
    emulator.control.faults(expire=True, partial_rows=0.0)
    job = made(client, source)
    emulator.control.advance(1e6)
    assert list(client.get_responses(job)) == []


@pytest.mark.parametrize(("limit", "most"), [("_MOST_INLINE_BYTES", 1000), ("_MOST_INLINE_VALUES", 50)])
def test_a_job_with_large_inline_responses_gives_them_one_by_one(
    client: BatchClient, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    emulator.control.faults(row_error_every=3, row_error_code=3, null_every=4)
    name = made(client, "inline", 9).name
    emulator.control.advance(60)
    wanted = list(client.get_responses(name))
    monkeypatch.setattr(gemini, limit, most)
    assert list(client.get_responses(name)) == wanted
    job = client.get(name)
    assert job.succeeded
    assert job.dest == JobDestination(inlined=True)


@pytest.mark.parametrize("piece", [1, 2, 7, 10_000])
@pytest.mark.parametrize("indent", [None, 1], ids=["one line", "lines"])
def test_the_objects_of_a_list_are_found_in_pieces_of_any_size(piece: int, indent: int | None) -> None:
    tricky = {"a": 'x]}{["\\', "b": [{"c": "]"}], "d": {}}
    for items in ([], [None], [tricky], [None, tricky, None], [{}, tricky, {"t": '"inlinedResponses": ['}]):
        output = {"inlinedResponses": {"inlinedResponses": items}}
        metadata = {"displayName": '"inlinedResponses": [{}]', "output": output, "batchStats": {"n": "1"}}
        body = json.dumps({"metadata": metadata, "response": output}, indent=indent).encode()
        chunks = (body[at : at + piece] for at in range(0, len(body), piece))
        assert [json.loads(row) for row in objects_of_list(chunks, gemini._INLINE_LIST)] == [
            item or {} for item in items
        ]


def test_an_object_of_a_list_that_is_too_long_is_told() -> None:
    body = json.dumps({"inlinedResponses": [{"key": "a", "x": "x" * 5000}, {"key": "b"}]}).encode()
    chunks = (body[at : at + 100] for at in range(0, len(body), 100))
    first, second = objects_of_list(chunks, gemini._INLINE_LIST, limit=1000)
    assert isinstance(first, OverlongLine)
    assert first.startswith(b'{"key": "a"')
    assert json.loads(second) == {"key": "b"}


class OneOutcome:
    """A service that always says the same about its one job."""

    service = Service.GEMINI

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def outcome(self, name: str) -> Outcome:
        assert name == self._outcome.job.name
        return self._outcome


def test_an_output_whose_time_is_over_is_gone_at_once() -> None:
    ended = datetime(2026, 11, 1, tzinfo=timezone.utc)
    job = BatchJob(
        name="batches/a",
        service=Service.GEMINI,
        state=JobState.SUCCEEDED,
        dest=JobDestination(file_name="files/batch-a"),
        end_time=ended,
        as_of=ended + timedelta(hours=49),
    )
    pauses: list[float] = []
    with pytest.raises(ResultsGone):
        responses(cast("Backend", OneOutcome(Outcome(job, None))), job, sleep=pauses.append)
    assert pauses == []


@pytest.mark.parametrize(("good", "pauses"), [(1, [1.0, 2.0]), (0, [])])
def test_the_late_output_of_a_job_that_ended_early_is_waited_for_where_it_counts_good_rows(
    good: int, pauses: list[float]
) -> None:
    """Without its rows, which are paid for, they would be bought again."""

    class Late(OneOutcome):
        def outcome(self, name: str) -> Outcome:
            found = super().outcome(name)
            rows = iter([BatchResult("a", {}, None, 0)])
            return replace(found, responses=rows) if slept == [1.0, 2.0] else found

    slept: list[float] = []
    stats = CompletionStats(total=2, success=good, pending=2 - good)
    job = BatchJob(name="batches/a", service=Service.VERTEX, state=JobState.EXPIRED, completion_stats=stats)
    found = list(responses(cast("Backend", Late(Outcome(job, None))), job, sleep=slept.append))
    assert (slept, len(found)) == (pauses, good)


def test_the_services_own_clock_tells_that_the_time_is_over(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    job = made(client, "file")
    emulator.control.advance(60)
    ended = client.get(job.name)
    emulator.control.advance(49 * 3600)
    with pytest.raises(ResultsGone):
        client.get_responses(ended)
    assert clock.pauses == []


def test_the_file_of_a_deleted_job_is_still_read(client: BatchClient, emulator: Emulator) -> None:
    job = made(client, "file")
    emulator.control.advance(60)
    ended = client.get(job.name)
    client.delete(job.name)
    assert len(list(client.get_responses(ended))) == 5
    with pytest.raises(NotFound):
        client.get_responses(job.name)


def test_the_inline_answers_of_a_deleted_job_are_gone(client: BatchClient, emulator: Emulator) -> None:
    job = made(client, "inline")
    emulator.control.advance(60)
    ended = client.get(job.name)
    client.delete(job.name)
    with pytest.raises(ResultsGone, match="does not know it any more"):
        client.get_responses(ended)


@both
def test_a_failed_job_has_no_answers_and_says_why(client: BatchClient, emulator: Emulator, source: str) -> None:
    emulator.control.faults(job_ending={"state": "FAILED", "code": 13, "message": "Internal trouble."})
    job = made(client, source)
    emulator.control.advance(60)
    with pytest.raises(JobFailed, match=r"ended as FAILED without responses: Internal trouble\."):
        client.get_responses(job)


@both
def test_a_cancelled_job_gives_what_it_has(client: BatchClient, emulator: Emulator, source: str) -> None:
    job = made(client, source)
    client.cancel(job.name)
    assert list(client.get_responses(job)) == []
    emulator.control.faults(cancel_ending="cancelled_partial", partial_rows=0.4, hold_running=True)
    job = made(client, source)
    emulator.control.advance(30)
    client.cancel(job.name)
    emulator.control.advance(30)
    assert client.get(job.name).cancelled
    assert len([answer for answer in client.get_responses(job) if answer.error is None]) == 2


def test_a_late_output_of_a_cancelled_job_is_waited_for_where_its_file_is_named(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(
        cancel_ending="cancelled_partial",
        partial_rows=0.4,
        hold_running=True,
        late_output=20,
        late_output_kind="refused",
    )
    job = made(client, "file")
    emulator.control.advance(30)
    client.cancel(job.name)
    assert client.get(job.name).cancelled
    assert len([answer for answer in client.get_responses(job) if answer.error is None]) == 2
    assert 15.0 <= sum(clock.pauses) <= 60.0


def test_a_missing_file_of_a_cancelled_job_is_not_an_error(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(
        cancel_ending="cancelled_partial", hold_running=True, late_output=10_000, late_output_kind="refused"
    )
    job = made(client, "file")
    emulator.control.advance(30)
    client.cancel(job.name)
    assert list(client.get_responses(job)) == []
    assert sum(clock.pauses) == 60.0


@both
def test_an_expired_job_gives_nothing_and_does_not_fail(client: BatchClient, emulator: Emulator, source: str) -> None:
    emulator.control.faults(expire=True, hold_running=True)
    job = made(client, source)
    emulator.control.advance(49 * 3600)
    assert client.get(job.name).expired
    assert list(client.get_responses(job)) == []


def test_a_cut_in_the_middle_of_the_answers_does_not_show(client: BatchClient, emulator: Emulator) -> None:
    job = made(client, "file", count=300)
    emulator.control.advance(60)
    emulator.control.faults(download_cut={"value": 7001, "times": 4})
    assert [answer.key for answer in client.get_responses(job)] == [f"k{n}" for n in range(300)]


@pytest.mark.parametrize("piece", [1, 2, 7, 5000, 1_000_000])
@pytest.mark.parametrize("names", [("inlinedResponses", "output"), ("inlined_responses", "output")])
def test_a_job_is_read_without_its_lists_in_pieces_of_any_size(piece: int, names: tuple[str, str]) -> None:
    inner, outer = names
    tricky = {"a": 'x]}{["\\', "b": [{"c": "]"}], "d": [[], [1]], "t": '"inlinedResponses": [', "long": "[" * 9000}
    whole = {"displayName": '"inlinedResponses": [{}]', outer: {inner: {inner: [tricky, None] * 3}}, "n": [1]}
    body = json.dumps({"metadata": whole, "response": {inner: []}, "done": True}).encode()
    chunks = (body[at : at + piece] for at in range(0, len(body), piece))
    left = json.loads(b"".join(without_lists(chunks, gemini._INLINE_LIST)))
    assert left["metadata"].pop(outer) == {inner: {inner: []}}
    assert left == {"metadata": {"displayName": whole["displayName"], "n": [1]}, "response": {inner: []}, "done": True}
