"""A Dag run that was deleted and made again under its old name starts from nothing: where the list of jobs is cut."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.models import BatchJob, JobKind, JobState, Service
from airflow_provider_gemini_batch.batch.adoption import is_of_earlier_run
from airflow_provider_gemini_batch.batch.tag import Tag, TaskIdentity, display_name
from airflow_provider_gemini_batch.staging.job_service import ClientJobService, JobSettings

if TYPE_CHECKING:
    from api.listener import Listener

    from airflow_provider_gemini_batch.emulator import Emulator

TASK = TaskIdentity("here", "dag", "task", "run")
NOON = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(("began", "found"), [(timedelta(minutes=-10), 1), (timedelta(minutes=10), 0)])
def test_jobs_that_were_created_before_the_run_began_are_not_found(
    gemini_batch_emulator: Emulator, began: timedelta, found: int
) -> None:
    tag = Tag(TASK.digest, 0, 0, 0, 0, "0123456789ab")
    with BatchClient.for_gemini("a-key", base_url=gemini_batch_emulator.url) as client:
        made = client.create("gemini-2.5-flash", inlined_requests=["One."], display_name=display_name("nightly", tag))
        run_began = datetime.now(tz=timezone.utc) + began
        settings = JobSettings(model="gemini-2.5-flash", kind=JobKind.GENERATION, run_began=run_began)
        jobs = list(ClientJobService(client, settings, supply=None).find(TASK.digest))
    assert [one.name for one in jobs] == [made.name][:found]


def test_a_list_without_jobs_shows_the_services_time_too(gemini_batch_emulator: Emulator) -> None:
    shown = "Sat, 21 Nov 2026 12:00:00 GMT"
    gemini_batch_emulator.control.faults(date=shown)
    gemini = BatchClient.for_gemini("a-key", base_url=gemini_batch_emulator.url)
    keyfile = gemini_batch_emulator.service_account_info()
    vertex = BatchClient.for_vertex("demo-project", keyfile_dict=keyfile, base_url=gemini_batch_emulator.url)
    for client in (gemini, vertex):
        with client:
            service = ClientJobService(client, JobSettings("gemini-2.5-flash", JobKind.GENERATION), supply=None)
            assert service.listed_at is None
            assert list(service.find(TASK.digest)) == []
            assert service.listed_at == NOON.timestamp()


def test_one_job_with_an_odd_time_does_not_hide_those_after_it(listener: Listener) -> None:
    tag = Tag(TASK.digest, 0, 0, 0, 0, "0123456789ab")
    odd = {"name": "batches/odd", "metadata": {"createTime": "1970-01-01T00:00:00Z"}}
    ours = {"name": "batches/ours", "metadata": {"displayName": str(tag), "createTime": "2026-11-21T12:00:00Z"}}
    pages = {"": {"operations": [odd, ours], "nextPageToken": "2"}, "2": {"operations": [odd], "nextPageToken": "3"}}
    listener.answer = lambda path: (200, {}, json.dumps(pages[path.partition("pageToken=")[2][:1]]).encode())
    settings = JobSettings(model="gemini-2.5-flash", kind=JobKind.GENERATION, run_began=NOON - timedelta(minutes=10))
    with BatchClient.for_gemini("a-key", base_url=listener.url) as client:
        jobs = list(ClientJobService(client, settings, supply=None).find(TASK.digest))
    assert [one.name for one in jobs] == ["batches/ours"]
    assert len(listener.seen) == 2, "the search ends with a page of older jobs"


hours = st.floats(-30, 30).map(lambda count: timedelta(hours=count))


@given(age=st.floats(0, 48), since_run=st.floats(0, 48), ours=hours, date=hours)
def test_a_job_of_this_run_is_never_cut_whatever_our_clock_and_the_gateways_say(
    age: float, since_run: float, ours: timedelta, date: timedelta
) -> None:
    now = NOON + timedelta(hours=48)
    run_began = now - timedelta(hours=since_run)
    made = now - timedelta(hours=age)
    job = BatchJob(name="batches/1", service=Service.GEMINI, state=JobState.RUNNING, create_time=made, as_of=now + date)
    cut = is_of_earlier_run(job, run_began=run_began, now=now + ours)
    if made >= run_began:
        assert not cut
    elif not ours and not date:
        assert cut
