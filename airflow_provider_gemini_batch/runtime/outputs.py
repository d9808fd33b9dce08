"""Where a task's rows are kept while it waits, and where its results are landed."""

from __future__ import annotations

import logging
import stat
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    InputError,
    InputUnavailable,
)
from airflow_provider_gemini_batch.api.requests.fields import check_json, shown
from airflow_provider_gemini_batch.api.wire import what_json_lacks
from airflow_provider_gemini_batch.rows.delivery import (
    Origin,
    check_target,
    deliver,
    is_undamaged,
    mark_whole,
    read_manifest,
    target_of,
    with_carried,
)
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, ResponseSource, land
from airflow_provider_gemini_batch.rows.media import MediaFolder
from airflow_provider_gemini_batch.rows.python_rows import plain, python_rows
from airflow_provider_gemini_batch.rows.templates import check_columns, named_columns, text_of_columns
from airflow_provider_gemini_batch.rows.writers import JsonlSink, is_parquet
from airflow_provider_gemini_batch.runtime.paths import Paths, is_local, local_path, path_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from airflow_provider_gemini_batch.batch.tag import TaskIdentity
    from airflow_provider_gemini_batch.rows.delivery import Manifest, Target
    from airflow_provider_gemini_batch.rows.files import Files
    from airflow_provider_gemini_batch.rows.input_spec import InputSpec
    from airflow_provider_gemini_batch.runtime.arguments import OutputArguments
    from airflow_provider_gemini_batch.runtime.client import ServiceAccess

log = logging.getLogger(__name__)

_MARK_LENGTH = 8


@dataclass(frozen=True)
class SavedRows:
    """The rows of a callable, saved until results are delivered: another process needs them again, hours later.

    ``anew``: no try of this task instance has run before, so existing rows come from a deleted Dag run with the same
    id. ``lasting`` False: the rows are saved for this process only.
    """

    path: str
    paths: Paths
    conn_id: str | None = None
    anew: bool = False
    lasting: bool = True

    def spec(self, spec: InputSpec, *, again: bool) -> InputSpec:
        """Return the input as a file, which is written first unless an earlier try has written it.

        :param again: jobs were created from these rows, so the function is not called even if the file is gone.
        :raises InputUnavailable: the rows are needed again, but they are gone.
        """
        there = self.paths.files_of(self.path, self.conn_id).exists(self.path)
        if again and not there:
            raise InputUnavailable(f"the saved rows of the function are not at {self.path}")
        if not again and (self.anew or not there):
            self._write(spec)
        return replace(
            spec,
            rows=None,
            path=self.path,
            is_saved=True,
            file_format="jsonl",
            csv_delimiter=None,
            encoding=None,
            opener=lambda path: self.paths.open_for_reading(path, self.conn_id),
        )

    def _write(self, spec: InputSpec) -> None:
        assert spec.rows is not None  # noqa: S101  (the one caller has looked)
        found = python_rows(spec.rows)
        columns = named_columns(spec)
        if found.columns is not None:
            check_columns(columns, found.columns)
        prompt = None if found.columns is None or spec.prompt_template is not None else text_of_columns(found.columns)
        with self.paths.files_of(self.path, self.conn_id, private=True).write_whole(self.path) as handle:
            for place, row in enumerate(found.rows):
                handle.write(_saved_line(place, row, columns, prompt))

    def remove(self) -> None:
        """Remove the rows."""
        self.paths.files_of(self.path, self.conn_id).remove(self.path)


