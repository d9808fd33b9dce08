"""The Gemini Developer API: its wire format, one function for each request and the reading of its response.

A job is a long-running operation whose ``metadata`` describes it and, at the end, says where the responses are. Version
``v1beta`` is the one that Google's guide and reference use for batches.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.backends import CREATE_TIMEOUT_FACTOR, Outcome, check_is_asked
from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    InputError,
    NotFound,
    ResponseTooLarge,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.google.files import API_VERSION, iter_resuming
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
from airflow_provider_gemini_batch.api.requests.fields import snake
from airflow_provider_gemini_batch.api.requests.request import (
    INLINE_LIMIT_BYTES,
    CheckedLine,
    inline_item,
    inline_line,
    normalise,
    request_defaults,
)
from airflow_provider_gemini_batch.api.responses.lines import objects_of_list, result_rows
from airflow_provider_gemini_batch.api.responses.reading import (
    INLINE_RESPONSES,
    inline_results,
    parse_result_line,
    read_lines,
)
from airflow_provider_gemini_batch.api.responses.refusal import check_is_service
from airflow_provider_gemini_batch.api.service_words import name_word
from airflow_provider_gemini_batch.api.transport import MAX_POLL_BYTES, Call, Retry
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
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.api.backends import NewJob
    from airflow_provider_gemini_batch.api.google.files import GeminiFiles
    from airflow_provider_gemini_batch.api.models import BatchResult, ServiceError
    from airflow_provider_gemini_batch.api.transport import Transport, WholeResponse

log = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
_VERBS = {JobKind.GENERATION: "batchGenerateContent", JobKind.EMBEDDINGS: "asyncBatchEmbedContent"}
_JOB_MASK = (
    "name,done,error,metadata(model,displayName,state,batchStats,createTime,startTime,updateTime,endTime,priority)"
)
# A job may hold the responses to 20 MiB of inline requests; calls that only need its state leave them out. From so
# many bytes or values on, they are read one by one.
_MOST_INLINE_BYTES = 64 * 2**20
_LISTS = (*INLINE_RESPONSES, *map(snake, INLINE_RESPONSES))
_INLINE_LIST = re.compile(rb'(?<!\\)"(?:%b)"\s{0,100}:\s{0,100}\[' % "|".join(_LISTS).encode())
_MOST_INLINE_VALUES = 10_000_000
_IN_AN_ADDRESS = re.compile(r"https?://[^?#]*/(files/[\w.~-]+)")
_CANCELLED = 1  # of google.rpc.Code
_PAGE_MASK = f"nextPageToken,operations({_JOB_MASK})"


class GeminiBackend:
    """Batches of the Gemini Developer API, for one API key."""

    service = Service.GEMINI

    def __init__(self, transport: Transport, files: GeminiFiles, *, base_url: str) -> None:
        self._transport = transport
        self._files = files
        self._root = f"{base_url}/{API_VERSION}"

    def create(self, new: NewJob) -> BatchJob:
        """Create a job from inline requests or an uploaded file."""
        model = names.gemini_model(new.model)
        self._refuse_what_is_vertex_only(new)
        batch: dict[str, Any] = {}
        if new.display_name:
            batch["displayName"] = new.display_name
        if new.priority is not None:
            batch["priority"] = str(new.priority)
        if new.file_name is not None:
            if new.settings:
                raise ConfigurationError(
                    f"{', '.join(new.settings)}: the rows of an uploaded file cannot be changed any more, and the "
                    "service has no such setting for a whole job: put it into each request of the file"
                )
            config = json_bytes({"fileName": names.file_name(new.file_name)})
        else:
            config = b'{"requests":{"requests":[%b]}}' % b",".join(_inline_items(new))
        call = Call(
            "create",
            "POST",
            f"{self._root}/{model}:{_VERBS[new.kind]}",
            subject=model,
            headers={"Content-Type": "application/json"},
            body=_create_body(batch, config),
            retry=Retry.UNSENT,
            timeout_factor=CREATE_TIMEOUT_FACTOR,
        )
        response = self._transport.send(call)
        return _job(response.json(), response, kind=new.kind)

    @staticmethod
    def _refuse_what_is_vertex_only(new: NewJob) -> None:
        if new.gcs_uris or new.bigquery_uri is not None:
            given = "gcs_uri" if new.gcs_uris else "bigquery_uri"
            raise ConfigurationError(
                f"{given}: the Gemini API reads neither Cloud Storage nor BigQuery; give inlined_requests or "
                "file_name, or use a connection to Vertex AI"
            )
        if new.destination is not None:
            raise ConfigurationError("destination: the Gemini API keeps the responses itself; only Vertex AI takes one")
        if new.labels:
            raise ConfigurationError("labels: jobs of the Gemini API have none; only Vertex AI takes them")

    def get(self, name: str, *, brief: bool) -> BatchJob:
        """Return one job."""
        if not brief:
            return self._fetch(name)[0]
        try:
            response = self._get(name, mask=_JOB_MASK)
            operation = response.json()
        except ResponseTooLarge:
            # The mask went unread: some gateways drop the parameters that they do not know.
            call = replace(self._call(name), without=_INLINE_LIST, max_bytes=MAX_POLL_BYTES)
            response = self._transport.send(call)
            operation = response.json()
        return _job(operation, response, asked=name)

    def list(self, *, page_size: int, page_token: str | None, filter_: str | None, brief: bool) -> BatchJobPage:
        """Return a page of jobs, newest first."""
        if filter_ is not None:
            raise ConfigurationError("filter: the Gemini API documents none for batches; only Vertex AI takes one")
        response = self._page(page_size, page_token, _PAGE_MASK if brief else None)
        entries, token = response.page("operations")
        jobs = tuple(_job(entry, response) for entry in entries)
        return BatchJobPage(batch_jobs=jobs, next_page_token=token, as_of=response.date)

    def snapshots(self, *, page_size: int, page_token: str | None) -> SnapshotPage:
        """Return a page of snapshots of jobs."""
        response = self._page(page_size, page_token, _PAGE_MASK)
        entries, token = response.page("operations")
        return SnapshotPage([_snapshot(entry, response) for entry in entries], token)

    def _page(self, page_size: int, page_token: str | None, mask: str | None) -> WholeResponse:
        """Request a page, always with its size: without one, the list may be empty."""
        params = {"pageSize": str(page_size)}
        if page_token:
            params["pageToken"] = page_token
        return self._get_masked("list", f"{self._root}/batches", "", params, mask)

    def cancel(self, name: str) -> None:
        """Request cancellation; the service goes on for a while and may still finish the job."""
        url = f"{self._root}/{names.gemini_job(name)}:cancel"
        self._transport.send(Call("cancel", "POST", url, subject=name)).check_accepted()

    def delete(self, name: str) -> None:
        """Delete a job; its input and output files remain."""
        url = f"{self._root}/{names.gemini_job(name)}"
        self._transport.send(Call("delete", "DELETE", url, subject=name)).check_accepted()

    def outcome(self, name: str) -> Outcome:
        """Return one job and its responses; an output file that does not exist yet counts as no responses."""
        job, operation = self._fetch(name)
        if job.dest is None or not job.is_done:
            return Outcome(job, None)
        if operation is None:
            chunks = iter_resuming(self._transport, self._call(name))
            return Outcome(job, read_lines(objects_of_list(chunks, _INLINE_LIST), parse_result_line))
        if job.dest.file_name is None:
            return Outcome(job, inline_results(_output(operation)))
        try:
            return Outcome(job, self.file_results(job.dest.file_name))
        except NotFound as error:
            check_is_service(error)
            return Outcome(job, None)

    def output_source(self, name: str) -> JobSource | None:
        """Return None: this service cannot complete an ended job."""
        names.gemini_job(name)
        return None

    def file_results(self, file_name: str) -> Iterator[BatchResult]:
        """Yield the results in an output file. Raises NotFound when it does not exist yet, or no longer."""
        chunks = self._files.iter_download(file_name)
        return read_lines(result_rows(chunks), parse_result_line)

    def _fetch(self, name: str) -> tuple[BatchJob, dict[str, Any] | None]:
        """Return one job and its operation; None for the latter if its inline responses are too large for one piece."""
        try:
            response = self._get(name, mask=None)
            operation = response.json()
        except ResponseTooLarge:
            return self.get(name, brief=True).model_copy(update={"dest": JobDestination(inlined=True)}), None
        return _job(operation, response, asked=name), operation

    def _call(self, name: str) -> Call:
        return Call("get", "GET", f"{self._root}/{names.gemini_job(name)}", subject=name)

    def _get(self, name: str, *, mask: str | None) -> WholeResponse:
        return self._get_masked("get", self._call(name).url, name, {}, mask)

    def _get_masked(
        self, operation: str, url: str, subject: str, params: dict[str, str], mask: str | None
    ) -> WholeResponse:
        """Send a GET for the fields in a mask, or for everything. Masks into an ``Any`` are not documented."""
        whole = Call(operation, "GET", url, subject=subject, params=params)
        if mask is not None:
            return self._transport.send_partial(whole, fields=mask)
        return self._transport.send(replace(whole, max_bytes=_MOST_INLINE_BYTES, max_values=_MOST_INLINE_VALUES))


def _inline_items(new: NewJob) -> list[bytes]:
    """Return inline requests in the service's form. Raises InputError naming one that cannot be sent."""
    defaults = request_defaults(new.kind, model=new.model, **new.settings)
    warnings: set[str] = set()
    first_use: dict[str, int] = {}
    items: list[bytes] = []
    for position, row in enumerate(() if new.inlined_requests is None else new.inlined_requests):
        if isinstance(row, CheckedLine):
            items.append(inline_line(row))
            continue
        try:
            key, request = normalise(row, kind=new.kind, defaults=defaults, warnings=warnings)
            item = json_bytes(inline_item(key, request))
        except InputError as error:
            raise InputError(f"inlined_requests[{position}]: {error}") from error
        if key is not None and first_use.setdefault(key, position) != position:
            raise InputError(f"inlined_requests[{position}] has the same key as [{first_use[key]}]: {key[:64]!r}")
        items.append(item)
    if not items:
        raise InputError("inlined_requests is empty: there is nothing to send")
    for warning in sorted(warnings):
        log.warning("%s", warning)
    return items


