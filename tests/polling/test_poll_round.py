"""Rounds: as few calls as possible, never more than one a job, and a list that can only confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polling.fake_service import FakeService

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
)
from airflow_provider_gemini_batch.polling.poll_round import (
    UNLISTED,
    ListHeuristics,
    PollRound,
    PollTarget,
    pages_to_list,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.polling.poll_round import PollAnswer

DENIED = AccessDenied("no", http_status=401, status="UNAUTHENTICATED")
FORBIDDEN = AccessDenied("not yours", http_status=403, status="PERMISSION_DENIED")
BUSY = QuotaExceeded("slower", http_status=429, retry_after=7.0)
DOWN = ServiceUnavailable("down", http_status=503)


class Looker:
    """A poller reduced to its targets."""

    def __init__(self, service: FakeService, names: Sequence[str]) -> None:
        self.service = service
        self.targets = {name: PollTarget(name) for name in names}
        self.heuristics = ListHeuristics()
        self.answers: dict[str, object] = {}
        self.put_off: list[str] = []
        self.last: PollRound | None = None

    def look(self, due: Sequence[str] | None = None) -> int:
        """Make one round over the due (all) jobs; returns the number of calls."""
        before = len(self.service.calls)
        answers: list[PollAnswer] = []
        asked = [self.targets[name] for name in (self.targets if due is None else due)]
        self.last = PollRound(self.service, asked, watched=self.targets.get, report=answers.extend)
        if self.last.read_list(self.heuristics):
            self.last.read_single()
        assert len(dict(answers)) == len(answers), "nobody is answered twice"
        assert {target.name for target in asked} <= {name for name, _ in answers}, "everybody is told something"
        self.answers = {name: answer for name, answer in answers if answer is not None}
        self.put_off = [name for name, answer in answers if answer is None]
        return len(self.service.calls) - before


def names(count: int, prefix: str = "batches/") -> list[str]:
    return [f"{prefix}{number:05}" for number in range(count)]


def test_one_job_is_asked_for_by_name() -> None:
    looker = Looker(FakeService(names(1)), names(1))
    assert looker.look() == 1
    assert looker.service.calls == [("get", "batches/00000")]


@pytest.mark.parametrize(("jobs", "calls"), [(2, 1), (100, 1), (101, 2), (250, 3), (2000, 20)])
def test_many_jobs_take_one_page_per_hundred(jobs: int, calls: int) -> None:
    looker = Looker(FakeService(names(jobs)), names(jobs))
    assert looker.look() == calls
    assert set(looker.answers) == set(names(jobs))


def test_a_job_that_the_list_does_not_show_is_asked_for_by_name() -> None:
    service = FakeService(names(50))
    service.unlisted = {"batches/00007"}
    looker = Looker(service, names(50))
    assert looker.look() == 2
    assert ("get", "batches/00007") in service.calls
    assert set(looker.answers) == set(names(50))


def test_a_job_that_neither_list_nor_get_knows_is_reported_as_not_found() -> None:
    looker = Looker(FakeService(names(5)), [*names(5), "batches/gone"])
    looker.look()
    assert isinstance(looker.answers["batches/gone"], NotFound)


def test_jobs_of_others_in_the_list_do_not_cost_more_than_asking_for_each_of_ours() -> None:
    ours, others = names(30), names(5000, "batches/other-")
    looker = Looker(FakeService([*ours, *others]), ours)
    seen: set[str] = set()
    for _ in range(2):  # what the first round spent on the list is made up for in the next one
        assert looker.look([name for name in ours if name not in seen]) <= 30
        seen |= set(looker.answers)
    assert seen == set(ours)
    assert sum(looker.look() for _ in range(20)) <= 20 * 30
    assert looker.service.count("list") <= 20, "of 660 calls"


def test_a_deep_page_is_walked_to_again_once_it_is_known_to_pay() -> None:
    ours, others = names(100), names(300, "batches/other-")
    looker = Looker(FakeService([*ours, *others]), ours)
    for target in looker.targets.values():
        target.page = 3
    assert looker.look() == 4
    looker.service.jobs.update(FakeService(names(150, "batches/new-")).jobs)  # our jobs now lie on two later pages
    assert looker.look() <= 7
    assert looker.look() == 6


def test_jobs_that_join_later_are_looked_for_as_deep_as_the_others_lie() -> None:
    looker = Looker(FakeService(names(3000)), names(3000))  # the last of them are the newest, and on the first page
    assert looker.look(names(3000)[1000:]) == 20
    assert looker.look(names(3000)[:1000]) <= 31
    assert looker.look() == 30


def test_a_few_that_were_not_found_do_not_keep_many_newcomers_from_being_looked_for() -> None:
    looker = Looker(FakeService(names(3000)), names(3000))
    assert looker.look(names(3000)[:2]) <= 2
    assert looker.look(names(3000)[500:502]) <= 2
    assert looker.look(names(3000)[2:500]) <= 60
    assert looker.look() <= 40


def test_a_watched_job_that_happens_to_be_on_a_page_is_answered_although_it_is_not_due() -> None:
    looker = Looker(FakeService(names(60)), names(60))
    looker.look()
    assert looker.look(names(60)[:10]) == 1
    assert set(looker.answers) == set(names(60))


def test_a_refused_list_is_replaced_by_gets_and_not_tried_again_at_once() -> None:
    service = FakeService(names(10))
    service.fail = lambda verb, _name: FORBIDDEN if verb == "list" else None
    looker = Looker(service, names(10))
    assert looker.look() == 10
    assert len(looker.answers) == 9
    assert len(looker.put_off) == 1
    assert looker.look() == 10
    assert len(looker.answers) == 10


def test_a_list_that_fails_for_once_does_not_cause_a_thousand_gets() -> None:
    service = FakeService(names(1000))
    service.fail = lambda verb, _name: DOWN if verb == "list" else None
    looker = Looker(service, names(1000))
    assert looker.look() == 1
    assert looker.last.stopped_by is DOWN  # type: ignore[union-attr]
    assert looker.look() == 1
    assert looker.look() == 1000  # it has had its chances: the gets work


def test_a_refused_key_is_told_to_all_jobs_after_one_call() -> None:
    service = FakeService(names(1000))
    service.fail = lambda _verb, _name: DENIED
    looker = Looker(service, names(1000))
    assert looker.look() == 1
    assert set(looker.answers.values()) == {DENIED}
    assert len(looker.answers) == 1000


def test_a_refused_key_found_by_a_get_stops_the_other_gets() -> None:
    service = FakeService(names(50))
    service.fail = lambda verb, _name: FORBIDDEN if verb == "list" else DENIED
    looker = Looker(service, names(50))
    assert looker.look() == 2
    assert len(looker.answers) == 49
    assert len(looker.put_off) == 1, "the call that was spent on the list"


def test_a_job_of_another_project_is_refused_alone() -> None:
    service = FakeService(names(3))
    service.unlisted = {"batches/00001"}
    service.fail = lambda _verb, name: FORBIDDEN if name == "batches/00001" else None
    looker = Looker(service, names(3))
    looker.look()
    assert [name for name, answer in looker.answers.items() if answer is FORBIDDEN] == ["batches/00001"]
    assert len(looker.answers) == 3


def test_too_many_calls_end_the_round_at_once_and_everybody_is_told() -> None:
    service = FakeService(names(30))
    service.unlisted = set(names(30))
    calls = 0

    def fail(verb: str, _name: str) -> GeminiBatchError | None:
        nonlocal calls
        calls += verb == "get"
        return BUSY if calls > 5 else None

    service.fail = fail
    looker = Looker(service, names(30))
    looker.look()
    assert calls == 6
    assert sum(answer is not BUSY for answer in looker.answers.values()) == 5
    assert sum(answer is BUSY for answer in looker.answers.values()) == 24, "who was not asked is told why"
    assert len(looker.put_off) == 1, "the call that was spent on the list"
    assert looker.last.stopped_by is BUSY  # type: ignore[union-attr]


def test_a_service_that_is_down_is_not_asked_for_every_job() -> None:
    service = FakeService(names(500))
    service.unlisted = set(names(500))
    looker = Looker(service, names(500))
    looker.look()
    service.fail = lambda _verb, _name: DOWN
    assert looker.look() <= 5
    assert looker.last.stopped_by is DOWN  # type: ignore[union-attr]


def test_an_error_in_one_job_does_not_keep_the_others_from_being_seen() -> None:
    service = FakeService(names(20))
    service.unlisted = set(names(20))
    looker = Looker(service, names(20))
    looker.look()
    service.fail = lambda _verb, name: DOWN if name == "batches/00003" else None
    looker.look()
    assert sum(answer is DOWN for answer in looker.answers.values()) == 1
    assert len(looker.answers) == 20


def test_the_name_that_the_service_itself_uses_is_learnt_from_the_first_answer() -> None:
    service = FakeService(["projects/123/x", "projects/123/y"])
    service.jobs["projects/demo/x"] = service.jobs["projects/123/x"]
    service.unlisted = {"projects/demo/x"}
    looker = Looker(service, ["projects/demo/x", "projects/123/y"])
    looker.look()
    target = looker.targets["projects/demo/x"]
    assert target.shown == "projects/123/x"


pages = st.lists(st.one_of(st.integers(0, 60), st.just(UNLISTED)), max_size=80)


@given(pages)
def test_the_planned_number_of_pages_is_the_best_there_is(expected: list[int]) -> None:
    def calls(pages_read: int) -> int:
        return pages_read + sum(page >= pages_read for page in expected)

    assert calls(pages_to_list(expected)) == min(calls(number) for number in range(62))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_round_ever_makes_more_calls_than_it_has_jobs_and_nobody_is_forgotten(data: st.DataObject) -> None:
    everybody = names(data.draw(st.integers(1, 700)))
    pick = st.sampled_from(everybody)
    ours = sorted(data.draw(st.sets(pick, min_size=1, max_size=60)))
    service = FakeService(everybody)
    service.unlisted = data.draw(st.sets(pick, max_size=30))
    looker = Looker(service, ours)
    for _ in range(data.draw(st.integers(1, 12))):
        due = list(ours)
        for _ in range(4):
            assert looker.look(due) <= len(due)
            due = [name for name in due if name not in looker.answers]
            if not due:
                break
        assert not due
