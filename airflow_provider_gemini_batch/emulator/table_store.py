"""BigQuery tables of one emulator: columns, and rows as JSON lines on disk."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_gemini_batch.emulator.world import World

_NAME = re.compile(r"[^./\s]+\.[^./\s]+\.[^./\s]+")
_TYPE = re.compile(r"[A-Z][A-Z0-9]*(<.*>)?")


def table_name(uri: str) -> str:
    """Return ``project.dataset.table`` of a ``bq://`` URI or of such a name."""
    return uri.removeprefix("bq://").replace(":", ".")


class TableStore:
    """Tables by ``project.dataset.table``. A row maps columns to JSON values; NULL is None or absence."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._tables: dict[str, dict[str, Any]] = dict(world.store.load("table"))

    def forget(self) -> None:
        """Forget all tables."""
        self._tables.clear()

    def columns(self, name: str) -> dict[str, str] | None:
        """Return the types of a table's columns in order, None for an unknown table."""
        table = self._tables.get(name)
        return None if table is None else dict(table["columns"])

    def count(self, name: str) -> int:
        """Return how many rows a table has."""
        return int(self._tables[name]["rows"])

    def rows(self, name: str, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table, from row ``start`` on."""
        with self.world.store.path(self._tables[name]["file"]).open("rb", buffering=1 << 20) as lines:
            for line in islice(lines, start, None):
                yield json.loads(line)

    def put(self, name: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a whole table, in place of one of that name; ValueError for a bad name, column or type."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"A table is named project.dataset.table, not {name!r}.")
        for column, kind in columns.items():
            if not _TYPE.fullmatch(kind):
                raise ValueError(f"Column {column} has no type of BigQuery: {kind!r}.")
        file = f"table-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        target = self.world.store.path(file)
        part = target.with_name(target.name + ".part")
        count = 0
        with self.world.store.open(part.name, "wb") as sink:
            for row in rows:
                stray = set(row) - set(columns)
                if stray:
                    raise ValueError(f"{name} has no column {', '.join(sorted(stray))}.")
                sink.write(json.dumps(row).encode() + b"\n")
                count += 1
        with self.world.lock:
            part.replace(target)
            self._tables[name] = {"columns": dict(columns), "file": file, "rows": count}
            self.world.store.save("table", name, self._tables[name])

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to a table that exists."""
        table = self._tables[name]
        with self.world.lock, self.world.store.open(table["file"], "ab") as sink:
            for row in rows:
                sink.write(json.dumps(row).encode() + b"\n")
                table["rows"] += 1
            self.world.store.save("table", name, table)

    def remove(self, name: str) -> bool:
        """Delete a table; return whether there was one."""
        with self.world.lock:
            table = self._tables.pop(name, None)
            if table is None:
                return False
            self.world.store.delete("table", name)
            self.world.store.path(table["file"]).unlink(missing_ok=True)
            return True

    def names(self, dataset: str) -> list[str]:
        """Return the tables of ``project.dataset``."""
        return sorted(name for name in self._tables if name.startswith(dataset + "."))
