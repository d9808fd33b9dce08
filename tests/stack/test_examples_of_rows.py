"""The example DAGs about rows in a real Airflow: a table, a corpus, a function, pictures."""

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
    from collections.abc import Callable

    from airflow_provider_gemini_batch.emulator import Emulator
    from stack.local_airflow import LocalAirflow

pytestmark = pytest.mark.stack


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


@pytest.fixture
def results_of(local_airflow: LocalAirflow, emulator: Emulator) -> Callable[[str], Callable[[str], Any]]:
    """Run a Dag to its end, with answers in another order; give what tells each of its tasks' return values."""

    def ran(dag: str) -> Callable[[str], Any]:
        emulator.control.faults(shuffle=True)
        run = local_airflow.trigger(dag)
        local_airflow.expect_run(dag, run)
        assert emulator.control.books()["created"] == 1
        return lambda task: local_airflow.xcom(dag, run, task)

    return ran


def test_a_table_becomes_checked_values(results_of: Callable[[str], Callable[[str], Any]]) -> None:
    result = results_of("reviews_to_structured")
    check_reviews(result("write_table"), result("review"))
    assert list(result("count_families")) == ["permissive"]


def test_a_corpus_becomes_a_table_of_vectors(results_of: Callable[[str], Callable[[str], Any]]) -> None:
    result = results_of("corpus_to_parquet")
    rows = check_vectors(result("cut"), result("embed"))
    assert result("look")["rows"] == rows


def test_a_function_yields_the_rows(results_of: Callable[[str], Callable[[str], Any]]) -> None:
    result = results_of("decorated_prompts")
    check_words(result("explain"))
    assert result("longest") in keyword.kwlist


def test_each_picture_goes_with_its_row(results_of: Callable[[str], Callable[[str], Any]], emulator: Emulator) -> None:
    result = results_of("pictures_or_pdfs")
    check_guesses(result("draw"), result("guess"))
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
        "key", "status", "embedding", "finish_reason", "usage", "error", "warning", "topic", "number", "text",
    ]  # fmt: skip
    assert len(sent) > 200
    assert table["key"].to_pylist() == [row["id"] for row in sent]
    assert table["text"].to_pylist() == [row["text"] for row in sent]
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
