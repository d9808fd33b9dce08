"""Splits bytes, in pieces of any size, into rows of limited length; holds a row and a piece at a time."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from io import BytesIO
from itertools import chain, filterfalse
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ResponseTooLarge, UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_BYTES_OF_A_ROW = 128 << 20
"""The most bytes of a response. The largest ones hold about ten pictures, or repeat a request of 100 MB."""
BETWEEN_ROWS = b"\xef\xbb\xbf\0\x1e \t\r\n,"
"""Bytes that may stand around a row: those of a byte order mark, separators, remains of a writer that crashed."""

_LINE_END = 10
_GZIP = b"\x1f\x8b"
_MARK_BYTES = 2
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# zlib's wbits for the largest window and only the gzip format.
_GZIP_ONLY = 31
_PIECE = 1 << 20
# So many bytes of lines are held at a time, which a processor's cache can hold.
_LIST_BYTES = 1 << 16
_HEAD_BYTES = 4096
# Rows do not end with their lines in a file that begins like this: a list, or an object over several lines. A line that
# broke off after its brace is neither: the next row follows it.
_SEVERAL_LINES = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[|\{[ \t\r]*\n\s*[\"}])")
# A row that begins with its line; in an object over several lines, braces stand alone.
_ROW_BEGINS = re.compile(rb"\n[ \t,]*\[?\{[ \t]*\"")
# Enough to recognise the format: a byte order mark and two bytes that are not blank.
_FORMAT_BYTES = 5
# A backslash may also be the last byte of a piece.
_BRACES = re.compile(rb'\\.|\\\Z|["{}]', re.DOTALL)
_BRACKETS = re.compile(rb'\\.|\\\Z|["\[\]]', re.DOTALL)
# An input of 20 MiB, which is the most for inline requests, has no responses that are longer.
_MOST_LEFT_OUT = 1 << 30
_ESCAPED = re.compile(rb"\\.", re.DOTALL)


class OverlongLine(bytes):
    """The first bytes of a line that is too long to read; ``size`` is its length, ``limit`` the longest allowed."""

    size: int
    limit: int


def result_rows(chunks: Iterable[bytes], *, limit: int = MOST_BYTES_OF_A_ROW) -> Iterator[bytes]:
    """Yield the rows of a file of results, which may be packed: its lines, or the objects in a list or over lines.

    Rows end as those of :func:`lines_of` do, and are limited in the same way.

    :raises UnexpectedResponse: packed data ends early or is damaged.
    """
    stream = unpacked(chunks)
    head = b""
    for chunk in stream:
        head += chunk
        if len(b"".join(head[:_HEAD_BYTES].split())) >= _FORMAT_BYTES or len(head) >= _HEAD_BYTES:
            break
    head = head.removeprefix(codecs.BOM_UTF8)  # it may have a line of its own
    split = _objects_of if _SEVERAL_LINES.match(head) else lines_of
    return split(chain([head], stream), limit=limit)


def are_lines(head: bytes) -> bool:
    """Return whether a file that begins like this is neither packed nor in another form than a line for each row."""
    return not head.startswith((_GZIP, *_UTF_16)) and not _SEVERAL_LINES.match(head)


def lines_of(chunks: Iterable[bytes], *, limit: int = MOST_BYTES_OF_A_ROW) -> Iterator[bytes]:
    """Yield the lines that are not blank, with their ends, in linear time; the last line may lack its end.

    A line ends only at a line feed: JSON may contain U+2028 and U+0085. For a line of more than ``limit`` bytes, yield
    an :class:`OverlongLine`, so that one row fails and the others are read.
    """
    return chain.from_iterable(_lists_of_lines(chunks, limit))


def _lists_of_lines(chunks: Iterable[bytes], limit: int) -> Iterator[Iterable[bytes]]:
    """Yield the lines that end in each piece, and at last what has no end: by lists, since a row should cost little."""
    begun: list[bytes] = []
    size = 0
    for chunk in chunks:
        stream = BytesIO(chunk)
        while lines := stream.readlines(_LIST_BYTES):
            if begun:
                size += len(lines[0])
                _keep(begun, lines[0], size, limit)
                if lines[0][-1] != _LINE_END:
                    break
                yield _end_line(begun, size, limit)
                begun, size = [], 0
                del lines[0]
            if lines and lines[-1][-1] != _LINE_END:
                size = len(lines[-1])
                _keep(begun, lines.pop(), size, limit)
            not_blank = filterfalse(bytes.isspace, lines)
            yield not_blank if len(chunk) <= limit else [_limited(line, limit) for line in not_blank]
    yield _end_line(begun, size, limit)


def _objects_of(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """Yield the outermost objects of JSON, wherever their lines end, and what stands between them.

    An object that never ends costs no other row if rows begin with their lines: from it on, rows are lines.
    """
    stream, braces = filter(None, chunks), _Braces()
    begun: list[bytes] = []  # of an object, or of what stands between two
    size = 0
    any_object = False
    for chunk in stream:
        start = 0
        for brace in braces.outermost(chunk):
            if brace[0] == b"{":
                gap = b"".join([*begun, chunk[start : brace.start()]])
                if _ROW_BEGINS.search(gap):  # in a text: a quotation mark too many, or too few
                    yield from _lines_in_list(chain([gap, chunk[brace.start() :]], stream), limit)
                    return
                yield from _between(gap, first=not any_object)
                begun, size, start, any_object = [], 0, brace.start(), True
                continue
            begun.append(chunk[start : brace.end()])
            size, start = size + len(begun[-1]), brace.end()
            if size <= limit and _ROW_BEGINS.search(whole := b"".join(begun)) and not _is_json(whole):
                yield from _lines_in_list(chain([whole, chunk[start:]], stream), limit)
                return
            yield from _end_line([*begun, b"\n"], size + 1, limit)
            begun, size = [], 0
        begun.append(chunk[start:])
        size += len(begun[-1])
        if size > limit:
            if not braces.depth or _ROW_BEGINS.search(b"".join(begun)):
                yield from _lines_in_list(chain(begun, stream), limit)
                return
            begun = [_head(begun)]
    if not braces.depth:
        yield from _between(b"".join(begun), first=not any_object, last=True)
    else:
        yield from _lines_in_list(begun, limit) if size <= limit else _end_line(begun, size, limit)


def objects_of_list(
    chunks: Iterable[bytes], begin: re.Pattern[bytes], *, limit: int = MOST_BYTES_OF_A_ROW
) -> Iterator[bytes]:
    """Yield each object of the first list in JSON whose bracket ``begin`` ends with; a null is an empty one."""
    braces = _Braces()
    begun: list[bytes] = []  # of an object, or of what stands between two
    size = 0
    for chunk in _behind(begin, iter(chunks)):
        start = 0
        for brace in braces.outermost(chunk):
            opens = brace[0] == b"{"
            end = brace.start() if opens else brace.end()
            begun.append(chunk[start:end])
            if opens:
                between, ends, _ = b"".join(begun).partition(b"]")
                yield from [b"{}\n"] * between.count(b"null")
                if ends:
                    return
            else:
                yield from _end_line([*begun, b"\n"], size + end - start + 1, limit)
            begun, size, start = [], 0, end
        begun.append(chunk[start:])
        size += len(chunk) - start
        begun = begun if size <= limit else [_head(begun)]
        if not braces.depth and b"]" in begun[-1]:
            break
    yield from [b"{}\n"] * b"".join(begun).partition(b"]")[0].count(b"null")


def without_lists(chunks: Iterable[bytes], begin: re.Pattern[bytes]) -> Iterator[bytes]:
    """Yield JSON in which the lists whose brackets ``begin`` ends with are empty; holds a few kilobytes.

    :raises ResponseTooLarge: the lists hold more than a job has any reason to.
    """
    kept, left_out = b"", 0
    brackets: _Braces | None = None
    for chunk in chunks:
        kept += chunk
        while kept:
            if brackets is None:
                found = begin.search(kept)
                end = found.end() if found else max(0, len(kept) - _HEAD_BYTES)
                yield kept[:end]
                kept = kept[end:]
                if found is None:
                    break
                brackets = _Braces(_BRACKETS, depth=1)
            end = next((one.start() for one in brackets.outermost(kept)), len(kept))
            left_out += end
            if left_out > _MOST_LEFT_OUT:
                raise ResponseTooLarge(f"the responses of a job have more than {_MOST_LEFT_OUT / 2**30:g} GiB")
            kept = kept[end:]
            if kept:
                brackets = None
    yield kept


def _behind(begin: re.Pattern[bytes], stream: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what follows the first match in a stream; a match has at most a few bytes."""
    head = b""
    for chunk in stream:
        head = head[-_HEAD_BYTES:] + chunk
        if found := begin.search(head):
            yield head[found.end() :]
            yield from stream


