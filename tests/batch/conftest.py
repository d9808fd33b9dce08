"""Settings of the property tests in this folder."""

from __future__ import annotations

from hypothesis import settings

# The machine may be busy with something else: how long one example takes says nothing about a decision.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
