"""CSV as spreadsheets and databases export it: encoding and delimiter are detected, or the author has to name them.

Read with the wrong delimiter, a file is a single column of whole lines: prompts that nobody meant but somebody pays
for. So a doubtful file is refused, and the error names ``csv_delimiter`` or ``encoding``.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, AnyStr, BinaryIO, NamedTuple, cast

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.requests.fields import shown
from airflow_provider_gemini_batch.api.responses.lines import MOST_BYTES_OF_A_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DELIMITERS = (",", ";", "\t", "|")
# Database exports use these. They are too rare to be assumed: the author must ask for them.
_RARE_DELIMITERS = ("^", "~", "¦", "\x1f", "\x01", ":", "#")
_SAMPLE_BYTES = 1 << 17
_SAMPLE_RECORDS = 200
_SEP_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The first bytes of other formats that are sometimes saved as .csv or .txt.
_OTHER_FILES = (
    (b"PK\x03\x04", "an Excel or zip file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (b"PAR1\x15", "a Parquet file"),
    (b"\x1f\x8b", "a gzip file: let its name end in .gz"),
    (b"%PDF", "a PDF"),
    (b"<!doctype html", "a page of HTML, perhaps of a login"),
    (b"<html", "a page of HTML, perhaps of a login"),
    (b"<?xml", "XML, perhaps the error of a storage"),
    (b"version https://git-lfs.github.com", "a pointer of Git LFS: fetch the file itself"),
    (b"{\\rtf", "a document in RTF"),
)
# JSON objects in a CSV or text file: each line would be sent as a prompt.
_JSON = re.compile(rb'\s*(?:\[\s*)?\{\s*"[^"\n]*"\s*:')
_PROSE = re.compile(r"\s.*[.?!:]\s*$|(?:\S+\s+){7}", re.DOTALL)
# What Windows uses for quotes, dashes and the euro stands for control characters in Latin-1 and Latin-9.
_LATIN = ("iso8859-1", "iso8859-15")
_CONTROLS = re.compile(rb"[\x80-\x9f]")
#: How a message names a delimiter.
_SPELLED = {"\t": "'\\t'", "\x1f": "'\\x1f'", "\x01": "'\\x01'"}


class Table(NamedTuple):
    """The columns of a CSV, and its records as (line, cells or None, fault)."""

    columns: tuple[str, ...]
    records: Iterator[tuple[int, dict[str, str] | None, str | None]]


def peek(handle: BinaryIO, size: int = _SAMPLE_BYTES) -> tuple[bytes, BinaryIO]:
    """Return the first bytes of a stream, and the stream as if nothing had been read."""
    head = b""
    while len(head) < size and (more := handle.read(size - len(head))):
        head += more
    return head, cast("BinaryIO", io.BufferedReader(cast("Any", _Rejoined(head, handle)), buffer_size=1 << 20))


def bounded_lines(stream: IO[AnyStr]) -> Iterator[AnyStr]:
    """Yield the lines of a stream, none of which may be too long for memory.

    :raises InputError: names the line.
    """
    number = 1
    while line := whole_line(stream, number):
        yield line
        number += 1


def whole_line(stream: IO[AnyStr], number: int, begun: int = 0) -> AnyStr:
    """Read a line, or the rest of one that has ``begun``; ``number`` names it in errors.

    :raises InputError: the line is too long for memory.
    """
    line = stream.readline(MOST_BYTES_OF_A_ROW + 1 - begun)
    if begun + len(line) > MOST_BYTES_OF_A_ROW:
        raise InputError(
            f"line {number} is longer than {MOST_BYTES_OF_A_ROW >> 20} MiB, and each row must be a line of its own: "
            "write them so"
        )
    return line


def text_encoding(head: bytes, given: str | None) -> str:
    """Return the encoding of a text file: its byte order mark's, the given one, else UTF-8.

    :raises InputError: the file is not a text, or not in the given encoding.
    """
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for magic, kind in _OTHER_FILES:
        # If another line begins like this, each line is a document of its own.
        is_list = magic.startswith(b"<") and b"\n" + magic in text
        if not is_list and (head.startswith(magic) or text.startswith(magic)):
            raise InputError(f"the input is not a text but {kind}")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if given is not None and codecs.lookup(given).name.split("-")[:2] != encoding.split("-")[:2]:
                raise InputError(f"the file begins with the byte order mark of {encoding[:6]}, but encoding={given!r}")
            return encoding
    if given is not None:
        if not given.startswith("utf") and _is_utf8(head):
            raise InputError(f"the file is UTF-8, and encoding={given!r} would garble its letters: leave encoding out")
        if codecs.lookup(given).name in _LATIN and _CONTROLS.search(head):
            raise InputError(f"the file has quotes or signs that {given} does not have: give encoding='cp1252'")
        return given
    if head[:1024].count(0) * 4 > len(head[:1024]):
        order = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
        raise InputError(f"the file holds NUL bytes; if it is UTF-16, give encoding={order!r}")
    return "utf-8"


def refuse_json(head: bytes) -> None:
    """Refuse a CSV or a text file that holds JSON: its lines would be sent as prompts.

    :raises InputError: says how the file is read.
    """
    if _JSON.match(head.removeprefix(codecs.BOM_UTF8)):
        raise InputError(
            "the input is JSON: let its name end in .jsonl, one object per line; hand over prompts that are JSON by a "
            "function"
        )


def refuse_table(head: bytes, encoding: str) -> None:
    """Refuse a text file that is a table: whole records would be sent as prompts.

    What all lines say alike between two such marks ("Answer yes|no: ...") is a prompt's, and no column.

    :raises InputError: says how the file is read.
    """
    sample = _decode_head(head, encoding)
    for one in _DELIMITERS[1:]:
        lines = _read_sample(sample, one, is_whole=len(head) < _SAMPLE_BYTES)
        if len(lines) < 3 or not _splits_alike(lines, in_header=True):  # noqa: PLR2004  two may be alike by chance
            continue
        if all(len(set(column)) > 1 for column in zip(*lines, strict=True)):
            raise InputError(
                f"all lines look separated by {_quote(one)}, and each would be one prompt: let the file's name end "
                "in .csv, or hand over the lines by a function"
            )


def encoding_fault(encoding: str) -> str:
    """Return the message for a line that is not in the encoding of its file."""
    if encoding.startswith("utf-8"):
        remedy = "if a spreadsheet has written it, give encoding='cp1252' or save it as UTF-8"
        return f"here or a few lines on is a byte that is not UTF-8; {remedy}"
    return f"here or a few lines on is a byte that {encoding} does not have"


def read_csv(
    handle: BinaryIO, *, default: str | None = None, delimiter: str | None = None, encoding: str | None = None
) -> tuple[Table | None, Callable[[], None]]:
    """Return the table of a CSV file (None for an empty file) and a function that closes it.

    :param default: the delimiter that the file's name suggests.
    :param delimiter: the one that the author named.
    :raises InputError: the header, the delimiter or the encoding is doubtful.
    """
    head, whole = peek(handle)
    encoding = text_encoding(head, encoding)
    refuse_json(head)
    text = io.TextIOWrapper(whole, encoding=encoding, newline="")
    sample = _decode_head(head, encoding)
    named = _SEP_LINE.match(sample)
    first_line = 1
    if named is not None:
        if delimiter is not None and delimiter != named[1]:
            raise InputError(f"line 1 says sep={named[1]}, but csv_delimiter is {_quote(delimiter)}")
        delimiter = named[1]
        text.readline()
        sample = sample[named.end() :]
        first_line = 2
    if delimiter is None:
        delimiter = _find_delimiter(sample, len(head) < _SAMPLE_BYTES, default)
    # The csv module limits a cell to 128 KiB, for the whole process: too small for texts. Without a limit, a quote that
    # is never closed would take all memory.
    csv.field_size_limit(MOST_BYTES_OF_A_ROW)
    reader = csv.reader(bounded_lines(text), delimiter=delimiter, strict=True)
    try:
        columns = tuple(next(record for record in reader if record))
    except StopIteration:
        return None, text.close
    except UnicodeDecodeError:
        raise InputError(f"line {first_line}: {encoding_fault(encoding)}") from None
    except csv.Error as error:
        raise InputError(f"line {first_line}: the header cannot be read ({type(error).__name__})") from None
    _check_header(columns, first_line - 1 + reader.line_num)
    return Table(columns, _records(reader, columns, encoding, first_line - 1)), text.close


def _check_header(columns: tuple[str, ...], line: int) -> None:
    counts = Counter(columns)
    for number, name in enumerate(columns, start=1):
        if not name.strip():
            raise InputError(f"line {line}: the header must name each column once; column {number} has no name")
        if counts[name] > 1:
            raise InputError(f"line {line}: the header must name each column once; '{shown(name)}' is there twice")
    if len(columns) == 1 and _PROSE.search(columns[0]):
        raise InputError(
            f"line {line} reads like a row, and the first line of a CSV must name the columns; for one prompt a line "
            "without a header, let the file's name end in .txt"
        )


def _records(
    reader: Any, columns: tuple[str, ...], encoding: str, before: int
) -> Iterator[tuple[int, dict[str, str] | None, str | None]]:
    width = len(columns)
    while True:
        number = before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError:
            yield number, None, encoding_fault(encoding)
            return
        except csv.Error as error:
            # After a broken quote, the rest cannot be split into records.
            yield number, None, f"not CSV from here on ({type(error).__name__}), perhaps a quote that is never closed"
            return
        if not cells:
            continue
        if len(cells) != width:
            yield number, None, f"{len(cells)} cells, the header has {width}"
        elif any("\0" in cell for cell in cells):
            yield number, None, "a cell holds a NUL character: the file is damaged or in another encoding"
        else:
            yield number, dict(zip(columns, cells, strict=True)), None


def _find_delimiter(sample: str, is_whole: bool, default: str | None) -> str:  # noqa: FBT001
    """Return the only delimiter that splits the header into several columns and fits the records.

    :param default: what the file's name suggests; it is used where the header contains it.
    """
    tables = {one: _read_sample(sample, one, is_whole=is_whole) for one in _DELIMITERS}
    several = [one for one, rows in tables.items() if rows and len(rows[0]) > 1]
    if default is not None and default in several:
        return default
    fitting = [one for one in several if all(len(row) == len(tables[one][0]) for row in tables[one])]
    if len(several) == 1:
        return several[0]
    if len(fitting) == 1:
        return fitting[0]
    if several:
        found = " or ".join(map(_quote, several))
        raise InputError(f"the columns may be separated by {found}: give csv_delimiter")
    for one in (*_DELIMITERS[1:], *_RARE_DELIMITERS):
        rows = tables.get(one) or _read_sample(sample, one, is_whole=is_whole)
        if _splits_alike(rows, in_header=one in _RARE_DELIMITERS):
            raise InputError(
                f"the file has one column, but its lines look separated by {_quote(one)}: give "
                f"csv_delimiter={_quote(one)}, or csv_delimiter=',' if it is one column"
            )
    return default or ","


def _splits_alike(rows: list[list[str]], *, in_header: bool) -> bool:
    """Return whether all records have the same number of cells, more than one; ``in_header``: the header too."""
    widths = {len(row) for row in (rows if in_header else rows[1:])}
    return len(rows) > 2 - in_header and len(widths) == 1 and min(widths) > 1


def _read_sample(sample: str, delimiter: str, *, is_whole: bool) -> list[list[str]]:
    """Return the first records by this delimiter, without the last one, which may be cut off."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) > _SAMPLE_RECORDS:
                break
    except csv.Error:
        pass
    return rows if is_whole or len(rows) < 2 else rows[:-1]  # noqa: PLR2004


def _decode_head(head: bytes, encoding: str) -> str:
    """Decode the first bytes, without a character that is cut off at the end."""
    try:
        return codecs.getincrementaldecoder(encoding)("replace").decode(head, final=False)
    except (UnicodeError, LookupError):
        raise ConfigurationError(f"the file cannot be read with encoding={encoding!r}") from None


def _is_utf8(head: bytes) -> bool:
    """Return whether these bytes hold non-ASCII UTF-8, which text in other encodings hardly ever looks like."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return not head.isascii()


def _quote(delimiter: str) -> str:
    return _SPELLED.get(delimiter, repr(delimiter))


class _Rejoined(io.RawIOBase):
    """A stream that begins with bytes already read from it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            count = min(len(buffer), len(self._head))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        block = self._rest.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
