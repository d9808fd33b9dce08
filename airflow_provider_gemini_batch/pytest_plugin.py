"""Fixtures for users' own Dag tests: a Gemini batch emulator on loopback."""

from __future__ import annotations
