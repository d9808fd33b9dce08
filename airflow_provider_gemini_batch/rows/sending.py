"""The lines of one job at a time, read from the input again when they are needed, and checked to be unchanged.

The lines of at most two jobs are on the local disk: while the caller uploads those of one, a thread writes those of the
next, many at a time where they are plain. Rows before the wanted ones are skipped without being parsed.
"""

from __future__ import annotations

import zlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
    from airflow_provider_gemini_batch.rows.sources import Block, Row

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
        self._files: dict[int, ShardFile | Future[ShardFile]] = dict(files or {})
        self._is_stopping = False
        self._open = ExitStack()
        self._maker: LineMaker | None = None
        # Of a source with blocks: the rows that are left of one, and the blocks behind it.
        self._rows: Iterator[Row] = iter(())
        self._blocks: Iterator[Block] = iter(())
        self._next = 0

    def shard(self, index: int) -> ShardFile:
        """Return the lines of one job. Fastest when jobs are requested in order."""
        is_in_order = index - 1 in self._files
        found = self._files.get(index)
        if isinstance(found, Future):
            wait([found])
        elif found is None:
            self._stop()
            self._remove_all_but(SHARDS_ON_DISK - 1)
            found = self._write(self._layout.shards[index])
        self._files.pop(index, None)
        self._files[index] = found = found.result() if isinstance(found, Future) else found
        if is_in_order:
            self._write_ahead(index + 1)
        return found

    def subset(self, row_numbers: Sequence[int], path: Path) -> ShardFile:
        """Write the lines of some rows, given in ascending order, into one file, as many as one job holds."""
        self._stop()
        max_rows, max_bytes = self._spec.limits()
        taken: list[int] = []
        size = 0
        is_full = False
        with path.open("wb", buffering=_WRITE_BYTES) as handle:
            for shard, wanted in self._by_shard(row_numbers):
                # Read to the end, even when full: only there is it certain that the rows are those that were checked.
                for number, line in self._lines(shard):
                    if number not in wanted or is_full:
                        continue
                    is_full = size + len(line) > max_bytes or len(taken) == max_rows
                    if not is_full:
                        taken.append(number)
                        size += handle.write(line)
                if is_full:
                    break
        self._close_input()
        return ShardFile(path, len(taken), size, taken)

    def close(self) -> None:
        """Close the input."""
        self._stop()
        self._close_input()

    def _write_ahead(self, index: int) -> None:
        """Begin to write the lines of a job in a thread.

        Not if rows have files: those of the job before may be uploading, which the two would have to agree on.
        """
        if index < len(self._layout.shards) and index not in self._files and self._spec.attach is None:
            self._remove_all_but(SHARDS_ON_DISK - 1)
            thread = ThreadPoolExecutor(1)
            self._files[index] = thread.submit(self._write, self._layout.shards[index])
            thread.shutdown(wait=False)

    def _stop(self) -> None:
        """Stop the thread, so that the input can be read here, and forget what it was writing."""
        for index, file in list(self._files.items()):
            if isinstance(file, Future):
                self._is_stopping = True
                wait([file])
                self._is_stopping = False
                del self._files[index]
                self._path(index).unlink(missing_ok=True)
                self._close_input()  # it may have failed in the middle

    def _remove_all_but(self, count: int) -> None:
        while len(self._files) > count:
            index = next(iter(self._files))
            del self._files[index]
            self._path(index).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._workdir / f"shard-{index:05d}.jsonl"

    def _close_input(self) -> None:
        self._open.close()
        self._maker = None

    def _by_shard(self, row_numbers: Sequence[int]) -> Iterator[tuple[Shard, set[int]]]:
        wanted: dict[int, set[int]] = {}
        for row in row_numbers:
            wanted.setdefault(self._layout.shard_of(row).index, set()).add(row)
        for index, rows in sorted(wanted.items()):
            yield self._layout.shards[index], rows

    def _write(self, shard: Shard) -> ShardFile:
        path = self._path(shard.index)
        with path.open("wb", buffering=_WRITE_BYTES) as handle:
            handle.writelines(lines for _, lines in self._lines(shard, together=True))
        return ShardFile(path, shard.rows, shard.bytes, shard.numbers())

    def _lines(self, shard: Shard, *, together: bool = False) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the line of each row of a job, or of plain rows all lines ``together``.

        After the last one, raise InputUnavailable unless they are the same as before.
        """
        size = checksum = 0
        maker = self._go_to(shard.first_row)
        end = shard.first_row + shard.rows
        while self._next < end:
            number = self._next
            made = self._make(maker, end if together else number)
            if made is None or self._is_stopping:
                break
            line, hash_as = made
            size += len(line)
            checksum = zlib.crc32(line if hash_as is None else hash_as, checksum)
            yield number, line
        if (size, checksum) != (shard.bytes, shard.checksum):
            self._close_input()
            raise InputUnavailable("the input has changed since it was checked and its jobs were made")

    def _make(self, maker: LineMaker, end: int) -> tuple[bytes, bytes | None] | None:
        """Return the next line and what replaces it in the checksum; None if the input has changed.

        A block that comes next gives all its lines if they are plain and their rows are below ``end``.
        """
        row = next(self._rows, None)
        if row is None and self._next < end and (block := next(self._blocks, None)) is not None:
            plain = maker.make_all(block, self._next)
            if plain is not None and self._next + len(plain.sizes) <= end:
                self._next += len(plain.sizes)
                return plain.data, None
            self._rows = block.rows()
        row = row or self._next_row()
        if row is None or row.fault is not None:
            return None
        try:
            _, _, line, hash_as, _, _ = maker.make(row, self._next)
        except ConfigurationError:
            return None  # the row passed the first check
        self._next += 1
        return line, hash_as

    def _next_row(self) -> Row | None:
        """Return the next row, of the next block if need be; None at the end of the input."""
        while (row := next(self._rows, None)) is None and (block := next(self._blocks, None)) is not None:
            self._rows = block.rows()
        return row

    def _go_to(self, row: int) -> LineMaker:
        if self._maker is None or row < self._next:
            self._close_input()
            source = open_source(self._spec)
            self._open.enter_context(closing(source))
            warnings: set[str] = set()
            self._maker = LineMaker(self._spec, self._spec.defaults(warnings), source, warnings)
            self._rows = source.rows if source.blocks is None else iter(())
            self._blocks = source.blocks or iter(())
            self._next = 0
        while self._next < row and self._next_row() is not None:
            self._next += 1
        return self._maker