def _create_body(batch: dict[str, Any], input_config: bytes) -> bytes:
    """Return the body of a create call; ``input_config`` is JSON already."""
    settings = b"".join(b"%b:%b," % (json_bytes(name), json_bytes(value)) for name, value in batch.items())
    body = b'{"batch":{%b"inputConfig":%b}}' % (settings, input_config)
    if len(body) > INLINE_LIMIT_BYTES:
        raise InputError(
            f"the inline requests make {len(body) / 2**20:.1f} MiB, and the service takes at most "
            f"{INLINE_LIMIT_BYTES / 2**20:g} MiB: use input_path, or upload_file and file_name"
        )
    return body


def _output(operation: dict[str, Any]) -> dict[str, Any]:
    """Return where the responses are: ``metadata.output``, else ``response``; the service may fill only one.

    ``dest`` is what the SDK and Google's guide call it, and gateways after them.
    """
    paths = (("metadata", "output"), ("response",), ("response", "output"), ("metadata", "dest"), ("dest",))
    places = [dict_at(operation, *path) for path in paths]
    found = [place for place in places if _destination(place) is not None]
    full = (place for place in found if _file_name(place) or any(True for _ in inline_results(place)))
    return next(full, next(iter(found), {}))


def _file_name(output: dict[str, Any]) -> str | None:
    """Return the name of an output file, which may be given as an address."""
    name = text_at(output, "responsesFile") or text_at(output, "fileName")
    address = name and _IN_AN_ADDRESS.search(name)
    name = address[1] if address else name
    # The reference calls it an id.
    return name if name is None or "/" in name else f"files/{name}"


