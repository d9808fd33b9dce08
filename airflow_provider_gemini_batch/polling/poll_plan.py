"""One round of looking at many jobs with few calls: pages of the list, single gets, or both, whichever are fewer.

Rules of this file: no event loop and no clock. A round never makes more calls than it has jobs to ask about. The list
can only confirm: a job that is not on it is asked for by name.
"""

from __future__ import annotations

from collections import Counter, deque
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from airflow_provider_gemini_batch.api.errors import AccessDenied, GeminiBatchError, QuotaExceeded
from airflow_provider_gemini_batch.api.models import JobSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_gemini_batch.api.models import BatchJob, GlancePage

# The largest page that is known to be taken: clients of the service treat more than this as a violation.
PAGE_SIZE: Final = 100
# Instead of a page number: not looked for yet; looked for, and not found.
UNSEEN: Final = -1
UNLISTED: Final = 1 << 30
# Wrong credentials; 403 may concern one job alone, as when it belongs to another project.
_CREDENTIALS_REFUSED: Final = frozenset({400, 401})
# So many failures one after the other, without a success, mean that the service is not there: the round stops asking.
_HOPELESS: Final = 4
# Rounds until the list is tried again for jobs that it did not show: doubled each time in vain up to the last.
_FIRST_REST: Final = 4
_LONGEST_REST: Final = 16
# A list that fails once is not replaced by a thousand gets: the round is put off, so many times in a row.
_LIST_CHANCES: Final = 3
_FEW: Final = 4
# Jobs move down the list as new ones are made: so many pages at most between two looks, and for so many jobs a page.
_DRIFT: Final = 2
_WORTH_A_DRIFT: Final = 8


class JobReader(Protocol):
    """What looking needs of a client."""

    def get(self, name: str, *, brief: bool = False) -> BatchJob:
        """Ask for one job."""

    def snapshots(self, *, page_size: int = PAGE_SIZE, page_token: str | None = None) -> GlancePage:
        """Ask for one page of the list of jobs, newest first."""


class Target:
    """A job to look at: its name, the name that the list shows, and the page where it was last seen."""

    __slots__ = ("name", "page", "shown")

    def __init__(self, name: str) -> None:
        self.name = name
        # Vertex shows the number of a project where an author may have written its id: the first answer tells.
        self.shown = name
        self.page = UNSEEN


# The name as asked for, and what came of it; None: not asked, because the round's calls are used up or it was stopped.
Answer = tuple[str, "JobSnapshot | GeminiBatchError | None"]


def pages_worth(pages: Iterable[int]) -> int:
    """Number of list pages that makes the fewest calls, for jobs expected on these pages (from 0); 0 for gets alone."""
    expected = Counter(pages)
    left = expected.total()
    best, fewest = 0, left
    for page in sorted(page for page in expected if page != UNLISTED):
        left -= expected[page]
        if page + 1 + left < fewest:
            best, fewest = page + 1, page + 1 + left
    return best


