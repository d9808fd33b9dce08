"""Answers in tables of BigQuery: those of generation, and those of the older embedding models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from vertex.tables import table_server

from airflow_provider_gemini_batch.api.errors import NotFound, UnknownOutput
from airflow_provider_gemini_batch.api.google.bigquery import AnswerTables
from airflow_provider_gemini_batch.api.legacy import instance_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex.tables import Tables

TABLE = "demo-project.texts.answers"
VECTOR = {"embeddings": {"statistics": {"token_count": 2, "truncated": False}, "values": [0.2, 0.1]}}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    with table_server() as served:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", served.url)
        yield served


@pytest.fixture
def answers() -> AnswerTables:
    return AnswerTables(None, project="demo-project")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["JSON", "STRING"])
def test_vectors_of_older_models_are_read_with_what_was_embedded_as_their_key(
    tables: Tables, answers: AnswerTables, kind: str
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


def test_a_key_column_beside_the_content_names_the_answer(tables: Tables, answers: AnswerTables) -> None:
    tables.columns[TABLE] = {"key": "STRING", "content": "STRING", "predictions": "JSON", "status": "STRING"}
    tables.rows[TABLE] = [{"key": "a", "content": "alpha", "predictions": json.dumps([VECTOR]), "status": ""}]
    (answer,) = answers.results(f"bq://{TABLE}")
    assert answer.key == "a"


def test_predictions_that_are_no_json_are_a_failed_row(tables: Tables, answers: AnswerTables) -> None:
    tables.columns[TABLE] = {"content": "STRING", "predictions": "STRING", "status": "STRING"}
    tables.rows[TABLE] = [{"content": "alpha", "predictions": "[{", "status": ""}]
    (answer,) = answers.results(f"bq://{TABLE}")
    assert answer.error is not None


def test_a_table_without_answers_is_not_taken_for_gone(tables: Tables, answers: AnswerTables) -> None:
    tables.columns[TABLE] = {"request": "JSON", "answer": "JSON"}
    with pytest.raises(UnknownOutput, match="neither a column 'response' nor 'predictions'"):
        answers.results(f"bq://{TABLE}")
    assert answers.exists(f"bq://{TABLE}")


def test_a_table_that_is_not_there_is_not_found(tables: Tables, answers: AnswerTables) -> None:
    tables.columns.clear()
    with pytest.raises(NotFound):
        answers.results(f"bq://{TABLE}")
    assert not answers.exists(f"bq://{TABLE}")
