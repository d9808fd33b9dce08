"""What a batch costs, from the offline price table of ``genai-prices`` (an extra); never an invented price.

A cost is exact where the table has a batch rate. Where it has only the full rate, the cost is an upper bound. Where
something that is billed has no price or no count, it is an open bound. There is no cost for a model that the table does
not know, or without the extra. Nothing is looked up over the network.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import JobKind, LongPrompts, Usage
from airflow_provider_gemini_batch.rows.expected import OUTPUT_TOKENS_GUESSED
from airflow_provider_gemini_batch.rows.media import response_modality

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.rows.expected import Expected

_BATCH = {"processing": "batch"}
_NO_BOUND = "give generation_config with a maxOutputTokens"
# The price of the day on which a job runs applies, and it may run up to four days after it was created.
_DAYS_AHEAD = 5
# A fixed version of a model has the model's price; the numbers of embedding models are part of their names.
_VERSION = re.compile(r"(?<=[a-z])(?<!embedding)(?:-\d{3}|@[\w.-]+)\Z")
# Google lets such a name stand for newer models in turn: https://ai.google.dev/gemini-api/docs/models (Latest)
_ALIAS = "-latest"
_MODALITIES = ("audio", "image", "video")


@dataclass(frozen=True)
class Cost:
    """A sum in US dollars; ``usd`` is None without a price.

    ``upper_bound``: the true cost is at most this. ``open_bound``: it may be more, since something that is billed is
    missing from the sum; ``note`` says what.
    """

    usd: float | None
    upper_bound: bool = False
    note: str = ""
    open_bound: bool = False

    def __str__(self) -> str:
        """The sum in words."""
        if self.usd is None:
            return f"cost not known: {self.note}"
        bound = "at least " if self.open_bound else "at most " if self.upper_bound else ""
        return f"{bound}{self.usd:.6g} USD" + (f" ({self.note})" if self.note else "")

    def plain(self) -> dict[str, Any]:
        """Return the cost as plain values, for a manifest or a summary."""
        return {"usd": self.usd, "upper_bound": self.upper_bound, "open_bound": self.open_bound, "note": self.note}


def cost_of(
    usage: Usage, model: str, *, rows: int, at: datetime | None = None, long_prompts: LongPrompts | None = None
) -> Cost:
    """Return what these tokens of ``rows`` rows cost in a batch at ``at`` (a time with zone; None: now).

    Each modality has its own price; thinking counts as text output, PDF pages as pictures. Cached tokens cost what the
    table says: for most models there is no batch discount on them. Searches are billed per query, in addition to the
    tokens. Where the price depends on the length of a prompt, the average length is used, separately for
    ``long_prompts`` and for the other rows.

    Source: https://ai.google.dev/gemini-api/docs/pricing (Batch)
    """
    try:
        from genai_prices import Usage as PricedUsage
        from genai_prices import calc_price
    except ImportError:
        return Cost(None, note="pip install 'airflow-provider-gemini-batch[genai-prices]'")
    if long_prompts is not None and rows > long_prompts.rows:
        short = cost_of(usage.minus(long_prompts.usage), model, rows=rows - long_prompts.rows, at=at)
        return _sum(short, cost_of(long_prompts.usage, model, rows=long_prompts.rows, at=at))
    count = max(rows, 1)
    now = at or datetime.now(tz=timezone.utc)
    name = model.rpartition("/")[2]
    average = PricedUsage(**{member: Decimal(tokens) / count for member, tokens in _price_table_counts(usage).items()})
    for known in dict.fromkeys((name, _VERSION.sub("", name))):
        with suppress(LookupError, ValueError):
            price = calc_price(
                average, known, provider_id="google", genai_request_timestamp=now, price_context=dict(_BATCH)
            )
            break
    else:
        return Cost(None, note=f"the price table does not know {name}")
    if price.model_price.input_mtok is None:
        return Cost(None, note=f"the price table has no price for {name}")
    notes = [*_missing(usage, price.model_price), *_of_other_model(usage, name, price.model_price, price.model.id)]
    halved = _has_batch_rates(price.model, now)
    words = [] if halved else ["the price table has no batch rate for this model"]
    if name.endswith(_ALIAS):
        words.append(f"{name} is priced as {price.model.id}, for which it stands in the price table")
    return Cost(
        float(price.total_price * count),
        upper_bound=not halved,
        note="; ".join([*words, *notes]),
        open_bound=bool(notes),
    )


def _sum(one: Cost, other: Cost) -> Cost:
    if one.usd is None or other.usd is None:
        return one if one.usd is None else other
    return Cost(
        one.usd + other.usd,
        upper_bound=one.upper_bound or other.upper_bound,
        note="; ".join(dict.fromkeys(filter(None, (one.note, other.note)))),
        open_bound=one.open_bound or other.open_bound,
    )


def _price_table_counts(usage: Usage) -> dict[str, int]:
    """Return the counts under the price table's names. No part exceeds its whole, whatever the service reported."""
    output = usage.output_tokens + usage.thinking_tokens
    cached = min(usage.cached_tokens, usage.input_tokens)
    made = {
        "input_tokens": usage.input_tokens,
        "output_tokens": output,
        "cache_read_tokens": cached,
        "web_searches": usage.searches,
    }
    left_in, left_out, left_cached = usage.input_tokens, usage.output_tokens, cached
    for kind in _MODALITIES:
        read = min(getattr(usage, f"input_{kind}_tokens"), left_in)
        written = min(getattr(usage, f"output_{kind}_tokens"), left_out)
        hit = min(getattr(usage, f"cached_{kind}_tokens"), left_cached, read)
        left_in, left_out, left_cached = left_in - read, left_out - written, left_cached - hit
        made |= {
            f"input_{kind}_tokens": read,
            f"output_{kind}_tokens": written,
            f"cache_{kind}_read_tokens": hit,
        }
    # Cached tokens without a modality are text, up to the amount of uncached text; the rest of them are media.
    for kind in _MODALITIES:
        more = min(left_cached - left_in, made[f"input_{kind}_tokens"] - made[f"cache_{kind}_read_tokens"])
        if more > 0:
            made[f"cache_{kind}_read_tokens"] += more
            left_cached -= more
    return made


