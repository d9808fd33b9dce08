"""Await something for a bounded time, so that a cancellation is never lost; or to its end, whoever cancels."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

_T = TypeVar("_T")


#: What goes on although nobody waits for it; asyncio itself keeps only weak references to its tasks.
_going_on: set[asyncio.Future[Any]] = set()


async def within(seconds: float, awaitable: Awaitable[_T], *, cancels: bool = True) -> _T:
    """Return what an awaitable gives, if that takes at most so many seconds.

    ``asyncio.wait_for`` of Python 3.10 and 3.11 swallows a cancellation that comes together with the result: a trigger
    would watch on after Airflow has cancelled it, and would not cancel the jobs of a task that a user has ended.

    :param cancels: cancel what takes longer, or what nobody waits for any more. False for all that asks Airflow's
        supervisor: the triggerer of Airflow 3.2.0 ends when a question is given up between its sending and its
        response, which the next question would read. Such a question goes on by itself, and only the wait is over.
    :raises asyncio.TimeoutError: it takes longer.
    """
    task = _started(awaitable)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if cancels and not task.done():
            task.cancel()
            await asyncio.wait([task])


async def to_the_end(awaitable: Awaitable[_T]) -> _T:
    """Return what an awaitable gives, which has bounds of its own, even if this is cancelled meanwhile.

    Airflow 3.3 cancels the trigger of an ended task again with each sync, so once a second, until it is gone: an
    ``on_kill`` that takes longer would not come to its end.
    """
    task = _started(awaitable)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


def _started(awaitable: Awaitable[_T]) -> asyncio.Future[_T]:
    task = asyncio.ensure_future(awaitable)
    _going_on.add(task)
    task.add_done_callback(_settle)
    return task


def _settle(task: asyncio.Future[Any]) -> None:
    """Retrieve an error that nobody waits for: asyncio would log it with its text, which may hold a secret."""
    _going_on.discard(task)
    if not task.cancelled():
        task.exception()
