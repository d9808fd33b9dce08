"""Answers of models that know no keys: they find their rows by content, among the rows of their own job alone.

Rows of the same content in two jobs would else be taken for each other, and one of them would seem to have no answer.
Which rows a job was asked for follows from its tag: a whole shard, or what the jobs before it had left undone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.legacy import keys_by_instance, with_keys
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.rows.landing import AnswerSource, land
from airflow_provider_gemini_batch.runtime.outputs import NullSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob, BatchResult
    from airflow_provider_gemini_batch.rows.landing import LandingSpec
    from airflow_provider_gemini_batch.rows.stage import Staged


class LegacyKeyMatcher:
    """Gives the answers of jobs with the keys of their rows."""

    def __init__(
        self, staged: Staged, landing: LandingSpec, answers: Callable[[BatchJob], Iterator[BatchResult]], folder: Path
    ) -> None:
        """Take the input and what opens a job's answers.

        :param landing: how to count what earlier jobs have done.
        :param folder: for passing files.
        """
        self._staged = staged
        self._landing = landing
        self._open = answers
        self._folder = folder
        self._rows: dict[str, Sequence[int]] = {}

    def sources(self, jobs: Sequence[BatchJob]) -> list[AnswerSource]:
        """Give the answers of jobs in the order of their use, in which each mends what is before it."""
        return [
            AnswerSource(lambda job=job, before=jobs[:index]: self._keyed(job, before))  # type: ignore[misc]
            for index, job in enumerate(jobs)
        ]

    def _keyed(self, job: BatchJob, before: Sequence[BatchJob]) -> Iterator[BatchResult]:
        rows = self._rows.get(job.name)
        if rows is None:
            rows = self._rows[job.name] = self._rows_of(job, before)
        return with_keys(self._open(job), keys_by_instance(self._staged.wire_lines(rows)))

    def _rows_of(self, job: BatchJob, before: Sequence[BatchJob]) -> Sequence[int]:
        tag = tag_of(job)
        if tag is None or tag.shard >= len(self._staged.shards):
            return range(self._staged.rows)
        shard = self._staged.shards[tag.shard].numbers()
        if tag.round:
            return self._left_by(before)
        same = [one for one in before if (its := tag_of(one)) is not None and (its.shard, its.round) == (tag.shard, 0)]
        return self._left_by(same, shard) if same else shard

    def _left_by(self, jobs: Sequence[BatchJob], among: Sequence[int] | None = None) -> Sequence[int]:
        """Tell which rows were sent again after these jobs, by the same count that decided it then."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            left = land(self.sources(jobs), NullSink(), self._landing, Path(folder)).repairable
        return self._staged.fitting([row for row in left if among is None or row in among])
