"""What happens to the rows of a Vertex job: import from objects or a table, answers, export.

A job may read what an earlier job wrote: rows that have an answer are passed on as they are and cost nothing, the
others are done. An input counts as such when it lies in a folder, or is a table, that a job of this emulator wrote.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.jobs import JobFailure
from airflow_provider_gemini_batch.emulator.rows import Tally, shuffled
from airflow_provider_gemini_batch.emulator.storage import NoBucket, NoObject, Storage, split_uri
from airflow_provider_gemini_batch.emulator.table_store import table_name
from airflow_provider_gemini_batch.emulator.vertex_output import write_folder
from airflow_provider_gemini_batch.emulator.vertex_rows import (
    Importer,
    ImportTrap,
    answer_vertex_lines,
    is_legacy,
    lines_of,
    to_table_row,
)
from airflow_provider_gemini_batch.emulator.wire import micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator.jobs import Job
    from airflow_provider_gemini_batch.emulator.rows import AnswerPlan
    from airflow_provider_gemini_batch.emulator.table_store import TableStore
    from airflow_provider_gemini_batch.emulator.world import World

#: Column types that a table with requests must not have.
_REFUSED_TYPES = ("ARRAY", "STRUCT", "RECORD", "RANGE", "DATETIME", "GEOGRAPHY")


class VertexWork:
    """Answers jobs; an engine calls it in a thread of its own."""

    def __init__(self, world: World, tables: TableStore) -> None:
        self.world = world
        self.tables = tables

    def __call__(self, job: Job, plan: AnswerPlan) -> tuple[Tally | None, dict[str, Any]]:
        """Answer a job and return its counts (None when unknown) and its ``outputInfo``; JobFailure when it fails."""
        info = self._info(job)
        folder = info.get("gcsOutputDirectory")
        if not self._is_readable(job, plan):
            return (None if folder else self._counted(plan)), info
        spooled = f"spool-{job.id}"
        try:
            return self._answer(job, plan, info, spooled), info
        except NoBucket as error:
            raise JobFailure(9, f"The Cloud Storage bucket does not exist: {error}") from error
        except (NoObject, ImportTrap) as error:
            raise JobFailure(3, f"Failed to import data. Please check the input file: {error}") from error
        finally:
            self.world.store.path(spooled).unlink(missing_ok=True)

    def count(self, job: Job) -> int | None:
        """Return how many rows a job's input has, None when it cannot be seen."""
        source = job.spec["inputConfig"]
        if "bigquerySource" in source:
            name = table_name(source["bigquerySource"]["inputUri"])
            return self.tables.count(name) if self.tables.columns(name) is not None else None
        if "gcsSource" not in source or self.world.settings.storage_endpoint is None:
            return None
        with Storage(self.world.settings.storage_endpoint) as storage:
            items = [item for uri in source["gcsSource"]["uris"] for item in storage.expand(uri)]
            return sum(bool(line.strip()) for item in items for line in lines_of(storage.read(item)))

    def _info(self, job: Job) -> dict[str, str]:
        """Return the ``outputInfo`` of a job."""
        config, now = job.spec["outputConfig"], self.world.now()
        if "bigqueryDestination" in config:
            return _table_info(config["bigqueryDestination"]["outputUri"], now)
        if "gcsDestination" in config:
            prefix = config["gcsDestination"]["outputUriPrefix"].rstrip("/")
            return {"gcsOutputDirectory": f"{prefix}/prediction-model-{micros(job.started or now)}"}
        project, location = job.space.split("/")
        dataset = job.number + 5_000_000
        return {"vertexMultimodalDatasetName": f"projects/{project}/locations/{location}/datasets/{dataset}"}

    def _is_readable(self, job: Job, plan: AnswerPlan) -> bool:
        """Return whether the emulator can reach both ends of a job; else it only pretends to have done it."""
        source, sink = job.spec["inputConfig"], job.spec["outputConfig"]
        if "vertexMultimodalDatasetSource" in source or "vertexMultimodalDatasetDestination" in sink:
            return False
        if self.world.settings.storage_endpoint is None and ("gcsSource" in source or "gcsDestination" in sink):
            return False
        if "bigquerySource" in source and self.tables.columns(table_name(source["bigquerySource"]["inputUri"])) is None:
            if "gcsDestination" in sink:
                raise JobFailure(3, "Failed to import data. The BigQuery table was not found.")
            return False
        return not (plan.embeds and not is_legacy(job.model) and "gcsSource" not in source)

    def _counted(self, plan: AnswerPlan) -> Tally:
        rows = int(self.world.faults.peek("bigquery_rows", 3))
        rows = rows if plan.share is None else int(rows * plan.share)
        every = int(plan.faults.get("row_error_every") or 0)
        failed = rows // every if every else 0
        return Tally(succeeded=rows - failed, failed=failed)

    def _answer(self, job: Job, plan: AnswerPlan, info: dict[str, str], spooled: str) -> Tally:
        importer = Importer(legacy=is_legacy(job.model), from_table="bigquerySource" in job.spec["inputConfig"])
        folder = info.get("gcsOutputDirectory")
        with Storage(self.world.settings.storage_endpoint or "") as storage:
            if folder:
                storage.check_bucket(split_uri(folder)[0])
            with self.world.store.open(spooled, "wb") as sink:
                source = self._from_table if importer.from_table else self._from_objects
                sink.writelines(line + b"\n" for line in source(job, storage, importer))
            job.rows = importer.rows
            if not job.rows:
                raise ImportTrap("no rows")
            if plan.share is not None:
                plan.limit = int((importer.rows - importer.done) * plan.share)
            if self.world.settings.storage_endpoint:
                plan.look_up = lru_cache(maxsize=1024)(storage.sample)
            tally = Tally()
            stamp = datetime.fromtimestamp(self.world.now(), tz=timezone.utc).isoformat(timespec="milliseconds")
            with self.world.store.path(spooled).open("rb", buffering=1 << 20) as lines:
                answers = answer_vertex_lines(lines, plan, tally, stamp, imported=not importer.from_table)
                answers = shuffled(answers, job.id)
                if folder:
                    write_folder(storage, folder, answers, importer.rows, plan.faults.get("output_layout"))
                    self._remember(folder)
                else:
                    self._into_table(importer, answers, info, plan)
        return tally

    def _remember(self, output: str) -> None:
        with self.world.lock:
            self.world.outputs.add(output)
            self.world.store.save("output", output, {})

    def _is_output(self, name: str) -> bool:
        if self.world.faults.peek("no_resume"):
            return False
        return any(name == output or name.startswith(f"{output}/") for output in self.world.outputs)

    def _from_objects(self, job: Job, storage: Storage, importer: Importer) -> Iterator[bytes]:
        for uri in job.spec["inputConfig"]["gcsSource"]["uris"]:
            for item in storage.expand(uri):
                yield from importer.take(lines_of(storage.read(item)), resumes=self._is_output(item))

    def _from_table(self, job: Job, _: Storage, importer: Importer) -> Iterator[bytes]:
        name = table_name(job.spec["inputConfig"]["bigquerySource"]["inputUri"])
        columns = self.tables.columns(name) or {}
        for column, kind in columns.items():
            if kind.startswith(_REFUSED_TYPES):
                raise ImportTrap(f"column {column} has the type {kind}, which is not supported")
        importer.columns = columns
        wanted = "content" if is_legacy(job.model) else "request"
        if wanted not in columns:
            raise ImportTrap(f"the table has no column {wanted}")
        lines = (json.dumps(_parsed(row)).encode() for row in self.tables.rows(name))
        yield from importer.take(lines, resumes=self._is_output(name))

    def _into_table(
        self, importer: Importer, answered: Iterator[bytes], info: dict[str, str], plan: AnswerPlan
    ) -> None:
        name = f"{table_name(info['bigqueryOutputDataset'])}.{info['bigqueryOutputTable'].rpartition('.')[2]}"
        legacy = is_legacy(plan.model)
        columns = dict(importer.columns) or {"request": "JSON", **dict.fromkeys(sorted(importer.beside), "STRING")}
        kind = str(plan.faults.get("predictions_type") or "STRING")
        columns |= {"predictions": kind} if legacy else {"response": "JSON", "processed_time": "TIMESTAMP"}
        columns["status"] = "STRING"
        rows = [to_table_row(json.loads(line), columns) for line in answered]
        self.tables.put(name, columns, rows)
        self._remember(name)


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a table's row with its JSON columns as values, whether they hold JSON or text."""
    parsed = {column: value for column, value in row.items() if value is not None}
    for column in ("request", "response", "predictions"):
        if isinstance(parsed.get(column), str):
            try:
                parsed[column] = json.loads(parsed[column])
            except ValueError as error:
                raise ImportTrap(f"a row has no JSON in the column {column}") from error
    return parsed


def _table_info(uri: str, now: float) -> dict[str, str]:
    names = uri.removeprefix("bq://").split(".")
    stamp = datetime.fromtimestamp(now, tz=timezone.utc).strftime("%Y_%m_%dT%H_%M_%S_%f")
    dataset = names[1] if len(names) > 1 else f"prediction_{stamp}"
    table = names[2] if len(names) > 2 else f"predictions_{stamp}"  # noqa: PLR2004 - project, dataset, table
    return {"bigqueryOutputDataset": f"bq://{names[0]}.{dataset}", "bigqueryOutputTable": table}
