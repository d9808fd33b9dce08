"""What the pages show, and to whom, from a database with batches in all states."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.dialects import mysql, postgresql, sqlite

from airflow_provider_gemini_batch.batch.overview import JobOverview, Overview
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY
from airflow_provider_gemini_batch.ui import queries
from airflow_provider_gemini_batch.ui.addresses import Place
from airflow_provider_gemini_batch.ui.queries import Scan, count_mapped, dags, find, load, scan
from airflow_provider_gemini_batch.ui.texts import clock, short_number
from ui.airflow_page import HOME, JOB, OVERVIEW, add, detail, headers, read, words

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from ui.seed import Seeder


def rows_of(text: str) -> list[str]:
    body = text.partition('<table class="batches">')[2].partition("</tbody>")[0].partition("<tbody>")[2]
    return [words(row) for row in body.split("<tr>")[1:]]


# -- who may see what


@pytest.mark.parametrize("path", ["/", "/batch?dag_id=shop&run_id=manual__1&task_id=describe", "/cost"])
def test_somebody_who_is_not_signed_in_gets_401(page: TestClient, seeder: Seeder, path: str) -> None:
    add(seeder)
    answer = page.get(f"{HOME}{path}")
    assert answer.status_code == 401
    assert "shop" not in answer.text


def test_a_token_that_is_not_airflows_is_refused(page: TestClient) -> None:
    assert page.get(f"{HOME}/", headers={"Authorization": "Bearer x.y.z"}).status_code == 403


def test_the_cookie_of_airflows_login_serves_too(page: TestClient, seeder: Seeder) -> None:
    add(seeder)
    token = headers()["Authorization"].removeprefix("Bearer ")
    assert page.get(f"{HOME}/", headers={"Cookie": f"_token={token}"}).status_code == 200


def test_a_user_who_may_read_one_dag_sees_that_dag_alone(page: TestClient, seeder: Seeder) -> None:
    ended: dict[str, Any] = {"state": "success", "ended": seeder.now}
    add(seeder, replace(OVERVIEW, usd=4.0), dag_id="shop", **ended)
    add(seeder, replace(OVERVIEW, usd=3.0, model="gemini-hidden"), dag_id="secret_dag", **ended)
    for path in ("/", "/cost", "/?q=batches", "/?dag=secret_dag&days=all"):
        text = read(page, path, "reads-shop").replace('value="secret_dag" selected>secret_dag', "")
        assert "secret_dag" not in text, path
        assert "gemini-hidden" not in text, path
        assert "$7.00" not in text, path
    assert "describe" in read(page, "/", "reads-shop")
    assert "$4.00" in read(page, "/cost", "reads-shop")


def test_the_page_of_a_batch_asks_for_its_own_dag(page: TestClient, seeder: Seeder) -> None:
    add(seeder, dag_id="shop")
    add(seeder, dag_id="secret_dag")
    assert "describe" in detail(page, "reads-shop")
    place = {"run_id": "manual__1", "task_id": "describe"}
    for dag_id in ("secret_dag", "not_there"):
        answer = page.get(f"{HOME}/batch", params={"dag_id": dag_id, **place}, headers=headers("reads-shop"))
        assert answer.status_code == 403
        assert "describe" not in answer.text


def test_a_user_who_may_see_no_tasks_gets_403(page: TestClient) -> None:
    assert page.get(f"{HOME}/", headers=headers("reads-")).status_code == 403


# -- the list


@pytest.mark.usefixtures("seeder")
def test_an_empty_list_says_how_to_fill_it(page: TestClient) -> None:
    assert "GeminiCreateBatchJobOperator" in read(page, "/")


def test_tasks_that_are_not_batches_are_not_listed(page: TestClient, seeder: Seeder) -> None:
    add(seeder, xcoms={"return_value": {"job_name": JOB}, PROGRESS_KEY: {"done": 1}})
    assert rows_of(read(page, "/")) == []


def test_the_newest_batch_comes_first(page: TestClient, seeder: Seeder) -> None:
    for hours in (5, 1, 3):
        began = seeder.now - timedelta(hours=hours)
        add(seeder, task_id=f"hours_{hours}", run_id=f"r{hours}", state="success", began=began, ended=began)
    found = [re.findall(r"hours_\d", row)[0] for row in rows_of(read(page, "/"))]
    assert found == ["hours_1", "hours_3", "hours_5"]


@pytest.mark.parametrize(
    ("state", "tone"),
    [
        ("PENDING", "violet"),
        ("RUNNING", "blue"),
        ("SUCCEEDED", "green"),
        ("PARTIALLY_SUCCEEDED", "amber"),
        ("EXPIRED", "red"),
        ("CANCELLED", "grey"),
        ("A_LATER_VERSIONS_STATE", "blue"),
    ],
)
def test_a_job_has_the_colour_of_its_state(page: TestClient, seeder: Seeder, state: str, tone: str) -> None:
    add(seeder, replace(OVERVIEW, jobs=()).with_job(JobOverview(JOB, state=state)))
    shown = f'<span class="state {tone}"><span class="dot" aria-hidden="true"></span>{state.lower().replace("_", " ")}'
    assert shown in detail(page)


@pytest.mark.parametrize(
    ("task_state", "phase", "progress", "shown"),
    [
        ("running", "submitting", None, "submitting"),
        ("deferred", "waiting for quota", None, "waiting for quota"),
        ("deferred", "waiting", None, "waiting"),
        ("deferred", "running", None, "queued"),
        ("deferred", "running", {"state": "PENDING", "done": 0}, "queued"),
        ("deferred", "running", {"state": "RUNNING", "done": 0}, "running"),
        ("deferred", "running", {"state": None, "done": 4}, "running"),
        ("deferred", "repairing", {"state": "PENDING"}, "repairing"),
        ("running", "landing", {"state": "RUNNING"}, "landing"),
        ("running", "a later version's word", {"state": "RUNNING"}, "running"),
        ("success", "succeeded", None, "succeeded"),
        ("success", "submitted", None, "submitted"),
        ("failed", "running", None, "failed"),
        ("upstream_failed", "failed", None, "failed"),
        ("up_for_retry", "failed", None, "retrying"),
        ("restarting", "running", None, "retrying"),
        ("skipped", "running", None, "skipped"),
        ("queued", "running", None, "scheduled"),
        (None, "running", None, "scheduled"),
    ],
)
def test_the_state_is_what_airflow_says_then_what_the_task_said_then_what_the_trigger_saw(
    page: TestClient,
    seeder: Seeder,
    *,
    task_state: str | None,
    phase: str,
    progress: dict[str, Any] | None,
    shown: str,
) -> None:
    add(seeder, replace(OVERVIEW, phase=phase), state=task_state, progress=progress)
    (row,) = rows_of(read(page, "/", days="all"))
    assert f" {shown} " in row
    assert len(rows_of(read(page, "/", days="all", state=shown))) == 1
    other = "failed" if shown != "failed" else "running"
    assert rows_of(read(page, "/", days="all", state=other)) == []


def test_a_failed_batch_says_why(page: TestClient, seeder: Seeder) -> None:
    add(seeder, replace(OVERVIEW, phase="failed", why="too many rows failed"), state="failed", ended=seeder.now)
    assert "too many rows failed" in rows_of(read(page, "/"))[0]
    assert "too many rows failed" in words(detail(page))


def test_the_list_can_be_narrowed_down(page: TestClient, seeder: Seeder) -> None:
    old = seeder.now - timedelta(days=20)
    add(seeder, dag_id="a", task_id="in_a")
    add(seeder, replace(OVERVIEW, model="gemini-pro"), dag_id="b", task_id="with_pro", run_id="r2")
    add(seeder, dag_id="b", task_id="long_ago", run_id="r3", state="success", began=old, ended=old)
    add(seeder, dag_id="b", task_id="long_running", run_id="r4", began=old)
    job = Overview().with_job(JobOverview("batches/the_one"))
    add(seeder, job, dag_id="b", task_id="by_job", run_id="r5")

    def shown(**query: str) -> set[str]:
        names = ("in_a", "with_pro", "long_ago", "long_running", "by_job")
        return {name for row in rows_of(read(page, "/", **query)) for name in names if name in row}

    assert shown() == {"in_a", "with_pro", "long_running", "by_job"}
    assert shown(days="all") == {"in_a", "with_pro", "long_ago", "long_running", "by_job"}
    assert shown(days="30") == shown(days="all")
    assert shown(dag="a") == {"in_a"}
    assert shown(model="gemini-pro") == {"with_pro"}
    assert shown(q="the_one") == {"by_job"}
    assert shown(q="r4") == {"long_running"}
    assert shown(q="%") == set()
    assert shown(days="all", state="succeeded") == {"long_ago"}
    assert shown(state="active", dag="b") == {"with_pro", "long_running", "by_job"}


def test_a_search_also_finds_batches_that_are_older_than_those_that_are_read(
    page: TestClient, seeder: Seeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_SCANNED", 2)
    for hours in range(5):
        add(seeder, task_id=f"hours_{hours}", run_id=f"r{hours}", began=seeder.now - timedelta(hours=hours))

    def shown(query: str) -> list[str]:
        return [re.findall(r"hours_\d", row)[0] for row in rows_of(read(page, "/", q=query))]

    assert shown("hours_4") == ["hours_4"]
    assert shown("hours_") == ["hours_0", "hours_1"]
    assert shown("r3") == ["hours_3"]


def test_pages_follow_each_other_and_keep_the_filters(page: TestClient, seeder: Seeder) -> None:
    seeder.dag("shop")
    for number in range(120):
        add(seeder, task_id=f"task{number:03}", began=seeder.now - timedelta(minutes=number))
    first = read(page, "/", dag="shop")
    assert "1 to 50 of 120" in words(first)
    assert "task000" in first
    older = html.unescape(re.findall(r'id="older" rel="next" href="([^"]+)"', first)[0])
    second = page.get(older, headers=headers()).text
    assert "51 to 100 of 120" in words(second)
    assert "dag=shop" in older
    last = read(page, "/", dag="shop", page="3")
    assert "101 to 120 of 120" in words(last)
    assert 'id="older"' not in last
    for beyond in ("99", "0", "-1", "x", "9" * 30):
        assert "of 120" in words(read(page, "/", page=beyond))


def test_a_running_batch_shows_rows_times_and_what_is_left(page: TestClient, seeder: Seeder) -> None:
    now = seeder.now.timestamp()
    submitted = JobOverview(JOB, state="RUNNING", submitted_at=now - 600, total=200)
    overview = Overview(phase="running", model="gemini-2.5-flash", total=200).with_job(submitted)
    progress = {"at": now, "started_at": now - 300, "done": 50, "failed": 4, "total": 200, "seconds_left": 903}
    add(seeder, overview, progress=progress)
    (row,) = rows_of(read(page, "/"))
    assert "46 of 200, 4 failed" in row
    assert "5 min" in row
    assert "about 15 min" in row


@pytest.mark.parametrize(
    ("upper", "is_open", "said"),
    [(True, False, "at most $1.50"), (False, True, "at least $1.50"), (True, True, "at least $1.50")],
)
def test_a_bound_of_the_cost_is_called_one(
    page: TestClient, seeder: Seeder, *, upper: bool, is_open: bool, said: str
) -> None:
    ended: dict[str, Any] = {"state": "success", "ended": seeder.now}
    add(seeder, replace(OVERVIEW, phase="succeeded", usd=1.5, is_upper_bound=upper, is_open_bound=is_open), **ended)
    assert said in rows_of(read(page, "/"))[0]
    assert f"cost, 7 days {said}" in words(read(page, "/"))
    assert words(read(page, "/cost")).count(said) == 4
    assert words(detail(page)).count(said) == 2


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (99_950, "100 k"),
        (999_600, "1 M"),
        (41_200_000, "41.2 M"),
    ],
)
def test_a_large_count_has_three_digits(count: int, said: str) -> None:
    assert short_number(count) == said


def test_a_day_of_another_year_has_its_year(page: TestClient, seeder: Seeder) -> None:
    ended: dict[str, Any] = {"state": "success", "began": seeder.now - timedelta(days=400)}
    add(seeder, Overview(phase="succeeded"), ended=ended["began"], **ended)
    assert f"{ended['began']:%d %b %Y %H:%M} UTC" in rows_of(read(page, "/", days="all"))[0]
    assert clock(seeder.now) == f"{seeder.now:%d %b %H:%M}"


def test_missing_values_are_dashes(page: TestClient, seeder: Seeder) -> None:
    add(seeder, Overview(phase="succeeded"), state="success", ended=seeder.now)
    assert "–" in rows_of(read(page, "/"))[0]  # noqa: RUF001
    assert "None" not in words(read(page, "/") + detail(page) + read(page, "/cost"))


@pytest.mark.parametrize("active", [True, False])
def test_a_page_refreshes_itself_while_something_is_active(page: TestClient, seeder: Seeder, *, active: bool) -> None:
    add(seeder, state="deferred" if active else "success", ended=None if active else seeder.now)
    assert ("data-refresh" in read(page, "/")) is active
    assert ("data-refresh" in detail(page)) is active


# -- one batch


def test_the_page_of_a_batch_shows_its_jobs_events_reasons_tokens_and_links(page: TestClient, seeder: Seeder) -> None:
    vertex = "projects/p/locations/europe-west4/batchPredictionJobs/42"
    overview = replace(
        Overview(model="gemini-2.5-flash", service="vertex", total=1000, output="gs://bucket/out/rows.jsonl"),
        phase="succeeded",
        succeeded=975,
        failed=25,
        by_status={"ok": 975, "blocked": 12, "truncated": 3, "error": 10},
        reasons={"blocked": {"SAFETY": 12}, "error": {"8": 8, "13": 1}},
        failed_keys=("key-7", "key-9"),
        input_tokens=1_200_000,
        output_tokens=80_000,
        usd=0.42,
        ended_at=seeder.now.timestamp(),
    )
    overview = overview.with_job(JobOverview(vertex, state="SUCCEEDED", total=1000, done=1000, failed=25))
    overview = overview.with_job(JobOverview("batches/repair1", round=1, adopted=True, state="RUNNING"))
    overview = overview.with_event(seeder.now.timestamp(), "Adopted a job of an earlier try.")
    add(seeder, overview, state="success", ended=seeder.now, try_number=2, map_index=3)
    text = detail(page, map_index="3")
    shown = words(text)
    for part in (
        "975 of 1,000",
        "blocked: SAFETY 12",
        "truncated 3",
        "error: 8, quota 8",
        "error: 13, internal 1",
        "error 1",
        "key-7",
        "and 23 more",
        "repair 1",
        "adopted",
        "Adopted a job of an earlier try.",
        "1,200,000",
        "$0.42",
        "Vertex AI",
        "try 2 of 2",
    ):
        assert part in shown, part
    base = "/dags/shop/runs/manual__1"
    for href in (
        base,
        f"{base}/tasks/describe/mapped/3?try_number=2",
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/batch-predictions/42?project=p",
        "https://console.cloud.google.com/storage/browser/bucket/out/rows.jsonl",
    ):
        assert f'href="{html.escape(href)}"' in text, href


def test_what_the_trigger_saw_last_is_shown_for_each_job_that_runs(page: TestClient, seeder: Seeder) -> None:
    overview = Overview(total=30).with_job(JobOverview("batches/a", state="SUCCEEDED", ended_at=5, total=10, done=10))
    overview = overview.with_job(JobOverview("batches/b", shard=1, state="PENDING", total=20))
    each = {"batches/a": ["RUNNING", 10, 1, 0], "batches/b": ["RUNNING", 20, 6, 1]}
    add(seeder, replace(overview, phase="running"), progress={"done": 16, "failed": 1, "total": 30, "each": each})
    shown = words(detail(page))
    assert "6 of 20, 1 failed" in shown
    assert "10 of 10" in shown


def test_rows_over_time_are_drawn_from_what_the_trigger_saw(page: TestClient, seeder: Seeder) -> None:
    now = seeder.now.timestamp()
    samples = [[now - 90, 0, 0], [now - 60, 20, 0], [now - 30, 40, 1], [now, 50, 2]]
    add(seeder, progress={"done": 50, "failed": 2, "samples": samples})
    text = detail(page)
    points = re.findall(r'class="good-line" points="([^"]+)"', text)[0].split()
    assert len(points) == 4
    assert 'class="failed-area"' in text


def test_a_place_without_a_batch_is_not_found(page: TestClient, seeder: Seeder) -> None:
    add(seeder)
    place = {"dag_id": "shop", "run_id": "manual__1"}
    for task, index in (("other", ""), ("describe", "4"), ("describe", "9" * 40)):
        query = {**place, "task_id": task, "map_index": index}
        expected = 200 if index.startswith("99") else 404
        assert page.get(f"{HOME}/batch", params=query, headers=headers()).status_code == expected


def test_airflows_placeholder_for_a_task_that_is_not_mapped_is_understood(page: TestClient, seeder: Seeder) -> None:
    add(seeder)
    assert "describe" in detail(page, map_index="{MAP_INDEX}")


def test_a_page_that_does_not_exist_is_said_to_be_missing(page: TestClient) -> None:
    answer = page.get(f"{HOME}/nothing", headers=headers())
    assert answer.status_code == 404
    assert "Nothing here" in answer.text


# -- what it costs


def test_costs_are_summed_by_day_dag_and_model(page: TestClient, seeder: Seeder) -> None:
    def ended(days: float, usd: float | None, *, dag_id: str, model: str, number: int) -> None:
        moment = seeder.now - timedelta(days=days)
        overview = Overview(phase="succeeded", model=model, total=10, usd=usd, input_tokens=1000, output_tokens=50)
        add(seeder, overview, dag_id=dag_id, run_id=f"r{number}", state="success", began=moment, ended=moment)

    ended(1, 1.25, dag_id="a", model="pro", number=1)
    ended(1, 2.5, dag_id="a", model="pro", number=2)
    ended(2, 10, dag_id="b", model="flash", number=3)
    ended(20, 100, dag_id="a", model="pro", number=4)
    ended(60, 1000, dag_id="a", model="pro", number=5)
    ended(1, None, dag_id="a", model="tuned", number=6)
    week, month, quarter = (words(read(page, "/cost", days=days)) for days in ("7", "30", "90"))
    assert "$13.75" in week
    assert "$113.75" in month
    assert "$1,113.75" in quarter
    assert "a pro 2 20 2,000 100 $3.75" in week
    assert "$10.00" not in words(read(page, "/cost", days="7", dag="a"))
    assert "$3.75" not in words(read(page, "/cost", days="7", model="flash"))
    assert 'class="s0"' in read(page, "/cost", days="7", by="dag")


@pytest.mark.parametrize("state", ["up_for_reschedule", "a later version's word"])
def test_a_batch_in_an_odd_state_does_not_break_the_page(page: TestClient, seeder: Seeder, state: str) -> None:
    add(seeder, replace(Overview(), usd=1.5, phase="running"), state=state, ended=seeder.now)
    for path in ("/", "/cost"):
        assert read(page, path), path


def test_what_still_runs_has_no_cost_yet(page: TestClient, seeder: Seeder) -> None:
    add(seeder, replace(OVERVIEW, usd=5.0))
    assert "$5.00" not in words(read(page, "/cost"))


def test_without_prices_the_chart_shows_tokens(page: TestClient, seeder: Seeder) -> None:
    overview = Overview(phase="succeeded", model="m", input_tokens=123_000, output_tokens=0)
    add(seeder, overview, state="success", ended=seeder.now)
    text = read(page, "/cost")
    assert "Tokens by day" in words(text)
    assert "123,000 tokens" in text


def test_a_running_batch_shows_what_it_may_cost(page: TestClient, seeder: Seeder) -> None:
    add(seeder, replace(OVERVIEW, estimated_usd=2.5))
    assert "at most $2.50" in rows_of(read(page, "/"))[0]
    assert "at most $2.50" in words(detail(page))
    assert "$2.50" not in words(read(page, "/cost"))


class Statements:
    """Stands for a session, and keeps what it is asked."""

    def __init__(self, dialect: Any) -> None:
        self.asked: list[Any] = []
        self.dialect = dialect

    def execute(self, statement: Any) -> Any:
        self.asked.append(statement)
        return SimpleNamespace(all=list, partitions=lambda _: [], one_or_none=lambda: None)

    def get_bind(self) -> Any:
        return SimpleNamespace(dialect=self.dialect)

    def scalars(self, statement: Any) -> list[Any]:
        self.asked.append(statement)
        return []

    def scalar(self, statement: Any) -> int:
        self.asked.append(statement)
        return 0


@pytest.mark.parametrize("dialect", [mysql.dialect, postgresql.dialect, sqlite.dialect])
def test_every_query_can_be_said_in_every_dialect(dialect: Any) -> None:
    statements = Statements(dialect())
    session: Any = statements
    now = datetime.now(tz=timezone.utc)
    for wanted in (Scan(["a"]), Scan(["a"], now, "text"), Scan(["a"], now, costs=True), Scan(["a"], costs=True)):
        assert not list(scan(session, wanted))
    load(session, [(1, "t", -1)])
    find(session, Place("d", "r", "t"))
    count_mapped(session, Place("d", "r", "t"))
    dags(session)
    assert len(statements.asked) == 8
    for statement in statements.asked:
        assert "SELECT" in str(statement.compile(dialect=dialect()))
