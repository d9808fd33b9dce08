"""Datasets: many files in, a folder of Parquet parts out, one mapped task for each part.

:class:`GeminiBatchDataset` is a task group of three tasks: *plan* cuts the input into parts, *part* (mapped) runs one
batch for each, *commit* completes the output. All scheduling is Airflow's.

Rules of this file: importing it loads nothing beyond what Airflow has loaded when it parses a Dag.
"""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.operators import (
    _NOT_RENDERED,
    GeminiCreateBatchJobOperator,
    GeminiCreateEmbeddingsBatchJobOperator,
    _GeminiOperator,
    _templated,
)
from airflow_provider_gemini_batch.runtime.argument_readers import flag, is_unknown
from airflow_provider_gemini_batch.runtime.arguments import (
    BYTES_PER_PART,
    ROWS_PER_PART,
    SOURCES,
    BatchArguments,
    CommitArguments,
    PlanArguments,
    argument_names,
    check_parsed,
    read_arguments,
)
from airflow_provider_gemini_batch.runtime.dag_errors import naming_the_task
from airflow_provider_gemini_batch.runtime.rendering import literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from pydantic import BaseModel

# What the plan checks the files, the folders and the budget against.
_FOR_THE_PLAN = (
    "system_instruction",
    "generation_config",
    "request_defaults",
    "task_type",
    "output_dimensionality",
    "key_field",
    "title_field",
    "media_field",
    "csv_delimiter",
    "encoding",
    "media_path",
    "media_root",
    "staging_path",
    "destination",
)