class Habit:
    """What a watcher remembers of the list from round to round: whether trying it for unlisted jobs may pay."""

    __slots__ = ("_deepest", "_failures", "_rest", "_resting")

    def __init__(self) -> None:
        self._deepest = 0
        self._failures = 0
        self._rest = _FIRST_REST
        self._resting = 0

    def worked(self, page: int, *, fruitful: bool) -> None:
        """Note that a page of the list was answered, and whether jobs of ours were on it."""
        self._failures = 0
        if fruitful:
            self._deepest = max(page, self._deepest)

    def patience(self, jobs: int) -> int:
        """Give the number of pages in a row that may be read in vain in search of so many jobs.

        An eighth of the calls that asking for each would take, or as far as jobs of ours have been seen already,
        where that is still much less.
        """
        return max(jobs // 8, min(self._deepest + 1, jobs // 4))

    def missed(self) -> None:
        """Note that jobs were looked for and not found: it is some time until they are looked for again."""
        self._resting = self._resting or self._rest

    def failed(self) -> bool:
        """Note that the list was not answered; True when it has had chances enough."""
        self._failures += 1
        return self._failures >= _LIST_CHANCES

    def may_explore(self) -> bool:
        """Count a round; True when unlisted jobs may be looked for in the list again."""
        if self._resting:
            self._resting -= 1
        return not self._resting

    def explored(self, *, in_vain: bool) -> None:
        """Learn from a round that explored."""
        self._rest = min(2 * self._rest, _LONGEST_REST) if in_vain else _FIRST_REST
        self._resting = self._rest if in_vain else 0


class Round:
    """One round. :meth:`read_list` runs in one thread, then :meth:`read_single` in as many as are worth it.

    :param reader: the client.
    :param due: the jobs that have to be answered.
    :param watched: looks a listed name up among all watched jobs, so that one which happens to be on a page is answered
        although it is not due.
    :param report: takes answers, in any thread; every due job is reported once.
    """

    def __init__(
        self,
        reader: JobReader,
        due: Iterable[Target],
        *,
        watched: Callable[[str], Target | None],
        report: Callable[[list[Answer]], None],
    ) -> None:
        self._reader = reader
        self._left = {target.shown: target for target in due}
        self._watched = watched
        self._report = report
        self._budget = len(self._left)
        self._queue: deque[Target] = deque()
        self._lock = Lock()
        self._failures = 0
        self._stopped_by: GeminiBatchError | None = None
        self.calls = 0
        self.retry_after: float | None = None

    @property
    def stopped_by(self) -> GeminiBatchError | None:
        """What ended the round early: too many calls, or a service that is not there. None when all went on."""
        return self._stopped_by

    def give_up(self, error: GeminiBatchError) -> None:
        """Ask no more: nobody waits, or something is wrong with us."""
        self._stop(error)

    def read_list(self, habit: Habit) -> int:
        """Read the pages that pay; returns the number of jobs left for :meth:`read_single`."""
        lost = [target for target in self._left.values() if target.page == UNLISTED]
        exploring = habit.may_explore()
        if exploring:
            for target in lost:
                target.page = UNSEEN
        # Who has not been looked for may well be on the first page: it is the newest that are there.
        planned = pages_worth(max(0, target.page) for target in self._left.values())
        if planned:
            self._walk(habit, planned)
        if exploring and lost:
            habit.explored(in_vain=all(target.page in (UNSEEN, UNLISTED) for target in lost))
        left = list(self._left.values())
        affordable = 0 if self._stopped_by else self._budget - self.calls
        self._queue.extend(left[:affordable])
        self._put_off(left[affordable:])
        return len(self._queue)

    def _walk(self, habit: Habit, planned: int) -> None:
        """Read page after page: as far as is planned, on while jobs are found, and a little in vain."""
        unseen = sum(target.page == UNSEEN for target in self._left.values())
        patience = habit.patience(unseen) + min(_DRIFT, len(self._left) // _WORTH_A_DRIFT)
        token: str | None = None
        number = barren = 0
        total = len(self._left)
        while True:
            self.calls += 1
            try:
                page = self._reader.snapshots(page_size=PAGE_SIZE, page_token=token)
            except GeminiBatchError as error:
                self._list_failed(error, habit)
                return
            found = self._take_page(page, number)
            habit.worked(number, fruitful=found > 0)
            number += 1
            barren = 0 if found or number <= planned else barren + 1
            token = page.next_page_token
            if not token or len(self._left) <= 1 or self._stopped_by:
                break
            affordable = total - len(self._left) > number
            if barren > patience or (number >= planned + patience and not affordable):
                break
        missed = [target for target in self._left.values() if not token or target.page < number]
        for target in missed:
            target.page = UNLISTED
        if missed:
            habit.missed()

    def _take_page(self, page: GlancePage, number: int) -> int:
        """Report everybody on the page whom somebody watches; returns how many of them were due."""
        answers: list[Answer] = []
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

    def _list_failed(self, error: GeminiBatchError, habit: Habit) -> None:
        if isinstance(error, QuotaExceeded):
            self._stop(error)
        elif isinstance(error, AccessDenied) and error.http_status in _CREDENTIALS_REFUSED:
            self._refuse_all(error, self._left.values())
            self._left = {}
        elif error.retryable and len(self._left) > _FEW and not habit.failed():
            self._stop(error)
        else:
            habit.missed()
            for target in self._left.values():
                target.page = UNLISTED

    def read_single(self) -> None:
        """Ask for the jobs left until none is left; several threads may do so at once."""
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

    def _next(self) -> Target | None:
        with self._lock:
            if not self._queue:
                return None
            self.calls += 1
            return self._queue.popleft()

    def _single_failed(self, target: Target, error: GeminiBatchError) -> None:
        if isinstance(error, QuotaExceeded):
            self._put_off([target])
            self._stop(error)
            return
        self._report([(target.name, error)])
        if isinstance(error, AccessDenied) and error.http_status in _CREDENTIALS_REFUSED:
            self._refuse_all(error, self._take_queue())
        elif error.retryable:
            self._failures += 1
            if self._failures >= _HOPELESS:
                self._stop(error)

    def _refuse_all(self, error: AccessDenied, targets: Iterable[Target]) -> None:
        self._report([(target.name, error) for target in targets])

    def _put_off(self, targets: Iterable[Target]) -> None:
        answers: list[Answer] = [(target.name, None) for target in targets]
        if answers:
            self._report(answers)

    def _take_queue(self) -> list[Target]:
        with self._lock:
            queue = list(self._queue)
            self._queue.clear()
        return queue

    def _stop(self, error: GeminiBatchError) -> None:
        self._stopped_by = error
        if isinstance(error, QuotaExceeded):
            self.retry_after = error.retry_after
        self._put_off(self._take_queue())
