"""Whatever clocks, lists and answers say: a try buys one job for its rows, and never more than a handful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from batch.desk import NOON, Desk, Service
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import (
    GeminiBatchError,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.batch.ports import Done, SleepUntil, TaskFailed, WaitForJobs
from airflow_provider_gemini_batch.batch.state import MOST_SENDS
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600.0
LOST = TransportError("reset", sent=True)
BUSY = ServiceUnavailable("503", http_status=503, status="UNAVAILABLE")


def clocked() -> Desk:
    desk = Desk()
    desk.service.clock = desk.clock
    return desk


def play(
    desk: Desk, *, try_number: int = 1, most: int = 60, between: Callable[[], None] = lambda: None, **policy: Any
) -> Done | TaskFailed | WaitForJobs:
    """Play one try, each step in a process of its own. A job that is cancelled ends; another one goes on running."""
    report: WaitReport | None = None
    for _ in range(most):
        try:
            step = desk.run(try_number=try_number, **policy).advance(report)
        except TaskFailed as failure:
            return failure
        if isinstance(step, SleepUntil):
            desk.clock.time = max(desk.clock.time, step.at - desk.clock.ahead)
        between()
        if isinstance(step, Done):
            return step
        if isinstance(step, SleepUntil):
            report = WaitReport(Reason.WAKE, memo=step.memo)
            continue
        stopped = [name for name in step.job_names if name in desk.service.cancelled]
        if not stopped:
            return step
        for name in stopped:
            desk.service.end(name, JobState.CANCELLED)
        desk.clock.time += 1.0
        report = WaitReport(Reason.ENDED, memo=step.memo)
    raise AssertionError(f"The try does not come to an end: {len(desk.service.created)} create calls")


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("date_ahead", [5 * HOUR, -5 * HOUR, 100 * HOUR])
@pytest.mark.parametrize("ahead", [0.0, 7 * HOUR, -7 * HOUR])
@pytest.mark.parametrize("timeout", [60.0, 3600.0, None])
def test_a_job_that_this_try_created_is_never_older_than_the_try(
    date_ahead: float, ahead: float, timeout: float | None, *, lasting: bool
) -> None:
    desk = clocked()
    desk.store.lasting = lasting
    desk.service.date_ahead, desk.service.ahead = date_ahead, ahead
    step = play(desk, timeout=timeout)
    assert isinstance(step, WaitForJobs)
    assert (len(desk.service.created), desk.service.cancelled) == (1, [])
    assert step.end_time == NOON + (timeout or 49 * HOUR)


@pytest.mark.parametrize("date_ahead", [5 * HOUR, -5 * HOUR])
@pytest.mark.parametrize("lasting", [True, False])
def test_a_retry_behind_a_gateway_with_another_clock_goes_on_with_the_running_job(
    date_ahead: float, *, lasting: bool
) -> None:
    desk = clocked()
    desk.store.lasting = lasting
    desk.service.date_ahead = date_ahead
    play(desk, timeout=3600.0)
    desk.clock.time += 600.0
    step = play(desk, try_number=2, timeout=3600.0)
    assert isinstance(step, WaitForJobs)
    assert (len(desk.service.created), desk.service.cancelled) == (1, [])
    assert step.end_time >= NOON + 3600.0


@pytest.mark.parametrize("ahead", [5 * HOUR, -5 * HOUR])
def test_a_worker_whose_clock_is_hours_off_goes_on_with_the_running_job(ahead: float) -> None:
    desk = clocked()
    play(desk, timeout=3600.0)
    desk.clock.time += 600.0
    desk.clock.ahead = ahead
    assert isinstance(play(desk, try_number=2, timeout=3600.0), WaitForJobs)
    assert (len(desk.service.created), desk.service.cancelled) == (1, [])


@pytest.mark.parametrize("date_ahead", [5 * HOUR, -5 * HOUR])
def test_a_job_is_stuck_in_the_queue_by_our_clock_whatever_the_trigger_makes_of_the_services(date_ahead: float) -> None:
    desk = clocked()
    desk.service.date_ahead, desk.service.state_of_new = date_ahead, JobState.PENDING
    policy: dict[str, Any] = {"queue_timeout": 3600.0, "on_stall": "resubmit"}
    step = desk.run(**policy).advance(None)
    assert isinstance(step, WaitForJobs)
    desk.clock.time += 60.0
    step = desk.run(**policy).advance(WaitReport(Reason.QUEUE_TIMEOUT, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert (step.stalls_count, step.end_time, desk.service.cancelled) == (False, NOON + 3600.0, [])
    desk.clock.time = step.end_time
    desk.run(**policy).advance(WaitReport(Reason.DEADLINE, memo=step.memo))
    assert desk.service.cancelled == ["batches/1"]


hours = st.sampled_from([-30, -5, -1, 0, 0, 0, 1, 5, 30]).map(lambda count: count * HOUR)
clocks = st.lists(st.tuples(hours, hours, hours), min_size=1, max_size=30)


@given(clocks, st.sampled_from([None, 60.0, 3600.0]), st.booleans(), st.integers(1, 4))
def test_however_the_clocks_jump_a_try_makes_one_job(
    jumps: list[tuple[float, float, float]],
    timeout: float | None,
    lasting: bool,  # noqa: FBT001
    tries: int,
) -> None:
    desk = clocked()
    desk.store.lasting = lasting
    left = list(jumps)

    def jump() -> None:
        if left:
            desk.clock.ahead, desk.service.ahead, desk.service.date_ahead = left.pop()

    jump()
    for number in range(1, tries + 1):
        before = len(desk.service.created)
        play(desk, try_number=number, timeout=timeout, between=jump)
        assert len(desk.service.created) - before <= 1


@pytest.mark.parametrize("error", [LOST, BUSY, UnexpectedResponse("not JSON")])
@pytest.mark.parametrize("lasting", [True, False])
def test_create_calls_whose_jobs_never_appear_are_sent_a_handful_of_times(
    error: GeminiBatchError, *, lasting: bool
) -> None:
    desk = clocked()
    desk.store.lasting = lasting
    desk.service.hidden, desk.service.lost = True, [error] * 1000
    failure = play(desk)
    assert isinstance(failure, TaskFailed)
    assert failure.verdict.retry
    assert f"submitted {MOST_SENDS} times in this try" in failure.verdict.message
    assert len(desk.service.created) == MOST_SENDS
    for number in range(2, 12):
        assert isinstance(play(desk, try_number=number), TaskFailed)
    most = 11 + MOST_SENDS - 1 if lasting else 11 * MOST_SENDS
    assert len(desk.service.created) <= most


class Vanishing(Service):
    """A service that forgets its jobs."""

    def get(self, name: str) -> Any:
        self.jobs.pop(name, None)
        return super().get(name)


def test_jobs_that_the_service_forgets_are_not_created_again_and_again() -> None:
    desk = Desk(service=Vanishing())
    desk.service.clock = desk.clock
    for number in range(1, 10):
        step = play(desk, try_number=number)
        if isinstance(step, WaitForJobs):
            with pytest.raises(TaskFailed, match="does not know"):
                desk.run(try_number=number).advance(WaitReport(Reason.GONE, memo=step.memo))
    assert len(desk.service.created) <= 9 + MOST_SENDS - 1


def test_refusals_of_the_service_are_not_counted() -> None:
    desk = clocked()
    desk.service.lost = [QuotaExceeded("429", http_status=429, retry_after=5.0)] * 20
    assert isinstance(play(desk), WaitForJobs)
    assert len(desk.service.created) == 21


def test_resubmissions_after_a_stall_are_counted_beside_the_handful() -> None:
    desk = clocked()
    policy: dict[str, Any] = {"on_stall": "resubmit", "max_resubmits": 8}
    step: Any = desk.run(**policy).advance(None)
    for number in range(1, 9):
        name = f"batches/{number}"
        report = WaitReport(Reason.PROGRESS_TIMEOUT, memo=step.memo, stalled=(name,))
        step = desk.run(**policy).advance(report)
        desk.service.end(name, JobState.CANCELLED)
        step = desk.run(**policy).advance(WaitReport(Reason.ENDED, memo=step.memo))
    assert len(desk.service.created) == 9
    with pytest.raises(TaskFailed, match="made no progress"):
        desk.run(**policy).advance(WaitReport(Reason.PROGRESS_TIMEOUT, memo=step.memo, stalled=("batches/9",)))


# -- how long a lost create call is looked for


def seconds_until_sent_again(desk: Desk, error: GeminiBatchError, **policy: Any) -> float:
    desk.service.lost = [error]
    play(desk, **policy)
    assert len(desk.service.created) == 2
    return desk.clock.time - NOON


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ServiceUnavailable("500", http_status=500, status="INTERNAL"), 120.0),
        (ServiceUnavailable("503", http_status=503, status="UNAVAILABLE"), 120.0),
        # A gateway's word, or none: the service may still be at it.
        (ServiceUnavailable("a page", http_status=500), 420.0),
        (ServiceUnavailable("a page", http_status=503), 420.0),
        (UnexpectedResponse("not JSON"), 420.0),
        (ServiceUnavailable("502", http_status=502), 420.0),
        (ServiceUnavailable("504", http_status=504), 420.0),
        (TransportError("reset", sent=True), 420.0),
    ],
)
def test_a_call_that_was_answered_is_looked_for_until_lookup_timeout_and_no_longer(
    error: GeminiBatchError, seconds: float
) -> None:
    assert seconds_until_sent_again(clocked(), error, request_timeout=300.0) == pytest.approx(seconds, abs=2.0)


@pytest.mark.parametrize("jump", [5 * HOUR, -5 * HOUR])
def test_a_clock_that_jumps_neither_ends_nor_lengthens_the_search_for_a_lost_job(jump: float) -> None:
    desk = clocked()
    desk.service.lost = [LOST]
    jumps = [jump, 0.0, jump, 0.0]

    def set_clock() -> None:
        if jumps:
            desk.clock.ahead = jumps.pop()

    play(desk, between=set_clock, request_timeout=300.0)
    assert len(desk.service.created) == 2
    assert 420.0 <= desk.clock.time - NOON <= 420.0 + 4 * 420.0


def search_between_two_workers(desk: Desk, *, most: int = 300) -> float:
    """Return the seconds until a lost call is sent again by workers five hours apart that are woken too early."""
    desk.service.lost = [BUSY]
    report: WaitReport | None = None
    for number in range(most):
        desk.clock.ahead = -5 * HOUR if number % 2 == 0 else 0.0
        step = desk.run().advance(report)
        if isinstance(step, WaitForJobs):
            return desk.clock.time - NOON
        assert isinstance(step, SleepUntil)
        desk.clock.time += 3.0
        report = WaitReport(Reason.WAKE, memo=step.memo)
    raise AssertionError("It is looked for without end")


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("date_ahead", [0.0, 7 * HOUR, -7 * HOUR])
def test_workers_with_other_clocks_and_a_triggerer_that_is_ahead_do_not_end_the_search_early(
    date_ahead: float, *, lasting: bool
) -> None:
    desk = clocked()
    desk.store.lasting = lasting
    desk.service.date_ahead, desk.service.hidden = date_ahead, True
    assert 120.0 <= search_between_two_workers(desk) <= 240.0
    assert len(desk.service.created) == 2


@pytest.mark.parametrize("by_second", [0.0, -1.0])
def test_a_date_header_that_stands_still_or_goes_back_does_not_lengthen_the_search(by_second: float) -> None:
    class Stopped(Service):
        @property
        def listed_at(self) -> float:
            assert self.clock is not None
            return NOON + by_second * (self.clock.true - NOON)

    desk = Desk(service=Stopped(hidden=True))
    desk.service.clock = desk.clock
    assert seconds_until_sent_again(desk, BUSY) == pytest.approx(120.0, abs=2.0)


def test_a_triggerer_whose_clock_is_ahead_is_not_asked_again_and_again() -> None:
    desk = clocked()
    report: WaitReport | None = None
    steps = 0
    while desk.clock.time < NOON + HOUR:
        try:
            step = desk.run(timeout=HOUR).advance(report)
        except TaskFailed:
            break
        assert isinstance(step, WaitForJobs)
        steps += 1
        # It fires when its own clock says so, which is five hours ahead.
        desk.clock.time = max(desk.clock.time + 3.0, step.end_time + step.ahead - 5 * HOUR)
        report = WaitReport(Reason.DEADLINE, memo=step.memo)
    assert steps < 10
    assert desk.clock.time >= NOON + HOUR


@pytest.mark.parametrize("ahead", [-30 * HOUR, -5 * HOUR, -1 * HOUR, 1 * HOUR, 5 * HOUR, 30 * HOUR])
def test_a_triggerer_whose_clock_is_hours_off_ends_one_wait_late_and_not_each(ahead: float) -> None:
    desk = clocked()
    desk.service.lost = [LOST] * 3
    report: WaitReport | None = None
    step: object = None
    while not isinstance(step, WaitForJobs):
        step = desk.run().advance(report)
        if isinstance(step, SleepUntil):
            desk.clock.time = max(desk.clock.time + 3.0, step.at + step.ahead - ahead)
            report = WaitReport(Reason.WAKE, memo=step.memo)
    assert len(desk.service.created) == 4
    # The others end some minutes late, or make up for it.
    assert desk.clock.time - NOON < abs(ahead) + 2 * HOUR


def test_a_busy_airflow_that_wakes_a_task_late_does_not_make_its_deadline_late() -> None:
    desk = clocked()
    desk.service.lost = [LOST]
    step = desk.run(timeout=10 * HOUR).advance(None)
    while isinstance(step, SleepUntil):
        desk.clock.time = step.at + 2 * HOUR
        step = desk.run(timeout=10 * HOUR).advance(WaitReport(Reason.WAKE, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert step.ahead < -HOUR
    deadline = step.end_time
    # Airflow is no longer busy: the wait ends when it was asked to, and the next one at the deadline.
    desk.clock.time = deadline + step.ahead
    step = desk.run(timeout=10 * HOUR).advance(WaitReport(Reason.DEADLINE, memo=step.memo))
    assert isinstance(step, WaitForJobs)
    assert (step.end_time, step.ahead) == (deadline, 0.0)


@given(st.lists(st.tuples(st.sampled_from([-5 * HOUR, 0.0, 5 * HOUR]), st.booleans()), min_size=3, max_size=30))
def test_workers_whose_clocks_differ_never_think_a_triggerer_further_off_than_clocks_can_be(
    processes: list[tuple[float, bool]],
) -> None:
    desk = clocked()
    desk.service.lost = [LOST] * 4
    report: WaitReport | None = None
    for ahead, has_turn in processes:
        desk.clock.ahead = ahead
        step = desk.run().advance(report)
        if not isinstance(step, SleepUntil):
            break
        # Of two clocks, one is at most ten hours behind the other; how far ahead it is is found by doubling.
        assert -10 * HOUR <= step.ahead <= 20 * HOUR
        desk.clock.time += 3.0
        if not has_turn:
            desk.clock.time = max(desk.clock.time, step.at + step.ahead)
        report = WaitReport(Reason.TURN if has_turn else Reason.WAKE, memo=step.memo)
