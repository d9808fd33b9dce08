"""The operators: what a Dag author writes. Each is a thin layer over :mod:`.runtime.create_task`.

Rules of this file: importing it loads nothing beyond what Airflow has loaded when it parses a Dag; whatever sends,
reads or stages is imported when a task runs.
"""

from __future__ import annotations

from contextlib import contextmanager
from numbers import Number
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_gemini_batch.api.states import JobKind
from airflow_provider_gemini_batch.links import GeminiBatchJobLink, GeminiBatchLink, GeminiBatchOutputLink
from airflow_provider_gemini_batch.runtime.arguments import (
    DEFAULT_CONN_ID,
    DEFAULT_MAX_XCOM_BYTES,
    BatchArguments,
    ConnectionArguments,
    JobArguments,
    ListArguments,
    ResponsesArguments,
    UploadArguments,
    argument_names,
    check_one_source,
    check_parsed,
    check_source_is_there,
    check_whole_parts,
    default_deferrable,
    read_arguments,
)
from airflow_provider_gemini_batch.runtime.dag_errors import naming_the_task
from airflow_provider_gemini_batch.runtime.rendering import Uncalled, is_without_templates, renderable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from jinja2 import Environment
    from pydantic import BaseModel

    from airflow_provider_gemini_batch.hooks import GeminiBatchHook
    from airflow_provider_gemini_batch.runtime.create_task import TaskRun

# Arguments whose names BaseOperator uses for something else.
_ATTRIBUTES = {"dry_run": "is_dry_run", "task_type": "embedding_task_type"}
# Not rendered: prompt_template has braces of its own, and a class is not a text.
_NOT_RENDERED = {"prompt_template", "output_schema"}
_OF_GENERATION = {"generation_config", "system_instruction", "output_schema", "media_field", "media_root"}
_OF_EMBEDDINGS = {"task_type", "output_dimensionality", "title_field"}


