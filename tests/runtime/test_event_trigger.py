"""The event trigger against the emulator: each end is told once, whoever created the job, also after a restart."""

from __future__ import annotations

import asyncio
import json
import runpy
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.polling import lease
from airflow_provider_gemini_batch.runtime import event_task
from airflow_provider_gemini_batch.runtime.event_task import CURSOR_KEY, Cursor, EndedJobs, ended_at
from airflow_provider_gemini_batch.triggers import GeminiBatchJobEventTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

QUICK = 0.02


class Store:
    """Stands where Airflow keeps the state of an asset."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.is_away = False
        self.saves_fail = False
        self.fails = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        self.fails -= 1
        if self.is_away or self.fails >= 0:
            raise OSError("no database")
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        if self.is_away or self.saves_fail:
            raise OSError("no database")
        self.kept[key] = json.dumps(value)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not lease._pollers


def made(client: BatchClient, display_name: str = "") -> str:
    return client.create("gemini-2.5-flash", inlined_requests=["secret row"], display_name=display_name or None).name


def trigger(store: Store | None = None, **arguments: Any) -> GeminiBatchJobEventTrigger:
    written = json.loads(json.dumps(GeminiBatchJobEventTrigger("c", poll_interval=QUICK, **arguments).serialize()[1]))
    trigger = GeminiBatchJobEventTrigger(**written)
    trigger.asset_state_store = store  # type: ignore[assignment]
    return trigger


def told(
    emulator: Emulator, trigger: GeminiBatchJobEventTrigger, *, when_watching: Callable[[], object] = lambda: None
) -> list[dict[str, Any]]:
    """What a trigger tells while a triggerer runs it; the triggerer then stops without a word."""

    def wait_for_rounds() -> None:
        # What a round found has been told before the next one begins.
        before = lists(emulator)
        wait_for(lambda: lists(emulator) >= before + 5, "rounds of polling")

    async def watch() -> list[dict[str, Any]]:
        payloads: list[dict[str, Any]] = []

        async def run() -> None:
            async with aclosing(trigger.run()) as events:  # type: ignore[type-var]
                async for event in events:
                    payloads.append(event.payload)  # noqa: PERF401  one by one, as they come

        task = asyncio.create_task(run())
        await asyncio.to_thread(wait_for_rounds)
        await asyncio.to_thread(when_watching)
        await asyncio.to_thread(wait_for_rounds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return payloads

    return asyncio.run(watch())


def lists(emulator: Emulator) -> int:
    return int(emulator.control.books()["requests"].get("list", 0))


def ended(client: BatchClient, emulator: Emulator, *names: str) -> Callable[[], object]:
    def end() -> list[str]:
        made_now = [made(client, name) for name in names]
        emulator.control.advance(600.0)
        return made_now

    return end


def test_an_end_is_reported_once_and_earlier_ones_are_not(client: BatchClient, emulator: Emulator) -> None:
    made(client, "old")
    emulator.control.advance(600.0)
    running = made(client, "running")
    payloads = told(emulator, trigger(), when_watching=ended(client, emulator, "new"))
    assert sorted(payload["display_name"] for payload in payloads) == ["new", "running"]
    (payload,) = [payload for payload in payloads if payload["job_name"] == running]
    assert (payload["state"], payload["model"]) == ("SUCCEEDED", "gemini-2.5-flash")
    assert payload["counts"] == {"total": 1, "succeeded": 1, "failed": 0}
    assert json.loads(json.dumps(payload)) == payload
    assert "secret" not in json.dumps(payload)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ["[nightly] 1", "notebook-1", "other"]),
        ({"display_name": "notebook-*"}, ["notebook-1"]),
        ({"model": "gemini-2.5-*"}, ["[nightly] 1", "notebook-1", "other"]),
        ({"model": "gemini-1*"}, []),
        ({"states": ["FAILED", "EXPIRED"]}, []),
        ({"states": ["SUCCEEDED"], "display_name": "other"}, ["other"]),
        ({"states": "SUCCEEDED", "display_name": "[nightly] *"}, ["[nightly] 1"]),
        ({"display_name": "[!x]ther"}, []),
        ({"labels": {"team": "a"}}, []),
    ],
)
def test_only_jobs_that_are_asked_for_are_reported(
    client: BatchClient, emulator: Emulator, arguments: dict[str, Any], names: list[str]
) -> None:
    end = ended(client, emulator, "notebook-1", "other", "[nightly] 1")
    payloads = told(emulator, trigger(**arguments), when_watching=end)
    assert sorted(payload["display_name"] for payload in payloads) == names


def test_a_restart_skips_no_end_and_reports_none_twice(client: BatchClient, emulator: Emulator) -> None:
    store = Store()
    first = told(emulator, trigger(store), when_watching=ended(client, emulator, "a", "b"))
    assert sorted(payload["display_name"] for payload in first) == ["a", "b"]
    ended(client, emulator, "while no triggerer ran")()
    second = told(emulator, trigger(store), when_watching=ended(client, emulator, "c"))
    assert sorted(payload["display_name"] for payload in second) == ["c", "while no triggerer ran"]
    assert told(emulator, trigger(store)) == []


def test_a_cursor_that_cannot_be_read_at_first_is_not_lost(
    client: BatchClient, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_task, "_STORE_PAUSE", 0.0)
    store = Store()
    assert told(emulator, trigger(store)) == []
    ended(client, emulator, "while no triggerer ran")()
    store.fails = 2
    assert len(told(emulator, trigger(store))) == 1


def test_a_cursor_that_cannot_be_kept_or_read_stops_nothing(
    client: BatchClient,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(event_task, "_STORE_PAUSE", 0.0)
    store = Store()
    store.is_away = True
    assert len(told(emulator, trigger(store), when_watching=ended(client, emulator, "a"))) == 1
    store.is_away = False
    for damaged in ({"since": "nonsense", "told": 5}, {"since": "2026-11-27T10:00:00", "told": {}}):
        store.kept[CURSOR_KEY] = json.dumps(damaged)
        assert told(emulator, trigger(store)) == []
        assert Cursor.read(json.loads(store.kept[CURSOR_KEY])) is not None
    assert "the stored value is damaged" in caplog.text


def test_a_first_cursor_that_could_not_be_saved_is_saved_later(client: BatchClient, emulator: Emulator) -> None:
    store = Store()
    store.saves_fail = True
    made(client, "old")
    emulator.control.advance(600.0)
    assert told(emulator, trigger(store), when_watching=lambda: setattr(store, "saves_fail", False)) == []
    assert CURSOR_KEY in store.kept


def test_a_service_that_fails_is_waited_out(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(http={"operation": "list", "status": 503, "times": 2})
    payloads = told(emulator, trigger(), when_watching=ended(client, emulator, "a"))
    assert [payload["display_name"] for payload in payloads] == ["a"]


def test_all_triggers_of_a_connection_share_one_stream(client: BatchClient, emulator: Emulator) -> None:
    one, two = trigger(display_name="a"), trigger(states=["FAILED"])
    assert one.shared_stream_key() == two.shared_stream_key()
    assert one.shared_stream_key() != GeminiBatchJobEventTrigger("other", poll_interval=QUICK).shared_stream_key()

    async def share() -> list[int]:
        stream = GeminiBatchJobEventTrigger.open_shared_stream(two.serialize()[1])
        counts = [len(await anext(stream))]
        name = await asyncio.to_thread(made, client)
        await asyncio.to_thread(emulator.control.advance, 600.0)
        counts.append(len(await anext(stream)))
        assert name
        await stream.aclose()  # type: ignore[attr-defined]
        return counts

    assert asyncio.run(share()) == [0, 1]


def test_only_as_much_of_the_list_is_read_as_may_have_changed(client: BatchClient, emulator: Emulator) -> None:
    for number in range(205):
        made(client, f"old {number}")
    emulator.control.advance(600.0)
    jobs = EndedJobs()

    def calls() -> int:
        before = lists(emulator)
        jobs.read(client)
        return lists(emulator) - before

    assert calls() == 3
    assert calls() == 1, "the newest are known to have ended, and so are all before them"
    running = made(client)
    assert calls() == 1
    emulator.control.advance(600.0)
    assert running in {job.name for job in jobs.read(client)}


def test_ends_of_long_ago_are_forgotten(client: BatchClient, emulator: Emulator) -> None:
    jobs = EndedJobs()
    for age in ("old", "new"):
        # Some of the old ones are on the second page, which is not read again.
        for number in range(60):
            made(client, f"{age} {number}")
        emulator.control.advance(600.0)
        assert {job.display_name.split()[0] for job in jobs.read(client)} == {age}
        emulator.control.advance(9 * 86_400.0)


def test_ends_that_show_up_late_and_out_of_order_are_reported(client: BatchClient, emulator: Emulator) -> None:
    names = [made(client), made(client)]
    emulator.control.advance(600.0)
    first, second = sorted((client.get(name, brief=True) for name in names), key=ended_at)
    cursor = Cursor.after([])
    cursor.note(second)
    assert cursor.is_new(first)
    assert not cursor.is_new(second)
    assert Cursor.read(json.loads(json.dumps(cursor.to_value()))) == cursor


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"poll_interval": 0.0}, "poll_interval must be above 0"),
        ({"states": ["RUNNING"]}, "cannot end as 'RUNNING'"),
        ({"states": ["succeeded"]}, "cannot end as 'succeeded'"),
        ({"states": "RUNNING"}, "cannot end as 'RUNNING'"),
        ({"states": 5}, "states must be"),
        ({"poll_interval": float("nan")}, "poll_interval must be a number of seconds"),
        ({"poll_interval": "often"}, "poll_interval must be a number of seconds"),
        ({"display_name": ["a"]}, "display_name must be a text"),
        ({"model": b"m"}, "model must be a text"),
        ({"labels": ["a"]}, "labels must be"),
        ({"labels": {"a": None}}, "must be a text"),
    ],
)
def test_arguments_that_cannot_work_are_refused_in_the_dag_file(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        GeminiBatchJobEventTrigger("c", **arguments)


@pytest.mark.parametrize("name", ["run_when_a_job_ends", "tell_others_when_a_job_ends"])
def test_the_examples_watch_with_triggers_that_airflow_can_store(name: str) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    examples = Path(__file__).resolve().parents[2] / "example_dags"
    dag = runpy.run_path(str(examples / f"{name}.py"))[name]()
    stored = DagSerialization.to_dict(dag)
    assert "GeminiBatchJobEventTrigger" in json.dumps(stored)
    DagSerialization.from_dict(stored)
