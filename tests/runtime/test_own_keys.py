"""Keys of a source that was sent as it lies belong to its author, also where they look like keys of ours."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.models import JobKind
from airflow_provider_gemini_batch.batch.tag import Tag, tag_of
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.staging.job_service import ClientJobService, JobSettings

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

MODEL = "gemini-2.5-flash"
KEYS = ["r1-a", "r2-a", "r7"]


def test_keys_of_a_file_that_lay_there_come_back_as_they_were(emulator: Emulator) -> None:
    lines = [json.dumps({"key": key, "request": {"contents": [{"parts": [{"text": "One."}]}]}}) for key in KEYS]
    tag = Tag("abcdefghij", 0, 0, 0, 0, "0123456789ab")
    with GeminiBatchHook() as hook:
        name = hook.upload_file(io.BytesIO("\n".join(lines).encode())).name
        settings = JobSettings(model=MODEL, kind=JobKind.GENERATION, source={"file_name": name})
        service = ClientJobService(hook.client, settings, supply=None)
        job = service.create(service.prepare(tag, None, reuse=False), tag)
        emulator.control.advance(60)
        assert tag_of(job) == tag
        assert [found.name for found in service.find(tag.identity)] == [job.name]
        assert [row["key"] for row in hook.iter_results(job.name)] == KEYS
