"""As much of BigQuery's REST API as it takes to fill and read tables: ``BIGQUERY_EMULATOR_HOST`` names the emulator."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.wire import ApiError, answer, parse_time

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_gemini_batch.emulator.call import ApiCall

PAGE_ROWS = 10_000


def _dataset(call: ApiCall) -> str:
    return f"{call.path['project']}.{call.path['dataset']}"


def _named(call: ApiCall) -> tuple[str, dict[str, str]]:
    name = f"{_dataset(call)}.{call.path['table']}"
    columns = call.parts.tables.columns(name)
    if columns is None:
        raise ApiError(404, f"Not found: Table {name.replace('.', ':', 1)}")
    return name, columns


def _resource(name: str, columns: dict[str, str], rows: int) -> dict[str, Any]:
    project, dataset, table = name.split(".")
    return {
        "kind": "bigquery#table",
        "id": f"{project}:{dataset}.{table}",
        "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table},
        "schema": {"fields": [{"name": column, "type": kind, "mode": "NULLABLE"} for column, kind in columns.items()]},
        "numRows": str(rows),
        "type": "TABLE",
    }


async def get_table(call: ApiCall) -> Response:
    """Answer a table's columns."""
    name, columns = _named(call)
    return answer(_resource(name, columns, call.parts.tables.count(name)))


async def list_tables(call: ApiCall) -> Response:
    """Answer the tables of a dataset; any dataset exists."""
    tables = call.parts.tables
    found = [_resource(name, {}, tables.count(name)) for name in tables.names(_dataset(call))]
    return answer({"kind": "bigquery#tableList", "tables": found, "totalItems": len(found)})


async def get_dataset(call: ApiCall) -> Response:
    """Answer a dataset; any dataset exists, in the region of whoever asks."""
    reference = {"projectId": call.path["project"], "datasetId": call.path["dataset"]}
    return answer({"kind": "bigquery#dataset", "datasetReference": reference, "location": "us-central1"})


async def create_dataset(call: ApiCall) -> Response:
    """Do nothing: any dataset exists."""
    return answer(await call.json())


async def create_table(call: ApiCall) -> Response:
    """Make an empty table."""
    document = await call.json()
    name = f"{_dataset(call)}.{(document.get('tableReference') or {}).get('tableId')}"
    if call.parts.tables.columns(name) is not None:
        raise ApiError(409, f"Already Exists: Table {name}")
    fields = (document.get("schema") or {}).get("fields") or []
    columns = {str(field["name"]): str(field.get("type", "STRING")) for field in fields}
    call.parts.tables.put(name, columns, [])
    return answer(_resource(name, columns, 0))


async def insert_rows(call: ApiCall) -> Response:
    """Add rows to a table."""
    name, _ = _named(call)
    document = await call.json()
    call.parts.tables.append(name, [row.get("json") or {} for row in document.get("rows") or []])
    return answer({"kind": "bigquery#tableDataInsertAllResponse"})


async def delete_table(call: ApiCall) -> Response:
    """Delete a table."""
    name, _ = _named(call)
    call.parts.tables.remove(name)
    return answer({})


async def list_rows(call: ApiCall) -> Response:
    """Answer one page of a table's rows."""
    name, columns = _named(call)
    wanted = (call.query("selectedFields") or ",".join(columns)).split(",")
    token = call.query("pageToken")
    start = int(token or call.query("startIndex") or 0)
    size = min(int(call.query("maxResults") or PAGE_ROWS), PAGE_ROWS)
    integers = str(call.query("formatOptions.useInt64Timestamp")).lower() == "true"
    shown = {column: kind for column, kind in columns.items() if column in wanted}
    rows = [
        {"f": [{"v": _cell(row.get(column), kind, integers=integers)} for column, kind in shown.items()]}
        for row in islice(call.parts.tables.rows(name, start), size)
    ]
    total = call.parts.tables.count(name)
    page: dict[str, Any] = {"kind": "bigquery#tableDataList", "totalRows": str(total)}
    if rows:
        page["rows"] = rows
    if start + len(rows) < total and rows:
        page["pageToken"] = str(start + len(rows))
    return answer(page)


def _cell(value: Any, kind: str, *, integers: bool) -> Any:
    """Return a value as BigQuery's REST API writes it: a text, whatever the column's type."""
    if value is None:
        return None
    if kind == "TIMESTAMP":
        seconds = parse_time(value) if isinstance(value, str) else float(value)
        moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
        micros = int(moment.timestamp() * 1e6)
        return str(micros) if integers else str(micros / 1e6)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and kind != "JSON":
        return value
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
