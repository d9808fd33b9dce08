"""One streaming pass over the input: check every row, fingerprint it, write what will be sent to local files.

Nothing is sent from here. A bad row is named by its line, up to twenty of them in one InputError, and the pass ends
without a result. Memory holds one buffer, eight bytes a row for where its line begins, and eight more while keys are
compared.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.fields import shown
from airflow_provider_gemini_batch.api.requests.request import (
    RequestDefaults,
    is_ready,
    json_bytes,
    key_json,
    request_body,
    wire_line,
    with_roles,
)
from airflow_provider_gemini_batch.rows.sources import Row, RowSource, from_file, from_python
from airflow_provider_gemini_batch.rows.templates import ColumnTypes, Shaper, carried_line, with_attachments
from airflow_provider_gemini_batch.rows.wire_keys import unwrap_key, wrap_key_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.rows.input_spec import InputSpec

BAD_ROWS_NAMED = 20
FINGERPRINT_LENGTH = 12
BYTES_PER_TOKEN = 4
"""The estimate of input tokens: UTF-8 bytes of a request's JSON by four; for short rows it errs on the high side."""

_WRITE_BYTES = 1 << 20
_BLOCK_BYTES = 256 << 10
_KEY_BUCKETS = 64
_SPACED = b'{"key": %b, "request": '
_COMPACT = b'{"key":%b,"request":'

_Written = tuple[str | None, bytes | None, bytes, bytes | None]
"""A row's key, the key as JSON, its request as JSON, and what stands for that in the fingerprint where it differs."""


@dataclass(frozen=True)
class Shard:
    """The input of one job: a local file of wire lines. ``row_numbers`` is set when the rows are not consecutive."""

    index: int
    first_row: int
    rows: int
    bytes: int
    path: Path
    row_numbers: Sequence[int] | None = field(default=None, repr=False)

    def numbers(self) -> Sequence[int]:
        """The numbers of the rows in this shard, in the order of its lines."""
        return range(self.first_row, self.first_row + self.rows) if self.row_numbers is None else self.row_numbers


@dataclass(frozen=True)
class Staged:
    """What one pass over the input has made. The files live in the caller's folder, which the caller removes."""

    fingerprint: str
    rows: int
    shards: tuple[Shard, ...]
    estimated_input_tokens: int
    warnings: tuple[str, ...]
    service: Service
    max_rows: int | None
    max_bytes: int
    carried_path: Path | None = None
    carried_types: Mapping[str, str] = field(default_factory=dict)
    starts: array[int] = field(default_factory=lambda: array("q"), repr=False)

    def author_key(self, row: int) -> str | None:
        """The author's key of a row, read back from its line; None when it has none or the row is not ours."""
        if not 0 <= row < self.rows:
            return None
        item = from_json(next(self.wire_lines([row])))
        return unwrap_key(item.get("key", item.get("custom_id")))[1]

    def wire_lines(self, row_numbers: Sequence[int]) -> Iterator[bytes]:
        """The lines of these rows, in the order asked for. Raises IndexError for a row that is not there."""
        handles: dict[int, BinaryIO] = {}
        try:
            for row in row_numbers:
                if not 0 <= row < self.rows:
                    raise IndexError(row)
                shard = self._shard_of(row)
                handle = handles.get(shard.index)
                if handle is None:
                    handle = handles[shard.index] = shard.path.open("rb")
                handle.seek(self.starts[row])
                yield handle.readline()
        finally:
            for handle in handles.values():
                handle.close()

    def subset(self, row_numbers: Sequence[int], path: Path, *, index: int = 0) -> Shard:
        """Write the lines of some rows to a new file, to be sent again; keys stay as they were."""
        size = 0
        with path.open("wb", buffering=_WRITE_BYTES) as handle:
            for line in self.wire_lines(row_numbers):
                size += handle.write(line)
        return Shard(index, row_numbers[0], len(row_numbers), size, path, row_numbers)

    def fitting(self, row_numbers: Sequence[int]) -> Sequence[int]:
        """As many of these rows, from the first, as one job can hold."""
        size = 0
        for count, row in enumerate(row_numbers):
            size += self._line_bytes(row)
            if size > self.max_bytes or count == self.max_rows:
                return row_numbers[:count]
        return row_numbers

    def _shard_of(self, row: int) -> Shard:
        low, high = 0, len(self.shards) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.shards[middle].first_row <= row:
                low = middle
            else:
                high = middle - 1
        return self.shards[low]

    def _line_bytes(self, row: int) -> int:
        shard = self._shard_of(row)
        last = row + 1 == shard.first_row + shard.rows
        return (shard.bytes if last else self.starts[row + 1]) - self.starts[row]


