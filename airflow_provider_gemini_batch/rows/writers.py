"""Writes finished rows: JSON lines or Parquet, by the extension of the output path.

In Parquet ``embedding`` is a list of 32-bit floats (the service's own precision). ``usage``, ``error`` and the entries
of ``media_files`` are structs, other lists and objects are JSON text. Carried columns have the type of their source,
else of their values (JSON text where they differ); see :mod:`.columns`. Every column exists, whatever the rows hold. A
value that does not fit its column becomes null, and the row's ``warning`` says so: one odd row must not make all fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import JobKind, Usage
from airflow_provider_gemini_batch.rows.columns import arrow_type, reader_of
from airflow_provider_gemini_batch.rows.result_rows import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BLOCK_BYTES = 1 << 18
_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 20_000
WRITER = b"airflow-provider-gemini-batch"
"""A name in the footer of Parquet files that this package has written."""

# Formats that we do not write: a file of JSON lines with such a name would mislead its readers.
_NO_SINK = (
    ".csv", ".tsv", ".txt", ".json", ".xml", ".html", ".xlsx", ".xls", ".ods", ".avro", ".orc", ".feather", ".arrow",
    ".gz", ".zip", ".zst", ".bz2", ".xz", "/",
)  # fmt: skip


class Sink(Protocol):
    """Receives rows as lines of JSON, newline included, in the order of the output."""

    def write(self, line: bytes) -> None:
        """Add one row, or several whole ones."""

    def close(self) -> None:
        """Write what is buffered; the file itself stays open."""


def is_parquet(path: str) -> bool:
    """Return whether a file is Parquet, by its name."""
    return path.lower().endswith((".parquet", ".pq"))


def check_output_path(path: str) -> None:
    """Raise ConfigurationError for a path whose ending names a format that we do not write."""
    if not path or path.lower().endswith(_NO_SINK):
        raise ConfigurationError(
            "output_path must name a file that ends in .jsonl, .ndjson or .parquet, or a folder with a slash at its end"
        )


def open_sink(
    path: str,
    handle: BinaryIO,
    *,
    kind: JobKind,
    parsed: bool = False,
    response: bool = False,
    carried: Mapping[str, str] | None = None,
) -> Sink:
    """Return the sink for an output path. ``carried`` names columns and their types; see :mod:`.columns`."""
    if is_parquet(path):
        return ParquetSink(handle, kind=kind, parsed=parsed, response=response, carried=carried or {})
    return JsonlSink(handle)


class JsonlSink:
    """Writes rows as they are, in blocks that a processor's cache can hold."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._held: list[bytes] = []
        self._bytes = 0

    def write(self, line: bytes) -> None:
        """Add one row, or several whole ones."""
        self._held.append(line)
        self._bytes += len(line)
        if self._bytes >= _BLOCK_BYTES:
            self.close()

    def close(self) -> None:
        """Write what is buffered."""
        self._handle.write(b"".join(self._held))
        self._held.clear()
        self._bytes = 0


class ParquetSink:
    """Writes rows in row groups of at most 20,000 rows or about 8 MiB of JSON."""

    def __init__(
        self, handle: BinaryIO, *, kind: JobKind, parsed: bool, response: bool, carried: Mapping[str, str]
    ) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise ConfigurationError(
                "Parquet needs pyarrow: pip install 'airflow-provider-gemini-batch[parquet]'"
            ) from error
        schema = _arrow_schema(pa, kind=kind, parsed=parsed, response=response, carried=carried)
        schema = schema.with_metadata({WRITER: b"1"})
        self._tables = _Tables(schema, carried)
        self._as_json = frozenset(["parsed"] * parsed + ["response"] * response)
        self._writer = parquet.ParquetWriter(handle, schema)
        self._held: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, line: bytes) -> None:
        """Add one row, or several whole ones."""
        for one in line.split(b"\n") if line.count(b"\n") > 1 else (line,):
            if one:
                self._held.append(self._row(from_json(one)))
        self._bytes += len(line)
        if self._bytes >= _GROUP_BYTES or len(self._held) >= _GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """Keep pyarrow from writing a footer when the writer is collected, into a file that is closed by then."""
        self._writer.is_open = False

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        names = self._as_json if _JSON_PARTS.isdisjoint(row) else self._as_json | _JSON_PARTS
        for name in names:
            row[name] = _json_text(row.get(name))
        if row["usage"] is not None:
            row["usage"] = {**_NO_USAGE, **row["usage"]}
        return row

    def _write_group(self) -> None:
        if self._held:
            self._writer.write_table(self._tables.make(self._held))
            self._held.clear()
            self._bytes = 0


