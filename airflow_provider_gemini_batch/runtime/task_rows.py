"""The rows of a task: from an operator's arguments to what is sent, from the answers to where the author wants them.

The other half of :mod:`.create_task`; here is what needs to know operators, files and ``rows`` at once.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError, ResultsGone
from airflow_provider_gemini_batch.api.legacy import is_legacy
from airflow_provider_gemini_batch.api.models import BatchJob, Service
from airflow_provider_gemini_batch.batch.ports import Landing, Plan
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.rows.cost import Cost, estimated_cost, refuse_above
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.landing import AnswerSource, LandingSpec, LandingSummary, land
from airflow_provider_gemini_batch.rows.stage import Shard, Staged, stage
from airflow_provider_gemini_batch.runtime.checks import check_places, check_settings
from airflow_provider_gemini_batch.runtime.legacy_keys import LegacyKeyMatcher
from airflow_provider_gemini_batch.runtime.outputs import NullSink, Output, SavedRows, lines_of
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchResult
    from airflow_provider_gemini_batch.batch.tag import TaskIdentity
    from airflow_provider_gemini_batch.rows.schema import OutputSchema
    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess

log = logging.getLogger(__name__)

_READ_BY = {
    "file_name": Service.GEMINI,
    "gcs_uri": Service.VERTEX,
    "bigquery_uri": Service.VERTEX,
}
_INSTEAD = {
    Service.GEMINI: "input_path, inlined_requests or file_name",
    Service.VERTEX: "gcs_uri, bigquery_uri, input_path or inlined_requests",
}
_OF_OUR_ROWS = (
    "prompt_template",
    "key_field",
    "carry",
    "media_field",
    "title_field",
    "output_schema",
    "repair_rounds",
    "max_rows_per_job",
    "max_bytes_per_job",
    "max_cost_usd",
)
_DEFAULTS = (
    "generation_config",
    "system_instruction",
    "request_defaults",
    "task_type",
    "output_dimensionality",
)


def make_work(
    arguments: BatchArguments, access: ServiceAccess, folder: Path, *, task: TaskIdentity, generation: int, anew: bool
) -> TaskWork:
    """Check the source against the service, and give the port that reads it.

    :param anew: no try of this task instance has run before.
    :raises ConfigurationError: the service cannot read this source, or an argument has no meaning for it.
    """
    service = access.service
    output = Output(
        arguments.output_path,
        arguments.output_conn_id,
        Paths.of(access),
        folder,
        task=task.digest,
        run=f"{task.dag_id} {task.run_id}",
    )
    output.check()
    staging = arguments.staging_path or access.settings.staging_path
    existing = {name: getattr(arguments, name) for name in _READ_BY if getattr(arguments, name) is not None}
    for name in existing:
        if _READ_BY[name] is not service:
            raise ConfigurationError(f"{name} cannot be read by {_named(service)}; give {_INSTEAD[service]}")
    check_settings(arguments, service)
    check_places(arguments, service, staging)
    for name, value in existing.items():
        for argument in (*_OF_OUR_ROWS, *_DEFAULTS):
            if getattr(arguments, argument):
                raise ConfigurationError(
                    f"{argument} has no effect on {name}, whose rows are sent as they are: "
                    "put it into the rows, or hand them over with input_path"
                )
        return ExistingSource({name: value}, arguments, access, folder, output)
    if arguments.destination is not None and arguments.destination.startswith("bq://"):
        raise ConfigurationError(
            "destination: answers to rows of your own are read back, which a table does not allow; give a gs:// folder "
            "or nothing, or hand the rows over with gcs_uri or bigquery_uri"
        )
    return OwnRows(
        _input_spec(arguments, access),
        arguments,
        access,
        folder,
        output,
        spool=_spool(arguments, Paths.of(access), staging, f"{task.digest}-{generation}", anew=anew),
    )


class TaskWork:
    """What both kinds of source share: the answers are read from jobs and landed at the output."""

    #: Source arguments of the create call, for input that lies at the service already.
    source: Mapping[str, Any] = {}
    #: Where the lines of our own rows come from.
    supply: Any = None
    #: Columns of the input that go into the output, and what they hold.
    _carried_types: Mapping[str, str] = {}

    def __init__(self, arguments: BatchArguments, access: ServiceAccess, folder: Path, output: Output) -> None:
        self._arguments = arguments
        self._access = access
        self._folder = folder
        self._output = output

    @property
    def _client(self) -> BatchClient:
        return self._access.client

    def was_delivered(self, job_name: str) -> bool | None:
        """Tell whether the output that lies there was made from this job; None without an output path."""
        return self._output.holds(job_name)

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:
        """Read, check and fingerprint the input."""
        raise NotImplementedError

    def forget_input(self) -> Plan:
        """Go on without the input."""
        raise NotImplementedError

    def estimate(self) -> dict[str, Any]:
        """Tell what the input comes to; of rows that are not ours, nothing is known but their names."""
        return {"source": dict(self.source)}

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        """Read the answers and count, without keeping them."""
        raise NotImplementedError

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Write one row for each, and the manifest last."""
        names = [job.name for job in jobs]
        try:
            summary, responses = self._output.write(
                self._sources(jobs),
                self._landing(),
                job_names=names,
                fingerprint=self._fingerprint() or "",
                carried_types=self._carried_types,
                max_xcom_bytes=self._arguments.max_xcom_bytes,
            )
        except ResultsGone:
            return self._landed_before(names)
        return _landed(summary, output=self._output.path, responses=responses)

    def _landed_before(self, job_names: Sequence[str]) -> Landing:
        """Give what an earlier try has landed; it may have died after removing the answers, before it could say so.

        To be called while the error is handled, which is raised again when there is no such output.
        """
        manifest = self._output.made_from(job_names)
        if manifest is None:
            raise  # noqa: PLE0704  (called from an except clause)
        log.info("The rows of %s are at %s already.", ", ".join(job_names), manifest.output)
        counts = dict(manifest.counts)
        return Landing(
            total=counts["total"],
            succeeded=counts["succeeded"],
            failed=counts["failed"],
            counts=counts,
            usage=manifest.usage,
            output=manifest.output,
        )

    def delivered(self) -> None:
        """Remove what was kept for as long as the answers were not with the author."""

    def _sources(self, jobs: Sequence[BatchJob]) -> list[AnswerSource]:
        return [AnswerSource(lambda job=job: self._answers(job), self._rows_of(job)) for job in jobs]  # type: ignore[misc]

    def _answers(self, job: BatchJob) -> Iterator[BatchResult]:
        return self._client.get_responses(job)

    def _rows_of(self, job: BatchJob) -> Sequence[int] | None:  # noqa: ARG002
        return None

    def _landing(self) -> LandingSpec:
        raise NotImplementedError

    def _fingerprint(self) -> str | None:
        return None


