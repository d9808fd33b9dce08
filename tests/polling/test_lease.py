"""One poller for all, and nothing left behind by those who leave, fail, or end with their loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from polling.fake_service import FakeService, own_threads, quickly
from polling.scene import Scene, names, subscribe
from waiting import wait_for

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.polling import lease
from airflow_provider_gemini_batch.polling.lease import PollerLease
from airflow_provider_gemini_batch.polling.report import Reason


def test_all_who_use_one_connection_share_one_poller_and_the_last_one_closes_it() -> None:
    service = FakeService(names(1))

    async def play() -> None:
        first, second, other = (
            PollerLease("a", service.connect),
            PollerLease("a", service.connect),
            PollerLease("b", service.connect),
        )
        assert first.poller is second.poller is not other.poller
        await first.poller.call(lambda client: client.cancel("batches/00000"))
        first.release()
        assert await second.poller.call(lambda client: client.get("batches/00000", brief=True))
        other.release()
        second.release()
        assert not lease._pollers

    asyncio.run(play())
    wait_for(lambda: service.closed == 1, "the client to be closed")
    wait_for(lambda: not own_threads(), "the end of our threads")


def test_an_event_loop_that_ends_leaves_no_thread_and_no_poller() -> None:
    service = FakeService(names(3), latency=0.02)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        lease_ = PollerLease("gone", service.connect)
        lease_.poller.join(subscribe(*names(3), poll_interval=0.05))

    loop.run_until_complete(begin())
    loop.run_until_complete(asyncio.to_thread(wait_for, lambda: service.calls, "a poll"))
    loop.close()  # as a process does that is told to stop: nothing is cancelled, nobody lets go
    wait_for(lambda: not own_threads(), "the end of our threads")
    reference = weakref.ref(loop)
    del loop

    async def next_one() -> None:
        PollerLease("other", service.connect).release()

    asyncio.run(next_one())
    gc.collect()
    assert reference() is None
    assert not lease._pollers


def test_cancelled_tasks_leave_nothing() -> None:
    service = FakeService(names(50), latency=0.01)

    async def play() -> None:
        lease_ = PollerLease("x", service.connect)
        scene = Scene(service)
        scene.poller = lease_.poller
        tasks = [asyncio.create_task(scene.wait_for(name, poll_interval=0.05)) for name in names(50)]
        await asyncio.to_thread(wait_for, lambda: service.calls, "a poll")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        lease_.release()

    asyncio.run(play())
    wait_for(lambda: not own_threads(), "the end of our threads")
    assert not lease._pollers


def test_no_more_than_four_threads_poll_and_none_of_them_are_of_the_default_executor() -> None:
    service = FakeService(names(60), latency=0.01)
    service.unlisted = set(names(60))
    most = 0
    looking: list[str] = []
    together = threading.Event()

    def fail(verb: str, name: str) -> None:
        nonlocal most
        if verb == "get":
            looking.append(name)
            if len(looking) > 1:
                together.set()
            together.wait(60.0)
        most = max(most, len(own_threads()))

    service.fail = fail

    async def play() -> None:
        scene = Scene(service)
        waits = asyncio.gather(*(scene.wait_for(name, poll_interval=0.5, timeout=1.0) for name in names(60)))
        await waits
        assert asyncio.get_running_loop()._default_executor is None  # type: ignore[attr-defined]
        scene.poller.close()

    asyncio.run(play())
    assert 2 <= most <= 4
    wait_for(lambda: not own_threads(), "the end of our threads")


def test_a_call_raises_what_the_client_raises() -> None:
    async def play() -> None:
        lease_ = PollerLease("y", FakeService().connect)
        with pytest.raises(GeminiBatchError):
            await lease_.poller.call(lambda client: client.get("batches/none", brief=True))
        lease_.release()

    asyncio.run(play())


def test_a_mistake_of_our_own_in_a_thread_does_not_stop_the_watching() -> None:
    async def play() -> None:
        scene = Scene(FakeService(names(2)))
        broken = True

        def fail(_verb: str, _name: str) -> None:
            if broken:
                raise ZeroDivisionError

        scene.service.fail = fail
        task = asyncio.create_task(scene.wait_for(*names(2)))
        await asyncio.sleep(30.0)
        broken = False
        scene.service.finish(*names(2))
        ending, _ = await task
        assert ending.reason is Reason.ENDED
        scene.poller.close()

    quickly(play())
