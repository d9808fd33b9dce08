"""Vertex AI's batchPredictionJobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.emulator.wire import ApiError

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_gemini_batch.emulator.call import Call


def authorize(call: Call) -> str:
    raise ApiError(501, "Not yet.")


async def create(call: Call) -> Response:
    raise ApiError(501, "Not yet.")


get = list_ = cancel = delete = create
