"""The words of a wait: only when something has changed, and no time left that nobody can know."""

from __future__ import annotations

import json
import logging
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import AccessDenied, TransportError
from airflow_provider_gemini_batch.api.models import JobProgress, JobSnapshot, JobState
from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.progress import WaitLog, span

T = 1_800_000_000.0  # 2027-01-15 08:00 UTC
DOWN = TransportError("connection refused", sent=False)


class Told:
    """A wait for jobs a, b ... and what its log says."""

    def __init__(self, count: int = 1, deadline: float = inf) -> None:
        self.wait = JobWait([f"batches/{chr(97 + number)}" for number in range(count)], WaitPolicy(deadline))
        self.log = WaitLog(self.wait)

    def lines(self, *answers: Any, at: float = 0.0) -> list[str]:
        """What the log says after these answers, one for each job; None: no answer."""
        for job, answer in zip(self.wait.jobs, answers, strict=True):
            snapshot = JobSnapshot(job.name, answer) if isinstance(answer, JobProgress) else answer
            self.wait.record(job, snapshot, T + at)
        return [line for _, line in self.log.new_lines(T + at)]


def seen(done: int = 0, failed: int = 0, total: int | None = 1000, state: JobState = JobState.RUNNING) -> JobProgress:
    return JobProgress(state, state.value, total, done - failed, failed, counted=total is not None)


def test_a_job_says_its_states_how_far_it_is_and_how_long_it_will_take() -> None:
    told = Told()
    assert told.lines(seen(state=JobState.PENDING, total=None)) == ["batches/a: pending"]
    assert told.lines(seen(0)) == ["batches/a: pending -> running", "0 of 1000 rows done"]
    assert told.lines(seen(112, 1), at=600.0) == ["112 of 1000 rows done, 1 failed"]
    assert told.lines(seen(262, 1), at=900.0) == ["262 of 1000 rows done, 1 failed, about 25 min left"]
    assert told.lines(seen(412, 3), at=1150.0) == ["412 of 1000 rows done, 3 failed, about 18 min left"]
    ended = seen(1000, 3, state=JobState.SUCCEEDED)
    assert told.lines(ended, at=2000.0) == ["batches/a: running -> succeeded", "1000 of 1000 rows done, 3 failed"]


def test_an_unknown_state_has_the_name_that_the_service_gives_it() -> None:
    assert Told().lines(JobProgress(JobState.UNKNOWN, "BATCH_STATE_NAPPING")) == ["batches/a: BATCH_STATE_NAPPING"]


def test_nothing_is_said_twice() -> None:
    told = Told()
    assert told.lines(None) == []
    assert told.lines(seen(5)) != []
    assert told.lines(seen(5), at=100.0) == []


def test_several_jobs_are_summed_up() -> None:
    told = Told(5)
    states = (seen(1000, state=JobState.SUCCEEDED), seen(10), seen(0), seen(0), None)
    assert told.lines(*states) == [
        "batches/a: succeeded",
        "batches/b, batches/c, batches/d: running",
        "1 of 5 jobs ended, 1010 of 4000 rows done",
    ]
    told.lines(*[seen(0)] * 5)
    ended = [seen(1000, state=JobState.SUCCEEDED)] * 5
    assert told.lines(*ended)[0] == "batches/b, batches/c, batches/d, 1 more: running -> succeeded"


def test_a_burst_at_the_beginning_makes_no_silly_time_left() -> None:
    told = Told()
    told.lines(seen(0))
    for number in range(1, 6):
        (line,) = told.lines(seen(66 * number), at=0.05 * number)
        assert "left" not in line


def test_a_time_left_needs_to_know_how_many_rows_every_job_has() -> None:
    told = Told(2)
    for number in range(5):
        (*_, line) = told.lines(seen(number * 10), seen(total=None), at=100.0 * number)
        assert "left" not in line


def test_failing_polls_are_told_once_with_reason_and_deadline_and_once_when_they_work_again() -> None:
    told = Told(deadline=T + 6 * 3600)
    said = [told.lines(DOWN, at=float(number)) for number in range(7)]
    line = "Polling batches/a failed 3 times (connection refused); will keep trying until 14:00 UTC."
    assert said == [[], [], [line], [], [], [], []]
    assert told.lines(seen(5), at=8.0)[0] == "Polling batches/a works again after 7 failures."


