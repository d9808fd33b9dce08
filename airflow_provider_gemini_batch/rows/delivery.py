"""Putting a finished output where it belongs, whole or not at all, with a manifest beside it, written last.

On a local disk the output has a temporary name until it is whole; on an object store it appears under its own name
when it is closed. The manifest ``_<output>.manifest.json`` says that the output is whole and which jobs are in it. It
is removed before an output is replaced. If another task of the same run has written to the path, two mapped tasks
share it, which is an error.

A path that ends in ``/`` is a dataset: a folder of Parquet parts, as pyarrow, Spark and BigQuery read it. Everything
else is in ``_gemini_batch/``, which such readers skip, and ``_SUCCESS`` is written last.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.models import Usage
from airflow_provider_gemini_batch.rows.columns import arrow_type
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, ResponseSource, land
from airflow_provider_gemini_batch.rows.result_rows import ROW_MEMBERS, json_line
from airflow_provider_gemini_batch.rows.sources import open_parquet, parquet_faults
from airflow_provider_gemini_batch.rows.writers import (
    ParquetSink,
    carried_table,
    check_output_path,
    is_parquet,
    misfit,
    open_sink,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.api.models import BatchResult
    from airflow_provider_gemini_batch.rows.files import Files

META_FOLDER = "_gemini_batch"
"""The folder of a dataset for everything that is not rows."""
SUCCESS = "_SUCCESS"
"""The empty file that marks a dataset as whole."""

_VERSION = 1
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
# Others may write to the folder of an output: what is larger is not a manifest of ours.
_MANIFEST_BYTES = 16 << 20
_OTHERS = "the rows are not those that the manifest of the output describes"


@dataclass(frozen=True)
class Target:
    """The paths of one output and of the files beside it.

    ``older_manifests`` are where earlier versions put the manifest. ``success`` marks the dataset that this output is a
    part of: it is removed before a part is replaced, and written last, by this output if ``is_all``. ``part`` names the
    part. ``media`` is the folder for pictures and sound unless the author names one; like a manifest, it has a name
    that readers of a folder skip.
    """

    output: str
    manifest: str
    aside: str
    older_manifests: tuple[str, ...] = ()
    success: str | None = None
    is_all: bool = False
    part: str = ""
    media: str = ""


def target_of(path: str, *, part: str = "", is_all: bool = False) -> Target:
    """Return the paths that belong to an output path. Raises ConfigurationError when its ending is not a known format.

    :param part: the name of this task's part, where the path is a dataset.
    :param is_all: this part is the whole dataset.
    """
    if path.endswith("/"):
        return part_target(path, part, is_all=is_all)
    check_output_path(path)
    folder, slash, name = path.rpartition("/")
    beside = f"{folder}{slash}_{name}"
    return Target(
        output=path,
        manifest=f"{beside}.manifest.json",
        aside=f"{beside}.aside.jsonl",
        older_manifests=(f"{path}.manifest.json",),
        media=f"{beside.rpartition('.')[0]}.media",
    )


def part_target(folder: str, part: str, *, is_all: bool = False) -> Target:
    """Return the paths that belong to a part of a dataset. ``folder`` ends in a slash; ``part`` may be any text."""
    if not _SAFE_NAME.fullmatch(part):
        part = sha256(part.encode()).hexdigest()[:16]
    name = f"part-{part}"
    return Target(
        output=f"{folder}{name}.parquet",
        manifest=f"{folder}{META_FOLDER}/{name}.json",
        aside=f"{folder}{META_FOLDER}/{name}.aside.jsonl",
        success=f"{folder}{SUCCESS}",
        is_all=is_all,
        part=part,
        media=f"{folder}{META_FOLDER}/{name}.media",
    )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows of an output come from: which task of which run, which jobs, which input.

    ``task`` is unique in its ``run``; ``writer`` is the task's name in all runs. ``carried_types``: the columns of the
    input that go into the rows, with their types. ``content_hash`` is a hash of all that decides what the rows hold: of
    what is sent, and of carried columns.
    """

    task: str
    run: str
    job_names: tuple[str, ...] = ()
    fingerprint: str = ""
    carried_types: Mapping[str, str] = field(default_factory=dict)
    content_hash: str = ""
    writer: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The file beside an output that says where its rows come from and what is in it.

    ``media`` has the ``path`` of the folder with pictures and sound, and the number of ``files`` and ``bytes`` in it.
    """

    origin: Origin
    counts: Mapping[str, int]
    usage: Usage
    output: str
    rows: int
    aside: str | None = None
    part: str = ""
    media: Mapping[str, Any] | None = None

    def to_json(self) -> bytes:
        """Return the manifest as it is written."""
        members = {"version": _VERSION, "whole": True, **vars(self.origin), **vars(self), "usage": self.usage.shown()}
        del members["origin"]
        return to_json(members, indent=2) + b"\n"


def read_manifest(files: Files, target: Target) -> Manifest | None:
    """Return the manifest of an output, or None when the output is not known to be whole."""
    for path in (target.manifest, *target.older_manifests):
        found = manifest_at(files, path)
        if found is not None:
            return found
    return None


def manifest_at(files: Files, path: str) -> Manifest | None:
    """Return the manifest at a path, or None when there is none for a whole output."""
    try:
        with files.read(path) as handle:
            members = from_json(handle.read(_MANIFEST_BYTES))
        if members["whole"] is not True or members["version"] != _VERSION:
            return None
        return Manifest(
            origin=Origin(
                task=str(members["task"]),
                run=str(members["run"]),
                job_names=tuple(map(str, members["job_names"])),
                fingerprint=str(members["fingerprint"]),
                carried_types=dict(members.get("carried_types", {})),
                content_hash=str(members.get("content_hash", "")),
                writer=str(members.get("writer", "")),
            ),
            counts={name: int(count) for name, count in members["counts"].items()},
            # A later version may count other kinds, and a worker that is not yet upgraded is not to buy the rows again.
            usage=Usage(**{name: int(count) for name, count in members["usage"].items() if name in Usage._fields}),
            output=str(members["output"]),
            rows=int(members["rows"]),
            aside=members.get("aside"),
            part=str(members.get("part", "")),
            media=members.get("media"),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_undamaged(files: Files, path: str, rows: int) -> bool:
    """Return whether an output of so many rows is there and has its end, which a copy that broke off lacks."""
    try:
        with files.read(path) as handle:
            if is_parquet(path):
                open_parquet(handle, path)
                return True
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - 1))
            return handle.read(1) == (b"\n" if rows else b"")
    except (FileNotFoundError, InputError):
        return False


def writer_at(files: Files, path: str) -> str:
    """Return the task that wrote a part, whole or not, by the manifest at a path; empty if that does not say."""
    try:
        with files.read(path) as handle:
            return str(from_json(handle.read(_MANIFEST_BYTES)).get("writer", ""))
    except (FileNotFoundError, ValueError, AttributeError):
        return ""


def check_target(files: Files, target: Target, origin: Origin) -> None:
    """Raise ConfigurationError when another task of this run has written there."""
    found = read_manifest(files, target)
    if found is not None and found.origin.run == origin.run and found.origin.task != origin.task:
        raise ConfigurationError(
            "another task of this run has written its rows to this output_path; give each its own, for mapped tasks "
            "with {{ ti.map_index }} in it, or a folder (a path that ends in /) for all of them"
        )


def deliver(
    target: Target,
    files: Files,
    sources: Sequence[ResponseSource | Callable[[], Iterable[BatchResult]]],
    landing: LandingSpec,
    origin: Origin,
    *,
    workdir: Path,
) -> tuple[LandingSummary, Manifest]:
    """Land all responses at the output and write the manifest. When this raises, no new output is there."""
    check_target(files, target, origin)
    with files.write_whole(target.output) as handle:
        sink = open_sink(
            target.output,
            handle,
            kind=landing.kind,
            parsed=landing.schema is not None,
            response=landing.keep_response,
            carried=origin.carried_types,
        )
        try:
            summary = land(sources, sink, landing, workdir)
            sink.close()
        except BaseException:
            if isinstance(sink, ParquetSink):
                sink.abandon()
            raise
        # From here on, an old manifest would describe rows that are being replaced.
        if target.success:
            files.remove(target.success)
            _begin_manifest(files, target, origin.writer)
        else:
            for path in (target.manifest, *target.older_manifests):
                files.remove(path)
    manifest = Manifest(
        origin=origin,
        counts=summary.counts,
        usage=summary.usage,
        output=target.output,
        rows=summary.rows,
        aside=_deliver_aside(files, target, summary.aside),
        part=target.part,
        media=None if landing.media is None else landing.media.summary(),
    )
    _write_manifest(files, target, manifest)
    mark_whole(files, target)
    return summary, manifest


def with_carried(
    files: Files, target: Target, manifest: Manifest, origin: Origin, carried: Iterator[bytes], *, response: bool
) -> Manifest | None:
    """Write an output again with other carried columns, and return its manifest; None where its responses are others.

    Other columns, values or types are no reason to pay for responses that are there.

    :param origin: of the input as it is now.
    :param carried: the carried columns of its rows, as lines of JSON.
    :param response: whether rows have the service's own JSON.
    """
    before, types = manifest.origin.carried_types, origin.carried_types
    try:
        with files.read(target.output) as handle, files.write_whole(target.output) as out:
            if is_parquet(target.output):
                _parquet_again(handle, out, manifest, carried, types, response=response)
            else:
                _lines_again(handle, out, manifest, carried, response=response)
            if target.success:
                files.remove(target.success)
            # Whoever dies from here on is followed by one who does the same again: no input has this hash.
            between = replace(manifest.origin, carried_types={**before, **types}, content_hash="")
            _write_manifest(files, target, replace(manifest, origin=between))
    except InputError:
        return None
    now = replace(manifest.origin, carried_types=dict(types), content_hash=origin.content_hash)
    changed = replace(manifest, origin=now)
    _write_manifest(files, target, changed)
    return changed


def _parquet_again(
    handle: BinaryIO,
    out: BinaryIO,
    manifest: Manifest,
    carried: Iterator[bytes],
    types: Mapping[str, str],
    *,
    response: bool,
) -> None:
    """Write the rows of a Parquet file with other carried columns.

    :raises InputError: the file is damaged, or its rows are not those of the manifest.
    """
    import pyarrow as pa
    from pyarrow import parquet

    before = manifest.origin.carried_types
    part = open_parquet(handle)
    own = [field for field in part.schema_arrow if field.name not in {*before, *types}]
    _check_same({field.name for field in own}, part.metadata.num_rows, manifest, response=response)
    place = len(own) - response
    fields = [*own[:place], *((name, arrow_type(word)) for name, word in types.items()), *own[place:]]
    schema = pa.schema(fields, metadata=part.schema_arrow.metadata)
    with parquet.ParquetWriter(out, schema) as writer:
        for number in range(part.num_row_groups):
            with parquet_faults("the output"):
                table = part.read_row_group(number)
            writer.write_table(_carrying(table, carried, before, schema, types))


def _lines_again(
    handle: BinaryIO, out: BinaryIO, manifest: Manifest, carried: Iterator[bytes], *, response: bool
) -> None:
    """Write JSON lines with other carried columns. Raises InputError as :func:`_parquet_again` does."""
    names: set[str] = set()
    count = 0
    for line in handle:
        try:
            row = {name: value for name, value in from_json(line).items() if name not in manifest.origin.carried_types}
        except (ValueError, AttributeError):
            raise InputError(_OTHERS) from None
        names.update(row)
        count += 1
        last = {"response": row.pop("response")} if "response" in row else {}
        out.write(json_line({**row, **from_json(next(carried, b"").strip() or b"{}"), **last}))
    _check_same(names, count, manifest, response=response)


def _check_same(names: Collection[str], rows: int, manifest: Manifest, *, response: bool) -> None:
    """Raise InputError unless an output has as many rows as its manifest says, and columns that we write."""
    if not set(names) <= set(ROW_MEMBERS) or ("response" in names) != response or rows != manifest.rows:
        raise InputError(_OTHERS)


def _carrying(
    table: Any, carried: Iterator[bytes], before: Iterable[str], schema: Any, types: Mapping[str, str]
) -> Any:
    """Return rows with these carried columns in place of those ``before``."""
    import pyarrow as pa

    misfits = set(map(misfit, before))
    warnings = [
        "; ".join(one for one in (words or "").split("; ") if one not in misfits) or None
        for words in table.column("warning").to_pylist()
    ]
    added = carried_table(carried, warnings, types)
    columns = [(added if name in added.column_names else table).column(name) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def _write_manifest(files: Files, target: Target, manifest: Manifest) -> None:
    with files.write_whole(target.manifest) as handle:
        handle.write(manifest.to_json())


def _begin_manifest(files: Files, target: Target, writer: str) -> None:
    """Write that the part is ours, but not known to be whole, so that a commit can remove what a killed task leaves."""
    with files.write_whole(target.manifest) as handle:
        members = {"version": _VERSION, "whole": False, "part": target.part, "writer": writer}
        handle.write(to_json(members) + b"\n")


def mark_whole(files: Files, target: Target) -> None:
    """Write the file that marks a dataset as whole, if this output is all of it and the file is not there."""
    if target.success and target.is_all and not files.exists(target.success):
        write_success(files, target.success)


def write_success(files: Files, path: str) -> None:
    """Write the file that marks a dataset as whole."""
    with files.write_whole(path):
        pass


def _deliver_aside(files: Files, target: Target, found: Path | None) -> str | None:
    if found is None:
        files.remove(target.aside)
        return None
    with found.open("rb") as source, files.write_whole(target.aside) as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
    return target.aside
