"""Where rows come from: Python values, or a file of JSON lines, texts, CSV or Parquet, read as a stream.

=========  ===================  ======================================================================================
format     by extension         one row is
=========  ===================  ======================================================================================
jsonl      .jsonl .ndjson       a line: a JSON text, or an object in any form of ``api.requests`` or of any shape with a
           .json                template; a ``.json`` file that is one array or object is refused
text       .txt                 a line; empty ones are skipped
csv        .csv .tsv            a record; the first one names the columns; see :mod:`.csv_rows`
parquet    .parquet .pq         a record (needs the extra ``parquet``)
=========  ===================  ======================================================================================

A file whose name also ends in ``.gz`` is unpacked while it is read. Lines are counted from 1, as in an editor, items of
a list from 0, as in Python.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

from pydantic_core import from_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.names import in_words
from airflow_provider_gemini_batch.rows.columns import records_of
from airflow_provider_gemini_batch.rows.csv_rows import (
    bounded_lines,
    encoding_fault,
    peek,
    read_csv,
    refuse_json,
    refuse_table,
    text_encoding,
    whole_line,
)
from airflow_provider_gemini_batch.rows.files import local_file
from airflow_provider_gemini_batch.rows.python_rows import python_rows

Opener = Callable[[str], BinaryIO]

_BY_EXTENSION = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
# Formats that we do not read, and what to do instead.
_NOT_READ = {
    (".xlsx", ".xlsm", ".xls", ".ods"): "a spreadsheet is not read: save it as CSV (UTF-8), or hand over a frame that "
    "pandas has read",
    (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz"): "archives are not read, gzip (.gz) is: unpack it",
    (".avro", ".orc", ".feather", ".arrow"): "hand over the Arrow table, or write Parquet",
    (".doc", ".docx", ".pdf", ".md", ".html"): "give a function that yields a text for each row",
}
_READ_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_PARQUET_ROWS = 1024


class Row:
    """One row of the input; ``fault`` says why it cannot be read, ``raw`` is the JSON of its line.

    A line of JSON is parsed only when its ``value`` is used: rows that are skipped, or sent unchanged, never are.
    """

    __slots__ = ("_value", "fault", "place", "raw")

    def __init__(self, place: int, value: Any = None, raw: bytes | None = None, fault: str | None = None) -> None:
        self.place = place
        self._value = value
        self.raw = raw
        self.fault = fault

    @property
    def value(self) -> Any:
        """The content of the row. Raises InputError when its line cannot be read."""
        if self._value is None and self.raw is not None:
            try:
                self._value = from_json(self.raw, allow_inf_nan=False, cache_strings="keys")
            except ValueError as error:
                raise InputError(_json_fault(self.raw, error)) from None
        return self._value

    def with_columns(self, columns: Mapping[str, Any]) -> Row:
        """Return the row with further columns; its own columns win, and a text is the column ``text``."""
        try:
            value = self.value
        except InputError as error:
            return Row(self.place, fault=str(error))
        if isinstance(value, str):
            value = {"text": value}
        return Row(self.place, {**columns, **value}) if isinstance(value, dict) else self


class Block(NamedTuple):
    """Lines of JSON, as they are and one by one, each with a line feed at its end, and the number of the first.

    The place of a row is the number of its line plus ``shift``.
    """

    first: int
    data: bytes
    lines: Sequence[bytes]
    shift: int = 0

    def rows(self) -> Iterator[Row]:
        """Yield the lines that are not blank."""
        for number, line in enumerate(self.lines, start=self.first):
            raw = line.strip()
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
            if raw:
                yield Row(number + self.shift, None, raw)


class RowSource(NamedTuple):
    """A stream of rows, the word for a row's place in messages, and the columns where they are known in advance.

    ``types`` are the types of the columns (see :mod:`.columns`), if the source has types. ``where`` describes a place
    in words, for a source of several files. ``blocks`` are the same rows, many at a time, if the source has lines of
    JSON; read either them or the rows.

    The caller must call ``close`` at the end, even if no row was read.
    """

    rows: Iterator[Row]
    noun: str
    columns: tuple[str, ...] | None = None
    close: Callable[[], None] = lambda: None
    types: Mapping[str, str] | None = None
    where: Callable[[int], str] | None = None
    blocks: Iterator[Block] | None = None


def open_local(path: str) -> BinaryIO:
    """Open a file of this machine for reading; ``file://`` and ``~`` are understood."""
    return local_file(path).open("rb", buffering=4 * _BLOCK_BYTES)


