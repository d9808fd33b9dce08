"""The files of one emulator: uploads under way, stored files with their life, and their bytes on disk."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.media import HEAD_BYTES, Sample

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator.world import World

FILE_LIFE = 48 * 3600.0
FAILED_ERROR = {"code": 3, "message": "The file could not be processed."}


@dataclass
class StoredFile:
    """An uploaded file whose content lies in the data folder under ``path``."""

    id: str
    space: str
    number: int
    path: str
    size: int
    sha256: str
    mime: str
    display_name: str
    created: float
    generated: bool = False
    #: When its processing is over, on the emulator's clock.
    ready: float = 0.0
    #: How many times its record can still be read before processing is over.
    looks: int = 0
    #: What is wrong with it once it has been processed: it ends FAILED.
    error: dict[str, Any] | None = None

    def state(self, now: float) -> str:
        """Return ``PROCESSING``, ``ACTIVE`` or ``FAILED``."""
        if now < self.ready or self.looks > 0:
            return "PROCESSING"
        return "FAILED" if self.error else "ACTIVE"


@dataclass
class UploadSession:
    """A resumable upload under way; ``received`` is what the service has kept."""

    id: str
    space: str
    path: str
    file_id: str
    mime: str
    display_name: str
    total: int | None
    version: str
    received: int = 0
    status: str = "active"


class FileStore:
    """The files and upload sessions of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.files = {name: StoredFile(**doc) for name, doc in world.store.load("file").items()}
        self.sessions = {name: UploadSession(**doc) for name, doc in world.store.load("session").items()}
        self._hashes: dict[str, Any] = {}

    def forget(self) -> None:
        """Forget all files and sessions."""
        self.files.clear()
        self.sessions.clear()
        self._hashes.clear()

    def find(self, space: str, name: str) -> StoredFile | None:
        """Return a project's file by ``files/id``, None when unknown, expired or another's."""
        with self.world.lock:
            file = self.files.get(name.removeprefix("files/"))
            if file is None or file.space != space:
                return None
            if self.world.now() > file.created + FILE_LIFE:
                self.remove(file)
                return None
            return file

    def live(self) -> list[StoredFile]:
        """Return the files that have not expired, newest first."""
        with self.world.lock:
            now = self.world.now()
            alive = [file for file in self.files.values() if now <= file.created + FILE_LIFE]
            return sorted(alive, key=lambda file: -file.number)

    def unusable(self, space: str) -> frozenset[str]:
        """Return the ids of a project's files that are not ACTIVE."""
        with self.world.lock:
            now = self.world.now()
            return frozenset(
                file.id for file in self.files.values() if file.space == space and file.state(now) != "ACTIVE"
            )

    def remove(self, file: StoredFile) -> None:
        """Delete a file's record. Its bytes stay while a job may still read them: the folder is wiped by a reset."""
        self.files.pop(file.id, None)
        self.world.store.delete("file", file.id)
        in_use = any(
            doc["source"] == file.path and doc["ended"] is None and not doc["deleted"]
            for doc in self.world.store.load("job").values()
        )
        if not in_use:
            self.world.store.path(file.path).unlink(missing_ok=True)

    def save_session(self, session: UploadSession) -> None:
        """Write an upload session down."""
        self.world.store.save("session", session.id, asdict(session))

    def hasher(self, session: UploadSession) -> Any:
        """Return the running hash of a session, computed again after a restart."""
        running = self._hashes.get(session.id)
        if running is None:
            running = self._hashes[session.id] = hashlib.sha256()
            with self.world.store.path(session.path).open("rb") as content:
                _hash_up_to(content, session.received, running)
        return running

    def drop_hasher(self, session: UploadSession) -> None:
        """Forget the running hash, for bytes that are not kept after all."""
        self._hashes.pop(session.id, None)

    def finish(self, session: UploadSession) -> StoredFile:
        """Turn a session whose bytes are all there into a file."""
        file = StoredFile(
            id=session.file_id,
            space=session.space,
            number=self.world.next_number(),
            path=session.path,
            size=session.received,
            sha256=self.hasher(session).hexdigest(),
            mime=session.mime,
            display_name=session.display_name,
            created=self.world.now(),
        )
        with self.world.lock:
            self._give_life(file)
            self.files[file.id] = file
            self.world.store.save("file", file.id, asdict(file))
            session.status = "final"
            self.save_session(session)
            self._hashes.pop(session.id, None)
        return file

    def _give_life(self, file: StoredFile) -> None:
        """Let the faults say how long the file is processed and how that ends."""
        faults = self.world.faults
        processing = faults.peek("file_processing")
        if processing is not None:
            life = processing if isinstance(processing, dict) else {"seconds": processing}
            if file.size >= int(life.get("above") or 0):
                faults.take("file_processing")
                file.ready = file.created + float(life.get("seconds") or 0)
                file.looks = int(life.get("looks") or 0)
        failed = faults.take("file_failed")
        if failed:
            said = failed if isinstance(failed, dict) else {"message": failed} if isinstance(failed, str) else {}
            file.error = {**FAILED_ERROR, **said}

    def sample(self, uri: str) -> Sample | None:
        """Return size and first bytes of the file that a URI of the Files API names, None for any other URI."""
        file = self.files.get(uri.rpartition("files/")[2])
        if file is None:
            return None
        try:
            with self.world.store.path(file.path).open("rb") as content:
                return Sample(file.size, content.read(HEAD_BYTES))
        except OSError:
            return None

    def look(self, file: StoredFile) -> None:
        """Count one reading of a file's record: processing may be over after so many of them."""
        with self.world.lock:
            if file.looks > 0:
                file.looks -= 1
                self.world.store.save("file", file.id, asdict(file))


def _hash_up_to(content: Any, size: int, running: Any) -> None:
    while size > 0:
        chunk = content.read(min(size, 1 << 20))
        if not chunk:
            return
        running.update(chunk)
        size -= len(chunk)
