"""Whatever a database holds, a page stays a page: all of it is text, nothing breaks, no prompt or response is shown."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.batch.overview import OVERVIEW_KEY, Overview
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY
from ui.airflow_page import HOME, OVERVIEW, add, detail, headers, read, words
from ui.seed import KINDS

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from ui.seed import Seeder


class Finder(HTMLParser):
    """Collects what could run: tags, attributes and addresses that no template has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in {"img", "iframe", "object", "style", "base"}:
            self.found.append(tag)
        if tag == "script" and "/gemini-batches/static/" not in (values.get("src") or ""):
            self.found.append("script")
        self.found += [name for name in values if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            if not re.match(r"/|#|https://(console\.cloud|aistudio)\.google\.com/|$", values.get(name) or ""):
                self.found.append(f"{name}={values[name]}")


def found_in(text: str) -> list[str]:
    finder = Finder()
    finder.feed(text)
    return finder.found


def test_the_finder_finds() -> None:
    assert found_in("<img onload=x><a href='javascript:x'>") == ["img", "onload", "href=javascript:x"]


PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{1234*4321}}",
    "</title><svg onload=alert(1)>",
    "' onmouseover='alert(1)",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_is_in_a_field_is_text(page: TestClient, seeder: Seeder, payload: str) -> None:
    dag_id = f"dag {payload}"
    names = [each for each in Overview.__dataclass_fields__ if each not in ("jobs", "events", "samples")]
    value: dict[str, Any] = dict.fromkeys(names, payload)
    value |= {
        "version": 1,
        "phase": "running",
        "jobs": [{"name": payload, "state": payload, "shard": payload, "round": payload, "total": payload}],
        "events": [{"at": 1, "text": payload}, {"at": payload, "text": payload}, payload],
        "samples": [payload, [payload, payload, payload], {"at": payload}],
        "by_status": {payload: 3, "error": payload},
        "reasons": {payload: {payload: 1}, "error": payload},
        "failed_keys": [payload],
        "why": payload,
    }
    each = {payload: [payload, payload, payload, payload]}
    progress = dict.fromkeys(("at", "state", "total", "done", "failed", "seconds_left", "started_at"), payload)
    for number, state in enumerate(("deferred", "failed", "success", "up_for_retry")):
        add(
            seeder,
            dag_id=dag_id,
            task_id=f"task {payload}",
            run_id=f"{number} {payload}",
            state=state,
            ended=None if state == "deferred" else seeder.now,
            xcoms={OVERVIEW_KEY: value, PROGRESS_KEY: progress | {"each": each}},
        )
    place = {"dag_id": dag_id, "task_id": f"task {payload}"}
    texts = [
        read(page, "/"),
        read(page, "/", q=payload, dag=payload, model=payload, state=payload, days=payload, page=payload),
        read(page, "/cost", by=payload, dag=payload, model=payload, days=payload),
        read(page, "/cost"),
        *(read(page, "/batch", run_id=f"{number} {payload}", **place) for number in range(4)),
    ]
    answer = page.get(f"{HOME}/batch", params={"dag_id": payload}, headers=headers())
    for text in (*texts, answer.text):
        assert not found_in(text)
    assert not any("5332114" in words(text) for text in texts)


@pytest.mark.parametrize("value", ["text", 7, None, [], {}, {"version": 99}, {"version": 1}, [{"version": 1}]])
def test_a_foreign_value_under_our_key_breaks_no_page(page: TestClient, seeder: Seeder, value: Any) -> None:
    add(seeder, xcoms={OVERVIEW_KEY: value, PROGRESS_KEY: value})
    assert "describe" in read(page, "/")
    assert "describe" in detail(page)
    read(page, "/cost")


def test_numbers_beyond_all_measure_break_no_page(page: TestClient, seeder: Seeder) -> None:
    value = {"version": 1, "phase": "running"}
    numbers = ("total", "submitted_at", "started_at", "ended_at", "usd", "input_tokens", "succeeded", "failed")
    # Some are too large only when they are added up, so there are two of each.
    for number, odd in enumerate((1e300, -1e300, 10**400, 2**52, -1, 0.5, True, 1.7e308, nan, inf) * 2):
        xcoms = {OVERVIEW_KEY: value | dict.fromkeys(numbers, odd), PROGRESS_KEY: dict.fromkeys(("at", "done"), odd)}
        ended: dict[str, Any] = {"state": "success", "ended": seeder.now} if number % 3 else {}
        add(seeder, run_id=f"r{number}", xcoms=xcoms, **ended)
        detail(page, run_id=f"r{number}")
    read(page, "/")
    read(page, "/cost")


def test_the_smallest_number_breaks_no_chart(page: TestClient, seeder: Seeder) -> None:
    add(seeder, replace(OVERVIEW, usd=5e-324), state="success", ended=seeder.now)
    assert "under $0.0001" in words(read(page, "/cost"))


@pytest.mark.parametrize("path", ["/?q=a%00b", "/batch?dag_id=a%00b", "/batch?dag_id=shop&run_id=%00", "/batch"])
def test_an_address_that_names_nothing_leads_to_a_page(page: TestClient, path: str) -> None:
    answer = page.get(f"{HOME}{path}", headers=headers())
    assert answer.status_code == 404
    assert "Nothing here" in words(answer.text)
    assert "Content-Security-Policy" in answer.headers


def test_no_page_shows_a_prompt_or_a_response(page: TestClient, seeder: Seeder) -> None:
    seeder.batches(40, 14)
    texts = [read(page, "/", days="all"), read(page, "/cost", days="90")]
    links = re.findall(r'href="(/gemini-batches/batch\?[^"]+)"', texts[0])
    texts += [page.get(html.unescape(link), headers=headers()).text for link in links]
    assert len(texts) > 40
    assert not [text for text in texts if "which no page may show" in text]
    assert all(kind.dag_id in texts[1] for kind in KINDS)


def test_pages_carry_no_script_or_style_and_say_so(page: TestClient, seeder: Seeder) -> None:
    seeder.batches(6, 7)
    for path in ("/", "/cost"):
        answer = page.get(f"{HOME}{path}", headers=headers())
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)", answer.text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", answer.text)
        assert answer.headers["Cache-Control"] == "no-store"
        assert not re.search(r'(src|href)="https?://(?!console\.cloud\.google\.com|aistudio\.google\.com)', answer.text)


@pytest.mark.parametrize("name", ["page.css", "page.js", "theme.js", "icon.svg", "icon-dark.svg"])
def test_what_a_page_loads_is_served(page: TestClient, name: str) -> None:
    answer = page.get(f"{HOME}/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_below_a_path_of_its_own_every_link_begins_with_it(seeder: Seeder) -> None:
    from starlette.testclient import TestClient as Client

    from ui import airflow_page

    add(seeder, replace(OVERVIEW, output=""))
    with airflow_page.client() as page:
        below = Client(page.app, base_url="http://airflow.test", root_path="/airflow")
        text = below.get(f"/airflow{HOME}/", headers=headers()).text
    links = re.findall(r'(?:href|src|action)="(?!https|#)([^"]+)"', text)
    assert links
    assert not [link for link in links if not link.startswith("/airflow/")]
