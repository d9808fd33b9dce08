"""Plan and commit of a dataset: cut an input into parts, and decide when an output of many parts is whole."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError, EmptyInput
from airflow_provider_gemini_batch.api.models import Usage
from airflow_provider_gemini_batch.api.names import a_few
from airflow_provider_gemini_batch.api.requests.request import request_json
from airflow_provider_gemini_batch.api.states import JobKind
from airflow_provider_gemini_batch.batch.verdict import Counts, Limits
from airflow_provider_gemini_batch.rows.cost import cost_of, estimated_cost, refuse_above
from airflow_provider_gemini_batch.rows.datasets import (
    InputFile,
    check_output_folders,
    from_files,
    naming_file,
    one_schema,
    parquet_facts,
)
from airflow_provider_gemini_batch.rows.delivery import (
    META_FOLDER,
    SUCCESS,
    Manifest,
    is_undamaged,
    manifest_at,
    part_target,
    write_success,
    writer_at,
)
from airflow_provider_gemini_batch.rows.expected import Expected
from airflow_provider_gemini_batch.rows.input_spec import check_carry, check_types
from airflow_provider_gemini_batch.rows.sources import format_of_file, open_unpacked
from airflow_provider_gemini_batch.rows.templates import Shaper, needed_columns
from airflow_provider_gemini_batch.runtime.arguments import BatchArguments, read_arguments
from airflow_provider_gemini_batch.runtime.file_lists import FoundFile, find_files, list_files
from airflow_provider_gemini_batch.runtime.media_files import default_roots
from airflow_provider_gemini_batch.runtime.paths import Paths
from airflow_provider_gemini_batch.runtime.readiness import check_apart, check_folders
from airflow_provider_gemini_batch.runtime.task_rows import input_spec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from airflow_provider_gemini_batch.rows.files import Files
    from airflow_provider_gemini_batch.rows.input_spec import InputSpec
    from airflow_provider_gemini_batch.runtime.arguments import CommitArguments, PlanArguments
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess

log = logging.getLogger(__name__)

# About what a request has beside its texts.
_REQUEST_BYTES = 120
DATASET_MANIFEST = "dataset.json"
# A name that is not UTF-8 is nobody's part.
_PART_FILE = re.compile(r"part-([^\ud800-\udfff]+)\.(?:parquet|json)")


@dataclass(frozen=True)
class _Part:
    key: str
    address: str
    rows: int | None = None
    bytes: int = 0
    columns: tuple[str, ...] | None = None


def plan_parts(arguments: PlanArguments, access: ServiceAccess) -> list[dict[str, Any]]:
    """Cut an input into parts, each a mapped task, from listings, footers and the beginnings of other files.

    A part is a file, or some row groups of a Parquet file. Its key is made of the file's address and the part's number
    within the file, so that adding or removing a file does not change the other keys.

    :returns: the arguments of each mapped task: ``part_key``, ``input_path`` and, if they are needed, ``carry_types``
        and ``media_root``.
    :raises ConfigurationError: there are no files or too many parts, a file lacks a column or columns do not go
        together, the estimated cost is above ``max_cost_usd``, or the next plan would find in the input what the parts
        write; nothing was sent.
    :raises AirflowSkipException: there are no rows, and ``on_empty`` says so.
    """
    try:
        return _plan(arguments, access)
    except EmptyInput:
        if arguments.on_empty == "skip":
            raise AirflowSkipException("The input has no rows (on_empty='skip').") from None
        if arguments.on_empty == "succeed":
            log.info("The input has no rows: the dataset will have no parts (on_empty='succeed').")
            return []
        raise


def _plan(arguments: PlanArguments, access: ServiceAccess) -> list[dict[str, Any]]:
    given, folder, paths = arguments.input_path, arguments.output_path, Paths.of(access)
    # Spark, DuckDB and BigQuery take Text and text for one column.
    check_carry(tuple(map(str.lower, arguments.carry)), _kind(arguments))
    check_types(arguments.carry, arguments.carry_types or {})
    if folder is not None:
        # A part gets the address of its file, which does not show that the next plan would find the file of a part.
        check_apart(paths, given, part_target(folder, _key(folder, 0)).output, arguments.output_conn_id)
        check_output_folders(folder, arguments.carry)
    of_parts = _arguments_of_parts(arguments)
    check_folders(of_parts, paths, of_parts.staging_path or access.settings.staging_path)
    files = find_files(paths, given)
    forms = {format_of_file(one.path) for one in files}
    if len(forms) > 1:
        named = ", ".join(sorted(forms))
        raise ConfigurationError(f"the input has files of several formats: {named}; take one of them by a pattern")
    form = forms.pop()
    spec = input_spec(of_parts, access.settings, paths)
    if form == "parquet":
        parts, types = _parquet_parts(arguments, spec, files)
    else:
        parts = [_Part(_key(one.path, 0), one.path) for one in files]
        types = _text_types(arguments, form)
    _refuse_too_many(len(parts), arguments)
    shared: dict[str, Any] = {"carry_types": {name: types[name] for name in arguments.carry}} if arguments.carry else {}
    if of_parts.media_field is not None and not of_parts.media_root:
        shared["media_root"] = list(default_roots(given))
    if arguments.part_arguments is not None:
        _check_columns(spec, parts)
    if arguments.max_cost_usd is not None:
        _refuse_over_budget(spec, arguments.max_cost_usd, parts)
    rows = sum(part.rows or 0 for part in parts)
    log.info("Planned %d part(s) of %d file(s)%s.", len(parts), len(files), f", {rows} rows" if rows else "")
    return [{"part_key": part.key, "input_path": [part.address], **shared} for part in parts]


def _arguments_of_parts(arguments: PlanArguments) -> BatchArguments:
    """Return the arguments of the parts, as far as the plan knows them, with the whole input."""
    return replace(
        read_arguments(BatchArguments, arguments.part_arguments or {}, kind=_kind(arguments)),
        model=arguments.model,
        input_path=arguments.input_path,
        output_conn_id=arguments.output_conn_id,
        prompt_template=arguments.prompt_template,
        output_schema=arguments.output_schema,
        carry=arguments.carry,
    )


def _kind(arguments: PlanArguments) -> JobKind:
    return JobKind.EMBEDDINGS if arguments.embeddings else JobKind.GENERATION


def _key(path: str, number: int) -> str:
    try:
        named = path.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"input_path: the name of {path!r} is not UTF-8: rename the file") from None
    return f"{number:05d}-{sha256(named).hexdigest()[:12]}"


def _parquet_parts(
    arguments: PlanArguments, spec: InputSpec, files: Sequence[FoundFile]
) -> tuple[list[_Part], Mapping[str, str]]:
    sent = replace(spec, key_field=None, media_field=None, carry=())
    is_known = arguments.max_cost_usd is not None and arguments.part_arguments is not None
    parts: list[_Part] = []
    schemas = []
    partitions: dict[str, str] = {}
    for one in files:
        facts = parquet_facts(one.path, spec.opener)
        schemas.append((one.path, facts.types))
        own = InputFile.parse(one.path).partitions
        partitions.update(dict.fromkeys(own, "str"))
        columns = (*facts.types, *own)
        with naming_file(one.path):
            texts = needed_columns(sent, columns) if is_known else columns
        for number, (first, last, rows) in enumerate(_cut(facts.groups, arguments)):
            whole = (first, last) == (0, len(facts.groups) - 1)
            file = InputFile(one.path) if whole else InputFile(one.path, (first, last), facts.checksum(first, last))
            size = facts.bytes_of(first, last, texts)
            parts.append(_Part(_key(one.path, number), file.address, rows, size, columns))
    there = partitions.keys() | {name for _, types in schemas for name in types}
    absent = [name for name in arguments.carry if name not in there]
    if absent:
        raise ConfigurationError(f"carry: there is no column {', '.join(absent)}")
    given = arguments.carry_types or {}
    return parts, {**partitions, **one_schema(schemas, set(arguments.carry) - set(given)), **given}


def _cut(groups: Sequence[tuple[int, int]], arguments: PlanArguments) -> Iterator[tuple[int, int, int]]:
    """Yield first and last row group and rows of each part; appended groups do not change earlier parts."""
    first = rows = size = 0
    for index, (more, bytes_) in enumerate(groups):
        if rows and (rows + more > arguments.rows_per_part or size + bytes_ > arguments.bytes_per_part):
            yield first, index - 1, rows
            first, rows, size = index, 0, 0
        rows, size = rows + more, size + bytes_
    if rows:
        yield first, len(groups) - 1, rows


def _text_types(arguments: PlanArguments, form: str) -> Mapping[str, str]:
    """Return the types of carried columns, the same for all parts, since no part sees the rows of the others."""
    given = arguments.carry_types or {}
    missing = [name for name in arguments.carry if name not in given]
    if missing and form == "jsonl":
        raise ConfigurationError(
            f"carry_types: JSON lines do not say of which type a column is over all files: give carry_types for "
            f"{', '.join(missing)}"
        )
    return {**dict.fromkeys(missing, "str"), **given}


def _refuse_too_many(parts: int, arguments: PlanArguments) -> None:
    from airflow.sdk.configuration import conf

    most = conf.getint("core", "max_map_length", fallback=1024)
    if not parts:
        raise EmptyInput("the input has no rows; set on_empty to 'skip' or 'succeed' if that may happen")
    if parts > most:
        raise ConfigurationError(
            f"the input makes {parts} parts, and [core] max_map_length is {most}: raise rows_per_part "
            f"({arguments.rows_per_part} now) or join small files; each file is at least one part"
        )


def _check_columns(spec: InputSpec, parts: Sequence[_Part]) -> None:
    """Refuse what single parts would refuse when others are paid: a column that a file lacks, a text of doubtful form.

    :raises ConfigurationError: names the file.
    """
    defaults = spec.defaults(set())
    # Parquet has null for a carried column that only other files have, but a key cannot be null.
    elsewhere = [name for name in spec.carry if name != spec.key_field]
    for part in parts:
        with naming_file(part.address):
            own = part.columns
            columns = _columns_of(spec, part) if own is None else tuple(dict.fromkeys((*own, *elsewhere)))
            Shaper(spec, defaults, columns, set())


def _columns_of(spec: InputSpec, part: _Part) -> tuple[str, ...] | None:
    """Return the columns that the beginning of a text file names; None where there are none."""
    found = from_files([part.address], opener=spec.opener, csv_delimiter=spec.csv_delimiter, encoding=spec.encoding)
    found.close()
    return found.columns


def _refuse_over_budget(spec: InputSpec, max_cost_usd: float, parts: Sequence[_Part]) -> None:
    sizes = [_size(spec, part.address) if part.rows is None else (part.rows, part.bytes) for part in parts]
    rows = sum(count for count, _ in sizes)
    defaults = spec.defaults(set())
    members = {**defaults.members, "generationConfig": defaults.generation_config or None}
    each = _REQUEST_BYTES + len((spec.prompt_template or "").encode()) + len(request_json(members))
    expected = Expected(spec.model, members)
    expected.add_rows(rows, sum(size for _, size in sizes) + rows * each, files=rows if spec.media_field else 0)
    cost = estimated_cost(expected, spec.kind)
    refuse_above(cost, max_cost_usd)
    log.info("Estimated for all parts: %s; max_cost_usd=%g.", cost, max_cost_usd)


def _size(spec: InputSpec, address: str) -> tuple[int, int]:
    """Return the lines and bytes of a text file, unpacked."""
    lines, size = 1, 0
    with open_unpacked(address, spec.opener) as handle:
        for piece in iter(lambda: handle.read(1 << 20), b""):
            lines += piece.count(b"\n")
            size += len(piece)
    return lines, size


# -- commit


def commit_parts(arguments: CommitArguments, access: ServiceAccess) -> dict[str, Any]:
    """Complete a dataset: check that every part is whole, remove other parts, write the sums and then ``_SUCCESS``.

    :returns: ``parts``, ``counts``, ``usage``, ``cost``, ``output``.
    :raises ConfigurationError: parts are not whole, or differ in the types of their columns.
    :raises AirflowFailException: more rows failed than the limits allow; the parts stay, without ``_SUCCESS``.
    """
    folder = arguments.output_path
    files = Paths.of(access).files_of(folder, arguments.output_conn_id)
    files.remove(f"{folder}{SUCCESS}")
    targets = {key: part_target(folder, key) for key in arguments.parts}
    if len(targets) < len(arguments.parts):
        twice = [key for key, count in Counter(arguments.parts).items() if count > 1]
        raise ConfigurationError(
            f"part_key: two parts have the same key, so one has replaced the other: {a_few(twice)}"
        )
    found = {key: manifest_at(files, target.manifest) for key, target in targets.items()}
    absent = [
        key
        for key, manifest in found.items()
        if manifest is None or not is_undamaged(files, targets[key].output, manifest.rows)
    ]
    if absent:
        raise ConfigurationError(
            f"{len(absent)} of {len(found)} parts are not whole: {a_few(absent)}. Clear their tasks (and the "
            "plan, if files have gone), then this one"
        )
    manifests = [manifest for manifest in found.values() if manifest is not None]
    _refuse_mixed_types(manifests)
    totals = _totals(arguments, manifests)
    counts = totals["counts"]
    if not counts["total"] and arguments.on_empty == "fail":
        raise EmptyInput("the input has no rows; set on_empty to 'succeed' if that may happen")
    limits = Limits(arguments.max_failed_rows, arguments.max_failure_rate)
    exceeded = limits.exceeded_by(Counts(counts["total"], counts["succeeded"], counts["failed"]))
    if exceeded:
        worst = sorted((one for one in manifests if one.counts["failed"]), key=lambda one: -one.counts["failed"])
        raise AirflowFailException(
            f"{counts['failed']} of {counts['total']} rows failed over all {len(manifests)} parts, {exceeded}. They "
            f"are at {folder}, without {SUCCESS}. Most failed in {a_few([one.output for one in worst])}: to run a part "
            "again, remove its file and clear the group."
        )
    removed = _remove_others(Paths.of(access), arguments, files, {one.origin.writer for one in manifests})
    with files.write_whole(f"{folder}{META_FOLDER}/{DATASET_MANIFEST}") as handle:
        handle.write(to_json({"version": 1, "whole": True, **totals}, indent=2) + b"\n")
    write_success(files, f"{folder}{SUCCESS}")
    log.info("%d part(s), %s; removed %d that the plan no longer has.", len(manifests), counts, removed)
    return totals


def _totals(arguments: CommitArguments, manifests: Sequence[Manifest]) -> dict[str, Any]:
    counts: dict[str, int] = {"total": 0, "succeeded": 0, "failed": 0}
    used = Usage()._asdict()
    for manifest in manifests:
        for name, count in manifest.counts.items():
            counts[name] = counts.get(name, 0) + count
        for name, tokens in manifest.usage._asdict().items():
            used[name] += tokens
    cost = (
        cost_of(Usage(**used), arguments.model.rpartition("/")[2], rows=counts["total"]) if any(used.values()) else None
    )
    return {
        "output": arguments.output_path,
        "parts": len(manifests),
        "counts": counts,
        "usage": used,
        "cost": cost.plain() if cost is not None and cost.usd is not None else None,
    }


def _refuse_mixed_types(manifests: Sequence[Manifest]) -> None:
    for one, other in pairwise(manifests):
        if one.origin.carried_types != other.origin.carried_types:
            raise ConfigurationError(
                f"the parts {one.part} and {other.part} differ in the types of their carried columns: give "
                "carry_types, and clear the parts"
            )


def _remove_others(paths: Paths, arguments: CommitArguments, files: Files, writers: Collection[str]) -> int:
    """Remove parts that the plan no longer has, and return how many; files of other people and datasets stay.

    :param writers: the tasks that wrote the parts of the plan.

    A part is known by its manifest, which a delivery begins before its rows appear. It goes last: whoever dies before
    that is followed by one who still finds the part.
    """
    folder, conn_id = arguments.output_path, arguments.output_conn_id
    names = (
        path.rpartition("/")[2]
        for each in ("", f"{META_FOLDER}/")
        for path in _files_in(paths, folder + each, conn_id, named="part-*")
    )
    found = {match[1] for match in map(_PART_FILE.fullmatch, names) if match}
    others = sorted(found - {part_target(folder, key).part for key in arguments.parts})
    if others and not arguments.parts:
        log.warning("The plan has no parts, and %s holds %s: nothing is removed.", folder, a_few(others))
        return 0
    removed = 0
    for part in others:
        target = part_target(folder, part)
        output = f"{folder}part-{part}.parquet"
        # A name that no part has would lead to the part that has this key.
        if target.output == output and files.exists(target.manifest):
            if (writer := writer_at(files, target.manifest)) and writer not in writers:
                log.warning(
                    "%s is of another dataset (%s), which should have a folder of its own: it is left alone, and "
                    "readers of the folder read it.",
                    output,
                    writer,
                )
                continue
            for path in (*_files_in(paths, f"{target.media}/", conn_id), target.aside, target.output, target.manifest):
                files.remove(path)
            removed += 1
        elif files.exists(output):
            log.warning(
                "%s is not of this dataset's plan and has no manifest of this provider: it is left alone, and readers "
                "of the folder read it.",
                output,
            )
    return removed


def _files_in(paths: Paths, folder: str, conn_id: str | None, *, named: str | None = None) -> list[str]:
    """Return the files of a folder, none if it does not exist."""
    try:
        return [one.path for one in list_files(paths, folder, conn_id=conn_id, named=named)]
    except ConfigurationError as error:
        if isinstance(error, EmptyInput) or isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