class ExistingSource(TaskWork):
    """Input that lies at the service already: its rows are not ours to read, so its names stand for it."""

    def __init__(
        self, source: Mapping[str, Any], arguments: BatchArguments, access: ServiceAccess, folder: Path, output: Output
    ) -> None:
        super().__init__(arguments, access, folder, output)
        self.source = source

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        """Fingerprint the names."""
        settings = self._access.settings
        parts = [
            settings.service.value,
            settings.project_id,
            settings.location,
            self._arguments.model,
            self._arguments.kind.value,
            dict(self.source),
        ]
        return Plan(sha256(to_json(parts)).hexdigest()[:12], shards=1, can_resend=False)

    def forget_input(self) -> Plan:
        """Nothing was read, so nothing is forgotten."""
        return Plan(None, shards=1, can_resend=False)

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:  # noqa: ARG002
        """Rows that are not ours cannot be sent again: nobody asks."""
        return _landed(land(self._sources(jobs), NullSink(), self._landing(), self._folder))

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Land one row per answer; those in BigQuery are left there unless an output path says otherwise."""
        tables = [job.dest.bigquery_uri for job in jobs if job.dest is not None and job.dest.bigquery_uri]
        if not tables or self._arguments.output_path is not None:
            return super().land(jobs)
        stats = [job.completion_stats for job in jobs if job.completion_stats is not None]
        done, bad = sum(one.success for one in stats), sum(one.failure for one in stats)
        return Landing(total=done + bad, succeeded=done, failed=bad, output=tables[-1])

    def _landing(self) -> LandingSpec:
        return LandingSpec(kind=self._arguments.kind, keep_response=self._arguments.keep_response, wrapped_keys=False)


class OwnRows(TaskWork):
    """Rows that the author hands over: read, checked and fingerprinted here, and known again after the wait."""

    def __init__(
        self,
        spec: InputSpec,
        arguments: BatchArguments,
        access: ServiceAccess,
        folder: Path,
        output: Output,
        *,
        spool: SavedRows | None,
    ) -> None:
        super().__init__(arguments, access, folder, output)
        self._media = _media(arguments, access) if spec.media_field is not None else None
        self._spec = spec if self._media is None else replace(spec, attach=self._media.attach)
        self._spool = spool
        self._staged: Staged | None = None
        self._keyless: LegacyKeyMatcher | None = None
        self.supply = self

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        """Read the input once; see :func:`.data.staging.stage`. A callable is not called a second time."""
        if again and not self._known_again:
            return self.forget_input()
        spec = self._spec
        if callable(spec.rows):
            spec = self._spool.spec(spec, again=again) if self._spool is not None else spec
        self._staged = staged = stage(spec, self._folder)
        self._keyless = None
        self._carried_types = staged.carried_types
        if self._arguments.max_cost_usd is not None and not again:
            cost = self._estimated_cost(staged)
            refuse_above(cost, self._arguments.max_cost_usd)
            log.info("Estimated: %s; max_cost_usd=%g.", cost, self._arguments.max_cost_usd)
        log.info("Input: %d rows, %d job(s), fingerprint %s.", staged.rows, len(staged.shards), staged.fingerprint)
        return Plan(
            staged.fingerprint, shards=len(staged.shards), can_resend=self._known_again, warnings=staged.warnings
        )

    def forget_input(self) -> Plan:
        """Use what is there: one row per answer, in the order they come, without carried columns."""
        self._staged = None
        return Plan(None, shards=1, can_resend=False, incomplete=bool(self._arguments.carry))

    @property
    def _known_again(self) -> bool:
        return not callable(self._spec.rows) or self._spool is not None

    def estimate(self) -> dict[str, Any]:
        """Tell what the input comes to: rows, jobs, estimated input tokens and, where there are prices, the cost."""
        staged = self._read()
        return {
            "rows": staged.rows,
            "jobs": len(staged.shards),
            "estimated_input_tokens": staged.estimated_input_tokens,
            "estimated_cost": self._estimated_cost(staged).plain(),
            "fingerprint": staged.fingerprint,
        }

    def _estimated_cost(self, staged: Staged) -> Cost:
        return estimated_cost(
            model=self._arguments.model,
            kind=self._arguments.kind,
            rows=staged.rows,
            input_tokens=staged.estimated_input_tokens,
            max_output_tokens=self._spec.defaults(set()).generation_config.get("maxOutputTokens"),
        )

    def bring_media(self, lines: Path) -> None:
        """Upload or stage the files that go with the rows of one job."""
        if self._media is not None:
            with lines.open("rb") as handle:
                self._media.bring(handle)

    def shard(self, index: int) -> Shard:
        """Give the lines of one job."""
        return self._read().shards[index]

    def subset(self, rows: Sequence[int], name: str) -> Shard:
        """Give the lines of some rows, as many as one job holds."""
        staged = self._read()
        some = staged.fitting(rows)
        if len(some) < len(rows):
            log.warning(
                "One job holds %d of the %d rows to be sent again; the others wait for a round after it.",
                len(some),
                len(rows),
            )
        return staged.subset(some, self._folder / f"{name}.jsonl")

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:
        """Count, and tell which rows (of one shard) lack a good answer."""
        try:
            summary = land(self._sources(jobs), NullSink(), self._landing(bare=True), self._folder)
        except ResultsGone:
            return self._landed_before([job.name for job in jobs])
        found = _landed(summary)
        if shard is None:
            return found
        mine = self._read().shards[shard].numbers()
        return Landing(
            total=len(mine),
            succeeded=found.succeeded,
            failed=found.failed,
            repairable=tuple(row for row in found.repairable if row in mine),
        )

    def delivered(self) -> None:
        """Drop the spool. Not before: a try that died after landing would call the author's function again."""
        if self._spool is not None:
            self._spool.remove()

    def _sources(self, jobs: Sequence[BatchJob]) -> list[AnswerSource]:
        """Open the answers; those of models that know no keys get them back from the input."""
        staged = self._staged
        if staged is None or self._access.service is not Service.VERTEX or not is_legacy(self._arguments.model):
            return super()._sources(jobs)
        if self._keyless is None:
            self._keyless = LegacyKeyMatcher(staged, self._landing(bare=True), self._answers, self._folder)
        return self._keyless.sources(jobs)

    def _read(self) -> Staged:
        if self._staged is None:
            raise InputError("the input cannot be read any more, so that its rows cannot be sent")
        return self._staged

    def _rows_of(self, job: BatchJob) -> Sequence[int] | None:
        tag = tag_of(job)
        whole = tag is not None and tag.round == 0 and tag.submission == 0 and self._staged is not None
        if tag is None or not whole or self._staged is None or tag.shard >= len(self._staged.shards):
            return None
        return self._staged.shards[tag.shard].numbers()

    def _landing(self, *, bare: bool = False) -> LandingSpec:
        staged = self._staged
        carried = staged.carried_path if staged is not None and not bare else None
        return LandingSpec(
            kind=self._arguments.kind,
            rows=staged.rows if staged is not None else None,
            schema=_schema(self._arguments),
            keep_response=self._arguments.keep_response and not bare,
            carried=None if carried is None else (lambda: lines_of(carried)),
            author_key=staged.author_key if staged is not None else None,
        )

    def _fingerprint(self) -> str | None:
        return self._staged.fingerprint if self._staged is not None else None


