"""Several files as one input: one stream of rows, with one set of columns and types over all of them.

Files are Parquet, CSV, JSON lines or texts, all of one format. Columns in the name of a folder (``day=2026-01-01``, as
in Hive) are columns of the rows below it. An address that ends in ``#row_groups=2-5`` means those row groups of a
Parquet file; with a comma and a checksum behind it, as long as they are those that were planned.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from airflow_provider_gemini_batch.api.errors import ConfigurationError, EmptyInput, InputError
from airflow_provider_gemini_batch.api.requests.fields import shown
from airflow_provider_gemini_batch.rows.columns import records_of, word_of
from airflow_provider_gemini_batch.rows.result_rows import ROW_MEMBERS
from airflow_provider_gemini_batch.rows.sources import (
    Block,
    Opener,
    Row,
    RowSource,
    format_of_file,
    from_file,
    open_parquet,
    parquet_faults,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

_ROW_GROUPS = re.compile(r"(.+)#row_groups=([0-9]+)-([0-9]+)(?:,([0-9a-f]{8}))?\Z", re.DOTALL)
_PARTITION = re.compile(r"([^=]+)=(.*)\Z", re.DOTALL)
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_BATCH_ROWS = 1024
_BATCH_BYTES = 2 << 20


class InputFile(NamedTuple):
    """One file of a dataset, or some row groups of it; ``row_groups`` is the first and the last.

    ``checksum`` is what :meth:`ParquetFacts.checksum` was when the input was planned; empty: any will do.
    """

    path: str
    row_groups: tuple[int, int] | None = None
    checksum: str = ""

    @classmethod
    def parse(cls, address: str) -> InputFile:
        """Return the file that an address names."""
        found = _ROW_GROUPS.match(address)
        return cls(address) if found is None else cls(found[1], (int(found[2]), int(found[3])), found[4] or "")

    @property
    def address(self) -> str:
        """The file as one text."""
        if self.row_groups is None:
            return self.path
        check = f",{self.checksum}" if self.checksum else ""
        return f"{self.path}#row_groups={self.row_groups[0]}-{self.row_groups[1]}{check}"

    @property
    def partitions(self) -> dict[str, str | None]:
        """The columns that the file's folders name."""
        found: dict[str, str | None] = {}
        for folder in self.path.split("/")[:-1]:
            named = _PARTITION.match(folder)
            if named is not None:
                found[unquote(named[1])] = None if named[2] == _HIVE_NULL else unquote(named[2])
        return found


@dataclass(frozen=True)
class ParquetFacts:
    """What the footer of a file says: the type of each column, and the rows and bytes of each row group."""

    types: Mapping[str, Any] = field(repr=False)
    groups: tuple[tuple[int, int], ...]
    meta: Any = field(repr=False)

    def checksum(self, first: int, last: int) -> str:
        """Return a hash of what the footer says of some row groups: sizes, and the least and the largest values."""
        found = sha256()
        for group in map(self.meta.row_group, range(first, last + 1)):
            for column in map(group.column, range(group.num_columns)):
                sizes = (column.num_values, column.total_compressed_size, column.total_uncompressed_size)
                found.update(repr((column.path_in_schema, sizes, _extremes(column))).encode())
        return found.hexdigest()[:8]

    def bytes_of(self, first: int, last: int, columns: Collection[str]) -> int:
        """Return the bytes of some columns in some row groups, uncompressed."""
        return sum(_bytes_of(self.meta.row_group(group), columns) for group in range(first, last + 1))


def _extremes(column: Any) -> Any:
    statistics = column.statistics
    return None if statistics is None or not statistics.has_min_max else (statistics.min_raw, statistics.max_raw)


def is_dataset(path: str) -> bool:
    """Return whether an input path has the form of a dataset: a folder, a pattern, or row groups of a file."""
    return path.endswith("/") or any(mark in path for mark in "*?[") or _ROW_GROUPS.match(path) is not None


def is_data(below: str) -> bool:
    """Return whether a file is data, by its path below a folder: names that begin with ``_`` or ``.`` are skipped.

    A folder ``_day=2026-01-01`` is one of Hive's, as for Spark.
    """
    *folders, name = below.split("/")
    is_hidden = any(one.startswith(".") or (one.startswith("_") and "=" not in one) for one in folders)
    return not is_hidden and not name.startswith(("_", "."))