def guess_format(path: str) -> str:
    """Return the format of a file. Raises ConfigurationError naming the known ones."""
    name = path.rpartition("/")[2].lower()
    is_pattern = any(mark in name for mark in "*?[") and not local_file(path).exists()
    if not name or is_pattern:
        raise ConfigurationError(
            f"input_path: {in_words(path)} is a folder or a pattern, and one file is read here: give a function that "
            "yields the rows of several"
        )
    return format_of_file(path)


def format_of_file(path: str) -> str:
    """Return the format of a file that is there, whatever its name has in it. Raises ConfigurationError."""
    name = path.rpartition("/")[2].lower()
    for extensions, instead in _NOT_READ.items():
        if name.removesuffix(".gz").endswith(extensions):
            raise ConfigurationError(f"input_path: {in_words(path)}: {instead}")
    for extension, found in _BY_EXTENSION.items():
        if name.removesuffix(".gz").endswith(extension):
            return found
    raise ConfigurationError(
        f"input_path: cannot tell the format of {in_words(path)} from its name; known are {', '.join(_BY_EXTENSION)}, "
        "also with .gz, and folders, whose path ends in /"
    )


def from_python(rows: Any) -> RowSource:
    """Return the rows of a Python value or of a function. Raises ConfigurationError for other types."""
    found = python_rows(rows)
    return RowSource((Row(index, value) for index, value in enumerate(found.rows)), "item", found.columns)


def from_file(
    path: str,
    *,
    opener: Opener = open_local,
    file_format: str | None = None,
    csv_delimiter: str | None = None,
    encoding: str | None = None,
) -> RowSource:
    """Return the rows of a file. It is opened at once, so that a wrong path is reported early.

    :param csv_delimiter: the character between cells; None: detect it.
    :param encoding: of a CSV or a text; None: by the byte order mark, else UTF-8.
    :raises InputError: the file is not what its name says, or its delimiter or encoding is doubtful.
    """
    form = file_format or guess_format(path)
    if csv_delimiter is not None and form != "csv":
        raise ConfigurationError("csv_delimiter is for CSV files only")
    if encoding is not None and form not in {"csv", "text"}:
        raise ConfigurationError("encoding is for CSV and text files only; JSON lines are UTF-8")
    with ExitStack() as stack:
        handle = stack.enter_context(open_unpacked(path, opener))
        if form == "jsonl":
            blocks = _blocks(_check_json(path, handle))
            source = RowSource(rows_of(blocks), "line", blocks=blocks)
        elif form == "text":
            head, whole = peek(handle)
            encoding = text_encoding(head, encoding)
            refuse_json(head)
            refuse_table(head, encoding)
            source = RowSource(_text_lines(whole, encoding), "line")
        elif form == "csv":
            by_name = "\t" if ".tsv" in path.lower().rpartition("/")[2] else None
            table, close = read_csv(handle, default=by_name, delimiter=csv_delimiter, encoding=encoding)
            stack.callback(close)
            records = () if table is None else (Row(line, cells, fault=fault) for line, cells, fault in table.records)
            source = RowSource(iter(records), "line", None if table is None else table.columns)
        else:
            file = open_parquet(handle)
            batches = file.iter_batches(batch_size=_PARQUET_ROWS)
            values = enumerate(value for batch in batches for value in records_of(batch))
            names = tuple(file.schema_arrow.names)
            source = RowSource((Row(number, value) for number, value in values), "row", names)
        return source._replace(close=stack.pop_all().close)


def open_unpacked(path: str, opener: Opener) -> BinaryIO:
    """Open a file; one whose name ends in ``.gz`` is unpacked while it is read."""
    handle = opener(path)
    return cast("BinaryIO", _Unpacked(handle)) if path.lower().endswith(".gz") else handle


class _Unpacked(gzip.GzipFile):
    """A gzip stream that raises our errors."""

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__(fileobj=handle)
        self._packed = handle

    def close(self) -> None:
        """Close the file as well."""
        super().close()
        self._packed.close()

    def read(self, size: int | None = -1) -> bytes:
        with _gzip_faults():
            return super().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        with _gzip_faults():
            return super().readline(-1 if size is None else size)

    def peek(self, n: int) -> bytes:
        with _gzip_faults():
            return super().peek(n)


