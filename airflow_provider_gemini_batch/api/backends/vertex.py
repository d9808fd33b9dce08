"""Vertex AI: its wire format, one function for each request and the reading of its response.

A job is a flat ``BatchPredictionJob``; requests and responses live in Cloud Storage or BigQuery, never in the call.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError, Raw
from msgspec.json import decode

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.backends import CREATE_TIMEOUT_FACTOR, Outcome, check_is_asked
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    UnexpectedResponse,
    UnknownOutput,
)
from airflow_provider_gemini_batch.api.google.vertex_output import VertexOutput
from airflow_provider_gemini_batch.api.models import (
    BatchJob,
    BatchJobPage,
    CompletionStats,
    JobDestination,
    JobKind,
    JobProgress,
    JobSnapshot,
    JobSource,
    JobState,
    Service,
    SnapshotPage,
)
from airflow_provider_gemini_batch.api.responses.lines import BETWEEN_ROWS, OverlongLine, are_lines, result_rows
from airflow_provider_gemini_batch.api.responses.reading import parse_vertex_line, read_lines
from airflow_provider_gemini_batch.api.service_words import name_word
from airflow_provider_gemini_batch.api.transport import MAX_POLL_BYTES, Call, Retry
from airflow_provider_gemini_batch.api.urls import checked_base_url
from airflow_provider_gemini_batch.api.vertex_rules import MULTI_REGIONS, check_job
from airflow_provider_gemini_batch.api.wire import (
    dict_at,
    error_of,
    int_of,
    json_bytes,
    shown_text,
    state_of,
    text_at,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_gemini_batch.api.backends import NewJob
    from airflow_provider_gemini_batch.api.google.bigquery import ResponseTables
    from airflow_provider_gemini_batch.api.google.storage import ObjectStore
    from airflow_provider_gemini_batch.api.models import BatchResult
    from airflow_provider_gemini_batch.api.transport import Transport, WholeResponse

log = logging.getLogger(__name__)

_VERSION = "v1"
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}\Z")
_LOCATION = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
# The service requires a display name; this one is for callers who give none.
_NAMELESS = "gemini-batch"
_PAGE_MASK = "name,displayName,model,state,createTime,startTime,updateTime,endTime,completionStats,error,labels"


@dataclass(frozen=True)
class VertexPlace:
    """Project and location, and the base URL when it is not Google's."""

    project: str
    location: str
    base_url: str | None

    @classmethod
    def of(cls, project: str | None, location: str, *, base_url: str | None = None) -> VertexPlace:
        """Return the place after checking its parts. Raises ConfigurationError naming an invalid one."""
        if not project:
            raise ConfigurationError(
                "No Google Cloud project: set project_id on the connection or the operator (the credentials do not "
                "name one)."
            )
        if not _PROJECT.match(project) or ".." in project:
            raise ConfigurationError(
                f"Invalid project_id {names.in_words(project)}: expected a Google Cloud project id or number."
            )
        if not _LOCATION.match(location):
            raise ConfigurationError(
                f"Invalid location {names.in_words(location)}: expected a location such as 'global' or 'us-central1'."
            )
        return cls(project, location, checked_base_url(base_url) if base_url else None)

    def root(self, location: str | None = None) -> str:
        """Return the URL up to the version, for a job in this location (None: the place's own)."""
        where = location or self.location
        if self.base_url is not None:
            return f"{self.base_url}/{_VERSION}"
        if where == "global":
            return f"https://aiplatform.googleapis.com/{_VERSION}"
        if where in MULTI_REGIONS:
            return f"https://aiplatform.{where}.rep.googleapis.com/{_VERSION}"
        return f"https://{where}-aiplatform.googleapis.com/{_VERSION}"

    @property
    def jobs(self) -> str:
        """The URL of the collection of jobs."""
        return f"{self.root()}/projects/{self.project}/locations/{self.location}/batchPredictionJobs"


