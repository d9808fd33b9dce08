"""BatchClient: everything that both batch services can do, without Airflow.

::

    with BatchClient.for_gemini(api_key) as client:
        job = client.create("gemini-2.5-flash", inlined_requests=["Name a prime above 10."])
        job = client.wait(job.name)
        for result in client.get_responses(job):
            print(result.key, result.response)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.backends import NewJob
from airflow_provider_gemini_batch.api.backends.gemini import DEFAULT_BASE_URL, GeminiBackend
from airflow_provider_gemini_batch.api.backends.vertex import VertexBackend, VertexPlace
from airflow_provider_gemini_batch.api.credentials import ApiKey, GoogleCredential, default_project, google_loader
from airflow_provider_gemini_batch.api.errors import ApiError, ConfigurationError, InputError, JobTimedOut, NotFound
from airflow_provider_gemini_batch.api.google.bigquery import ResponseTables
from airflow_provider_gemini_batch.api.google.files import LONGEST_PROCESSING, GeminiFiles
from airflow_provider_gemini_batch.api.google.storage import ObjectStore
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.names import job_page_url, name_of_job
from airflow_provider_gemini_batch.api.paging import pages_of
from airflow_provider_gemini_batch.api.responses.refusal import THE_CONNECTION, only_the_service
from airflow_provider_gemini_batch.api.responses.results import responses
from airflow_provider_gemini_batch.api.transport import Transport
from airflow_provider_gemini_batch.api.urls import checked_base_url, is_local_url

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.backends import Backend, RequestLike
    from airflow_provider_gemini_batch.api.models import (
        BatchJob,
        BatchJobPage,
        BatchResult,
        File,
        FilePage,
        JobSource,
        SnapshotPage,
    )

__all__ = ["BatchClient", "job_page_url"]


class BatchClient:
    """A client of one batch service; make it with :meth:`for_gemini` or :meth:`for_vertex`.

    One client may be used from several threads at once. Every call raises errors of
    :mod:`~airflow_provider_gemini_batch.api.errors` and no others: :class:`.ConfigurationError` before anything is
    sent, :class:`.TransportError` and :class:`.ApiError` after. Calls that are safe to repeat are repeated a few times
    when an error is retryable; ``create`` only when it surely was not sent.
    """

    def __init__(
        self,
        backend: Backend,
        transport: Transport,
        *,
        files: GeminiFiles | None = None,
        storage: ObjectStore | None = None,
        tables: ResponseTables | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Combine the parts of a client.

        :param clock: monotonic seconds, for :meth:`wait`; pauses use the transport's ``sleep``.
        """
        self._backend = backend
        self._transport = transport
        self._files_api = files
        self._storage = storage
        self._tables = tables
        self._clock = clock

    @classmethod
    def for_gemini(
        cls,
        api_key: str,
        *,
        base_url: str | None = None,
        timeout: float = 60.0,
        attempts: int = 4,
        owner: str = THE_CONNECTION,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Return a client of the Gemini Developer API.

        :param base_url: another host, for a gateway or an emulator; http:// only to this machine.
        :param timeout: seconds to wait for the next bytes of a response (five times as long when a job is created: the
            service reads the whole input first).
        :param attempts: how often a call that is safe to repeat is sent at most.
        :param owner: what holds the key, for the advice in errors: ``connection 'x'``.
        :raises ConfigurationError: the key is missing or has an invalid form, or the base URL cannot be used.
        """
        base = checked_base_url(base_url or DEFAULT_BASE_URL)
        transport = Transport(
            ApiKey(api_key),
            timeout=timeout,
            attempts=attempts,
            loopback=is_local_url(base),
            owner=owner,
            sleep=sleep,
        )
        files = GeminiFiles(transport, base_url=base, own_host=base_url is not None, clock=clock)
        backend = GeminiBackend(transport, files, base_url=base)
        return cls(backend, transport, files=files, clock=clock)

    @classmethod
    def for_vertex(
        cls,
        project_id: str | None,
        location: str = "global",
        *,
        credentials: Any = None,
        keyfile_dict: Mapping[str, Any] | None = None,
        key_path: str | None = None,
        credential_config_file: str | Mapping[str, Any] | None = None,
        impersonation_chain: str | Sequence[str] | None = None,
        iam_endpoint: str | None = None,
        quota_project_id: str | None = None,
        base_url: str | None = None,
        storage_endpoint: str | None = None,
        timeout: float = 60.0,
        attempts: int = 4,
        owner: str = THE_CONNECTION,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Return a client of Vertex AI.

        :param project_id: None: the one that the key file, or else Application Default Credentials, name.
        :param location: a region, ``us``, ``eu`` or ``global``.
        :param credentials: ready google-auth credentials; or ``keyfile_dict`` | ``key_path`` |
            ``credential_config_file`` (workload identity federation); none of them: Application Default Credentials.
        :param impersonation_chain: service accounts to go through, the last is the one that acts.
        :param iam_endpoint: base URL of the IAM Credentials API, for private endpoints.
        :param quota_project_id: the project that pays.
        :param storage_endpoint: base URL of Cloud Storage, for private endpoints and emulators.
        :param owner: what holds the credentials, for the advice in errors.
        :raises ConfigurationError: no project, two credentials, a file that cannot be read, or an invalid location.
        """
        load, key_project = google_loader(
            credentials=credentials,
            keyfile_dict=keyfile_dict,
            key_path=key_path,
            credential_config_file=credential_config_file,
            impersonation_chain=impersonation_chain,
            iam_endpoint=iam_endpoint,
            quota_project_id=quota_project_id,
        )
        project = project_id or key_project
        if not project and not (credentials or keyfile_dict or key_path or credential_config_file):
            project = default_project()
        place = VertexPlace.of(project, location, base_url=base_url)
        credential = GoogleCredential(load, timeout=timeout, owner=owner)
        transport = Transport(
            credential,
            timeout=timeout,
            attempts=attempts,
            loopback=is_local_url(place.base_url or ""),
            owner=owner,
            sleep=sleep,
        )
        storage = ObjectStore(credential, project=place.project, endpoint=storage_endpoint)
        tables = ResponseTables(credential, project=place.project)
        return cls(
            VertexBackend(transport, storage, tables, place), transport, storage=storage, tables=tables, clock=clock
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"BatchClient({self.service.value})"

    def close(self) -> None:
        """Close the pooled connections."""
        self._transport.close()

    def replace_by(self, other: BatchClient) -> None:
        """Take over another client's credentials and connections, for all code that holds this client."""
        self.close()
        vars(self).update(vars(other))

    @property
    def service(self) -> Service:
        """The service that this client calls."""
        return self._backend.service

    @property
    def storage(self) -> ObjectStore:
        """Cloud Storage with this client's credentials; Vertex AI only."""
        if self._storage is None:
            raise ConfigurationError("The Gemini API does not use Cloud Storage: use a connection to Vertex AI")
        return self._storage

    def create(
        self,
        model: str,
        *,
        inlined_requests: Iterable[RequestLike] | None = None,
        file_name: str | None = None,
        gcs_uri: str | Sequence[str] | None = None,
        bigquery_uri: str | None = None,
        destination: str | None = None,
        display_name: str | None = None,
        generation_config: Mapping[str, Any] | None = None,
        system_instruction: str | Mapping[str, Any] | None = None,
        request_defaults: Mapping[str, Any] | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> BatchJob:
        """Create a job that generates content. Each call costs money: two calls create two jobs.

        Exactly one source: ``inlined_requests`` or ``file_name`` (Gemini API), ``gcs_uri`` or ``bigquery_uri``
        (Vertex AI, which also needs a ``destination``).

        :param model: with or without ``models/``.
        :param inlined_requests: texts, requests in the service's form, or BatchRequests; at most 20 MiB in all.
        :param gcs_uri: one address or several; the last part may hold ``*``.
        :param generation_config: like the next two, a default for every inline request; a request's own value wins.
        :param request_defaults: any other member of a request: safetySettings, tools, cachedContent ...
        :param priority: Gemini API only; higher runs first.
        :param labels: Vertex AI only.
        :raises TransportError: if its ``sent`` is true, the job may exist: look for it before creating it again.
        """
        settings = {
            "generation_config": generation_config,
            "system_instruction": system_instruction,
            "request_defaults": request_defaults,
        }
        return self._create(
            NewJob(
                kind=JobKind.GENERATION,
                model=model,
                inlined_requests=inlined_requests,
                file_name=file_name,
                gcs_uris=_addresses(gcs_uri),
                bigquery_uri=bigquery_uri,
                destination=destination,
                display_name=display_name,
                settings={name: value for name, value in settings.items() if value is not None and value != {}},
                priority=priority,
                labels=labels or {},
            )
        )

    def create_embeddings(
        self,
        model: str,
        *,
        inlined_requests: Iterable[RequestLike] | None = None,
        file_name: str | None = None,
        gcs_uri: str | Sequence[str] | None = None,
        bigquery_uri: str | None = None,
        destination: str | None = None,
        display_name: str | None = None,
        task_type: str | None = None,
        output_dimensionality: int | None = None,
        request_defaults: Mapping[str, Any] | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> BatchJob:
        """Create a job that embeds texts; sources and errors are those of :meth:`create`.

        :param task_type: such as ``RETRIEVAL_DOCUMENT``; like the next, a default for every inline request.
        :param output_dimensionality: how many numbers a vector has.
        """
        settings = {
            "task_type": task_type,
            "output_dimensionality": output_dimensionality,
            "request_defaults": request_defaults,
        }
        return self._create(
            NewJob(
                kind=JobKind.EMBEDDINGS,
                model=model,
                inlined_requests=inlined_requests,
                file_name=file_name,
                gcs_uris=_addresses(gcs_uri),
                bigquery_uri=bigquery_uri,
                destination=destination,
                display_name=display_name,
                settings={name: value for name, value in settings.items() if value is not None and value != {}},
                priority=priority,
                labels=labels or {},
            )
        )

    def _create(self, new: NewJob) -> BatchJob:
        sources = {
            "inlined_requests": new.inlined_requests,
            "file_name": new.file_name,
            "gcs_uri": new.gcs_uris or None,
            "bigquery_uri": new.bigquery_uri,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "none is given"
            raise ConfigurationError(f"Exactly one source is needed, of {', '.join(sources)}: {what}")
        rows = new.inlined_requests
        if rows is not None and (isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable)):
            raise InputError("inlined_requests must be a list, one element for each request")
        if hasattr(rows, "columns"):
            raise InputError("inlined_requests is a frame: give a list of texts or of dicts in the service's form")
        if not isinstance(new.priority, int | None) or isinstance(new.priority, bool):
            raise ConfigurationError("priority must be a whole number")
        return self._backend.create(new)

    def get(self, name: BatchJob | str, *, brief: bool = False) -> BatchJob:
        """Return one job as it is now.

        :param name: the job, or its name.
        :param brief: return state, counts, times and error only, without ``src`` and ``dest``.
        :raises NotFound: the service does not know it, or not with these credentials.
        """
        return self._backend.get(name_of_job(name), brief=brief)

    def list(
        self,
        *,
        page_size: int = 100,
        page_token: str | None = None,
        filter: str | None = None,  # noqa: A002  (the service's word)
        brief: bool = False,
    ) -> BatchJobPage:
        """Return one page of jobs, newest first. An empty page may be followed by another one.

        :param filter: Vertex AI only, such as ``state="JOB_STATE_RUNNING" AND labels.team=a``.
        """
        if not isinstance(page_size, int) or not 1 <= page_size <= 1000:  # noqa: PLR2004
            raise ConfigurationError(f"page_size must be from 1 to 1000, not {page_size}")
        return self._backend.list(page_size=page_size, page_token=page_token, filter_=filter, brief=brief)

    def snapshots(self, *, page_size: int = 100, page_token: str | None = None) -> SnapshotPage:
        """Return one page of snapshots of jobs, newest first: a brief list, for polling thousands of jobs."""
        return self._backend.snapshots(page_size=page_size, page_token=page_token)

    def list_all(
        self,
        *,
        page_size: int = 100,
        filter: str | None = None,  # noqa: A002
        brief: bool = False,
    ) -> Iterator[BatchJob]:
        """Yield all jobs, newest first; pages are read as they are needed."""
        for page in pages_of(
            lambda token: self.list(page_size=page_size, page_token=token, filter=filter, brief=brief)
        ):
            yield from page.batch_jobs

    def cancel(self, name: BatchJob | str) -> None:
        """Request the cancellation of a job. It takes a while and may come too late; a job that has ended stays so.

        :raises NotFound: the service does not know the job.
        """
        with only_the_service(ApiError):
            try:
                self._backend.cancel(name_of_job(name))
            except ApiError as error:
                # How a service refuses a cancel that comes too late is not documented, so the job's state decides.
                if type(error) not in {ApiError, NotFound} or not self.get(name, brief=True).is_done:
                    raise

    def delete(self, name: BatchJob | str) -> None:
        """Delete a job. Vertex AI refuses while it runs; cancel it first."""
        with only_the_service(ApiError):
            self._backend.delete(name_of_job(name))

    def wait(
        self,
        name: BatchJob | str,
        *,
        poll_interval: float = 60.0,
        timeout: float | None = None,
        on_progress: Callable[[BatchJob], None] | None = None,
        renew: Callable[[], None] | None = None,
    ) -> BatchJob:
        """Wait until a job has ended, well or not, and return it whole. Blocks its thread: in Airflow, defer instead.

        The rules are those of a task: see :mod:`~airflow_provider_gemini_batch.polling.job_wait`. Temporary errors do
        not end the wait. A job that was just created may be unknown to the service for two minutes. A job that has
        ended counts as ended even after the deadline.

        :param poll_interval: seconds between two polls; a young job is polled more often, an old one less.
        :param timeout: seconds; None waits for as long as it takes.
        :param on_progress: called with the job whenever its state or counts have changed.
        :param renew: called when the credentials were refused, before a second attempt; may replace them with
            :meth:`replace_by`.
        :raises JobTimedOut: the job did not end in time; it goes on.
        :raises NotFound: the service does not know the job.
        :raises AccessDenied: the credentials were refused, twice.
        :raises ApiError: the service refused to show the job, twice, a minute apart.
        """
        if poll_interval <= 0:
            raise ConfigurationError(f"poll_interval must be above 0 seconds, not {poll_interval:g}")
        # The only imports that point upwards: polling needs this module's values, so it cannot be imported at the top.
        from airflow_provider_gemini_batch.polling.blocking import BlockingWait
        from airflow_provider_gemini_batch.polling.job_wait import JobWait
        from airflow_provider_gemini_batch.polling.policy import WaitPolicy
        from airflow_provider_gemini_batch.polling.report import Reason

        last: BatchJob | None = None

        def read(job_name: str) -> BatchJob:
            nonlocal last
            last = self.get(job_name, brief=True)
            if last.is_done:
                last = self.get(job_name)
            return last

        deadline = inf if timeout is None else self._clock() + timeout
        wait = JobWait([name_of_job(name)], WaitPolicy(deadline, poll_interval))
        driver = BlockingWait(wait, read, now=self._clock, renew=renew, on_progress=on_progress)
        report = driver.run(self._transport.sleep)
        if report.reason is Reason.ENDED and last is not None:
            return last
        (ended,) = wait.jobs
        if ended.report is not None and ended.report.error is not None:
            raise ended.report.error
        raise JobTimedOut(f"Waited {round(timeout or 0.0, 1):g} s: {report.message}; the job goes on", job=last)

    def get_responses(self, job: BatchJob | str) -> Iterator[BatchResult]:
        """Yield the responses of a job that has ended, in the service's order and with its keys.

        Errors about the job are raised at once; the rows then stream from where the service keeps them. If the output
        is a little late, this waits for it. A cancelled or expired job has the rows that were finished, if any.

        :raises JobError: the job has not ended. :raises JobFailed: it failed and has no responses.
        :raises ResultsGone: it ended well but the service no longer keeps its responses.
        """
        return responses(self._backend, job, sleep=self._transport.sleep)

    def check_readable(self, destination: str) -> None:
        """Raise the error that reading responses from a place would raise, before a job is created that writes there.

        :param destination: a gs:// folder or a bq:// table, which need not exist yet.
        :raises ConfigurationError: a library is missing. :raises AccessDenied: these credentials may not read there.
        :raises NotFound: the bucket or dataset does not exist.
        """
        if self._storage is None or self._tables is None:
            raise ConfigurationError("The Gemini API keeps responses itself: only Vertex AI writes to a destination")
        place = self._tables if destination.startswith("bq://") else self._storage
        place.check_readable(destination)

    def output_source(self, job: BatchJob | str) -> JobSource | None:
        """Return the output of an ended job as the input for a new job of the same model that completes it.

        Vertex AI only: given the output of a job that failed, was cancelled or expired, the new job processes the
        unfinished rows and copies the others
        (https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, "Resume a job").
        An output that is compressed, or not in lines of JSON, is first copied as such, into a folder ``_lines`` in it.

        :returns: addresses of objects, or a table; None when the job left nothing, or not a line for each of its rows,
            or the service cannot do this.
        :raises NotFound: the service does not know the job.
        """
        with only_the_service():
            return self._backend.output_source(name_of_job(job))

    def upload_file(
        self,
        file: str | os.PathLike[str] | BinaryIO,
        *,
        display_name: str | None = None,
        mime_type: str = "application/jsonl",
        name: str | None = None,
        wait: float = LONGEST_PROCESSING,
    ) -> File:
        """Upload a file of at most 2 GiB in chunks, resuming after broken connections. It is kept for 48 hours.

        Return when the service has processed the file: a job cannot use it earlier. If processing fails, the file is
        deleted and uploaded once more.

        :param file: a path, or a seekable binary file, which is read from its current position.
        :param display_name: None: the file's own name.
        :param name: ``files/<id>``; None: the service chooses one.
        :param wait: seconds to wait for processing; 0: return the file as it is after the upload.
        :raises InputError: the file cannot be read or is too large.
        :raises FileNotReady: it was uploaded, but not processed in time; see :meth:`wait_for_file`.
        :raises FileFailed: the service cannot use it, in its words.
        """
        return self._files.upload(file, display_name=display_name, mime_type=mime_type, name=name, wait=wait)

    def wait_for_file(self, file: File | str, *, timeout: float = LONGEST_PROCESSING) -> File:
        """Return an upload once the service has processed it, which takes a while for a large file.

        Polls after 1, 2, 4, 8 and then every 15 seconds (https://ai.google.dev/gemini-api/docs/files).

        :param file: the upload, or its name.
        :param timeout: seconds.
        :raises FileNotReady: not in time. :raises FileFailed: processing failed; the message quotes the service.
        :raises NotFound: unknown or expired.
        """
        return self._files.wait(self._files.get(file) if isinstance(file, str) else file, timeout=timeout)

    def get_file(self, name: str) -> File:
        """Return an uploaded file. Outputs of batches cannot be looked up, only downloaded.

        :raises NotFound: unknown, expired, or another project's.
        """
        return self._files.get(name)

    def list_files(self, *, page_size: int = 100, page_token: str | None = None) -> FilePage:
        """Return one page of files, at most 100."""
        if not 1 <= page_size <= 100:  # noqa: PLR2004
            raise ConfigurationError(f"page_size must be from 1 to 100, not {page_size}")
        return self._files.list(page_size=page_size, page_token=page_token)

    def delete_file(self, name: str) -> None:
        """Delete an uploaded file. Outputs of batches cannot be deleted; they expire."""
        self._files.delete(name)

    def download_file(self, name: str, target: str | os.PathLike[str] | BinaryIO) -> int:
        """Download the output of a batch to a path, which appears when complete, or an open file; return its size."""
        return self._files.download(name, target)

    def iter_download(self, name: str) -> Iterator[bytes]:
        """Yield the output of a batch in pieces, resuming after a cut; errors in opening it are raised at once."""
        return self._files.iter_download(name)

    @property
    def _files(self) -> GeminiFiles:
        if self._files_api is None:
            raise ConfigurationError("Vertex AI has no Files API: keep files in Cloud Storage and give gs:// addresses")
        return self._files_api


def _addresses(gcs_uri: str | Sequence[str] | None) -> tuple[str, ...]:
    uris = (gcs_uri,) if isinstance(gcs_uri, str) else tuple(gcs_uri or ())
    if gcs_uri is not None and not uris:
        raise InputError("gcs_uri is empty: there is nothing to send")
    return uris
