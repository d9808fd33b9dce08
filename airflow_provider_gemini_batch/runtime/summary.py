"""What a task returns: the summary in XCom, and the key under which it pushes its first job's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_gemini_batch.rows.cost import cost_of
from airflow_provider_gemini_batch.runtime.best_effort import best_effort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Landing

JOB_NAME_KEY: Final = "job_name"
"""The XCom key of the first job's name, pushed as soon as there is one."""
IN_ASSET_EVENTS: Final = ("job_name", "job_names", "counts", "usage", "output")
"""The members of a summary that the events of outlets also have."""


def summary_of(
    jobs: Sequence[BatchJob],
    *,
    counts: dict[str, int],
    usage: dict[str, int] | None = None,
    output: str | None = None,
    responses: list[Any] | None = None,
) -> dict[str, Any]:
    """Return the operator's result, in plain values only, since others cannot be read back from XCom."""
    last = jobs[-1]
    return {
        "job_name": jobs[0].name,
        "job_names": [job.name for job in jobs],
        "state": last.state.value,
        "model": last.model,
        "display_name": jobs[0].display_name,
        "counts": counts,
        "usage": usage,
        "output": output,
        "responses": responses,
    }


def summary_without_job(state: str, model: str, landing: Landing) -> dict[str, Any]:
    """Return the result of a task that needed no job: its input had no rows, or its output was whole already."""
    return {
        "job_name": None,
        "job_names": [],
        "state": state,
        "model": model,
        "display_name": None,
        "counts": landing.counts,
        "usage": None,
        "output": landing.output,
        "responses": landing.responses,
        "cost": None,
    }


def cost_of_landing(landing: Landing, model: str, jobs: Sequence[BatchJob]) -> dict[str, Any] | None:
    """Return what an output cost, by the prices of the day when its last job ended; None without prices."""
    if landing.usage is None or not landing.usage.has_counts:
        return None  # the service counted no tokens, which does not mean that there were none
    cost = None
    at = max((job.end_time for job in jobs if job.end_time is not None), default=None)
    with best_effort("the cost"):
        cost = cost_of(landing.usage, model, rows=landing.total, at=at, long_prompts=landing.long_prompts)
    return cost.plain() if cost is not None and cost.usd is not None else None
