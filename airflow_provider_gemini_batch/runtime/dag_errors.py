"""Errors in a Dag file in the author's terms: which task, which line."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_UNMAPS = "airflow.sdk.definitions.mappedoperator"
_NOT_THE_AUTHORS = ("airflow_provider_gemini_batch.", "airflow.", "contextlib")


@contextmanager
def naming_the_task(operator: str, task_id: str) -> Iterator[None]:
    """Add the task and the author's line to an error: Airflow shows an import error with its last two frames only.

    :raises AirflowFailException: for a mapped task, which is made when it runs; a retry would meet the same error.
    """
    try:
        yield
    except ConfigurationError as error:
        line = _line()
        if line is None:
            from airflow.sdk.exceptions import AirflowFailException

            raise AirflowFailException(f"{operator} {task_id!r}: {error}") from None
        raise type(error)(f"{operator} {task_id!r}{line}: {error}") from None


def _line() -> str | None:
    """Return the author's line in words; None if a mapped task is made, which no line of a Dag file does."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (documented; reading the stack with sources costs more)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == _UNMAPS:
            return None
        if not f"{module}.".startswith(_NOT_THE_AUTHORS):
            name = frame.f_code.co_filename.rpartition("/")[2]
            return f" ({name}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""
