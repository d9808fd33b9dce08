"""Charts as numbers: the positions of lines, columns and labels. Templates draw them as SVG, without scripts."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from airflow_provider_gemini_batch.batch.overview import Sample

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 26
_STEPS = (1, 2, 2.5, 5, 10)
# Far below anything that has a price: a float of 5e-324 has no quarter.
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Label:
    """A label on an axis: its position and its value (for times: seconds since the epoch)."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class LineChart:
    """Done and failed rows over time: the outlines of two areas, as SVG points."""

    good_line: str
    good_area: str
    failed_area: str
    y_labels: tuple[Label, ...]
    x_labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A piece of one day's column."""

    x: float
    y: float
    width: float
    height: float
    series: int
    day: date
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class ColumnChart:
    """A column for each day, in pieces."""

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    y_labels: tuple[Label, ...]
    x_labels: tuple[tuple[float, date], ...]


def ticks(largest: float) -> list[float]:
    """Return about five round values, from 0 to just above the largest."""
    if largest < _SMALLEST:
        return [0.0, 1.0]
    rough = largest / 4
    size = 10.0 ** floor(log10(rough))
    step = next(factor * size for factor in _STEPS if factor * size >= rough * (1 - 1e-9))
    return [number * step for number in range(ceil(largest / step - 1e-9) + 1)]


def line_chart(samples: Sequence[Sample], total: int | None) -> LineChart | None:
    """Return a chart of done rows over time; None for fewer than two samples."""
    if len(samples) < 2 or samples[-1].at <= samples[0].at:  # noqa: PLR2004
        return None
    begin, end = samples[0].at, samples[-1].at
    values = ticks(max([total or 0, *(each.done for each in samples)]))
    bottom = HEIGHT - BOTTOM

    def x(at: float) -> float:
        return round(LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(bottom - value / values[-1] * (bottom - TOP), 1)

    done = [(x(each.at), y(each.done)) for each in samples]
    failed = [(x(each.at), y(each.failed)) for each in samples]
    edge = [(x(end), float(bottom)), (x(begin), float(bottom))]
    return LineChart(
        good_line=_points(done),
        good_area=_points([*done, *edge]),
        failed_area=_points([*failed, *edge]) if any(each.failed for each in samples) else "",
        y_labels=tuple(Label(y(value), value) for value in values),
        x_labels=tuple(Label(x(at), at) for at in (begin + (end - begin) * part / 3 for part in range(4))),
    )


def column_chart(days: Sequence[date], series: Mapping[str, Sequence[float]]) -> ColumnChart | None:
    """Return a chart of one column a day, the first series at the bottom; None if all values are 0."""
    sums = [sum(values[index] for values in series.values()) for index in range(len(days))]
    if not any(sums):
        return None
    values = ticks(max(sums))
    bottom = HEIGHT - BOTTOM
    slot = (WIDTH - LEFT - RIGHT) / len(days)
    width = round(min(slot * 0.72, 40), 1)
    columns = []
    for index, day in enumerate(days):
        below = 0.0
        for number, (name, own) in enumerate(series.items()):
            if own[index] > 0:
                height = own[index] / values[-1] * (bottom - TOP)
                left = LEFT + slot * index + (slot - width) / 2
                top = bottom - below - height
                columns.append(
                    Column(round(left, 1), round(top, 2), width, round(height, 2), number, day, name, own[index])
                )
                below += height
    every = ceil(len(days) / 8)
    # Counted from today, so that today always has its label.
    shown = [index for index in range(len(days)) if (len(days) - 1 - index) % every == 0]
    return ColumnChart(
        columns=tuple(columns),
        names=tuple(series),
        y_labels=tuple(Label(round(bottom - value / values[-1] * (bottom - TOP), 1), value) for value in values),
        x_labels=tuple((round(LEFT + slot * (index + 0.5), 1), days[index]) for index in shown),
    )


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)