class _Tables:
    """Makes tables of rows, whose carried columns are as JSON has them.

    A value that does not fit its column becomes null, and the row's ``warning`` says so.
    """

    def __init__(self, schema: Any, carried: Mapping[str, str]) -> None:
        import pyarrow as pa

        self._arrow = pa
        self._schema = schema
        readers = ((name, _json_text if form == "json" else reader_of(form)) for name, form in carried.items())
        self._readers = [(name, reader) for name, reader in readers if reader is not None]

    def make(self, rows: list[dict[str, Any]]) -> Any:
        """Return a table; the rows may be changed."""
        for name, read in self._readers:
            for row in rows:
                row[name] = read(row.get(name))
        try:
            return self._arrow.Table.from_pylist(rows, schema=self._schema)
        except (self._arrow.ArrowException, OverflowError, TypeError, ValueError):
            for row in rows:
                self._mend(row)
            return self._arrow.Table.from_pylist(rows, schema=self._schema)

    def _mend(self, row: dict[str, Any]) -> None:
        bad = [field.name for field in self._schema if not self._fits(row.get(field.name), field)]
        row.update(dict.fromkeys(bad))
        if bad:
            words = [row["warning"]] if row.get("warning") else []
            row["warning"] = "; ".join([*words, *map(misfit, bad)])

    def _fits(self, value: Any, field: Any) -> bool:
        try:
            self._arrow.array([value], type=field.type)
        except (self._arrow.ArrowException, OverflowError, TypeError, ValueError):
            return False
        return True


def _json_text(value: Any) -> str | None:
    return None if value is None else to_json(value, inf_nan_mode="null").decode()


def misfit(name: str) -> str:
    """Return what a row's ``warning`` says of a value that became null."""
    return f"{name}: the column cannot hold this row's value"


def carried_table(lines: Iterator[bytes], warnings: Sequence[str | None], carried: Mapping[str, str]) -> Any:
    """Return carried columns, behind a column ``warning``, as :class:`ParquetSink` writes them.

    :param lines: the carried columns of each row as JSON; those at the end may be missing.
    :param warnings: of each row, without those that carried columns cause.
    """
    import pyarrow as pa

    schema = pa.schema([("warning", pa.string()), *((name, arrow_type(form)) for name, form in carried.items())])
    rows = [{"warning": warning, **from_json(next(lines, b"").strip() or b"{}")} for warning in warnings]
    return _Tables(schema, carried).make(rows)


_JSON_PARTS = frozenset({"function_calls", "executed_code", "other_parts", "candidate_metadata", "more_candidates"})
_NO_USAGE = Usage()._asdict()


def _arrow_schema(pa: Any, *, kind: JobKind, parsed: bool, response: bool, carried: Mapping[str, str]) -> Any:
    fields: list[tuple[str, Any]] = [("key", pa.string()), ("status", pa.string())]
    embeddings = kind is JobKind.EMBEDDINGS
    fields.append(("embedding", pa.list_(pa.float32())) if embeddings else ("text", pa.string()))
    if parsed:
        fields.append(("parsed", pa.string()))
    fields += [
        ("finish_reason", pa.string()),
        ("usage", pa.struct([(name, pa.int64()) for name in Usage._fields])),
        ("error", pa.struct([("code", pa.int32()), ("message", pa.string())])),
    ]
    texts = ("path", "uri", "mime_type")
    media = pa.struct([*((name, pa.string()) for name in texts), ("bytes", pa.int64()), ("thought", pa.bool_())])
    parts = ["warning"] if embeddings else list(PARTS)
    fields += [(name, pa.list_(media) if name == "media_files" else pa.string()) for name in parts]
    fields += [(name, arrow_type(form)) for name, form in carried.items()]
    if response:
        fields.append(("response", pa.string()))
    return pa.schema(fields)
