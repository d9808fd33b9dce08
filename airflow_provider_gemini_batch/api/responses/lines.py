"""Splits bytes, in pieces of any size, into rows of limited length; holds one row at a time."""

from __future__ import annotations

import codecs
import re
import zlib
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_BYTES_OF_A_ROW = 128 << 20
"""The most bytes of a response. The largest ones hold about ten pictures, or repeat a request of 100 MB."""

_LINE_END = 10
_GZIP = b"\x1f\x8b"
_MARK_BYTES = 2
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# zlib's wbits for the largest window and only the gzip format.
_GZIP_ONLY = 31
_PIECE = 1 << 20
_HEAD_BYTES = 4096
# Rows do not end with their lines in a file that begins like this: a list, or an object over several lines.
_SEVERAL_LINES = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[|\{[ \t\r]*\n)")
# Enough to tell: a byte order mark and two bytes that are not blank.
_TOLD_BY = 5
# A backslash may also be the last byte of a piece.
_TOKEN = re.compile(rb'\\.|\\\Z|["{}]', re.DOTALL)


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
        if len(b"".join(head[:_HEAD_BYTES].split())) >= _TOLD_BY or len(head) >= _HEAD_BYTES:
            break
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
    begun: list[bytes] = []
    size = 0
    for chunk in chunks:
        for line in BytesIO(chunk):
            if line[-1] == _LINE_END and not begun:
                if len(line) > limit:
                    yield _overlong([line], len(line), limit)
                elif not line.isspace():
                    yield line
                continue
            size += len(line)
            _keep(begun, line, size, limit)
            if line[-1] == _LINE_END:
                yield from _end_line(begun, size, limit)
                begun, size = [], 0
    yield from _end_line(begun, size, limit)


def _objects_of(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """Yield the outermost objects of JSON, wherever their lines end; what is left of one that never ends, by lines."""
    begun: list[bytes] = []
    size = depth = 0
    in_string = skips = False
    for chunk in filter(None, chunks):
        start = 0
        tokens = _TOKEN.finditer(chunk, int(skips))
        skips = False
        for token in tokens:
            mark = token[0]
            if mark == b"\\":
                skips = True
            elif mark == b'"':
                in_string = not in_string
            elif in_string:
                continue
            elif mark == b"{":
                start = start if depth else token.start()
                depth += 1
            elif mark == b"}" and depth:
                depth -= 1
                if not depth:
                    piece = chunk[start : token.end()] + b"\n"
                    _keep(begun, piece, size + len(piece), limit)
                    yield from _end_line(begun, size + len(piece), limit)
                    begun, size = [], 0
        if depth:
            size += len(chunk) - start
            _keep(begun, chunk[start:], size, limit)
    yield from lines_of(begun) if size <= limit else _end_line(begun, size, limit)


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield gzip data unpacked, in pieces not much larger than those that are read, and UTF-16 as UTF-8.

    The first two bytes show both, since JSON cannot begin with them; anything else is yielded unchanged.

    :raises UnexpectedResponse: the data ends early or is damaged.
    """
    first, stream = _begin(_unzip(chunks))
    if not first.startswith(_UTF_16):
        yield first
        yield from stream
        return
    text = codecs.getincrementaldecoder("utf-16")("replace")
    for chunk in chain([first], stream):
        yield text.decode(chunk).encode()
    yield text.decode(b"", final=True).encode()


def _begin(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first two bytes or more, which tell the format, and the rest."""
    stream = iter(chunks)
    first = b""
    for chunk in stream:
        first += chunk
        if len(first) >= _MARK_BYTES:
            break
    return first, stream


def _unzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
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
        raise UnexpectedResponse("Packed answers (gzip) are damaged") from None
    if not reader.eof:
        raise UnexpectedResponse("Packed answers (gzip) end early")


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


def _overlong(begun: list[bytes], size: int, limit: int) -> OverlongLine:
    line = OverlongLine(_head(begun))
    line.size, line.limit = size, limit
    return line


def _head(begun: list[bytes]) -> bytes:
    head = b""
    for piece in begun:
        head += piece[: _HEAD_BYTES - len(head)]
    return head
