"""Debian's chromium, driven by playwright; tests that need it are skipped where either is missing."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Dialog, Page

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".cache" / "node" / "node_modules" / "axe-core" / "axe.min.js"
#: Where pictures are kept, if that is asked for.
PICTURES = os.environ.get("PAGE_PICTURES", "")
_SERIOUS = ("serious", "critical")
_FIND = "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs playwright")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open a page of its own whose errors fail the test: scripts that break, and what its security policy stops."""
    troubles: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        troubles.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda line: troubles.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("dialog", dismiss)
    try:
        yield page
        assert not troubles
    finally:
        context.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture of a page, where pictures are asked for."""
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def barriers(page: Page) -> list[str]:
    """Return what axe-core finds to keep people out, where it is serious; needs a tab with ``bypass_csp``."""
    if not AXE.exists():
        pytest.skip("axe-core is missing: make test-browser installs it")
    page.add_script_tag(path=str(AXE))
    found: list[dict[str, Any]] = page.evaluate(_FIND)
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in _SERIOUS
        for node in each["nodes"]
    ]
