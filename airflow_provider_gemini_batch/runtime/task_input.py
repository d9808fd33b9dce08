"""The rows of one task: read once, when its jobs are created, and known to later processes by a note and a record.

The note is a few numbers and names, and travels with the notes on the jobs. The input record holds keys and carried
columns (see :mod:`~..rows.record`). Only rows that must be sent again are read from the input again, on any host, and
are checked to be the same. An error names the host that read the input, and says what to do.
"""

from __future__ import annotations

import io
import logging
import socket
import tempfile
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    InputError,
    InputUnavailable,
)
from airflow_provider_gemini_batch.rows.layout import Layout, ShardFile
from airflow_provider_gemini_batch.rows.record import InputRecord, Kept, RecordWriter
from airflow_provider_gemini_batch.rows.sending import ShardReader
from airflow_provider_gemini_batch.rows.stage import Staged, stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from airflow_provider_gemini_batch.rows.input_spec import InputSpec, JobLimits
    from airflow_provider_gemini_batch.runtime.outputs import SavedRows
    from airflow_provider_gemini_batch.runtime.paths import Paths
    from airflow_provider_gemini_batch.runtime.state_store import TaskStateStore

log = logging.getLogger(__name__)

# The note travels with the task; an input of more files is listed anew by each process.
_MOST_FILES_NOTED = 1000


@dataclass(frozen=True)
class RecordPlaces:
    """Where the input record of a task may be kept: the task state store, a file at ``path``, or neither."""

    paths: Paths
    store: TaskStateStore | None = None
    path: str | None = None
    conn_id: str | None = None

    def writer(self, *, needed: bool) -> RecordWriter:
        """Return a writer that writes the record to where it fits."""
        return RecordWriter(
            store=self.store is not None and self.store.lasting,
            file=self._open_for_writing if self.path is not None else None,
            needed=needed,
        )

    def keep(self, kept: Kept) -> dict[str, Any]:
        """Save a small record in the store, and return the note by which any record is found again."""
        if kept.text is not None and self.store is not None:
            self.store.save_record(kept.text)
            return {"name": kept.name, "in": "store"}
        if kept.in_file:
            return {"name": kept.name, "in": "file", "path": self.path, "connection": self.conn_id}
        return {"name": "", "in": "nowhere"} if kept.dropped else {}

    def find(self, note: Mapping[str, Any]) -> InputRecord | None:
        """Return the record that a note refers to; None when nothing was kept."""
        if not note or note["in"] == "nowhere":
            return None
        name = str(note["name"])
        if note["in"] == "store":
            return InputRecord(name, self._open_text)
        path, conn_id = str(note["path"]), note.get("connection")
        return InputRecord(name, lambda: self.paths.open_for_reading(path, conn_id))

    def remove(self) -> None:
        """Remove the record from wherever it may be."""
        if self.store is not None:
            self.store.drop_record()
        if self.path is not None:
            self.paths.files_of(self.path, self.conn_id).remove(self.path)

    def _open_for_writing(self) -> AbstractContextManager[BinaryIO]:
        assert self.path is not None  # noqa: S101  (the one caller has looked)
        return self.paths.files_of(self.path, self.conn_id, private=True).write_whole(self.path)

    def _open_text(self) -> BinaryIO:
        text = self.store.load_record() if self.store is not None else None
        if text is None:
            raise InputUnavailable("Airflow's task state store no longer holds what was kept of the input")
        return io.BytesIO(text.encode())


