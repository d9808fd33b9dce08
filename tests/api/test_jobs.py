"""Jobs of the Gemini API from end to end, against the emulator: create, look up, list, cancel, delete, wait."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from airflow_provider_gemini_batch.api.client import BatchClient, job_page_url
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    JobTimedOut,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import JobKind, JobSnapshot, JobState, Service
from airflow_provider_gemini_batch.api.wire import state_of

if TYPE_CHECKING:
    from api.virtual_time import VirtualTime

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.emulator import Emulator

FLASH = "gemini-2.5-flash"


def created(emulator: Emulator) -> int:
    return int(emulator.control.books()["created"])


def calls(emulator: Emulator, operation: str) -> int:
    return int(emulator.control.books()["requests"].get(operation, 0))


def test_every_field_of_a_new_job_is_read(client: BatchClient) -> None:
    job = client.create(FLASH, inlined_requests=["One?", "Two?"], display_name="nightly", priority=-5)
    assert job.name.startswith("batches/")
    assert (job.service, job.kind, job.model) == (Service.GEMINI, JobKind.GENERATION, FLASH)
    assert (job.state, job.raw_state) == (JobState.PENDING, "BATCH_STATE_PENDING")
    assert (job.display_name, job.priority) == ("nightly", -5)
    assert job.completion_stats is not None
    assert (job.completion_stats.total, job.completion_stats.pending) == (2, 2)
    assert job.never_started
    assert not job.is_done
    assert job.create_time is not None
    assert job.as_of is not None
    assert client.get(job.name).model_dump(exclude={"as_of"}) == job.model_dump(exclude={"as_of"})


def test_a_model_may_come_with_its_prefix(client: BatchClient) -> None:
    assert client.create(f"models/{FLASH}", inlined_requests=["One?"]).model == FLASH


def test_defaults_reach_the_requests_and_lose_against_their_own_values(client: BatchClient, emulator: Emulator) -> None:
    own = {"contents": [{"parts": [{"text": "b"}]}], "generationConfig": {"maxOutputTokens": 7}}
    job = client.create(
        FLASH,
        inlined_requests=["a", own],
        generation_config={"max_output_tokens": 3, "temperature": 0.5},
        system_instruction="Be brief. " * 20,
        request_defaults={"safetySettings": []},
    )
    emulator.control.advance(60)
    answers = list(client.get_responses(job))
    # The emulator counts the system instruction among the prompt's tokens.
    assert all(answer.response and answer.response["usageMetadata"]["promptTokenCount"] > 40 for answer in answers)


def test_a_partial_response_shows_that_a_job_makes_embeddings(client: BatchClient) -> None:
    job = client.create_embeddings("gemini-embedding-001", inlined_requests=["alpha"])
    assert client.get(job.name, brief=True).kind is JobKind.EMBEDDINGS
    assert client.list(brief=True).batch_jobs[0].kind is JobKind.EMBEDDINGS


def test_embeddings_come_back_with_the_size_that_was_asked_for(client: BatchClient, emulator: Emulator) -> None:
    job = client.create_embeddings(
        "gemini-embedding-001", inlined_requests=["alpha"], task_type="RETRIEVAL_DOCUMENT", output_dimensionality=64
    )
    assert job.kind is JobKind.EMBEDDINGS
    emulator.control.advance(60)
    (answer,) = client.get_responses(job)
    assert answer.response is not None
    assert len(answer.response["embedding"]["values"]) == 64


def test_lists_go_on_over_pages_and_empty_ones(client: BatchClient, emulator: Emulator) -> None:
    names = [client.create(FLASH, inlined_requests=["One?"]).name for _ in range(5)]
    emulator.control.faults(empty_page={"value": True, "times": 1})
    page = client.list(page_size=2)
    assert page.batch_jobs == ()
    assert page.has_more_pages
    emulator.control.faults(empty_page={"value": True, "times": 2})
    assert [job.name for job in client.list_all(page_size=2)] == names[::-1]


def test_an_empty_list_is_not_an_error(client: BatchClient) -> None:
    page = client.list()
    assert page.batch_jobs == ()
    assert not page.has_more_pages
    assert list(client.list_all()) == []


def test_a_brief_get_leaves_out_the_responses(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"], display_name="x")
    emulator.control.advance(60)
    brief, whole = client.get(job.name, brief=True), client.get(job.name)
    assert brief.dest is None
    assert whole.dest is not None
    assert whole.dest.inlined
    assert brief.model_copy(update={"dest": whole.dest, "kind": whole.kind, "as_of": whole.as_of}) == whole
    assert client.list(brief=True).batch_jobs[0].state is JobState.SUCCEEDED


def test_snapshots_say_the_same_of_each_job_as_the_list(client: BatchClient, emulator: Emulator) -> None:
    for number in range(3):
        emulator.control.advance(60)
        client.create(FLASH, inlined_requests=[f"{number}?"])
    told = [JobSnapshot.of(job) for job in client.list(brief=True).batch_jobs]
    assert len({snapshot.progress.state for snapshot in told}) > 1
    first = client.snapshots(page_size=2)
    rest = client.snapshots(page_size=2, page_token=first.next_page_token)
    assert rest.next_page_token is None
    seen = first.snapshots + rest.snapshots
    assert [replace(snapshot, as_of=None) for snapshot in seen] == [replace(snapshot, as_of=None) for snapshot in told]
    assert all(snapshot.as_of is not None and snapshot.progress.counted for snapshot in seen)


def test_the_garbage_collector_does_not_see_a_snapshot(client: BatchClient) -> None:
    client.create(FLASH, inlined_requests=["One?"])
    (snapshot,) = client.snapshots().snapshots
    parts = [getattr(owner, name) for owner in (snapshot, snapshot.progress) for name in owner.__struct_fields__]
    assert not [each for each in (snapshot, *parts) if gc.is_tracked(each) and not isinstance(each, JobState)]


def test_refused_masks_are_not_tried_again(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.faults(refuse_fields=True)
    assert client.get(job.name, brief=True).state is JobState.PENDING
    assert calls(emulator, "get") == 2
    assert client.get(job.name, brief=True).kind is JobKind.GENERATION
    assert client.list(brief=True).batch_jobs[0].name == job.name
    assert client.snapshots().snapshots[0].name == job.name
    assert calls(emulator, "get") == 3
    assert calls(emulator, "list") == 2


def test_a_400_that_masks_have_nothing_to_do_with_leaves_them_on(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.faults(http={"operation": "get", "status": 400, "times": 2})
    with pytest.raises(ApiError):
        client.get(job.name, brief=True)
    assert client.get(job.name, brief=True).kind is None


@pytest.mark.parametrize("prefix", ["BATCH_STATE_", "JOB_STATE_"])
@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.UNKNOWN])
def test_states_are_read_in_either_spelling(prefix: str, state: JobState) -> None:
    assert state_of(prefix + state.value) is state


@pytest.mark.parametrize(
    "raw", ["", "BATCH_STATE_NAPPING", "JOB_STATE_UNSPECIFIED", "BATCH_STATE_UNKNOWN", "STATE RUNNING"]
)
def test_any_other_state_is_unknown(raw: str) -> None:
    assert state_of(raw) is JobState.UNKNOWN


def test_an_unknown_state_keeps_its_name_and_is_not_an_end(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.set_job(job.name, state="BATCH_STATE_NAPPING")
    seen = client.get(job.name)
    assert (seen.state, seen.raw_state) == (JobState.UNKNOWN, "BATCH_STATE_NAPPING")
    assert not seen.is_done


def test_a_failed_job_says_why(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(job_ending={"state": "FAILED", "code": 8, "message": "Enqueued token quota exceeded."})
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.advance(60)
    seen = client.get(job.name)
    assert seen.failed
    assert seen.error is not None
    assert (seen.error.code, seen.error.message) == (8, "Enqueued token quota exceeded.")
    assert "quota" not in repr(seen)


def test_a_job_can_be_cancelled_more_than_once_and_deleted(client: BatchClient) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    client.cancel(job.name)
    client.cancel(job.name)
    assert client.get(job.name).cancelled
    client.delete(job.name)
    with pytest.raises(NotFound, match=rf"get of {job.name} on 127.0.0.1:\d+ was refused: 404 NOT_FOUND"):
        client.get(job.name)
    with pytest.raises(NotFound):
        client.delete(job.name)


def test_a_delete_that_was_carried_out_unheard_is_done(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.faults(reset={"operation": "delete", "when": "after", "times": 1})
    client.delete(job.name)
    assert calls(emulator, "delete") == 2


def test_jobs_of_another_key_are_not_there(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    with BatchClient.for_gemini("other-key", base_url=emulator.url) as other:
        assert other.list().batch_jobs == ()
        with pytest.raises(NotFound):
            other.get(job.name)


def test_a_refused_key_is_told_from_a_bad_request(emulator: Emulator) -> None:
    with BatchClient.for_gemini("bad-key", base_url=emulator.url) as other, pytest.raises(AccessDenied) as caught:
        other.list()
    assert caught.value.reason == "API_KEY_INVALID"
    assert "bad-key" not in str(caught.value)


def test_an_unknown_model_and_an_unknown_member_are_refused_by_the_service(
    client: BatchClient, emulator: Emulator
) -> None:
    with pytest.raises(NotFound, match="models/gemini-nope is not found"):
        client.create("gemini-nope", inlined_requests=["One?"])
    assert created(emulator) == 0


@pytest.mark.parametrize("status", [500, 503, 504, 429])
@pytest.mark.parametrize("operation", ["get", "list", "cancel", "delete"])
def test_what_is_safe_is_repeated_with_growing_pauses(
    client: BatchClient, emulator: Emulator, clock: VirtualTime, operation: str, status: int
) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.faults(http={"operation": operation, "status": status, "times": 3})
    _do(client, operation, job)
    assert calls(emulator, operation) == 4
    assert len(clock.pauses) == 3
    assert 0.25 <= clock.pauses[0] <= 0.5 < clock.pauses[2] <= 2.0


def _do(client: BatchClient, operation: str, job: BatchJob) -> None:
    if operation == "list":
        client.list()
    else:
        getattr(client, operation)(job.name)


def test_in_the_end_the_last_error_is_raised(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(http={"operation": "list", "status": 503})
    with pytest.raises(ServiceUnavailable):
        client.list()
    assert calls(emulator, "list") == 4


def test_a_short_wait_that_the_service_asks_for_is_kept_and_a_long_one_is_the_callers(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(http={"operation": "list", "status": 429, "retry_info": "19s", "times": 1})
    client.list()
    assert clock.pauses == [19.0]
    emulator.control.faults(http={"operation": "list", "status": 429, "retry_info": "90s", "times": 1})
    with pytest.raises(QuotaExceeded) as caught:
        client.list()
    assert caught.value.retry_after == 90.0


@pytest.mark.parametrize("fault", [
    {"http": {"operation": "create", "status": 503, "after_effect": True, "times": 1}},
    {"http": {"operation": "create", "status": 500, "times": 1}},
    {"reset": {"operation": "create", "when": "after", "times": 1}},
    {"reset": {"operation": "create", "when": "before", "times": 1}},
    {"garbage": {"operation": "create", "times": 1}},
    {"http": {"operation": "create", "status": 429, "times": 1}},
])  # fmt: skip
def test_a_create_that_may_have_arrived_is_sent_once(
    client: BatchClient, emulator: Emulator, fault: dict[str, object]
) -> None:
    emulator.control.faults(**fault)
    with pytest.raises((TransportError, ApiError, UnexpectedResponse)) as caught:
        client.create(FLASH, inlined_requests=["One?"])
    assert calls(emulator, "create") == 1
    error = caught.value
    # Only a 429 says that nothing was made.
    assert error.may_have_acted is not isinstance(error, QuotaExceeded)
    assert "One?" not in str(error)


def test_a_create_that_never_left_is_sent_again() -> None:
    pauses: list[float] = []
    client = BatchClient.for_gemini("k", base_url="http://127.0.0.1:9", attempts=3, sleep=pauses.append)
    with client, pytest.raises(TransportError) as caught:
        client.create(FLASH, inlined_requests=["One?"])
    assert not caught.value.may_have_acted
    assert len(pauses) == 2


def test_no_answer_in_time_leaves_it_open_whether_a_job_was_made(emulator: Emulator) -> None:
    emulator.control.faults(slow={"operation": "create", "seconds": 3, "times": 1})
    with (
        BatchClient.for_gemini("k", base_url=emulator.url, timeout=0.1) as client,
        pytest.raises(TransportError, match=r"create of models/.* failed: no response within 0.5 s; the service may"),
    ):
        client.create(FLASH, inlined_requests=["One?"])


def test_the_error_says_that_a_response_is_not_json(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(garbage={"operation": "get", "times": 1})
    job = client.create(FLASH, inlined_requests=["One?"])
    with pytest.raises(UnexpectedResponse, match=r"get of batches/.*: 200, but the response is not JSON"):
        client.get(job.name)


def test_waiting_ends_with_the_job_and_reports_only_changes(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.faults(hold_pending={"value": True, "times": 1})
    seen: list[str] = []
    ended = client.wait(job.name, poll_interval=0.5, on_progress=lambda now: seen.append(now.raw_state))
    assert ended.succeeded
    assert ended.dest is not None
    assert ended.dest.inlined
    assert [state.removeprefix("BATCH_STATE_") for state in dict.fromkeys(seen)] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert set(clock.pauses) == {0.5}


def test_waiting_gives_up_at_the_time_out_and_leaves_the_job_alone(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.set_job(job.name, state="BATCH_STATE_NAPPING")
    began = clock.now
    with pytest.raises(JobTimedOut, match=r"Waited 100 s: .*; it was BATCH_STATE_NAPPING; the") as caught:
        client.wait(job.name, poll_interval=60, timeout=100.04321)
    assert clock.now - began == pytest.approx(100.04321)
    assert caught.value.job is not None
    assert calls(emulator, "cancel") == 0


def test_a_job_that_has_ended_counts_as_ended_even_when_it_is_late(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.advance(60)
    assert client.wait(job.name, timeout=0).succeeded


def test_waiting_outlasts_trouble_and_keeps_the_pause_that_a_quota_asks_for(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.faults(http=[
        {"operation": "get", "status": 503, "times": 9},
        {"operation": "get", "status": 429, "retry_info": "600s", "skip": 9, "times": 1},
    ])  # fmt: skip
    assert client.wait(job.name, poll_interval=10).succeeded
    assert 600.0 in clock.pauses


@pytest.mark.parametrize("shown", ["BATCH_STATE_RUNNING", "BATCH_STATE_PARTIALLY_DONE", "BATCH_STATE_UNSPECIFIED"])
@pytest.mark.parametrize(
    ("ending", "state"), [({}, JobState.SUCCEEDED), ({"state": "FAILED", "code": 13}, JobState.FAILED)]
)
def test_a_job_that_is_done_has_ended_whatever_its_state_says(
    client: BatchClient, emulator: Emulator, shown: str, ending: dict[str, Any], state: JobState
) -> None:
    emulator.control.faults(done_state=shown, **({"job_ending": ending} if ending else {}))
    name = client.create(FLASH, inlined_requests=["One?"]).name
    job = client.wait(name)
    assert (job.state, job.raw_state) == (state, shown)
    (snapshot,) = client.snapshots().snapshots
    assert (snapshot.progress.state, snapshot.progress.raw_state) == (state, shown)
    if state is JobState.SUCCEEDED:
        assert len(list(client.get_responses(job))) == 1


def test_a_cancelled_job_that_is_done_while_it_says_that_it_is_being_cancelled_is_cancelled(
    client: BatchClient, emulator: Emulator
) -> None:
    emulator.control.faults(done_state="BATCH_STATE_CANCELLING")
    name = client.create(FLASH, inlined_requests=["One?"]).name
    client.cancel(name)
    assert client.wait(name).state is JobState.CANCELLED


def test_a_new_job_may_be_unknown_for_two_minutes(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(create_lag=115.0)
    name = client.create(FLASH, inlined_requests=["One?"]).name
    with pytest.raises(NotFound):
        client.get(name)
    assert client.wait(name, poll_interval=10).succeeded


def test_waiting_ends_when_the_job_vanishes(client: BatchClient, emulator: Emulator) -> None:
    job = client.create(FLASH, inlined_requests=["One?"])
    emulator.control.set_job(job.name, gone=True)
    with pytest.raises(NotFound):
        client.wait(job.name)


def test_the_page_of_a_job_can_be_named() -> None:
    assert job_page_url("batches/a").startswith("https://aistudio.google.com/")
    assert job_page_url("projects/12/locations/europe-west4/batchPredictionJobs/7").endswith(
        "/locations/europe-west4/batch-predictions/7?project=12"
    )
