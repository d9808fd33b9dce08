"""Finds the folder or table with the responses of an ended Vertex job, even if the service does not name it."""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_gemini_batch.api.errors import UnknownOutput
from airflow_provider_gemini_batch.api.google.output_folder import choose, some
from airflow_provider_gemini_batch.api.wire import text_at, time_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.google.output_folder import StoredObject
    from airflow_provider_gemini_batch.api.google.storage import ObjectStore
    from airflow_provider_gemini_batch.api.models import BatchJob

log = logging.getLogger(__name__)

# "prediction-model-2025-12-26T20:29:02.829566Z"; older models write the time with underscores.
_FOLDER = re.compile(r"predictions?[-_].{0,200}?(\d{4})[-_](\d\d)[-_](\d\d)T(\d\d)[:_-](\d\d)[:_-](\d\d)")
# A folder's time is not exactly the job's creation or start, and may be a little outside of the job's times.
_BEFORE, _AFTER = timedelta(minutes=1), timedelta(minutes=10)
# Two names that end in so many equal characters do not do so by chance.
_NAME_END = 30
# bq://project.dataset.table
_TABLE_PARTS = 3


class LeftOutput(NamedTuple):
    """What a job left: a table, or the addresses of objects in the order of reading; both None: nothing.

    ``others`` are objects of other attempts than that of ``files``, which lacks some: they may hold what is not there.
    """

    files: tuple[str, ...] | None = None
    table: str | None = None
    others: tuple[str, ...] = ()


class VertexOutput:
    """Finds the output of jobs."""

    def __init__(self, storage: ObjectStore) -> None:
        self._storage = storage

    def of(self, job: BatchJob, raw: dict[str, Any]) -> LeftOutput:
        """Return what an ended job left; ``raw`` is the job as the service describes it.

        A job that ended early may have written nothing. So in a place that other jobs also write to, an output counts
        as this job's only if the service says so.

        :raises UnknownOutput: there is an output, but shards are missing, or the names are unknown.
        """
        folder = text_at(raw, "outputInfo", "gcsOutputDirectory")
        if folder is not None and folder.startswith("gs://"):
            return self._in_folder(job, folder)
        is_whole = job.state.ended_well
        if job.dest is not None and job.dest.bigquery_uri is not None:
            is_named = text_at(raw, "outputInfo", "bigqueryOutputTable") is not None
            return LeftOutput(table=_table(job, job.dest.bigquery_uri)) if is_named or is_whole else LeftOutput()
        prefix = text_at(raw, "outputConfig", "gcsDestination", "outputUriPrefix")
        if prefix is None or not (is_whole or _is_named_after(job, prefix)):
            return LeftOutput()
        return self._search(job, prefix)

    def _in_folder(self, job: BatchJob, folder: str) -> LeftOutput:
        """Return the objects in the folder that the service names; it may also name the parent or the object itself."""
        objects = self._storage.list_folder(folder)
        if not objects:
            return LeftOutput(files=(folder,)) if self._storage.exists(folder) else LeftOutput()
        is_above = not choose(objects).exists and any(_FOLDER.match(item.name) for item in objects)
        return self._search(job, folder) if is_above else self._read(job, folder, objects)

    def _search(self, job: BatchJob, prefix: str) -> LeftOutput:
        """Return the objects of a job whose folder the service does not name; other jobs may have folders beside it."""
        base = prefix.rstrip("/")
        found = self._storage.list_folder(base)
        folders = [item.name for item in found if item.name.endswith("/") and _FOLDER.match(item.name)]
        ours = [name for name in folders if _is_of_time(job, _time_in(name))]
        if len(ours) > 1:
            raise UnknownOutput(
                f"{job.name} does not say where its responses are, and several jobs wrote to {base} at that time: "
                f"{some(ours)}. They are kept there."
            )
        if ours:
            folder = f"{base}/{ours[0].rstrip('/')}"
            return self._read(job, folder, self._storage.list_folder(folder))
        objects = [item for item in found if not item.name.endswith("/") and _is_of_time(job, item.updated)]
        known = choose(objects)
        return self._read(job, base, objects) if known.exists else LeftOutput()

    @staticmethod
    def _read(job: BatchJob, folder: str, objects: Sequence[StoredObject]) -> LeftOutput:
        files = choose(objects)
        base = folder.rstrip("/")
        if not files.exists:
            if files.unknown:
                raise UnknownOutput(
                    f"{job.name} wrote to {base}, but under names that this version does not know: "
                    f"{some(files.unknown)}. They are kept there: update airflow-provider-gemini-batch, or tell its "
                    "maintainers these names, then clear the task; nothing is bought again."
                )
            return LeftOutput()
        # A job that ended early may lack some shards; those that exist have been paid for.
        if files.missing and job.state.ended_well:
            raise UnknownOutput(
                f"{job.name} ended well, but its responses in {base} are not whole: {some(files.missing)} is not "
                "there. If somebody has moved or removed objects, put them back and clear the task."
            )
        if files.unknown:
            log.warning("%s: objects with unknown names are passed over: %s", base, some(files.unknown))
        if files.doubles:
            log.warning("%s: objects that repeat others are passed over: %s", base, some(files.doubles))
        if files.others:
            log.warning("%s: no attempt is whole, so these are read too: %s", base, some(files.others))
        responses, others = ([f"{base}/{name}" for name in names] for names in (files.responses, files.others))
        return LeftOutput(files=tuple(responses), others=tuple(others))


def _is_named_after(job: BatchJob, prefix: str) -> bool:
    """Return whether a folder in the address shares the end of the job's name: then only this job writes there."""
    ends = [part[-_NAME_END:] for part in prefix.split("/") if len(part) >= _NAME_END]
    return any(job.display_name.endswith(end) for end in ends)


def _table(job: BatchJob, uri: str) -> str:
    if uri.removeprefix("bq://").replace(":", ".").count(".") + 1 < _TABLE_PARTS:
        raise UnknownOutput(
            f"{job.name} does not say which table of {uri} holds its responses. They are kept there; give a whole "
            "table (bq://project.dataset.table) as destination next time."
        )
    return uri


def _time_in(name: str) -> datetime | None:
    found = _FOLDER.match(name)
    return time_of("{}-{}-{}T{}:{}:{}Z".format(*found.groups())) if found else None


def _is_of_time(job: BatchJob, moment: datetime | None) -> bool:
    """Return whether the job may have written something at this moment."""
    if moment is None:
        return True
    if job.create_time is not None and moment < job.create_time - _BEFORE:
        return False
    return job.end_time is None or moment <= job.end_time + _AFTER
