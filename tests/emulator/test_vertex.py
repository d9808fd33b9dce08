"""The Vertex dialect: refusals, filters, real objects on a Cloud Storage emulator, the traps of the import."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.emulator.filters import compile_filter
from airflow_provider_gemini_batch.emulator.wire import ApiError
from emulator.calls import PARENT, PUBLISHER_MODEL, Vertex, vertex_row


def test_a_call_needs_a_token_that_is_known_and_not_expired(vertex: Vertex) -> None:
    assert httpx.get(vertex.emulator.url + PARENT).json()["error"]["status"] == "UNAUTHENTICATED"
    assert vertex.http.get(PARENT).json() == {}
    vertex.emulator.control.advance(3601)
    assert vertex.http.get(PARENT).status_code == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"displayName": ""}, 400),
        ({"bogus": 1}, 400),
        ({"model": "gemini-2.5-flash"}, 400),
        ({"model": "publishers/google/models/gemini-nope"}, 404),
        ({"model": "publishers/anthropic/models/claude"}, 400),
        ({"model": "projects/p/locations/europe-west1/models/1"}, 400),
        ({"labels": {"Upper": "x"}}, 400),
        ({"inputConfig": {"instancesFormat": "jsonl", "bigquerySource": {"inputUri": "bq://a.b.c"}}}, 400),
        ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["s3://x/y"]}}}, 400),
        ({"outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "a.b"}}}, 400),
    ],
)
def test_a_bad_body_creates_nothing(vertex: Vertex, change: dict[str, Any], status: int) -> None:
    assert vertex.http.post(PARENT, json={**vertex.body(), **change}).status_code == status
    assert vertex.emulator.control.books()["created"] == 0


def test_project_id_and_number_are_the_same_place_and_a_location_is_another(vertex: Vertex) -> None:
    name = vertex.http.post(PARENT, json=vertex.body()).json()["name"]
    assert name.startswith("projects/123456789012/locations/us-central1/batchPredictionJobs/")
    job_id = name.rsplit("/", 1)[1]
    assert len(job_id) == 19
    assert vertex.http.get(f"{PARENT}/{job_id}").json()["name"] == name
    assert vertex.http.get(f"/v1beta1/{name}").status_code == 200
    assert vertex.http.get(f"/v1/{name}".replace("us-central1", "europe-west1")).status_code == 404
    denied = vertex.http.get("/v1/projects/denied-x/locations/us-central1/batchPredictionJobs")
    assert denied.status_code == 403


def test_jobs_end_with_counts_for_tables_and_without_for_unread_objects(vertex: Vertex) -> None:
    vertex.emulator.control.faults(bigquery_rows=10, row_error_every=5)
    assert "completionStats" not in vertex.run()
    ends = {
        "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.t"}},
        "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "bq://p.d"}},
    }
    job = vertex.run(**ends)
    assert job["completionStats"] == {"successfulCount": "8", "failedCount": "2"}
    assert job["outputInfo"]["bigqueryOutputDataset"] == "bq://p.d"
    assert job["outputInfo"]["bigqueryOutputTable"].startswith("predictions_")


def test_ended_jobs_refuse_a_cancel_and_active_ones_a_delete(vertex: Vertex) -> None:
    name = vertex.http.post(PARENT, json=vertex.body()).json()["name"]
    assert vertex.http.delete(f"/v1/{name}").json()["error"]["status"] == "FAILED_PRECONDITION"
    vertex.emulator.control.advance(60)
    assert vertex.http.post(f"/v1/{name}:cancel").json()["error"]["status"] == "FAILED_PRECONDITION"
    assert vertex.http.delete(f"/v1/{name}").json()["done"] is True
    assert vertex.http.get(f"/v1/{name}").status_code == 404


@pytest.mark.parametrize("state", ["PAUSED", "UPDATING", "QUEUED"])
def test_the_control_shows_rare_states(vertex: Vertex, state: str) -> None:
    name = vertex.http.post(PARENT, json=vertex.body()).json()["name"]
    vertex.emulator.control.set_job(name, state=state)
    assert vertex.http.get(f"/v1/{name}").json()["state"] == f"JOB_STATE_{state}"


def test_a_list_takes_filter_and_read_mask(vertex: Vertex) -> None:
    wanted = vertex.http.post(PARENT, json=vertex.body(labels={"team": "a"})).json()
    vertex.http.post(PARENT, json=vertex.body(labels={"team": "b"}))
    listed = vertex.http.get(PARENT, params={"filter": "labels.team=a", "readMask": "name,display_name"}).json()
    assert listed["batchPredictionJobs"] == [{"name": wanted["name"], "displayName": "job"}]
    assert vertex.http.get(PARENT, params={"filter": "bogus=1"}).status_code == 400
    assert vertex.http.get(PARENT, params={"readMask": "bogus"}).status_code == 400


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ('displayName="nightly-1"', True),
        ('display_name:"nightly*"', True),
        ('NOT display_name="nightly-1"', False),
        ("state!=JOB_STATE_FAILED AND labels.team:*", True),
        ('state="JOB_STATE_FAILED" OR labels.team="a"', True),
        ('state="JOB_STATE_RUNNING" labels.team="b"', False),
        ('(state="X" OR state="JOB_STATE_RUNNING") AND createTime>="2026-01-01T00:00:00Z"', True),
        ('createTime<"2026-01-01T00:00:00.5Z"', False),
        ("labels.missing:*", False),
        ('modelDisplayName="gemini-2.5-flash"', True),
    ],
)
def test_filters_choose_as_they_say(text: str, passes: bool) -> None:  # noqa: FBT001 - a column of a table
    job = {
        "displayName": "nightly-1",
        "state": "JOB_STATE_RUNNING",
        "labels": {"team": "a"},
        "model": PUBLISHER_MODEL,
        "createTime": "2026-02-01T00:00:00.123456Z",
    }
    assert compile_filter(text)(job) is passes


@pytest.mark.parametrize(
    "text", ["state", "state=", "state<X", "a=b", "labels=x", "(state=A", 'createTime>"soon"', '"x"=y', "state=A)"]
)
def test_filters_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ApiError):
        compile_filter(text)({"createTime": "2026-02-01T00:00:00Z"})


def test_objects_are_read_by_wildcard_and_answered_in_another_order(stored: Vertex) -> None:
    stored.put("many/a.jsonl", *[vertex_row(f"Row {n}.", custom_id=f"r{n}") for n in range(60)])
    stored.put("many/b.jsonl", vertex_row("Last.", custom_id="0012"))
    job = stored.run(uri="gs://in/many/*.jsonl")
    assert job["completionStats"] == {"successfulCount": "61"}
    rows = stored.predictions(job)
    assert sorted(str(row["custom_id"]) for row in rows) == sorted([f"r{n}" for n in range(60)] + ["12"])
    assert [row["custom_id"] for row in rows] != [f"r{n}" for n in range(60)] + [12]
    assert all(row["status"] == "" and row["response"]["candidates"] for row in rows)
    assert rows[0]["request"]["contents"][0]["parts"][0]["fileData"] is None


def test_rows_without_a_role_fail_and_the_others_do_not(stored: Vertex) -> None:
    stored.put(
        "role.jsonl", vertex_row(key="good"), {"request": {"contents": [{"parts": [{"text": "x"}]}]}, "key": "bad"}
    )
    job = stored.run(uri="gs://in/role.jsonl")
    assert job["completionStats"] == {"successfulCount": "1", "failedCount": "1"}
    rows = {row["key"]: row for row in stored.predictions(job)}
    assert rows["bad"]["response"] == {}
    assert rows["bad"]["status"].startswith('Bad Request: {"error": {"code": 400')


@pytest.mark.parametrize(
    "row",
    [
        "{broken",
        "[]",
        {"contents": []},
        {**vertex_row(), "a name": 1},
        {"request": {"contents": [{"role": "user", "parts": [{"text": None}]}]}},
        {"request": {**vertex_row()["request"], "tools": [{"google_search": {}}]}},
        {"request": {**vertex_row()["request"], "generationConfig": {"responseJsonSchema": {"$defs": {"x": 1}}}}},
        vertex_row(other=["a list"]),
    ],
)
def test_one_trap_in_the_import_fails_the_whole_job(stored: Vertex, row: Any) -> None:
    stored.put("trap.jsonl", vertex_row(other="a scalar"), row)
    job = stored.run(uri="gs://in/trap.jsonl")
    assert job["state"] == "JOB_STATE_FAILED"
    assert job["error"]["code"] == 3
    assert job["error"]["message"].startswith("Failed to import data")


def test_missing_buckets_and_objects_fail_the_job_later(stored: Vertex) -> None:
    assert stored.run(uri="gs://nowhere/x")["error"]["code"] == 9
    assert stored.run(uri="gs://in/none.jsonl")["error"]["code"] == 3
    assert stored.run(uri="gs://in/none*")["error"]["code"] == 3


def test_embeddings_come_in_both_shapes(stored: Vertex) -> None:
    config = {"output_dimensionality": 4, "task_type": "RETRIEVAL_DOCUMENT"}
    stored.put(
        "e.jsonl",
        {"key": "id_1", "request": {"content": {"parts": [{"text": "alpha"}]}, "embed_content_config": config}},
    )
    (row,) = stored.predictions(
        stored.run(uri="gs://in/e.jsonl", model="publishers/google/models/gemini-embedding-001")
    )
    assert row["key"] == "id_1"
    assert len(row["response"]["embedding"]["values"]) == 4
    assert row["response"]["tokenCount"] == "1"
    stored.put("l.jsonl", {"content": "alpha", "task_type": "RETRIEVAL_DOCUMENT", "outputDimensionality": 4})
    (legacy,) = stored.predictions(
        stored.run(uri="gs://in/l.jsonl", model="publishers/google/models/text-embedding-005")
    )
    assert legacy["instance"]["content"] == "alpha"
    assert legacy["predictions"][0]["embeddings"]["values"] == row["response"]["embedding"]["values"]


def test_the_output_of_a_cancelled_job_has_a_line_for_every_row(stored: Vertex) -> None:
    stored.put("c.jsonl", *[vertex_row(key=f"k{n}") for n in range(10)])
    stored.emulator.control.speed(0)
    stored.emulator.control.faults(partial_rows=0.4)
    name = stored.http.post(PARENT, json=stored.body(uri="gs://in/c.jsonl")).json()["name"]
    stored.emulator.control.advance(2)
    stored.http.post(f"/v1/{name}:cancel")
    assert stored.http.get(f"/v1/{name}").json()["state"] == "JOB_STATE_CANCELLING"
    stored.emulator.control.advance(1)
    job = stored.http.get(f"/v1/{name}").json()
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_CANCELLED", 1)
    rows = stored.predictions(job)
    assert sorted(row["key"] for row in rows) == [f"k{n}" for n in range(10)]
    assert sum("response" in row for row in rows) == 4
    assert all(set(row) == {"request", "key"} for row in rows if "response" not in row)


def test_counts_of_a_running_job_move_when_jobs_take_long(storage_url: str) -> None:
    with Emulator(storage_endpoint=storage_url, job_seconds=100) as emulator:
        client = Vertex(emulator, storage_url)
        with client.http:
            client.put("long.jsonl", *[vertex_row(key=f"k{n}") for n in range(20)])
            emulator.control.speed(0)
            name = client.http.post(PARENT, json=client.body(uri="gs://in/long.jsonl")).json()["name"]
            emulator.control.advance(11)
            emulator.control.advance(44)
            job = client.http.get(f"/v1/{name}").json()
            assert job["completionStats"] == {"successfulCount": "10", "incompleteCount": "10"}
            emulator.control.advance(46)
            assert client.http.get(f"/v1/{name}").json()["state"] == "JOB_STATE_SUCCEEDED"
