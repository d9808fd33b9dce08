"""Await something for a bounded time, so that a cancellation is never lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

_T = TypeVar("_T")


async def within(seconds: float, awaitable: Awaitable[_T]) -> _T:
    """Return what an awaitable gives, if that takes at most so many seconds.

    ``asyncio.wait_for`` of Python 3.10 and 3.11 swallows a cancellation that comes together with the result: a trigger
    would watch on after Airflow has cancelled it, and would not cancel the jobs of a task that a user has ended.

    :raises asyncio.TimeoutError: it takes longer, and is cancelled.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
