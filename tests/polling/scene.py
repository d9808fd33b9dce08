"""One watcher in virtual time, and followers that note when their wait was over."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.polling.job_wait import Ending, Following
from airflow_provider_gemini_batch.polling.policy import Watch
from airflow_provider_gemini_batch.polling.poller import JobPoller

if TYPE_CHECKING:
    from collections.abc import Callable

    from polling.shelf import Shelf


class Scene:
    """One watcher on the fast clock, and followers that note when their wait was over."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.loop = asyncio.get_running_loop()
        self.watcher = JobPoller(shelf.connect, now=self.loop.time, random=lambda: 0.5)

    async def wait_for(self, *names: str, until: str = "all", **watch: Any) -> tuple[Ending, float]:
        """Follow jobs to the end; returns the ending and how long it took."""
        began = self.loop.time()
        deadline = began + watch.pop("timeout", inf)
        following = Following(names, Watch(deadline=deadline, poll_interval=watch.pop("poll_interval", 10.0), **watch))
        self.watcher.join(following)
        try:
            while (ending := following.ending(until)) is None:
                await following.news()
        finally:
            self.watcher.leave(following)
        return ending, self.loop.time() - began

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.loop.call_later(seconds, do)


def names(count: int) -> list[str]:
    return [f"batches/{number:05}" for number in range(count)]