class GeminiPlanPartsOperator(_GeminiOperator):
    """Cut an input into parts, from listings, the footers of Parquet and the beginnings of other files.

    Every argument but ``prompt_template`` and ``output_schema`` may be a template.

    :param input_path: a file, a folder, a pattern or a list of them.
    :param rows_per_part: rows of a part at most; row groups of Parquet and other files are not cut. (Parquet only)
    :param bytes_per_part: bytes of a part at most, uncompressed. (Parquet only)
    :param carry: columns that the parts carry into the output: they get one type over all parts.
    :param carry_types: types of carried columns, where the input does not say them (JSON lines).
    :param max_cost_usd: refuse the plan when the estimate for all parts is higher (extra ``genai-prices``).
    :param model: what the estimate is for.
    :param part_arguments: other arguments of the parts, for the estimate, and to refuse files that a part would refuse
        (``key_field``, ``generation_config``, ``staging_path``, ...). None: the columns of files are not checked.
    :param prompt_template: of the parts.
    :param output_schema: of the parts.
    :param on_empty: what a plan without rows does: ``fail``, ``skip`` (all three tasks) or ``succeed`` (without parts).
    :param embeddings: the parts are embedded.
    :param output_path: the folder of the parts: an input that also reads it is refused.
    :param output_conn_id: connection for ``output_path``.
    :param gemini_conn_id: connection whose credentials read ``gs://`` on Vertex AI.
    :returns: for each part the arguments of its task, for ``expand_kwargs``: ``part_key``, ``input_path``, with
        ``carry`` also ``carry_types``, and with ``media_field`` the ``media_root`` of the whole input.
    """

    _form = PlanArguments
    part_key = ""
    """For templates in ``part_arguments``: what stands there for a part does not matter to the plan."""
    template_fields: Sequence[str] = _templated(PlanArguments)

    def __init__(
        self,
        *,
        input_path: str | Sequence[str],
        model: str = "",
        rows_per_part: int = ROWS_PER_PART,
        bytes_per_part: int = BYTES_PER_PART,
        carry: str | Sequence[str] = (),
        carry_types: Mapping[str, str] | None = None,
        max_cost_usd: float | None = None,
        part_arguments: Mapping[str, Any] | None = None,
        prompt_template: str | None = None,
        output_schema: type[BaseModel] | None = None,
        on_empty: str = "fail",
        embeddings: bool = False,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_path = input_path
        self.model = model
        self.rows_per_part = rows_per_part
        self.bytes_per_part = bytes_per_part
        self.carry = carry
        self.carry_types = carry_types
        self.max_cost_usd = max_cost_usd
        self.part_arguments = part_arguments
        self.prompt_template = prompt_template
        self.output_schema = output_schema
        self.on_empty = on_empty
        self.embeddings = embeddings
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self._check_arguments()

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the arguments of each part's task."""
        from airflow_provider_gemini_batch.runtime.dataset_tasks import plan_parts

        with self._connected() as hook:
            parts = plan_parts(read_arguments(PlanArguments, self._given()), hook)
        # Airflow renders what tasks are mapped over, and whoever may write a file chooses its name.
        as_it_is = partial(literal, environment=self.get_template_env())
        return [{**part, "input_path": list(map(as_it_is, part["input_path"]))} for part in parts]


class GeminiCommitPartsOperator(_GeminiOperator):
    """Complete a dataset: check that every part is there, write the sums, and then ``_SUCCESS``.

    Parts that the plan no longer has are removed. The event of each asset in ``outlets`` has the sums, and the
    partition key of the Dag run. Every argument may be a template.

    :param parts: what the plan returned.
    :param output_path: the folder of the parts, with a slash at its end.
    :param output_conn_id: connection for ``output_path``.
    :param model: what the tokens are priced for.
    :param max_failed_rows: more failed rows than this over all parts fail the task.
    :param max_failure_rate: the same as a share between 0 and 1.
    :param on_empty: ``fail``: parts without a single row fail the task.
    :returns: ``output``, ``parts``, ``counts``, ``usage``, ``cost``.
    """

    _form = CommitArguments
    template_fields: Sequence[str] = _templated(CommitArguments)

    def __init__(
        self,
        *,
        parts: Any,
        output_path: str,
        output_conn_id: str | None = None,
        model: str = "",
        max_failed_rows: int | None = None,
        max_failure_rate: float | None = None,
        on_empty: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.parts = parts
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.model = model
        self.max_failed_rows = max_failed_rows
        self.max_failure_rate = max_failure_rate
        self.on_empty = on_empty
        self._check_arguments()

    def execute(self, context: Context) -> dict[str, Any]:
        """Check every part, write the sums and ``_SUCCESS``, and return the sums."""
        from airflow_provider_gemini_batch.runtime.best_effort import update_asset_events
        from airflow_provider_gemini_batch.runtime.dataset_tasks import commit_parts

        with self._connected() as hook:
            totals = commit_parts(read_arguments(CommitArguments, self._given()), hook)
        partition_key = getattr(context.get("dag_run"), "partition_key", None)
        update_asset_events(self.outlets, context, totals, partition_key=partition_key)
        return totals


def _check_of_parts(given: Mapping[str, Any]) -> None:
    """Refuse arguments of the parts that cannot work: a mapped task checks them only when it runs.

    :raises ConfigurationError: names the argument.
    """
    for name in ("part_key", *SOURCES):
        if given.get(name) is not None:
            raise ConfigurationError(f"a dataset names its parts and their rows by input_path: leave {name} out")
    for name, usual in (("wait_for_completion", True), ("dry_run", False)):
        value = given.get(name, usual)
        if is_unknown(value) or flag(name, value) is not usual:
            raise ConfigurationError("a dataset waits for its parts: leave wait_for_completion and dry_run out")
    own = argument_names(BatchArguments)
    check_parsed(
        BatchArguments,
        {name: value for name, value in given.items() if name in own},
        not_rendered=_NOT_RENDERED,
    )


class GeminiBatchDataset(TaskGroup):
    """Run a batch over a dataset: many files in, a folder of Parquet parts out.

    Three tasks: ``plan``, mapped ``part`` and ``commit``. A part keeps its identity (its file, and its place in the
    file) when other files come or go, so that a late or changed file costs only its own parts.

    :param model: of all parts. (templated)
    :param input_path: a file, a folder, a pattern or a list of them: Parquet, CSV, JSON lines or texts. (templated)
    :param output_path: a folder, with a slash at its end. (templated)
    :param rows_per_part: rows of a part at most (Parquet; other files are a part each).
    :param bytes_per_part: bytes of a part at most, uncompressed (Parquet).
    :param skip_whole_parts: a part whose output holds the rows of this very input succeeds at once.
    :param max_cost_usd: one budget for all parts, checked by the plan.
    :param max_failed_rows: more failed rows than this over all parts fail the commit.
    :param max_failure_rate: the same as a share between 0 and 1.
    :param on_empty: what an input without rows does: ``fail``, ``skip`` or ``succeed``. A file without rows among
        others is an empty part.
    :param embeddings: embed the rows instead of generating.
    :param outlets: assets whose event the commit makes, with the sums.
    :param arguments: arguments of Airflow's ``TaskGroup`` (``default_args``, ``tooltip``), for the group, and any other
        argument of :class:`GeminiCreateBatchJobOperator`, for each part.
    """

    def __init__(
        self,
        *,
        group_id: str,
        model: str,
        input_path: str | Sequence[str],
        output_path: str,
        output_conn_id: str | None = None,
        rows_per_part: int = ROWS_PER_PART,
        bytes_per_part: int = BYTES_PER_PART,
        skip_whole_parts: bool = True,
        max_cost_usd: float | None = None,
        max_failed_rows: int | None = None,
        max_failure_rate: float | None = None,
        carry: str | Sequence[str] = (),
        carry_types: Mapping[str, str] | None = None,
        on_empty: str = "fail",
        embeddings: bool = False,
        gemini_conn_id: str | None = None,
        location: str | None = None,
        project_id: str | None = None,
        outlets: Any = None,
        **arguments: Any,
    ) -> None:
        of_group = {name: arguments.pop(name) for name in signature(TaskGroup).parameters if name in arguments}
        with naming_the_task(type(self).__name__, group_id):
            embeddings = flag("embeddings", embeddings)
            _check_of_parts({"model": model, **arguments})
        super().__init__(group_id=group_id, **of_group)
        place = {"gemini_conn_id": gemini_conn_id, "location": location, "project_id": project_id}
        place["output_conn_id"] = output_conn_id
        # What is None may stand in default_args.
        shared: dict[str, Any] = {name: value for name, value in place.items() if value is not None}
        create = GeminiCreateEmbeddingsBatchJobOperator if embeddings else GeminiCreateBatchJobOperator
        with self:
            self.plan = GeminiPlanPartsOperator(
                task_id="plan",
                input_path=input_path,
                model=model,
                rows_per_part=rows_per_part,
                bytes_per_part=bytes_per_part,
                carry=carry,
                carry_types=carry_types,
                max_cost_usd=max_cost_usd,
                part_arguments={name: arguments[name] for name in _FOR_THE_PLAN if name in arguments},
                prompt_template=arguments.get("prompt_template"),
                output_schema=arguments.get("output_schema"),
                on_empty=on_empty,
                embeddings=embeddings,
                output_path=output_path,
                **shared,
            )
            self.part = create.partial(
                task_id="part",
                model=model,
                output_path=output_path,
                skip_whole_parts=skip_whole_parts,
                carry=carry,
                # The commit checks the limits of failed rows, since it knows the rows of all parts.
                max_failure_rate=None if (max_failed_rows, max_failure_rate) == (None, None) else 1.0,
                on_empty="succeed",
                **shared,
                **{"map_index_template": "{{ task.part_key }}", **arguments},
            ).expand_kwargs(self.plan.output)
            self.commit = GeminiCommitPartsOperator(
                task_id="commit",
                parts=self.plan.output,
                output_path=output_path,
                model=model,
                max_failed_rows=max_failed_rows,
                max_failure_rate=max_failure_rate,
                on_empty=on_empty,
                # A plan without parts has its mapped task skipped.
                trigger_rule="none_failed_min_one_success",
                outlets=outlets,
                **shared,
            )
            self.part >> self.commit

    @property
    def output(self) -> Any:
        """What the commit returns, for tasks behind the group."""
        return self.commit.output
