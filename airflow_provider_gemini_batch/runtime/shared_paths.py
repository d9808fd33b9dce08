"""Tasks of one run that would write to one file, or do one part of a dataset: refused before they pay.

What another task will write to cannot be asked of Airflow, but the Dag says what its author gave to each. A template
counts as the same for all where it uses nothing but what a run has once (``ds``, ``run_id``, ``params`` ...).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError, meta

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.rows.python_rows import elements
from airflow_provider_gemini_batch.runtime.argument_readers import comes_from_a_task
from airflow_provider_gemini_batch.runtime.arguments import OutputArguments
from airflow_provider_gemini_batch.runtime.best_effort import best_effort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import BaseOperator
    from jinja2 import Environment

# Names in templates that have one value for all tasks of a run.
_OF_THE_RUN = frozenset(
    (
        *("run_id", "dag", "dag_run", "params", "conn", "var", "macros", "inlet_events", "triggering_asset_events"),
        *("partition_key", "partition_date"),
        *("logical_date", "data_interval_start", "data_interval_end", "ds", "ds_nodash"),
        *("ts", "ts_nodash", "ts_nodash_with_tz", "prev_start_date_success", "prev_end_date_success"),
        *("prev_data_interval_start_success", "prev_data_interval_end_success"),
    )
)
# Macros whose results differ from call to call.
_CHANGING = re.compile(r"macros\s*\.\s*(uuid|random|time|datetime)\b")
# States in which a task will write, or may be writing, and has not ended.
_ACTIVE = frozenset({"scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"})


def check_mapped(task: BaseOperator, context: Any) -> None:
    """Refuse in a mapped task what several of them share: one would take or replace another's rows.

    In a mapped group it is not known how many there are: the first goes on.

    :raises ConfigurationError: names the argument.
    """
    map_index = context["ti"].map_index
    if map_index is None or map_index < 0 or not task.has_dag():  # type: ignore[no-untyped-call]
        return
    written = task.dag.task_dict.get(task.task_id, task)
    if written is task:  # which holds the rendered values
        return
    in_group = next(iter(written.iter_mapped_task_groups()), None) is not None
    mapped = _Mapped(written, context)
    for name, instead in (("part_key", ""), ("output_path", ", or a folder (a path that ends in /) for all of them")):
        if name == "output_path" and _writes_parts(task):
            continue
        value = _as_written(written, name)
        # In a mapped group, what another task returns may be another value for each.
        is_same = _is_of_the_run(value, mapped.templates) or (not in_group and comes_from_a_task(value))
        if is_same and (map_index > 0 or mapped.tasks() > 1):
            raise ConfigurationError(
                f"{name} is the same for all mapped tasks: give each its own, with {{{{ ti.map_index }}}} in it"
                f"{instead}"
            )
        if mapped.repeats(name):
            raise ConfigurationError(
                f"{name} is the same for several mapped tasks: it is given twice, or expand() combines it with each "
                "item of another list. Give each task its own, with expand_kwargs()"
            )


class _Mapped:
    """What tasks are mapped over: the lists of ``expand()``, or the dicts of ``expand_kwargs()``."""

    def __init__(self, written: Any, context: Any) -> None:
        # A decorated task is mapped over the arguments of its function, which are not those of the operator.
        of_function = getattr(written, "op_kwargs_expand_input", None)
        self._is_of_function = of_function is not None
        self._given: Any = getattr(of_function or getattr(written, "expand_input", None), "value", None)
        #: How the Dag writes templates.
        self.templates: Environment = written.dag.get_template_env()
        self._context = context

    def tasks(self) -> int:
        """Return how many tasks there are; 1 if that cannot be known."""
        count = 1
        with best_effort("the number of mapped tasks"):
            count = prod(map(len, self._lists.values())) if isinstance(self._given, Mapping) else len(self._dicts)
        return max(count, 1)

    def repeats(self, name: str) -> bool:
        """Return whether several tasks get the same value of an argument."""
        if self._is_of_function or (isinstance(self._given, Mapping) and name not in self._given):
            return False
        values: list[Any] = []
        with best_effort("the other mapped tasks"):
            if isinstance(self._given, Mapping):
                values = list(self._lists[name])
            else:
                values = [each.get(name) for each in self._dicts if isinstance(each, Mapping)]
        known = [str(value) for value in values if _is_of_the_run(value, self.templates)]
        in_combinations = isinstance(self._given, Mapping) and self.tasks() > len(values)
        return bool(known) and (in_combinations or len(set(known)) < len(known))

    @cached_property
    def _lists(self) -> dict[str, Any]:
        return {name: self._resolved(value) for name, value in self._given.items()}

    @cached_property
    def _dicts(self) -> Any:
        return [] if self._given is None else self._resolved(self._given)

    def _resolved(self, value: Any) -> Any:
        return list(elements(value.resolve(self._context))) if comes_from_a_task(value) else value


def check_other_tasks(task: BaseOperator, ti: Any) -> None:
    """Refuse an output_path to which another task of this run, which has not ended, was given to write.

    :raises ConfigurationError: names the other task.
    """
    others = list(_others(task))
    if not others:
        return
    active: list[str] = []
    with best_effort("the states of other tasks"):
        for other in others:
            found = ti.get_task_states(dag_id=ti.dag_id, task_ids=[other], run_ids=[ti.run_id])
            if any(state in _ACTIVE for states in found.values() for state in states.values()):
                active.append(other)
    if active:
        raise ConfigurationError(
            f"output_path is also that of the task {active[0]!r}, which has not ended: the rows of one would replace "
            "those of the other. Give each its own"
        )


def _others(task: BaseOperator) -> Iterator[str]:
    """Yield the names of tasks that write their rows to the same file as a task."""
    if not task.has_dag():  # type: ignore[no-untyped-call]
        return
    written = task.dag.task_dict.get(task.task_id, task)
    path = _as_written(written, "output_path")
    if _writes_parts(task) or not _is_of_the_run(path, task.dag.get_template_env()):
        return
    for other in task.dag.task_dict.values():
        if other.task_id != task.task_id and _lands_rows(other) and _as_written(other, "output_path") == path:
            yield other.task_id


def _writes_parts(task: Any) -> bool:
    """Return whether the path of a task, rendered, is the folder of a dataset, in which each task has its own part."""
    return str(getattr(task, "output_path", "")).endswith("/")


def _lands_rows(task: Any) -> bool:
    form = getattr(getattr(task, "operator_class", type(task)), "_form", object)
    return issubclass(form, OutputArguments)


def _as_written(task: Any, name: str) -> Any:
    """Return an argument as the Dag file gives it, of a mapped task too; None for one that each gets its own of."""
    return (getattr(task, "partial_kwargs", None) or vars(task)).get(name)


def _is_of_the_run(value: Any, templates: Environment) -> bool:
    """Return whether a path or text is the same for all tasks of a run.

    :param templates: how its Dag writes them.
    """
    if not isinstance(value, (str, os.PathLike)) or comes_from_a_task(value):
        return False
    text = str(value)
    try:
        names = meta.find_undeclared_variables(templates.parse(text))
    except TemplateSyntaxError:
        return False
    return names <= _OF_THE_RUN and _CHANGING.search(text) is None
