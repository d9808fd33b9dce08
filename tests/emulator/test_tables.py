"""BigQuery's REST API, read through Google's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from airflow_provider_gemini_batch.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = {"key": "STRING", "n": "INTEGER", "ok": "BOOLEAN", "answer": "JSON", "at": "TIMESTAMP", "empty": "STRING"}
ROWS = [
    {"key": f"k{n}", "n": n, "ok": n % 2 == 0, "answer": {"text": "ä", "n": n}, "at": "2026-01-02T03:04:05.5Z"}
    for n in range(5)
]


def _client(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> bigquery.Client:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", emulator.url)
    return bigquery.Client(project="p", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]


def test_rows_that_were_put_are_read_with_their_types(
    gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemini_batch_emulator.control.put_table("p.d.t", COLUMNS, ROWS)
    client = _client(gemini_batch_emulator, monkeypatch)
    table = client.get_table("p.d.t")
    assert (table.num_rows, [field.field_type for field in table.schema]) == (5, list(COLUMNS.values()))
    rows = list(client.list_rows(table, page_size=2))
    assert [(row["key"], row["n"], row["ok"], row["empty"]) for row in rows] == [
        (f"k{n}", n, n % 2 == 0, None) for n in range(5)
    ]
    assert rows[3]["answer"] == {"text": "ä", "n": 3}
    assert rows[0]["at"].isoformat() == "2026-01-02T03:04:05.500000+00:00"
    chosen = [field for field in table.schema if field.name == "n"]
    assert [tuple(row) for row in client.list_rows(table, selected_fields=chosen)] == [(n,) for n in range(5)]


def test_a_client_may_make_fill_and_delete_tables(
    gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _client(gemini_batch_emulator, monkeypatch)
    client.create_dataset("p.d", exists_ok=True)
    client.create_table(bigquery.Table("p.d.t", [bigquery.SchemaField("a", "STRING")]))
    client.insert_rows_json("p.d.t", [{"a": "one"}, {"a": "two"}])
    assert gemini_batch_emulator.control.table("p.d.t")["rows"] == [{"a": "one"}, {"a": "two"}]
    assert [table.table_id for table in client.list_tables("p.d")] == ["t"]
    client.delete_table("p.d.t")
    with pytest.raises(KeyError):
        gemini_batch_emulator.control.table("p.d.t")


def test_bad_tables_are_refused(gemini_batch_emulator: Emulator) -> None:
    control = gemini_batch_emulator.control
    with pytest.raises(ValueError, match=r"project\.dataset\.table"):
        control.put_table("t", {}, [])
    with pytest.raises(ValueError, match="no type"):
        control.put_table("p.d.t", {"a": "text"}, [])
    with pytest.raises(ValueError, match="has no column b"):
        control.put_table("p.d.t", {"a": "STRING"}, [{"b": 1}])
    with pytest.raises(KeyError):
        control.table("p.d.t")


def test_tables_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    with Emulator(state=state) as emulator:
        emulator.control.put_table("p.d.t", {"a": "STRING"}, [{"a": "one"}])
    with Emulator(state=state) as emulator:
        assert emulator.control.table("p.d.t") == {"columns": {"a": "STRING"}, "rows": [{"a": "one"}]}
