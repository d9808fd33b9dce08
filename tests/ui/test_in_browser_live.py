"""The pages in a real browser while their database changes: refresh in place, and nothing that runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.batch.overview import OVERVIEW_KEY
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY
from ui import airflow_page
from ui.airflow_page import OVERVIEW, add, headers
from ui.browser import tab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from ui.seed import Seeder

pytestmark = pytest.mark.browser


@pytest.fixture
def address(seeder: Seeder) -> Iterator[str]:
    assert seeder
    with airflow_page.served() as found:
        yield found


def write(seeder: Seeder, key: str, value: Any) -> None:
    from airflow.models.xcom import XComModel

    table = XComModel.__table__
    seeder.session.execute(table.update().where(table.c.key == key).values(value=value))
    seeder.session.commit()


def progress(seeder: Seeder, done: int) -> dict[str, Any]:
    now = seeder.now.timestamp()
    samples = [[now - 60 + number, done * number // 60, 0] for number in range(0, 61, 10)]
    return {"at": now, "started_at": now - 60, "total": 200, "done": done, "failed": 0, "samples": samples}


def test_rows_move_without_a_reload_and_nobody_loses_their_place(
    browser: Browser, seeder: Seeder, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gemini_batch.ui.app.REFRESH_SECONDS", 1)
    for number in range(60):
        add(seeder, run_id=f"r{number}", began=seeder.now - timedelta(minutes=number), progress=progress(seeder, 50))
    with tab(browser, extra_http_headers=headers()) as page:
        page.goto(f"{address}/")
        page.evaluate("window.isTheSame = true")
        link = page.locator("table.batches th[scope=row] a").nth(30)
        link.focus()
        link.scroll_into_view_if_needed()
        place = page.evaluate("[document.activeElement.href, window.scrollY]")
        assert place[1] > 0
        assert "50 of 200" in page.locator("table.batches").inner_text()
        write(seeder, PROGRESS_KEY, progress(seeder, 120))
        page.get_by_text("120 of 200").first.wait_for(timeout=20_000)
        assert page.evaluate("[document.activeElement.href, window.scrollY]") == place
        assert page.evaluate("window.isTheSame")
        assert page.locator("#updated").inner_text().startswith("Updated ")


def test_the_chart_of_a_batch_grows_and_its_end_is_announced(
    browser: Browser, seeder: Seeder, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gemini_batch.ui.app.REFRESH_SECONDS", 1)
    add(seeder, progress=progress(seeder, 50))
    with tab(browser, extra_http_headers=headers()) as page:
        page.goto(f"{address}/")
        page.locator("table.batches th[scope=row] a").first.click()
        before = page.locator(".good-line").get_attribute("points")
        write(seeder, PROGRESS_KEY, progress(seeder, 180))
        page.get_by_text("180 of 200").or_(page.locator(".tile b", has_text="180")).first.wait_for(timeout=20_000)
        assert page.locator(".good-line").get_attribute("points") != before
        write(seeder, OVERVIEW_KEY, replace(OVERVIEW, phase="landing").to_value())
        page.locator("#announcer", has_text="Batches have changed.").wait_for(state="attached", timeout=20_000)
        assert page.locator("header .state").inner_text() == "landing"


def test_a_page_says_that_airflow_does_not_answer(
    browser: Browser, seeder: Seeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_gemini_batch.ui.app.REFRESH_SECONDS", 1)
    add(seeder)
    with ExitStack() as serving:
        address = serving.enter_context(airflow_page.served())
        with tab(browser, extra_http_headers=headers()) as page:
            page.goto(f"{address}/")
            page.locator("#updated", has_text="Updated").wait_for(timeout=20_000)
            serving.close()
            page.locator("#updated", has_text="Airflow does not answer").wait_for(timeout=20_000)
            assert page.locator("table.batches").is_visible()


@pytest.mark.parametrize("payload", ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "'-alert(1)-'"])
def test_nothing_that_somebody_wrote_runs(browser: Browser, seeder: Seeder, address: str, payload: str) -> None:
    value = {**dict.fromkeys(("model", "why", "output", "display_name"), payload), "version": 1, "phase": "running"}
    value |= {"jobs": [{"name": payload}], "events": [{"at": 1, "text": payload}], "failed_keys": [payload]}
    add(seeder, dag_id=f"dag {payload}", task_id=f"task {payload}", run_id=payload, xcoms={OVERVIEW_KEY: value})
    with tab(browser, extra_http_headers=headers()) as page:
        page.goto(f"{address}/")
        page.locator("table.batches th[scope=row] a").first.click()
        assert payload in page.locator("h1").inner_text()
        page.goto(f"{address}/cost")
        assert page.locator("h1").is_visible()
