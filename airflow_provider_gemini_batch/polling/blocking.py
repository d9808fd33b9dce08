"""Waiting in the worker, for tasks that do not defer: the same looks, judged by the same rules, as in the triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import GeminiBatchError
from airflow_provider_gemini_batch.api.models import JobSnapshot
from airflow_provider_gemini_batch.polling.policy import (
    Ended,
    GoneForGood,
    LookAgain,
    Stalled,
    Trouble,
    Waiting,
    WillNotPass,
)
from airflow_provider_gemini_batch.polling.policy import Watch as Look
from airflow_provider_gemini_batch.polling.report import Reason, WatchReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Clock, Watch

_STALLS = {"queue": Reason.QUEUE_TIMEOUT, "progress": Reason.PROGRESS_TIMEOUT}


class _Vigil:
    """The state of one wait: what was seen of each job, what is known of its errors, and when to look again."""

    def __init__(self, watch: Watch, look: Look, clock: Clock) -> None:
        self._watch = watch
        self._clock = clock
        self._looks = dict.fromkeys(watch.job_names, look)
        self._troubles = dict.fromkeys(watch.job_names, Trouble())
        self.seen: dict[str, BatchJob] = {}
        self.ended: set[str] = set()
        self.pause = look.poll_interval
        self.moved = False

    def report(self, reason: Reason, message: str = "", stalled: tuple[str, ...] = ()) -> WatchReport:
        """Say why the wait is over."""
        return WatchReport(reason, tuple(self.seen.values()), message, self._watch.memo, stalled)

    def is_over(self) -> bool:
        """Whether those have ended that were waited for."""
        return len(self.ended) == len(self._watch.job_names) or bool(self.ended and self._watch.until == "any")

    def saw(self, name: str, job: BatchJob) -> WatchReport | None:
        """Judge a look; a report when it ends the wait."""
        self.seen[name] = job
        self._troubles[name] = Trouble()
        self.moved = False
        match self._looks[name].saw(JobSnapshot.of(job), self._clock.now()):
            case Ended():
                self.ended.add(name)
            case Stalled(kind=kind):
                return self.report(_STALLS[kind], stalled=(name,))
            case Waiting(watch=look, delay=delay, moved=moved):
                self._looks[name], self.pause, self.moved = look, min(self.pause, delay), moved
        return None

    def failed(self, name: str, error: GeminiBatchError) -> WatchReport | None:
        """Judge an error; a report when it ends the wait."""
        self.moved = False
        poll_interval = self._looks[name].poll_interval
        match self._troubles[name].saw(error, self._clock.now(), poll_interval=poll_interval):
            case GoneForGood():
                return self.report(Reason.GONE, f"The service does not know {name}.")
            case WillNotPass(error=refusal):
                return self.report(Reason.REFUSED, f"{name} cannot be looked at: {refusal}")
            case LookAgain(trouble=trouble, delay=delay):
                self._troubles[name] = trouble
                self.pause = min(self.pause, delay)
        return None


def wait_here(
    get: Callable[[str], BatchJob],
    watch: Watch,
    *,
    clock: Clock,
    poll_interval: float,
    queue_timeout: float | None = None,
    progress_timeout: float | None = None,
    on_look: Callable[[BatchJob], None] = lambda _job: None,
) -> WatchReport:
    """Look at jobs until what :class:`~.ports.Watch` waits for has come, and report it as a trigger would.

    :param get: asks for one job; its errors are waited out or end the wait, as :class:`~.waiting.Trouble` says.
    :param poll_interval: seconds between looks.
    :param on_look: called with a job whose counts have changed.
    """
    look = Look(
        watch.end_time,
        poll_interval,
        queue_timeout=queue_timeout if watch.stalls_count else None,
        progress_timeout=progress_timeout if watch.stalls_count else None,
    )
    vigil = _Vigil(watch, look, clock)
    while True:
        vigil.pause = poll_interval * 2
        for name in watch.job_names:
            if name in vigil.ended:
                continue
            over = _look_once(get, name, vigil)
            if over is not None:
                return over
            if vigil.moved:
                on_look(vigil.seen[name])
        if vigil.is_over():
            return vigil.report(Reason.ENDED)
        now = clock.now()
        if now >= watch.end_time:
            return vigil.report(Reason.DEADLINE)
        clock.sleep(min(vigil.pause, watch.end_time - now))


def _look_once(get: Callable[[str], BatchJob], name: str, vigil: _Vigil) -> WatchReport | None:
    try:
        job = get(name)
    except GeminiBatchError as error:
        return vigil.failed(name, error)
    return vigil.saw(name, job)
