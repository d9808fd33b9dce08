"""What ended batches cost, added up by day, Dag and model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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

    def __iadd__(self, other: Sum) -> Self:
        """Add another sum."""
        self.batches += other.batches
        self.rows += other.rows
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.priced += other.priced
        self.usd += other.usd
        self.is_upper_bound |= other.is_upper_bound
        return self

    def add(self, batch: Short) -> None:
        """Add one batch."""
        read, written = batch.tokens
        self.batches += 1
        self.rows += batch.rows or 0
        self.input_tokens += read
        self.output_tokens += written
        usd = batch.usd
        if usd is not None:
            self.priced += 1
            self.usd += usd
        self.is_upper_bound |= batch.is_upper_bound

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
    total: Sum = field(default_factory=Sum)
    by_dag_and_model: dict[tuple[str, str], Sum] = field(default_factory=lambda: defaultdict(Sum))
    by_all: dict[tuple[date, str, str], Sum] = field(default_factory=lambda: defaultdict(Sum))

    @property
    def in_usd(self) -> bool:
        """Whether any batch has a price; if none has, charts show tokens."""
        return self.total.priced > 0

    def dearest(self) -> list[tuple[str, str, Sum]]:
        """Return (Dag, model, sum), the most expensive first."""
        found = [(dag, model, each) for (dag, model), each in self.by_dag_and_model.items()]
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
    costs = Costs([(since + timedelta(days=number)).date() for number in range(days)])
    known = set(costs.days)
    for batch in batches:
        day = batch.ended.astimezone(timezone.utc).date() if batch.ended else None
        if day is None or day not in known or batch.state.is_active:
            continue
        costs.by_all[day, batch.dag_id, batch.model].add(batch)
    for (_, dag_id, model), each in costs.by_all.items():
        costs.by_dag_and_model[dag_id, model] += each
        costs.total += each
    return costs


def top(rows: Sequence[Any], most: int) -> tuple[Sequence[Any], int]:
    """Return the first rows, and the number of rows left out."""
    return rows[:most], max(0, len(rows) - most)
