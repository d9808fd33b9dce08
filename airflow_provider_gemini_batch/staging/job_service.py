"""The batch service as one task sees it: a :class:`BatchClient` behind the port of :mod:`~..batch.ports`.

Knows how the input of a job gets to the service (inline, upload, staged object, or the author's own source there),
with which name and labels the job is created, and how jobs are found again.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    ConfigurationError,
    FileFailed,
    FileNotReady,
    GeminiBatchError,
    InputUnavailable,
    NotFound,
)
from airflow_provider_gemini_batch.api.legacy import is_legacy, legacy_lines
from airflow_provider_gemini_batch.api.models import BatchJob, JobKind, Service
from airflow_provider_gemini_batch.api.paging import pages_of
from airflow_provider_gemini_batch.api.requests.request import CheckedLine
from airflow_provider_gemini_batch.batch.adoption import is_of_earlier_run
from airflow_provider_gemini_batch.batch.tag import LABEL_KEY, Tag, display_name, label_value, tag_of
from airflow_provider_gemini_batch.polling.policy import job_age, longest_wait
from airflow_provider_gemini_batch.rows.media import fits_inline
from airflow_provider_gemini_batch.staging import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import File
    from airflow_provider_gemini_batch.rows.layout import ShardFile

log = logging.getLogger(__name__)

_SMALL = 100_000

#: The label that all jobs of a task share; :data:`LABEL_KEY` holds the whole tag, which differs from job to job.
TASK_LABEL = "airflow-gemini-batch-task"
# An upload lives 48 hours; one that a crash left behind is used again only while the job can read it in time.
_YOUNG_UPLOAD = timedelta(hours=24)
# A longer wait for a file is deferred, so that no worker is held.
LONGEST_HOLD = 30.0
# Marks the second upload of the same content, after which there is no third.
AGAIN = " again"
_BLAMED_FILE = re.compile(r"\bFile (?:files/)?([a-z0-9-]{1,40}) is not\b")
_LABEL_REFUSED = re.compile(r"[^a-z0-9_-]+")


class RowSupply(Protocol):
    """The wire lines of a job's rows, as local files."""

    def shard(self, index: int) -> ShardFile:
        """Return the file of a whole shard."""

    def subset(self, rows: Sequence[int], name: str) -> ShardFile:
        """Return a new file with the lines of some rows."""

    def upload_attachments(self, lines: Path) -> None:
        """Upload or stage the files that go with these rows."""


@dataclass(frozen=True)
class JobSettings:
    """What every job of a task is created with.

    ``source`` holds ``file_name``, ``gcs_uri`` or ``bigquery_uri``, for input that is at the service already.
    ``staging_path`` is a gs:// folder, for Vertex AI only.
    """

    model: str
    kind: JobKind
    display_name: str | None = None
    priority: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    destination: str | None = None
    staging_path: str | None = None
    keep_input: bool = False
    reads_responses: bool = True
    run_began: datetime | None = None


@dataclass(frozen=True)
class ReadyInput:
    """Input that the service can read: arguments of the create call, and what is to be removed afterwards.

    ``lines``: the local file of rows that travel inside the call.
    """

    source: Mapping[str, Any] = field(repr=False)
    upload: str | None = None
    destination: str | None = None
    lines: Path | None = None