def _spool(arguments: BatchArguments, paths: Paths, staging: str | None, stem: str, *, anew: bool) -> SavedRows | None:
    if not callable(arguments.inlined_requests):
        return None
    name = f"{stem}.rows.jsonl"
    if staging:
        return SavedRows(f"{staging.rstrip('/')}/{name}", paths, anew=anew)
    if arguments.output_path:
        folder = arguments.output_path.rpartition("/")[0]
        return SavedRows(f"{folder}/.{name}", paths, arguments.output_conn_id, anew=anew)
    for argument in ("carry", "repair_rounds"):
        if getattr(arguments, argument):
            raise ConfigurationError(
                f"{argument} needs the rows again after the wait, and those of a callable have no place to be kept: "
                "give staging_path or output_path"
            )
    return None


def _media(arguments: BatchArguments, access: ServiceAccess) -> AttachmentUploader:
    staging = arguments.staging_path or access.settings.staging_path
    return AttachmentUploader(lambda: access.client, access.service, Paths.of(access).open_for_reading, staging)


def _schema(arguments: BatchArguments) -> OutputSchema | None:
    model = arguments.output_schema
    if model is None:
        return None
    from airflow_provider_gemini_batch.rows.schema import OutputSchema

    return OutputSchema(model)


def _input_spec(arguments: BatchArguments, access: ServiceAccess) -> InputSpec:
    schema = _schema(arguments)
    settings = access.settings
    return InputSpec(
        service=settings.service,
        kind=arguments.kind,
        model=arguments.model,
        project=settings.project_id or "",
        location=settings.location if settings.service is Service.VERTEX else "",
        rows=arguments.inlined_requests,
        path=arguments.input_path,
        opener=Paths.of(access).open_for_reading,
        prompt_template=arguments.prompt_template,
        key_field=arguments.key_field,
        title_field=arguments.title_field,
        media_field=arguments.media_field,
        carry=arguments.carry,
        generation_config=arguments.generation_config,
        system_instruction=arguments.system_instruction,
        request_defaults=arguments.request_defaults,
        response_schema=schema.response_schema if schema is not None else None,
        task_type=arguments.task_type,
        output_dimensionality=arguments.output_dimensionality,
        max_rows_per_job=arguments.max_rows_per_job,
        max_bytes_per_job=arguments.max_bytes_per_job,
    )


def _landed(
    summary: LandingSummary, *, output: str | None = None, responses: list[dict[str, Any]] | None = None
) -> Landing:
    return Landing(
        total=summary.rows,
        succeeded=summary.succeeded,
        failed=summary.failed,
        counts=summary.counts,
        usage=summary.usage,
        output=output,
        responses=responses,
        repairable=tuple(summary.repairable),
    )


def _named(service: Service) -> str:
    return "the Gemini Developer API" if service is Service.GEMINI else "Vertex AI"
