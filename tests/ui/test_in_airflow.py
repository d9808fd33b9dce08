"""The page inside a real Airflow: its navigation, its frame, its theme, its links, its users."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from waiting import wait_for

from airflow_provider_gemini_batch.emulator import Emulator
from stack.local_airflow import ROOT, LocalAirflow
from ui.browser import barriers, picture, tab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, FrameLocator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
HERE = Path(__file__).parent
PASSWORD = "no-secret-only-for-tests"
USERS = ("admin", "reads-shop")


class PageAirflow(LocalAirflow):
    """An Airflow whose users sign in, since the page is about who may see what."""

    def token(self, user: str) -> str:
        """Sign a user in."""
        login = {"username": user, "password": PASSWORD}
        answer = requests.post(f"{self.base_url}/auth/token", json=login, timeout=60, proxies={"http": ""})
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def _logged_in(self) -> requests.Session:
        if self._session is None:
            session = requests.Session()
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self.token('admin')}"
            self._session = session
        return self._session


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(port=0) as found:
        yield found


@pytest.fixture(scope="module")
def airflow(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageAirflow]:
    """Run an Airflow with two users and one finished batch of each Dag."""
    folder = tmp_path_factory.mktemp("airflow")
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, PASSWORD)), encoding="utf-8")
    settings = {
        "PYTHONPATH": str(ROOT / "tests"),
        "AIRFLOW__CORE__AUTH_MANAGER": "ui.airflow_page.SomeDagsAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,reads-shop:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW_VAR_OUTPUT": str(folder),
        # Nobody kills tasks here, and on a busy machine one may take long to say that it has begun.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
    }
    connections = {"gemini_batch_default": emulator.connection()}
    with PageAirflow([HERE / "dags"], connections=connections, settings=settings) as found:
        emulator.control.speed(60)
        emulator.control.faults(hold_running=True)
        dags = ("shop", "secret")
        for dag_id in dags:
            found.trigger(dag_id, run_id="first")
        for dag_id in dags:
            wait_until_deferred_for_all(found, dag_id, "first")
        emulator.control.clear_faults()
        for dag_id in dags:
            found.expect_run(dag_id, "first")
        yield found


def wait_until_deferred_for_all(airflow: PageAirflow, dag_id: str, run_id: str) -> None:
    """Wait until the scheduler, too, has seen a task leave: one that resumes before that is failed by Airflow."""
    airflow.wait_task_state(dag_id, run_id, "describe", "deferred")
    log = airflow.home / "component-logs" / "scheduler.log"
    seen = re.compile(rf"executor event with state success.*dag_id='{dag_id}'.*run_id='{run_id}'")
    wait_for(
        lambda: seen.search(log.read_text(encoding="utf-8", errors="replace")),
        f"the scheduler to see {dag_id} leave",
        seconds=120,
        pause=0.5,
    )


@contextmanager
def tab_of(browser: Browser, airflow: PageAirflow, user: str = "admin", **options: Any) -> Iterator[Page]:
    """Open a tab of a user who has signed in."""
    with tab(browser, **options) as page:
        page.context.add_cookies([{"name": "_token", "value": airflow.token(user), "url": airflow.base_url}])
        page.set_default_timeout(60_000)
        yield page


def inside(page: Page) -> FrameLocator:
    return page.frame_locator('iframe[title="Gemini batches"]')


def test_the_navigation_leads_to_the_list_and_the_list_to_a_batch_and_its_log(
    browser: Browser, airflow: PageAirflow
) -> None:
    with tab_of(browser, airflow) as page:
        page.goto(airflow.base_url)
        page.get_by_role("link", name="Gemini batches").or_(page.get_by_text("Gemini batches")).first.click()
        frame = inside(page)
        frame.locator("table.batches").wait_for()
        assert {"shop", "secret"} <= set(frame.locator("table.batches th[scope=row] a").all_inner_texts())
        assert "40 ok" in frame.locator("table.batches").inner_text()
        picture(page, "in-airflow-list")
        frame.locator("select[name=dag]").select_option("shop")
        frame.get_by_role("button", name="Filter").click()
        frame.get_by_text("1 to 1 of 1").wait_for()
        assert frame.locator("table.batches th[scope=row] a").all_inner_texts() == ["shop"]
        frame.locator("table.batches th[scope=row] a").first.click()
        frame.locator("h1", has_text="shop").wait_for()
        assert "Landed 40 rows" in frame.locator(".story").inner_text()
        picture(page, "in-airflow-batch")
        frame.get_by_role("link", name="Log").click()
        page.wait_for_url("**/dags/shop/runs/first/tasks/describe**")
        assert page.locator("iframe").count() == 0


def test_a_link_to_google_opens_a_tab_of_its_own(browser: Browser, airflow: PageAirflow) -> None:
    with tab_of(browser, airflow) as page:
        page.goto(f"{airflow.base_url}/plugin/gemini-batches")
        frame = inside(page)
        frame.locator("table.batches th[scope=row] a").first.click()
        page.context.route("https://aistudio.google.com/**", lambda route: route.fulfill(body="the job"))
        with page.context.expect_page() as opened:
            frame.get_by_role("link", name="Job at Google").click()
        assert opened.value.url.startswith("https://aistudio.google.com/")
        assert "/plugin/gemini-batches" in page.url


def test_the_tasks_links_lead_to_its_batch_and_its_job(browser: Browser, airflow: PageAirflow) -> None:
    links = airflow.links("shop", "first", "describe")
    assert set(links) == {"Gemini batch", "Job at Google", "Batch output"}
    assert links["Job at Google"] == "https://aistudio.google.com/batches"
    assert not links["Batch output"]
    with tab_of(browser, airflow) as page:
        address = links["Gemini batch"]
        assert address is not None
        page.goto(address)
        shown = inside(page) if "/plugin/" in address else page
        shown.locator("h1", has_text="shop · describe").wait_for()


def test_the_frame_takes_over_airflows_theme_and_follows_it(browser: Browser, airflow: PageAirflow) -> None:
    with tab_of(browser, airflow, color_scheme="light") as page:
        page.goto(f"{airflow.base_url}/plugin/gemini-batches")
        frame = inside(page)
        frame.locator("table.batches").wait_for()
        look = "getComputedStyle(document.body).backgroundColor"
        assert frame.locator("body").evaluate(look) == "rgb(255, 255, 255)"
        page.evaluate("localStorage.setItem('theme', 'dark')")
        page.reload()
        frame.locator("table.batches").wait_for()
        assert frame.locator("body").evaluate(look) == "rgb(9, 9, 11)"
        picture(page, "in-airflow-dark")
        page.evaluate("document.documentElement.classList.replace('dark', 'light')")
        frame.locator("html[data-theme=light]").wait_for(state="attached")


def test_somebody_who_is_not_signed_in_gets_401_from_the_real_server(airflow: PageAirflow) -> None:
    for path in ("/", "/cost", "/batch?dag_id=shop&run_id=first&task_id=describe"):
        answer = requests.get(f"{airflow.base_url}/gemini-batches{path}", timeout=60, proxies={"http": ""})
        assert answer.status_code == 401, path
        assert "describe" not in answer.text
        assert re.search("not signed in", answer.text)


def test_a_user_who_may_read_one_dag_sees_it_alone(browser: Browser, airflow: PageAirflow) -> None:
    with tab_of(browser, airflow, "reads-shop") as page:
        page.goto(f"{airflow.base_url}/gemini-batches/")
        assert set(page.locator("table.batches th[scope=row] a").all_inner_texts()) == {"shop"}
        assert "secret" not in page.content()
        page.goto(f"{airflow.base_url}/gemini-batches/cost")
        assert "secret" not in page.content()
        answer = page.goto(f"{airflow.base_url}/gemini-batches/batch?dag_id=secret&run_id=first&task_id=describe")
        assert answer is not None
        assert answer.status == 403


def test_a_batch_is_watched_while_its_rows_move(browser: Browser, airflow: PageAirflow, emulator: Emulator) -> None:
    emulator.control.faults(hold_running=True)
    run_id = airflow.trigger("shop", run_id="watched")
    try:
        wait_until_deferred_for_all(airflow, "shop", run_id)
        with tab_of(browser, airflow, bypass_csp=True) as page:
            page.goto(f"{airflow.base_url}/gemini-batches/batch?dag_id=shop&run_id={run_id}&task_id=describe")
            page.evaluate("window.isTheSame = true")
            assert barriers(page) == []
            page.locator("header .state", has_text="running").wait_for(timeout=120_000)
            picture(page, "in-airflow-running")
            emulator.control.clear_faults()
            page.locator("header .state", has_text="succeeded").wait_for(timeout=120_000)
            assert page.evaluate("window.isTheSame")
            assert page.locator(".tile b").first.inner_text().startswith("40")
            picture(page, "in-airflow-watched")
    finally:
        airflow.expect_run("shop", run_id)
