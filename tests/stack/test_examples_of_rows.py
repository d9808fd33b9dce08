"""The example DAGs about rows in a real Airflow: a table, a corpus, a function, pictures; all at once, to save time."""

from __future__ import annotations

import csv
import json
import keyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from airflow_provider_gemini_batch.emulator.answers import digest_of

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow

pytestmark = pytest.mark.stack

DAGS = ("reviews_to_structured", "corpus_to_parquet", "decorated_prompts", "pictures_or_pdfs")


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def test_tables_corpora_functions_and_pictures_go_in_and_come_out_row_by_row(
    local_airflow: LocalAirflow, emulator: Emulator
) -> None:
    emulator.control.faults(shuffle=True)
    runs = {name: local_airflow.trigger(name) for name in DAGS}
    for name, run in runs.items():
        local_airflow.expect_run(name, run, seconds=240)

    def xcom(dag: str, task: str) -> Any:
        return local_airflow.xcom(dag, runs[dag], task)

    check_reviews(xcom("reviews_to_structured", "write_table"), xcom("reviews_to_structured", "review"))
    rows = check_vectors(xcom("corpus_to_parquet", "cut"), xcom("corpus_to_parquet", "embed"))
    assert xcom("corpus_to_parquet", "look")["rows"] == rows
    check_words(xcom("decorated_prompts", "explain"))
    check_guesses(xcom("pictures_or_pdfs", "draw"), xcom("pictures_or_pdfs", "guess"))

    assert emulator.control.books()["created"] == len(DAGS)
    uploads = emulator.control.books()["files"]
    assert len(uploads) == 8
    assert {upload["mime_type"] for upload in uploads} == {"image/png"}


def check_reviews(table: str, result: dict[str, Any]) -> None:
    with Path(table).open(encoding="utf-8", newline="") as lines:
        sent = list(csv.DictReader(lines))
    rows = lines_of(result["output"])
    assert len(sent) > 50
    assert [(row["key"], row["version"]) for row in rows] == [(each["package"], each["version"]) for each in sent]
    prompts = [f"Review the licence of {each['package']} {each['version']}:\n\n{each['licence']}" for each in sent]
    assert [row["parsed"]["summary"] for row in rows] == [digest_of([prompt]) for prompt in prompts]
    assert {row["parsed"]["family"] for row in rows} == {"permissive"}


def check_vectors(corpus: str, result: dict[str, Any]) -> int:
    sent = lines_of(corpus)
    table = parquet.read_table(result["output"])
    assert table.schema.names == [
        "key", "status", "embedding", "finish_reason", "usage", "error", "topic", "number", "passage",
    ]  # fmt: skip
    assert len(sent) > 200
    assert table["key"].to_pylist() == [row["id"] for row in sent]
    assert table["passage"].to_pylist() == [row["passage"] for row in sent]
    assert table["number"].to_pylist() == [row["number"] for row in sent]
    assert {len(vector) for vector in table["embedding"].to_pylist()} == {256}
    return len(sent)


def check_words(result: dict[str, Any]) -> None:
    rows = lines_of(result["output"])
    assert [row["key"] for row in rows] == keyword.kwlist
    assert all("keyword 'and' do, for one who knows JavaScript?" in row["text"] for row in rows[3:4])
    assert list(Path(result["output"]).parent.glob(".*")) == []


def check_guesses(pictures: str, result: dict[str, Any]) -> None:
    sent = lines_of(pictures)
    rows = lines_of(result["output"])
    assert [row["country"] for row in rows] == [each["country"] for each in sent]
    assert [row["key"] for row in rows] == [str(number) for number in range(8)]
    assert all(f"Picture {row['key']}: which country" in row["text"] for row in rows)
