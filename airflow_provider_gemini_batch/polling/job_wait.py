"""What is known of a job that somebody waits for, and how one look changes it.

Rules of this file: no clock, no network, no thread. All of it runs in the event loop that waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobProgress, Service
from airflow_provider_gemini_batch.polling.policy import (
    DeadlineReached,
    Ended,
    GoneForGood,
    LookAgain,
    Stalled,
    Trouble,
    Waiting,
    Watch,
)
from airflow_provider_gemini_batch.polling.poll_plan import Target
from airflow_provider_gemini_batch.polling.report import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_gemini_batch.api.errors import GeminiBatchError
    from airflow_provider_gemini_batch.api.models import JobSnapshot

# So many failures in a row are worth a line in the task's log; fewer are weather.
WORTH_TELLING = 3


class Ending(NamedTuple):
    """Why nobody needs to look at a job any more, and what there is to say about it."""

    reason: Reason
    message: str


class Entry(Target):
    """One job that one follower waits for.

    ``due`` is in the loop's time, ``watch`` goes by the wall clock;
    ``denied_at`` counts the connection's look-ups until the first refusal.
    """

    __slots__ = ("busy", "denied_at", "due", "ending", "following", "seen", "trouble", "watch")

    def __init__(self, name: str, watch: Watch, following: Following) -> None:
        super().__init__(name)
        self.following = following
        self.watch = watch
        self.trouble: Trouble | None = None
        self.seen: JobProgress | None = None
        self.ending: Ending | None = None
        self.due = 0.0
        self.busy = False
        self.denied_at: int | None = None

    def saw(self, snapshot: JobSnapshot, now: float) -> tuple[bool, float]:
        """Take an answer; returns whether there is something new, and the seconds until the next look."""
        before, self.seen = self.seen, snapshot.seen
        news = self.seen != before or (self.trouble is not None and self.trouble.failures >= WORTH_TELLING)
        self.trouble = self.denied_at = None
        result = self.watch.saw(snapshot, now)
        if isinstance(result, Waiting):
            self.watch = result.watch
            return news, result.delay
        if isinstance(result, Ended):
            self.end(Reason.ENDED, "")
        elif isinstance(result, DeadlineReached):
            self.end(Reason.DEADLINE, f"{self.name} had not ended at the deadline; it was {self.seen.state.value}")
        elif isinstance(result, Stalled) and result.kind == "queue":
            self.end(Reason.QUEUE_TIMEOUT, f"{self.name} has been in the queue for {result.stuck_for:.0f} s")
        else:
            self.end(Reason.PROGRESS_TIMEOUT, f"{self.name} has made no progress for {result.stuck_for:.0f} s")
        return True, 0.0

    def failed(self, error: GeminiBatchError, now: float) -> tuple[bool, float]:
        """Take an error; returns whether there is something new, and the seconds until the next look."""
        if self.watch.overdue(now):
            self.overdue(f"; the last look failed: {error}")
            return True, 0.0
        result = (self.trouble or Trouble()).saw(error, now, poll_interval=self.watch.poll_interval)
        if isinstance(result, LookAgain):
            self.trouble = result.trouble
            pause = min(result.delay, self.watch.deadline - now)
            return self.trouble.failures == WORTH_TELLING, max(0.0, pause)
        if isinstance(result, GoneForGood):
            self.end(Reason.GONE, f"The service does not know {self.name} any more: {error}")
        else:
            self.end(Reason.REFUSED, f"{self.name} cannot be looked at: {error}")
        return True, 0.0

    def overdue(self, why: str) -> None:
        """End the wait at the deadline without a last look that was answered."""
        self.end(Reason.DEADLINE, f"{self.name} was not seen to end before the deadline{why}")

    def end(self, reason: Reason, message: str) -> None:
        """Note that nobody needs to look any more."""
        self.ending = Ending(reason, message)

    def as_job(self) -> BatchJob:
        """Give what is known as a job: name, state, counts and error."""
        seen = self.seen or JobProgress()
        known = seen.total is not None or seen.done
        return BatchJob(
            name=self.name,
            service=Service.VERTEX if self.name.startswith("projects/") else Service.GEMINI,
            state=seen.state,
            raw_state=seen.raw_state,
            completion_stats=CompletionStats(total=seen.total, success=seen.success, failure=seen.failure)
            if known
            else None,
            error=seen.error,
        )


class Following:
    """The jobs that one waits for, and a place to sleep until there is news of them."""

    __slots__ = ("_news", "_waiter", "entries")

    def __init__(self, names: Iterable[str], watch: Watch) -> None:
        self.entries: Sequence[Entry] = tuple(Entry(name, watch, self) for name in dict.fromkeys(names))
        self._waiter: asyncio.Future[None] | None = None
        self._news = False

    def tell(self) -> None:
        """Wake the sleeper, or have the next sleep end at once."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self) -> None:
        """Sleep until there is news."""
        if not self._news:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._news = False

    @property
    def seen(self) -> tuple[JobProgress | None, ...]:
        """What is known of each job: equal as long as nothing has changed."""
        return tuple(entry.seen for entry in self.entries)

    @property
    def stalled(self) -> tuple[str, ...]:
        """The jobs whose counts stand still."""
        return tuple(one.name for one in self.entries if one.ending and one.ending.reason is Reason.PROGRESS_TIMEOUT)

    def ending(self, until: str) -> Ending | None:
        """Give the end of the wait, if it has come.

        Anything but an end of the job itself ends the wait for all: somebody has to decide. Among several, the gravest
        speaks.

        :param until: ``all``, or ``any`` for the first job that ends.
        """
        endings = [entry.ending for entry in self.entries if entry.ending is not None]
        bad = [ending for ending in endings if ending.reason is not Reason.ENDED]
        if bad:
            first = min(bad, key=lambda ending: _GRAVITY.index(ending.reason))
            return Ending(first.reason, "; ".join(ending.message for ending in bad if ending.reason is first.reason))
        if len(endings) == len(self.entries) or (endings and until == "any"):
            return endings[0]
        return None


# What ends a wait for several jobs that end differently: what no waiting can mend comes first.
_GRAVITY = (Reason.REFUSED, Reason.GONE, Reason.DEADLINE, Reason.QUEUE_TIMEOUT, Reason.PROGRESS_TIMEOUT)
