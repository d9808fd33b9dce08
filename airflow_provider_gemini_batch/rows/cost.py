"""What a batch costs, from the offline price table of ``genai-prices`` (an extra); never an invented price.

There are three answers: a price at the batch rate; an upper bound, at the full rate, where the table has no batch rate
for the model; and none, for a model that the table does not know or without the extra. Nothing is looked up over the
network.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import JobKind, Usage

OUTPUT_TOKENS_GUESSED = 1024
"""Output tokens a row that an estimate assumes where no ``maxOutputTokens`` bounds them."""

_BATCH = {"processing": "batch"}


@dataclass(frozen=True)
class Cost:
    """A sum in US dollars. ``usd`` is None when there is no price; ``upper_bound`` when it can only be less.

    ``guessed``: nothing bounds the output, so that it may be many times as much.
    """

    usd: float | None
    upper_bound: bool = False
    note: str = ""
    guessed: bool = False

    def __str__(self) -> str:
        """The sum in words."""
        if self.usd is None:
            return f"cost not known: {self.note}"
        return f"{'at most ' if self.upper_bound else ''}{self.usd:.6g} USD" + (f" ({self.note})" if self.note else "")

    def plain(self) -> dict[str, Any]:
        """The same for a manifest or a summary."""
        return {"usd": self.usd, "upper_bound": self.upper_bound, "note": self.note}


def cost_of(usage: Usage, model: str, *, rows: int, at: datetime | None = None) -> Cost:
    """What these tokens of ``rows`` rows cost in a batch at ``at`` (a time with zone; None: now).

    Thinking is priced as output; cached tokens at the rate for cache hits, which has no discount in a batch. Prices
    that grow with the length of a prompt are taken for a row of average length. The table knows one price for a
    model's text; tokens of audio, which cost more, are priced as text, since a sum does not tell them apart.
    """
    try:
        from genai_prices import Usage as PricedUsage
        from genai_prices import calc_price
    except ImportError:
        return Cost(None, note="pip install 'airflow-provider-gemini-batch[genai-prices]'")
    count = max(rows, 1)
    now = at or datetime.now(tz=timezone.utc)
    average = PricedUsage(
        input_tokens=Decimal(usage.input_tokens) / count,
        cache_read_tokens=Decimal(min(usage.cached_tokens, usage.input_tokens)) / count,
        output_tokens=Decimal(usage.output_tokens + usage.thinking_tokens) / count,
    )
    name = model.rpartition("/")[2]
    try:
        price = calc_price(average, name, provider_id="google", genai_request_timestamp=now, price_context=dict(_BATCH))
    except (LookupError, ValueError):
        return Cost(None, note=f"the price table does not know {name}")
    usd = float(price.total_price * count)
    if _has_batch_rate(price.model, now):
        return Cost(usd)
    return Cost(usd, upper_bound=True, note="the price table has no batch rate for this model")


def estimated_cost(
    *,
    model: str,
    kind: JobKind,
    rows: int,
    input_tokens: int,
    max_output_tokens: int | None = None,
    at: datetime | None = None,
) -> Cost:
    """What a batch will cost at most, as far as can be told before it is sent.

    Input is what staging estimated. Output is ``max_output_tokens`` a row, or 1,024 where nothing bounds it, which the
    note then says; embeddings have none.
    """
    per_row = 0 if kind is JobKind.EMBEDDINGS else max_output_tokens or OUTPUT_TOKENS_GUESSED
    cost = cost_of(Usage(input_tokens=input_tokens, output_tokens=per_row * rows), model, rows=rows, at=at)
    if cost.usd is None:
        return cost
    notes = [cost.note] if cost.note else []
    guessed = bool(per_row) and max_output_tokens is None
    if guessed:
        notes.append(f"assuming {OUTPUT_TOKENS_GUESSED} output tokens a row; maxOutputTokens would bound them")
    return Cost(cost.usd, upper_bound=cost.upper_bound, note="; ".join(notes), guessed=guessed)


def refuse_above(cost: Cost, max_cost_usd: float) -> None:
    """Raise ConfigurationError when the estimate is above the author's limit, or is none to rely on."""
    if cost.usd is None:
        raise ConfigurationError(f"max_cost_usd cannot be checked: {cost.note}; nothing was sent")
    if cost.guessed:
        raise ConfigurationError(
            "max_cost_usd cannot be checked while nothing bounds the answers: give generation_config with a "
            "maxOutputTokens; nothing was sent"
        )
    if cost.usd > max_cost_usd:
        raise ConfigurationError(f"the estimate is {cost}, above max_cost_usd={max_cost_usd:g}; nothing was sent")


def _has_batch_rate(model: Any, now: datetime) -> bool:
    return any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(now))
        for variant in model.price_variants or ()
    )