def open_source(spec: InputSpec) -> RowSource:
    """The rows of a spec, from wherever they come. Raises ConfigurationError; a file is opened at once."""
    spec.check()
    if spec.path is not None:
        return from_file(spec.path, opener=spec.opener, file_format=spec.file_format)
    assert spec.rows is not None  # noqa: S101  (check() has seen to it)
    return from_python(spec.rows)


def stage(spec: InputSpec, workdir: Path) -> Staged:
    """Read, check, fingerprint and write the whole input once.

    Raises ConfigurationError for arguments that cannot work and InputError for rows that cannot be sent.
    """
    notes: set[str] = set()
    defaults = spec.defaults(notes)
    source = open_source(spec)
    with closing(source):
        return _Pass(spec, defaults, source, workdir, notes).run()


class _Pass:
    """The state of one pass; :meth:`run` is its whole life."""

    def __init__(
        self, spec: InputSpec, defaults: RequestDefaults, source: RowSource, workdir: Path, notes: set[str]
    ) -> None:
        self._spec = spec
        self._defaults = defaults
        self._source = source
        self._notes = notes
        self._shaper = Shaper(spec, defaults, source.columns, notes)
        self._bad = _BadRows(source.noun)
        self._keys = _Keys()
        self._out = _ShardWriter(workdir, *spec.limits())
        self._service = spec.service
        self._kind = spec.kind
        self._shift: int | None = None
        self._tokens = 0
        self._raw = _RawBody(spec, defaults) if self._shaper.plain else None
        self._carried: BinaryIO | None = None
        self._carried_path = workdir / "carried.jsonl" if spec.carry else None
        self._carry_types = ColumnTypes(spec.carry)

    def run(self) -> Staged:
        """Read to the end, then compare keys, then put the result together."""
        hasher = self._out.hasher
        hasher.update(self._header())
        try:
            if self._carried_path is not None:
                self._carried = self._carried_path.open("wb", buffering=_WRITE_BYTES)
            for row in self._source.rows:
                self._add(row)
        finally:
            shards = self._out.close()
            if self._carried is not None:
                self._carried.close()
        self._check_whole(shards)
        hasher.update(to_json([shard.first_row for shard in shards]))
        rows, max_bytes = self._spec.limits()
        return Staged(
            fingerprint=hasher.hexdigest()[:FINGERPRINT_LENGTH],
            rows=self._out.rows,
            shards=shards,
            estimated_input_tokens=self._tokens + sum(shard.bytes for shard in shards) // BYTES_PER_TOKEN,
            warnings=tuple(sorted(self._notes)),
            service=self._spec.service,
            max_rows=rows,
            max_bytes=max_bytes,
            carried_path=self._carried_path,
            carried_types=self._carry_types.found(),
            starts=self._out.starts,
        )

    def _header(self) -> bytes:
        """All that decides about the answers besides the rows."""
        spec = self._spec
        defaults = [dict(self._defaults.members), dict(self._defaults.generation_config)]
        parts = [spec.service.value, spec.project, spec.location, spec.kind.value, self._defaults.model]
        return json_bytes([*parts, defaults])

    def _add(self, row: Row) -> None:
        """Write one row, or note what is wrong with it; after the first bad one nothing is written any more."""
        place, value, raw, fault = row
        if fault is not None:
            self._bad.add(place, fault)
            return
        try:
            made = None if raw is None or self._raw is None else self._raw.read(raw, value)
            key, written, body, hash_as = made or self._shaped(value)
            carried = None if self._carried is None else carried_line(value, self._spec.carry)
            if self._bad.places:
                return
            number = self._out.rows
            if key is not None:
                self._keys.add(key)
            if place - number != self._shift:
                self._shift = place if number == 0 else None
            self._out.write(wire_line(self._service, self._kind, wrap_key_json(number, written), body), hash_as)
            if carried is not None and self._carried is not None:
                self._carried.write(carried)
                self._carry_types.see(value)
        except InputError as error:
            self._bad.add(place, str(error))

    def _shaped(self, value: Any) -> _Written:
        """Bring a row into the service's form, with its attachments."""
        key, request, attachments = self._shaper.shape(value)
        written = None if key is None else key_json(key)
        body = request_body(self._service, self._kind, request)
        if not attachments:
            return key, written, body, None
        self._tokens += sum(attachment.estimated_tokens for attachment in attachments)
        identities = to_json([attachment.identity for attachment in attachments])
        whole = request_body(self._service, self._kind, with_attachments(request, attachments))
        return key, written, whole, body + identities

    def _check_whole(self, shards: Sequence[Shard]) -> None:
        """What can be said only at the end: bad rows, no rows, columns that never came, keys used twice."""
        self._bad.refuse()
        if not self._out.rows:
            raise InputError("the input has no rows")
        if self._carried is not None and (unmet := self._carry_types.unmet()):
            raise InputError(f"carry: no row has a column {', '.join(map(shown, unmet))}")
        doubtful = self._keys.doubtful()
        if doubtful:
            for row, first, key in _repeated(shards, doubtful):
                where = f"{self._source.noun} {first + self._shift}" if self._shift is not None else f"row {first}"
                self._bad.add(row + (self._shift or 0), f"the key {shown(key)!r} was used before, in {where}")
            self._bad.refuse()


