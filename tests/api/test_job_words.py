"""What the service says of a failed job goes on without what may repeat a row, whoever passes it on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.api.errors import JobFailed
from airflow_provider_gemini_batch.api.wire import error_of
from airflow_provider_gemini_batch.batch.verdict import Ended, judge
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, to_event

if TYPE_CHECKING:
    from api.virtual_time import VirtualTime

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator


def test_no_row_comes_along_with_the_words_of_a_failed_job(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    message = "Error on line 17:\ncannot read {'contents': 'the secret prompt'}"
    emulator.control.faults(job_ending={"state": "FAILED", "code": 3, "message": message})
    name = client.create("gemini-2.5-flash", inlined_requests=["One."]).name
    clock.sleep(600)
    job = client.get(name)
    with pytest.raises(JobFailed) as caught:
        list(client.get_responses(name))
    told = [
        json.dumps(to_event(WaitReport(Reason.ENDED, (job,)))),
        str(caught.value),
        judge(Ended(job)).message,
        repr(job),
    ]
    assert all("line 17" in words for words in told[:3])
    assert not any("secret" in words for words in told)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Internal trouble.", "Internal trouble."),
        ("Two\n  lines", "Two lines"),
        ("Invalid value at 'requests[0]' (TYPE_STRING), \"the secret prompt\"", "Invalid value at 'requests[0]'"),
        ('Cannot read "the secret, prompt".', "Cannot read '...'."),
        ("The model 'models/gemini-2.5-flash' is gone.", "The model 'models/gemini-2.5-flash' is gone."),
    ],
)
def test_words_without_values_are_kept(said: str, kept: str) -> None:
    error = error_of({"code": 3, "message": said})
    assert error is not None
    assert error.message.startswith(kept)
    assert "secret" not in error.message


def test_words_are_cut() -> None:
    error = error_of({"message": "long " * 1000})
    assert error is not None
    assert len(error.message) == 300
