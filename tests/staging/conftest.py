"""A client of the emulator whose pauses pass on the emulator's clock, as the tests of the client have it."""

from api.conftest import client, clock, emulator, listener

__all__ = ["client", "clock", "emulator", "listener"]
