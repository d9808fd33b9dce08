"""Answers in tables of BigQuery: those of generation, and those of the older embedding models."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import Forbidden
from vertex.tables import table_server

from airflow_provider_gemini_batch.api.errors import AccessDenied, ApiError, NotFound, QuotaExceeded, UnknownOutput
from airflow_provider_gemini_batch.api.google.bigquery import ResponseTables, _plain, _table_errors
from airflow_provider_gemini_batch.api.legacy import instance_key
from airflow_provider_gemini_batch.api.models import JobKind, ServiceError
from airflow_provider_gemini_batch.rows.landing import LandingSpec, land
from airflow_provider_gemini_batch.rows.writers import JsonlSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vertex.tables import Tables

TABLE = "demo-project.texts.answers"
VECTOR = {"embeddings": {"statistics": {"token_count": 2, "truncated": False}, "values": [0.2, 0.1]}}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    with table_server() as served:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", served.url)
        yield served


@pytest.fixture
def answers() -> ResponseTables:
    return ResponseTables(None, project="demo-project")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["JSON", "STRING"])
def test_vectors_of_older_models_are_read_with_what_was_embedded_as_their_key(
    tables: Tables, answers: ResponseTables, kind: str
) -> None:
    tables.columns[TABLE] = {"content": "STRING", "title": "STRING", "predictions": kind, "status": "STRING"}
    tables.rows[TABLE] = [
        {"content": "alpha", "title": None, "predictions": json.dumps([VECTOR]), "status": ""},
        {"content": "beta", "title": "B", "predictions": None, "status": "Bad Request: {}"},
    ]
    good, bad = answers.results(f"bq://{TABLE}")
    assert good.response == {"embedding": {"values": [0.2, 0.1]}, "tokenCount": 2}
    assert good.key == instance_key({"content": "alpha"})
    assert bad.key == instance_key({"content": "beta", "title": "B"})
    assert bad.error is not None
    assert bad.error.message.startswith("Bad Request")


def test_a_key_column_beside_the_content_names_the_answer(tables: Tables, answers: ResponseTables) -> None:
    tables.columns[TABLE] = {"key": "STRING", "content": "STRING", "predictions": "JSON", "status": "STRING"}
    tables.rows[TABLE] = [{"key": "a", "content": "alpha", "predictions": json.dumps([VECTOR]), "status": ""}]
    (answer,) = answers.results(f"bq://{TABLE}")
    assert answer.key == "a"


def test_predictions_that_are_not_json_are_a_failed_row(tables: Tables, answers: ResponseTables) -> None:
    tables.columns[TABLE] = {"content": "STRING", "predictions": "STRING", "status": "STRING"}
    tables.rows[TABLE] = [{"content": "alpha", "predictions": "[{", "status": ""}]
    (answer,) = answers.results(f"bq://{TABLE}")
    assert answer.error is not None


def test_a_table_without_answers_is_not_taken_for_gone(tables: Tables, answers: ResponseTables) -> None:
    tables.columns[TABLE] = {"request": "JSON", "answer": "JSON"}
    with pytest.raises(UnknownOutput, match="neither a column 'response' nor 'predictions'"):
        answers.results(f"bq://{TABLE}")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("rateLimitExceeded", QuotaExceeded), ("quotaExceeded", QuotaExceeded), ("accessDenied", AccessDenied)],
)
def test_a_quota_is_told_from_a_permission_though_both_are_a_403(reason: str, kind: type[ApiError]) -> None:
    with pytest.raises(ApiError) as raised, _table_errors(f"bq://{TABLE}"):
        raise Forbidden("No.", errors=[{"reason": reason}])  # type: ignore[no-untyped-call]
    assert type(raised.value) is kind


def test_a_table_that_is_not_there_is_not_found(tables: Tables, answers: ResponseTables) -> None:
    tables.columns.clear()
    with pytest.raises(NotFound):
        answers.results(f"bq://{TABLE}")


@pytest.mark.parametrize(
    ("kind", "sent", "name"),
    [
        ("STRING", "a", "a"),
        ("INTEGER", "9007199254740993", "9007199254740993"),
        ("FLOAT", "1.5", "1.5"),
        ("BOOLEAN", "true", "true"),
        ("NUMERIC", "1.10", "1.10"),
        ("BIGNUMERIC", "0.12345678901234567890123456789", "0.12345678901234567890123456789"),
        ("DATE", "2026-01-02", "2026-01-02"),
        ("TIME", "01:02:03", "01:02:03"),
        ("DATETIME", "2026-01-02T01:02:03", "2026-01-02T01:02:03"),
        ("TIMESTAMP", "1767312000000000", "2026-01-02T00:00:00+00:00"),
        ("BYTES", "//4=", "//4="),
        ("GEOGRAPHY", "POINT(1 2)", "POINT(1 2)"),
    ],
)
def test_a_column_of_any_type_names_a_row_and_is_carried(  # noqa: PLR0917
    tables: Tables, answers: ResponseTables, tmp_path: Path, kind: str, sent: str, name: str
) -> None:
    tables.columns[TABLE] = {"sku": kind, "response": "JSON", "status": "STRING"}
    said = {"candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}]}
    tables.rows[TABLE] = [{"sku": sent, "response": json.dumps(said), "status": ""}]
    results = answers.results(f"bq://{TABLE}")
    landing = LandingSpec(kind=JobKind.GENERATION, wrapped_keys=False, key_field="sku", carry=("sku",))
    with (tmp_path / "out.jsonl").open("wb") as handle:
        sink = JsonlSink(handle)
        summary = land([lambda: results], sink, landing, tmp_path)
        sink.close()
    row = json.loads((tmp_path / "out.jsonl").read_bytes())
    assert (row["key"], row["sku"], row["status"], summary.by_position) == (name, name, "ok", 0)


@pytest.mark.parametrize(
    "own",
    [
        {"embedding": [0.5, 1.5]},
        {"message": "Dear shop"},
        {"code": 7},
        {"choices": [{"message": {"content": "x"}}]},
        {"candidates": [{"content": {"parts": [{"text": "x"}]}}]},
        {"usageMetadata": {"promptTokenCount": 5}},
        {"error": "disk full"},
    ],
)
def test_a_column_of_the_author_is_neither_a_response_nor_an_error(
    tables: Tables, answers: ResponseTables, own: dict[str, Any]
) -> None:
    (name,) = own
    kind = "STRING" if isinstance(own[name], str) else "JSON"
    tables.columns[TABLE] = {"id": "STRING", name: kind, "response": "JSON", "status": "STRING"}
    value = own[name] if kind == "STRING" else json.dumps(own[name])
    said = {"candidates": [{"content": {"parts": [{"text": "fine"}]}, "finishReason": "STOP"}]}
    tables.rows[TABLE] = [
        {"id": "a", name: value, "response": None, "status": 'Bad Request: {"error": {"code": 400, "message": "m"}}'},
        {"id": "b", name: value, "response": json.dumps(said), "status": ""},
    ]
    failed, good = answers.results(f"bq://{TABLE}")
    assert (failed.response, failed.error, failed.billed) == (None, ServiceError(code=3, message="m"), None)
    assert (good.response, good.error, good.beside[name]) == (said, None, own[name])


def test_what_json_does_not_know_in_a_response_costs_no_row() -> None:
    numbers = [{"embeddings": {"values": [Decimal("0.5"), Decimal(2)], "statistics": {"token_count": Decimal(3)}}}]
    beside = {"raw": b"\xff", "at": date(2026, 1, 2), "nested": [{"b": b"a"}]}
    row = _plain({"content": "a", "predictions": numbers, "status": "", **beside})
    assert row["predictions"] == [{"embeddings": {"values": [0.5, 2], "statistics": {"token_count": 3}}}]
    assert (row["raw"], row["at"], row["nested"]) == ("/w==", "2026-01-02", [{"b": "YQ=="}])
