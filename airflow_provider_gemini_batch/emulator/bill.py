"""The bill: what the service would charge for the emulator's jobs, in tokens by kind and in US dollars.

Every answered row is billed, also one of a job that was stopped; rows that failed, and rows that a resumed job took
over, are not. Prices come from the batch table of ``genai-prices`` where that is installed: without it, or for a model
that it does not know, the sum is None. Cached tokens have their own price, which a batch does not halve; thinking is
output at the price of text; searches are billed by the query.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.usage import LONG_PROMPT

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator.jobs import Job

#: So much of one kind is priced, to learn what one costs.
_COUNT = 100_000


class Prices:
    """Prices of a token by model and kind, at one time."""

    def __init__(self, moment: float) -> None:
        self._when = datetime.fromtimestamp(moment, tz=timezone.utc)
        self._known: dict[tuple[str, str], Decimal | None] = {}

    def of(self, model: str, kind: str) -> Decimal | None:
        """Return what one token (or search) of a kind costs in US dollars, None when that is not known."""
        if (model, kind) not in self._known:
            # The length of a prompt chooses the price of everything: it is there in both sums, and goes out again.
            prompt = 2 * LONG_PROMPT if kind.startswith("long_") else 0
            usage = _usage(kind.removeprefix("long_"), prompt)
            whole, base = self._price(model, usage), self._price(model, {"input_tokens": prompt})
            self._known[model, kind] = None if whole is None or base is None else (whole - base) / _COUNT
        return self._known[model, kind]

    def _price(self, model: str, usage: dict[str, int]) -> Decimal | None:
        try:
            from genai_prices import Usage, calc_price
        except ImportError:
            return None
        try:
            priced = calc_price(
                Usage(**usage),
                model,
                provider_id="google",
                genai_request_timestamp=self._when,
                price_context={"processing": "batch"},
            )
        except (LookupError, ValueError, TypeError):
            return None
        total: Decimal = priced.total_price
        return total


def _usage(kind: str, prompt: int) -> dict[str, int]:
    """Return a usage that holds one kind beside so many tokens of plain input."""
    name, _, modality = kind.partition("_")
    if kind == "searches":
        return {"input_tokens": prompt, "web_searches": _COUNT}
    if name in ("output", "thoughts"):
        usage = {"input_tokens": prompt, "output_tokens": _COUNT}
        return usage if modality in ("", "text") else {**usage, f"output_{modality}_tokens": _COUNT}
    usage = {"input_tokens": prompt + _COUNT}
    if modality != "text":
        usage[f"input_{modality}_tokens"] = _COUNT
    if name == "cache":
        usage["cache_read_tokens"] = _COUNT
        if modality != "text":
            usage[f"cache_{modality}_read_tokens"] = _COUNT
    return usage


def price(model: str, tokens: dict[str, int], prices: Prices) -> float | None:
    """Return what tokens by kind cost in US dollars, None when the price of one of them is not known."""
    total = Decimal(0)
    for kind, count in tokens.items():
        each = prices.of(model.rpartition("/")[2], kind)
        if each is None:
            return None
        total += each * count
    return float(total)


def bill_of(jobs: list[Job], now: float) -> dict[str, Any]:
    """Return ``jobs`` (name, model, tokens, usd of each), and ``tokens`` and ``usd`` of all together."""
    prices = Prices(now)
    entries: list[dict[str, Any]] = []
    sums: dict[str, int] = {}
    total: float | None = 0.0
    for job in jobs:
        tokens = dict((job.tally or {}).get("billed") or {})
        usd = price(job.model, tokens, prices)
        for kind, count in tokens.items():
            sums[kind] = sums.get(kind, 0) + count
        total = None if total is None or usd is None else total + usd
        entries.append({"name": job.name, "model": job.model, "tokens": tokens, "usd": usd})
    return {"jobs": entries, "tokens": sums, "usd": total}
