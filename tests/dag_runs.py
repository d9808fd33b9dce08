"""Dag runs inside the test's own process: Airflow's task runner, execution API, XCom and SQLite; no scheduler."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Engine, event, update
from waiting import wait_for

from stack.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG
    from sqlalchemy.orm import Session

_BUNDLE = "tests"
_NUMBERS = count()
_START_SECONDS = 60.0


def make_database() -> None:
    """Put a migrated database where the settings of these tests say that it is."""
    LocalAirflow(home=Path(os.environ["AIRFLOW_HOME"]))._make_database()
    event.listen(Engine, "connect", _without_waiting_for_the_disk)
    from airflow import settings

    settings.initialize()  # type: ignore[no-untyped-call]


def start_execution_api() -> None:
    """Start the execution API that tasks of this process talk to; takes seconds, once."""
    from airflow.sdk.execution_time import supervisor as parts

    supervisor: Any = parts  # typed differently in 3.2 and 3.3
    if not hasattr(supervisor.in_process_api_server, "cache_clear"):
        # Airflow 3.2 starts one for every try of a task; later ones keep the first.
        supervisor.in_process_api_server = cache(supervisor.in_process_api_server)
    api = supervisor.in_process_api_server()
    assert api.transport
    # Nor does 3.2 wait for it, and it answers 500 until it has started.
    wait_for(lambda: hasattr(api.app.state, "svcs_registry"), "the execution API", seconds=_START_SECONDS)


def _without_waiting_for_the_disk(connection: Any, _record: Any) -> None:
    # A task commits some thirty times, and each time SQLite would wait for the disk: most of a test's time.
    if "sqlite" in type(connection).__module__:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=OFF")
        cursor.close()


@dataclass
class Deferral:
    """One time that a task was deferred: to which trigger, with what arguments, and what it fired."""

    classpath: str
    kwargs: dict[str, Any]
    next_kwargs: dict[str, Any]
    event: Any = None


@dataclass
class Result:
    """What became of one try of a task instance."""

    state: str
    error: BaseException | None
    deferrals: list[Deferral] = field(default_factory=list)

    @property
    def message(self) -> str:
        """The error's text."""
        return "" if self.error is None else str(self.error)


