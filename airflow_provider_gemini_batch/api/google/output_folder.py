"""Which objects of a Vertex job's folder hold its responses. Pure: names and sizes in, names out.

Google uses several families of names: the batch guide's ``predictions.jsonl``, shards as Cloud
Storage writers number them (``-00000-of-00003``), the REST reference's ``predictions_0001`` with ``errors_0001``,
``prediction.results-*`` of older models, BigQuery's export names of twelve digits; each may be compressed (``.gz``). A
partial dump, ``incremental_predictions.jsonl``, is used only where there are no final responses, or shards of them are
missing. Shards of several attempts differ in their total, and those of one attempt are used: the newest whole one. If
none is whole, those of the others may hold responses that it lacks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_gemini_batch.api.names import a_few

if TYPE_CHECKING:
    from collections.abc import Iterable


class StoredObject(NamedTuple):
    """An object in a listing: its name within the folder (a folder's ends in a slash) and its size in bytes."""

    name: str
    size: int
    updated: datetime | None = None


class OutputFiles(NamedTuple):
    """What a folder holds.

    :param responses: names of the objects to read, in order; none of them is empty.
    :param exists: whether there is any object for responses, even an empty one.
    :param missing: names of shards that should exist, judged by the names of the others.
    :param unknown: unknown names of objects that are not empty.
    :param doubles: names of objects that repeat what others hold, or are another attempt's.
    :param others: names of objects of other attempts and of partial dumps, if what is in ``responses`` is not whole.
    """

    responses: tuple[str, ...]
    exists: bool
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    doubles: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_SHARDED = re.compile(
    r"(?P<stem>[^/]{1,200}?)(?P<before>[-_])(?P<number>[0-9]{1,5})-of-(?P<total>[0-9]{1,5})(?P<ending>(?:\.[a-z]{1,10}){0,2})\Z"
)
# Families with consecutive numbers, from 0 or 1, and without a total.
_COUNTED = re.compile(r"(?P<stem>predictions_)(?P<number>[0-9]{4}|0[0-9]{4,6})(?P<ending>(?:\.[a-z]{1,10}){0,2})\Z")
_EXPORTED = re.compile(r"(?P<stem>(?:predictions?[-_])?)(?P<number>[0-9]{12})(?P<ending>\.jsonl?(?:\.gz)?)\Z")
# Names without their shard; the reference does not fix the ending.
_FINAL = re.compile(
    r"(?:predictions[^/]*\.jsonl?|predictions(?:_[0-9]{1,12})?|prediction\.results(?:\.jsonl)?)(?:\.gz)?\Z"
)
_ERRORS = re.compile(r"(?:prediction\.)?errors?(?:_[0-9]{1,12})?(?:\.jsonl?)?(?:\.gz)?\Z")
_PARTIAL = re.compile(r"incremental_[^/]*\.jsonl(?:\.gz)?\Z")
# Not responses: error counts of older models, and files added by the service or by tools that copied the folder.
_NOTES = re.compile(r"(?:[._].*|.*\.metadata|(?!prediction).*\.json|prediction\.errors_stats.*)\Z")
_MOST_NAMES = 10
_LONGEST_NAME = 100
_MOST_SHARDS = 100_000
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)
# What the names of one attempt's shards have in common. Packing makes no difference: tools pack some, or add copies.
_Family = tuple[str, str, str, str]


def choose(objects: Iterable[StoredObject]) -> OutputFiles:
    """Return which of a folder's objects to read."""
    final: list[StoredObject] = []
    partial: list[StoredObject] = []
    unknown: list[str] = []
    for item in sorted(objects):
        stem = _without_shard(item.name)
        if _PARTIAL.match(stem):
            partial.append(item)
        elif _EXPORTED.match(stem) or _FINAL.match(stem) or _ERRORS.match(stem):
            final.append(item)
        elif not _NOTES.match(item.name) and (item.size or item.name.endswith("/")):
            unknown.append(item.name)
    has_responses = any(item.size for item in final if not _is_of_errors(item))
    dumped = [item for item in partial if item.size]
    listed = final if has_responses or not dumped else [*partial, *filter(_is_of_errors, final)]
    doubles, others = _beside(listed)
    chosen = [item for item in listed if item.name not in doubles | others]
    # Responses first, errors after them.
    chosen.sort(key=lambda item: (_is_of_errors(item), item.name))
    missing = tuple(_missing(item.name for item in chosen))
    beside = [item for item in listed if item.name in others]
    spare = dumped if missing and has_responses else []
    return OutputFiles(
        responses=tuple(item.name for item in chosen if item.size),
        exists=bool(chosen),
        missing=missing,
        unknown=tuple(unknown),
        doubles=tuple(sorted(doubles)),
        others=tuple(item.name for item in (*beside, *spare) if item.size),
    )


