"""A dataset on the emulator, an object store in memory, and an Airflow for the one test that runs a whole Dag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from airflow.sdk.io import attach, store
from datasets.board import Board
from fsspec.implementations.memory import MemoryFileSystem

from stack.local_airflow import HAS_STORE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator


@pytest.fixture
def service(_airflow_database: None, gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The emulator with a fast clock, as ``gemini_batch_default`` reaches it, and an Airflow to run Dags in."""
    gemini_batch_emulator.control.speed(60)
    # Airflow 3.2 does not say whether a part has run before: it sits out what an earlier try may have sent.
    connection = gemini_batch_emulator.connection(timeout=60.0 if HAS_STORE else 0.6)
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", connection)
    return gemini_batch_emulator


@pytest.fixture
def board(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Board:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection())
    gemini_batch_emulator.control.speed(0)
    return Board(gemini_batch_emulator, tmp_path / "in", tmp_path / "out")


class _Bucket(MemoryFileSystem):  # type: ignore[misc]
    """A store of its own: only who asks Airflow for it, and not fsspec, finds it."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An object store as Airflow sees one, in memory."""
    filesystem = _Bucket()
    store._STORE_CACHE.clear()  # a store that somebody has asked for before would not take this file system
    attach("memory", fs=filesystem)
    yield filesystem
    filesystem.rm("/bucket", recursive=True)
    store._STORE_CACHE.clear()