def _destination(output: dict[str, Any]) -> JobDestination | None:
    file_name = _file_name(output)
    if file_name:
        return JobDestination(file_name=file_name)
    return JobDestination(inlined=True) if any(name in output for name in INLINE_RESPONSES) else None


def _error(operation: dict[str, Any]) -> ServiceError | None:
    return error_of(operation.get("error")) or error_of(dict_at(operation, "metadata").get("error"))


def _state(operation: dict[str, Any], raw: str) -> JobState:
    """Return the state. Where ``done`` contradicts it, ``done`` counts; the raw name is kept.

    Without either, an operation that holds a response or an error has ended.
    An operation that was cancelled ends with the error code 1:
    https://github.com/googleapis/googleapis/blob/master/google/longrunning/operations.proto (CancelOperation)
    """
    state, error = state_of(raw), _error(operation)
    has_ended = str(operation.get("done")).lower() == "true" or (not raw and bool(error or operation.get("response")))
    if state.is_terminal or not has_ended:
        return state
    if state is JobState.CANCELLING or (error is not None and error.code == _CANCELLED):
        return JobState.CANCELLED
    return JobState.FAILED if error else JobState.SUCCEEDED


def _kind(metadata: dict[str, Any], model: str) -> JobKind | None:
    """Return the kind that the service names, else that of the model's name: a partial response leaves out the type."""
    type_name = str(metadata.get("@type") or "").rpartition(".")[2]
    if type_name.startswith("EmbedContent") or (not type_name and "embedding" in model):
        return JobKind.EMBEDDINGS
    return JobKind.GENERATION if type_name.startswith("GenerateContent") else None


