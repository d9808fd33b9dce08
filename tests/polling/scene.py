"""One poller in virtual time, and waits that note when they were over."""

from __future__ import annotations

import asyncio
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec

from polling.fake_service import quickly

from airflow_provider_gemini_batch.polling.job_wait import JobWait
from airflow_provider_gemini_batch.polling.policy import WaitPolicy
from airflow_provider_gemini_batch.polling.poller import JobPoller, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from polling.fake_service import FakeService

    from airflow_provider_gemini_batch.polling.report import WaitReport


P = ParamSpec("P")


class Scene:
    """One poller on the fast clock, and waits that note when they were over."""

    made: ClassVar[list[Scene]] = []

    def __init__(self, service: FakeService) -> None:
        self.made.append(self)
        self.service = service
        self.loop = asyncio.get_running_loop()
        self.poller = JobPoller(service.connect, now=self.loop.time, random=lambda: 0.5)

    async def wait_for(self, *names: str, **policy: Any) -> tuple[WaitReport, float]:
        """Wait for jobs to the end; returns the report and how long it took."""
        began = self.loop.time()
        policy = {"poll_interval": 10.0, "deadline": began + policy.pop("timeout", inf), **policy}
        subscription = subscribe(*names, **policy)
        self.poller.join(subscription)
        try:
            while (report := subscription.wait.report()) is None:
                await subscription.wait_for_change()
        finally:
            self.poller.leave(subscription)
        return report, self.loop.time() - began

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.loop.call_later(seconds, do)


def subscribe(*names: str, deadline: float = inf, **policy: Any) -> Subscription:
    return Subscription(JobWait(names, WaitPolicy(deadline, **policy)))


def names(count: int) -> list[str]:
    return [f"batches/{number:05}" for number in range(count)]


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in virtual time, and close the pollers of its scenes."""

    async def play(*args: P.args, **kwargs: P.kwargs) -> None:
        await test(*args, **kwargs)
        while Scene.made:
            Scene.made.pop().poller.close()
        await asyncio.sleep(1.0)

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        Scene.made.clear()
        quickly(play(*args, **kwargs))

    return run
