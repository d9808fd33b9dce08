"""Answers in BigQuery, read through Google's own client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from vertex.bench import rows_of
from vertex.tables import table_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex.bench import Bench
    from vertex.tables import Tables

ANSWERS = "demo-project.texts.answers"
GOOD = json.dumps(
    {
        "candidates": [{"content": {"parts": [{"text": "Fine."}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
    }
)
BAD = 'Bad Request: {"error": {"code": 400, "message": "No such thing.", "status": "INVALID_ARGUMENT"}}'


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    with table_server() as served:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", served.url)
        served.columns[ANSWERS] = {
            "request": "JSON",
            "author": "STRING",
            "key": "STRING",
            "response": "JSON",
            "status": "STRING",
            "processed_time": "TIMESTAMP",
        }
        served.rows[ANSWERS] = [
            {"request": "{}", "key": "a", "response": GOOD, "status": ""},
            {"request": "{}", "key": "b", "response": None, "status": BAD},
            {"request": "{}", "key": "c", "response": GOOD, "status": ""},
        ]
        yield served


@pytest.mark.parametrize("kind", ["JSON", "STRING"])
def test_rows_of_a_table_are_landed_where_the_author_wants_them(bench: Bench, tables: Tables, kind: str) -> None:
    tables.columns[ANSWERS]["response"] = kind
    output = bench.folder / "out.jsonl"
    _, summary = bench.go(
        bigquery_uri="bq://demo-project.texts.inbox", destination=f"bq://{ANSWERS}", output_path=str(output)
    )
    rows = rows_of(output.read_bytes())
    assert [(row["key"], row["status"], row["text"]) for row in rows] == [
        ("a", "ok", "Fine."),
        ("b", "error", None),
        ("c", "ok", "Fine."),
    ]
    assert rows[1]["error"] == {"code": 3, "message": "No such thing."}
    assert summary["counts"]["failed"] == 1
    assert summary["usage"]["input_tokens"] == 6
    # The request, which comes back with each row, is not even asked for.
    pages = [path for path in tables.asked if "/data?" in path]
    assert len(pages) == 2
    assert all("request" not in path for path in pages)


def test_a_table_that_is_gone_says_so(bench: Bench, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_gemini_batch.api.responses.results._LATE_OUTPUT_PAUSES", ())
    tables.columns.clear()
    result = bench.run(
        bigquery_uri="bq://demo-project.texts.inbox",
        destination=f"bq://{ANSWERS}",
        output_path=str(bench.folder / "out.jsonl"),
    ).attempt("batch")
    assert result.state == "failed"
    assert "does not keep" in result.message or "no longer" in result.message


def test_without_the_library_rows_are_refused_before_anything_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gemini_batch.runtime.readiness.find_spec", lambda _name: None)
    result = bench.run(bigquery_uri="bq://p.texts.inbox", output_path=str(bench.folder / "out.jsonl")).attempt("batch")
    assert result.state == "failed"
    assert "[bigquery]" in result.message
    assert bench.jobs == []