def _is_of_errors(item: StoredObject) -> bool:
    return _ERRORS.match(_without_shard(item.name)) is not None


def _beside(listed: list[StoredObject]) -> tuple[set[str], set[str]]:
    """Return the names of what repeats others, and of shards of other attempts than the used one, if that lacks some.

    Packed copies, merged shards, and shards beside a whole attempt repeat others.
    """
    sizes = {item.name: item.size for item in listed}
    doubles = {f"{name}.gz" for name, size in sizes.items() if size and f"{name}.gz" in sizes}
    others: set[str] = set()
    attempts: dict[str, dict[_Family, list[StoredObject]]] = defaultdict(lambda: defaultdict(list))
    for item in listed:
        if (found := _SHARDED.match(item.name)) and item.name not in doubles:
            attempts[_without_shard(item.name).removesuffix(".gz")][_family(found)].append(item)
    for name, families in attempts.items():
        used = max(families.items(), key=_rank)
        is_whole = _rank(used)[0]
        for family, items in families.items():
            # Shards that were merged but not removed: their sizes add up to the whole object's.
            size = sum(item.size for item in items)
            is_merged = size and size in {sizes.get(name), sizes.get(f"{name}.gz")}
            if is_merged or family != used[0]:
                (doubles if is_merged or is_whole else others).update(item.name for item in items)
    return doubles, others


def _rank(attempt: tuple[_Family, list[StoredObject]]) -> tuple[bool, datetime, int]:
    """Return what makes one attempt's shards better than another's: that none is missing, their time, their size."""
    (*_, total, _), items = attempt
    times = [item.updated for item in items if item.updated is not None]
    shards = {item.name.removesuffix(".gz") for item in items}
    return len(shards) == int(total), max(times, default=_LONG_AGO), sum(item.size for item in items)


def some(names: Iterable[str]) -> str:
    """Return names for a message, not more than a few."""
    return a_few([repr(name[:_LONGEST_NAME]) for name in names], _MOST_NAMES)


def _without_shard(name: str) -> str:
    found = _SHARDED.match(name)
    return found["stem"] + found["ending"] if found and int(found["number"]) < int(found["total"]) else name


def _family(shard: re.Match[str]) -> _Family:
    return shard["stem"], shard["before"], shard["total"], shard["ending"].removesuffix(".gz")


def _missing(names: Iterable[str]) -> list[str]:
    """Return the names of shards that should exist, judged by the names of the others."""
    # The ending of each shard by its number; one of them stands for those that are missing.
    sharded: dict[_Family, dict[int, str]] = defaultdict(dict)
    counted: dict[tuple[str, int, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        if found := _SHARDED.match(name):
            sharded[_family(found)][int(found["number"])] = found["ending"]
        elif found := _COUNTED.match(name) or _EXPORTED.match(name):
            family = found["stem"], len(found["number"]), found["ending"].removesuffix(".gz")
            counted[family][int(found["number"])] = found["ending"]
    missing = []
    for (stem, before, total, _), numbers in sorted(sharded.items()):
        ending = min(numbers.values())
        lost = set(range(int(total))) - numbers.keys()
        missing += [f"{stem}{before}{number:0{len(total)}d}-of-{total}{ending}" for number in sorted(lost)]
    for (stem, digits, _), numbers in sorted(counted.items()):
        if max(numbers) < _MOST_SHARDS:
            ending = min(numbers.values())
            lost = set(range(min(*numbers, 1), max(numbers))) - numbers.keys()
            missing += [f"{stem}{number:0{digits}d}{ending}" for number in sorted(lost)]
    return missing