class ClientJobService:
    """The port :class:`~..batch.ports.JobService` over a client."""

    def __init__(
        self,
        client: BatchClient,
        settings: JobSettings,
        *,
        supply: RowSupply | None,
        before_create: Callable[[], None] = lambda: None,
    ) -> None:
        """Send nothing yet.

        :param supply: where rows of ours come from; None for a source that is at the service already.
        :param before_create: called right before a create call; raises if the task was asked to stop.
        """
        self._client = client
        self._settings = settings
        self._supply = supply
        self._before_create = before_create
        self._checked = False
        #: The names of the jobs that were created here, in this process.
        self.created: set[str] = set()
        #: The service's time when its list was last read, in seconds since the epoch.
        self.listed_at: float | None = None

    def get(self, name: str) -> BatchJob:
        """Return one job, with its source and destination, which a brief answer leaves out."""
        return self._client.get(name)

    def find(self, identity: str) -> Iterator[BatchJob]:
        """Yield this task's jobs, newest first, until they are older than its first try can be."""
        vertex = self._client.service is Service.VERTEX
        # A filter leaves few jobs, so they are read whole: a brief answer does not say where they write.
        wanted = f'labels.{TASK_LABEL}="{identity}"' if vertex else None
        self.listed_at = None
        for page in pages_of(lambda token: self._client.list(page_token=token, filter=wanted, brief=not vertex)):
            self.listed_at = page.as_of.timestamp() if page.as_of is not None else None
            # One job with an odd time, whoever made it, does not hide those after it.
            recent = [job for job in page.batch_jobs if not self._is_of_earlier_run(job)]
            for job in recent:
                tag = tag_of(job)
                if tag is not None and tag.identity == identity:
                    yield job
            if page.batch_jobs and not recent:
                return

    def _is_of_earlier_run(self, job: BatchJob) -> bool:
        began = self._settings.run_began
        return began is not None and is_of_earlier_run(job, run_began=began, now=datetime.now(tz=timezone.utc))

    def count_active(self, most: int) -> int:
        """Return how many jobs of the connection are active, whoever created them; stop counting at ``most``."""
        count = 0
        for job in self._client.list_all(brief=True):
            if count >= most or (job_age(job) or 0.0) > longest_wait(self._client.service):
                break
            count += not job.is_done
        return count

    def cancel(self, name: str) -> None:
        """Request the cancellation of a job; do nothing for one that has ended or is gone."""
        try:
            self._client.cancel(name)
        except NotFound:
            log.info("%s is gone already.", name)

    def prepare(
        self,
        tag: Tag,
        rows: Sequence[int] | None,
        *,
        reuse: bool,
        completes: Sequence[str] = (),
    ) -> ReadyInput:
        """Return the rows as the service reads them: inside the call, as an upload, or as a staged object.

        :raises InputUnavailable: failed rows are to be sent again, but no output holds them any more.
        """
        self._check_destination(tag)
        if self._supply is None:
            return self._what_is_left(tag, completes) if completes else self._existing(tag)
        shard = self._supply.shard(tag.shard) if rows is None else self._supply.subset(rows, str(tag))
        self._supply.upload_attachments(shard.path)
        if self._client.service is Service.VERTEX:
            return self._stage(tag, shard)
        if fits_inline(self._settings.model, shard.rows, shard.bytes, shard.path.read_bytes):
            return ReadyInput({"inlined_requests": _requests(shard.path)}, lines=shard.path)
        return self._upload(tag, shard.path, reuse=reuse)

    def _existing(self, tag: Tag) -> ReadyInput:
        named = self._settings.source.get("file_name")
        if named and not names.is_output_file(named):
            self._await_file(named)
        return ReadyInput(self._settings.source, destination=self._destination(tag))

    def _what_is_left(self, tag: Tag, completes: Sequence[str]) -> ReadyInput:
        """Return the output of the newest job that left a whole one, for the service to complete; else the source."""
        for name in reversed(completes):
            try:
                left = self._client.output_source(name)
            except NotFound:
                left = None
            if left is not None:
                log.info("Going on from the output of %s: the rows that it has finished are not done again.", name)
                source = {"gcs_uri": left.gcs_uris} if left.gcs_uris else {"bigquery_uri": left.bigquery_uri}
                destination = self._destination(tag) or ""
                if destination == self._settings.destination:
                    destination = places.next_destination(destination, tag)
                return ReadyInput(source, destination=destination)
        if tag.round:
            raise InputUnavailable(f"no output is left of {', '.join(completes)}, which holds the rows that failed")
        log.warning("No output of %s can be continued: all rows are sent again.", ", ".join(completes))
        return self._existing(tag)

    def _check_destination(self, tag: Tag) -> None:
        """Check, before a job is paid for, that its responses can be read where they will be written.

        :raises ConfigurationError: a library is missing, or the credentials do not allow reading there.
        """
        if self._client.service is not Service.VERTEX or not self._settings.reads_responses or self._checked:
            return
        destination = self._destination(tag) or ""
        try:
            self._client.check_readable(destination)
        except (AccessDenied, NotFound) as error:
            raise ConfigurationError(
                f"The responses could not be read where they would be written, so no job was made: {error} Let these "
                "credentials list and read there, or give another destination."
            ) from error
        self._checked = True

    def create(self, prepared: ReadyInput, tag: Tag) -> BatchJob:
        """Send the create call once."""
        settings = self._settings
        # The keys in an author's own source are the author's, whatever they look like.
        tag = replace(tag, wrapped=self._supply is not None)
        vertex = self._client.service is Service.VERTEX
        make = self._client.create_embeddings if settings.kind is JobKind.EMBEDDINGS else self._client.create
        labels = {**settings.labels, TASK_LABEL: tag.identity, LABEL_KEY: label_value(tag)} if vertex else None
        name = display_name(settings.display_name, tag)
        self._before_create()
        try:
            job = make(
                settings.model,
                **prepared.source,
                destination=prepared.destination,
                display_name=name,
                priority=settings.priority,
                labels=labels,
            )
        except (ApiError, FileNotReady) as error:
            self._explain_by_files(error, prepared)
            raise
        self.created.add(job.name)
        # The service need not repeat the name that it was given.
        return job if tag_of(job) is not None else job.model_copy(update={"display_name": name})

    def _explain_by_files(self, error: ApiError | FileNotReady, prepared: ReadyInput) -> None:
        """Raise what is wrong with a file, if a create call was refused because of the file's state.

        :raises FileFailed: it will never be ready.
        :raises FileNotReady: it is still being processed, whatever the service says.
        """
        if isinstance(error, ApiError) and (type(error) is not ApiError or error.status != "FAILED_PRECONDITION"):
            return
        blamed = {f"files/{found}" for found in _BLAMED_FILE.findall(str(error))}
        if named := prepared.source.get("file_name"):
            blamed.add(named)
        for name in sorted(blamed):
            self._raise_unless_ready(name)

    def _raise_unless_ready(self, name: str) -> None:
        try:
            self._client.wait_for_file(name, timeout=0)
        except (FileFailed, FileNotReady):
            raise
        except GeminiBatchError:
            return  # why the create call was refused says more than why the file could not be looked up

    def keep(self, prepared: ReadyInput, tag: Tag) -> str | None:
        """Upload rows that were to be sent inside the call, and return the name of the upload or staged object."""
        return prepared.upload if prepared.lines is None else self._upload(tag, prepared.lines, reuse=True).upload

    def kept(self, name: str, tag: Tag) -> ReadyInput | None:
        """Return an upload or staged object that an earlier process of this task made; None when it is not there."""
        if name.startswith("gs://"):
            there = self._client.storage.exists(name)
            return ReadyInput({"gcs_uri": name}, upload=name, destination=self._destination_of(tag)) if there else None
        try:
            file = self._client.get_file(name)
        except NotFound:
            return None
        return ReadyInput({"file_name": name}, upload=name) if file.is_ready else None

    def discard(self, prepared: ReadyInput) -> None:
        """Remove an upload or staged object that no job will read."""
        if prepared.upload is not None:
            self._remove(prepared.upload)

    def remove_inputs(self, jobs: Sequence[BatchJob]) -> None:
        """Remove the uploads and staged objects of jobs that have ended."""
        if self._supply is None or self._settings.keep_input:
            return
        for job in jobs:
            if not job.is_done:
                continue
            if job.src.file_name:
                self._remove(job.src.file_name)
            for uri in job.src.gcs_uris:
                if self._is_ours(uri, job, places.staged_input):
                    self._remove(uri)

    def remove_responses(self, jobs: Sequence[BatchJob]) -> None:
        """Remove the responses from our own folders, once the author has the result rows."""
        if self._settings.keep_input:
            return
        for job in jobs:
            folder = job.dest.gcs_uri if job.dest is not None else None
            if folder and self._is_ours(folder, job, places.staged_output):
                try:
                    self._client.storage.delete_folder(folder)
                except GeminiBatchError as error:
                    log.warning("Could not remove %s, which this task made: %s", folder, error)

    def place_of_responses(self, job: BatchJob) -> str | None:
        """Return the author's folder, or the table, where a job's responses stay; None if they do not stay."""
        dest = job.dest
        if dest is None:
            return None
        ours = dest.gcs_uri is not None and self._is_ours(dest.gcs_uri, job, places.staged_output)
        return dest.bigquery_uri or (None if ours else dest.gcs_uri)

    def _is_ours(self, uri: str, job: BatchJob, place: Callable[[str, Tag], str]) -> bool:
        tag, staging = tag_of(job), self._settings.staging_path
        return tag is not None and bool(staging) and f"{uri}/".startswith(f"{place(staging or '', tag)}/")

    def _destination(self, tag: Tag) -> str | None:
        """Return the author's destination, else one of ours; only Vertex AI needs one."""
        settings = self._settings
        if settings.destination is not None or self._client.service is not Service.VERTEX:
            return settings.destination
        table = settings.source.get("bigquery_uri")
        if table is not None:
            return places.response_table(str(table), tag)
        return places.staged_output(settings.staging_path or "", tag)

    def _upload(self, tag: Tag, path: Path, *, reuse: bool) -> ReadyInput:
        """Upload rows and wait until they can be used; upload them once more if the service fails to process them."""
        again = f"{tag}{AGAIN}"
        found = self._earlier_upload((again, str(tag)), path.stat().st_size) if reuse else None
        for name in (str(tag), again):
            if found is None:
                log.info("Uploading %s.", _size(path.stat().st_size))
                found = self._client.upload_file(path, display_name=name, wait=0)
            try:
                self._await_file(found.name)
            except (FileFailed, NotFound) as error:
                self._remove(found.name)
                if again in {name, found.display_name}:
                    raise
                log.warning("%s: uploading the rows once more.", error)
                found = None
            else:
                return ReadyInput({"file_name": found.name}, upload=found.name)
        raise AssertionError("the second upload is the last")

    def _await_file(self, name: str) -> None:
        """Wait for a file for as long as a worker may be held; after that FileNotReady makes the task defer."""
        self._client.wait_for_file(name, timeout=LONGEST_HOLD)

    def _earlier_upload(self, wanted: Sequence[str], size: int) -> File | None:
        """Return the upload of these very rows (the tag has their fingerprint) that an earlier try left; else None."""
        for page in pages_of(lambda token: self._client.list_files(page_size=100, page_token=token)):
            for file in page.files:
                whole = file.display_name in wanted and file.size_bytes == size
                if whole and file.create_time and file.expiration_time:
                    newest = max((one.create_time for one in page.files if one.create_time), default=file.create_time)
                    if newest - file.create_time < _YOUNG_UPLOAD:
                        log.info("Using the upload %s that an earlier try made.", file.name)
                        return file
        return None

    def _stage(self, tag: Tag, shard: ShardFile) -> ReadyInput:
        uri = places.staged_input(self._settings.staging_path or "", tag)
        log.info("Staging %s at %s.", _size(shard.bytes), uri)
        if is_legacy(self._settings.model):
            with shard.path.open("rb") as lines, self._client.storage.write_whole(uri) as handle:
                handle.writelines(legacy_lines(lines))
        else:
            self._client.storage.upload(shard.path, uri)
        return ReadyInput({"gcs_uri": uri}, upload=uri, destination=self._destination_of(tag))

    def _destination_of(self, tag: Tag) -> str | None:
        """Return where the responses to staged rows are written."""
        named = self._settings.destination
        return self._destination(tag) if named is None else places.own_destination(named, tag)

    def _remove(self, name: str) -> None:
        try:
            if name.startswith("gs://"):
                self._client.storage.delete(name)
            else:
                self._client.delete_file(name)
        except NotFound:
            return
        except GeminiBatchError as error:
            log.warning("Could not remove %s, which this task made: %s", name, error)


def _requests(path: Path) -> list[CheckedLine]:
    with path.open("rb") as lines:
        return [CheckedLine(line) for line in lines]


def job_labels(given: Mapping[str, str], *, dag_id: str, task_id: str, run_id: str) -> dict[str, str]:
    """Return the author's labels and the names of Dag, task and run, in the form that Google's labels allow.

    :raises ConfigurationError: a label breaks Google's rules, or has a name that is kept for ours.
    """
    parts = {"airflow-dag-id": dag_id, "airflow-task-id": task_id, "airflow-run-id": run_id}
    for name in (*parts, TASK_LABEL, LABEL_KEY):
        if name in given:
            raise ConfigurationError(f"label {name!r} is written by this provider itself: choose another name")
    ours = {name: _LABEL_REFUSED.sub("-", value.lower())[:63].strip("-_") for name, value in parts.items()}
    # The two that differ from job to job are checked too, so that nothing is staged for a job that would be refused.
    names.labels({**given, **ours, TASK_LABEL: "", LABEL_KEY: ""})
    return {**given, **ours}


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= _SMALL else f"{count:,} bytes"
