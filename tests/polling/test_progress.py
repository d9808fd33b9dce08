"""Progress in words: only when something has changed, and no time left that nobody can know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import JobProgress, JobState
from airflow_provider_gemini_batch.polling.progress import Progress, span


def seen(done: int = 0, failed: int = 0, total: int | None = 1000, state: JobState = JobState.RUNNING) -> JobProgress:
    return JobProgress(state, state.value, total, done - failed, failed)


def line(progress: Progress, *jobs: JobProgress | None, now: float = 0.0) -> str | None:
    news = progress.news(jobs, now)
    return None if news is None else news[0]


def test_a_job_says_how_far_it_is_and_how_long_it_will_take() -> None:
    progress = Progress()
    assert line(progress, seen(state=JobState.PENDING, total=None)) == "The job is PENDING"
    assert line(progress, seen(0)) == "0 of 1000 done"
    assert line(progress, seen(112, 1), now=600.0) == "112 of 1000 done, 1 failed"
    assert line(progress, seen(412, 3), now=1150.0) == "412 of 1000 done, 3 failed, about 18 min left"


def test_nothing_is_said_twice() -> None:
    progress = Progress()
    assert line(progress, None) is None
    assert line(progress, seen(5)) is not None
    assert line(progress, seen(5), now=100.0) is None


def test_several_jobs_are_summed_up() -> None:
    progress = Progress()
    jobs = (seen(1000, state=JobState.SUCCEEDED), seen(10), None)
    assert line(progress, *jobs) == "1 of 3 jobs ended, 1010 of 2000 done"
    assert line(progress, seen(total=None), seen(total=None)) == "0 of 2 jobs ended"


def test_the_numbers_for_an_xcom_are_few_and_plain() -> None:
    news = Progress().news((seen(20, 2),), 0.0)
    assert news is not None
    assert news[1] == {
        "jobs": 1,
        "jobs_ended": 0,
        "state": "RUNNING",
        "total": 1000,
        "done": 20,
        "failed": 2,
        "seconds_left": None,
    }


@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(-5, 500)), max_size=20))
def test_no_order_of_counts_and_clocks_makes_a_time_left_below_zero(steps: list[tuple[int, int]]) -> None:
    progress, now = Progress(), 0.0
    for done, seconds in steps:
        now += seconds
        news = progress.news((seen(done),), now)
        if news is not None and news[1]["seconds_left"] is not None:
            assert news[1]["seconds_left"] >= 0
            assert done < 1000


@given(st.floats(0, 1e7))
def test_a_span_is_short_to_read(seconds: float) -> None:
    assert len(span(seconds)) <= 8