def check_output_folders(folder: str, carry: Collection[str]) -> None:
    """Refuse the folder of a dataset whose path names a column, as in Hive, that the rows have themselves.

    :raises ConfigurationError: says so: pandas and pyarrow cannot read both, and others read one in place of the other.
    """
    if twice := sorted(InputFile(folder).partitions.keys() & {*carry, *ROW_MEMBERS}):
        leave = "leave it out of carry, or " if twice[0] in carry else ""
        raise ConfigurationError(
            f"output_path: its folders name the column {shown(twice[0])}, which the rows have as well, and readers "
            f"take only one of them: {leave}let the folder have another name"
        )


def parquet_facts(path: str, opener: Opener) -> ParquetFacts:
    """Return what the footer of a Parquet file says."""
    with closing(opener(path)) as handle:
        table = open_parquet(handle, path)
        meta = table.metadata
        groups = tuple(
            (group.num_rows, group.total_byte_size) for group in map(meta.row_group, range(meta.num_row_groups))
        )
        schema = table.schema_arrow
        return ParquetFacts({name: schema.field(name).type for name in schema.names}, groups, meta)


def one_schema(types: Sequence[tuple[str, Mapping[str, Any]]], wanted: Collection[str]) -> dict[str, str]:
    """Return one type (see :mod:`.columns`) for columns of several files; a null in one takes the type of the others.

    :param types: the path of each file, and its columns.
    :param wanted: the columns that need one type.
    :raises InputError: two files have incompatible types in such a column; names the file and the column.
    """
    import pyarrow as pa

    found: dict[str, Any] = {}
    for path, columns in types:
        for name in columns.keys() & wanted:
            both = [one for one in (found.get(name), _plain(columns[name])) if one is not None]
            if any(map(pa.types.is_decimal, both)):
                both = [_as_decimal(one) for one in both]
            try:
                unified = pa.unify_schemas([pa.schema([(name, one)]) for one in both], promote_options="permissive")
                found[name] = unified.field(name).type
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                raise InputError(
                    f"{path}: the type of its column {name!r} does not go together with that of the other files: give "
                    "a type in carry_types"
                ) from None
    return {name: word_of(kind) for name, kind in found.items()}


def _as_decimal(kind: Any) -> Any:
    """Return the decimal type for whole numbers of a type, with more digits than pyarrow would give; else the type."""
    import pyarrow as pa

    return pa.decimal128(len(str(1 << kind.bit_width)), 0) if pa.types.is_integer(kind) else kind


def _plain(kind: Any) -> Any:
    """Return the type of the values as they are carried, without their packing, layout or time zone."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_nested(kind):  # all are JSON
        return pa.struct([])
    if pa.types.is_uint64(kind):
        return pa.decimal128(20, 0)
    if str(kind) in {"large_string", "string_view"}:  # an older pyarrow does not know the second
        return pa.string()
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) and kind.tz is not None else kind


def from_files(
    addresses: Sequence[str],
    *,
    opener: Opener,
    asked_for: Collection[str] | None = None,
    elsewhere: Collection[str] = (),
    typed: Collection[str] = (),
    needed: Callable[[Sequence[str]], Collection[str]] | None = None,
    required: Callable[[Sequence[str]], Collection[str]] | None = None,
    **options: Any,
) -> RowSource:
    """Return the rows of several files, one after the other.

    :param asked_for: the columns that the author names; None: any may be used. Rows of JSON lines, which may be whole
        requests, get only these columns from the names of folders.
    :param elsewhere: columns that other files of a dataset of Parquet have: where these lack them, they are null.
    :param typed: the columns that need one type over all files of Parquet.
    :param needed: returns those of all columns of Parquet that are read; None: all are.
    :param required: returns those of all columns of Parquet without which a file makes no requests; None: none.
    :param options: how each file that is not Parquet is read; see :func:`.sources.from_file`.
    :raises ConfigurationError: the files are of several formats, or name other columns than the first.
    """
    files = [InputFile.parse(address) for address in addresses]
    if not files:
        raise EmptyInput("the input has no files; set on_empty to 'skip' or 'succeed' if that may happen")
    form = options.get("file_format") or format_of_file(files[0].path)
    for one in files:
        if not options.get("file_format") and format_of_file(one.path) != form:
            raise ConfigurationError(f"the input has files of several formats: {files[0].path} and {one.path}")
        if one.row_groups is not None and form != "parquet":
            raise ConfigurationError(f"{one.path} has no row groups: only Parquet does")
    for name in ("csv_delimiter", "encoding"):
        if form == "parquet" and options.get(name) is not None:
            raise ConfigurationError(f"{name} is for CSV and text files only; the input is Parquet")
    options["file_format"] = form
    made = (
        _ParquetRows(files, opener, elsewhere, typed, needed=needed, required=required)
        if form == "parquet"
        else _TextRows(files, opener, options, asked_for)
    )
    blocks = made.blocks()
    rows = made.rows() if blocks is None else rows_of(blocks)
    return RowSource(rows, "row", made.columns, made.close, made.types, made.where, blocks)


@contextmanager
def naming_file(path: str) -> Iterator[None]:
    """Add the file's path to an error that does not name it."""
    try:
        yield
    except (ConfigurationError, InputError) as error:
        if path in str(error):
            raise
        raise type(error)(f"{path}: {error}") from None


