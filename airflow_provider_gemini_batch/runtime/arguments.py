"""The arguments of a task as one frozen value, read and checked in one place.

Some are known when the Dag is parsed, the rest when templates have been rendered: :func:`check_parsed` and
:func:`read_arguments` share :mod:`.argument_readers`. What depends on the connection is in :mod:`.checks`.

Rules of this file: it is imported when a Dag file is parsed, so it imports nothing heavy; it knows no operator.
"""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError, dataclass, field, fields
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.states import JobKind
from airflow_provider_gemini_batch.runtime.argument_readers import (
    Reader,
    choice,
    codec,
    columns,
    comes_from_a_task,
    delimiter,
    flag,
    folder,
    instruction,
    is_unknown,
    listed,
    mapping,
    part_keys,
    path,
    path_list,
    rate,
    required,
    rows,
    schema,
    seconds,
    several,
    text,
    texts,
    usd,
    whole,
    whole_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from pydantic import BaseModel

DEFAULT_CONN_ID = "gemini_batch_default"
# Airflow warns above 64 KiB of notes; an XCom of 48 KiB fits every metadata database and backend.
DEFAULT_MAX_XCOM_BYTES = 48 * 1024
ROWS_PER_PART = 100_000
BYTES_PER_PART = 500_000_000
SOURCES = ("inlined_requests", "file_name", "input_path", "gcs_uri", "bigquery_uri")

# Where an empty text, from a template, would mean another place, or no rows.
_name, _address, _place = required(text), required(path), required(whole_path)
_names, _addresses, _places = several(_name), several(_address), several(_place)
_OF_TEXTS = (
    text, path, whole_path, folder, _name, _names, _address, _addresses, _place, _places, path_list, columns, rows,
    schema,
)  # fmt: skip
# https://ai.google.dev/gemini-api/docs/embeddings
TASK_TYPES = (
    "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING",
    "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY", "TASK_TYPE_UNSPECIFIED",
)  # fmt: skip

T = TypeVar("T")


def _argument(reader: Reader, default: Any = None) -> Any:
    """Return the field of an argument: how its value is read, and what None stands for."""
    return field(default=default, metadata={"reader": reader})


class _Arguments:
    """A frozen value, whose repr shows no member: each may be a prompt.

    The methods that ``dataclass`` would generate take 9 ms whenever a Dag file is parsed.
    """

    def __init__(self, **given: Any) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # the subclasses are dataclasses
            self.__dict__[each.name] = given.pop(each.name, each.default)
        if given:
            raise TypeError(f"unknown arguments: {', '.join(given)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(name)


@dataclass(init=False, repr=False, eq=False)
class ConnectionArguments(_Arguments):
    """What every operator takes: which connection, and what overrides it."""

    gemini_conn_id: str = _argument(_name, DEFAULT_CONN_ID)
    location: str | None = _argument(text)
    project_id: str | None = _argument(text)


@dataclass(init=False, repr=False, eq=False)
class OutputArguments(ConnectionArguments):
    """What an author asks of result rows: where they go, and what is in them."""

    output_path: str | None = _argument(_place)
    output_conn_id: str | None = _argument(text)
    media_path: str | None = _argument(_place)
    max_xcom_bytes: int = _argument(whole(), DEFAULT_MAX_XCOM_BYTES)
    keep_response: bool = _argument(flag, default=False)


@dataclass(init=False, repr=False, eq=False)
class BatchArguments(OutputArguments):
    """What an author asks of a batch; see the create operators for the meaning of each. Times are in seconds.

    ``kind`` is the operator's own.
    """

    kind: JobKind = JobKind.GENERATION
    model: str = _argument(required(text), "")
    inlined_requests: Any = field(default=None, metadata={"reader": rows})
    file_name: str | None = _argument(_name)
    input_path: str | Sequence[str] | None = _argument(_places)
    gcs_uri: str | list[str] | None = field(default=None, metadata={"reader": _addresses})
    bigquery_uri: str | None = _argument(_address)
    generation_config: Mapping[str, Any] | None = _argument(mapping)
    system_instruction: Any = field(default=None, metadata={"reader": instruction})
    request_defaults: Mapping[str, Any] | None = _argument(mapping)
    output_schema: type[BaseModel] | None = field(default=None, metadata={"reader": schema})
    task_type: str | None = _argument(choice(*TASK_TYPES))
    output_dimensionality: int | None = _argument(whole(at_least=1))
    prompt_template: str | None = _argument(text)
    key_field: str | None = _argument(text)
    title_field: str | None = _argument(text)
    media_field: str | None = _argument(text)
    media_root: tuple[str, ...] = _argument(path_list, ())
    carry: tuple[str, ...] = _argument(columns, ())
    carry_types: Mapping[str, str] | None = _argument(mapping)
    part_key: str | None = _argument(text)
    skip_whole_parts: bool = _argument(flag, default=False)
    csv_delimiter: str | None = _argument(delimiter)
    encoding: str | None = _argument(codec)
    display_name: str | None = _argument(text)
    priority: int | None = _argument(whole(at_least=None))
    labels: Mapping[str, str] | None = _argument(texts)
    destination: str | None = _argument(path)
    staging_path: str | None = _argument(whole_path)
    wait_for_completion: bool = _argument(flag, default=True)
    deferrable: bool = _argument(flag, default=True)
    poll_interval: float = _argument(seconds(above_zero=True), 60.0)
    timeout: float | None = _argument(seconds(above_zero=True))
    cancel_on_kill: bool = _argument(flag, default=True)
    cancel_on_timeout: bool = _argument(flag, default=True)
    reattach: bool = _argument(flag, default=True)
    lookup_timeout: float = _argument(seconds(), 120.0)
    queue_timeout: float | None = _argument(seconds(above_zero=True))
    progress_timeout: float | None = _argument(seconds(above_zero=True))
    on_stall: str = _argument(choice("fail", "resubmit"), "fail")
    on_empty: str = _argument(choice("fail", "skip", "succeed"), "fail")
    max_resubmits: int = _argument(whole(), 1)
    max_failed_rows: int | None = _argument(whole())
    max_failure_rate: float | None = _argument(rate)
    repair_rounds: int = _argument(whole(), 0)
    max_cost_usd: float | None = _argument(usd)
    max_rows_per_job: int | None = _argument(whole(at_least=1))
    max_bytes_per_job: int | None = _argument(whole(at_least=1))
    max_active_jobs: int | None = _argument(whole(at_least=1))
    keep_input: bool = _argument(flag, default=False)
    dry_run: bool = _argument(flag, default=False)

    @property
    def input_addresses(self) -> tuple[str, ...]:
        """Where the input lies, as far as it has an address."""
        addresses = (*listed(self.gcs_uri), self.bigquery_uri, *listed(self.input_path), self.file_name)
        return tuple(one for one in addresses if one)

    @property
    def has_response_table(self) -> bool:
        """Whether Vertex AI writes the responses to BigQuery: where the author says so, else beside an input table."""
        return self.destination.startswith("bq://") if self.destination else self.bigquery_uri is not None


@dataclass(init=False, repr=False, eq=False)
class JobArguments(ConnectionArguments):
    """What an author asks of one existing job."""

    job_name: str = _argument(required(text), "")


@dataclass(init=False, repr=False, eq=False)
class SensorArguments(ConnectionArguments):
    """What an author asks of the sensor, beside what every sensor of Airflow's takes."""

    job_name: str | Sequence[str] = _argument(_names, "")


@dataclass(init=False, repr=False, eq=False)
class ResponsesArguments(JobArguments, OutputArguments):
    """What an author asks of the responses of one job."""


@dataclass(init=False, repr=False, eq=False)
class ListArguments(ConnectionArguments):
    """What an author asks of the list of jobs."""

    filter: str | None = _argument(text)
    max_results: int = _argument(whole(at_least=1), 100)


@dataclass(init=False, repr=False, eq=False)
class UploadArguments(ConnectionArguments):
    """What an author asks of an upload."""

    input_path: str = _argument(_place, "")
    display_name: str | None = _argument(text)
    mime_type: str = _argument(text, "application/jsonl")


@dataclass(init=False, repr=False, eq=False)
class PlanArguments(ConnectionArguments):
    """What an author asks of the plan of a dataset. ``bytes_per_part`` are those of the data uncompressed.

    ``output_path``: where the parts will be, if the plan is to check it. ``part_arguments`` are those of the parts, if
    the plan is to check the files against them; ``prompt_template`` and ``output_schema``, which Airflow does not
    render, stand beside them.
    """

    input_path: str | Sequence[str] = _argument(_places, "")
    model: str = _argument(text, "")
    rows_per_part: int = _argument(whole(at_least=1), ROWS_PER_PART)
    bytes_per_part: int = _argument(whole(at_least=1), BYTES_PER_PART)
    carry: tuple[str, ...] = _argument(columns, ())
    carry_types: Mapping[str, str] | None = _argument(mapping)
    max_cost_usd: float | None = _argument(usd)
    prompt_template: str | None = _argument(text)
    output_schema: type[BaseModel] | None = field(default=None, metadata={"reader": schema})
    part_arguments: Mapping[str, Any] | None = _argument(mapping)
    on_empty: str = _argument(choice("fail", "skip", "succeed"), "fail")
    embeddings: bool = _argument(flag, default=False)
    output_path: str | None = _argument(folder)
    output_conn_id: str | None = _argument(text)


@dataclass(init=False, repr=False, eq=False)
class CommitArguments(ConnectionArguments):
    """What an author asks of the commit of a dataset; ``parts`` are their keys."""

    parts: tuple[str, ...] = _argument(required(part_keys), "")
    output_path: str = _argument(required(folder), "")
    output_conn_id: str | None = _argument(text)
    model: str = _argument(text, "")
    max_failed_rows: int | None = _argument(whole())
    max_failure_rate: float | None = _argument(rate)
    on_empty: str = _argument(choice("fail", "skip", "succeed"), "fail")


def check_parsed(form: type[Any], given: Mapping[str, Any], *, not_rendered: Collection[str] = ()) -> None:
    """Refuse, when the Dag is parsed, what cannot work whatever the templates become.

    :param form: the class of the arguments.
    :param not_rendered: arguments that Airflow does not render: what another task returns cannot stand there.
    :raises ConfigurationError: names the argument and says what to do.
    """
    for name, reader, default in _readers(form):
        if name not in given:
            continue
        value = given[name]
        if name in not_rendered and comes_from_a_task(value):
            raise ConfigurationError(
                f"{name} must be known when the Dag is parsed: it cannot be what another task returns"
            )
        # As a path, whose templates would be rendered, an instruction would be sent as the name of a file.
        is_file = reader is instruction and isinstance(value, PurePath)
        if name in not_rendered or is_file or not is_unknown(value):
            _read(name, reader, value, default)


def read_arguments(form: Callable[..., T], given: Mapping[str, Any], **own: Any) -> T:
    """Return the arguments as one value, once templates have been rendered.

    :param own: members that are not the author's to give.
    :raises ConfigurationError: names the argument and says what to do.
    """
    values = {
        name: _read(name, reader, given[name], default) for name, reader, default in _readers(form) if name in given
    }
    return form(**values, **own)


def check_one_source(given: Mapping[str, Any], *, makes_own_rows: bool) -> None:
    """Refuse no source, or several.

    :param makes_own_rows: a decorated function yields the rows.
    :raises ConfigurationError: names the arguments.
    """
    sources = [name for name in SOURCES if given.get(name) is not None]
    if len(sources) > 1:
        raise ConfigurationError(f"one source is allowed, not {' and '.join(sources)}")
    if sources and makes_own_rows:
        raise ConfigurationError(f"the function gives the rows, so {sources[0]} cannot be given as well")
    if not sources and not makes_own_rows:
        raise ConfigurationError(f"a source is missing: give one of {', '.join(SOURCES)}")


def check_whole_parts(given: Mapping[str, Any]) -> None:
    """Refuse ``skip_whole_parts`` where it would do nothing: its author counts on it.

    :raises ConfigurationError: names both.
    """
    if given.get("skip_whole_parts") is True and given.get("output_path") is None:
        raise ConfigurationError(
            "skip_whole_parts needs output_path, where it looks for the rows: without it, each run pays for all of them"
        )


def check_source_is_there(given: Mapping[str, Any]) -> None:
    """Refuse, when the task runs, a source that another task or a template has left empty.

    :raises ConfigurationError: says what to return instead.
    """
    if all(given.get(name) is None for name in SOURCES):
        raise ConfigurationError(
            "the source is None: the task or template that should give it returned nothing; return rows, or an empty "
            "list and say with on_empty what happens then"
        )


def argument_names(form: type[Any]) -> tuple[str, ...]:
    """Return the names of the arguments that an author may give."""
    return tuple(name for name, _, _ in _readers(form))


def _readers(form: Any) -> Iterable[tuple[str, Reader, Any]]:
    return ((each.name, each.metadata["reader"], each.default) for each in fields(form) if "reader" in each.metadata)


def _read(name: str, reader: Reader, value: Any, default: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    # A template renders None as a text. A frame compares each of its cells, so only texts are compared.
    if value is None or (isinstance(value, str) and value == "None" and reader not in _OF_TEXTS):
        value = default
        if default != "":
            return default
    return reader(name, value)


def default_deferrable() -> bool:
    """Return what ``[operators] default_deferrable`` says where somebody has set it, else True.

    Airflow's own default of that option is False, which nobody chose; a batch takes minutes to days. An airflow.cfg
    that Airflow has made holds all of its defaults; one that holds this option alone was written by a person.
    """
    from configparser import ConfigParser

    from airflow.sdk.configuration import conf

    option, neighbour = ("operators", "default_deferrable"), ("operators", "default_cpus")
    names = ("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE_CMD")
    in_a_file = isinstance(conf, ConfigParser) and ConfigParser.has_option(conf, *option)
    is_made_by_airflow = in_a_file and ConfigParser.has_option(conf, *neighbour)
    if (not in_a_file or is_made_by_airflow) and not any(name in os.environ for name in names):
        return True
    return bool(conf.getboolean(*option, fallback=True))
