"""Rows that the author hands over: read, checked and fingerprinted once, sent, and landed with their input record."""

from __future__ import annotations

import logging
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError, ResultsGone
from airflow_provider_gemini_batch.api.legacy import is_legacy
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.batch.ports import Landing, Plan
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.batch.turns import KEPT_AHEAD
from airflow_provider_gemini_batch.batch.verdict import Limits
from airflow_provider_gemini_batch.rows.cost import Cost, estimated_cost, refuse_above
from airflow_provider_gemini_batch.rows.landing import LandingSpec, ResponseSource, land
from airflow_provider_gemini_batch.runtime.best_effort import best_effort
from airflow_provider_gemini_batch.runtime.legacy_keys import LegacyKeyMatcher
from airflow_provider_gemini_batch.runtime.log_lines import input_line
from airflow_provider_gemini_batch.runtime.outputs import NullSink
from airflow_provider_gemini_batch.runtime.task_work import TaskWork, landing_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.rows.delivery import Origin
    from airflow_provider_gemini_batch.rows.layout import Layout, ShardFile
    from airflow_provider_gemini_batch.rows.schema import OutputSchema
    from airflow_provider_gemini_batch.rows.stage import Staged
    from airflow_provider_gemini_batch.runtime.outputs import Output
    from airflow_provider_gemini_batch.runtime.task_input import TaskInput
    from airflow_provider_gemini_batch.runtime.task_setup import TaskSetup
    from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader

log = logging.getLogger(__name__)


