"""The pages in a real browser with names, sums and states that are larger or stranger than a designer thinks of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.batch.overview import JobOverview
from ui import airflow_page
from ui.airflow_page import OVERVIEW, add, headers
from ui.browser import picture, tab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from ui.seed import Seeder

pytestmark = pytest.mark.browser
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}
LONG = "a_long_name_" * 15
ODD = replace(
    OVERVIEW,
    phase="failed",
    why="x" * 290,
    model=f"projects/my-project/locations/europe-west4/endpoints/{'9' * 60}",
    display_name=LONG,
    output=f"gs://{LONG}/rows.jsonl",
    total=10**12,
    succeeded=1,
    failed=10**12 - 1,
    input_tokens=10**13,
    output_tokens=10**12,
    usd=1_234_567.89,
    is_upper_bound=True,
).with_job(JobOverview("batches/another", shard=1, state="A_STATE_THAT_NOBODY_KNOWS", adopted=True, total=9, done=10))


@pytest.fixture
def odd(seeder: Seeder) -> Iterator[str]:
    """Serve a page with one odd batch and an ordinary one without a price; gives its address."""
    add(seeder, ODD, dag_id=LONG, run_id="manual__" + "2026-11-27T00:00:00+00:00" * 6, state="failed", ended=seeder.now)
    for number, usd in enumerate((0.0004, None)):
        add(seeder, replace(OVERVIEW, usd=usd), run_id=f"plain_{number}", state="success", ended=seeder.now)
    with airflow_page.served() as address:
        yield address


@pytest.mark.parametrize("look", [{}, PHONE], ids=["desktop", "phone"])
def test_long_names_make_no_page_wider_than_its_window(browser: Browser, odd: str, look: dict[str, Any]) -> None:
    with tab(browser, extra_http_headers=headers(), **look) as page:
        wide = {}
        for name in ("", "cost?days=30", "cost?days=90&by=dag", "the batch"):
            if name == "the batch":
                page.goto(f"{odd}/?days=all")
                page.locator("table.batches th[scope=row] a", has_text="a_long_name").click()
                page.wait_for_url("**/batch?**")
            else:
                page.goto(f"{odd}/{name}")
            picture(page, f"odd-{name.partition('?')[0] or 'list'}-{'phone' if look else 'desktop'}")
            wide[name] = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert set(wide.values()) == {0}, wide


def test_on_a_phone_all_that_a_cell_holds_stands_beside_its_label(browser: Browser, odd: str) -> None:
    below_the_label = """
        () => [...document.querySelectorAll('td[data-name] > *')]
            .filter(part => part.getBoundingClientRect().left < part.parentNode.getBoundingClientRect().left + 92)
            .map(part => part.parentNode.dataset.name + ': ' + part.textContent)
    """
    with tab(browser, extra_http_headers=headers(), **PHONE) as page:
        for path in ("?days=all", "cost?days=30"):
            page.goto(f"{odd}/{path}")
            assert page.evaluate(below_the_label) == []


def test_the_labels_of_a_chart_are_not_cut_off(browser: Browser, odd: str) -> None:
    cut = """
        () => [...document.querySelectorAll('.chart text')]
            .filter(text => text.getBoundingClientRect().width > 0)
            .filter(text => getComputedStyle(text.ownerSVGElement).overflow !== 'visible'
                || text.getBoundingClientRect().left < 0 || text.getBoundingClientRect().right > innerWidth)
            .map(text => text.textContent)
    """
    with tab(browser, extra_http_headers=headers(), **PHONE) as page:
        page.goto(f"{odd}/cost?days=90")
        assert page.evaluate(cut) == []
