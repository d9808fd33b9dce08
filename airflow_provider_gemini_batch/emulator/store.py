"""What survives a restart: one SQLite table of JSON records, and a folder of row files beside it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any


class Store:
    """Records by kind and id; callers hold the world's lock, so there is one writer.

    :param path: SQLite file, None for a store that ends with the process.
    """

    def __init__(self, path: Path | None) -> None:
        if path is None:
            self.folder = Path(tempfile.mkdtemp(prefix="gemini-batch-emulator-"))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.folder = path.with_name(path.name + ".files")
            self.folder.mkdir(mode=0o700, exist_ok=True)
            # SQLite gives its journal files the mode of the database.
            os.close(_open_private(str(path), os.O_CREAT | os.O_RDWR))
            path.chmod(0o600)
        self._db = sqlite3.connect(str(path) if path else ":memory:", check_same_thread=False, isolation_level=None)
        #: Close the database and remove a temporary folder; by itself for an emulator that never served.
        self.close = weakref.finalize(self, _close, self._db, None if path else self.folder)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS records (kind TEXT, id TEXT, doc TEXT, PRIMARY KEY (kind, id))")

    def save(self, kind: str, name: str, document: Any) -> None:
        """Write one record at once."""
        self._db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (kind, name, json.dumps(document)))

    def delete(self, kind: str, name: str) -> None:
        """Forget one record; nothing happens when it is not there."""
        self._db.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, name))

    def load(self, kind: str) -> dict[str, Any]:
        """Return all records of a kind by id."""
        rows = self._db.execute("SELECT id, doc FROM records WHERE kind = ?", (kind,))
        return {name: json.loads(doc) for name, doc in rows}

    def path(self, name: str) -> Path:
        """Return where the row file of that name lives."""
        return self.folder / name

    def open(self, name: str, mode: str) -> IO[bytes]:
        """Open a row file to write it; what rows hold is for this user's eyes alone."""
        return open(self.folder / name, mode, buffering=1 << 20, opener=_open_private)

    def wipe(self) -> None:
        """Forget every record and row file."""
        self._db.execute("DELETE FROM records")
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)


def _close(db: sqlite3.Connection, folder: Path | None) -> None:
    db.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
