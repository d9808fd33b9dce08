"""Shared polling in virtual time: intervals, reports, errors, credentials, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from polling.fake_service import FakeService
from polling.scene import Scene, in_virtual_time, names, subscribe

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ConfigurationError,
    GeminiBatchError,
    QuotaExceeded,
    ServiceUnavailable,
    TransportError,
)
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.polling.report import Reason

DENIED = AccessDenied("key refused", http_status=401, status="UNAUTHENTICATED")
FORBIDDEN = AccessDenied("not yours", http_status=403, status="PERMISSION_DENIED")
DOWN = ServiceUnavailable("down", http_status=503)


@in_virtual_time
async def test_every_wait_is_told_within_its_interval_that_its_job_has_ended() -> None:
    scene = Scene(FakeService(names(300)))
    waits = [scene.wait_for(name) for name in names(300)]
    scene.after(33.0, lambda: scene.service.finish(*names(300)))
    ended = await asyncio.gather(*waits)
    assert {ending.reason for ending, _ in ended} == {Reason.ENDED}
    assert all(33.0 <= seconds <= 33.0 + 10.0 + 5.0 for _, seconds in ended)


@in_virtual_time
async def test_jobs_due_together_share_their_calls() -> None:
    scene = Scene(FakeService(names(250)))
    waits = asyncio.gather(*(scene.wait_for(name, timeout=100.0) for name in names(250)))
    await waits
    # Three pages a round, and one round an interval of 10 s.
    assert scene.service.count("get") == 0
    assert 27 <= scene.service.count("list") <= 39


@in_virtual_time
async def test_jobs_that_joined_at_different_times_come_to_share_their_rounds() -> None:
    scene = Scene(FakeService(names(40)))

    async def later(number: int, name: str) -> None:
        await asyncio.sleep(number * 0.25)
        await scene.wait_for(name, timeout=120.0 - number * 0.25)

    waits = asyncio.gather(*(later(number, name) for number, name in enumerate(names(40))))
    await asyncio.sleep(30.0)
    before = len(scene.service.calls)
    await asyncio.sleep(50.0)
    assert len(scene.service.calls) - before <= 7
    await waits


@in_virtual_time
async def test_a_long_interval_is_not_shortened_by_a_neighbour_beyond_what_the_pages_give_away() -> None:
    service = FakeService(["batches/quick", "batches/slow"])
    service.unlisted = {"batches/quick", "batches/slow"}
    scene = Scene(service)
    await asyncio.gather(
        scene.wait_for("batches/quick", poll_interval=5.0, timeout=60.0),
        scene.wait_for("batches/slow", poll_interval=30.0, timeout=60.0),
    )
    slow = [call for call in service.calls if call == ("get", "batches/slow")]
    quick = [call for call in service.calls if call == ("get", "batches/quick")]
    assert 2 <= len(slow) <= 4
    assert 10 <= len(quick) <= 14


@in_virtual_time
async def test_one_that_leaves_costs_nothing_more() -> None:
    scene = Scene(FakeService(names(1)))
    task = asyncio.create_task(scene.wait_for(*names(1)))
    await asyncio.sleep(15.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    before = len(scene.service.calls)
    await asyncio.sleep(60.0)
    assert len(scene.service.calls) == before >= 1
    assert not scene.poller._targets
    assert scene.poller._timer is None


@in_virtual_time
async def test_two_waits_for_one_job_cost_one_call_and_are_both_told() -> None:
    scene = Scene(FakeService(names(1)))
    waits = [scene.wait_for("batches/00000") for _ in range(2)]
    scene.after(25.0, lambda: scene.service.finish("batches/00000"))
    first, second = await asyncio.gather(*waits)
    assert first[0].reason is second[0].reason is Reason.ENDED
    assert len(scene.service.calls) <= 5


@in_virtual_time
async def test_at_the_deadline_the_job_is_looked_at_once_more_and_a_terminal_state_wins() -> None:
    scene = Scene(FakeService(names(1)))
    scene.after(20.0, lambda: scene.service.finish("batches/00000"))
    ending, seconds = await scene.wait_for("batches/00000", poll_interval=60.0, timeout=24.0)
    assert ending.reason is Reason.ENDED
    assert 24.0 <= seconds < 30.0


@pytest.mark.parametrize("error", [DOWN, QuotaExceeded("slower", http_status=429, retry_after=600.0), FORBIDDEN])
@in_virtual_time
async def test_the_deadline_comes_also_when_the_service_cannot_be_asked(error: GeminiBatchError) -> None:
    scene = Scene(FakeService(names(20)))
    await asyncio.gather(*(scene.wait_for(name, timeout=15.0) for name in names(20)))
    scene.service.fail = lambda _verb, _name: error
    ended = await asyncio.gather(*(scene.wait_for(name, timeout=90.0) for name in names(20)))
    if error is FORBIDDEN:
        assert {ending.reason for ending, _ in ended} == {Reason.REFUSED}
        assert all(seconds < 30.0 for _, seconds in ended)
    else:
        assert {ending.reason for ending, _ in ended} == {Reason.DEADLINE}
        assert all(90.0 <= seconds < 100.0 for _, seconds in ended)


@in_virtual_time
async def test_a_job_whose_poll_hangs_ends_at_its_deadline_and_its_neighbours_do_not_wait_for_it() -> None:
    service = FakeService(names(3))
    service.unlisted = set(names(3))
    gate = threading.Event()

    def fail(verb: str, name: str) -> GeminiBatchError | None:
        if verb == "get" and name == "batches/00001":
            gate.wait()
        return None

    service.fail = fail
    scene = Scene(service)
    scene.after(20.0, lambda: service.finish("batches/00000", "batches/00002"))
    first, hanging, third = await asyncio.gather(
        scene.wait_for("batches/00000"),
        scene.wait_for("batches/00001", timeout=30.0),
        scene.wait_for("batches/00002"),
    )
    assert first[0].reason is third[0].reason is Reason.ENDED
    assert first[1] < 40.0
    assert third[1] < 40.0
    assert hanging[0].reason is Reason.DEADLINE
    gate.set()


@in_virtual_time
async def test_a_job_that_was_never_seen_is_gone_only_when_the_service_says_so_for_two_minutes() -> None:
    scene = Scene(FakeService())
    ending, seconds = await scene.wait_for("batches/never")
    assert ending.reason is Reason.GONE
    assert 120.0 <= seconds < 140.0
    scene.service.put("batches/late", JobState.SUCCEEDED)
    scene.service.unlisted = {"batches/late"}
    late = scene.service.jobs.pop("batches/late")
    scene.after(100.0, lambda: scene.service.jobs.update({"batches/late": late}))
    ending, _ = await scene.wait_for("batches/late")
    assert ending.reason is Reason.ENDED


@in_virtual_time
async def test_too_many_calls_slow_the_poller_and_not_each_job() -> None:
    scene = Scene(FakeService(names(200)))
    waits = asyncio.gather(*(scene.wait_for(name, timeout=200.0) for name in names(200)))
    await asyncio.sleep(20.0)
    scene.service.fail = lambda _verb, _name: QuotaExceeded("slower", http_status=429, retry_after=None)
    before = len(scene.service.calls)
    await asyncio.sleep(150.0)
    assert len(scene.service.calls) - before <= 6
    scene.service.fail = lambda _verb, _name: None
    await waits


@in_virtual_time
async def test_what_the_service_asks_to_wait_is_waited() -> None:
    service = FakeService(names(2))
    scene = Scene(service)
    service.fail = lambda _verb, _name: QuotaExceeded("slower", http_status=429, retry_after=77.0)
    task = asyncio.create_task(scene.wait_for(*names(2), timeout=400.0))
    await asyncio.sleep(20.0)
    service.fail = lambda _verb, _name: None
    service.finish(*names(2))
    _, seconds = await task
    assert 77.0 <= seconds < 90.0


@in_virtual_time
async def test_failing_polls_are_waited_out_and_told_once() -> None:
    scene = Scene(FakeService(names(1)))
    scene.service.fail = lambda _verb, _name: TransportError("reset", sent=True)
    subscription = subscribe(*names(1), poll_interval=5.0)
    scene.poller.join(subscription)
    changes = 0

    async def listen() -> None:
        nonlocal changes
        while not subscription.wait.is_over:
            await subscription.wait_for_change()
            changes += 1

    task = asyncio.create_task(listen())
    await asyncio.sleep(300.0)
    assert changes == 1
    scene.service.fail = lambda _verb, _name: None
    scene.service.finish("batches/00000")
    await task
    scene.poller.leave(subscription)


@in_virtual_time
async def test_a_refused_key_is_looked_up_once_more_and_then_ends_all_waits() -> None:
    scene = Scene(FakeService(names(100)))
    lookups = 0

    async def connect() -> FakeService:
        nonlocal lookups
        lookups += 1
        return scene.service

    scene.poller._connect = connect
    scene.service.fail = lambda _verb, _name: DENIED
    ended = await asyncio.gather(*(scene.wait_for(name) for name in names(100)))
    assert {ending.reason for ending, _ in ended} == {Reason.REFUSED}
    assert lookups == 2
    assert len(scene.service.calls) <= 3
    assert scene.service.made == 1, "an unchanged connection keeps its client"


@in_virtual_time
async def test_a_changed_key_is_found_when_the_old_one_is_refused_and_nobody_notices() -> None:
    old, new = FakeService(names(30)), FakeService(names(30))
    current = old
    scene = Scene(old)

    async def connect() -> FakeService:
        return current

    scene.poller._connect = connect
    waits = [scene.wait_for(name) for name in names(30)]

    def rotate() -> None:
        nonlocal current
        old.fail = lambda _verb, _name: DENIED
        new.fingerprint = "other"
        current = new

    scene.after(20.0, rotate)
    scene.after(50.0, lambda: new.finish(*names(30)))
    ended = await asyncio.gather(*waits)
    assert {ending.reason for ending, _ in ended} == {Reason.ENDED}
    assert old.closed == 1


@in_virtual_time
async def test_a_job_that_is_not_ours_to_see_ends_its_own_wait_only() -> None:
    service = FakeService(names(2))
    service.unlisted = {"batches/00001"}
    service.fail = lambda _verb, name: FORBIDDEN if name == "batches/00001" else None
    scene = Scene(service)
    scene.after(40.0, lambda: service.finish("batches/00000"))
    good, bad = await asyncio.gather(scene.wait_for("batches/00000"), scene.wait_for("batches/00001"))
    assert good[0].reason is Reason.ENDED
    assert bad[0].reason is Reason.REFUSED
    assert bad[1] < 30.0


@pytest.mark.parametrize(
    ("error", "after"), [(ConfigurationError("no key"), 60.0), (RuntimeError("database away: hunter2"), 700.0)]
)
@in_virtual_time
async def test_a_connection_that_cannot_be_loaded_ends_the_wait_in_the_end(error: Exception, after: float) -> None:
    async def connect() -> FakeService:
        raise error

    scene = Scene(FakeService(names(1)))
    scene.poller._connect = connect
    ending, seconds = await scene.wait_for(*names(1))
    assert ending.reason is Reason.REFUSED
    assert "hunter2" not in ending.message
    assert seconds < after + 20.0
    why = "no key" if isinstance(error, ConfigurationError) else "RuntimeError"
    with pytest.raises(ConfigurationError, match=f"could not load the Airflow connection: {why}$"):
        await scene.poller.call(lambda client: client.get("batches/00000", brief=True))


@in_virtual_time
async def test_the_connection_is_looked_up_again_until_it_is_there() -> None:
    service = FakeService(names(1))
    service.finish(*names(1))
    tries = 0

    async def connect() -> FakeService:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise RuntimeError("away")
        return service

    scene = Scene(service)
    scene.poller._connect = connect
    ending, _ = await scene.wait_for(*names(1))
    assert ending.reason is Reason.ENDED


def test_the_loop_stays_responsive_while_thousands_of_waits_end_together() -> None:
    async def play() -> None:
        count = 3000
        scene = Scene(FakeService(names(count)))
        scene.service.finish(*names(count))
        waits = asyncio.gather(*(scene.wait_for(name, poll_interval=1.0) for name in names(count)))
        for _ in range(3):
            await asyncio.sleep(0)  # they begin, all in one turn of the loop: that is the test's doing
        # The thread's own time: neither neighbours on the machine nor what other tests left to collect count.
        gc.collect()
        gc.disable()
        longest, last = 0.0, time.thread_time()
        while not waits.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now
        gc.enable()
        assert longest < 0.03
        scene.poller.close()

    asyncio.run(play())


@in_virtual_time
async def test_a_job_that_is_doubted_is_not_asked_about_every_second_because_its_interval_is_long() -> None:
    scene = Scene(FakeService())
    ending, _ = await scene.wait_for("batches/never", poll_interval=3600.0)
    assert ending.reason is Reason.GONE
    assert len(scene.service.calls) <= 4


@in_virtual_time
async def test_a_last_poll_at_the_deadline_is_made_although_the_service_wants_fewer_calls() -> None:
    scene = Scene(FakeService(names(1)))
    scene.service.fail = lambda _verb, _name: QuotaExceeded("slower", http_status=429, retry_after=3600.0)

    def recover() -> None:
        scene.service.fail = lambda _verb, _name: None
        scene.service.finish(*names(1))

    scene.after(50.0, recover)
    ending, seconds = await scene.wait_for(*names(1), timeout=100.0)
    assert ending.reason is Reason.ENDED
    assert 100.0 <= seconds < 105.0
    assert len(scene.service.calls) == 2
