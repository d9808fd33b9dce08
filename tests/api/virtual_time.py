"""A clock that moves only when somebody pauses, and an emulator's with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator


class VirtualTime:
    """A clock that moves only when somebody pauses, and the emulator's with it."""

    def __init__(self, emulator: Emulator | None = None) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self._emulator = emulator

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        if self._emulator is not None:
            self._emulator.control.advance(seconds)