class Run:
    """One run of a Dag whose task instances are run when the test says so."""

    def __init__(self, dag: DAG, *, ran: DagRun | None = None) -> None:
        from airflow import settings

        assert settings.Session is not None
        self.dag = dag
        self.session = settings.Session()
        self.dag_run = _started(dag, self.session) if ran is None else ran

    def instance(self, task_id: str, map_index: int = -1) -> TaskInstance:
        """The task instance as the database has it."""
        self.session.expire_all()
        found = self.dag_run.get_task_instance(task_id, session=self.session, map_index=map_index)
        assert found is not None
        return found

    def clear(self, task_id: str) -> None:
        """Clear a task as a person does."""
        from airflow.models.taskinstance import clear_task_instances

        clear_task_instances([self.instance(task_id)], self.session)
        self.session.commit()

    def attempt(
        self,
        task_id: str,
        *,
        map_index: int = -1,
        keeps_kwargs: bool = True,
        dies_waiting: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Result:
        """Run the next try of a task to its end, its triggers in line.

        :param keeps_kwargs: False: the arguments of ``defer(kwargs=)`` are dropped, as ``airflow dags test`` does.
        :param dies_waiting: True: the try is lost as soon as it is deferred; its trigger never fires.
        :param meanwhile: what happens elsewhere when the task has been deferred, before its trigger starts.
        """
        from airflow.sdk.execution_time.supervisor import run_task_in_process
        from airflow.sdk.serde import serialize

        started = self.instance(task_id, map_index)
        self._update(started, try_number=started.try_number + 1, next_method=None, next_kwargs=None)
        deferrals: list[Deferral] = []
        while True:
            ti = self.instance(task_id, map_index)
            self._update(ti, state="queued")
            ours = _for_the_runner(ti)
            done = run_task_in_process(ti=ours, task=self.dag.task_dict[task_id])
            state = "" if done.ti.state is None else str(done.ti.state.value)
            message: Any = done.msg
            if state != "deferred" or dies_waiting:
                return Result(state, done.error, deferrals)
            meanwhile()
            deferral = _fire(message, ours)
            deferrals.append(deferral)
            kept = deferral.next_kwargs if keeps_kwargs else {}
            self._update(ti, next_method=message.next_method, next_kwargs={**kept, "event": serialize(deferral.event)})

    def _update(self, ti: TaskInstance, **values: Any) -> None:
        from airflow.models.taskinstance import TaskInstance as Model

        self.session.execute(update(Model).where(Model.id == ti.id).values(**values))
        self.session.commit()

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task pushed, as a task downstream reads it."""
        from airflow.models.xcom import XComModel
        from airflow.sdk.serde import deserialize

        self.session.expire_all()
        query = XComModel.get_many(
            run_id=self.dag_run.run_id, dag_ids=self.dag.dag_id, task_ids=task_id, key=key, map_indexes=map_index
        )
        found = self.session.scalars(query).first()
        return None if found is None else deserialize(XComModel.deserialize_value(found))

    def rendered(self, task_id: str) -> dict[str, Any]:
        """The rendered fields that Airflow keeps and shows."""
        from airflow.models.renderedtifields import RenderedTaskInstanceFields

        fields = RenderedTaskInstanceFields.get_templated_fields(self.instance(task_id), session=self.session)
        return dict(fields or {})


def dags_test(dag: DAG) -> Run:
    """Run a whole Dag as ``airflow dags test`` does, mapped tasks and all."""
    stored(dag)
    return Run(dag, ran=dag.test())


def _started(dag: DAG, session: Session) -> DagRun:
    from airflow.models.dagrun import get_or_create_dagrun
    from airflow.utils.types import DagRunTriggeredByType

    scheduled = stored(dag)
    now = datetime.now(tz=timezone.utc)
    # Every run has a time of its own, so that no two share a name.
    moment = now + timedelta(microseconds=next(_NUMBERS))
    dag_run = get_or_create_dagrun(
        dag=scheduled,
        start_date=now,
        logical_date=moment,
        data_interval=(moment, moment),
        run_after=moment,
        run_id=f"manual__{moment.isoformat()}",
        session=session,
        conf=None,
        triggered_by=DagRunTriggeredByType.TEST,
        triggering_user_name="tests",
    )
    dag_run.dag = scheduled
    session.commit()
    return dag_run


def stored(dag: DAG) -> Any:
    """Write a Dag into the database, as parsing its file would, and give it as the scheduler sees it."""
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
    from airflow.utils.session import create_session

    with create_session() as session:
        if session.get(DagBundleModel, _BUNDLE) is None:
            session.add(DagBundleModel(name=_BUNDLE))
            session.flush()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db(_BUNDLE, None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name=_BUNDLE, session=session)
    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))


def _for_the_runner(ti: TaskInstance) -> Any:
    from airflow.sdk.api.datamodels._generated import TaskInstance as RunnerTaskInstance

    return RunnerTaskInstance(
        id=UUID(str(ti.id)),
        task_id=ti.task_id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        try_number=ti.try_number,
        map_index=ti.map_index,
        dag_version_id=UUID(str(ti.dag_version_id)),
    )


def _fire(message: Any, ti: Any) -> Deferral:
    """Run the trigger that a task was deferred to, in a loop of its own, until it fires."""
    from airflow.sdk._shared.module_loading import import_string
    from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor
    from airflow.sdk.serde import deserialize

    kwargs: Any = deserialize(message.trigger_kwargs)
    trigger = import_string(message.classpath)(**kwargs)
    event = InProcessTestSupervisor.run_trigger_in_process(trigger=trigger, ti=ti)  # type: ignore[no-untyped-call]
    return Deferral(message.classpath, kwargs, dict(message.next_kwargs or {}), event.payload)
