"""The rows of a task: which kind of source it has, whether the service can read it, and where its rows are kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.legacy import is_legacy
from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, Service
from airflow_provider_gemini_batch.api.names import a_few
from airflow_provider_gemini_batch.api.requests.fields import shown
from airflow_provider_gemini_batch.batch.ports import Landing, Plan
from airflow_provider_gemini_batch.rows.datasets import check_output_folders
from airflow_provider_gemini_batch.rows.input_spec import InputSpec, check_carry, check_types
from airflow_provider_gemini_batch.rows.landing import LandingSpec, ResponseSource, land
from airflow_provider_gemini_batch.runtime.checks import check_places, check_settings
from airflow_provider_gemini_batch.runtime.file_lists import addresses_of, means_several
from airflow_provider_gemini_batch.runtime.media_files import MediaFiles, default_roots
from airflow_provider_gemini_batch.runtime.outputs import NullSink, Output, SavedRows
from airflow_provider_gemini_batch.runtime.own_rows import OwnRows
from airflow_provider_gemini_batch.runtime.task_input import RecordPlaces, TaskInput
from airflow_provider_gemini_batch.runtime.task_work import TaskWork, landing_of
from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_gemini_batch.rows.delivery import Origin
    from airflow_provider_gemini_batch.rows.input_spec import Attachment
    from airflow_provider_gemini_batch.rows.schema import OutputSchema
    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings
    from airflow_provider_gemini_batch.runtime.paths import Paths
    from airflow_provider_gemini_batch.runtime.task_setup import TaskSetup

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
    "csv_delimiter",
    "encoding",
    "media_field",
    "title_field",
    "output_schema",
    "max_rows_per_job",
    "max_bytes_per_job",
    "max_cost_usd",
)
_SAVED_ROWS = "rows.jsonl"
_DEFAULTS = (
    "generation_config",
    "system_instruction",
    "request_defaults",
    "task_type",
    "output_dimensionality",
)


def make_work(setup: TaskSetup) -> TaskWork:
    """Return what reads the source and lands the results, after checking the source against the service.

    :raises ConfigurationError: the service cannot read this source, or an argument has no meaning for it.
    """
    arguments, access = setup.arguments, setup.access
    service = access.service
    output = Output.of(arguments, access, setup.folder, setup.task)
    existing = {name: getattr(arguments, name) for name in _READ_BY if getattr(arguments, name) is not None}
    for name in existing:
        if _READ_BY[name] is not service:
            raise ConfigurationError(f"{name} cannot be read by {_named(service)}; give {_INSTEAD[service]}")
    check_settings(arguments, service, access.settings.location)
    check_places(arguments, service, setup.staging)
    if (arguments.output_path or "").endswith("/"):
        check_output_folders(arguments.output_path or "", arguments.carry)
    for name, value in existing.items():
        of_our_rows = _OF_OUR_ROWS if service is Service.VERTEX else (*_OF_OUR_ROWS, "repair_rounds")
        for argument in (*of_our_rows, *_DEFAULTS):
            if getattr(arguments, argument):
                raise ConfigurationError(
                    f"{argument} has no effect on {name}, whose rows are sent as they are: "
                    "put it into the rows, or hand them over with input_path"
                )
        return ExistingSource(setup, output, {name: value})
    if arguments.destination is not None and arguments.destination.startswith("bq://"):
        raise ConfigurationError(
            "destination: responses to rows of your own are read back, which a table does not allow; give a gs:// "
            "folder or nothing, or hand the rows over with gcs_uri or bigquery_uri"
        )
    media = _media(setup) if arguments.media_field is not None else None
    legacy = service is Service.VERTEX and is_legacy(arguments.model)
    rows = TaskInput(
        input_spec(arguments, access.settings, setup.paths, attach=media.attach if media is not None else None),
        setup.folder,
        places=_record_places(setup),
        saved_rows=_saved_rows(setup),
        record_needed=setup.lands and (bool(arguments.carry) or legacy),
        remove_older=lambda: _remove_kept_before(setup),
    )
    return OwnRows(setup, output, rows, schema=_schema(arguments), media=media)


class ExistingSource(TaskWork):
    """Input that is at the service already: its rows are not read here, so its names are fingerprinted instead.

    On Vertex AI a job can continue from the output of another and copies it, so one of several jobs has all rows.
    """

    def __init__(self, setup: TaskSetup, output: Output, source: Mapping[str, Any]) -> None:
        super().__init__(setup, output)
        check_carry(setup.arguments.carry, setup.arguments.kind)
        check_types(setup.arguments.carry, setup.arguments.carry_types or {})
        self.source = source

    def plan(self, *, again: bool, note: Mapping[str, Any]) -> Plan:  # noqa: ARG002
        """Return the plan; its fingerprint is that of the names."""
        if not again:
            log.info("Sending the rows of %s as they are.", shown(next(iter(self.source.values()))))
        settings = self._access.settings
        parts = [
            settings.service.value,
            settings.project_id,
            settings.location,
            self._arguments.model,
            self._arguments.kind.value,
            dict(self.source),
        ]
        fingerprint = sha256(to_json(parts)).hexdigest()[:12]
        return Plan(fingerprint, shards=1, can_resend=settings.service is Service.VERTEX, by_row=False)

    def forget_input(self) -> Plan:
        """Return a plan for existing jobs alone."""
        return Plan(None, shards=1, can_resend=False, by_row=False)

    def survey(self, jobs: Sequence[BatchJob], *, shard: int | None) -> Landing:  # noqa: ARG002
        """Return the counts, and how many rows a job that continues from these would do."""
        if self._stays_in_table(jobs):
            return self.land(jobs)
        return landing_of(land(self._sources(jobs), NullSink(), self._landing(), self._folder))

    def land(self, jobs: Sequence[BatchJob]) -> Landing:
        """Land one row per response; those in BigQuery stay there unless there is an output path."""
        if not self._stays_in_table(jobs):
            landing = super().land(jobs)
            sent = max((job.completion_stats.total or 0 for job in jobs if job.completion_stats), default=0)
            return landing.with_missing(max(0, sent - landing.total))
        job = max(reversed(jobs), key=lambda one: (one.state.ended_well, _stats(one).success))
        stats = _stats(job)
        return Landing(
            total=stats.total or stats.success + stats.failure,
            succeeded=stats.success,
            failed=stats.failure + (stats.pending or 0),
            output=job.dest.bigquery_uri if job.dest is not None else None,
            repairable=tuple(range(stats.failure)),
        )

    def _stays_in_table(self, jobs: Sequence[BatchJob]) -> bool:
        return self._arguments.output_path is None and any(job.dest and job.dest.bigquery_uri for job in jobs)

    def _sources(self, jobs: Sequence[BatchJob]) -> list[ResponseSource]:
        """Return the responses of one job: the last, unless it was cut short and another has more good ones."""
        chosen = jobs[-1]
        if len(jobs) > 1 and not chosen.state.ended_well:
            chosen = max(reversed(jobs), key=lambda job: sum(one.error is None for one in self._responses(job)))
        return super()._sources([chosen])

    def _origin(self, jobs: Sequence[BatchJob]) -> Origin:
        # Columns of rows that were not read are texts, those of JSON as well, unless the author gives them a type.
        types = {**dict.fromkeys(self._arguments.carry, "str"), **(self._arguments.carry_types or {})}
        carried_types = {name: "str" if word == "json" else word for name, word in types.items()}
        return replace(super()._origin(jobs), carried_types=carried_types)

    def _landing(self) -> LandingSpec:
        return LandingSpec(
            kind=self._arguments.kind,
            keep_response=self._arguments.keep_response,
            wrapped_keys=False,
            key_field=self._arguments.key_field,
            carry=self._arguments.carry,
        )


def _stats(job: BatchJob) -> CompletionStats:
    return job.completion_stats or CompletionStats()


def _record_places(setup: TaskSetup) -> RecordPlaces:
    if not setup.lands:
        return RecordPlaces(setup.paths)
    return RecordPlaces(setup.paths, setup.store, *(setup.kept_file("record") or ()))


def _saved_rows(setup: TaskSetup) -> SavedRows | None:
    arguments, paths = setup.arguments, setup.paths
    if not callable(arguments.inlined_requests):
        return None
    place = None if arguments.dry_run else setup.kept_file(_SAVED_ROWS)
    if place is not None:
        path, conn_id = place
        # As version 0.1 named them beside an output, for tasks that were waiting when it was upgraded.
        older = f"{path.removesuffix('.jsonl')}.jsonl"
        is_older = older != path and not setup.is_anew and paths.files_of(older, conn_id).exists(older)
        return SavedRows(older if is_older else path, paths, conn_id, anew=setup.is_anew)
    for argument in ("carry", "repair_rounds"):
        if getattr(arguments, argument) and setup.lands:
            raise ConfigurationError(
                f"{argument} needs the rows again after the wait, and those of a callable have no place to be kept: "
                "give staging_path or output_path"
            )
    return SavedRows(str(setup.folder / _SAVED_ROWS), paths, lasting=False)


def _remove_kept_before(setup: TaskSetup) -> None:
    """Remove what was kept before the task was cleared, since those tries may have ended without removing it."""
    kinds = (_SAVED_ROWS, "record") if callable(setup.arguments.inlined_requests) else ("record",)
    for clear_count in range(setup.first_clear_count, setup.clear_count):
        for kind in kinds:
            if (place := setup.kept_file(kind, clear_count)) is not None:
                setup.paths.files_of(*place).remove(place[0])


def _media(setup: TaskSetup) -> AttachmentUploader:
    arguments, access = setup.arguments, setup.access
    files = MediaFiles(arguments.media_root or default_roots(arguments.input_path), setup.paths.open_for_reading)
    return AttachmentUploader(lambda: access.client, access.service, files.open, setup.staging, files.address)


def _shown_path(path: str | Sequence[str] | None) -> str | None:
    """Return the input path as one text."""
    return path if path is None or isinstance(path, str) else a_few(path, 1)


def _schema(arguments: BatchArguments) -> OutputSchema | None:
    model = arguments.output_schema
    if model is None:
        return None
    from airflow_provider_gemini_batch.rows.schema import OutputSchema

    return OutputSchema(model)


def input_spec(
    arguments: BatchArguments,
    settings: ConnectionSettings,
    paths: Paths,
    *,
    attach: Callable[[str], Attachment] | None = None,
) -> InputSpec:
    """Return what the author asks the input to become.

    :param attach: turns a value of ``media_field`` into an attachment.
    """
    schema = _schema(arguments)
    return InputSpec(
        service=settings.service,
        kind=arguments.kind,
        model=arguments.model,
        project=settings.project_id or "",
        location=settings.location if settings.service is Service.VERTEX else "",
        rows=arguments.inlined_requests,
        path=_shown_path(arguments.input_path),
        files=(lambda: addresses_of(paths, arguments.input_path or ()))
        if means_several(arguments.input_path)
        else None,
        opener=paths.open_for_reading,
        csv_delimiter=arguments.csv_delimiter,
        encoding=arguments.encoding,
        prompt_template=arguments.prompt_template,
        key_field=arguments.key_field,
        title_field=arguments.title_field,
        media_field=arguments.media_field,
        attach=attach,
        carry=arguments.carry,
        carry_types=arguments.carry_types or {},
        is_part=bool(arguments.part_key),
        generation_config=arguments.generation_config,
        system_instruction=arguments.system_instruction,
        request_defaults=arguments.request_defaults,
        response_schema=schema.response_schema if schema is not None else None,
        task_type=arguments.task_type,
        output_dimensionality=arguments.output_dimensionality,
        max_rows_per_job=arguments.max_rows_per_job,
        max_bytes_per_job=arguments.max_bytes_per_job,
    )


def _named(service: Service) -> str:
    return "the Gemini Developer API" if service is Service.GEMINI else "Vertex AI"
