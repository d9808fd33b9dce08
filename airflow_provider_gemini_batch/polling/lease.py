"""One poller in an event loop for all tasks that use the same connection; the last to release it closes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.polling.poller import JobPoller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_provider_gemini_batch.polling.poller import PollConnection

#: By event loop and key: the poller, and how many leases it has.
_pollers: dict[tuple[asyncio.AbstractEventLoop, Hashable], tuple[JobPoller, int]] = {}


class PollerLease:
    """A share in the one poller that this event loop has for a key; the last to release its share closes the poller.

    :param key: equal for all who use the same connection.
    :param connect: looks the connection up; used only by the first lease.
    """

    __slots__ = ("_key", "poller")

    def __init__(self, key: Hashable, connect: Callable[[], Awaitable[PollConnection]]) -> None:
        loop = asyncio.get_running_loop()
        for stale in [other for other in list(_pollers) if other[0].is_closed()]:
            _pollers.pop(stale, None)  # that loop was stopped without ending its tasks
        self._key = (loop, key)
        poller, leases = _pollers[self._key] if self._key in _pollers else (JobPoller(connect), 0)
        _pollers[self._key] = (poller, leases + 1)
        self.poller = poller

    def release(self) -> None:
        """Give up the share."""
        poller, leases = _pollers.pop(self._key, (self.poller, 0))
        if leases > 1:
            _pollers[self._key] = (poller, leases - 1)
        else:
            poller.close()