class OwnRows(TaskWork):
    """The rows of a run, if the author hands them over."""

    def __init__(
        self,
        setup: TaskSetup,
        output: Output,
        rows: TaskInput,
        *,
        schema: OutputSchema | None,
        media: AttachmentUploader | None,
    ) -> None:
        """Read nothing yet.

        :param schema: what responses must fit.
        :param media: uploads the files that go with rows.
        """
        super().__init__(setup, output)
        self._rows = rows
        self._schema = schema
        self._media = media
        self._keyless: LegacyKeyMatcher | None = None
        self._read_before: Staged | None = None
        self.supply = self

    # -- reading

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:
        """Return the plan: read the input the first time, and later, in any process, go by the note."""
        if note:
            try:
                return self._recall(note)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("The note on the input cannot be read (%r): the input is read again.", error)
        if again and not self._rows.can_be_read_again:
            return self.forget_input()
        staged = self._read_before or self._rows.read(again=again)
        self._read_before = None
        self._keyless = None
        if not again:
            self._check_media(staged)
            self._check_turns(len(staged.layout.shards))
        limit, layout, cost = self._arguments.max_cost_usd, staged.layout, None
        if limit is not None and not again:
            cost = self._estimated_cost(staged)
            refuse_above(cost, limit)
        else:
            with best_effort("the estimate"):
                cost = self._estimated_cost(staged)
        tokens = staged.estimated_input_tokens
        log.info("%s", input_line(layout.rows, len(layout.shards), tokens, cost, None if again else limit))
        return self._planned(layout, warnings=staged.warnings)

    def _check_media(self, staged: Staged) -> None:
        """Refuse requests for pictures or sound if there is no place to write them to."""
        kind = staged.expected.response_modality
        if kind is not None and self._arguments.wait_for_completion and not self.output.keeps_media:
            raise ConfigurationError(
                f"responses will hold {kind} (by the model's name or responseModalities), and there is no place to "
                "write them to: give media_path, or output_path, beside which a folder is made for it; nothing was sent"
            )

    def _check_turns(self, jobs: int) -> None:
        """Refuse jobs that are created after a wait if their rows will be gone by then."""
        own, of_connection = self._arguments.max_active_jobs, self._access.settings.max_active_jobs
        waits = (own is not None and jobs > own) or (of_connection is not None and jobs > KEPT_AHEAD)
        if waits and not self._rows.can_be_read_again and not self._arguments.dry_run:
            raise ConfigurationError(
                f"the rows become {jobs} jobs, of which some are created after others (max_active_jobs), and those of "
                "a callable have no place to be kept until then: give staging_path or output_path; nothing was sent"
            )

    def whole_already(self) -> Landing | None:
        """Return what another run landed of this very input, if few enough of its rows failed; else None."""
        self._read_before = self._rows.read(again=False)
        record = self._rows.record()
        manifest = self.output.whole(self._origin(()), iter(()) if record is None else record.carried())
        if manifest is None:
            return None
        landing = self._landed_already(manifest)
        limits = Limits(self._arguments.max_failed_rows, self._arguments.max_failure_rate)
        return landing if limits.exceeded_by(landing) is None else None

    def _recall(self, note: Mapping[str, Any]) -> Plan:
        lacking = self._rows.recall(note)
        layout = self._known()
        if lacking and self.output.is_of_this_task(layout.fingerprint):
            lacking = ""  # an earlier try has landed its rows, and died before it could record that
        return self._planned(layout, incomplete=lacking)

    def _planned(self, layout: Layout, *, warnings: tuple[str, ...] = (), incomplete: str = "") -> Plan:
        return Plan(
            layout.fingerprint,
            shards=len(layout.shards),
            can_resend=self._rows.can_be_read_again,
            warnings=warnings,
            incomplete=incomplete,
            outdated=self._rows.outdated,
            note=self._rows.note(),
        )

    def forget_input(self) -> Plan:
        """Return a plan for existing jobs alone: one row per response, in the order they come, nothing carried."""
        self._rows.forget()
        incomplete = "the input cannot be read, or has changed" if self._arguments.carry else ""
        return Plan(None, shards=1, can_resend=False, incomplete=incomplete)

    def estimate(self) -> dict[str, Any]:
        """Return how large the input is: rows, jobs, estimated input tokens and, where there are prices, the cost."""
        staged = self._rows.staged
        assert staged is not None  # noqa: S101  (planned in this process)
        return {
            "rows": staged.layout.rows,
            "jobs": len(staged.layout.shards),
            "estimated_input_tokens": staged.estimated_input_tokens,
            "estimated_cost": self._estimated_cost(staged).plain(),
            "fingerprint": staged.layout.fingerprint,
        }

    def _estimated_cost(self, staged: Staged) -> Cost:
        return estimated_cost(staged.expected, self._arguments.kind)

    def upload_attachments(self, lines: Path) -> None:
        """Upload or stage the files that go with the rows of one job."""
        if self._media is not None:
            with lines.open("rb") as handle:
                self._media.upload(handle)

    def shard(self, index: int) -> ShardFile:
        """Return the lines of one job."""
        return self._rows.shard(index)

    def subset(self, rows: Sequence[int], name: str) -> ShardFile:
        """Return the lines of some rows, as many as one job holds."""
        made = self._rows.subset(rows, self._folder / f"{name}.jsonl")
        if made.rows < len(rows):
            log.warning(
                "One job holds %d of the %d rows to be sent again; the others wait for a round after it.",
                made.rows,
                len(rows),
            )
        return made

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        """Return the counts, and which rows (of one shard or of all) lack a good response."""
        try:
            summary = land(self._sources(jobs), NullSink(), self._landing(bare=True), self._folder)
        except ResultsGone:
            return self._landed_before(jobs)
        found = landing_of(summary)
        if shard is None:
            return found
        mine = self._known().shards[shard].numbers()
        return Landing(
            total=len(mine),
            succeeded=found.succeeded,
            failed=found.failed,
            repairable=tuple(row for row in found.repairable if row in mine),
        )

    # -- landing

    @property
    def input_tokens(self) -> int:
        """About how many tokens the input has, also in a process that has not read it."""
        return int(self._rows.note().get("tokens") or 0)

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Write one result row for each row that was sent, and the manifest last."""
        names = [job.name for job in jobs]
        if self._rows.lacking and (manifest := self.output.existing_manifest(names)) is not None:
            return self._landed_already(manifest)
        landing = super().land(jobs)
        if self._rows.layout is not None:
            return landing
        # Nothing is known of the input but how many requests the service counted.
        stats = [job.completion_stats for job in jobs if (tag := tag_of(job)) is not None and not tag.round]
        sent = sum(one.total or 0 for one in stats if one is not None)
        return landing.with_missing(max(0, sent - landing.total))

    def close(self) -> None:
        """Close the input, if it is open."""
        self._rows.close()

    def remove_kept(self) -> None:
        """Remove what was kept; any earlier, and a try after a crash would call the author's function again."""
        self._rows.remove_kept()

    def _sources(self, jobs: Sequence[BatchJob]) -> list[ResponseSource]:
        """Return the responses of jobs; those of models without keys get them from the input record."""
        layout = self._rows.layout
        if layout is None or self._access.service is not Service.VERTEX or not is_legacy(self._arguments.model):
            return super()._sources(jobs)
        if self._keyless is None:
            record = self._rows.record()
            if record is None:
                raise InputError("nothing was kept of the input, so responses without keys cannot find their rows")
            self._keyless = LegacyKeyMatcher(
                layout,
                record,
                self._landing(bare=True),
                self._responses,
                folder=self._folder,
                limits=self._rows.limits,
            )
        return self._keyless.sources(jobs)

    def _known(self) -> Layout:
        if self._rows.layout is None:
            raise InputError("the input cannot be read any more, so its rows cannot be sent")
        return self._rows.layout

    def _rows_of(self, job: BatchJob) -> Sequence[int] | None:
        tag, layout = tag_of(job), self._rows.layout
        if tag is None or layout is None or tag.round or tag.submission or tag.shard >= len(layout.shards):
            return None
        return layout.shards[tag.shard].numbers()

    def _landing(self, *, bare: bool = False) -> LandingSpec:
        rows = self._rows
        record = rows.record() if self._arguments.carry and not bare and not rows.lacking else None
        return LandingSpec(
            kind=self._arguments.kind,
            rows=rows.layout.rows if rows.layout is not None else None,
            schema=self._schema,
            keep_response=self._arguments.keep_response and not bare,
            carried=None if record is None else record.carried,
            author_key=rows.author_key if not bare else None,
            dimensions=self._arguments.output_dimensionality,
        )

    def _content_hash(self) -> str:
        rows = self._rows
        content = rows.layout.content if rows.layout is not None else ""
        parts = [content, rows.carried_digest, self._arguments.keep_response]
        return sha256(to_json(parts)).hexdigest()[:12]

    def _origin(self, jobs: Sequence[BatchJob]) -> Origin:
        carried_types, layout = self._rows.carried_types, self._rows.layout
        if layout is None:  # nothing was read, and an empty part has the columns of the others
            carried_types = {
                name: (self._arguments.carry_types or {}).get(name, "str") for name in self._arguments.carry
            }
        return replace(
            super()._origin(jobs),
            fingerprint=layout.fingerprint if layout is not None else "",
            carried_types=carried_types,
            # Rows without their columns are not all that another run would find.
            content_hash="" if self._rows.lacking else self._content_hash(),
        )
