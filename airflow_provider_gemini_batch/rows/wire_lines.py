"""Turns each row of the input into a line for the service."""

from __future__ import annotations

import re
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import DecodeError, Raw
from msgspec.json import Decoder, Encoder, decode
from pydantic_core import to_json

from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.fast_path import TextRequest, text_request, text_requests
from airflow_provider_gemini_batch.api.requests.fields import EMBEDDING_OPTIONS
from airflow_provider_gemini_batch.api.requests.request import (
    RequestDefaults,
    is_ready,
    json_form,
    key_json,
    request_body,
    request_json,
    wire_line,
    wire_lines,
    with_roles,
)
from airflow_provider_gemini_batch.api.vertex_rules import check_request, takes_instructions_in_text
from airflow_provider_gemini_batch.rows.templates import Shaper, with_attachments
from airflow_provider_gemini_batch.rows.wire_keys import wrap_key_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_gemini_batch.rows.input_spec import Attachment, InputSpec
    from airflow_provider_gemini_batch.rows.sources import Block, Row, RowSource

# Lines of another layout are written again. Each repetition of a group takes memory, so there are few.
_LAYOUT = re.compile(rb'\{"key":( ?)("[^"\\]*(?:\\.[^"\\]*){0,1000}"),\1"request":\1(?=\s*\{)')
# Finding it takes a third of the time that ``in`` takes.
_UNICODE_ESCAPE = re.compile(rb"\\u")
_decode_text = Decoder(str).decode
_encode = Encoder().encode

_Written = tuple[
    str | None, bytes | None, bytes, bytes | None, "TextRequest | Mapping[str, Any]", "Sequence[Attachment]"
]
"""A row's key, the key as JSON, its request as JSON, what replaces that in the fingerprint, request, attachments."""


WireLine = _Written
"""A row as it is sent: the author's key, the key as JSON, the line, what replaces the line in the fingerprint (None:
the line itself), the request (perhaps without the defaults of all requests) and its attachments.

A plain tuple: there are millions, and a named tuple would take a tenth more time for each row.
"""


class PlainRows(NamedTuple):
    """Rows in columns: their keys and these as JSON (both empty, or one for each row), their requests and lines.

    ``data`` are the lines, each of which has the size that ``sizes`` says.
    """

    keys: Sequence[str]
    keys_json: Sequence[bytes]
    requests: Sequence[TextRequest]
    data: bytes
    sizes: Sequence[int]


class LineMaker:
    """Turns the rows of one source into lines."""

    def __init__(self, spec: InputSpec, defaults: RequestDefaults, source: RowSource, warnings: set[str]) -> None:
        """Prepare to read the source.

        :param warnings: receives what the author should know.
        :raises ConfigurationError: an argument names a column that the source lacks.
        """
        self._service = spec.service
        self._kind = spec.kind
        self._shaper = Shaper(spec, defaults, source.columns, warnings)
        # Values from Python code may be of any type, so they need a check.
        self._is_of_code = source.columns is None and spec.prompt_template is None
        self._raw = _RawBody(spec, defaults) if self._shaper.plain else None

    def make(self, row: Row, number: int) -> WireLine:
        """Return the line of a row that is ``number`` in the input. Raises InputError when it cannot be sent."""
        made = None if row.raw is None or self._raw is None else self._raw.read(row, row.raw)
        key, written, body, hash_as, request, attachments = made or self._shape_row(row)
        line = wire_line(self._service, self._kind, wrap_key_json(number, written), body)
        return key, written, line, hash_as, request, attachments

    def make_all(self, block: Block, number: int) -> PlainRows | None:
        """Return the rows of a block, from ``number`` on, as :meth:`make` would; None if any needs more than a look.

        Twice as fast, and so for nearly all rows of most large files.
        """
        found = None if self._raw is None else self._raw.read_all(block)
        if found is None:
            return None
        keys, written, bodies, requests = found
        wire_keys = [wrap_key_json(row, key) for row, key in enumerate(written or repeat(None, len(bodies)), number)]
        lines = wire_lines(self._service, self._kind, wire_keys, bodies)
        return PlainRows(keys, written, requests, b"".join(lines), list(map(len, lines)))

    def _shape_row(self, row: Row) -> _Written:
        """Return a row in the service's form, with its attachments."""
        key, request, attachments = self._shaper.shape(row.value)
        if self._is_of_code and row.raw is None and type(row.value) is not str:
            request = json_form(request)
        written = None if key is None else key_json(key)
        body = request_body(self._service, self._kind, request)
        if not attachments:
            return key, written, body, None, request, ()
        identities = to_json([attachment.identity for attachment in attachments])
        whole = request_body(self._service, self._kind, with_attachments(request, attachments))
        return key, written, whole, body + identities, request, attachments