class _Braces:
    """Finds the braces around the outermost objects of JSON that comes in pieces, or the brackets around lists."""

    def __init__(self, tokens: re.Pattern[bytes] = _BRACES, *, depth: int = 0) -> None:
        self.depth = depth
        self._tokens = tokens
        self._in_string = self._skips = False

    def outermost(self, chunk: bytes) -> Iterator[re.Match[bytes]]:
        """Yield the braces in the next piece that begin or end such an object, in turn."""
        tokens = self._tokens.finditer(chunk, int(self._skips))
        self._skips = False
        for token in tokens:
            mark = token[0]
            if mark == b"\\":
                self._skips = True
            elif mark == b'"':
                self._in_string = not self._in_string
            elif self._in_string:
                continue
            elif mark in b"{[":
                self.depth += 1
                if self.depth == 1:
                    yield token
            elif self.depth:
                self.depth -= 1
                if not self.depth:
                    yield token


def _lines_in_list(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield lines, except one that only ends a list."""
    return (line for line in lines_of(chunks, limit=limit) if line.strip(BETWEEN_ROWS) != b"]")


def _is_json(text: bytes) -> bool:
    """Return whether the structure is that of JSON, whatever control characters and escapes its texts hold."""
    try:
        json.loads(_ESCAPED.sub(b"", text).decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _between(text: bytes, *, first: bool, last: bool = False) -> Iterator[bytes]:
    """Yield the values between two objects of a list (null, for example), each as a row, so that all keep their places.

    What is not JSON, such as the end of an object whose beginning is lost, is a row for each line.
    """
    values = text.strip(BETWEEN_ROWS)
    if not values:
        return
    values = values.removeprefix(b"[") if first else values
    values = values.removesuffix(b"]") if last else values
    for form in (values, values.strip(BETWEEN_ROWS + b"[]}")):
        try:
            found = json.loads(b"[" + form.strip(BETWEEN_ROWS) + b"]")
        except (ValueError, RecursionError):
            continue
        yield from (json.dumps(value).encode() + b"\n" for value in found)
        return
    yield from _lines_in_list([text], len(text))


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield gzip data unpacked, in pieces not much larger than those that are read, and UTF-16 as UTF-8.

    The first two bytes show both, since JSON cannot begin with them; anything else is yielded unchanged.

    :raises UnexpectedResponse: the data ends early or is damaged.
    """
    first, stream = _begin(unzipped(chunks))
    if not first.startswith(_UTF_16):
        yield first
        yield from stream
        return
    text = codecs.getincrementaldecoder("utf-16")("replace")
    for chunk in chain([first], stream):
        yield text.decode(chunk).encode()
    yield text.decode(b"", final=True).encode()


def _begin(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first two bytes or more, which show the format, and the rest."""
    stream = iter(chunks)
    first = b""
    for chunk in stream:
        first += chunk
        if len(first) >= _MARK_BYTES:
            break
    return first, stream


def unzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield gzip data unpacked, in pieces not much larger than those that are read; anything else unchanged.

    :raises UnexpectedResponse: the data ends early or is damaged.
    """
    first, stream = _begin(chunks)
    if not first.startswith(_GZIP):
        yield first
        yield from stream
        return
    reader = zlib.decompressobj(_GZIP_ONLY)
    try:
        for chunk in chain([first], stream):
            packed = chunk
            while packed:
                if reader.eof:  # zeros may pad a gzip member, and another one may follow
                    packed = packed.lstrip(b"\0")
                    if not packed:
                        break
                    reader = zlib.decompressobj(_GZIP_ONLY)
                yield reader.decompress(packed, _PIECE)
                packed = reader.unconsumed_tail or reader.unused_data
    except zlib.error:
        raise UnexpectedResponse("Compressed responses (gzip) are damaged") from None
    if not reader.eof:
        raise UnexpectedResponse("Compressed responses (gzip) end early")


def _keep(begun: list[bytes], piece: bytes, size: int, limit: int) -> None:
    """Add a piece to a row that has begun; ``size`` includes it. Of a row that is too long, keep the beginning."""
    if size <= limit or not begun:
        begun.append(piece[: limit + 1])
    elif len(begun) > 1:
        begun[:] = [_head(begun)]


def _end_line(begun: list[bytes], size: int, limit: int) -> Iterator[bytes]:
    if size > limit:
        yield _overlong(begun, size, limit)
    else:
        whole = b"".join(begun)
        if whole and not whole.isspace():
            yield whole


def _limited(line: bytes, limit: int) -> bytes:
    return line if len(line) <= limit else _overlong([line], len(line), limit)


def _overlong(begun: list[bytes], size: int, limit: int) -> OverlongLine:
    line = OverlongLine(_head(begun))
    line.size, line.limit = size, limit
    return line


def _head(begun: list[bytes]) -> bytes:
    head = b""
    for piece in begun:
        head += piece[: _HEAD_BYTES - len(head)]
    return head
