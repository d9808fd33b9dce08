"""The sensor: looks before it waits, judges like the operators, skips when told to, and cancels nothing."""

from __future__ import annotations

import asyncio
import json
from collections import UserList
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.bases.sensor import BaseSensorOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from runtime.tasks import made

from airflow_provider_gemini_batch import sensors
from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.polling import policy
from airflow_provider_gemini_batch.polling.report import Reason, from_event
from airflow_provider_gemini_batch.runtime import sensor_task
from airflow_provider_gemini_batch.sensors import GeminiBatchJobSensor
from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator


def sensor(job_name: Any, **arguments: Any) -> GeminiBatchJobSensor:
    return GeminiBatchJobSensor(
        task_id="s", job_name=job_name, **{"gemini_conn_id": "c", "poke_interval": 0.05, "timeout": 60.0, **arguments}
    )


def rendered(**values: Any) -> GeminiBatchJobSensor:
    """A sensor whose templates became these values."""
    made = sensor("{{ x }}")
    for name, value in values.items():
        setattr(made, name, value)
    return made


def run(sensor: GeminiBatchJobSensor) -> Any:
    """Run a sensor as Airflow does: deferred, by its trigger, and resumed in another object."""
    try:
        return sensor.execute({})
    except TaskDeferred as error:
        deferred, trigger = error, error.trigger
        assert isinstance(trigger, GeminiBatchJobTrigger)

    async def fire() -> Any:
        events = [event async for event in trigger.run()]
        return events[0].payload

    event = asyncio.run(asyncio.wait_for(fire(), 30.0))
    return sensor.resume_execution(deferred.method_name, {"event": event}, {})


def test_a_job_that_has_ended_is_seen_without_the_triggerer(client: BatchClient, emulator: Emulator) -> None:
    name = made(client)
    emulator.control.advance(3600.0)
    assert sensor(name).execute({}) == {
        "job_name": name,
        "job_names": [name],
        "state": "SUCCEEDED",
        "states": ["SUCCEEDED"],
        "counts": {"total": 2, "succeeded": 2, "failed": 0},
    }


def test_a_job_that_runs_is_left_to_a_trigger_that_may_not_cancel(client: BatchClient) -> None:
    name = made(client)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(name, location="global", project_id="p").execute({})
    arguments = deferred.value.trigger.serialize()[1]
    assert arguments["cancel_on_kill"] is False
    assert arguments["job_name"] == [name]
    assert arguments["location"] == "global"
    assert arguments["project_id"] == "p"
    assert deferred.value.timeout is not None
    assert deferred.value.timeout.total_seconds() > 60.0


def test_several_jobs_are_waited_for_and_summed_up(client: BatchClient, emulator: Emulator) -> None:
    names = [made(client), made(client, rows=3)]
    emulator.control.advance(3600.0)
    result = run(sensor(names))
    assert result["job_names"] == names
    assert result["states"] == ["SUCCEEDED", "SUCCEEDED"]
    assert result["counts"] == {"total": 5, "succeeded": 5, "failed": 0}


def test_a_timeout_is_a_sensors_timeout_and_cancels_nothing(client: BatchClient, emulator: Emulator) -> None:
    name = made(client)
    with pytest.raises(AirflowSensorTimeout, match="nothing was cancelled"):
        run(sensor(name, timeout=0.3))
    assert client.get(name).state.value == "PENDING"
    assert not emulator.control.books()["requests"].get("cancel")


def test_a_timeout_skips_when_told_to(client: BatchClient) -> None:
    with pytest.raises(AirflowSkipException):
        run(sensor(made(client), timeout=0.3, soft_fail=True))


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ({"state": "FAILED", "code": 3, "message": "bad"}, AirflowFailException),
        ({"state": "FAILED", "code": 13, "message": "oops"}, AirflowException),
        ({"state": "EXPIRED"}, AirflowException),
        ({"state": "CANCELLED"}, AirflowFailException),
    ],
)
def test_a_bad_ending_is_judged_as_by_the_operators(
    client: BatchClient, emulator: Emulator, ending: dict[str, Any], kind: type[Exception], *, deferrable: bool
) -> None:
    emulator.control.faults(job_ending=ending)
    name = made(client)
    emulator.control.advance(3600.0)
    with pytest.raises(AirflowException) as failure:
        run(sensor(name, deferrable=deferrable))
    assert type(failure.value) is kind
    assert name in str(failure.value)
    with pytest.raises(AirflowSkipException):
        run(sensor(name, deferrable=deferrable, soft_fail=True))


