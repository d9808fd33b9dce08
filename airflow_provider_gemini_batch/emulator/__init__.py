"""A local server that speaks the batch APIs of Gemini and Vertex AI, for demos and tests.

It shares no code with the provider's client and takes nothing from the official SDK.
"""

from __future__ import annotations

from airflow_provider_gemini_batch.emulator.server import Emulator

__all__ = ["Emulator"]
