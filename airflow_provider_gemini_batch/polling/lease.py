"""One watcher for all in an event loop who use the same connection; the last to let go closes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.polling.poller import JobPoller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_provider_gemini_batch.polling.poller import Access


class _Held:
    """A watcher and the number of those who hold it."""

    __slots__ = ("holders", "watcher")

    def __init__(self, watcher: JobPoller) -> None:
        self.watcher = watcher
        self.holders = 0


_watchers: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Held] = {}


class Hold:
    """A share in the one watcher that this event loop has for a key; the last to let go closes it.

    :param key: equal for all who use the same connection.
    :param connect: looks the connection up, if this is the first hold.
    """

    __slots__ = ("_key",)

    def __init__(self, key: Hashable, connect: Callable[[], Awaitable[Access]]) -> None:
        loop = asyncio.get_running_loop()
        for stale in [other for other in list(_watchers) if other[0].is_closed()]:
            _watchers.pop(stale, None)  # that loop was stopped without ending its tasks
        self._key = (loop, key)
        if self._key not in _watchers:
            _watchers[self._key] = _Held(JobPoller(connect))
        _watchers[self._key].holders += 1

    @property
    def watcher(self) -> JobPoller:
        """The shared watcher."""
        return _watchers[self._key].watcher

    def release(self) -> None:
        """Let go."""
        held = _watchers.get(self._key)
        if held is None:
            return
        held.holders -= 1
        if not held.holders:
            del _watchers[self._key]
            held.watcher.close()
