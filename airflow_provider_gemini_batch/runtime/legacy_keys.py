"""Responses of models without keys: they find their rows by content, among the rows of their own job alone.

Otherwise rows of the same content in two jobs would be confused, and one of them would seem to have no response. Which
rows a job was created for follows from its tag: a whole shard, or what the jobs before it had not finished. What a row
is recognised by was recorded when its job was created.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import from_json

from airflow_provider_gemini_batch.api.legacy import with_keys
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.rows.landing import ResponseSource, land
from airflow_provider_gemini_batch.rows.wire_keys import wrap_key
from airflow_provider_gemini_batch.runtime.outputs import NullSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob, BatchResult
    from airflow_provider_gemini_batch.rows.input_spec import JobLimits
    from airflow_provider_gemini_batch.rows.landing import LandingSpec
    from airflow_provider_gemini_batch.rows.layout import Layout
    from airflow_provider_gemini_batch.rows.record import InputRecord


@dataclass
class LegacyKeyMatcher:
    """Reads the responses of jobs, and gives each the key of its row.

    :param landing: how to count the rows that earlier jobs have done.
    :param responses: returns the responses of a job.
    :param folder: for temporary files.
    :param limits: how large one job may be.
    """

    layout: Layout
    record: InputRecord
    landing: LandingSpec
    responses: Callable[[BatchJob], Iterator[BatchResult]]
    folder: Path
    limits: JobLimits
    _rows: dict[str, Sequence[int]] = field(init=False, default_factory=dict)

    def sources(self, jobs: Sequence[BatchJob]) -> list[ResponseSource]:
        """Return the responses of jobs in the order of their use, in which each job repairs those before it."""
        return [
            ResponseSource(lambda job=job, before=jobs[:index]: self._keyed(job, before))  # type: ignore[misc]
            for index, job in enumerate(jobs)
        ]

    def _keyed(self, job: BatchJob, before: Sequence[BatchJob]) -> Iterator[BatchResult]:
        rows = self._rows.get(job.name)
        if rows is None:
            rows = self._rows[job.name] = self._rows_of(job, before)
        keys: dict[str, list[str]] = {}
        for row, line in self.record.of_rows(rows):
            instance, _ = from_json(line.instance)
            keys.setdefault(instance, []).append(wrap_key(row, from_json(line.key) if line.key else None))
        return with_keys(self.responses(job), keys)

    def _rows_of(self, job: BatchJob, before: Sequence[BatchJob]) -> Sequence[int]:
        tag = tag_of(job)
        if tag is None or tag.shard >= len(self.layout.shards):
            return range(self.layout.rows)
        shard = self.layout.shards[tag.shard].numbers()
        if tag.round:
            return self._left_by(before)
        same = [one for one in before if (its := tag_of(one)) is not None and (its.shard, its.round) == (tag.shard, 0)]
        return self._left_by(same, shard) if same else shard

    def _left_by(self, jobs: Sequence[BatchJob], among: Sequence[int] | None = None) -> Sequence[int]:
        """Return the rows that were sent again after these jobs, found in the same way as then."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            left = land(self.sources(jobs), NullSink(), self.landing, Path(folder)).repairable
        return self._fitting([row for row in left if among is None or row in among])

    def _fitting(self, rows: Sequence[int]) -> Sequence[int]:
        """Return the first of these rows, as many as one job holds."""
        size = 0
        for count, (_, line) in enumerate(self.record.of_rows(rows)):
            size += from_json(line.instance)[1]
            if size > self.limits.file_bytes or count == self.limits.rows:
                return rows[:count]
        return rows
