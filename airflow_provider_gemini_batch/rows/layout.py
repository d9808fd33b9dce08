"""How an input is divided into jobs, in a form that lets a later process go on without reading the input again."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of one job: consecutive, numbered over the whole input from 0.

    ``checksum`` (CRC-32 of its lines) and ``bytes`` show whether rows that are read again are the same.
    """

    index: int
    first_row: int
    rows: int
    bytes: int
    checksum: int

    def numbers(self) -> range:
        """Return the numbers of the rows in this shard."""
        return range(self.first_row, self.first_row + self.rows)


class ShardFile(NamedTuple):
    """A local file with the lines of one job, in the order of ``numbers``."""

    path: Path
    rows: int
    bytes: int
    numbers: Sequence[int]


@dataclass(frozen=True)
class Layout:
    """The jobs of an input. ``content`` is a fingerprint that leaves out how the rows are divided into jobs."""

    fingerprint: str
    shards: tuple[Shard, ...] = field(repr=False)
    content: str = field(default="", compare=False)

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return sum(shard.rows for shard in self.shards)

    def shard_of(self, row: int) -> Shard:
        """Return the shard that holds a row. Raises IndexError for a row that does not exist."""
        if not 0 <= row < self.rows:
            raise IndexError(row)
        return self.shards[bisect_right(self.shards, row, key=lambda shard: shard.first_row) - 1]

    def plain(self) -> dict[str, Any]:
        """Return the layout as a few numbers, for :meth:`from_plain`."""
        return {
            "fingerprint": self.fingerprint,
            "content": self.content,
            "jobs": [[shard.rows, shard.bytes, shard.checksum] for shard in self.shards],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Layout:
        """Return the layout that :meth:`plain` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        shards: list[Shard] = []
        first = 0
        for index, (rows, size, checksum) in enumerate(plain["jobs"]):
            shards.append(Shard(index, first, int(rows), int(size), int(checksum)))
            first += int(rows)
        return cls(str(plain["fingerprint"]), tuple(shards), str(plain.get("content", "")))