class _RawBody:
    """Reads a request from a line without rewriting it, where nothing has to change: so in most large files."""

    def __init__(self, spec: InputSpec, defaults: RequestDefaults) -> None:
        self._kind = spec.kind
        self._is_vertex = spec.service is Service.VERTEX
        self._generates = spec.kind is JobKind.GENERATION
        self._off = not self._generates and (self._is_vertex or takes_instructions_in_text(spec.model))
        members: dict[str, Any] = dict(defaults.members)
        if defaults.generation_config:
            members["generationConfig"] = dict(defaults.generation_config)
        self._members = frozenset(members)
        self._tail = b"," + request_json(members)[1:] if members else b""
        self._may_need_changes = self._is_vertex or bool(members)
        self._off = self._off or not EMBEDDING_OPTIONS.isdisjoint(members)

    def read(self, row: Row, raw: bytes) -> _Written | None:
        """Return the row as its line has it; None if it must be parsed and written again."""
        # A line with escapes is written again without them: batches reportedly corrupt escaped surrogate pairs.
        # Finding one byte is faster than two, and ``find`` faster than ``in``.
        if self._off or (raw.find(b"\\") >= 0 and _UNICODE_ESCAPE.search(raw)):
            return None
        key = written = None
        body = raw
        lead = _LAYOUT.match(raw)
        if lead is not None and raw.endswith(b"}}"):
            written = lead[2]
            key = _key(written)
            if key is None:
                return None
            body = raw[lead.end() : -1]
        request: TextRequest | Mapping[str, Any] | None = self._text(body)
        if request is None:
            request = self._request(row.value, key, body)
        if request is None:
            return None
        if self._tail:
            body = body[:-1] + self._tail
        return key, written, body, None, request, ()

    def read_all(
        self, block: Block
    ) -> tuple[Sequence[str], Sequence[bytes], Sequence[bytes], Sequence[TextRequest]] | None:
        """Return the keys of a block, these as JSON, its requests as JSON and these read; None if any is not plain.

        Plain are lines of one layout, each with a request of text. :meth:`read` would return the same for them.
        """
        data, lines = block.data, block.lines
        if self._off or not self._generates or (data.find(b"\\") >= 0 and _UNICODE_ESCAPE.search(data)):
            return None
        keys: Sequence[str] = ()
        written: Sequence[bytes] = ()
        if lead := _LAYOUT.match(lines[0]):
            begin, middle = b'{"key":%b"' % lead[1], b'",%b"request":%b' % (lead[1], lead[1])
            heads, _, rests = zip(*[line.partition(middle) for line in lines], strict=True)
            found = _keys(heads, begin)
            if found is None or not all(map(bytes.endswith, rests, repeat(b"}}\n"))):
                return None
            keys, written = found
            bodies = [rest[:-2] for rest in rests]
        elif {line[:1] + line[-2:] for line in lines} == {b"{}\n"}:
            bodies = [line[:-1] for line in lines]
        else:
            return None
        requests = text_requests(bodies)
        if requests is None or (self._may_need_changes and not all(map(self._suits, requests))):
            return None
        if self._tail:
            bodies = [body[:-1] + self._tail for body in bodies]
        return keys, written, bodies, requests

    def _text(self, body: bytes) -> TextRequest | None:
        """Return a request of text, unless the defaults or Vertex AI require a change."""
        request = text_request(body) if self._generates else None
        return request if request is not None and self._suits(request) else None

    def _suits(self, request: TextRequest) -> bool:
        if not self._may_need_changes:
            return True
        return self._members.isdisjoint(request.members) and (request.suits_vertex or not self._is_vertex)

    def _request(self, value: Any, key: str | None, body: bytes) -> Mapping[str, Any] | None:
        """Return the request of a line if nothing has to be corrected, else None."""
        if type(value) is not dict:
            return None
        request: dict[str, Any] = value
        if key is not None:
            request = value["request"]
            if type(request) is not dict or not _is_one(body):
                return None
        elif value.get("request") is not None:
            return None
        if not is_ready(request, self._kind) or not self._members.isdisjoint(request):
            return None
        if self._is_vertex:
            if with_roles(request) is not request:
                return None
            check_request(request)
        return request


def _key(written: bytes) -> str | None:
    """Return a key that is JSON; None if it is empty, or would be written differently."""
    try:
        key = _decode_text(written)
    except (DecodeError, UnicodeDecodeError):
        return None
    return key if key and _encode(key) == written else None


def _keys(heads: Sequence[bytes], begin: bytes) -> tuple[list[str], list[bytes]] | None:
    """Return the keys that lines begin with, and as JSON; None if one is empty, or would be written differently."""
    try:
        # Many at once: this takes a third of the time.
        _, *keys = str(b"".join(heads), "utf-8").split(begin.decode())
    except UnicodeDecodeError:
        return None
    if "" in keys or len(keys) != len(heads) or not all(map(bytes.startswith, heads, repeat(begin))):
        return None
    written = list(map(_encode, keys))
    # Whatever has to be escaped, a quotation mark among it, makes a key longer.
    is_same = sum(map(len, written)) == sum(map(len, heads)) - len(heads) * (len(begin) - len(b'""'))
    return (keys, written) if is_same else None


def _is_one(body: bytes) -> bool:
    """Whether this is one value: behind a second ``request`` of a line, a second key could name another row."""
    try:
        decode(body, type=Raw)
    except DecodeError:
        return False
    return True
