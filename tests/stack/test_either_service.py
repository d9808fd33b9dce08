"""One Dag file in a real Airflow, run with an API key and on Vertex AI: the same rows, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow

pytestmark = pytest.mark.stack
FILES = {"describe": "cities.jsonl", "embed": "vectors.jsonl"}


def test_one_dag_serves_both_services(
    local_airflow: LocalAirflow, emulator: Emulator, storage: str, tmp_path: Path
) -> None:
    emulator.control.faults(shuffle=True)
    found: dict[str, list[bytes]] = {}
    for connection in ("gemini_batch_default", "gemini_batch_vertex"):
        folder = tmp_path / connection
        run = local_airflow.trigger("vertex_or_gemini", {"connection": connection, "folder": str(folder)})
        local_airflow.expect_run("vertex_or_gemini", run)
        found[connection] = [(folder / name).read_bytes() for name in FILES.values()]
        for task, name in FILES.items():
            assert local_airflow.xcom("vertex_or_gemini", run, task)["output"] == str(folder / name)
    assert found["gemini_batch_default"] == found["gemini_batch_vertex"]
    assert [content.count(b'"status":"ok"') for content in found["gemini_batch_vertex"]] == [6, 6]
    services = sorted(job["service"] for job in emulator.control.books()["jobs"])
    assert services == ["gemini", "gemini", "vertex", "vertex"]
    with BatchClient.for_vertex("p", credentials=object(), storage_endpoint=storage) as client:
        left = client.storage.filesystem.find("my-bucket/staging")
    assert left == []
