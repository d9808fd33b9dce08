"""Models and keys: which exist, and where Vertex serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.emulator.models import is_known
from emulator.calls import Gemini, Vertex, vertex_row

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = [
    "gemini-2.5-flash",
    "gemini-2.5-pro",
    "gemini-2.5-flash-lite",
    "gemini-2.5-flash-image",
    "gemini-2.5-flash-preview-09-2025",
    "gemini-2.5-pro-preview-tts",
    "gemini-2.0-flash",
    "gemini-2.0-flash-001",
    "gemini-2.0-flash-lite-001",
    "gemini-3-pro-preview",
    "gemini-3-pro-image",
    "gemini-3.1-flash-image",
    "gemini-3.1-pro-preview",
    "gemini-3.1-pro-preview-customtools",
    "gemini-3.5-flash",
    "gemini-3.6-flash",
    "gemini-3.7-flash",
    "gemini-3.8-flash",
    "gemini-3.8-flash-lite-tts",
    "gemini-4-argon",
    "gemini-4-neon",
    "gemini-flash-latest",
    "gemini-nano-banana-2.1",
    "gemini-embedding-001",
    "gemini-embedding-2",
    "text-embedding-005",
    "text-multilingual-embedding-002",
    "gemini-1.5-flash-8b",
]


@pytest.mark.parametrize("name", KNOWN)
def test_models_of_the_service_are_known(name: str) -> None:
    assert is_known(name)


@pytest.mark.parametrize(
    "name",
    [
        "gemini-9.9-flush",
        "gemini-2.5-flush",
        "gemini-2.5",
        "gemini-25-flash",
        "gemini-2.5-flash-",
        "gemini-2.5-flashlite",
        "Gemini-2.5-flash",
        "gemini-2.5-flash ",
        "gemini-embedding-3",
        "text-embedding-5",
        "gpt-5",
        "",
    ],
)
def test_models_that_no_service_has_are_not(name: str) -> None:
    assert not is_known(name)


def test_an_unknown_model_is_refused_by_both_services(gemini: Gemini, vertex: Vertex) -> None:
    answer = gemini.http.post("/v1beta/models/gemini-9.9-flush:batchGenerateContent", json={})
    assert answer.status_code == 404
    assert "models/gemini-9.9-flush is not found for API version v1beta" in answer.json()["error"]["message"]
    body = vertex.body(model="publishers/google/models/gemini-9.9-flush")
    refused = vertex.http.post("/v1/projects/demo-project/locations/us-central1/batchPredictionJobs", json=body)
    assert refused.json()["error"]["message"] == "The PublisherModel gemini-9.9-flush does not exist."


def test_models_and_keys_can_be_given() -> None:
    with Emulator(models=["gemini-9.9-*"], api_keys=["right:key"]) as emulator:
        with Gemini(emulator, "right:key") as gemini:
            refused = gemini.http.post("/v1beta/models/gemini-9.9-flush:batchGenerateContent", json={})
            assert refused.status_code == 400
            assert gemini.create()
        with Gemini(emulator, "right:other") as stranger:
            wrong = stranger.http.get("/v1beta/batches").json()["error"]
            assert wrong["details"][0]["reason"] == "API_KEY_INVALID"


def test_a_state_file_holds_no_key_and_is_nobody_elses_business(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state.sqlite"
    with Emulator(state=state) as emulator, Gemini(emulator, "AIzaVerySecretKey") as gemini:
        gemini.create()
        gemini.create_from_file(3)
        gemini.start_upload(5)
        emulator.control.put_table("p.d.t", {"a": "STRING"}, [{"a": "one"}])
        emulator.control.advance(60)
        files = [path for path in state.parent.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} >= {".sqlite", ".sqlite-wal"}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert (state.parent / "state.sqlite.files").stat().st_mode & 0o777 == 0o700
        assert not any(b"AIzaVerySecretKey" in path.read_bytes() for path in files)


def _place(location: str) -> str:
    return f"/v1/projects/demo-project/locations/{location}/batchPredictionJobs"


TABLES: dict[str, Any] = {
    "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.t"}},
    "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "bq://p.d.o"}},
}


@pytest.mark.parametrize(
    ("model", "location", "more", "status"),
    [
        ("gemini-embedding-001", "us-central1", {}, 200),
        ("gemini-embedding-001", "global", {}, 400),
        ("gemini-embedding-001", "asia-east1", {}, 400),
        ("gemini-embedding-001", "us", {}, 400),
        ("gemini-embedding-2", "global", {}, 200),
        ("gemini-embedding-2", "eu", {}, 200),
        ("gemini-embedding-2", "us-central1", {}, 400),
        ("gemini-embedding-001", "us-central1", TABLES, 400),
        ("gemini-embedding-2", "us", {"outputConfig": TABLES["outputConfig"]}, 400),
        ("text-embedding-005", "us-central1", TABLES, 200),
        ("gemini-2.5-flash", "global", {}, 200),
        ("gemini-2.5-flash", "global", TABLES, 400),
        ("gemini-2.5-flash", "global", {"outputConfig": TABLES["outputConfig"]}, 400),
        ("gemini-2.5-flash", "us-central1", TABLES, 200),
    ],
)
def test_vertex_serves_a_model_where_its_pages_say(
    vertex: Vertex, model: str, location: str, more: dict[str, Any], status: int
) -> None:
    body = {**vertex.body(model=f"publishers/google/models/{model}"), **more}
    assert vertex.http.post(_place(location), json=body).status_code == status


@pytest.mark.parametrize("name", ["googleSearch", "google_search", "urlContext", "codeExecution"])
def test_a_tool_without_members_fails_the_import(stored: Vertex, name: str) -> None:
    row = vertex_row(key="a")
    row["request"]["tools"] = [{name: {}}]
    stored.put("tool.jsonl", row)
    job = stored.run(uri="gs://in/tool.jsonl")
    assert job["error"]["code"] == 3
    assert f"Cannot store struct 'request.tools.{name}' with no fields" in job["error"]["message"]
    row["request"]["tools"] = [{"googleSearch": {"excludeDomains": ["example.com"]}}]
    stored.put("tool.jsonl", row)
    assert stored.run(uri="gs://in/tool.jsonl")["state"] == "JOB_STATE_SUCCEEDED"
