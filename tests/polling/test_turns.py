"""Tasks that share a quota: as many at a time as it allows, the longest waiting first, and the list is the truth."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polling.fake_service import FakeService, quickly
from polling.scene import Scene

from airflow_provider_gemini_batch.api.errors import AccessDenied, NotFound, ServiceUnavailable, UnexpectedResponse
from airflow_provider_gemini_batch.api.models import JobState, SnapshotPage
from airflow_provider_gemini_batch.polling.turns import JobList, ListedJobs, TurnQueue, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Sequence


def queue(*requests: TurnRequest) -> tuple[TurnQueue, list[int]]:
    made = TurnQueue()
    return made, [made.join(request) for request in requests]


def test_the_longest_waiting_go_first_as_many_as_there_is_room_for() -> None:
    waiting, (late, early, middle) = queue(TurnRequest(4, 30.0), TurnRequest(4, 10.0), TurnRequest(4, 20.0))
    assert waiting.serve(ListedJobs(2, 0, 0), 0.0) == {early: 1, middle: 1}
    assert waiting.serve(ListedJobs(2, 0, 0), 1.0) == {}
    assert waiting.serve(ListedJobs(3, 2, 1), 2.0) == {late: 1}


def test_each_has_one_job_before_any_has_a_second_one() -> None:
    waiting, (many, few) = queue(TurnRequest(5, 1.0, jobs=10), TurnRequest(5, 2.0))
    assert waiting.serve(ListedJobs(0, 0, 0), 0.0) == {many: 4, few: 1}


def test_who_was_let_through_and_made_nothing_gives_the_place_back_after_a_while() -> None:
    waiting, (_, second) = queue(TurnRequest(1, 1.0), TurnRequest(1, 2.0))
    waiting.serve(ListedJobs(0, 0, 0), 0.0)
    assert waiting.serve(ListedJobs(0, 0, 0), 100.0) == {}
    assert waiting.serve(ListedJobs(0, 0, 0), 121.0) == {second: 1}


def test_after_a_refusal_each_end_of_a_job_lets_one_through() -> None:
    waiting, (first, second) = queue(TurnRequest(None, 1.0), TurnRequest(None, 2.0))
    assert waiting.serve(ListedJobs(9, 0, 0), 0.0) == {}
    assert waiting.serve(ListedJobs(8, 0, 1), 1.0) == {first: 1}
    assert waiting.serve(ListedJobs(9, 1, 0), 2.0) == {}
    assert waiting.serve(ListedJobs(9, 1, 1), 3.0) == {}, "somebody else took the place"
    assert waiting.serve(ListedJobs(8, 0, 1), 4.0) == {second: 1}


def test_who_leaves_takes_no_turn() -> None:
    waiting, (first, second) = queue(TurnRequest(1, 1.0), TurnRequest(1, 2.0))
    waiting.leave(first)
    assert waiting.serve(ListedJobs(0, 0, 0), 0.0) == {second: 1}
    assert not waiting


@given(
    st.lists(st.tuples(st.integers(1, 6), st.floats(0, 100), st.integers(1, 4)), max_size=12),
    st.lists(st.integers(0, 8), max_size=6),
)
def test_nobody_is_let_through_whose_limit_has_no_room(
    requests: list[tuple[int, float, int]], active: Sequence[int]
) -> None:
    waiting, places = queue(*(TurnRequest(*request) for request in requests))
    limits = dict(zip(places, (limit for limit, _, _ in requests), strict=True))
    taken = 0
    for moment, count in enumerate(active):
        served = waiting.serve(ListedJobs(count, 0, 0), float(moment))
        assert all(count + taken < limits[place] for place in served)
        taken += sum(served.values())
        assert not served or count + taken <= max(limits[place] for place in served)


# The list


def listed(service: FakeService, jobs: JobList) -> ListedJobs:
    return jobs.read(service)


def test_the_list_tells_what_is_active_what_came_and_what_ended() -> None:
    service, jobs = FakeService(["a", "b"]), JobList()
    assert listed(service, jobs) == ListedJobs(2, 0, 0)
    service.put("c")
    service.finish("a")
    service.put("d", JobState.FAILED)
    assert listed(service, jobs) == ListedJobs(2, 2, 2)
    assert listed(service, jobs) == ListedJobs(2, 0, 0)
    del service.jobs["b"]
    assert listed(service, jobs) == ListedJobs(1, 0, 1)
    service.put("c", JobState.CANCELLING)
    assert listed(service, jobs).active == 1


def test_a_long_list_is_read_to_its_end_once() -> None:
    service, jobs = FakeService(), JobList()
    for number in range(450):
        service.put(f"old-{number}", JobState.SUCCEEDED)
    service.put("new")
    assert listed(service, jobs).active == 1
    assert service.count("list") == 5
    assert listed(service, jobs).active == 1
    assert service.count("list") == 6
    service.finish("new")
    assert listed(service, jobs) == ListedJobs(0, 0, 1)
    assert service.count("list") == 7


def test_an_old_job_that_still_runs_is_looked_for_behind_those_that_have_ended() -> None:
    service, jobs = FakeService(["first"]), JobList()
    for number in range(250):
        service.put(f"old-{number}", JobState.SUCCEEDED)
    assert [listed(service, jobs).active for _ in range(2)] == [1, 1]
    service.finish("first")
    assert listed(service, jobs) == ListedJobs(0, 0, 1)


def test_a_job_that_no_service_would_still_run_takes_no_place() -> None:
    service, jobs = FakeService(["stuck", "new"]), JobList()
    now = datetime.now(timezone.utc)
    created = {"create_time": now - timedelta(hours=98), "as_of": now}
    service.jobs["stuck"] = service.jobs["stuck"].model_copy(update=created)
    assert listed(service, jobs) == ListedJobs(1, 0, 0)
    assert listed(service, jobs) == ListedJobs(1, 0, 0)


def test_a_list_that_repeats_a_page_for_ever_is_an_error() -> None:
    class Endless(FakeService):
        def snapshots(self, *, page_size: int = 100, page_token: str | None = None) -> SnapshotPage:  # noqa: ARG002  any token leads to the same page
            return SnapshotPage(super().snapshots(page_size=page_size).snapshots, "again")

    with pytest.raises(UnexpectedResponse, match="does not end"):
        JobList().read(Endless(["a"]))


# Sixteen tasks, four places


class Quota:
    """A service that runs so many jobs at a time, each for so long, and refuses others."""

    def __init__(self, scene: Scene, *, most: int, seconds: float) -> None:
        self.scene, self.most, self.seconds = scene, most, seconds
        self.refused = 0

    @property
    def active(self) -> int:
        return sum(not job.is_done for job in self.scene.service.jobs.values())

    def create(self, name: str) -> bool:
        if self.active >= self.most:
            self.refused += 1
            return False
        self.scene.service.put(name)
        self.scene.after(self.seconds, lambda: self.scene.service.finish(name))
        return True


def play(limit: int | None, *, triggerers: int = 1) -> tuple[int, float]:
    """Let 16 tasks begin together, 20 s a job, four at a time; return the refusals, and the time against the ideal."""

    async def all_tasks() -> tuple[int, float]:
        service = FakeService()
        scenes = [Scene(service) for _ in range(triggerers)]
        quota, began = Quota(scenes[0], most=4, seconds=20.0), scenes[0].loop.time()

        async def task(number: int) -> None:
            scene, name, has_turn, refusals = scenes[number % triggerers], f"job-{number:02}", limit is None, 0
            since = began + number / 100
            while not (has_turn and quota.create(name)):
                pause = 60.0 * 2**refusals * (1.0 + number / 32)
                if has_turn:
                    refusals += 1
                wait = scene.poller.turns.wait(TurnRequest(None if has_turn else limit, since), 30.0)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(wait, pause if has_turn else None)
                # A worker starts, and looks itself.
                await asyncio.sleep(3.0 + number / 100)
                has_turn = limit is None or quota.active < limit
            await asyncio.sleep(quota.seconds)

        await asyncio.gather(*(task(number) for number in range(16)))
        took = scenes[0].loop.time() - began
        for scene in scenes:
            scene.poller.close()
        return quota.refused, took / (16 / 4 * 20.0)

    return quickly(all_tasks())


@pytest.mark.parametrize("triggerers", [1, 2])
def test_sixteen_tasks_with_four_places_take_little_longer_than_they_must(triggerers: int) -> None:
    refused, times_ideal = play(4, triggerers=triggerers)
    assert refused <= 4
    assert times_ideal <= 1.5


def test_refused_tasks_go_on_as_soon_as_jobs_end_although_nobody_told_the_limit() -> None:
    refused, times_ideal = play(None)
    assert refused <= 24, "twelve at first, and some whose pause ends before a job does"
    assert times_ideal <= 1.6


def test_a_list_that_cannot_be_read_is_read_again_and_a_refused_connection_is_told_by_the_task_itself() -> None:
    async def all_tasks(error: Exception, times: int) -> tuple[int, int]:
        scene = Scene(FakeService())
        errors = [error] * times
        scene.service.fail = lambda _verb, _name: errors.pop() if errors else None
        turns = await scene.poller.turns.wait(TurnRequest(1, 0.0), 10.0)
        left = len(errors)
        scene.poller.close()
        await asyncio.sleep(1.0)
        return turns, left

    assert quickly(all_tasks(ServiceUnavailable("down", http_status=503), 5)) == (1, 0)
    assert quickly(all_tasks(AccessDenied("no", http_status=403), 100)) == (1, 97)
    assert quickly(all_tasks(NotFound("no such project", http_status=404), 100)) == (1, 97)
    assert quickly(all_tasks(UnexpectedResponse("what is this?"), 100)) == (1, 97)
    assert quickly(all_tasks(KeyError("a defect of ours"), 100)) == (1, 97)