def test_a_worker_that_pokes_waits_until_the_job_has_ended(client: BatchClient, emulator: Emulator) -> None:
    name = made(client)
    emulator.control.speed(20.0)
    assert run(sensor(name, deferrable=False))["state"] == "SUCCEEDED"


def test_a_worker_may_also_come_back_for_each_poll(client: BatchClient) -> None:
    class Ti:
        def get_first_reschedule_date(self, _context: Any) -> None:
            return None

    poking = sensor(made(client), deferrable=False, mode="reschedule")
    with pytest.raises(AirflowRescheduleException):
        poking.execute({"ti": Ti()})  # type: ignore[typeddict-item]


def test_a_failing_poll_is_not_the_end(client: BatchClient, emulator: Emulator) -> None:
    name = made(client)
    emulator.control.advance(3600.0)
    emulator.control.faults(http={"operation": "get", "status": 400, "times": 3})
    assert run(sensor(name, deferrable=False))["state"] == "SUCCEEDED"
    emulator.control.faults(reset={"operation": "*", "times": 2})
    assert run(sensor(name))["state"] == "SUCCEEDED"


@pytest.mark.parametrize(("mode", "polls"), [("poke", 1), ("reschedule", 3)])
def test_an_unknown_job_is_asked_for_again_before_a_worker_leaves_that_could_not_remember_it(
    client: BatchClient, emulator: Emulator, mode: str, polls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.service
    monkeypatch.setattr(policy, "BELIEVED_AFTER", 0.2)
    poking = sensor("batches/none0", deferrable=False, mode=mode)
    if mode == "poke":
        assert poking.poke({}) is False
    else:
        with pytest.raises(AirflowException, match="does not know"):
            poking.poke({})
    assert emulator.control.books()["requests"]["get"] == polls


def test_a_refused_key_fails_without_retries(
    client: BatchClient, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = made(client)
    monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps({**json.loads(emulator.connection()), "password": "bad-key"}))
    for deferrable in (True, False):
        with pytest.raises(AirflowFailException) as failure:
            run(sensor(name, deferrable=deferrable))
        assert "bad-key" not in str(failure.value)


@pytest.mark.parametrize(("reason", "kind"), [(Reason.GONE, AirflowException), (Reason.REFUSED, AirflowFailException)])
def test_what_the_trigger_gave_up_on_fails(reason: Reason, kind: type[Exception]) -> None:
    event: dict[str, Any] = {"version": 1, "reason": reason.value, "jobs": [], "message": "because", "memo": ""}
    with pytest.raises(AirflowException) as failure:
        sensor("batches/x").execute_complete({}, event)
    assert type(failure.value) is kind


def test_of_several_jobs_the_one_that_is_gone_is_named(
    client: BatchClient, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert emulator.url
    monkeypatch.setattr(policy, "BELIEVED_AFTER", 0.2)
    name = made(client)
    with pytest.raises(AirflowException, match="does not know batches/none0 any more"):
        sensor([name, "batches/none0"], deferrable=False, mode="reschedule").poke({})


def test_an_event_that_cannot_be_read_makes_the_sensor_poll_itself(client: BatchClient, emulator: Emulator) -> None:
    name = made(client)
    assert from_event("2026-01-01").reason is Reason.WAKE
    with pytest.raises(TaskDeferred):
        sensor(name).execute_complete({}, "2026-01-01")
    emulator.control.advance(3600.0)
    assert sensor(name).execute_complete({}, {"version": 99})["state"] == "SUCCEEDED"


def test_the_names_that_mapped_tasks_returned_are_a_list(emulator: Emulator, client: BatchClient) -> None:
    names = [made(client), made(client)]
    emulator.control.advance(3600.0)
    assert sensor(UserList(names)).execute({})["job_names"] == names


@pytest.mark.parametrize("job_name", ["", [], [""], None])
def test_an_empty_name_is_refused(job_name: Any) -> None:
    with pytest.raises(AirflowFailException, match="job_name is empty"):
        rendered(job_name=job_name).execute({})
    if job_name != []:
        with pytest.raises(ConfigurationError, match=r"GeminiBatchJobSensor 's'.*job_name is empty"):
            sensor(job_name)


OUTPUT = {"job_name": "batches/a", "responses": ["swordfish"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"job_name": OUTPUT}, 'task.output["job_name"]'),
        ({"job_name": [OUTPUT]}, 'task.output["job_name"]'),
        ({"job_name": str(OUTPUT)}, "job_name: a template turns a dict into text: take the member you need"),
        ({"job_name": ["batches/a", "None"]}, "job_name is empty"),
        ({"job_name": "Who?" * 100}, 'not a text of 400 characters; .* task.output["job_name"]'),
        ({"job_name": {"batches/a"}}, "job_name must be a text, not set"),
        ({"job_name": str(["batches/a", "batches/b"])}, "job_name: a template turns a list into text"),
        ({"gemini_conn_id": OUTPUT}, "gemini_conn_id must be a text, not dict"),
        ({"location": OUTPUT}, "location must be a text, not dict"),
    ],
)
@pytest.mark.usefixtures("emulator")
def test_what_is_not_a_name_is_refused_by_its_type_and_shown_nowhere(
    arguments: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AirflowFailException, match=words.replace("[", r"\[")) as refused:
        rendered(**{"job_name": "batches/a", **arguments}).execute({})
    assert "swordfish" not in str(refused.value) + caplog.text


