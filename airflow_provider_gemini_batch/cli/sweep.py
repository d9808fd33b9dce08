"""``gemini-batch sweep``: jobs and uploads that tasks of this Airflow left behind.

A job's tag holds a hash of its task instance. The task instances in Airflow's database are hashed in the same way, and
tasks have written down the tags of their jobs, so a tag leads to a task and its state. A tag without a task belongs to
a deleted run, or to another Airflow with the same key: such jobs are touched only with ``--unknown``. A running job of
a successful task is never touched: with ``wait_for_completion=False`` it is meant to run on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, NotFound
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.api.paging import pages_of
from airflow_provider_gemini_batch.batch.overview import OVERVIEW_KEY
from airflow_provider_gemini_batch.batch.tag import Tag, TaskIdentity, tag_of
from airflow_provider_gemini_batch.cli.printing import Printer
from airflow_provider_gemini_batch.cli.session import DONE, REFUSED, open_client
from airflow_provider_gemini_batch.runtime.deployment import deployment

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.api.client import BatchClient

# A task in any other state may still want its job.
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_COLUMNS = ("what", "name", "task", "task_state", "result")


class _Owner(NamedTuple):
    """The task instance behind a tag."""

    name: str
    state: str

    @property
    def is_over(self) -> bool:
        return self.state in _OVER


class _Leftover(NamedTuple):
    what: str
    name: str
    owner: _Owner | None


def sweep(arguments: Namespace) -> int:
    """List what is left behind; with ``--yes`` cancel jobs and delete uploads."""
    owners = _owners()
    code = DONE
    rows: list[dict[str, Any]] = []
    with open_client(arguments) as client:
        for leftover in _leftovers(client, owners):
            result = _reason_to_leave(leftover, unknown=arguments.unknown)
            if result is None:
                result = _remove(client, leftover) if arguments.yes else f"would be {_verb(leftover)}"
                code = REFUSED if result.startswith("failed") else code
            rows.append(
                {
                    "what": leftover.what,
                    "name": leftover.name,
                    "task": leftover.owner.name if leftover.owner else "unknown",
                    "task_state": leftover.owner.state if leftover.owner else None,
                    "result": result,
                }
            )
    Printer(arguments.output).rows(_COLUMNS, rows)
    return code


def _reason_to_leave(leftover: _Leftover, *, unknown: bool) -> str | None:
    if leftover.owner is None:
        return None if unknown else "left alone: add --unknown"
    if leftover.what == "job" and leftover.owner.state == "success":
        return "left alone: its task succeeded without waiting for it"
    return None


def _owners() -> dict[str, _Owner]:
    """Return task instances by their hash: all of them, since operators can be subclassed and decorated."""
    try:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:  # pragma: no cover  (a task-sdk without Airflow's core)
        raise ConfigurationError("sweep reads Airflow's database: run it where Airflow's core is installed") from error
    found: dict[str, _Owner] = {}
    place = deployment()
    columns = (
        TaskInstance.dag_id,
        TaskInstance.task_id,
        TaskInstance.run_id,
        TaskInstance.map_index,
        TaskInstance.state,
    )
    try:
        with create_session() as session:
            part_keys, noted = _part_keys(session), _noted(session)
            for dag_id, task_id, run_id, map_index, state in session.execute(select(*columns)):
                suffix = "" if map_index < 0 else f"[{map_index}]"
                owner = _Owner(f"{dag_id}.{task_id}{suffix} {run_id}", str(getattr(state, "value", state)))
                parts = [map_index, *part_keys.get((dag_id, task_id, run_id, map_index), ())]
                found.update((TaskIdentity(place, dag_id, task_id, run_id, part).digest, owner) for part in parts)
                if (identity := noted.get((dag_id, task_id, run_id, map_index))) is not None:
                    found[identity] = owner
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"Airflow's database cannot be read ({type(error).__name__}): check [database] sql_alchemy_conn"
        ) from error
    return found


def _part_keys(session: Any) -> dict[tuple[str, str, str, int], list[str]]:
    """Return the keys of dataset parts by task instance: the tags of their jobs use the key, not the map index."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields
    from sqlalchemy import select

    columns = (Fields.dag_id, Fields.task_id, Fields.run_id, Fields.map_index, Fields.rendered_fields)
    found: dict[tuple[str, str, str, int], list[str]] = {}
    for dag_id, task_id, run_id, map_index, rendered in session.execute(select(*columns)):
        key = (rendered or {}).get("part_key")
        if isinstance(key, str) and key:
            found[dag_id, task_id, run_id, map_index] = [key]
    return found


def _noted(session: Any) -> dict[tuple[str, str, str, int], str]:
    """Return what is in the tags of jobs by task instance: workers may have had other settings than this command."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    columns = (XComModel.dag_id, XComModel.task_id, XComModel.run_id, XComModel.map_index, XComModel.value)
    found: dict[tuple[str, str, str, int], str] = {}
    for dag_id, task_id, run_id, map_index, value in session.execute(
        select(*columns).where(XComModel.key == OVERVIEW_KEY)
    ):
        tag = Tag.parse(str(value.get("display_name"))) if isinstance(value, dict) else None
        if tag is not None:
            found[dag_id, task_id, run_id, map_index] = tag.identity
    return found


def _leftovers(client: BatchClient, owners: dict[str, _Owner]) -> Iterator[_Leftover]:
    busy: set[str] = set()
    for job in client.list_all(brief=True):
        tag = tag_of(job)
        if tag is None or job.is_done:
            continue
        busy.add(tag.identity)
        owner = owners.get(tag.identity)
        if owner is None or owner.is_over:
            yield _Leftover("job", job.name, owner)
    if client.service is Service.GEMINI:
        yield from _uploads(client, owners, busy)


def _uploads(client: BatchClient, owners: dict[str, _Owner], busy: set[str]) -> Iterator[_Leftover]:
    """Yield uploads of rows whose task is over and has no job that could still read them."""
    for page in pages_of(lambda token: client.list_files(page_token=token)):
        for file in page.files:
            tag = Tag.parse(file.display_name or "")
            owner = None if tag is None else owners.get(tag.identity)
            if tag is not None and tag.identity not in busy and (owner is None or owner.is_over):
                yield _Leftover("upload", file.name, owner)


def _verb(leftover: _Leftover) -> str:
    return "cancelled" if leftover.what == "job" else "deleted"


def _remove(client: BatchClient, leftover: _Leftover) -> str:
    try:
        (client.cancel if leftover.what == "job" else client.delete_file)(leftover.name)
    except NotFound:
        return "gone already"
    except GeminiBatchError as error:
        return f"failed: {error}"
    return _verb(leftover)
