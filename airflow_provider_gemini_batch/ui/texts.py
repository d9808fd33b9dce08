"""Numbers, times and sums of money in words, for people."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING = "\N{EN DASH}"
_LAST_TIME = 253402300799  # the end of the year 9999; anything later is not a time
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))
_THOUSAND = 1000
_CENT = 0.01
_PARTS = re.compile(r"[^_/.]+[_/.]*|[_/.]+")
# The gRPC status codes, in a word or two.
_CODES: Final = {
    "1": "cancelled",
    "2": "unknown",
    "3": "bad request",
    "4": "time-out",
    "5": "not found",
    "7": "no permission",
    "8": "quota",
    "9": "not possible now",
    "10": "aborted",
    "13": "internal",
    "14": "unavailable",
    "16": "not signed in",
}


def number(value: float | None) -> str:
    """Return a count with separators: ``124,010``."""
    return NOTHING if value is None else f"{value:,.0f}"


def short_number(value: float | None) -> str:
    """Return a large count in three digits: ``41.2 M``."""
    if value is None:
        return NOTHING
    for unit in ("", " k", " M", " G"):
        if round(value) < _THOUSAND or unit == " G":
            break
        value /= _THOUSAND
    digits = 1 if unit and value < _THOUSAND / 10 else 0
    return f"{value:,.{digits}f}".removesuffix(".0") + unit


def money(value: float | None) -> str:
    """Return a sum of US dollars: ``$18.40``; small sums keep two significant digits."""
    if value is None:
        return NOTHING
    if 0 < value < _CENT:
        return f"${value:.2g}" if value >= _CENT / 100 else "under $0.0001"
    return f"${value:,.2f}"


def bound(seen: Any) -> str:
    """Return the words before the cost of an overview or a sum, the same as in the log; empty if it is exact."""
    if seen.usd is None:
        return ""
    return "at least" if seen.is_open_bound else "at most" if seen.is_upper_bound and seen.usd else ""


def estimate(value: float | None, *, is_open: bool) -> str:
    """Return the estimated cost of a batch that has not ended: "at most" its bound, or "perhaps" without one."""
    return NOTHING if value is None else f"{'perhaps' if is_open else 'at most'} {money(value)}"


def span(seconds: float | None) -> str:
    """Return a duration in at most two units: ``1 h 12 min``."""
    if seconds is None:
        return NOTHING
    seconds = max(0, round(seconds))
    for index, (size, unit) in enumerate(_SPANS):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            smaller, name = (_SPANS[index + 1]) if index + 1 < len(_SPANS) else (1, "s")
            part = rest // smaller
            return f"{whole} {unit} {part} {name}" if part and whole < 10 else f"{whole} {unit}"  # noqa: PLR2004
    return f"{seconds} s"


def about(seconds: float | None) -> str:
    """Return a remaining time, rounded as an estimate: never to the second."""
    if seconds is None:
        return NOTHING
    if seconds < _SPANS[-1][0]:
        return "under 1 min"
    minutes = seconds / 60
    step = 1 if minutes < 10 else 5 if minutes < 120 else 30  # noqa: PLR2004
    return f"about {span(max(step, round(minutes / step) * step) * 60)}"


def percent(part: float | None, whole: float | None) -> float:
    """Return a share from 0 to 100; 0 if it is unknown."""
    return 0.0 if not part or not whole else min(100.0, 100.0 * part / whole)


def moment(value: float | datetime | None) -> datetime | None:
    """Return a time with its zone, UTC; None for what is not a time."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    if value is None or not 0 <= value <= _LAST_TIME:
        return None
    return datetime.fromtimestamp(value, tz=timezone.utc)


def iso(value: float | datetime | None) -> str:
    """Return a time for ``<time datetime>``; empty for what is not a time."""
    found = moment(value)
    return "" if found is None else found.astimezone(timezone.utc).isoformat(timespec="seconds")


def clock(value: float | datetime | None, pattern: str = "%d %b %H:%M") -> str:
    """Return a time for people, in UTC, with the year if it is another than this; the page's script localises it."""
    found = moment(value)
    if found is None:
        return NOTHING
    found = found.astimezone(timezone.utc)
    if found.year != datetime.now(tz=timezone.utc).year:
        pattern = pattern.replace("%b", "%b %Y")
    return found.strftime(pattern)


def breakable(name: str) -> Markup:
    """Return an escaped name with possible line breaks after underscores, slashes and dots."""
    return Markup("<wbr>").join(_PARTS.findall(name))


def rough(seconds: float | None) -> str:
    """Return a duration for a narrow column: seconds only below a minute."""
    return span(seconds if seconds is None or seconds < _SPANS[-1][0] else seconds // 60 * 60)


def reasons(by_status: Mapping[str, int], by_reason: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int]]:
    """Return counts of rows by result, the most frequent first; failed rows by the service's word, if known."""
    found: dict[str, int] = {}
    for status, rows in by_status.items():
        known = {word: count for word, count in by_reason.get(status, {}).items() if word}
        for word, count in known.items():
            named = f"{word}, {_CODES[word]}" if word in _CODES else word
            found[f"{status}: {named}"] = count
        rest = rows - sum(known.values())
        if rest > 0 or not known:
            found[status] = rest
    return sorted(found.items(), key=lambda each: (each[0] != "ok", -each[1], each[0]))