class _Rows:
    """What both formats share: partitions become columns, and rows are numbered over all files."""

    columns: tuple[str, ...] | None = None
    types: Mapping[str, str] | None = None

    def __init__(self, files: Sequence[InputFile], opener: Opener) -> None:
        self._files = files
        self._opener = opener
        self._stack = ExitStack()
        self._starts: list[int] = []
        self._places: list[tuple[str, str, int]] = []

    def close(self) -> None:
        """Close the file that is open."""
        self._stack.close()

    def where(self, place: int) -> str:
        """Return where a row is, for messages: its file, and its place in the file."""
        found = bisect_right(self._starts, place) - 1
        if found < 0:
            return f"row {place}"
        path, noun, first = self._places[found]
        return f"{path}, {noun} {place - self._starts[found] + first}"

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all files."""
        start = 0
        for one in self._files:
            first: int | None = None
            last = start - 1
            for row, noun in self._of(one):
                if first is None:
                    first = row.place
                    self._begin(start, one.path, noun, first)
                last = start + row.place - first
                row.place = last
                yield row
            start = last + 1

    def blocks(self) -> Iterator[Block] | None:
        """Return the rows many at a time, where that is possible; read either them or the rows."""
        return None

    def _begin(self, start: int, path: str, noun: str, first: int) -> None:
        """Note that the rows of a file begin at a place, with what is the first in the file."""
        self._starts.append(start)
        self._places.append((path, noun, first))

    def _of(self, one: InputFile) -> Iterator[tuple[Row, str]]:
        raise NotImplementedError


class _TextRows(_Rows):
    """Rows of CSV, JSON lines or texts."""

    def __init__(
        self,
        files: Sequence[InputFile],
        opener: Opener,
        options: Mapping[str, Any],
        asked_for: Collection[str] | None,
    ) -> None:
        super().__init__(files, opener)
        self._options = options
        self._asked_for = asked_for
        # Of CSV the first that has a header: some hold a byte order mark, or a line end, and nothing else.
        for one in files:
            with naming_file(one.path), closing(from_file(one.path, opener=opener, **options)) as first:
                own = first.columns
            self._first = one.path
            if own is not None or options["file_format"] != "csv":
                break
        self._own = None if own is None else set(own)
        partitions = list(files[0].partitions)
        self.columns = None if own is None else (*own, *(name for name in partitions if name not in own))

    def blocks(self) -> Iterator[Block] | None:
        """Return lines of JSON as they are, unless folders add columns to them."""
        is_plain = self._options["file_format"] == "jsonl" and not any(map(self._added, self._files))
        return self._blocks() if is_plain else None

    def _blocks(self) -> Iterator[Block]:
        start = 0
        for one in self._files:
            source = self._open(one)
            first: int | None = None
            last: Iterable[Row] = ()
            with naming_file(one.path):
                for block in source.blocks or ():
                    if (row := next(block.rows(), None)) is None:
                        continue
                    if first is None:
                        first = row.place
                        self._begin(start, one.path, source.noun, first)
                    shifted = block._replace(shift=start - first)
                    yield shifted
                    last = shifted.rows()
            for row in last:
                start = row.place + 1
            self._stack.close()

    def _of(self, one: InputFile) -> Iterator[tuple[Row, str]]:
        source = self._open(one)
        added = self._added(one)
        with naming_file(one.path):
            for row in source.rows:
                yield (row.with_columns(added) if added else row), source.noun
        self._stack.close()

    def _open(self, one: InputFile) -> RowSource:
        with naming_file(one.path):
            source = from_file(one.path, opener=self._opener, **self._options)
        self._stack.callback(source.close)
        if source.columns is not None and set(source.columns) != self._own:
            raise InputError(f"{one.path} has other columns than {self._first}")
        if sorted(one.partitions) != sorted(self._files[0].partitions):
            raise InputError(f"{one.path}: its folders name other columns than those of {self._files[0].path}")
        return source

    def _added(self, one: InputFile) -> Mapping[str, str | None]:
        """Return the columns that the rows of a file get from the names of its folders."""
        found = one.partitions
        if self._own is None and self._asked_for is not None:
            return {name: value for name, value in found.items() if name in self._asked_for}
        return found


def _refuse_replaced(one: InputFile, facts: ParquetFacts) -> None:
    """Raise InputError unless the row groups of a file are those that were planned."""
    if one.row_groups is None:
        return
    count = len(facts.groups)
    first, last = one.row_groups
    if last >= count:
        raise InputError(f"{one.path} has {count} row groups: it has been replaced since the input was planned")
    if one.checksum not in {"", facts.checksum(first, last)}:
        raise InputError(
            f"{one.path} has other rows in its row groups {first} to {last}: it has been replaced since the input was "
            "planned"
        )


class _ParquetRows(_Rows):
    """Rows of Parquet files, or of some of their row groups."""

    def __init__(
        self,
        files: Sequence[InputFile],
        opener: Opener,
        elsewhere: Collection[str],
        typed: Collection[str],
        *,
        needed: Callable[[Sequence[str]], Collection[str]] | None,
        required: Callable[[Sequence[str]], Collection[str]] | None,
    ) -> None:
        super().__init__(files, opener)
        self._needed = needed
        types: dict[str, Mapping[str, Any]] = {}
        for path, pieces in groupby(files, key=attrgetter("path")):
            facts = parquet_facts(path, opener)
            types[path] = facts.types  # the rest of a footer is large
            for one in pieces:
                _refuse_replaced(one, facts)
        own = [name for each in types.values() for name in each]
        partitions = [name for one in files for name in one.partitions]
        self.columns = tuple(dict.fromkeys((*own, *partitions, *elsewhere)))
        self.types = {**dict.fromkeys(partitions, "str"), **one_schema(list(types.items()), typed)}
        if required is not None and len(types) > 1:
            asked = {*required(self.columns)} & {*self.columns}
            for one in files:
                if absent := sorted(asked - types[one.path].keys() - one.partitions.keys()):
                    raise InputError(
                        f"{one.path}: there is no column '{shown(absent[0])}', which other files of the input have: "
                        "add it, or leave the file out"
                    )

    def _of(self, one: InputFile) -> Iterator[tuple[Row, str]]:
        handle = self._opener(one.path)
        self._stack.callback(handle.close)
        table = open_parquet(handle, one.path)
        first, last = one.row_groups or (0, table.metadata.num_row_groups - 1)
        partitions = one.partitions
        names = self.columns or ()
        missing = dict.fromkeys(names if self._needed is None else self._needed(names))
        place = sum(table.metadata.row_group(group).num_rows for group in range(first))
        # What nobody asks for may be large, or such that Python cannot hold it.
        columns = [name for name in table.schema_arrow.names if name in missing] or table.schema_arrow.names[:1]
        groups = range(first, last + 1)
        size = _batch_rows(table.metadata, groups, columns)
        # One row group after the other: pyarrow cannot join some nested types of several into one batch.
        batches = chain.from_iterable(
            table.iter_batches(size, row_groups=[group], columns=columns, use_threads=False) for group in groups
        )
        while True:
            with parquet_faults(one.path), naming_file(one.path):
                batch = next(batches, None)
                records = [] if batch is None else records_of(batch)
            if batch is None:
                break
            for value in records:
                yield Row(place, {**missing, **partitions, **value}), "row"
                place += 1
        self._stack.close()


def _batch_rows(meta: Any, groups: range, columns: Collection[str]) -> int:
    """Return how many rows are read at a time, so that those with long texts take no more memory than others."""
    found = map(meta.row_group, groups)
    most: int = max((_bytes_of(group, columns) // max(1, group.num_rows) for group in found), default=1)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, most)))


def _bytes_of(group: Any, columns: Collection[str]) -> int:
    """Return the unpacked bytes of columns in a row group; those within a column are known by its name."""
    roots = {name.partition(".")[0] for name in columns}
    parts = map(group.column, range(group.num_columns))
    return sum(int(part.total_uncompressed_size) for part in parts if part.path_in_schema.partition(".")[0] in roots)
