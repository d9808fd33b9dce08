"""`make screenshots`: the pictures of the documentation, taken in a real Airflow that runs the example Dags."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from airflow_provider_gemini_batch.emulator import Emulator
from stack.local_airflow import ROOT, LocalAirflow
from ui.browser import chromium, tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = ROOT / "docs" / "_static"
#: Small enough for a page, wide enough for the table.
SIZE = {"width": 1280, "height": 720}
FINISHED = ("reviews_to_structured", "corpus_to_parquet", "stdlib_summaries")
RUNNING = "stdlib_summaries"


def main() -> int:
    """Run the Dags, one of them still running, and take the pictures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator(port=0, pending_seconds=4, job_seconds=200) as emulator,
        LocalAirflow(
            [ROOT / "example_dags"],
            connections={"gemini_batch_default": emulator.connection()},
            settings={"GEMINI_BATCH_DEMO_FOLDER": folder, "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120"},
        ) as airflow,
        chromium() as browser,
    ):
        emulator.control.faults(row_error_every=40, row_error_code=8, row_error_message="Resource has been exhausted.")
        runs = [(dag_id, airflow.trigger(dag_id)) for dag_id in FINISHED]
        for dag_id, run_id in runs:
            airflow.expect_run(dag_id, run_id, seconds=600)
        emulator.control.faults(hold_running=True)
        waiting = airflow.trigger(RUNNING)
        airflow.wait_task_state(RUNNING, waiting, "summarise", "deferred", seconds=200)
        take(browser, airflow, runs[-1])
        emulator.control.clear_faults()
        airflow.expect_run(RUNNING, waiting, seconds=600)
    return 0


def take(browser: Browser, airflow: LocalAirflow, batch: tuple[str, str]) -> None:
    """Take a picture of the list in Airflow's frame, and one of a finished batch."""
    token = str(airflow._logged_in().headers["Authorization"]).removeprefix("Bearer ")
    dag_id, run_id = batch
    with tab(browser, viewport=SIZE, color_scheme="light") as page:
        page.context.add_cookies([{"name": "_token", "value": token, "url": airflow.base_url}])
        page.set_default_timeout(90_000)
        page.goto(f"{airflow.base_url}/plugin/gemini-batches")
        frame = page.frame_locator('iframe[title="Gemini batches"]')
        frame.locator("table.batches", has_text="running").wait_for()
        keep(page, "page-list")
        frame.locator("table.batches a", has_text=dag_id).last.wait_for()
        link = airflow.links(dag_id, run_id, "summarise")["Gemini batch"]
        page.goto(str(link))
        page.frame_locator('iframe[title="Gemini batches"]').locator("h1", has_text=dag_id).wait_for()
        keep(page, "page-batch")


def keep(page: Page, name: str) -> None:
    """Write a picture to docs/_static."""
    page.wait_for_load_state("networkidle")
    page.screenshot(path=str(PICTURES / f"{name}.png"), animations="disabled")
    print(PICTURES.relative_to(ROOT) / f"{name}.png", flush=True)


if __name__ == "__main__":
    sys.exit(main())
