"""The lines of a task's log that say what goes in, which jobs there are, and what came out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from airflow_provider_gemini_batch.api.names import job_page_url
from airflow_provider_gemini_batch.api.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Landing
    from airflow_provider_gemini_batch.rows.cost import Cost

log = logging.getLogger(__name__)

_NO_STATUS: Final = frozenset({"total", "succeeded", "failed", "extra", "duplicate", "by_position", "warnings"})
_MOST_REASONS: Final = 5
_LONGEST_REASON: Final = 40


def many(number: int, what: str) -> str:
    """Return a count with its noun: ``1 row``, ``2,000 rows``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def input_line(rows: int, jobs: int, tokens: int, cost: Cost | None, limit: float | None) -> str:
    """Return what goes in: rows, jobs and, where they are known, an estimate of tokens and cost."""
    parts = [f"Read {many(rows, 'row')} for {many(jobs, 'job')}", f"about {many(tokens, 'input token')}"]
    if cost is not None and cost.usd is not None:
        parts.append(estimate_words(cost) + (f" (max_cost_usd={limit:g})" if limit is not None else ""))
    return ", ".join(parts) + "."


def estimate_words(cost: Cost) -> str:
    """Return an estimate with its bound; with an open bound it is a guess, which may be too high or too low."""
    return f"{'perhaps' if cost.open_bound else 'at most'} {in_usd(cost.usd or 0.0)}"


def created_line(job: BatchJob, model: str, base_url: str | None) -> str:
    """Return the name of a job that was just created, with its size and its page."""
    total = job.completion_stats.total if job.completion_stats is not None else None
    rows = f"{many(total, 'row')}, " if total else ""
    return " ".join(filter(None, (f"Created {job.name} ({rows}{model}).", page_of(job, base_url))))


def page_of(job: BatchJob, base_url: str | None) -> str:
    """Return the address of a job's page at Google; empty for jobs of an emulator on this machine."""
    is_here = base_url is not None and is_loopback(urlsplit(base_url).hostname or "")
    return "" if is_here else job_page_url(job)


def statuses_of(landing: Landing) -> dict[str, int]:
    """Return how many rows failed, by the status of their result rows."""
    named = {kind: count for kind, count in landing.counts.items() if kind not in _NO_STATUS and count}
    return named or {status: sum(words.values()) for status, words in landing.reasons.items()}


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts with the highest first."""
    return dict(sorted(counts.items(), key=lambda each: -each[1]))


def failed_rows_line(landing: Landing) -> str:
    """Return how many rows failed and why; empty where none did."""
    if not landing.failed:
        return ""
    why = why_rows_failed(landing)
    return f"{landing.failed:,} of {many(landing.total, 'row')} failed{why and f': {why}'}. Each result row says why."


def why_rows_failed(landing: Landing) -> str:
    """Return how many rows failed for which reasons; empty where none did."""
    parts = []
    for status, count in sorted(statuses_of(landing).items()):
        words = {
            f"{'code ' if status == 'error' else ''}{name[:_LONGEST_REASON]}": times
            for name, times in most_first(landing.reasons.get(status, {})).items()
            if name
        }
        causes = [name if times == count else f"{times} {name}" for name, times in words.items()][:_MOST_REASONS]
        parts.append(f"{count:,} {status}" + (f" ({', '.join(causes)})" if causes else ""))
    return ", ".join(parts)


def summary_line(landing: Landing, cost: Mapping[str, Any] | None) -> str:
    """Return the summary of what was landed: rows, tokens, cost, and where the rows are."""
    parts = [
        f"Landed {many(landing.total, 'row')}: {landing.succeeded:,} ok"
        + (f", {landing.failed:,} failed" if landing.failed else "")
    ]
    usage = landing.usage
    if usage is not None and usage.has_counts:
        parts.append(" and ".join(_tokens(usage.shown())) + " tokens")
    if cost and isinstance(cost.get("usd"), float):
        parts.append(_usd(cost))
    if landing.output:
        parts.append(f"results at {landing.output}")
    elif landing.responses is not None:
        parts.append("results in XCom")
    return "; ".join(parts) + "."


def log_summary(landing: Landing, cost: Mapping[str, Any] | None) -> None:
    """Log what was landed; failed rows are a warning, even if the task succeeds with them."""
    if failed := failed_rows_line(landing):
        log.warning("%s", failed)
    log.info("%s", summary_line(landing, cost))


def _tokens(counts: Mapping[str, int]) -> Iterator[str]:
    for kind in ("input", "output", "thinking"):
        count = counts.get(f"{kind}_tokens", 0)
        if count or kind != "thinking":
            yield f"{count:,} {kind}"


def _usd(cost: Mapping[str, Any]) -> str:
    bound = "at least " if cost.get("open_bound") else "at most " if cost.get("upper_bound") else ""
    return f"{bound}{in_usd(cost['usd'])}"


def in_usd(usd: float) -> str:
    """Return a sum of money, small ones to a millionth."""
    return f"{usd:,.2f} USD" if usd >= 1 else f"{f'{usd:.6f}'.rstrip('0').rstrip('.')} USD"