def test_refused_credentials_are_told_when_they_were_looked_up_again_and_with_no_deadline() -> None:
    """A gateway's refusal ends the wait only after ten minutes: until then, the log is all that there is."""
    told = Told(deadline=T + 6 * 3600)
    page = AccessDenied("401 and no message", http_status=401)
    assert told.lines(page) == []
    (line,) = told.lines(page, at=5.0)
    assert line.startswith("Polling batches/a failed 2 times (401 and no message); asking again for some minutes")
    assert told.lines(page, at=65.0) == []


def test_a_deadline_of_another_day_has_its_date_and_none_is_not_named() -> None:
    late, never = Told(deadline=T + 49 * 3600), Told()
    for number in range(2):
        late.lines(DOWN, at=float(number))
        never.lines(DOWN, at=float(number))
    assert late.lines(DOWN)[0].endswith("will keep trying until 2027-01-17 09:00 UTC.")
    assert never.lines(DOWN)[0].endswith("will keep trying.")


def test_failures_are_warnings_and_all_else_is_not() -> None:
    told = Told()
    levels = []
    for answer in (DOWN, DOWN, DOWN, JobSnapshot("batches/a", seen(5))):
        told.wait.record(told.wait.jobs[0], answer, T)
        levels += [level for level, _ in told.log.new_lines(T)]
    assert levels == [logging.WARNING, logging.INFO, logging.INFO, logging.INFO]


def test_the_numbers_for_an_xcom_are_few_and_plain() -> None:
    told = Told()
    assert told.log.numbers(T) is None
    told.lines(seen(20, 2), at=5.0)
    assert told.log.numbers(T + 6.04) == {
        "at": T + 6.0,
        "jobs": 1,
        "jobs_ended": 0,
        "state": "RUNNING",
        "total": 1000,
        "done": 20,
        "failed": 2,
        "seconds_left": None,
        "started_at": T + 5.0,
        "samples": [[T + 5, 20, 2]],
        "each": {"batches/a": ["RUNNING", 1000, 20, 2]},
    }


def test_the_record_keeps_sixty_samples_at_most_the_first_and_the_last_among_them() -> None:
    told = Told()
    for number in range(500):
        told.lines(seen(number + 1), at=60.0 * number)
    numbers = told.log.numbers(T + 60.0 * 499)
    assert numbers is not None
    assert 30 <= len(numbers["samples"]) <= 60
    assert numbers["samples"][0] == [T, 1, 0]
    assert numbers["samples"][-1] == [T + 60 * 499, 500, 0]
    assert numbers["seconds_left"] == 60 * 500
    assert len(json.dumps(numbers)) < 3000


@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(-5, 500)), max_size=20))
def test_no_order_of_counts_and_clocks_makes_a_time_left_that_is_not_worth_saying(steps: list[tuple[int, int]]) -> None:
    told, at = Told(), 0.0
    for done, seconds in steps:
        at += seconds
        told.lines(seen(done), at=at)
        numbers = told.log.numbers(T + at)
        assert numbers is not None
        assert numbers["seconds_left"] is None or (numbers["seconds_left"] >= 10 and done < 1000)


@given(st.floats(0, 1e7))
def test_a_span_is_short_to_read(seconds: float) -> None:
    assert len(span(seconds)) <= 8


@pytest.mark.parametrize("odd", [inf, nan, -1, "5", None, [5]])
def test_a_damaged_record_of_an_earlier_process_is_left_out(odd: Any) -> None:
    told = Told()
    told.log.go_on_from({"started_at": odd, "samples": [[odd, 1, 0], [T - 50, odd, 0], [T - 40, 1, 0], odd]})
    told.lines(seen(5))
    numbers = told.log.numbers(T)
    assert numbers is not None
    assert numbers["samples"] == [[round(T - 40), 1, 0], [round(T), 5, 0]]
    assert numbers["started_at"] == T
