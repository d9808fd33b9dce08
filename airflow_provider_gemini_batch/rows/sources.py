"""Where rows come from: a list, a callable, or a file of JSON lines, texts, CSV or Parquet, read as a stream.

=========  ===================  ======================================================================================
format     by extension         one row is
=========  ===================  ======================================================================================
jsonl      .jsonl .ndjson       a line: a JSON text, or an object in any form of ``api.requests`` or of any shape with a
                                template
text       .txt                 a line; empty ones are left out
csv        .csv .tsv            a record; the first one names the columns (UTF-8, a byte order mark is allowed)
parquet    .parquet             a record (needs the extra ``parquet``)
=========  ===================  ======================================================================================

A further ``.gz`` is unpacked on the way. Lines are counted from 1 as an editor does, items of a list from 0 as Python
does.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple, cast

from pydantic_core import from_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError

Rows = Sequence[Any] | Callable[[], Iterable[Any]]
Opener = Callable[[str], BinaryIO]

FORMATS = ("jsonl", "text", "csv", "parquet")
_BY_EXTENSION = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_READ_BYTES = 1 << 20
_PARQUET_ROWS = 1024


class Row(NamedTuple):
    """One row as it stands in the input; ``fault`` says why it cannot be read, ``raw`` is the JSON of its line."""

    place: int
    value: Any
    raw: bytes | None = None
    fault: str | None = None


class RowSource(NamedTuple):
    """A stream of rows, what its places are called in messages, and its columns where they are known beforehand.

    ``types`` are those of the columns (see :mod:`.columns`), where the source has types of its own. ``where`` says in
    words where a place is, for a source of several files.

    Whoever takes it calls ``close`` in the end, read or not.
    """

    rows: Iterator[Row]
    noun: str
    columns: tuple[str, ...] | None = None
    close: Callable[[], None] = lambda: None
    types: Mapping[str, str] | None = None
    where: Callable[[int], str] | None = None


def open_local(path: str) -> BinaryIO:
    """Open a file of this machine for reading; ``file://`` is understood."""
    return open(path.removeprefix("file://"), "rb", buffering=_READ_BYTES)  # noqa: PTH123  (closed by the reader)


def guess_format(path: str, given: str | None = None) -> str:
    """The format of a file. Raises ConfigurationError naming the known ones."""
    if given is not None:
        if given not in FORMATS:
            raise ConfigurationError(f"input format {given!r} is unknown; known are {', '.join(FORMATS)}")
        return given
    name = path.rpartition("/")[2].lower().removesuffix(".gz")
    for extension, found in _BY_EXTENSION.items():
        if name.endswith(extension):
            return found
    raise ConfigurationError(
        f"cannot tell the format of the input from its name; known are {', '.join(_BY_EXTENSION)}, also with .gz"
    )


def from_python(rows: Rows) -> RowSource:
    """Rows of a list or of a callable that returns or yields them. Raises ConfigurationError for anything else."""
    made = rows() if callable(rows) else rows
    if isinstance(made, (str, bytes, Mapping)) or not isinstance(made, Iterable):
        raise ConfigurationError(f"the input must be a list of rows, or yield them, not one {type(made).__name__}")
    if isinstance(made, Iterator) and not callable(rows):
        raise ConfigurationError("the input is a generator, which can be read only once: hand over the function itself")
    return RowSource((Row(index, value) for index, value in enumerate(made)), "item")


def from_file(path: str, *, opener: Opener = open_local, file_format: str | None = None) -> RowSource:
    """Rows of a file. It is opened at once, so that a wrong path is told early."""
    form = guess_format(path, file_format)
    with ExitStack() as stack:
        handle = stack.enter_context(opener(path))
        if path.lower().endswith(".gz"):
            handle = cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=handle)))
        if form == "jsonl":
            source = RowSource(_json_lines(handle), "line")
        elif form == "text":
            source = RowSource(_text_lines(handle), "line")
        elif form == "csv":
            text = stack.enter_context(io.TextIOWrapper(handle, encoding="utf-8-sig", newline=""))
            source = _csv(text, "\t" if ".tsv" in path.lower().rpartition("/")[2] else ",")
        else:
            source = _parquet(handle)
        return source._replace(close=stack.pop_all().close)


def _json_lines(handle: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(handle, start=1):
        raw = line.strip()
        if not raw:
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield Row(number, from_json(raw, allow_inf_nan=False, cache_strings="keys"), raw)
        except ValueError as error:
            yield Row(number, None, fault=_json_fault(number, raw, error))


def _json_fault(number: int, raw: bytes, error: ValueError) -> str:
    if number == 1 and raw == b"[":
        return "the file is one JSON array; write one object per line"
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8 text"
    # The reader's words name what it met and the column, never the text around it.
    return f"no JSON: {str(error).rpartition(' at line ')[0]}, near column {str(error).rpartition(' column ')[2]}"


def _text_lines(handle: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(handle, start=1):
        raw = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not raw:
            continue
        try:
            yield Row(number, raw.decode("utf-8"))
        except UnicodeDecodeError:
            yield Row(number, None, fault="no UTF-8 text")


def _csv(text: io.TextIOWrapper, delimiter: str) -> RowSource:
    # The module's own limit of 128 KiB a cell is for the whole process and too small for texts.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        columns = tuple(next(reader))
    except StopIteration:
        return RowSource(iter(()), "line", None)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"line 1: the header cannot be read ({type(error).__name__})") from None
    if len(set(columns)) != len(columns) or not all(columns):
        raise InputError("line 1: the header must name each column once")
    return RowSource(_csv_rows(reader, columns), "line", columns)


def _csv_rows(reader: Any, columns: tuple[str, ...]) -> Iterator[Row]:
    width = len(columns)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            # What follows a broken quote or byte cannot be told apart into records.
            yield Row(number, None, fault=f"no CSV from here on ({type(error).__name__})")
            return
        if not cells:
            continue
        if len(cells) != width:
            yield Row(number, None, fault=f"{len(cells)} cells, the header has {width}")
        else:
            yield Row(number, dict(zip(columns, cells, strict=True)))


def _parquet(handle: BinaryIO) -> RowSource:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'airflow-provider-gemini-batch[parquet]'"
        ) from error
    try:
        table = parquet.ParquetFile(handle)
    except ArrowInvalid:
        raise InputError("the input is no Parquet file") from None
    return RowSource(_parquet_rows(table), "row", tuple(table.schema_arrow.names))


def _parquet_rows(table: Any) -> Iterator[Row]:
    number = 0
    for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
        for value in batch.to_pylist():
            yield Row(number, value)
            number += 1
