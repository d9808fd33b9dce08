"""The checking pass: read every row once, check and fingerprint it, divide the rows into jobs; nothing is sent.

The lines of the first two jobs are written to local files during the pass, so that a small input is read only once;
:mod:`.sending` writes the others when they are needed. One InputError names up to twenty bad rows by their lines, and
the pass ends without a result. Memory holds a few buffers.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from array import array
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import EmptyInput, InputError
from airflow_provider_gemini_batch.api.legacy import instance_key, instance_of, is_legacy
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.api.requests.fields import shown
from airflow_provider_gemini_batch.api.requests.request import RequestDefaults, request_json
from airflow_provider_gemini_batch.rows.datasets import from_files
from airflow_provider_gemini_batch.rows.expected import Expected
from airflow_provider_gemini_batch.rows.layout import Layout, Shard, ShardFile
from airflow_provider_gemini_batch.rows.sources import Row, RowSource, from_file, from_python
from airflow_provider_gemini_batch.rows.templates import ColumnTypes, carried_line, named_columns, needed_columns
from airflow_provider_gemini_batch.rows.wire_lines import LineMaker, PlainRows
from airflow_provider_gemini_batch.rows.writers import is_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.rows.input_spec import InputSpec
    from airflow_provider_gemini_batch.rows.record import RecordWriter

BAD_ROWS_NAMED = 20
FINGERPRINT_LENGTH = 12
SHARDS_ON_DISK = 2
"""The lines of so many jobs may be on the local disk at a time."""

_BLOCK_BYTES = 256 << 10
_KEY_BUCKETS = 64
_HASHES_HELD = 512


@dataclass(frozen=True)
class Staged:
    """The result of the checking pass.

    ``files`` are the lines of the first jobs, by index. They are in the caller's folder, which the caller removes.
    """

    layout: Layout
    expected: Expected
    warnings: tuple[str, ...]
    carried_types: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[int, ShardFile] = field(default_factory=dict, repr=False)

    @property
    def estimated_input_tokens(self) -> int:
        """Tokens of the input, media included; rather too many than too few."""
        return self.expected.input_tokens


def open_source(spec: InputSpec) -> RowSource:
    """Return the rows of a spec, from any source. A file is opened at once. Raises ConfigurationError."""
    spec.check()
    typed = set(spec.carry) - set(spec.carry_types)
    of_parquet: dict[str, Any] = {
        "typed": typed,
        "needed": partial(needed_columns, spec),
        "required": partial(needed_columns, replace(spec, carry=())),
    }
    if spec.files is not None:
        asked_for = None if spec.prompt_template is not None else {name for _, name in named_columns(spec)}
        elsewhere = spec.carry_types if spec.is_part else ()
        return from_files(
            spec.files(),
            opener=spec.opener,
            asked_for=asked_for,
            elsewhere=elsewhere,
            **of_parquet,
            **_reading(spec),
        )
    if spec.path is not None and spec.file_format is None and is_parquet(spec.path):
        return from_files([spec.path], opener=spec.opener, **of_parquet, **_reading(spec))
    if spec.path is not None:
        found = from_file(spec.path, opener=spec.opener, **_reading(spec))
        return found._replace(where=lambda line: f"item {line - 1}") if spec.is_saved else found
    assert spec.rows is not None  # noqa: S101  (check() ensures it)
    return from_python(spec.rows)


def _reading(spec: InputSpec) -> dict[str, Any]:
    return {"file_format": spec.file_format, "csv_delimiter": spec.csv_delimiter, "encoding": spec.encoding}


def stage(spec: InputSpec, workdir: Path, record: RecordWriter | None = None) -> Staged:
    """Read, check and fingerprint the whole input once, and return the result.

    :param record: receives what landing needs of each row.
    :raises ConfigurationError: the arguments cannot work.
    :raises InputError: rows cannot be sent.
    """
    notes: set[str] = set()
    defaults = spec.defaults(notes)
    source = open_source(spec)
    with closing(source):
        one = _Pass(spec, defaults, source, workdir=workdir, notes=notes, record=record)
        with closing(one.keys):
            return one.run()


class _Pass:
    """The state of one pass; call :meth:`run` once."""

    def __init__(
        self,
        spec: InputSpec,
        defaults: RequestDefaults,
        source: RowSource,
        *,
        workdir: Path,
        notes: set[str],
        record: RecordWriter | None,
    ) -> None:
        self._spec = spec
        self._defaults = defaults
        self._source = source
        self._notes = notes
        self._maker = LineMaker(spec, defaults, source, notes)
        self._where = source.where or (lambda place: f"{source.noun} {place}")
        self._bad = _BadRows(self._where)
        self.keys = _Keys(workdir)
        self._out = _ShardWriter(workdir, *spec.limits())
        self._shift: int | None = None
        self._expected = Expected(
            spec.model, {**defaults.members, "generationConfig": defaults.generation_config or None}
        )
        self._record = record
        self._keyless_model = spec.service is Service.VERTEX and is_legacy(spec.model)
        self._carry_types = ColumnTypes(spec.carry)

    def run(self) -> Staged:
        """Read to the end, look for repeated keys, and return the result."""
        hasher = self._out.hasher
        hasher.update(self._header())
        try:
            self._take_all()
        finally:
            shards = self._out.close()
        self._check_whole()
        content = hasher.hexdigest()[:FINGERPRINT_LENGTH]
        hasher.update(to_json([shard.first_row for shard in shards]))
        layout = Layout(hasher.hexdigest()[:FINGERPRINT_LENGTH], shards, content)
        return Staged(
            layout=layout,
            expected=self._expected,
            warnings=tuple(sorted(self._notes)),
            carried_types=self._types(),
            files=self._out.files,
        )

    def _types(self) -> dict[str, str]:
        """Return the type of each carried column: the author's, else the source's, else that of its values."""
        found = {**self._carry_types.found(), **(self._source.types or {}), **self._spec.carry_types}
        return {name: found[name] for name in self._spec.carry}

    def _header(self) -> bytes:
        """Return everything that affects the responses, except the rows."""
        spec = self._spec
        defaults = [dict(self._defaults.members), dict(self._defaults.generation_config)]
        parts = [spec.service.value, spec.project, spec.location, spec.kind.value, self._defaults.model]
        return request_json([*parts, defaults])

    def _take_all(self) -> None:
        """Process the input, many rows at a time as far as they are plain."""
        blocks = self._source.blocks
        if blocks is None or self._spec.carry or self._keyless_model:
            self._take(self._source.rows)
            return
        for block in blocks:
            made = None if self._bad.places else self._maker.make_all(block, self._out.rows)
            if made is not None and self._out.has_room_for(made):
                self._take_plain(block.first + block.shift, made)
            else:
                self._take(block.rows())

    def _take_plain(self, place: int, rows: PlainRows) -> None:
        """Process rows of consecutive places, the first of which is given."""
        self._note_place(place, self._out.rows)
        self.keys.add(rows.keys)
        self._expected.add_texts(rows.requests, rows.sizes)
        self._out.write_all(rows)
        if self._record is not None:
            self._record.add_keys(rows.keys_json or [b""] * len(rows.sizes))

    def _note_place(self, place: int, row: int) -> None:
        """Note by how much the place of a row and its number differ, if all rows have the same difference."""
        if place - row != self._shift:
            self._shift = place if row == 0 else None

    def _take(self, rows: Iterable[Row]) -> None:
        """Process rows and note what is wrong with them; after the first bad row, no line is written."""
        make, write, expect, bad = self._maker.make, self._out.write, self._expected.add, self._bad
        add_key, record, carry = self.keys.add, self._record, self._spec.carry
        keeps = bool(carry) or self._keyless_model
        number = self._out.rows
        carried = instance = b""
        for row in rows:
            if row.fault is not None:
                bad.add(row.place, row.fault)
                continue
            try:
                key, key_json, line, hash_as, request, attachments = make(row, number)
                if keeps:
                    carried, instance = self._kept(row, line)
                if bad.places:
                    continue
                if key is not None:
                    add_key((key,))
                expect(request, len(line), attachments)
                write(line, hash_as)
            except (InputError, RecursionError) as error:
                bad.add(row.place, str(error) if isinstance(error, InputError) else "the row is nested too deeply")
                continue
            if row.place - number != self._shift:
                self._note_place(row.place, number)
            number += 1
            if carry:
                self._carry_types.add(row.value)
            if record is not None:
                record.add(key_json or b"", carried, instance)

    def _kept(self, row: Row, line: bytes) -> tuple[bytes, bytes]:
        """Return the carried columns of a row, and for models that return no keys what identifies it.

        :raises InputError: such a model cannot do what the row asks for, or a column cannot be written.
        """
        carry = self._spec.carry
        carried = carried_line(row.value, carry)[:-1] if carry else b""
        instance = to_json([instance_key(instance_of(line)), len(line)]) if self._keyless_model else b""
        return carried, instance

    def _check_whole(self) -> None:
        """Raise InputError for what is known only at the end: bad rows, no rows, missing columns, repeated keys."""
        self._bad.refuse()
        if not self._out.rows:
            raise EmptyInput("the input has no rows; set on_empty to 'skip' or 'succeed' if that may happen")
        if unmet := self._carry_types.unmet():
            fault = f"carry: no row has a column {', '.join(map(shown, unmet))}"
            if not self._spec.is_part or not self._spec.carry_types.keys() >= set(unmet):
                raise InputError(fault)
            self._notes.add(f"{fault}: it is null in this part")
        doubtful = self.keys.doubtful()
        if doubtful:
            for row, first, key in self._find_repeated(doubtful):
                where = self._where(first + self._shift) if self._shift is not None else f"row {first}"
                self._bad.add(row + (self._shift or 0), f"the key {shown(key)!r} was used before, in {where}")
            self._bad.refuse()

    def _find_repeated(self, doubtful: set[int]) -> Iterator[tuple[int, int, str]]:
        """Read the input again; yield for each repeated key the row, the first row with the key, and the key."""
        first: dict[str, int] = {}
        source = open_source(self._spec)
        with closing(source):
            maker = LineMaker(self._spec, self._defaults, source, set())
            for number, row in enumerate(source.rows):
                key = None if row.fault is not None else maker.make(row, number)[0]
                if key is not None and hash(key) in doubtful:
                    if key in first:
                        yield number, first[key], key
                    else:
                        first[key] = number


class _ShardWriter:
    """Counts and hashes lines, and writes the lines of each of the first jobs to a file."""

    def __init__(self, folder: Path, max_rows: int | None, max_bytes: int) -> None:
        self._folder = folder
        self._max_rows = max_rows or sys.maxsize
        self._max_bytes = max_bytes
        self._shards: list[Shard] = []
        self._handle: BinaryIO | None = None
        self._block = bytearray()
        self._first_row = 0
        self._size = 0
        self._checksum = 0
        self.hasher = hashlib.sha256()
        self.rows = 0
        self.files: dict[int, ShardFile] = {}

    def has_room_for(self, rows: PlainRows) -> bool:
        """Return whether the job that was begun can take all these rows."""
        fits = self._size + len(rows.data) <= self._max_bytes
        return fits and self.rows + len(rows.sizes) - self._first_row <= self._max_rows

    def write_all(self, rows: PlainRows) -> None:
        """Add rows for which there is room."""
        self._flush()
        self._hash(rows.data)
        self._write(rows.data)
        self._size += len(rows.data)
        self.rows += len(rows.sizes)

    def write(self, line: bytes, hash_as: bytes | None) -> None:
        """Add a line; ``hash_as`` replaces it in the fingerprint. Raises InputError if no job can hold the line."""
        end = self._size + len(line)
        if end > self._max_bytes or self.rows - self._first_row == self._max_rows:
            if len(line) > self._max_bytes:
                raise InputError(f"the request has {len(line)} bytes; a job takes {self._max_bytes}")
            self._end_shard()
            end = len(line)
        if hash_as is None:
            self._block += line
            if len(self._block) >= _BLOCK_BYTES:
                self._flush()
        else:
            self._flush()
            self._hash(hash_as)
            self._write(line)
        self._size = end
        self.rows += 1

    def close(self) -> tuple[Shard, ...]:
        """End the last file and return all shards."""
        self._end_shard()
        return tuple(self._shards)

    def _write(self, lines: bytes | bytearray) -> None:
        if len(self._shards) < SHARDS_ON_DISK:
            if self._handle is None:
                self._handle = self._path().open("wb")
            self._handle.write(lines)

    def _path(self) -> Path:
        return self._folder / f"shard-{len(self._shards):05d}.jsonl"

    def _hash(self, piece: bytes | bytearray) -> None:
        self.hasher.update(piece)
        self._checksum = zlib.crc32(piece, self._checksum)

    def _flush(self) -> None:
        if self._block:
            self._hash(self._block)
            self._write(self._block)
            self._block.clear()

    def _end_shard(self) -> None:
        self._flush()
        if self._size:
            shard = Shard(len(self._shards), self._first_row, self.rows - self._first_row, self._size, self._checksum)
            if self._handle is not None:
                self._handle.close()
                self._handle = None
                self.files[shard.index] = ShardFile(self._path(), shard.rows, shard.bytes, shard.numbers())
            self._shards.append(shard)
        elif self._handle is not None:
            self._handle.close()
        self._first_row = self.rows
        self._size = 0
        self._checksum = 0


class _BadRows:
    """Collects what is wrong, up to :data:`BAD_ROWS_NAMED` rows."""

    def __init__(self, where: Callable[[int], str]) -> None:
        self._where = where
        self.places: list[tuple[int, str]] = []

    def add(self, place: int, fault: str) -> None:
        """Note a bad row. Raises InputError once there are enough."""
        self.places.append((place, fault))
        if len(self.places) == BAD_ROWS_NAMED:
            self.refuse()

    def refuse(self) -> None:
        """Raise InputError when any row was bad."""
        if self.places:
            count = len(self.places)
            many = f"{count} bad rows" if count < BAD_ROWS_NAMED else f"at least {count} bad rows"
            lines = "".join(f"\n  {self._where(place)}: {fault}" for place, fault in sorted(self.places))
            raise InputError(f"the input has {many if count > 1 else '1 bad row'}; nothing was sent{lines}")


class _Keys:
    """Finds repeated keys with eight bytes per key on disk: by hashes; only where these are equal are keys compared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buckets = [array("q") for _ in range(_KEY_BUCKETS)]
        self._extents: list[list[int]] = [[] for _ in range(_KEY_BUCKETS)]
        self._file: IO[bytes] | None = None

    def add(self, keys: Sequence[str]) -> None:
        buckets = self._buckets
        for hashed in map(hash, keys):
            number = hashed % _KEY_BUCKETS
            bucket = buckets[number]
            bucket.append(hashed)
            if len(bucket) == _HASHES_HELD:
                self._write(number)

    def doubtful(self) -> set[int]:
        """Return hashes that came more than once."""
        found: set[int] = set()
        for bucket, extents in zip(self._buckets, self._extents, strict=True):
            for start in extents:
                assert self._file is not None  # noqa: S101  (an extent is in it)
                self._file.seek(start)
                bucket.fromfile(self._file, _HASHES_HELD)
            if len(set(bucket)) != len(bucket):
                found.update(hashed for hashed, count in Counter(bucket).items() if count > 1)
            del bucket[:]
        return found

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, number: int) -> None:
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  (close() does)
        self._extents[number].append(self._file.tell())
        self._buckets[number].tofile(self._file)
        del self._buckets[number][:]