def _check_replaceable(path: Path) -> None:
    """Refuse what is there and no file: landing would put a file in its place.

    :raises ConfigurationError: says what to give.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise ConfigurationError(
            f"output_path: {path} is a folder: name a file in it, or write / at its end for a dataset of Parquet parts"
        )
    # /dev/stdout may lead to a regular file.
    folder = path.parent.resolve()
    if not stat.S_ISREG(mode) or folder == Path("/dev") or folder.is_relative_to("/proc"):
        raise ConfigurationError(f"output_path: {path} is a device or a pipe, which a file would replace: name a file")


def _saved_line(place: int, row: Any, columns: Sequence[tuple[str, str]], prompt: str | None) -> bytes:
    """Return a row as JSON.

    :param prompt: the column of a frame that is the prompt, since the file has no header that would say so.
    :raises InputError: another process would read a different row.
    """
    try:
        value = plain(row.members() if hasattr(row, "members") else row)
        if prompt is not None:
            value = {**{name: value[name] for _, name in columns}, "text": value[prompt]}
        for name, one in value.items() if isinstance(value, dict) else ():
            check_json(one, f"the row holds in {shown(name)!r}")
        check_json(value, "the row holds")
        return to_json(value) + b"\n"
    except InputError as error:
        raise InputError(f"item {place}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"item {place}: it cannot be written as JSON: it holds {what_json_lacks(error)}") from error


@dataclass(frozen=True)
class Output:
    """Where rows are landed: at a path of the author's or, without one, in XCom when they fit.

    ``folder`` is for temporary files; ``origin`` names the task and its run. ``part`` names this task's part of a
    dataset, where the path is one; ``is_all``: it is the only part.
    """

    arguments: OutputArguments
    paths: Paths
    folder: Path
    origin: Origin
    part: str
    is_all: bool

    @classmethod
    def of(cls, arguments: OutputArguments, access: ServiceAccess, folder: Path, task: TaskIdentity) -> Self:
        """Return the output of a task; :meth:`check` comes before anything is sent.

        The same task, or the same part of a dataset, writes the same part in every run, so that a later run replaces
        what it wrote.
        """
        if isinstance(task.part, str):
            part, is_all = task.part, False
        else:
            part = f"{max(task.part, 0):05d}-{sha256(to_json([task.dag_id, task.task_id])).hexdigest()[:12]}"
            is_all = task.part < 0
        writer = f"{task.dag_id}.{task.task_id}"
        origin = Origin(task=task.digest, run=f"{task.dag_id} {task.run_id}", writer=writer)
        return cls(arguments, Paths.of(access), folder, origin, part, is_all)

    @property
    def path(self) -> str | None:
        """The author's path; None: the rows go into XCom."""
        return self.arguments.output_path

    @property
    def keeps_media(self) -> bool:
        """Whether there is a place for pictures and sound in responses."""
        return self.arguments.media_path is not None or self.path is not None

    @property
    def landing_path(self) -> str:
        """The file that the rows will be written to."""
        return self._target().output

    def check(self) -> None:
        """Refuse, before anything is sent, a path that cannot be written or holds the rows of another task.

        :raises ConfigurationError: names the path and says what to do.
        :raises TransportError: the place could not be reached just now.
        """
        if self.path is None:
            return
        media = self.arguments.media_path
        if media is not None and f"{media}/".startswith(f"{self.landing_path}/"):
            raise ConfigurationError("media_path: a folder is needed, and this is the file of output_path")
        try:
            if is_local(self.path) and not self.path.endswith("/"):
                _check_replaceable(local_path(self.path))
            check_target(self._files(), self._target(), self.origin)
        except GeminiBatchError:
            raise
        except (OSError, ValueError) as error:
            folder = self.landing_path.rpartition("/")[0]
            raise path_error(f"output_path: nothing can be written to {folder}", error) from error

    def holds(self, job_name: str) -> bool | None:
        """Return whether the existing output was landed from a job; None without a path."""
        if self.path is None:
            return None
        manifest = self._manifest()
        return manifest is not None and job_name in manifest.origin.job_names

    def existing_manifest(self, job_names: Sequence[str]) -> Manifest | None:
        """Return the manifest of the output that an earlier try landed from exactly these jobs; None without one."""
        manifest = self._manifest()
        if manifest is None or manifest.origin.task != self.origin.task:
            return None
        return manifest if set(manifest.origin.job_names) == set(job_names) else None

    def whole(self, origin: Origin, carried: Iterator[bytes]) -> Manifest | None:
        """Return the manifest of an output that holds all rows of this input, whichever run landed it; else None.

        :param origin: of what would be landed.
        :param carried: the carried columns of each row, which are given to them where they had others.
        """
        manifest = self._manifest()
        if manifest is None:
            return None
        # The manifest's own path may be one that the dataset was copied from.
        if not is_undamaged(self._files(), self.landing_path, manifest.rows):
            log.warning("%s is gone or has lost its end, whatever its manifest says.", self.landing_path)
            return None
        found, is_typed = manifest.origin, is_parquet(self.landing_path)
        holds_all = found.content_hash == origin.content_hash
        if holds_all and (found.carried_types == origin.carried_types or not is_typed):
            return manifest
        if not holds_all and found.fingerprint != origin.fingerprint:
            return None
        return with_carried(
            self._files(), self._target(), manifest, origin, carried, response=self.arguments.keep_response
        )

    def is_of_this_task(self, fingerprint: str) -> bool:
        """Return whether an earlier try has landed this very input here."""
        manifest = self._manifest()
        found = manifest and (manifest.origin.task, manifest.origin.fingerprint)
        return found == (self.origin.task, fingerprint)

    def mark_whole(self) -> None:
        """Write what marks a dataset as whole, which an earlier try may have died before."""
        if self.path is not None:
            mark_whole(self._files(), self._target())

    def _manifest(self) -> Manifest | None:
        return None if self.path is None else read_manifest(self._files(), self._target())

    def _target(self) -> Target:
        return target_of(self.path or "", part=self.part, is_all=self.is_all)

    def _files(self) -> Files:
        return self.paths.files_of(self.path or "", self.arguments.output_conn_id)

    def write(
        self, sources: Sequence[ResponseSource], landing: LandingSpec, origin: Origin
    ) -> tuple[LandingSummary, list[dict[str, Any]] | None]:
        """Land the responses; the rows themselves come back only where there is no path and they fit into XCom."""
        landing = replace(landing, media=self._media())
        rows, aside = None, None
        if self.path is None:
            summary, rows = self._for_xcom(sources, landing)
        else:
            summary, manifest = deliver(self._target(), self._files(), sources, landing, origin, workdir=self.folder)
            aside = manifest.aside
        _log_oddities(summary, aside)
        return summary, rows

    def _media(self) -> MediaFolder | None:
        """Return the folder for media; in ``media_path``, which others may use, file names carry this task's mark."""
        if (path := self.arguments.media_path) is not None:
            files = self.paths.files_of(path, self.arguments.output_conn_id)
            return MediaFolder(path, files, mark=self.origin.task[:_MARK_LENGTH])
        if self.path is None:
            return None
        return MediaFolder(self._target().media, self._files())

    def _for_xcom(
        self, sources: Sequence[ResponseSource], landing: LandingSpec
    ) -> tuple[LandingSummary, list[dict[str, Any]] | None]:
        small = self.folder / "responses.jsonl"
        with small.open("wb") as handle:
            sink = JsonlSink(handle)
            summary = land(sources, sink, landing, self.folder)
            sink.close()
        if small.stat().st_size > self.arguments.max_xcom_bytes:
            return summary, None
        with small.open("rb") as lines:
            return summary, [storable(from_json(line)) for line in lines]


