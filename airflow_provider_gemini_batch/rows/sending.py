"""The lines of one job at a time, read from the input again when they are needed, and checked to be unchanged.

The lines of at most two jobs are on the local disk. Rows before the wanted ones are skipped without being parsed.
"""

from __future__ import annotations

import zlib
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputUnavailable
from airflow_provider_gemini_batch.rows.layout import Layout, Shard, ShardFile
from airflow_provider_gemini_batch.rows.stage import SHARDS_ON_DISK, open_source
from airflow_provider_gemini_batch.rows.wire_lines import LineMaker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.rows.input_spec import InputSpec
    from airflow_provider_gemini_batch.rows.sources import Row
    from airflow_provider_gemini_batch.rows.wire_lines import WireLine

_WRITE_BYTES = 1 << 20


class ShardReader:
    """Writes the lines of jobs to local files.

    Raises :class:`InputUnavailable` when rows differ from those that were checked; errors in reading are raised as
    they are.
    """

    def __init__(
        self, spec: InputSpec, layout: Layout, workdir: Path, files: Mapping[int, ShardFile] | None = None
    ) -> None:
        """Prepare to read the input that was checked.

        :param files: files of lines that exist already, by the index of their job.
        """
        self._spec = spec
        self._layout = layout
        self._workdir = workdir
        self._files = dict(files or {})
        self._open = ExitStack()
        self._maker: LineMaker | None = None
        self._rows: Iterator[Row] = iter(())
        self._next = 0

    def shard(self, index: int) -> ShardFile:
        """Return the lines of one job. Fastest when jobs are requested in order."""
        found = self._files.get(index)
        if found is None:
            while len(self._files) >= SHARDS_ON_DISK:
                self._files.pop(next(iter(self._files))).path.unlink(missing_ok=True)
            found = self._files[index] = self._write(self._layout.shards[index])
        return found

    def subset(self, row_numbers: Sequence[int], path: Path) -> ShardFile:
        """Write the lines of some rows, given in ascending order, into one file, as many as one job holds."""
        max_rows, max_bytes = self._spec.limits()
        taken: list[int] = []
        size = 0
        is_full = False
        with path.open("wb", buffering=_WRITE_BYTES) as handle:
            for shard, wanted in self._by_shard(row_numbers):
                # Read to the end, even when full: only there is it certain that the rows are those that were checked.
                for number, made in self._lines(shard):
                    if number not in wanted or is_full:
                        continue
                    is_full = size + len(made[2]) > max_bytes or len(taken) == max_rows
                    if not is_full:
                        taken.append(number)
                        size += handle.write(made[2])
                if is_full:
                    break
        self.close()
        return ShardFile(path, len(taken), size, taken)

    def close(self) -> None:
        """Close the input."""
        self._open.close()
        self._maker = None

    def _by_shard(self, row_numbers: Sequence[int]) -> Iterator[tuple[Shard, set[int]]]:
        wanted: dict[int, set[int]] = {}
        for row in row_numbers:
            wanted.setdefault(self._layout.shard_of(row).index, set()).add(row)
        for index, rows in sorted(wanted.items()):
            yield self._layout.shards[index], rows

    def _write(self, shard: Shard) -> ShardFile:
        path = self._workdir / f"shard-{shard.index:05d}.jsonl"
        with path.open("wb", buffering=_WRITE_BYTES) as handle:
            handle.writelines(made[2] for _, made in self._lines(shard))
        return ShardFile(path, shard.rows, shard.bytes, shard.numbers())

    def _lines(self, shard: Shard) -> Iterator[tuple[int, WireLine]]:
        """Yield the rows of a job; after the last one, raise InputUnavailable unless they are the same as before."""
        size = checksum = 0
        maker = self._go_to(shard.first_row)
        for number in shard.numbers():
            row = next(self._rows, None)
            if row is None or row.fault is not None:
                break
            self._next = number + 1
            try:
                made = maker.make(row, number)
            except ConfigurationError:
                break  # the row passed the first check, so it has changed
            _, _, line, hash_as, _, _ = made
            size += len(line)
            checksum = zlib.crc32(line if hash_as is None else hash_as, checksum)
            yield number, made
        if (size, checksum) != (shard.bytes, shard.checksum):
            self.close()
            raise InputUnavailable("the input has changed since it was checked and its jobs were made")

    def _go_to(self, row: int) -> LineMaker:
        if self._maker is None or row < self._next:
            self.close()
            source = open_source(self._spec)
            self._open.enter_context(closing(source))
            notes: set[str] = set()
            self._maker = LineMaker(self._spec, self._spec.defaults(notes), source, notes)
            self._rows, self._next = source.rows, 0
        while self._next < row and next(self._rows, None) is not None:
            self._next += 1
        return self._maker
