"""`make demo`: a nightly DAG of some 200 requests in a real Airflow, with proof that no worker was held meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import requests

from airflow_provider_gemini_batch.ui import MOUNT, ROUTE
from stack.airflow_rest import FINISHED
from stack.local_airflow import ROOT, LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "airflow_provider_gemini_batch"
DAG, TASK = "stdlib_summaries", "summarise"
FOLDER = ROOT / ".demo"
JOB_SECONDS = 25
PICTURE = FOLDER / "page.png"
LONGEST_SECONDS = 300
SHOWN_ROWS = 3


class Look(NamedTuple):
    """What could be seen at one moment."""

    task: str
    job: str
    rows: int
    workers: int

    def __str__(self) -> str:
        job = (
            f"{self.job.removeprefix('BATCH_STATE_').removeprefix('JOB_STATE_')}, {self.rows} requests"
            if self.job
            else "-"
        )
        return f"task {self.task:<10} job {job:<26} worker processes {self.workers}"


class Demo:
    """The running pieces: an emulator in a process of its own and an Airflow."""

    def __init__(self, emulator_url: str, airflow: LocalAirflow) -> None:
        self._emulator_url = emulator_url
        self._airflow = airflow
        self.looks: list[tuple[float, Look]] = []

    def watch(self, run_id: str) -> str:
        """Print what changes until the run has ended; return its state."""
        started = time.monotonic()
        while True:
            state = self._airflow.run_state(DAG, run_id)
            look = self._look(run_id)
            seconds = time.monotonic() - started
            if not self.looks or look != self.looks[-1][1]:
                print(f"  {seconds:5.1f} s  {look}", flush=True)
            self.looks.append((seconds, look))
            if state in FINISHED:
                return state
            if seconds > LONGEST_SECONDS:
                raise TimeoutError(f"the run has not ended within {LONGEST_SECONDS} s")
            time.sleep(0.5)

    def _look(self, run_id: str) -> Look:
        task = self._airflow.task_instance(DAG, run_id, TASK) or {}
        jobs = self.books()["jobs"]
        workers = len(self._airflow.worker_processes())
        if not jobs:
            return Look(task.get("state") or "waiting", "", 0, workers)
        return Look(task.get("state") or "waiting", jobs[-1]["state"], jobs[-1]["rows"], workers)

    def books(self) -> dict[str, Any]:
        """Return what the emulator has counted."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{self._emulator_url}/emulator/books", timeout=20)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def report(self, run_id: str) -> None:
        """Print where the rows are, a few of them, counts, tokens, cost and the proof; AssertionError when it fails."""
        result = self._airflow.xcom(DAG, run_id, TASK)
        output = Path(result["output"])
        rows = output.read_text(encoding="utf-8").splitlines()
        print(f"\nThe rows are in {output}, {len(rows)} of them. The first {SHOWN_ROWS}:")
        for row in map(json.loads, rows[:SHOWN_ROWS]):
            print(f"  {row['key']:<12} {row['status']:<8} {row.get('text', '')[:90]}")
        counts, usage = result["counts"], result["usage"]
        print("Counts: " + ", ".join(f"{value} {name}" for name, value in counts.items()))
        print("Tokens: " + ", ".join(f"{value:,} {name.removesuffix('_tokens')}" for name, value in usage.items()))
        if result["cost"]:
            print(f"Cost: {result['cost']['usd']:.4f} USD, by the batch price of the model")
        books = self.books()
        print(f"Jobs that were created: {books['created']}. Calls to the service: {json.dumps(books['requests'])}")
        assert counts["total"] == len(rows) == books["jobs"][0]["rows"], "rows were lost"
        assert books["created"] == 1, "more than one job was paid for"
        self._prove()

    def _prove(self) -> None:
        waiting = [(at, look) for at, look in self.looks if look.task == "deferred" and "SUCCEEDED" not in look.job]
        assert waiting, "the task was never seen deferred"
        began, ended = waiting[0][0], waiting[-1][0]
        # The process that deferred takes a moment to end; from then on there must be none until the batch is done.
        left = max((at for at, look in waiting if look.workers), default=began)
        print(
            f"No worker was held: the task waited {ended - began:.0f} s for its batch; its process was gone after "
            f"{left - began:.0f} s, and there was none in the other {ended - left:.0f} s."
        )
        assert ended - left > (ended - began) / 2, "a worker was held"


@contextlib.contextmanager
def emulator_process() -> Iterator[tuple[str, str]]:
    """Run the emulator in a process of its own; gives its URL and the Airflow connection to use."""
    command = [sys.executable, "-m", "airflow_provider_gemini_batch.emulator", "--port", "0"]
    command += ["--job-seconds", str(JOB_SECONDS)]
    with (FOLDER / "emulator.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = _first_url(FOLDER / "emulator.log", process)
            yield url, json.dumps({"conn_type": "gemini_batch", "host": url, "password": "any-key"})
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_url(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://[\d.]+:\d+", log.read_text(encoding="utf-8"))
        if found:
            return found.group()
        time.sleep(0.1)
    raise RuntimeError(f"the emulator did not start:\n{log.read_text(encoding='utf-8')}")


def take_picture(airflow: LocalAirflow) -> None:
    """Save a picture of the page where chromium is installed; what fails here is told, and no more."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("No picture of the page: chromium is not installed.")
        return
    # The browser has nobody's login: it gets a copy of the page, with the files that this names beside it.
    copy = FOLDER / "page"
    shutil.copytree(Path(str(files(PACKAGE))) / "ui" / "static", copy / "static")
    page = airflow.page(f"{MOUNT}/").replace(f"{MOUNT}/static/", "static/")
    (copy / "page.html").write_text(page, encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,700"]
    command += [f"--user-data-dir={copy}/browser", f"--screenshot={PICTURE}", (copy / "page.html").as_uri()]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, check=False, capture_output=True, timeout=60)
    print(f"A picture of the page: {PICTURE}" if PICTURE.exists() else "No picture of the page: chromium took none.")


def main() -> int:
    """Run the demo; 0 when the rows are there and no worker was held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Enter is pressed")
    options = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    started = time.monotonic()
    with emulator_process() as (url, connection):
        print(f"Emulator of the batch service: {url}")
        print(
            "Starting Airflow: database, api-server, scheduler, dag-processor, triggerer (half a minute) ...",
            flush=True,
        )
        airflow = LocalAirflow(
            [ROOT / "example_dags"],
            connections={"gemini_batch_default": connection},
            settings={"GEMINI_BATCH_DEMO_FOLDER": str(FOLDER / "output")},
            home=FOLDER / "airflow",
        )
        with airflow:
            print(f"Airflow: {airflow.base_url} (healthy after {time.monotonic() - started:.0f} s)")
            print(f"See the batch as it runs: {airflow.base_url}/plugin/{ROUTE}")
            demo = Demo(url, airflow)
            run_id = airflow.wait_scheduled_run(DAG)
            print(f"The scheduler has started the nightly run of {DAG}:", flush=True)
            state = demo.watch(run_id)
            if state != "success":
                task = airflow.task_instance(DAG, run_id, TASK) or {}
                print(
                    f"The run ended as {state}.",
                    *airflow.logs(DAG, run_id, TASK, try_number=task.get("try_number", 1)),
                    sep="\n",
                )
                return 1
            demo.report(run_id)
            take_picture(airflow)
            if options.keep:
                input(f"Look around at {airflow.base_url}, then press Enter. ")
    print(f"Done in {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