def storable(value: Any) -> Any:
    """Return a row with U+FFFD in place of U+0000, which JSON columns of PostgreSQL refuse."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {storable(name): storable(inner) for name, inner in value.items()}
    return [storable(inner) for inner in value] if isinstance(value, list) else value


def _log_oddities(summary: LandingSummary, aside: str | None) -> None:
    """Warn about rows that did not fail but have something odd, and about responses that no row takes."""
    if summary.warnings:
        names = ", ".join(shown(name) for name in summary.warned)
        more = ", ..." if summary.warnings > len(summary.warned) else ""
        log.warning("Rows with a 'warning' (%d): %s%s", summary.warnings, names, more)
    if summary.by_position:
        log.warning(
            "%d rows have no name but the position of their response, which is not the order of the input. Give "
            "key_field, or a column 'key', 'custom_id' or 'id' in the input.",
            summary.by_position,
        )
    if summary.extra or summary.duplicate:
        log.warning(
            "Responses that belong to no row (%d), or to one that has another (%d), are %s.",
            summary.extra,
            summary.duplicate,
            f"in {aside}" if aside else "left out",
        )
    if summary.unread and aside:
        log.warning("Responses without the embedding that was asked for (%d) are in %s.", summary.unread, aside)


class NullSink:
    """A sink for rows that are only counted."""

    def write(self, line: bytes) -> None:
        """Drop a row."""

    def close(self) -> None:
        """Do nothing."""