def _templated(form: type[Any], *, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the attributes that Airflow renders: all arguments, even numbers, since any may come from a template."""
    left_out = {*without, *_NOT_RENDERED}
    return tuple(_ATTRIBUTES.get(name, name) for name in argument_names(form) if name not in left_out)


class _GeminiOperator(BaseOperator):
    """What all operators share: the connection, and arguments that are checked when the Dag is parsed and when it runs.

    Every argument is templated; ``_form`` is the class of a subclass's arguments.
    """

    _form: ClassVar[type[ConnectionArguments]] = ConnectionArguments
    template_fields: Sequence[str] = _templated(ConnectionArguments)
    # No template_ext: gs:// addresses and .jsonl paths are values, not template files.
    ui_color = "#d2e3fc"

    def __init__(
        self,
        *,
        gemini_conn_id: str = DEFAULT_CONN_ID,
        location: str | None = None,
        project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gemini_conn_id = gemini_conn_id
        self.location = location
        self.project_id = project_id

    def hook(self) -> GeminiBatchHook:
        """Return the hook for this task's connection."""
        from airflow_provider_gemini_batch.hooks import GeminiBatchHook

        own = read_arguments(ConnectionArguments, self._given())
        return GeminiBatchHook(own.gemini_conn_id, location=own.location, project_id=own.project_id)

    @contextmanager
    def _connected(self) -> Iterator[GeminiBatchHook]:
        """Yield the open hook; errors are raised in Airflow's terms, those about credentials name the connection."""
        from airflow_provider_gemini_batch.api.responses.refusal import only_the_service
        from airflow_provider_gemini_batch.runtime.client import airflow_errors

        opened: list[GeminiBatchHook] = []
        with airflow_errors(lambda: vars(opened[0]).get("settings") if opened else None), self.hook() as hook:
            opened.append(hook)
            with only_the_service():
                yield hook

    def _given(self) -> dict[str, Any]:
        """Return the author's arguments as they are now: as written, or rendered."""
        attributes = {name: _ATTRIBUTES.get(name, name) for name in argument_names(self._form)}
        return {name: getattr(self, held) for name, held in attributes.items() if hasattr(self, held)}

    def render_template(
        self, content: Any, context: Context, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Return a value with its templates rendered, those in typed requests and in paths too."""
        if is_without_templates(content, jinja_env) and not self.template_ext:
            return content
        is_resolved = seen_oids is not None and id(content) in seen_oids
        return super().render_template(content if is_resolved else renderable(content), context, jinja_env, seen_oids)

    def _check_arguments(self) -> None:
        """Refuse, when the Dag is parsed, what cannot work whatever the templates become.

        :raises ConfigurationError: names the task and the argument, and says what to do.
        """
        given = self._given()
        if self.has_dag() and self.dag.jinja_environment_kwargs:  # type: ignore[no-untyped-call]
            # The Dag may write templates in its own way, so any text may hold one, or a list of texts.
            given = {name: one for name, one in given.items() if name in _NOT_RENDERED or isinstance(one, Number)}
        with naming_the_task(self.operator_name, self.task_id):
            check_parsed(self._form, given, not_rendered=_NOT_RENDERED)


class _CreateBatchJob(_GeminiOperator):
    """Submit a batch, free the worker while it runs, and bring back one result row per input row."""

    kind: ClassVar[JobKind]
    _makes_its_own_rows: ClassVar[bool] = False
    _form: ClassVar[type[ConnectionArguments]] = BatchArguments
    template_fields: Sequence[str] = _templated(BatchArguments, without=_OF_GENERATION | _OF_EMBEDDINGS)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "inlined_requests": "json",
        "request_defaults": "json",
        "labels": "json",
    }
    operator_extra_links = (GeminiBatchLink(), GeminiBatchJobLink(), GeminiBatchOutputLink())

    def __init__(
        self,
        *,
        model: str,
        inlined_requests: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
        file_name: str | None = None,
        input_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        gcs_uri: str | os.PathLike[str] | list[str] | None = None,
        bigquery_uri: str | None = None,
        request_defaults: Mapping[str, Any] | None = None,
        display_name: str | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        destination: str | os.PathLike[str] | None = None,
        output_path: str | os.PathLike[str] | None = None,
        output_conn_id: str | None = None,
        media_path: str | os.PathLike[str] | None = None,
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        poll_interval: float | timedelta | None = 60.0,
        timeout: float | timedelta | None = None,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        reattach: bool = True,
        lookup_timeout: float | timedelta | None = 120.0,
        queue_timeout: float | timedelta | None = None,
        progress_timeout: float | timedelta | None = None,
        on_stall: str = "fail",
        on_empty: str = "fail",
        max_resubmits: int = 1,
        max_failed_rows: int | None = None,
        max_failure_rate: float | None = None,
        max_xcom_bytes: int = DEFAULT_MAX_XCOM_BYTES,
        prompt_template: str | None = None,
        key_field: str | None = None,
        carry: str | Sequence[str] = (),
        carry_types: Mapping[str, str] | None = None,
        part_key: str | None = None,
        skip_whole_parts: bool = False,
        csv_delimiter: str | None = None,
        encoding: str | None = None,
        repair_rounds: int = 0,
        max_cost_usd: float | None = None,
        max_rows_per_job: int | None = None,
        max_bytes_per_job: int | None = None,
        max_active_jobs: int | None = None,
        keep_input: bool = False,
        keep_response: bool = False,
        dry_run: bool = False,
        staging_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.inlined_requests: Any = Uncalled(inlined_requests) if callable(inlined_requests) else inlined_requests
        self.file_name = file_name
        self.input_path = input_path
        self.gcs_uri = gcs_uri
        self.bigquery_uri = bigquery_uri
        self.request_defaults = request_defaults
        self.display_name = display_name
        self.priority = priority
        self.labels = labels
        self.destination = destination
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.media_path = media_path
        self.wait_for_completion = wait_for_completion
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.reattach = reattach
        self.lookup_timeout = lookup_timeout
        self.queue_timeout = queue_timeout
        self.progress_timeout = progress_timeout
        self.on_stall = on_stall
        self.on_empty = on_empty
        self.max_resubmits = max_resubmits
        self.max_failed_rows = max_failed_rows
        self.max_failure_rate = max_failure_rate
        self.max_xcom_bytes = max_xcom_bytes
        self.prompt_template = prompt_template
        self.key_field = key_field
        self.carry = carry
        self.carry_types = carry_types
        self.part_key = part_key
        self.skip_whole_parts = skip_whole_parts
        self.csv_delimiter = csv_delimiter
        self.encoding = encoding
        self.repair_rounds = repair_rounds
        self.max_cost_usd = max_cost_usd
        self.max_rows_per_job = max_rows_per_job
        self.max_bytes_per_job = max_bytes_per_job
        self.max_active_jobs = max_active_jobs
        self.keep_input = keep_input
        self.keep_response = keep_response
        self.is_dry_run = dry_run  # BaseOperator has a method named dry_run
        self.staging_path = staging_path
        self._run: TaskRun | None = None

    def _check_arguments(self) -> None:
        super()._check_arguments()
        with naming_the_task(self.operator_name, self.task_id):
            given = self._given()
            check_one_source(given, makes_own_rows=self._makes_its_own_rows)
            check_whole_parts(given)

    def _given(self) -> dict[str, Any]:
        given = super()._given()
        rows = given["inlined_requests"]
        return {**given, "inlined_requests": rows.of(self)} if isinstance(rows, Uncalled) else given

    @property
    def first_job_name(self) -> str:
        """The name of the first job that this process of the task used, for the link; empty while there is none."""
        return self._run.first_job_name if self._run is not None else ""

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit or find the batch, wait by deferring, land the results, and return the summary."""
        with self.task_run(context) as run:
            return run.begin()

    def execute_complete(self, context: Context, event: Any, memo: str = "") -> dict[str, Any]:
        """Continue after a wait, in a new process that has only the operator's arguments, and return the summary."""
        with self.task_run(context) as run:
            return run.resume(event, memo)

    def task_run(self, context: Context) -> TaskRun:
        """Return the run of this task in this process.

        :raises AirflowFailException: an argument cannot work.
        """
        from airflow_provider_gemini_batch.runtime.client import airflow_errors
        from airflow_provider_gemini_batch.runtime.create_task import TaskRun
        from airflow_provider_gemini_batch.triggers import GeminiBatchJobTrigger

        with airflow_errors():
            given = self._given()
            check_source_is_there(given)
            arguments = read_arguments(BatchArguments, given, kind=self.kind)
            check_whole_parts(vars(arguments))
        self._run = TaskRun(arguments, self, context, hook=self.hook(), make_trigger=GeminiBatchJobTrigger)
        return self._run

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what was read, written and used; OpenLineage's provider asks for it when the task has succeeded."""
        from airflow_provider_gemini_batch.runtime.lineage import lineage_of, openlineage_facets

        if self._run is not None and self._run.lineage is not None:
            return openlineage_facets(*self._run.lineage)
        # In another process than the one that ran the task, only the summary is known.
        summary = task_instance.xcom_pull(task_ids=self.task_id)
        if not isinstance(summary, dict) or not summary.get("job_names"):
            return None
        return openlineage_facets(lineage_of(read_arguments(BatchArguments, self._given()), summary), summary)

    def on_kill(self) -> None:
        """Stop the task: send no further create call, and cancel the jobs that no further try would adopt."""
        if self._run is not None:
            self._run.kill()


class GeminiCreateBatchJobOperator(_CreateBatchJob):
    """Generate content in bulk with a Gemini batch job: half the price, minutes to 48 hours, no worker held meanwhile.

    Exactly one source: ``inlined_requests``, ``input_path``, ``file_name``, ``gcs_uri`` or ``bigquery_uri``. Times are
    in seconds or a timedelta. Every argument but ``prompt_template`` and ``output_schema`` may be a template.

    :param model: ``gemini-2.5-flash``, with or without ``models/``. (templated)
    :param gemini_conn_id: connection of type Gemini Batch or Google Cloud. (templated)
    :param location: Vertex location, overrides the connection's. (templated)
    :param project_id: Google Cloud project, overrides the connection's. (templated)
    :param inlined_requests: a list of texts, dicts in the service's form or ``BatchRequest``s; or a callable that
        returns or yields them, which is called when the task runs. (templated)
    :param file_name: ``files/...`` of the Files API that is there already; Gemini API only. (templated)
    :param input_path: JSON lines, texts, CSV or Parquet: a local path or any address that Airflow's ObjectStoragePath
        reads; a file, a folder, a pattern (``*``, ``**``) or a list of them. (templated)
    :param gcs_uri: ``gs://`` address of JSON lines in the service's form, or several; Vertex only. (templated)
    :param bigquery_uri: ``bq://project.dataset.table``; Vertex only. (templated)
    :param generation_config: default for every request (temperature, maxOutputTokens ...); a request's own wins.
        (templated)
    :param system_instruction: default for every request. (templated)
    :param request_defaults: any other member of every request: safetySettings, tools, cachedContent ... (templated)
    :param output_schema: pydantic model that each response must fit; sent as ``responseSchema``.
    :param media_field: column with a file (path or URI) that goes with the row.
    :param media_root: folder, or several, below which rows may name files; default: the folder of ``input_path``.
    :param prompt_template: text in which ``{column}`` is replaced by the row's value; ``{{`` and ``}}`` are braces.
    :param key_field: column that names the row in the output.
    :param carry: columns that are copied into the result row.
    :param csv_delimiter: the character between the cells of a CSV; found out when absent.
    :param encoding: of a CSV or text file; UTF-8, or what its byte order mark says, when absent.
    :param on_empty: what a task without rows does: ``fail``, ``skip`` or ``succeed``.
    :param carry_types: types of carried columns in Parquet (``bool int float str json date timestamp timestamp_utc
        decimal(p,s)``), for one schema over several tasks; default: those of the input.
    :param part_key: names the part of a dataset that this task is, in place of its map index: a job belongs to its part
        even when the parts of a mapped task change their order. (templated)
    :param skip_whole_parts: succeed at once, without a job, when the output holds all rows of this very input.
    :param display_name: the author's part of the job's name. (templated)
    :param priority: higher runs first; Gemini API only.
    :param labels: labels of the job; Vertex only. (templated)
    :param destination: ``gs://`` or ``bq://`` where Vertex writes; made under ``staging_path`` when absent. (templated)
    :param output_path: where result rows are landed, JSON lines or Parquet by its ending: a local path or any address
        that ObjectStoragePath writes. (templated)
    :param output_conn_id: connection for ``output_path`` and ``media_path``. (templated)
    :param media_path: folder for pictures and sound in responses; default: one beside ``output_path``. (templated)
    :param staging_path: folder for what must outlive the wait (and for Vertex input). (templated)
    :param wait_for_completion: False: end as soon as the job exists.
    :param deferrable: False: wait in the worker instead of the triggerer; default: ``[operators] default_deferrable``
        where somebody has set it, else True.
    :param poll_interval: seconds between two polls.
    :param timeout: seconds for the whole task; None: 49 hours (Vertex AI: 97) from each job's submission.
    :param cancel_on_kill: cancel the job when the task is marked failed or success.
    :param cancel_on_timeout: cancel the job when ``timeout`` is over.
    :param reattach: continue with the job of an earlier try instead of creating another.
    :param lookup_timeout: seconds within which a created job appears in the service's list.
    :param queue_timeout: seconds in the queue after which a job counts as stuck.
    :param progress_timeout: seconds without a change of its counts after which a running job counts as stuck.
    :param on_stall: ``fail`` or ``resubmit``: what to do about a stuck job after cancelling it.
    :param max_resubmits: how often a stuck job is submitted again.
    :param max_failed_rows: fail the task if more rows than this fail; default: only if every row fails.
    :param max_failure_rate: the same as a share between 0 and 1.
    :param repair_rounds: how often rows that failed with a transient error are sent again; not for file_name.
    :param max_xcom_bytes: result rows go to XCom only when they fit into this.
    :param max_cost_usd: refuse to submit when the estimate is higher (extra ``genai-prices``).
    :param max_rows_per_job: split the input into jobs of at most so many rows.
    :param max_bytes_per_job: split the input into jobs of at most so many bytes.
    :param max_active_jobs: how many of them may run at a time.
    :param keep_input: leave uploads and staged objects in place.
    :param keep_response: add the service's whole response to each result row.
    :param dry_run: check, count and price the input; send nothing.
    :returns: ``job_name``, ``job_names``, ``state``, ``model``, ``display_name``, ``counts``, ``usage``, ``output`` and
        ``responses``.
    """

    kind = JobKind.GENERATION
    template_fields: Sequence[str] = _templated(BatchArguments, without=_OF_EMBEDDINGS)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **_CreateBatchJob.template_fields_renderers,
        "generation_config": "json",
        "system_instruction": "json",
    }

    def __init__(
        self,
        *,
        generation_config: Mapping[str, Any] | None = None,
        system_instruction: str | Mapping[str, Any] | None = None,
        output_schema: type[BaseModel] | None = None,
        media_field: str | None = None,
        media_root: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation_config = generation_config
        self.system_instruction = system_instruction
        self.output_schema = output_schema
        self.media_field = media_field
        self.media_root = media_root
        self._check_arguments()


class GeminiCreateEmbeddingsBatchJobOperator(_CreateBatchJob):
    """Embed texts in bulk with a Gemini batch job; see :class:`GeminiCreateBatchJobOperator` for what both take.

    :param task_type: what the embeddings are for, e.g. ``RETRIEVAL_DOCUMENT``. (templated)
    :param output_dimensionality: length of each vector.
    :param title_field: column with the title of the text, for ``RETRIEVAL_DOCUMENT``.
    """

    kind = JobKind.EMBEDDINGS
    template_fields: Sequence[str] = _templated(BatchArguments, without=_OF_GENERATION)

    def __init__(
        self,
        *,
        task_type: str | None = None,
        output_dimensionality: int | None = None,
        title_field: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_task_type = task_type  # BaseOperator has a property named task_type
        self.output_dimensionality = output_dimensionality
        self.title_field = title_field
        self._check_arguments()


class _JobOperator(_GeminiOperator):
    """What the operators on one existing job share."""

    _form: ClassVar[type[ConnectionArguments]] = JobArguments
    template_fields: Sequence[str] = _templated(JobArguments)
    operator_extra_links = (GeminiBatchJobLink(),)

    def __init__(self, *, job_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        if self._form is JobArguments:
            self._check_arguments()

    def _name(self) -> str:
        """Return the job's name, once templates have been rendered."""
        return read_arguments(JobArguments, self._given()).job_name


class GeminiGetBatchJobOperator(_JobOperator):
    """Look a job up, whoever created it.

    :param job_name: ``batches/...`` or ``projects/.../batchPredictionJobs/...``. (templated)
    :returns: the job as a plain dict: name, state, counts, times, error, source and destination.
    """

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Return the job."""
        with self._connected() as hook:
            return hook.get(self._name()).model_dump(mode="json")


class GeminiListBatchJobsOperator(_GeminiOperator):
    """List jobs, newest first, without their responses.

    :param filter: Vertex only, in the service's own grammar, e.g. ``state="JOB_STATE_RUNNING"``. (templated)
    :param max_results: how many jobs at most, since XCom cannot hold all of them.
    :returns: a list of jobs as plain dicts.
    """

    _form: ClassVar[type[ConnectionArguments]] = ListArguments
    template_fields: Sequence[str] = _templated(ListArguments)

    def __init__(self, *, filter: str | None = None, max_results: int = 100, **kwargs: Any) -> None:  # noqa: A002
        super().__init__(**kwargs)
        self.filter = filter
        self.max_results = max_results
        self._check_arguments()

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the jobs, read from as many pages as are needed."""
        from itertools import islice

        with self._connected() as hook:
            given = read_arguments(ListArguments, self._given())
            # Brief: a whole job of the Gemini API includes its responses when they are inline.
            jobs = hook.list_all(page_size=min(given.max_results, 100), filter=given.filter, brief=True)
            return [job.model_dump(mode="json") for job in islice(jobs, given.max_results)]


class GeminiGetBatchResponsesOperator(_JobOperator):
    """Bring the responses of a job that has ended, whoever created it, to a file or, when they are small, to XCom.

    :param job_name: the job. (templated)
    :param output_path: where rows are landed, JSON lines or Parquet by its ending. (templated)
    :param output_conn_id: connection for ``output_path`` and ``media_path``. (templated)
    :param media_path: folder for pictures and sound in responses; default: one beside ``output_path``. (templated)
    :param max_xcom_bytes: result rows go to XCom only when they fit into this.
    :param keep_response: add the service's whole response to each result row.
    :returns: the same summary as the create operators.
    """

    _form: ClassVar[type[ConnectionArguments]] = ResponsesArguments
    template_fields: Sequence[str] = _templated(ResponsesArguments)

    def __init__(
        self,
        *,
        output_path: str | os.PathLike[str] | None = None,
        output_conn_id: str | None = None,
        media_path: str | os.PathLike[str] | None = None,
        max_xcom_bytes: int = DEFAULT_MAX_XCOM_BYTES,
        keep_response: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.media_path = media_path
        self.max_xcom_bytes = max_xcom_bytes
        self.keep_response = keep_response
        self._check_arguments()

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the responses, and return the summary."""
        from airflow_provider_gemini_batch.runtime.best_effort import update_asset_events
        from airflow_provider_gemini_batch.runtime.responses_task import land_responses
        from airflow_provider_gemini_batch.runtime.summary import IN_ASSET_EVENTS

        with self._connected() as hook:
            summary = land_responses(read_arguments(ResponsesArguments, self._given()), hook, context)
        update_asset_events(self.outlets, context, {name: summary[name] for name in IN_ASSET_EVENTS})
        return summary


class GeminiCancelBatchJobOperator(_JobOperator):
    """Request the cancellation of a job, which ends a little later; does nothing for a job that has ended.

    :param job_name: the job. (templated)
    :returns: the job's name.
    """

    def execute(self, context: Context) -> str:  # noqa: ARG002
        """Request the cancellation unless the job has ended, and return the job's name."""
        with self._connected() as hook:
            name = self._name()
            if hook.get(name, brief=True).is_done:
                self.log.info("%s has ended already.", name)
            else:
                hook.cancel(name)
            return name


class GeminiDeleteBatchJobOperator(_JobOperator):
    """Remove a job and its results from the service; does nothing when the job is already gone.

    :param job_name: the job. (templated)
    :returns: the job's name.
    """

    def execute(self, context: Context) -> str:  # noqa: ARG002
        """Delete the job, and return its name."""
        from airflow_provider_gemini_batch.api.errors import NotFound

        with self._connected() as hook:
            name = self._name()
            try:
                hook.delete(name)
            except NotFound:
                self.log.info("%s is gone already.", name)
            return name


class GeminiUploadFileOperator(_GeminiOperator):
    """Upload a file to the Files API of the Gemini Developer API, where it lives 48 hours.

    :param input_path: a local path or any address that ObjectStoragePath reads. (templated)
    :param display_name: the file's name for people. (templated)
    :param mime_type: what the file is.
    :returns: the file's name, ``files/...``, for ``file_name`` of a create operator.
    """

    _form: ClassVar[type[ConnectionArguments]] = UploadArguments
    template_fields: Sequence[str] = _templated(UploadArguments)

    def __init__(
        self,
        *,
        input_path: str | os.PathLike[str],
        display_name: str | None = None,
        mime_type: str = "application/jsonl",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_path = input_path
        self.display_name = display_name
        self.mime_type = mime_type
        self._check_arguments()

    def execute(self, context: Context) -> str:  # noqa: ARG002
        """Upload the file in pieces, resume after a broken connection, and return the file's name."""
        from airflow_provider_gemini_batch.runtime.paths import Paths

        with self._connected() as hook:
            given = read_arguments(UploadArguments, self._given())
            with Paths().open_for_reading(given.input_path) as source:
                return hook.upload_file(source, display_name=given.display_name, mime_type=given.mime_type).name
