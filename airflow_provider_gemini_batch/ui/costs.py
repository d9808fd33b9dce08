"""What ended batches cost, added up by day, Dag and model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from airflow_provider_gemini_batch.ui.batches import Short

MOST_SERIES = 6
OTHERS = "others"


@dataclass
class Sum:
    """Batches, rows, tokens and cost added up. ``priced`` batches had a price; the others add nothing to ``usd``."""

    batches: int = 0
    rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    priced: int = 0
    is_upper_bound: bool = False
    is_open_bound: bool = False

    def __iadd__(self, other: Sum) -> Self:
        """Add another sum."""
        self.batches += other.batches
        self.rows += other.rows
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.priced += other.priced
        self.usd += other.usd
        self.is_upper_bound |= other.is_upper_bound
        self.is_open_bound |= other.is_open_bound
        return self

    @classmethod
    def of(cls, batch: Short) -> Self:
        """Return the sum of one batch."""
        read, written = batch.tokens
        usd = batch.usd
        bounds = batch.is_upper_bound, batch.is_open_bound
        return cls(1, batch.rows or 0, read, written, usd or 0.0, int(usd is not None), *bounds)

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens

    @property
    def usd_if_priced(self) -> float | None:
        """The cost; None where no batch had a price."""
        return self.usd if self.priced else None


@dataclass
class Costs:
    """The sums of some days: ``days`` has each of them, also those without batches, the oldest first."""

    days: list[date]
    by_all: dict[tuple[date, str, str], Sum]

    def only(self, *, dag: str = "", model: str = "") -> Costs:
        """Return the sums of one Dag or model; empty for all of them."""
        found = {
            key: each
            for key, each in self.by_all.items()
            if (not dag or key[1] == dag) and (not model or key[2] == model)
        }
        return Costs(self.days, found)

    @property
    def models(self) -> list[str]:
        """The models that are known."""
        return sorted({model for _, _, model in self.by_all if model})

    @cached_property
    def total(self) -> Sum:
        """All together."""
        found = Sum()
        for each in self.by_all.values():
            found += each
        return found

    @property
    def in_usd(self) -> bool:
        """Whether any batch has a price; if none has, charts show tokens."""
        return self.total.priced > 0

    def dearest(self) -> list[tuple[str, str, Sum]]:
        """Return (Dag, model, sum), the most expensive first."""
        sums: dict[tuple[str, str], Sum] = defaultdict(Sum)
        for (_, dag, model), each in self.by_all.items():
            sums[dag, model] += each
        found = [(dag, model, each) for (dag, model), each in sums.items()]
        return sorted(found, key=lambda row: (-row[2].usd, -row[2].tokens, row[0], row[1]))

    def newest(self) -> list[tuple[date, str, str, Sum]]:
        """Return (day, Dag, model, sum), the newest day first, within a day the most expensive first."""
        found = [(day, dag, model, each) for (day, dag, model), each in self.by_all.items()]
        return sorted(found, key=lambda row: (-row[0].toordinal(), -row[3].usd, -row[3].tokens, row[1], row[2]))

    def series(self, by: str) -> dict[str, list[float]]:
        """Return for each model (``by`` "model") or Dag one value a day: dollars, or tokens where nothing has a price.

        The most expensive have values of their own; the rest is added up as "others".
        """
        name: Callable[[tuple[Any, str, str]], str] = (lambda key: key[1]) if by == "dag" else (lambda key: key[2])
        measure: Callable[[Sum], float] = (lambda each: each.usd) if self.in_usd else (lambda each: each.tokens)
        totals: dict[str, float] = defaultdict(float)
        for key, each in self.by_all.items():
            totals[name(key)] += measure(each)
        own = sorted(totals, key=lambda each: (-totals[each], each))
        shown = own if len(own) <= MOST_SERIES else own[: MOST_SERIES - 1]
        place = {day: index for index, day in enumerate(self.days)}
        found = {each: [0.0] * len(self.days) for each in shown}
        for key, each in self.by_all.items():
            values = found.setdefault(name(key) if name(key) in shown else OTHERS, [0.0] * len(self.days))
            values[place[key[0]]] += measure(each)
        return found


def first_moment(now: datetime, days: int) -> datetime:
    """Return when the first of the last ``days`` days began, today included; days are UTC."""
    today = now.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days - 1)


def add_up(batches: Iterable[Short], *, now: datetime, days: int) -> Costs:
    """Return the sums of batches that ended in the last days; active ones have no cost yet."""
    since = first_moment(now, days)
    known = [(since + timedelta(days=number)).date() for number in range(days)]
    found: dict[tuple[date, str, str], Sum] = defaultdict(Sum)
    for batch in batches:
        if batch.ended is None or batch.state.is_active:
            continue
        day = batch.ended.astimezone(timezone.utc).date()
        if known[0] <= day <= known[-1]:
            found[day, batch.dag_id, batch.model] += Sum.of(batch)
    return Costs(known, found)