class _RawBody:
    """Takes the request out of a line as it stands when nothing in it has to change: the way of most large files."""

    def __init__(self, spec: InputSpec, defaults: RequestDefaults) -> None:
        self._kind = spec.kind
        self._needs_roles = spec.service is Service.VERTEX
        self._off = spec.service is Service.VERTEX and spec.kind is JobKind.EMBEDDINGS
        members: dict[str, Any] = dict(defaults.members)
        if defaults.generation_config:
            members["generationConfig"] = dict(defaults.generation_config)
        self._members = frozenset(members)
        self._tail = b"," + json_bytes(members)[1:] if members else b""

    def read(self, raw: bytes, value: Any) -> _Written | None:
        """The row as it stands in its line; None when it has to go the long way."""
        if self._off or type(value) is not dict:
            return None
        key = written = None
        request = value.get("request")
        if request is None:
            request, body = value, raw
        else:
            key = value.get("key")
            if type(request) is not dict or type(key) is not str or not key or len(value) != 2:  # noqa: PLR2004
                return None
            written = to_json(key)
            # Any other layout than {"key": ..., "request": {...}} is written anew.
            lead = (_SPACED if raw[7:8] == b" " else _COMPACT) % written
            if not (raw.startswith(lead) and raw.endswith(b"}}")):
                return None
            body = raw[len(lead) : -1]
        if not is_ready(request, self._kind) or (self._needs_roles and with_roles(request) is not request):
            return None
        if self._tail:
            if not self._members.isdisjoint(request):
                return None
            body = body[:-1] + self._tail
        return key, written, body, None


