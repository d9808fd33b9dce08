"""One poller in virtual time, and waits that note when they were over."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.poller import JobPoller, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

    from polling.shelf import Shelf

    from airflow_provider_gemini_batch.polling.report import WaitReport


class Scene:
    """One poller on the fast clock, and waits that note when they were over."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.loop = asyncio.get_running_loop()
        self.poller = JobPoller(shelf.connect, now=self.loop.time, random=lambda: 0.5)

    async def wait_for(self, *names: str, **policy: Any) -> tuple[WaitReport, float]:
        """Wait for jobs to the end; returns the report and how long it took."""
        began = self.loop.time()
        policy = {"poll_interval": 10.0, "deadline": began + policy.pop("timeout", inf), **policy}
        subscription = subscribe(*names, **policy)
        self.poller.join(subscription)
        try:
            while (report := subscription.wait.report()) is None:
                await subscription.wait_for_news()
        finally:
            self.poller.leave(subscription)
        return report, self.loop.time() - began

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.loop.call_later(seconds, do)


def subscribe(*names: str, deadline: float = inf, **policy: Any) -> Subscription:
    return Subscription(JobWait(names, WaitPolicy(deadline, **policy)))


def names(count: int) -> list[str]:
    return [f"batches/{number:05}" for number in range(count)]