class _gzip_faults:  # noqa: N801  (used as a function; a generator would cost every line a frame)
    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error)):
            raise InputError("the name of the input ends in .gz, but it is not a whole gzip file") from None


def _check_json(path: str, handle: BinaryIO) -> BinaryIO:
    """Refuse a ``.json`` file that is one array or one object over many lines."""
    head, whole = (handle.peek(1 << 16), handle) if hasattr(handle, "peek") else peek(handle, 1 << 16)
    text_encoding(head.replace(b"\0", b" ") if head[:2] not in {b"\xff\xfe", b"\xfe\xff"} else head, None)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("the file is UTF-16; JSON lines are UTF-8; save it as UTF-8")
    if not path.lower().removesuffix(".gz").endswith(".json"):
        return whole
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line = start.partition(b"\n")[0].strip()
    if start.startswith(b"[") or first_line == b"{":
        what = "one JSON array" if start.startswith(b"[") else "one JSON object over several lines"
        raise InputError(f"the file is {what}; write one object per line, as JSON lines (.jsonl)")
    return whole


def rows_of(blocks: Iterable[Block]) -> Iterator[Row]:
    """Yield the rows of blocks."""
    return (row for block in blocks for row in block.rows())


def _blocks(handle: BinaryIO) -> Iterator[Block]:
    """Yield the lines of a file. Raises InputError for one that is too long for memory."""
    first = 1
    while data := handle.read(_BLOCK_BYTES):
        lines = io.BytesIO(data).readlines()  # much faster than split()
        if not data.endswith(b"\n"):
            rest = whole_line(handle, first + len(lines) - 1, len(lines[-1]))
            data += rest
            lines[-1] += rest.removesuffix(b"\n") + b"\n"
        yield Block(first, data, lines)
        first += len(lines)


def _json_fault(raw: bytes, error: ValueError) -> str:
    if raw == b"[":
        return "the file is one JSON array; write one object per line"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    # The parser's message names what it found and the column, never the text around it.
    return f"not JSON: {str(error).rpartition(' at line ')[0]}, near column {str(error).rpartition(' column ')[2]}"


def _text_lines(handle: BinaryIO, encoding: str) -> Iterator[Row]:
    with io.TextIOWrapper(handle, encoding=encoding, errors="strict", newline=None) as text:
        lines, number = bounded_lines(text), 0
        while True:
            number += 1
            try:
                line = next(lines, "")
            except UnicodeDecodeError:
                yield Row(number, None, fault=encoding_fault(encoding))
                return
            if not line:
                return
            found = line.strip().removeprefix("\ufeff")
            if "\0" in found:
                yield Row(
                    number, None, fault="the line holds a NUL character: the file is damaged or in another encoding"
                )
            elif found:
                yield Row(number, found)


@contextmanager
def parquet_faults(path: str) -> Iterator[None]:
    """Raise InputError, with the file's path, where a Parquet file cannot be read."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        if isinstance(error, OSError) and not _is_of_pyarrow(error):
            raise
        if isinstance(error, NotImplementedError):
            raise InputError(f"{path}: the pyarrow of this machine cannot read it: {error}") from None
        raise InputError(f"{path}: it is not a Parquet file, or is damaged or not whole") from None


def _is_of_pyarrow(error: OSError) -> bool:
    """Return whether pyarrow has found this out, and not the storage that the file lies on."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return type(error) is OSError and error.errno is None and module.startswith("pyarrow.")


def open_parquet(handle: BinaryIO, path: str = "the input") -> Any:
    """Return pyarrow's ``ParquetFile``.

    :raises ConfigurationError: pyarrow is missing. :raises InputError: this is not Parquet, or names a column twice.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'airflow-provider-gemini-batch[parquet]'"
        ) from error
    with parquet_faults(path):
        # pyarrow would keep all that it has read until the end. A column of a row group is read at once from an object
        # store, where each jump between columns is another request, and a piece at a time from a disk.
        pieces = _READ_BYTES if isinstance(handle, io.BufferedReader) else 0
        table = parquet.ParquetFile(handle, pre_buffer=False, buffer_size=pieces)
    names = table.schema_arrow.names
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two columns of the Parquet file have the same name")
    return table
