"""What Airflow's rendering of templates passes over or would do by mistake: functions, typed requests, paths.

Rules of this file: it is imported when a Dag file is parsed, so it imports nothing heavy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_gemini_batch.rows.python_rows import path_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jinja2 import Environment


class Uncalled(NamedTuple):
    """A function that returns rows, wrapped, because Airflow calls any callable in a templated field."""

    function: Callable[[], Iterable[Any]]

    def __repr__(self) -> str:
        """Return the function's name without its address, since Airflow 3.2.0 makes a new Dag version of a new text."""
        return f"<function {getattr(self.function, '__module__', '')}.{getattr(self.function, '__qualname__', '')}>"

    def of(self, task: Any) -> Callable[[], Iterable[Any]]:
        """Return the function; a method of the operator is one of ``task``, the copy whose attributes are rendered."""
        return _of(self.function, task)


def _of(function: Callable[..., Any], task: Any) -> Callable[..., Any]:
    if isinstance(function, partial):
        return partial(_of(function.func, task), *function.args, **function.keywords)
    owner: Any = getattr(function, "__self__", None)
    if type(owner) is not type(task) or owner.task_id != task.task_id:
        return function
    method: Callable[..., Any] = getattr(task, function.__name__)
    return method


def is_without_templates(value: Any, environment: Environment | None) -> bool:
    """Return whether this is a text in which nothing is to be rendered.

    Jinja would take 0.3 ms for it, drop a newline at its end, and with ``render_template_as_native_obj`` the quotes
    around a prompt.
    """
    if not isinstance(value, str) or environment is None:
        return False
    starts = (environment.variable_start_string, environment.block_start_string, environment.comment_start_string)
    by_line = environment.line_statement_prefix or environment.line_comment_prefix
    return not by_line and not any(start in value for start in starts)


def literal(text: str, environment: Environment) -> str:
    """Return a text that becomes this text when it is rendered, whatever templates seem to be in it."""
    if is_without_templates(text, environment):
        return text
    return f"{environment.variable_start_string} {text!r} {environment.variable_end_string}"


def renderable(value: Any) -> Any:
    """Return a value in a form that Airflow renders, if it may hold templates in another one."""
    # Airflow renders an ObjectStoragePath itself, and keeps its connection.
    text = None if hasattr(value, "conn_id") else path_text(value)
    if text is not None:
        return text if "{{" in text or "{%" in text else value
    if type(value).__name__ == "BatchRequest" and hasattr(value, "members"):
        return value.members()
    return value
