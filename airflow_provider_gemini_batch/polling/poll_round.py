"""One round of polling many jobs with few calls: pages of the list, single gets, or both, whichever are fewer.

A round never makes more calls than it has jobs to ask about. The list can only confirm: a job that is not on it is
asked for by name. A round runs in threads, knows no event loop, and judges no answer.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_gemini_batch.api.errors import AccessDenied, GeminiBatchError, QuotaExceeded, UnexpectedResponse
from airflow_provider_gemini_batch.api.models import JobSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_gemini_batch.api.models import BatchJob, SnapshotPage

THREADS: Final = 4
# The largest page that the service is known to accept: its clients treat a larger one as a violation.
PAGE_SIZE: Final = 100
# Instead of a page number: not searched for yet; searched for, and not found.
UNSEEN: Final = -1
UNLISTED: Final = 1 << 30
# Wrong credentials; 403 may concern one job alone, as when it belongs to another project.
_CREDENTIALS_REFUSED: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED})
# After so many failures in a row, the service is considered unavailable and the round stops.
_HOPELESS: Final = 4
# Rounds until the list is searched again for jobs that it did not show; doubled after each failed search, up to the
# second number.
_FIRST_REST: Final = 4
_LONGEST_REST: Final = 16
# A list call that fails is not replaced by a thousand gets at once: so many times in a row, the round is postponed.
_LIST_CHANCES: Final = 3
_FEW: Final = 4
# Jobs move down the list as new ones are created: read at most so many pages more, one for each so many jobs.
_DRIFT: Final = 2
_WORTH_A_DRIFT: Final = 8
# Answers go to the loop in bundles: a page of the list, or the single gets of a moment. Larger bundles would live long
# enough to burden the garbage collector, which stops all threads.
_BUNDLE: Final = 100
_BUNDLE_SECONDS: Final = 0.1


class JobReader(Protocol):
    """What polling needs of a client."""

    def get(self, name: str, *, brief: bool = False) -> BatchJob:
        """Return one job."""

    def snapshots(self, *, page_size: int = PAGE_SIZE, page_token: str | None = None) -> SnapshotPage:
        """Return one page of the list of jobs, newest first."""


class PollTarget:
    """A job to ask about: its name, the name that the list shows, and the page where it was last seen."""

    __slots__ = ("name", "page", "shown")

    def __init__(self, name: str) -> None:
        self.name = name
        # Vertex shows the project's number where an author may have written its id: known after the first answer.
        self.shown = name
        self.page = UNSEEN


# The name as asked for, and its answer. None: not asked, because the round's calls are used up. If the round was
# stopped, the jobs that were not asked about get the error that stopped it.
PollAnswer = tuple[str, "JobSnapshot | GeminiBatchError | None"]


def pages_to_list(pages: Iterable[int]) -> int:
    """Return how many list pages make the fewest calls, for jobs expected on these pages (from 0); 0 for gets alone."""
    expected = Counter(pages)
    left = expected.total()
    best, fewest = 0, left
    for page in sorted(page for page in expected if page != UNLISTED):
        left -= expected[page]
        if page + 1 + left < fewest:
            best, fewest = page + 1, page + 1 + left
    return best


class ListHeuristics:
    """What a poller remembers of the list from round to round: whether it is worth searching for unlisted jobs."""

    __slots__ = ("_deepest", "_failures", "_rest", "_resting")

    def __init__(self) -> None:
        self._deepest = 0
        self._failures = 0
        self._rest = _FIRST_REST
        self._resting = 0

    def record_page(self, page: int, *, had_ours: bool) -> None:
        """Record that a page of the list was read, and whether jobs of ours were on it."""
        self._failures = 0
        if had_ours:
            self._deepest = max(page, self._deepest)

    def wasted_pages(self, jobs: int) -> int:
        """Return how many pages in a row may be read in vain in search of so many jobs.

        An eighth of the calls that asking for each would take, or as far as jobs of ours have been seen already,
        where that is still much less.
        """
        return max(jobs // 8, min(self._deepest + 1, jobs // 4))

    def record_missing(self) -> None:
        """Record that jobs were searched for and not found, so that some rounds pass until the next search."""
        self._resting = self._resting or self._rest

    def record_failure(self) -> bool:
        """Record that the list could not be read; return whether to use single gets instead."""
        self._failures += 1
        return self._failures >= _LIST_CHANCES

    def may_explore(self) -> bool:
        """Count a round; return whether unlisted jobs may be searched for in the list again."""
        if self._resting:
            self._resting -= 1
        return not self._resting

    def record_search(self, *, in_vain: bool) -> None:
        """Record whether a search for unlisted jobs was in vain, which decides when the next one is due."""
        self._rest = min(2 * self._rest, _LONGEST_REST) if in_vain else _FIRST_REST
        self._resting = self._rest if in_vain else 0


class PollRound:
    """One round. :meth:`read_list` runs in one thread, then :meth:`read_single` in as many as are useful.

    :param reader: the client.
    :param due: the jobs to ask about.
    :param watched: returns the watched job of a listed name, so that a job which happens to be on a page is reported
        although it is not due.
    :param report: called with answers, in any thread; every due job is reported once.
    """

    def __init__(
        self,
        reader: JobReader,
        due: Iterable[PollTarget],
        *,
        watched: Callable[[str], PollTarget | None],
        report: Callable[[list[PollAnswer]], None],
    ) -> None:
        self._reader = reader
        self._left = {target.shown: target for target in due}
        self._watched = watched
        self._report = report
        self._budget = len(self._left)
        self._queue: deque[PollTarget] = deque()
        self._lock = Lock()
        self._failures = 0
        self.calls = 0
        #: What ended the round early: too many calls, or a service that is unavailable. None if nothing did.
        self.stopped_by: GeminiBatchError | None = None

    def read_list(self, heuristics: ListHeuristics) -> int:
        """Read the pages that save calls; return the number of jobs left for :meth:`read_single`."""
        unlisted = [target for target in self._left.values() if target.page == UNLISTED]
        exploring = heuristics.may_explore()
        if exploring:
            for target in unlisted:
                target.page = UNSEEN
        # New jobs are probably on the first page, which lists the newest first.
        planned = pages_to_list(max(0, target.page) for target in self._left.values())
        if planned:
            self._walk(heuristics, planned)
        if exploring and unlisted:
            heuristics.record_search(in_vain=all(target.page in (UNSEEN, UNLISTED) for target in unlisted))
        left = list(self._left.values())
        affordable = 0 if self.stopped_by else self._budget - self.calls
        self._queue.extend(left[:affordable])
        self._postpone(left[affordable:])
        return len(self._queue)

    def _walk(self, heuristics: ListHeuristics, planned: int) -> None:
        """Read as many pages as planned, and more while they show jobs of ours; a few may show none."""
        unseen = sum(target.page == UNSEEN for target in self._left.values())
        in_vain = heuristics.wasted_pages(unseen) + min(_DRIFT, len(self._left) // _WORTH_A_DRIFT)
        token: str | None = None
        number = barren = 0
        total = len(self._left)
        while True:
            self.calls += 1
            try:
                page = self._reader.snapshots(page_size=PAGE_SIZE, page_token=token)
            except GeminiBatchError as error:
                self._list_failed(error, heuristics)
                return
            found = self._take_page(page, number)
            heuristics.record_page(number, had_ours=found > 0)
            number += 1
            barren = 0 if found or number <= planned else barren + 1
            token = page.next_page_token
            if not token or len(self._left) <= 1 or self.stopped_by:
                break
            affordable = total - len(self._left) > number
            if barren > in_vain or (number >= planned + in_vain and not affordable):
                break
        missing = [target for target in self._left.values() if not token or target.page < number]
        for target in missing:
            target.page = UNLISTED
        if missing:
            heuristics.record_missing()

    def _take_page(self, page: SnapshotPage, number: int) -> int:
        """Report all watched jobs on the page; return how many of them were due."""
        answers: list[PollAnswer] = []
        found = 0
        for snapshot in page.snapshots:
            target = self._left.pop(snapshot.name, None)
            found += target is not None
            target = target or self._watched(snapshot.name)
            if target is not None:
                target.page = number
                answers.append((target.name, snapshot))
        if answers:
            self._failures = 0
            self._report(answers)
        return found

    def _list_failed(self, error: GeminiBatchError, heuristics: ListHeuristics) -> None:
        if isinstance(error, QuotaExceeded):
            self.stop(error)
        elif isinstance(error, AccessDenied) and error.http_status in _CREDENTIALS_REFUSED:
            self._report([(target.name, error) for target in self._left.values()])
            self._left = {}
        elif error.retryable and len(self._left) > _FEW and not heuristics.record_failure():
            self.stop(error)
        else:
            heuristics.record_missing()
            for target in self._left.values():
                target.page = UNLISTED

    def read_single(self) -> None:
        """Ask for the remaining jobs one by one; several threads may do so at the same time."""
        while (target := self._next()) is not None:
            try:
                answer: JobSnapshot | GeminiBatchError = JobSnapshot.of(self._reader.get(target.name, brief=True))
            except GeminiBatchError as error:
                answer = error
            if isinstance(answer, GeminiBatchError):
                self._single_failed(target, answer)
            else:
                self._failures = 0
                target.shown = answer.name
                self._report([(target.name, answer)])

    def _next(self) -> PollTarget | None:
        with self._lock:
            if not self._queue:
                return None
            self.calls += 1
            return self._queue.popleft()

    def _single_failed(self, target: PollTarget, error: GeminiBatchError) -> None:
        self._report([(target.name, error)])
        if isinstance(error, QuotaExceeded):
            self.stop(error)
        elif isinstance(error, AccessDenied) and error.http_status in _CREDENTIALS_REFUSED:
            self._report([(other.name, error) for other in self._take_queue()])
        elif error.retryable:
            self._failures += 1
            if self._failures >= _HOPELESS:
                self.stop(error)

    def _postpone(self, targets: Iterable[PollTarget]) -> None:
        answers: list[PollAnswer] = [(target.name, self.stopped_by) for target in targets]
        if answers:
            self._report(answers)

    def _take_queue(self) -> list[PollTarget]:
        with self._lock:
            queue = list(self._queue)
            self._queue.clear()
        return queue

    def stop(self, error: GeminiBatchError) -> None:
        """Stop asking: the service wants that, nobody waits any more, or our own code failed."""
        self.stopped_by = error
        self._postpone(self._take_queue())


class RunningRound:
    """A round under way: its threads, and the bundles of answers that they hand over to the event loop.

    :param submit: calls a function in a thread.
    :param deliver: passes answers to the loop, None at the end of the round; returns whether the loop still runs.
    """

    def __init__(
        self,
        reader: JobReader,
        due: Iterable[PollTarget],
        heuristics: ListHeuristics,
        *,
        watched: Callable[[str], PollTarget | None],
        submit: Callable[[Callable[[], None]], None],
        deliver: Callable[[RunningRound, list[PollAnswer] | None], bool],
    ) -> None:
        self.round = PollRound(reader, due, watched=watched, report=self._collect)
        self._heuristics = heuristics
        self._submit = submit
        self._deliver = deliver
        self._threads = 1
        self._lock = Lock()
        self._answers: list[PollAnswer] = []
        self._handed_over = time.monotonic()

    def run(self) -> None:
        """Read the list, then ask for single jobs, with other threads where that is worth it."""
        try:
            left = self.round.read_list(self._heuristics)
            # Also for few jobs: one that gets no answer must not keep the others waiting.
            helpers = max(0, min(THREADS, left) - 1)
            with self._lock:
                self._threads += helpers
            for _ in range(helpers):
                self._submit(self._read_single)
        except Exception as error:  # noqa: BLE001  if a thread died silently, no wait would ever end
            self.round.stop(_unexpected(error))
        self._read_single()

    def _read_single(self) -> None:
        try:
            self.round.read_single()
        except Exception as error:  # noqa: BLE001  as above
            self.round.stop(_unexpected(error))
        self._hand_over()
        with self._lock:
            self._threads -= 1
            last = not self._threads
        if last:
            self._deliver(self, None)

    def _collect(self, answers: list[PollAnswer]) -> None:
        """Collect answers; called in any of the round's threads."""
        with self._lock:
            self._answers.extend(answers)
            small = len(self._answers) < _BUNDLE
            young = time.monotonic() - self._handed_over < _BUNDLE_SECONDS
        if not (small and young):
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
            self._handed_over = time.monotonic()
        if answers and not self._deliver(self, answers):
            self.round.stop(UnexpectedResponse("The event loop has ended"))


def _unexpected(error: Exception) -> GeminiBatchError:
    return UnexpectedResponse(f"Polling failed with {type(error).__name__}")
