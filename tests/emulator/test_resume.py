"""A Vertex job whose input is another's output does only what that one left undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from emulator.calls import PARENT, Vertex, vertex_row

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

EMBEDDING = "publishers/google/models/gemini-embedding-001"
LEGACY = "publishers/google/models/text-embedding-005"


def _entry(emulator: Emulator) -> dict[str, Any]:
    """The newest job, as the books have it."""
    found: dict[str, Any] = emulator.control.books()["jobs"][-1]
    return found


def _calls(vertex: Vertex) -> list[str]:
    """Count the answers that are made from here on."""
    asked: list[str] = []

    def respond(_request: dict[str, Any], key: str | None) -> str:
        asked.append(str(key))
        return f"second answer to {key}"

    vertex.emulator._parts.world.settings.responder = respond
    return asked


@pytest.mark.parametrize("state", ["EXPIRED", "CANCELLED", "FAILED"])
@pytest.mark.parametrize("form", ["file", "folder", "numbered"])
def test_only_rows_without_an_answer_are_done_again(stored: Vertex, state: str, form: str) -> None:
    stored.put("in.jsonl", *[vertex_row(f"Row {n}.", key=f"k{n}", place=n) for n in range(10)])
    layout = "numbered" if form == "numbered" else None
    stored.emulator.control.faults(
        job_ending={"state": state, "code": 4}, partial_rows=0.6, row_error_every=3, output_layout=layout
    )
    ended = stored.run(uri="gs://in/in.jsonl")
    assert ended["state"] == f"JOB_STATE_{state}"
    stored.emulator.control.clear_faults()
    asked = _calls(stored)
    folder = ended["outputInfo"]["gcsOutputDirectory"]
    resumed = stored.run(uri=f"{folder}/predictions.jsonl" if form == "file" else f"{folder}/*")
    rows = {row["key"]: row for row in stored.predictions(resumed)}
    assert sorted(rows) == [f"k{n}" for n in range(10)]
    # The third and sixth row failed, and the last four were not reached.
    assert sorted(asked) == ["k2", "k5", "k6", "k7", "k8", "k9"]
    assert all(row["status"] == "" and row["response"]["candidates"] for row in rows.values())
    assert [rows[f"k{n}"]["place"] for n in range(10)] == list(range(10))
    entry = _entry(stored.emulator)
    assert (entry["rows"], entry["succeeded"], entry["reused"]) == (10, 10, 4)


def test_a_third_job_does_what_two_left(stored: Vertex) -> None:
    stored.put("in.jsonl", *[vertex_row(key=f"k{n}") for n in range(10)])
    stored.emulator.control.faults(expire=True, partial_rows=0.5)
    first = stored.run(uri="gs://in/in.jsonl")
    second = stored.run(uri=first["outputInfo"]["gcsOutputDirectory"] + "/predictions.jsonl")
    assert sum("response" in row for row in stored.predictions(second)) == 7
    stored.emulator.control.clear_faults()
    asked = _calls(stored)
    third = stored.run(uri=second["outputInfo"]["gcsOutputDirectory"] + "/predictions.jsonl")
    assert len(asked) == 3
    assert len(stored.predictions(third)) == 10


def test_rows_that_look_answered_but_are_nobodys_output_are_done(stored: Vertex) -> None:
    answered = {**vertex_row(key="a"), "response": {"mine": True}, "status": ""}
    stored.put("in.jsonl", answered)
    (row,) = stored.predictions(stored.run(uri="gs://in/in.jsonl"))
    assert row["response"]["candidates"]


def test_resuming_can_be_switched_off(stored: Vertex) -> None:
    stored.put("in.jsonl", *[vertex_row(key=f"k{n}") for n in range(4)])
    stored.emulator.control.faults(expire=True, partial_rows=0.5)
    first = stored.run(uri="gs://in/in.jsonl")
    stored.emulator.control.clear_faults()
    stored.emulator.control.faults(no_resume=True)
    asked = _calls(stored)
    again = stored.run(uri=first["outputInfo"]["gcsOutputDirectory"] + "/predictions.jsonl")
    assert again["state"] == "JOB_STATE_SUCCEEDED"
    assert len(asked) == 4


@pytest.mark.parametrize("model", [EMBEDDING, LEGACY])
def test_embeddings_are_resumed_too(stored: Vertex, model: str) -> None:
    legacy = model == LEGACY
    rows = [{"key": f"k{n}", "request": {"content": {"parts": [{"text": f"Text {n}"}]}}} for n in range(4)]
    stored.put("in.jsonl", *[{"content": f"Text {n}", "title": f"k{n}"} if legacy else rows[n] for n in range(4)])
    stored.emulator.control.faults(expire=True, partial_rows=0.5)
    first = stored.run(uri="gs://in/in.jsonl", model=model)
    stored.emulator.control.clear_faults()
    again = stored.run(uri=first["outputInfo"]["gcsOutputDirectory"] + "/predictions.jsonl", model=model)
    found = stored.predictions(again)
    names = [(row.get("instance") or row)["title" if legacy else "key"] for row in found]
    assert sorted(names) == ["k0", "k1", "k2", "k3"]
    assert all(row["predictions"] if legacy else row["response"]["embedding"]["values"] for row in found)
    assert _entry(stored.emulator)["reused"] == 2


@pytest.mark.parametrize(("value", "kept"), [("empty", 4), ("omit", 2), (None, 4)])
def test_what_is_said_of_undone_rows_can_be_chosen(stored: Vertex, value: str | None, kept: int) -> None:
    stored.put("in.jsonl", *[vertex_row(key=f"k{n}") for n in range(4)])
    stored.emulator.control.faults(expire=True, partial_rows=0.5, unfinished_rows=value)
    rows = stored.predictions(stored.run(uri="gs://in/in.jsonl"))
    assert len(rows) == kept
    undone = [row for row in rows if not row.get("response")]
    assert [("response" in row, row.get("status")) for row in undone] == [
        (value == "empty", "" if value == "empty" else None)
    ] * (kept - 2)


def _tables(source: str, target: str) -> dict[str, Any]:
    return {
        "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": f"bq://{source}"}},
        "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": f"bq://{target}"}},
    }


@pytest.mark.parametrize("kind", ["JSON", "STRING"])
def test_a_table_of_requests_becomes_a_table_of_answers_and_is_resumed(vertex: Vertex, kind: str) -> None:
    control = vertex.emulator.control
    request = '{"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}'
    rows = [{"key": f"00{n}", "request": request, "price": n / 2, "day": None} for n in range(6)]
    control.put_table("p.d.in", {"request": kind, "key": "STRING", "price": "NUMERIC", "day": "DATE"}, rows)
    control.faults(expire=True, partial_rows=0.5, row_error_every=3)
    ended = vertex.run(**_tables("p.d.in", "p.d.first"))
    assert ended["outputInfo"] == {"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "first"}
    first = control.table("p.d.first")
    added = {"response": "JSON", "processed_time": "TIMESTAMP", "status": "STRING"}
    assert first["columns"] == {"request": kind, "key": "STRING", "price": "NUMERIC", "day": "DATE", **added}
    undone = [row for row in first["rows"] if "response" not in row]
    assert len(undone) == 3
    control.clear_faults()
    vertex.run(**_tables("p.d.first", "p.d.second"))
    second = control.table("p.d.second")
    assert second["columns"] == first["columns"]
    # Keys of digits stay texts: a table has types.
    assert sorted(row["key"] for row in second["rows"]) == [f"00{n}" for n in range(6)]
    assert all(row["status"] == "" and row["response"]["candidates"] for row in second["rows"])
    assert _entry(vertex.emulator)["reused"] == 2


@pytest.mark.parametrize("kind", ["STRING", "JSON"])
def test_a_table_of_texts_is_embedded_into_the_columns_of_the_older_models(vertex: Vertex, kind: str) -> None:
    control = vertex.emulator.control
    control.put_table("p.d.in", {"content": "STRING"}, [{"content": "alpha"}, {"content": "beta"}])
    control.faults(predictions_type=kind, row_error_every=2)
    vertex.run(model=LEGACY, **_tables("p.d.in", "p.d.out"))
    table = control.table("p.d.out")
    assert table["columns"] == {"content": "STRING", "predictions": kind, "status": "STRING"}
    good = next(row for row in table["rows"] if row["status"] == "")
    assert good["predictions"].startswith('[{"embeddings": {"statistics": {"token_count": 1, "truncated": false}')
    assert control.table("p.d.in")["rows"][0] == {"content": "alpha"}
    control.clear_faults()
    vertex.run(model=LEGACY, **_tables("p.d.out", "p.d.whole"))
    assert [row["status"] for row in control.table("p.d.whole")["rows"]] == ["", ""]
    assert _entry(vertex.emulator)["reused"] == 1


@pytest.mark.parametrize("kind", ["ARRAY<STRING>", "STRUCT<a INT64>", "DATETIME", "GEOGRAPHY", "RANGE<DATE>"])
def test_a_column_of_a_type_that_is_not_supported_fails_the_job(vertex: Vertex, kind: str) -> None:
    vertex.emulator.control.put_table("p.d.in", {"request": "JSON", "odd": kind}, [{"request": "{}"}])
    job = vertex.run(**_tables("p.d.in", "p.d.out"))
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 3)
    assert "column odd" in job["error"]["message"]


def test_a_list_of_jobs_knows_nothing_of_tables(vertex: Vertex) -> None:
    assert vertex.http.get(PARENT).json() == {}
