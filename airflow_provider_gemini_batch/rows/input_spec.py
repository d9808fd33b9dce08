"""What the author asks for the input to become, checked before a row is read; and the limits of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.legacy import is_legacy
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.fields import SCHEMAS, camel, shown
from airflow_provider_gemini_batch.api.requests.request import RequestDefaults, request_defaults
from airflow_provider_gemini_batch.api.vertex_rules import takes_instructions_in_text
from airflow_provider_gemini_batch.rows.columns import check_word
from airflow_provider_gemini_batch.rows.result_rows import ROW_MEMBERS
from airflow_provider_gemini_batch.rows.sources import Opener, open_local

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_gemini_batch.rows.media_tokens import FileSample


class JobLimits(NamedTuple):
    """How much the service accepts in one job."""

    rows: int | None
    file_bytes: int


def job_limits(service: Service, kind: JobKind, model: str = "") -> JobLimits:
    """Return the documented limits: Gemini 2 GB a file; Vertex 1 GB and 200,000 requests, 1,000,000 for embeddings.

    Legacy embedding models of Vertex (``text-embedding-*``, ``textembedding-*``) accept 30,000 texts.
    """
    if service is Service.GEMINI:
        return JobLimits(None, 2_000_000_000)
    if kind is JobKind.GENERATION:
        return JobLimits(200_000, 1_000_000_000)
    return JobLimits(30_000 if is_legacy(model) else 1_000_000, 1_000_000_000)


def check_carry(carry: tuple[str, ...], kind: JobKind) -> None:
    """Raise ConfigurationError for columns that have the name of a column of result rows, or are listed twice."""
    absent = "text" if kind is JobKind.EMBEDDINGS else "embedding"
    if taken := sorted(set(carry) & set(ROW_MEMBERS) - {absent}):
        raise ConfigurationError(
            f"carry cannot take {', '.join(taken)}: result rows already have columns of that name; rename it in the "
            "input"
        )
    if len(set(carry)) != len(carry):
        raise ConfigurationError("carry names a column twice")


def check_types(carry: Sequence[str], types: Mapping[str, Any]) -> None:
    """Refuse types that are unknown, or are those of columns that are not carried.

    :raises ConfigurationError: says so.
    """
    for name, word in types.items():
        check_word(word)
        if name not in carry:
            raise ConfigurationError(f"carry_types: {shown(name)} is not in carry")


class Attachment(NamedTuple):
    """A file that goes with a row: the part for the request, and what the fingerprint covers in its place.

    ``identity`` names the content (a hash, or the URI of an object), so that a file uploaded again under another name
    does not look like another input. ``sample`` is used to estimate the cost; None: the file was not read.
    """

    part: Mapping[str, Any]
    identity: str
    sample: FileSample | None = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input and how to turn it into requests. Exactly one of ``rows`` and ``path`` is given.

    ``rows``: see :mod:`.python_rows`. ``path``: whatever ``opener`` opens; ``is_saved``: it has the rows of a function,
    a line each.
    ``prompt_template``, ``key_field``, ``title_field``, ``media_field`` and ``carry`` name columns. ``attach`` turns a
    value of ``media_field`` into an :class:`Attachment`. ``response_schema`` is in the service's form (see
    :mod:`.schema`). ``files`` returns the files of ``path`` where there are several; it is called whenever the input is
    read. ``carry_types`` are types of carried columns (see :mod:`.columns`) that replace those of the input.
    ``is_part``: it is a part of a dataset, whose other files may have columns that this one lacks.
    ``max_rows_per_job`` and ``max_bytes_per_job`` can only lower the service's limits.
    """

    service: Service
    kind: JobKind = JobKind.GENERATION
    model: str
    project: str = ""
    location: str = ""
    rows: Any = field(default=None, repr=False)
    path: str | None = None
    is_saved: bool = False
    file_format: str | None = None
    csv_delimiter: str | None = None
    encoding: str | None = None
    opener: Opener = field(default=open_local, repr=False)
    prompt_template: str | None = field(default=None, repr=False)
    key_field: str | None = None
    title_field: str | None = None
    media_field: str | None = None
    attach: Callable[[str], Attachment] | None = field(default=None, repr=False)
    carry: tuple[str, ...] = ()
    carry_types: Mapping[str, str] = field(default_factory=dict)
    is_part: bool = False
    files: Callable[[], Sequence[str]] | None = field(default=None, repr=False)
    generation_config: Mapping[str, Any] | None = field(default=None, repr=False)
    system_instruction: str | Mapping[str, Any] | None = field(default=None, repr=False)
    request_defaults: Mapping[str, Any] | None = field(default=None, repr=False)
    response_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    task_type: str | None = None
    output_dimensionality: int | None = None
    max_rows_per_job: int | None = None
    max_bytes_per_job: int | None = None

    def check(self) -> None:
        """Raise ConfigurationError for arguments that cannot work with any rows."""
        if (self.rows is None) == (self.path is None):
            raise ConfigurationError("give the input either as rows or as a path")
        embeds = self.kind is JobKind.EMBEDDINGS
        if self.media_field is not None and embeds and not takes_instructions_in_text(self.model):
            raise ConfigurationError("media_field: this model embeds texts only; gemini-embedding-2 embeds files too")
        check_carry(self.carry, self.kind)
        check_types(self.carry, self.carry_types)

    def limits(self) -> JobLimits:
        """Return the service's limits, or the author's where they are lower."""
        rows, file_bytes = job_limits(self.service, self.kind, self.model)
        if self.max_rows_per_job is not None:
            rows = self.max_rows_per_job if rows is None else min(rows, self.max_rows_per_job)
        return JobLimits(rows, min(file_bytes, self.max_bytes_per_job or file_bytes))

    def defaults(self, warnings: set[str]) -> RequestDefaults:
        """Return the members that every request gets, including the response schema."""
        config = dict(self.generation_config or {})
        if self.response_schema is not None:
            if not SCHEMAS.isdisjoint(map(camel, (*config, *(self.request_defaults or ())))):
                raise ConfigurationError("give either output_schema or generation_config with a schema, not both")
            config["responseSchema"] = self.response_schema
            given = [config.pop(name, None) for name in ("responseMimeType", "response_mime_type")]
            if any(one not in (None, "application/json") for one in given):
                raise ConfigurationError("output_schema needs responses in JSON: leave responseMimeType out")
            config["responseMimeType"] = "application/json"
        return request_defaults(
            self.kind,
            model=self.model,
            generation_config=config,
            system_instruction=self.system_instruction,
            request_defaults=self.request_defaults,
            task_type=self.task_type,
            output_dimensionality=self.output_dimensionality,
            warnings=warnings,
        )