class TaskInput:
    """The rows of one task in one process."""

    def __init__(
        self,
        spec: InputSpec,
        folder: Path,
        *,
        places: RecordPlaces,
        saved_rows: SavedRows | None,
        record_needed: bool,
        remove_older: Callable[[], None] = lambda: None,
    ) -> None:
        """Read nothing yet.

        :param folder: for temporary files.
        :param saved_rows: where the rows of a function are kept; for functions only.
        :param record_needed: the author asked for something (carried columns) that only the record holds.
        :param remove_older: removes what was kept before the task was cleared.
        """
        self._list_files = spec.files
        self._spec = spec if spec.files is None else replace(spec, files=self._files)
        self._found: Sequence[str] | None = None
        self._folder = folder
        self._places = places
        self._saved_rows = saved_rows
        self._record_needed = record_needed
        self._remove_older = remove_older
        self._note: Mapping[str, Any] = {}
        self._reader: ShardReader | None = None
        self._record: InputRecord | None = None
        self.layout: Layout | None = None
        self.staged: Staged | None = None
        self.carried_types: Mapping[str, str] = {}
        #: A hash of the carried columns.
        self.carried_digest = ""
        #: Why landing lacks something that it needs; empty when it lacks nothing.
        self.lacking = ""

    @property
    def limits(self) -> JobLimits:
        """How large one job may be."""
        return self._spec.limits()

    @property
    def outdated(self) -> str:
        """Why rows are not to be sent beside those that were: their responses would be of another model; else empty."""
        made_for, now = str(self._note.get("model", self._model)), self._model
        if made_for == now:
            return ""
        return (
            f"the jobs of this task were made for {made_for}, and the model is now {now}. Clear the task to run it "
            "again with that, or give the former model."
        )

    @property
    def _model(self) -> str:
        return self._spec.model.removeprefix("models/")

    @property
    def can_be_read_again(self) -> bool:
        """Whether another process can read the rows; those of a function only if they are saved."""
        return self._saved_rows is None or self._saved_rows.lasting

    def read(self, *, again: bool) -> Staged:
        """Read and check the whole input, and keep its record.

        :param again: jobs were created from it before, so a function is not called.
        :raises ConfigurationError: rows cannot be sent, or there is no place for what must be kept.
        """
        self._note, self._found = {}, None
        with self._places.writer(needed=self._record_needed) as writer:
            staged = stage(self._readable(again=again), self._folder, writer)
        record = self._places.keep(writer.finish())
        self._use(staged.layout, staged.carried_types, record, staged, writer.carried_digest)
        return staged

    def recall(self, note: Mapping[str, Any]) -> str:
        """Use the note of an earlier process instead of reading the input, and return :attr:`lacking`.

        :raises KeyError: or TypeError or ValueError: this is not a note of ours.
        """
        if self._note == note:
            return self.lacking
        types = note["carried"]
        carried = {name: types[name] for name in self._spec.carry if name in types}
        self._use(Layout.from_plain(note), carried, note["record"], None, str(note.get("digest", "")))
        self._note, self._found = note, None
        if not self._record_needed:
            return ""
        try:
            if self._record is None:
                raise InputUnavailable("nothing was kept")
            if absent := [name for name in self._spec.carry if name not in types]:
                raise InputUnavailable(f"carry had no {', '.join(absent)} when the jobs of this task were made")
            self._record.check()
        except (GeminiBatchError, OSError) as error:
            log.info("What was kept of the input is out of reach (%s): the input is read again.", error)
            self.lacking = self._make_record_again()
        return self.lacking

    def note(self) -> dict[str, Any]:
        """Return what :meth:`recall` needs in another process."""
        return dict(self._note)

    def forget(self) -> None:
        """Forget the input, as if nothing were known of it."""
        self.layout = self.staged = self._record = self._reader = None
        self._note = {}
        self.lacking = ""

    def shard(self, index: int) -> ShardFile:
        """Return the lines of one job. Raises InputUnavailable when they cannot be read, or not as they were."""
        try:
            return self._lines().shard(index)
        except ConfigurationError as error:
            raise self._unavailable(error) from error

    def subset(self, rows: Sequence[int], path: Path) -> ShardFile:
        """Write the lines of some rows, as many as one job holds. Raises InputUnavailable as :meth:`shard` does."""
        try:
            return self._lines().subset(rows, path)
        except ConfigurationError as error:
            raise self._unavailable(error) from error

    def record(self) -> InputRecord | None:
        """Return the input record, if there is one."""
        return self._record

    def author_key(self, row: int) -> str | None:
        """Return the author's key of a row; None when the row has none, or it is not known any more."""
        if self._record is None and self._note.get("record", {}).get("in") == "nowhere":
            self._remake_for_keys("they were not kept")
        try:
            return None if self._record is None else self._record.key(row)
        except (GeminiBatchError, OSError) as error:
            self._remake_for_keys(str(error))
        return None if self._record is None else self._record.key(row)

    def close(self) -> None:
        """Close the input, if it is open."""
        if self._reader is not None:
            self._reader.close()

    def remove_kept(self) -> None:
        """Remove all that was kept for other processes."""
        if self._saved_rows is not None:
            self._saved_rows.remove()
        self._places.remove()
        self._remove_older()

    # -- inside

    def _use(
        self,
        layout: Layout,
        carried: Mapping[str, str],
        record: Mapping[str, Any],
        staged: Staged | None,
        digest: str,
    ) -> None:
        self.layout = layout
        self.staged = staged
        self.carried_types = carried
        self.carried_digest = digest
        self._record = self._places.find(record)
        self._reader = None
        self.lacking = ""
        self._note = {
            **layout.plain(),
            "carried": dict(carried),
            "record": dict(record),
            "digest": digest,
            "model": self._model,
            "host": socket.gethostname(),
            "source": self._source(),
            "tokens": staged.estimated_input_tokens if staged is not None else 0,
            "files": "".join(map(_mark, self._found or ())) if len(self._found or ()) <= _MOST_FILES_NOTED else "",
        }

    def _source(self) -> str:
        if self._saved_rows is not None:
            return f"the function's rows at {self._saved_rows.path}" if self._saved_rows.lasting else "the function"
        return self._spec.path or "the list of the task's rows"

    def _files(self) -> Sequence[str]:
        """Return the files of the input, without those that came after its jobs were planned."""
        if self._found is None:
            assert self._list_files is not None  # noqa: S101  (only then is this called)
            noted = str(self._note.get("files", ""))
            known = {noted[place : place + 8] for place in range(0, len(noted), 8)}
            self._found = [file for file in self._list_files() if not known or _mark(file) in known]
        return self._found

    def _readable(self, *, again: bool) -> InputSpec:
        return self._spec if self._saved_rows is None else self._saved_rows.spec(self._spec, again=again)

    def _lines(self) -> ShardReader:
        if self.layout is None:
            raise InputError("the input is not known any more")
        if self._reader is None:
            files = self.staged.files if self.staged is not None else {}
            self._reader = ShardReader(self._readable(again=True), self.layout, self._folder, files)
        return self._reader

    def _make_record_again(self) -> str:
        """Read the input again for its keys and columns; return why that failed, or an empty text."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        path = folder / "record"
        writer = RecordWriter(store=False, file=lambda: path.open("wb"), needed=True)
        try:
            with writer:
                staged = stage(self._readable(again=True), folder, writer)
            if self.layout is None or staged.layout != self.layout:
                raise InputUnavailable("the input has changed since its jobs were made")
        except (GeminiBatchError, OSError) as error:
            self._record = None
            return str(self._unavailable(error))
        self._record = InputRecord(writer.finish().name, lambda: path.open("rb"))
        self.carried_types, self.carried_digest = staged.carried_types, writer.carried_digest
        return ""

    def _remake_for_keys(self, why: str) -> None:
        log.warning("The keys of rows without a response are out of reach (%s): the input is read again.", why)
        lacking = self._make_record_again()
        self._note = {**self._note, "record": {}}
        if lacking:
            log.warning("Rows without a response have their number as key. %s", lacking)

    def _unavailable(self, error: Exception) -> InputUnavailable:
        there, here = str(self._note.get("host", "?")), socket.gethostname()
        where = "this host" if there == here else f"host {there}"
        source = self._note.get("source", self._source())
        return InputUnavailable(
            f"{str(error).rstrip('.')}. The input ({source}) was read on {where} when the jobs of this task were made; "
            f"this is {here}. Put it where every worker can read it (an object store or a shared disk) and as it was, "
            "or clear the task to run it again with the input as it is now."
        )


def _mark(file: str) -> str:
    """Return eight digits by which a file is known again."""
    return sha256(file.encode(errors="surrogateescape")).hexdigest()[:8]