class VertexBackend:
    """Batch prediction jobs of one project and location."""

    service = Service.VERTEX

    def __init__(self, transport: Transport, storage: ObjectStore, tables: ResponseTables, place: VertexPlace) -> None:
        self._transport = transport
        self._storage = storage
        self._tables = tables
        self._output = VertexOutput(storage)
        self._place = place

    def create(self, new: NewJob) -> BatchJob:
        """Create a job that reads gs:// or bq:// and writes gs:// or bq://."""
        model = names.vertex_model(new.model)
        _refuse_what_is_gemini_only(new)
        check_job(
            model,
            self._place.location,
            source_table=new.bigquery_uri is not None,
            response_table=str(new.destination).startswith("bq://"),
        )
        body = {
            "displayName": new.display_name or _NAMELESS,
            "model": model,
            "inputConfig": _input_config(new),
            "outputConfig": _output_config(new.destination),
        }
        if new.labels:
            body["labels"] = names.labels(new.labels)
        call = Call(
            "create",
            "POST",
            self._place.jobs,
            subject=model,
            headers={"Content-Type": "application/json"},
            body=json_bytes(body),
            retry=Retry.UNSENT,
            timeout_factor=CREATE_TIMEOUT_FACTOR,
        )
        response = self._transport.send(call)
        return _job(response.json(), response, kind=new.kind)

    def get(self, name: str, *, brief: bool) -> BatchJob:  # noqa: ARG002  (a whole job is small here)
        """Return one job."""
        return self._fetch(name)[0]

    def list(self, *, page_size: int, page_token: str | None, filter_: str | None, brief: bool) -> BatchJobPage:
        """Return a page of jobs of this project and location."""
        response = self._page(page_size, page_token, filter_, brief=brief)
        entries, token = response.page("batchPredictionJobs")
        jobs = tuple(_job(entry, response) for entry in entries)
        return BatchJobPage(batch_jobs=jobs, next_page_token=token, as_of=response.date)

    def snapshots(self, *, page_size: int, page_token: str | None) -> SnapshotPage:
        """Return a page of snapshots of jobs."""
        response = self._page(page_size, page_token, None, brief=True)
        entries, token = response.page("batchPredictionJobs")
        return SnapshotPage([_snapshot(entry, response) for entry in entries], token)

    def _page(self, page_size: int, page_token: str | None, filter_: str | None, *, brief: bool) -> WholeResponse:
        params = {"pageSize": str(page_size)}
        params |= {"pageToken": page_token} if page_token else {}
        params |= {"filter": filter_} if filter_ else {}
        whole = Call("list", "GET", self._place.jobs, params=params)
        return self._transport.send_partial(whole, readMask=_PAGE_MASK) if brief else self._transport.send(whole)

    def cancel(self, name: str) -> None:
        """Request cancellation; the service refuses once the job has ended."""
        self._transport.send(Call("cancel", "POST", f"{self._url(name)}:cancel", subject=name)).check_accepted()

    def delete(self, name: str) -> None:
        """Delete a job that has ended. The service returns an operation, which in practice is done at once."""
        self._transport.send(Call("delete", "DELETE", self._url(name), subject=name)).check_accepted()

    def outcome(self, name: str) -> Outcome:
        """Return one job and its responses in Cloud Storage or BigQuery."""
        job, raw = self._fetch(name)
        if not job.is_done:
            return Outcome(job, None)
        try:
            left = self._output.of(job, raw)
        except UnknownOutput as problem:
            return Outcome(job, None, problem)
        if left.table is not None:
            return Outcome(job, self._table_results(left.table))
        return Outcome(job, None if left.files is None else self._results(left.files, left.others))

    def output_source(self, name: str) -> JobSource | None:
        """Return the objects or the table from which a new job can complete this one; None: it cannot be completed.

        The new job only processes rows that are in that output. So the output of a job that ended early must have a
        line for each row, done or not. The lines are counted; if they cannot be compared with the input, return None.
        Objects that are packed, or not lines of JSON, are first copied as such lines into a folder ``_lines`` beside
        them, since the service is not known to read other forms. If they cannot be read whole, return None.

        :raises AccessDenied: these credentials may not write that copy.
        """
        job, raw = self._fetch(name)
        left = self._output.of(job, raw)
        if left.table is None and not left.files:
            return None
        source = JobSource(gcs_uris=left.files or (), bigquery_uri=left.table)
        try:
            if not job.succeeded:
                wanted, found = _reported_rows(job) or self._count(job.src), self._count(source)
                if found != wanted:
                    log.warning(
                        "The output of %s holds %d rows of %s, so it cannot be completed.",
                        name,
                        found,
                        wanted or "unknown",
                    )
                    return None
            usable = [uri for uri in source.gcs_uris if are_lines(next(self._storage.iter_bytes(uri), b""))]
        except (AccessDenied, ConfigurationError, NotFound, UnexpectedResponse) as error:
            log.warning("Could not check whether the output of %s holds all rows: %s", name, error)
            return None
        try:
            uris = [uri if uri in usable else self._copy_as_lines(uri) for uri in source.gcs_uris]
        except UnexpectedResponse as error:
            log.warning("The output of %s cannot be completed: %s", name, error)
            return None
        return JobSource(gcs_uris=tuple(uris), bigquery_uri=left.table)

    def _copy_as_lines(self, uri: str) -> str:
        """Write the rows of an object as lines of JSON to another one, and return its address.

        :raises UnexpectedResponse: some rows cannot be read. :raises AccessDenied: these credentials may not write it.
        """
        folder, _, name = uri.rpartition("/")
        copy = f"{folder}/_lines/{name}.jsonl"
        try:
            with self._storage.write_whole(copy) as handle:
                for number, row in enumerate(result_rows(self._storage.iter_bytes(uri)), 1):
                    handle.write(_one_line(row, f"row {number} of {uri}"))
        except AccessDenied as error:
            raise AccessDenied(
                f"{error}. The next job continues from a copy there, since {uri} is compressed or not in lines of "
                "JSON: let these credentials create objects in this folder; nothing was sent",
                http_status=error.http_status,
                status=error.status,
            ) from error
        return copy

    def _count(self, source: JobSource) -> int:
        if source.bigquery_uri is not None:
            return self._tables.count(source.bigquery_uri)
        uris = [found for uri in source.gcs_uris for found in self._storage.matching(uri)]
        return sum(bool(line.strip()) for uri in uris for line in self._lines(uri))

    def file_results(self, file_name: str) -> Iterator[BatchResult]:
        """Raise ConfigurationError: Vertex AI writes to Cloud Storage and BigQuery, not to files of its own."""
        raise ConfigurationError(f"{file_name}: Vertex AI has no Files API")

    def _results(self, files: Sequence[str], others: Sequence[str]) -> Iterator[BatchResult]:
        """Yield the responses in objects; of those in ``others``, only what ``files`` lack."""
        if not others:
            yield from self._read(files)
            return
        # By a hash of its key, each row that was yielded. What failed in one attempt may be good in another.
        found: set[int] = set()
        for wants_good in (True, False):
            for uris in (files, others):
                for result in self._read(uris):
                    if result.key is None:
                        # Known by its place alone: so all in their order, and none of the others.
                        is_due = wants_good and uris is files
                    else:
                        row = hash(result.key)
                        is_due = (result.error is None) is wants_good and row not in found
                        found.update({row} if is_due else ())
                    if is_due:
                        yield result

    def _read(self, uris: Sequence[str]) -> Iterator[BatchResult]:
        return read_lines((line for uri in uris for line in self._lines(uri)), parse_vertex_line)

    def _lines(self, uri: str) -> Iterator[bytes]:
        return result_rows(self._storage.iter_bytes(uri))

    def _table_results(self, table: str) -> Iterator[BatchResult] | None:
        try:
            return self._tables.results(table)
        except NotFound:
            return None

    def _fetch(self, name: str) -> tuple[BatchJob, dict[str, Any]]:
        response = self._transport.send(Call("get", "GET", self._url(name), subject=name, max_bytes=MAX_POLL_BYTES))
        raw = response.json()
        return _job(raw, response, asked=name), raw

    def _url(self, name: str) -> str:
        """Return a job's URL, on the host of its own location, whichever location the connection names."""
        checked, location = names.vertex_job(name)
        return f"{self._place.root(location)}/{checked}"


