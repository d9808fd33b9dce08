"""``@task.gemini_batch``: a function that returns or yields prompts becomes a batch, deferred like the operator's.

The function is called once per submission, when the task runs. Its rows are saved beside ``output_path`` or under
``staging_path`` until the results are delivered, since another process needs them again after the wait.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.rows.python_rows import refuse_asynchronous
from airflow_provider_gemini_batch.runtime.dag_errors import naming_the_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context

_TEMPLATED = tuple(name for name in GeminiCreateBatchJobOperator.template_fields if name != "inlined_requests")


class _GeminiBatchDecoratedOperator(DecoratedOperator, GeminiCreateBatchJobOperator):
    """The operator whose rows a function makes."""

    custom_operator_name = "@task.gemini_batch"
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *_TEMPLATED)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **{
            name: how
            for name, how in GeminiCreateBatchJobOperator.template_fields_renderers.items()
            if name in _TEMPLATED
        },
    }
    _makes_its_own_rows: ClassVar[bool] = True

    def _check_arguments(self) -> None:
        super()._check_arguments()
        with naming_the_task(self.operator_name, self.task_id):
            refuse_asynchronous(self.python_callable)

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit what the function returns or yields, wait, and return the summary."""
        self._bind(context)
        return GeminiCreateBatchJobOperator.execute(self, context)

    def execute_complete(self, context: Context, event: Any, memo: str = "") -> dict[str, Any]:
        """Continue after a wait, and return the summary; the function is not called again."""
        self._bind(context)
        return GeminiCreateBatchJobOperator.execute_complete(self, context, event, memo)

    def _bind(self, context: Context) -> None:
        merged: dict[str, Any] = {**context, **self.op_kwargs}
        given = determine_kwargs(self.python_callable, self.op_args, merged)
        self.inlined_requests = partial(self.python_callable, *self.op_args, **given)


def gemini_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Return a function as a batch task, with any argument of :class:`GeminiCreateBatchJobOperator` but the sources.

    The function returns or yields texts, dicts in the service's form or ``BatchRequest``s. Its annotations do not
    matter: the task's own return value is always one summary.
    """
    # Airflow would infer it from an annotation "-> dict", which describes the rows and not the summary.
    kwargs["multiple_outputs"] = bool(kwargs.get("multiple_outputs"))
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_GeminiBatchDecoratedOperator, **kwargs
    )
