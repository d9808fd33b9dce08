"""As much of BigQuery's REST API as reading a table takes, on loopback."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIST = re.compile(r"/bigquery/v2/projects/[^/]+/datasets/[^/]+/tables")
_TABLE = re.compile(r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)(/data)?")


@dataclass
class Tables:
    """Tables by ``project.dataset.table``: column types, and rows of texts."""

    url: str = ""
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, str | None]]] = field(default_factory=dict)
    page_rows: int = 2
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Answer a GET for a table or a page of its rows."""
        parts = urlsplit(path)
        self.asked.append(path)
        if _LIST.fullmatch(parts.path):
            return 200, {"totalItems": 0}
        found = _TABLE.fullmatch(parts.path)
        name = ".".join(found.groups()[:3]) if found else ""
        if found is None or name not in self.columns:
            return 404, {"error": {"code": 404, "message": f"Not found: Table {name}", "errors": [{"reason": "x"}]}}
        if found[4] is None:
            project, dataset, table = found.groups()[:3]
            fields = [{"name": column, "type": kind} for column, kind in self.columns[name].items()]
            reference = {"projectId": project, "datasetId": dataset, "tableId": table}
            return 200, {"tableReference": reference, "schema": {"fields": fields}}
        query = parse_qs(parts.query)
        wanted = query["selectedFields"][0].split(",")
        start = int(query.get("pageToken", ["0"])[0])
        rows = self.rows[name]
        page: dict[str, Any] = {"totalRows": str(len(rows))}
        shown = rows[start : start + self.page_rows]
        ordered = [column for column in self.columns[name] if column in wanted]
        page["rows"] = [{"f": [{"v": row.get(column)} for column in ordered]} for row in shown]
        if start + self.page_rows < len(rows):
            page["pageToken"] = str(start + self.page_rows)
        return 200, page


@contextmanager
def table_server() -> Iterator[Tables]:
    """Serve until the block ends."""
    tables = Tables()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = tables.answer(self.path)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tables.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield tables
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