def _one_line(row: bytes, what: str) -> bytes:
    """Return a row as a line of JSON. Raises UnexpectedResponse if it is too long or not a whole object."""
    line = b" ".join(row.strip(BETWEEN_ROWS).splitlines()) + b"\n"
    try:
        if not isinstance(row, OverlongLine):
            decode(line, type=dict[str, Raw])
            return line
    except (DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise UnexpectedResponse(f"{what} is not a whole JSON object, or is too long to be read")


def _refuse_what_is_gemini_only(new: NewJob) -> None:
    if new.inlined_requests is not None or new.file_name is not None:
        given = "file_name" if new.file_name is not None else "inlined_requests"
        raise ConfigurationError(
            f"{given}: Vertex AI takes neither inline requests nor uploaded files; give gcs_uri or bigquery_uri"
        )
    if new.priority is not None:
        raise ConfigurationError("priority: Vertex AI has none; only the Gemini API takes one")
    if new.settings:
        raise ConfigurationError(
            f"{', '.join(new.settings)}: the rows in Cloud Storage and BigQuery are read as they are, and the service "
            "has no such setting for a whole job: put it into each request"
        )


def _input_config(new: NewJob) -> dict[str, Any]:
    if new.bigquery_uri is not None:
        uri = names.bigquery_uri(new.bigquery_uri, "bigquery_uri")
        return {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": uri}}
    uris = [names.gcs_uri(uri, "gcs_uri") for uri in new.gcs_uris]
    return {"instancesFormat": "jsonl", "gcsSource": {"uris": uris}}


def _output_config(destination: str | None) -> dict[str, Any]:
    if not destination:
        raise ConfigurationError(
            "destination: Vertex AI needs one; give gs://bucket/prefix or bq://project.dataset.table"
        )
    if isinstance(destination, str) and destination.startswith("bq://"):
        uri = names.bigquery_uri(destination, "destination")
        return {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": uri}}
    prefix = names.gcs_uri(destination, "destination")
    return {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": prefix}}


def _source(raw: dict[str, Any]) -> JobSource:
    uris = dict_at(raw, "inputConfig", "gcsSource").get("uris")
    if isinstance(uris, str):  # the guide shows a plain string instead of a list
        uris = [uris]
    table = text_at(raw, "inputConfig", "bigquerySource", "inputUri")
    texts = [shown_text(uri) for uri in uris if isinstance(uri, str)] if isinstance(uris, list) else []
    return JobSource(gcs_uris=tuple(texts), bigquery_uri=table)


def _destination(raw: dict[str, Any]) -> JobDestination | None:
    """Return where the responses are: the place that the service reports, else the one that was requested."""
    info, config = dict_at(raw, "outputInfo"), dict_at(raw, "outputConfig")
    folder = text_at(info, "gcsOutputDirectory") or text_at(config, "gcsDestination", "outputUriPrefix")
    table = text_at(config, "bigqueryDestination", "outputUri")
    dataset, name = text_at(info, "bigqueryOutputDataset"), text_at(info, "bigqueryOutputTable")
    if name and name.startswith("bq://"):
        table = name
    elif dataset and name:
        table = f"{dataset}.{name}"
    return JobDestination(gcs_uri=folder, bigquery_uri=table) if folder or table else None


def _stats(raw: dict[str, Any]) -> CompletionStats | None:
    stats = raw.get("completionStats")
    if not isinstance(stats, dict):
        return None
    success, failure = int_of(stats.get("successfulCount")) or 0, int_of(stats.get("failedCount")) or 0
    pending = int_of(stats.get("incompleteCount")) or 0
    if pending < 0:  # "-1": the service does not know
        return CompletionStats(success=success, failure=failure)
    return CompletionStats(total=success + failure + pending, success=success, failure=failure, pending=pending)


def _state(raw: dict[str, Any], word: str) -> JobState:
    """Return the state. A job with an ``endTime`` has ended, even in an unknown state."""
    state = state_of(word)
    if state is not JobState.UNKNOWN or time_of(raw.get("endTime")) is None:
        return state
    return JobState.FAILED if error_of(raw.get("error")) else JobState.SUCCEEDED


def _reported_rows(job: BatchJob) -> int | None:
    """Return how many rows a job had, by its counts; None if they do not include the unfinished rows."""
    stats = job.completion_stats
    return stats.total if stats is not None and stats.pending else None


def _name(raw: dict[str, Any], response: WholeResponse, asked: str | None = None) -> str:
    name = raw.get("name")
    if not isinstance(name, str) or "/batchPredictionJobs/" not in name:
        raise UnexpectedResponse(f"{response.description}: the response describes no batch job")
    check_is_asked(name, asked, response.description)
    return name


def _snapshot(raw: dict[str, Any], response: WholeResponse) -> JobSnapshot:
    """Return the snapshot of a BatchPredictionJob."""
    state = name_word(raw.get("state"))
    return JobSnapshot(
        _name(raw, response),
        JobProgress.from_parts(_state(raw, state), state, _stats(raw), error_of(raw.get("error"))),
        time_of(raw.get("createTime")),
        time_of(raw.get("startTime")),
        response.date,
    )


def _job(
    raw: dict[str, Any], response: WholeResponse, *, kind: JobKind | None = None, asked: str | None = None
) -> BatchJob:
    """Return the job of a BatchPredictionJob; ``asked``: the name of the job that it must be.

    Its kind may have to be inferred from the model's name.
    """
    state = name_word(raw.get("state"))
    model = names.bare_model(shown_text(raw.get("model")))
    return BatchJob(
        name=_name(raw, response, asked),
        service=Service.VERTEX,
        state=_state(raw, state),
        raw_state=state,
        kind=kind or (JobKind.EMBEDDINGS if "embedding" in model else None),
        display_name=shown_text(raw.get("displayName")),
        model=model,
        create_time=time_of(raw.get("createTime")),
        start_time=time_of(raw.get("startTime")),
        update_time=time_of(raw.get("updateTime")),
        end_time=time_of(raw.get("endTime")),
        as_of=response.date,
        completion_stats=_stats(raw),
        error=error_of(raw.get("error")),
        src=_source(raw),
        dest=_destination(raw),
        labels={shown_text(key): shown_text(value) for key, value in dict_at(raw, "labels").items()},
    )
