"""The page's queries to Airflow's database.

A batch is a task instance that has pushed an overview, so Airflow's index over XCom keys finds all of them without
reading any other task. From there, primary and unique keys lead to the task instance, its run and its progress.
``return_value``, which may hold responses, is never read.

Lists and sums begin with a scan of a few short values of each batch, which Python interprets. So one query serves every
dialect and every filter, and foreign values under our XCom key do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import DateTime, String, and_, cast, func, null, or_, select, true, tuple_, type_coerce

from airflow_provider_gemini_batch.batch.overview import OVERVIEW_KEY
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, FromClause, Row, Select
    from sqlalchemy.orm import Session

    from airflow_provider_gemini_batch.ui.addresses import Place

#: States in which Airflow may still do something with a task.
ACTIVE: Final = ("running", "deferred", "queued", "scheduled", "restarting", "up_for_retry", "up_for_reschedule")
#: A list or a sum reads at most so many of the newest batches, and as many that a search finds. This bounds memory, and
#: is far more than pages need.
MOST_SCANNED: Final = 50_000
#: Fewer objects than start a garbage collection, which takes long in an API server.
_AT_ONCE: Final = 100

_ti = TaskInstance.__table__
_run = DagRun.__table__
_overview = XComModel.__table__.alias("overview")
_progress = XComModel.__table__.alias("progress")


def _same(table: FromClause, *columns: str) -> ColumnElement[bool]:
    return and_(*(table.c[name] == _overview.c[name] for name in columns))


# An overview with its task instance, and with its progress, each by a unique key.
_WITH_TASK: Final = _overview.join(_ti, _same(_ti, "dag_id", "task_id", "run_id", "map_index"))
_ITS_PROGRESS: Final = and_(_same(_progress, "dag_run_id", "task_id", "map_index"), _progress.c.key == PROGRESS_KEY)

_KEY = (_overview.c.dag_run_id, _overview.c.task_id, _overview.c.map_index)
_SCALARS: Final = ("phase", "model", "total", "usd", "is_upper_bound", "is_open_bound")
_TIMES: Final = ("submitted_at", "started_at")
_TOKENS: Final = ("input_tokens", "output_tokens", "thinking_tokens")
_PROGRESS_SCALARS: Final = ("state", "total", "done", "started_at")


# A task writes its overview when it begins and at each step, and a job runs for four days at most. So a batch that is
# active, or was ended by hand, in a list's period has written its overview at most this long before the period.
_LONGEST_SILENCE: Final = timedelta(days=7)


@dataclass(frozen=True)
class Scan:
    """Which batches to read: those of these Dags that began or ended after ``since``, or are still active.

    Rows whose run, task or jobs have ``text`` in their names are ``found``. ``costs``: also read the tokens of batches
    that ended after ``since``, and no others; their times in the queue are not read.
    """

    dag_ids: Collection[str]
    since: datetime | None = None
    text: str = ""
    costs: bool = False


def scan(session: Session, wanted: Scan) -> Iterator[Row[Any]]:
    """Yield key, states and short values of each batch, the newest first; ``found`` ones however old they are.

    They are yielded as they are read, since garbage collection takes long where thousands are kept.
    """
    query = _scan(wanted)
    if session.get_bind().dialect.name == "sqlite":
        # It stores NaN and Infinity as JSON, which its functions then refuse for the whole query.
        query = query.where(func.json_valid(_overview.c.value))
        if not wanted.costs:
            query = query.where(or_(_progress.c.key.is_(None), func.json_valid(_progress.c.value)))
    count, read = 0, set()
    for row in _each(session, query):
        count += 1
        if wanted.text and row.found:
            read.add(tuple(row[: len(_KEY)]))
        yield row
    if wanted.text and count >= MOST_SCANNED:
        older = _each(session, query.where(_finds(wanted.text)))
        yield from (row for row in older if tuple(row[: len(_KEY)]) not in read)


def _each(session: Session, query: Select[Any]) -> Iterator[Row[Any]]:
    for rows in session.execute(query).partitions(_AT_ONCE):
        yield from rows


def _scan(wanted: Scan) -> Select[Any]:
    # Airflow's own type of dates converts each of them in Python. Some dialects return them without a zone: UTC.
    query: Select[Any] = select(
        *_KEY,
        _ti.c.dag_id,
        _ti.c.state,
        *(type_coerce(_ti.c[name], DateTime(timezone=True)).label(name) for name in ("start_date", "end_date")),
        *(_overview.c.value[name].as_string().label(name) for name in _SCALARS + (_TOKENS if wanted.costs else _TIMES)),
        *(
            (null() if wanted.costs else _progress.c.value[name].as_string()).label(f"progress_{name}")
            for name in _PROGRESS_SCALARS
        ),
        _finds(wanted.text).label("found"),
    )
    # Progress is long, and needed for active batches alone.
    ongoing = and_(_ti.c.state.in_(ACTIVE), _ITS_PROGRESS)
    tables = _WITH_TASK if wanted.costs else _WITH_TASK.outerjoin(_progress, ongoing)
    query = query.select_from(tables).where(
        _overview.c.key == OVERVIEW_KEY,
        _overview.c.dag_id.in_(wanted.dag_ids),
        # A condition on both tables, or PostgreSQL may read the task instances of all Dags.
        _ti.c.dag_id.in_(wanted.dag_ids),
    )
    if wanted.costs:
        query = query.where(_ti.c.state.not_in(ACTIVE))
        if wanted.since is not None:
            query = query.where(_ti.c.end_date >= wanted.since)
    elif wanted.since is not None:
        recent = or_(_ti.c.start_date >= wanted.since, _ti.c.end_date >= wanted.since)
        query = query.where(or_(_ti.c.state.in_(ACTIVE), recent))
        query = query.where(_overview.c.timestamp >= wanted.since - _LONGEST_SILENCE)
    newest = func.coalesce(_ti.c.start_date, _overview.c.timestamp).desc()
    return query.order_by(newest, *_KEY).limit(MOST_SCANNED)


def _finds(text: str) -> ColumnElement[bool]:
    places = (_ti.c.run_id, _ti.c.task_id, cast(_overview.c.value["jobs"], String))
    return or_(*(place.contains(text, autoescape=True) for place in places)) if text else true()


def load(session: Session, keys: Sequence[tuple[int, str, int]]) -> Sequence[Row[Any]]:
    """Return everything that is shown of the batches with these keys (run, task, map index), in their order."""
    if not keys:
        return []
    found = session.execute(_whole().where(_overview.c.key == OVERVIEW_KEY, tuple_(*_KEY).in_(keys))).all()
    by_key = {(row.dag_run_id, row.task_id, row.map_index): row for row in found}
    return [by_key[key] for key in keys if key in by_key]


def find(session: Session, place: Place) -> Row[Any] | None:
    """Return one batch; None where the task instance has pushed no overview."""
    query = _whole().where(
        _overview.c.key == OVERVIEW_KEY,
        _overview.c.dag_id == place.dag_id,
        _overview.c.run_id == place.run_id,
        _overview.c.task_id == place.task_id,
        _overview.c.map_index == place.map_index,
    )
    return session.execute(query).one_or_none()


def count_mapped(session: Session, place: Place) -> int:
    """Return how many instances of a task in one run are batches."""
    query = select(func.count()).where(
        _overview.c.key == OVERVIEW_KEY,
        _overview.c.dag_id == place.dag_id,
        _overview.c.task_id == place.task_id,
        _overview.c.run_id == place.run_id,
    )
    return session.scalar(query) or 0


def dags(session: Session) -> list[str]:
    """Return the ids of the Dags that have batches."""
    return sorted(session.scalars(select(_overview.c.dag_id).where(_overview.c.key == OVERVIEW_KEY).distinct()))


def _whole() -> Select[Any]:
    query = select(
        *_KEY,
        _ti.c.dag_id,
        _ti.c.run_id,
        _ti.c.state,
        _ti.c.try_number,
        _ti.c.max_tries,
        _ti.c.start_date,
        _ti.c.end_date,
        _ti.c.rendered_map_index,
        _run.c.logical_date,
        _run.c.run_after,
        _overview.c.value.label("overview"),
        _progress.c.value.label("progress"),
    )
    tables = _WITH_TASK.outerjoin(_progress, _ITS_PROGRESS)
    return query.select_from(tables.join(_run, _run.c.id == _overview.c.dag_run_id))
