"""The service's own words: no row, no credential, no control character, and no text that takes long to read."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchJob, JobState, Service
from airflow_provider_gemini_batch.api.responses.refusal import error_from_response
from airflow_provider_gemini_batch.api.service_words import job_words, message_words, name_word, status_word
from airflow_provider_gemini_batch.api.wire import error_of
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, from_event, to_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

KEY = "AIzaSy" + "D" * 33


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("plain words", "plain words"),
        ("The model 'models/gemini-2.5-flash' is gone", "The model 'models/gemini-2.5-flash' is gone"),
        ("the users' files don't match 'the secret prompt'", "the users' files don't match '...'"),
        ('cannot read "the secret, prompt" here', "cannot read '...' here"),
        ('cannot read "a \\" secret prompt" here', "cannot read '...' here"),
        ('cannot read "the secret prompt', "cannot read '...'"),
        ("cannot read 'the secret prompt", "cannot read '...'"),
        (f"key {KEY} is suspended", "key *** is suspended"),
        ("token ya29.a0AfH6SMBx-secret_x", "token ***"),
        ("Consumer 'api_key:secret-secret' has no quota", "Consumer '...' has no quota"),
        ("one\x1b[31mred\x00\x07\u202eword", "one [31mred word"),
        ("Invalid value at 'requests[0]' (TYPE_STRING), \"secret\"", "Invalid value at 'requests[0]' (TYPE_STRING)"),
    ],
)
def test_what_is_kept_of_a_message(said: str, kept: str) -> None:
    assert message_words(said) == kept
    assert job_words(said) == kept


def test_a_text_that_is_cut_within_a_quotation_shows_nothing_of_it() -> None:
    said = "cannot read " + "'" + "secret " * 5000 + "'"
    assert job_words(said) == message_words(said) == "cannot read '...'"


def test_a_secret_that_the_cut_goes_through_does_not_show() -> None:
    for length in range(3_950, 4_000):
        assert "hunter" not in message_words(" " * length + "hunter2-hunter2-hunter2", ("hunter2-hunter2-hunter2",))


def test_a_status_is_a_status_and_nothing_else() -> None:
    assert status_word("NOT_FOUND") == "NOT_FOUND"
    for odd in ("not found", "X" * 100, "A\nB", 5, None, ["NOT_FOUND"]):
        assert status_word(odd) == ""
    body = json.dumps({"error": {"status": "<script>", "details": [{"reason": "a\x1bb"}, {"reason": "QUOTA"}]}})
    error: Any = error_from_response(400, {}, body.encode(), what="get")
    assert (error.status, error.reason) == ("", "QUOTA")


@given(st.text(max_size=300) | st.integers() | st.none())
def test_a_name_is_short_and_printable(value: object) -> None:
    word = name_word(value)
    assert word.isprintable()
    assert len(word) <= 100


def test_the_name_of_a_state_is_clean_whoever_reads_it(client: BatchClient, emulator: Emulator) -> None:
    name = client.create("gemini-2.5-flash", inlined_requests=["One?"]).name
    emulator.control.set_job(name, state="BATCH_STATE_\x1b[2J\n" + "X" * 1000)
    (snapshot,) = client.snapshots().snapshots
    for raw in (client.get(name).raw_state, snapshot.progress.raw_state):
        assert raw.startswith("BATCH_STATE_ [2J X")
        assert raw.isprintable()
        assert len(raw) <= 100


def refuse(text: str) -> object:
    body = json.dumps({"error": {"message": text, "status": text, "details": [{"reason": text, "retryDelay": text}]}})
    return error_from_response(403, {"Retry-After": text, "Date": text}, body.encode(), what="get", secrets=("key",))


def job_of(text: str) -> BatchJob:
    return BatchJob(
        name="batches/a",
        service=Service.GEMINI,
        state=JobState.FAILED,
        raw_state=name_word(text),
        display_name=text,
        error=error_of({"code": 3, "message": text}),
    )


def report(text: str) -> object:
    return from_event(to_event(WaitReport(Reason.REFUSED, (job_of(text),), job_words(text))))


READERS: list[Callable[[str], object]] = [refuse, job_of, report, lambda text: tag_of(job_of(text))]
PIECES = [
    "line ", "line 1", "line\t", '"', '\\"', "'", "\\'", "a'", " '", "\\", "Invalid value at '",
    "Invalid value at 'x' (", "Invalid value at 'x', ", "Error on line 1: ", "Error on line 11", "access the file ",
    "may not exist", "AIza", "AIza ", "ya29.", "api_key:", "projects/", "batches/", "-", "gb1-", "gb1-a-1-1.1.1-",
    " ", "\n", "\x00", "\u202e", "1", "{", "Files/x is not ", "not in a ",
]  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", PIECES)
def test_a_text_of_twice_the_size_takes_at_most_about_twice_the_time(piece: str) -> None:
    def spent(size: int) -> float:
        text = piece * (size // len(piece))
        times = []
        for _ in range(3):
            began = time.thread_time()
            for read in READERS:
                read(text)
            times.append(time.thread_time() - began)
        return min(times)

    # Where reading is quadratic, the second takes minutes: what is compared is far from any noise.
    once, twice = spent(200_000), spent(400_000)
    assert twice <= 4 * once + 0.1