def _missing(usage: Usage, prices: Any) -> list[str]:
    """Return notes on what is billed but not in the sum."""
    notes = []
    if usage.searches and prices.web_searches_kcount is None:
        notes.append(f"{usage.searches} searches have no price")
    elif usage.searches:
        notes.append(f"{usage.searches} searches are seen in the responses; the service may bill more")
    if usage.other_tokens:
        notes.append(f"{usage.other_tokens} tokens of an unknown modality are priced as text")
    if usage.uncounted_answers:
        notes.append(f"{usage.uncounted_answers} responses have no count of tokens that can be read")
    return notes


def _of_other_model(usage: Usage, name: str, prices: Any, entry: str) -> list[str]:
    """Return a note if a model of pictures, sound or video has the price of a model of text, whose name is alike."""
    kind = response_modality(name)
    count = getattr(usage, f"output_{kind}_tokens") if kind is not None else 0
    # The entries of speech models have one price for output, which is that of sound.
    if not count or getattr(prices, f"output_{kind}_mtok") is not None or response_modality(entry) == kind:
        return []
    return [f"{count} tokens of {kind} are priced as text: the price table knows only {entry}, not {name}"]


def _has_batch_rates(model: Any, now: datetime) -> bool:
    """Return whether every price for tokens has a batch rate at that time; the cache is priced separately."""
    rates = next(
        (
            variant.prices
            for variant in model.price_variants or ()
            if variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(now))
        ),
        None,
    )
    if rates is None:
        return False
    full = model.get_prices(now)
    names = ["input_mtok", "output_mtok"]
    names += [f"{side}_{kind}_mtok" for side in ("input", "output") for kind in _MODALITIES]
    return all(getattr(full, name) is None or getattr(rates, name) is not None for name in names)


def estimated_cost(expected: Expected, kind: JobKind, *, at: datetime | None = None) -> Cost:
    """Return an upper estimate of what a batch will cost, at the highest price of the next days.

    Output is what ``maxOutputTokens`` allows for each candidate. Without that limit it is guessed as 1,024 tokens,
    which the note then says. Embeddings have no output tokens. Responses in pictures or sound are priced as such.
    """
    guessed, usage, long = expected.unbounded_rows, expected.usage, expected.long_prompts
    if kind is JobKind.EMBEDDINGS:
        guessed, usage = 0, usage._replace(output_tokens=0)
        long = long and long._replace(usage=long.usage._replace(output_tokens=0))
    begin = at or datetime.now(tz=timezone.utc)
    days = [begin + timedelta(days=day) for day in range(_DAYS_AHEAD + 1)]
    found = [cost_of(usage, expected.model, rows=expected.rows, at=day, long_prompts=long) for day in days]
    cost = max(found, key=lambda one: -1.0 if one.usd is None else one.usd)
    if cost.usd is None:
        return cost
    notes = [*([cost.note] if cost.note else []), *expected.unknown]
    if guessed:
        notes.append(f"assuming {OUTPUT_TOKENS_GUESSED} output tokens a row, which nothing bounds: {_NO_BOUND}")
    return Cost(
        cost.usd,
        upper_bound=cost.upper_bound,
        note="; ".join(notes),
        open_bound=cost.open_bound or bool(guessed or expected.unknown),
    )


def refuse_above(cost: Cost, max_cost_usd: float) -> None:
    """Raise ConfigurationError when the estimate is above the author's limit, or cannot be relied on."""
    if cost.usd is None or cost.open_bound:
        raise ConfigurationError(f"max_cost_usd cannot be checked: {cost.note}; nothing was sent")
    if cost.usd > max_cost_usd:
        raise ConfigurationError(
            f"the estimate is {cost}, above max_cost_usd={max_cost_usd:g}; nothing was sent: raise the limit, let "
            "responses be shorter (maxOutputTokens), or send fewer rows"
        )
