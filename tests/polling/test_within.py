"""A bounded wait loses no cancellation, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc

import pytest

from airflow_provider_gemini_batch.polling.within import within


@pytest.mark.parametrize("is_result_first", [True, False])
def test_a_cancellation_counts_although_the_result_comes_in_the_same_moment(*, is_result_first: bool) -> None:
    async def play() -> None:
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(within(60.0, result))
        await asyncio.sleep(0)
        if is_result_first:
            result.set_result(1)
            waiting.cancel()
        else:
            waiting.cancel()
            result.set_result(1)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(play())


def test_what_takes_too_long_is_cancelled_before_that_is_said() -> None:
    async def play() -> None:
        late = asyncio.ensure_future(asyncio.Event().wait())
        with pytest.raises(asyncio.TimeoutError):
            await within(0.0, late)
        assert late.cancelled()

    asyncio.run(play())


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_question_to_the_supervisor_is_read_to_its_end_though_nobody_waits(*, is_cancelled: bool) -> None:
    async def play() -> None:
        lock, sent, response, read = asyncio.Lock(), asyncio.Event(), asyncio.Event(), []

        async def ask() -> None:
            async with lock:
                sent.set()
                await response.wait()
                read.append(1)

        waiting = asyncio.create_task(within(60.0 if is_cancelled else 0.01, ask(), cancels=False))
        await sent.wait()
        if is_cancelled:
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else asyncio.TimeoutError):
            await waiting
        gc.collect()
        response.set()
        async with lock:
            assert read

    asyncio.run(play())


@pytest.mark.parametrize("cancels", [True, False])
def test_an_error_that_nobody_waits_for_is_not_shown(*, cancels: bool) -> None:
    shown: list[object] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: shown.append(context))
        failing: asyncio.Future[int] = loop.create_future()
        waiting = asyncio.create_task(within(60.0, failing, cancels=cancels))
        await asyncio.sleep(0)
        failing.set_exception(OSError("a secret"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        del failing, waiting
        gc.collect()

    asyncio.run(play())
    assert not shown