@pytest.mark.parametrize("name", ["job_name", "gemini_conn_id", "location", "project_id"])
def test_what_no_template_can_mend_is_refused_when_the_dag_is_parsed(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"GeminiBatchJobSensor 's'.*{name} must be a text, not dict"):
        sensor(**{"job_name": "batches/a", name: OUTPUT})


def test_blanks_that_a_template_leaves_around_a_name_are_dropped(client: BatchClient) -> None:
    name = made(client)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(f"\n  {name}\n").execute({})
    assert deferred.value.trigger.job_name == [name]


def test_whether_it_defers_may_be_said_in_words() -> None:
    assert [sensor("batches/a", deferrable=said).deferrable for said in ("False", "true", 0)] == [False, True, False]
    with pytest.raises(
        ConfigurationError, match=r"GeminiBatchJobSensor '\w+' \(test_sensor.py, line \d+\): deferrable must be"
    ):
        sensor("batches/a", deferrable="perhaps")


def test_no_connection_named_means_the_default_one() -> None:
    assert sensor("batches/a", gemini_conn_id=None).gemini_conn_id == "gemini_batch_default"


def test_job_and_place_are_templates() -> None:
    assert set(GeminiBatchJobSensor.template_fields) == {"job_name", "gemini_conn_id", "location", "project_id"}


@pytest.mark.parametrize(("mode", "look_ups"), [("poke", 1), ("reschedule", 3)])
def test_a_worker_that_stays_asks_for_the_connection_once(
    mode: str, look_ups: int, client: BatchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = GeminiBatchHook.get_connection.__func__  # type: ignore[attr-defined]

    def counted(cls: type[GeminiBatchHook], conn_id: str) -> Any:
        asked.append(conn_id)
        return ask(cls, conn_id)

    monkeypatch.setattr(GeminiBatchHook, "get_connection", classmethod(counted))
    name = made(client)
    poking = sensor(name, deferrable=False, mode=mode)
    for _ in range(3):
        # In this mode, Airflow starts a process for every look.
        poking = sensor(name, deferrable=False, mode=mode) if mode == "reschedule" else poking
        assert poking.poke({}) is False
    assert len(asked) == look_ups


def test_the_sensors_own_deadline_comes_before_airflows_count(
    client: BatchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    for module in (sensors, sensor_task):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now[0]))

    def count(poking: GeminiBatchJobSensor, context: Any) -> Any:
        now[0] += 61.0
        return poking.poke(context)

    monkeypatch.setattr(BaseSensorOperator, "execute", count)
    with pytest.raises(AirflowSensorTimeout, match="nothing was cancelled"):
        sensor(made(client), deferrable=False, timeout=60.0).execute({})