class _ShardWriter:
    """Writes wire lines to one file after another and hashes them on the way."""

    def __init__(self, folder: Path, max_rows: int | None, max_bytes: int) -> None:
        self._folder = folder
        self._max_rows = max_rows or sys.maxsize
        self._max_bytes = max_bytes
        self._shards: list[Shard] = []
        self._handle: BinaryIO | None = None
        self._block = bytearray()
        self._first_row = 0
        self._size = 0
        self.hasher = hashlib.sha256()
        self.rows = 0
        self.starts = array("q")

    def write(self, line: bytes, hash_as: bytes | None = None) -> None:
        """Add a line; ``hash_as`` stands for it in the fingerprint. Raises InputError when no job could hold it."""
        start, end = self._size, self._size + len(line)
        if end > self._max_bytes or self.rows - self._first_row == self._max_rows:
            if len(line) > self._max_bytes:
                raise InputError(f"the request has {len(line)} bytes; a job takes {self._max_bytes}")
            self._end_shard()
            start, end = 0, len(line)
        if hash_as is None:
            self._block += line
            if len(self._block) >= _BLOCK_BYTES:
                self._flush()
        else:
            self._flush()
            self.hasher.update(hash_as)
            self._file().write(line)
        self.starts.append(start)
        self._size = end
        self.rows += 1

    def close(self) -> tuple[Shard, ...]:
        """End the last file and return them all."""
        self._end_shard()
        return tuple(self._shards)

    def _file(self) -> BinaryIO:
        if self._handle is None:
            self._handle = self._path().open("wb")
        return self._handle

    def _path(self) -> Path:
        return self._folder / f"shard-{len(self._shards):05d}.jsonl"

    def _flush(self) -> None:
        if self._block:
            self.hasher.update(self._block)
            self._file().write(self._block)
            self._block.clear()

    def _end_shard(self) -> None:
        self._flush()
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        if self._size:
            count = self.rows - self._first_row
            self._shards.append(Shard(len(self._shards), self._first_row, count, self._size, self._path()))
        self._first_row = self.rows
        self._size = 0


class _BadRows:
    """Collects what is wrong, up to :data:`BAD_ROWS_NAMED` rows."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self.places: list[tuple[int, str]] = []

    def add(self, place: int, fault: str) -> None:
        """Note a bad row. Raises InputError at once when there are enough."""
        self.places.append((place, fault))
        if len(self.places) == BAD_ROWS_NAMED:
            self.refuse()

    def refuse(self) -> None:
        """Raise InputError when any row was bad."""
        if self.places:
            count = len(self.places)
            many = f"{count} bad rows" if count < BAD_ROWS_NAMED else f"at least {count} bad rows"
            lines = "".join(f"\n  {self._noun} {place}: {fault}" for place, fault in sorted(self.places))
            raise InputError(f"the input has {many if count > 1 else '1 bad row'}; nothing was sent{lines}")


class _Keys:
    """Tells whether a key came twice with eight bytes a key: hashes first, the keys themselves only in doubt."""

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_KEY_BUCKETS)]

    def add(self, key: str) -> None:
        """Remember a key."""
        hashed = hash(key)
        self._buckets[hashed % _KEY_BUCKETS].append(hashed)

    def doubtful(self) -> set[int]:
        """Hashes that came more than once."""
        found: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) != len(bucket):
                found.update(hashed for hashed, count in Counter(bucket).items() if count > 1)
        return found


def _repeated(shards: Sequence[Shard], doubtful: set[int]) -> Iterator[tuple[int, int, str]]:
    """Row, first row of the same key, and the key, for every key that really came again."""
    first: dict[str, int] = {}
    for shard in shards:
        with shard.path.open("rb") as handle:
            for row, line in enumerate(handle, start=shard.first_row):
                item = from_json(line)
                key = unwrap_key(item.get("key", item.get("custom_id")))[1]
                if key is not None and hash(key) in doubtful:
                    if key in first:
                        yield row, first[key], key
                    else:
                        first[key] = row
