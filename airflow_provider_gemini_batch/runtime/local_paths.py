"""Paths on a worker's own disk, where a task may continue on another machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.runtime.paths import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

# Executors that run all tasks on the scheduler's own machine.
_ON_THIS_MACHINE = ("LocalExecutor", "SequentialExecutor", "DebugExecutor", "InProcessExecutor")
_HABITS = ("warn", "refuse", "allow")


def check_local_paths(given: Mapping[str, str | Sequence[str] | None], executor: str | None) -> None:
    """Warn about paths that other workers may not see, or refuse them if ``[gemini_batch] local_paths`` says so.

    :param given: paths by the name of their argument.
    :param executor: the task's own; None for the deployment's.
    :raises ConfigurationError: local paths are refused here, or the option is none of ``warn``, ``refuse``, ``allow``.
    """
    from airflow.sdk.configuration import conf

    habit = conf.get("gemini_batch", "local_paths", fallback="").strip().lower() or "warn"
    if habit not in _HABITS:
        raise ConfigurationError(f"[gemini_batch] local_paths must be {', '.join(_HABITS)}, not {habit[:40]!r}")
    local = [name for name, value in given.items() if any(is_local(path) for path in _listed(value))]
    if habit == "allow" or not local or not is_remote(executor or conf.get("core", "executor", fallback="")):
        return
    words = (
        f"{', '.join(local)}: a local path, and the task may continue on another worker, which sees it only "
        "where the disk is shared. Use an object store"
    )
    if habit == "refuse":
        raise ConfigurationError(f"{words} ([gemini_batch] local_paths = refuse); nothing was sent")
    log.warning("%s, or say that the disk is shared: [gemini_batch] local_paths = allow.", words)


def is_remote(executor: str) -> bool:
    """Return whether an executor, named as in ``[core] executor``, may run tasks on other machines.

    An unknown one counts as remote: a needless warning costs less than missing rows.
    """
    for one in executor.split(","):
        # "team=a.b.CeleryExecutor:alias", each part of it optional.
        name = one.rpartition("=")[2].strip().partition(":")[0].rpartition(".")[2]
        if name and name not in _ON_THIS_MACHINE:
            return True
    return False


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
