"""A bounded wait loses no cancellation, and leaves nothing behind."""

from __future__ import annotations

import asyncio

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
