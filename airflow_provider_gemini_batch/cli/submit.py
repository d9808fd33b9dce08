"""``gemini-batch submit``: a file of rows, checked like a task's input, becomes one job or several."""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import ConfigurationError, EmptyInput, GeminiBatchError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.names import gemini_model, vertex_model
from airflow_provider_gemini_batch.batch.tag import Tag, TaskIdentity
from airflow_provider_gemini_batch.cli.printing import Printer
from airflow_provider_gemini_batch.cli.session import DONE, INTERRUPTED, REFUSED, connection_settings
from airflow_provider_gemini_batch.rows.cost import estimated_cost
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.sending import ShardReader
from airflow_provider_gemini_batch.rows.stage import stage
from airflow_provider_gemini_batch.runtime.argument_readers import choice, codec, delimiter
from airflow_provider_gemini_batch.runtime.arguments import TASK_TYPES
from airflow_provider_gemini_batch.runtime.client import client_from_settings
from airflow_provider_gemini_batch.runtime.log_lines import estimate_words
from airflow_provider_gemini_batch.staging.job_service import ClientJobService, JobSettings

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from airflow_provider_gemini_batch.rows.cost import Cost
    from airflow_provider_gemini_batch.rows.layout import Layout, ShardFile
    from airflow_provider_gemini_batch.rows.stage import Staged
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings


class _Shards:
    """The rows of a file, for the job service."""

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader

    def shard(self, index: int) -> ShardFile:
        """Return the lines of one job."""
        return self._reader.shard(index)

    def subset(self, rows: Sequence[int], name: str) -> ShardFile:
        """Unused: the command line does not send rows again."""
        raise NotImplementedError(name, len(rows))

    def upload_attachments(self, lines: Path) -> None:
        """Do nothing: rows of the command line have no attachments."""


def submit(arguments: Namespace) -> int:
    """Check the file, then send it unless ``--dry-run``; print the jobs."""
    settings = connection_settings(arguments)
    settings.check_safe()
    staging = arguments.staging_path or settings.staging_path
    if settings.service is Service.VERTEX and not (staging or "").startswith("gs://"):
        raise ConfigurationError("Vertex AI reads rows from Cloud Storage: give --staging-path, a gs:// folder")
    if Path(arguments.input_path).is_dir():
        raise ConfigurationError(f"{arguments.input_path} is a folder: name one file")
    if "://" in arguments.input_path:
        raise ConfigurationError(f"{arguments.input_path} is not a file on this machine: a Dag reads other addresses")
    (gemini_model if settings.service is Service.GEMINI else vertex_model)(arguments.model)
    with tempfile.TemporaryDirectory(prefix="gemini-batch-") as folder:
        spec = _spec(arguments, settings)
        try:
            staged = stage(spec, Path(folder))
        except EmptyInput:
            raise ConfigurationError(f"{arguments.input_path} has no rows; nothing was sent") from None
        for warning in staged.warnings:
            print(f"gemini-batch: {warning}", file=sys.stderr)
        if arguments.dry_run:
            return _print_estimate(arguments, spec, staged)
        with closing(ShardReader(spec, staged.layout, Path(folder), staged.files)) as reader:
            return _send(arguments, settings, staging, spec, staged.layout, _Shards(reader))


def _spec(arguments: Namespace, settings: ConnectionSettings) -> InputSpec:
    return InputSpec(
        service=settings.service,
        kind=JobKind.EMBEDDINGS if arguments.embeddings else JobKind.GENERATION,
        model=arguments.model,
        project=settings.project_id or "",
        location=settings.location or "",
        path=str(Path(arguments.input_path).absolute()),
        csv_delimiter=_given(delimiter, "--csv-delimiter", arguments.csv_delimiter),
        encoding=_given(codec, "--encoding", arguments.encoding),
        prompt_template=arguments.prompt_template,
        key_field=arguments.key_field,
        generation_config=_generation_config(arguments.generation_config),
        system_instruction=arguments.system_instruction,
        task_type=_given(choice(*TASK_TYPES), "--task-type", arguments.task_type),
        output_dimensionality=arguments.output_dimensionality,
    )


def _given(read: Callable[[str, Any], str], option: str, value: str | None) -> str | None:
    """Return the value of an option; None where it was not given."""
    return None if value is None else read(option, value)


def _generation_config(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError("--generation-config must be a JSON object, such as '{\"maxOutputTokens\": 300}'")
    return value


def _print_estimate(arguments: Namespace, spec: InputSpec, staged: Staged) -> int:
    cost = estimated_cost(staged.expected, spec.kind)
    columns = ("rows", "jobs", "estimated_input_tokens", "estimated_cost")
    row = {
        "rows": staged.layout.rows,
        "jobs": len(staged.layout.shards),
        "estimated_input_tokens": staged.estimated_input_tokens,
        "estimated_cost": _in_words(cost),
    }
    Printer(arguments.output).rows(columns, [row])
    return DONE


def _in_words(cost: Cost) -> str:
    """Return an estimate with the words of the log: an upper bound, or a guess."""
    if cost.usd is None:
        return str(cost)
    return estimate_words(cost) + (f" ({cost.note})" if cost.note else "")


def _send(  # noqa: PLR0917  (all that was read)
    arguments: Namespace,
    settings: ConnectionSettings,
    staging: str | None,
    spec: InputSpec,
    layout: Layout,
    supply: _Shards,
) -> int:
    """Create the jobs one by one. A create call is sent once, since one without a response may have created a job."""
    identity = TaskIdentity("command line", "", Path(arguments.input_path).name, uuid.uuid4().hex).digest
    job_settings = JobSettings(
        model=arguments.model,
        kind=spec.kind,
        display_name=arguments.display_name or Path(arguments.input_path).stem,
        labels=settings.labels,
        staging_path=staging,
    )
    rows, code = [], DONE
    with client_from_settings(settings) as client:
        service = ClientJobService(client, job_settings, supply=supply)
        for shard in layout.shards:
            tag = Tag(identity, 0, shard.index, 0, 0, layout.fingerprint)
            try:
                job = service.create(service.prepare(tag, None, reuse=False), tag)
            except (GeminiBatchError, OSError) as error:
                print(f"gemini-batch: {error}", file=sys.stderr)
                if isinstance(error, GeminiBatchError) and error.may_have_acted:
                    print(f"The job may still exist: look for {tag} with `gemini-batch list`.", file=sys.stderr)
                code = REFUSED
                break
            except KeyboardInterrupt:
                print(f"Stopped. A job that was being created may exist: look for {tag}.", file=sys.stderr)
                code = INTERRUPTED
                break
            rows.append({"job": job.name, "rows": shard.rows, "display_name": job.display_name})
    if rows or arguments.output == "json":
        Printer(arguments.output).rows(("job", "rows", "display_name"), rows)
    return code
