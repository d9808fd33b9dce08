"""The pages in a real browser: looks, keyboard, theme, time zone, what axe-core says; no Airflow around them."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from ui import airflow_page
from ui.airflow_page import headers
from ui.browser import barriers, picture, tab
from ui.seed import Seeder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
}
PAGES = ("list", "running", "failed", "succeeded", "repairing", "waiting for quota", "cost", "empty")
# A list that shows what a list is about: something of everything, no single test depends on it.
FINISHED, ACTIVE = 120, 14


@pytest.fixture(scope="module")
def many(page_database: None) -> Iterator[str]:
    """Serve a page with many batches; gives its address."""
    from airflow.utils.session import create_session

    assert page_database is None
    with create_session() as session:
        Seeder(session, datetime.now(tz=timezone.utc)).batches(FINISHED, ACTIVE)
    with airflow_page.served() as address:
        yield address


def open_page(page: Page, address: str, name: str) -> None:
    if name in ("list", "cost", "empty"):
        path = {"list": "/", "cost": "/cost?days=30", "empty": "/?q=nothing+like+this"}[name]
        page.goto(f"{address}{path}")
        return
    page.goto(f"{address}/?days=all&state={name}")
    page.locator("table.batches th[scope=row] a").first.click()
    page.wait_for_url("**/batch?**")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_kept_out_of_a_page(browser: Browser, many: str, look: str, name: str) -> None:
    with tab(browser, extra_http_headers=headers(), bypass_csp=True, **LOOKS[look]) as page:
        open_page(page, many, name)
        picture(page, f"{name}-{look}")
        assert barriers(page) == []


@pytest.mark.parametrize("look", ["phone", "light"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_scrolls_down_and_never_sideways(browser: Browser, many: str, look: str, name: str) -> None:
    with tab(browser, extra_http_headers=headers(), **LOOKS[look]) as page:
        open_page(page, many, name)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_list_can_be_used_with_keys_alone(browser: Browser, many: str) -> None:
    with tab(browser, extra_http_headers=headers()) as page:
        page.goto(f"{many}/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.locator("select[name=state]").focus()
        page.keyboard.type("failed")
        page.locator("button[type=submit]").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**state=failed**")
        states = page.locator("table.batches .state").all_inner_texts()
        assert set(states) == {"failed"}
        page.locator("table.batches th[scope=row] a").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/batch?**")


def test_the_theme_that_airflow_keeps_wins_over_the_systems(browser: Browser, many: str) -> None:
    with tab(browser, extra_http_headers=headers(), color_scheme="light") as page:
        page.goto(f"{many}/")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.evaluate("localStorage.setItem('theme', 'dark')")
        page.reload()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light == "rgb(255, 255, 255)"
        assert dark == "rgb(9, 9, 11)"


def test_times_are_shown_in_the_zone_that_airflow_keeps(browser: Browser, many: str) -> None:
    with tab(browser, extra_http_headers=headers(), timezone_id="UTC") as page:
        page.goto(f"{many}/")
        before = page.locator("table.batches time").first.inner_text()
        page.evaluate("""localStorage.setItem('timezone', '"Asia/Kathmandu"')""")
        page.reload()
        after = page.locator("table.batches time").first.inner_text()
        assert "UTC" not in before
        minutes = [int(re.findall(r":(\d\d)", text)[0]) for text in (before, after)]
        assert (minutes[1] - minutes[0]) % 60 == 45


def test_without_scripts_a_page_can_be_read(browser: Browser, many: str) -> None:
    with tab(browser, extra_http_headers=headers(), java_script_enabled=False) as page:
        page.goto(f"{many}/")
        assert "UTC" in page.locator("table.batches time").first.inner_text()
        page.locator("table.batches th[scope=row] a").first.click()
        assert page.locator("h1").inner_text()


def test_somebody_who_is_not_signed_in_sees_that_on_the_page(browser: Browser, many: str) -> None:
    with tab(browser) as page:
        answer = page.goto(f"{many}/")
        assert answer is not None
        assert answer.status == 401
        assert page.locator("h1").inner_text() == "You are not signed in"