def _stats(metadata: dict[str, Any]) -> CompletionStats | None:
    stats = metadata.get("batchStats")
    if not isinstance(stats, dict):
        return None
    return CompletionStats(
        total=int_of(stats.get("requestCount")),
        success=int_of(stats.get("successfulRequestCount")) or 0,
        failure=int_of(stats.get("failedRequestCount")) or 0,
        # The service leaves out counters that are zero.
        pending=int_of(stats.get("pendingRequestCount")) or 0,
    )


def _name(
    operation: dict[str, Any], metadata: dict[str, Any], response: WholeResponse, asked: str | None = None
) -> str:
    name = operation.get("name") or metadata.get("name")
    if not isinstance(name, str) or not name.startswith("batches/"):
        raise UnexpectedResponse(f"{response.description}: the response describes no batch job")
    check_is_asked(name, asked, response.description)
    return name


def _snapshot(operation: dict[str, Any], response: WholeResponse) -> JobSnapshot:
    """Return the snapshot of an operation."""
    metadata = dict_at(operation, "metadata")
    raw = name_word(metadata.get("state"))
    return JobSnapshot(
        _name(operation, metadata, response),
        JobProgress.from_parts(_state(operation, raw), raw, _stats(metadata), _error(operation)),
        time_of(metadata.get("createTime")),
        time_of(metadata.get("startTime")),
        response.date,
    )


def _job(
    operation: dict[str, Any], response: WholeResponse, *, kind: JobKind | None = None, asked: str | None = None
) -> BatchJob:
    """Return the job of an operation; ``asked``: the name of the job that it must be."""
    metadata = dict_at(operation, "metadata")
    raw = name_word(metadata.get("state"))
    model = names.bare_model(shown_text(metadata.get("model")))
    return BatchJob(
        name=_name(operation, metadata, response, asked),
        service=Service.GEMINI,
        state=_state(operation, raw),
        raw_state=raw,
        kind=kind or _kind(metadata, model),
        display_name=shown_text(metadata.get("displayName")),
        model=model,
        create_time=time_of(metadata.get("createTime")),
        start_time=time_of(metadata.get("startTime")),
        update_time=time_of(metadata.get("updateTime")),
        end_time=time_of(metadata.get("endTime")),
        as_of=response.date,
        completion_stats=_stats(metadata),
        error=_error(operation),
        src=JobSource(file_name=text_at(metadata, "inputConfig", "fileName")),
        dest=_destination(_output(operation)),
        priority=int_of(metadata.get("priority")),
    )
