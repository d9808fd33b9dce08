"""Tables, JSON and progress bars. Text from the service is never interpreted as markup or control sequences."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from typing_extensions import Self

    from airflow_provider_gemini_batch.api.models import BatchJob

_COLUMNS = ("job", "state", "model", "done", "failed", "total", "created", "display_name")


class Printer:
    """Prints values as a table for people or as JSON for programs.

    :param form: ``table`` or ``json``.
    """

    def __init__(self, form: str) -> None:
        self._json = form == "json"

    def jobs(self, jobs: Iterable[BatchJob], *, is_all: bool = True) -> None:
        """Print one line for each job; none means that nothing was found, unless errors say more."""
        listed = list(jobs)
        if self._json:
            self._print_json([job.model_dump(mode="json") for job in listed])
        elif listed or is_all:
            self._print_table(_COLUMNS, [_job_row(job) for job in listed])

    def job(self, job: BatchJob) -> None:
        """Print all that is known of one job."""
        if self._json:
            self._print_json(job.model_dump(mode="json"))
            return
        row = _job_row(job)
        row["started"], row["ended"] = _time(job.start_time), _time(job.end_time)
        if job.error is not None:
            row["error"] = f"{'' if job.error.code is None else job.error.code} {job.error.message}".strip()
        places = [job.src.file_name, *job.src.gcs_uris, job.src.bigquery_uri]
        row["source"] = ", ".join(place for place in places if place) or "inline"
        if job.dest is not None:
            row["output"] = job.dest.file_name or job.dest.gcs_uri or job.dest.bigquery_uri or "inline"
        self._print_table(("", "value"), [{"": name.replace("_", " "), "value": value} for name, value in row.items()])

    def rows(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Print rows under column names."""
        if self._json:
            self._print_json([{name: row.get(name) for name in columns} for row in rows])
        else:
            self._print_table(columns, rows)

    @staticmethod
    def _print_json(value: Any) -> None:
        print(json.dumps(value, indent=2, ensure_ascii=(sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")))

    @staticmethod
    def _print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            print("Nothing found.", file=sys.stderr)
            return
        table = Table(box=None, pad_edge=False, header_style="bold", show_header=all(columns))
        for name in columns:
            table.add_column(name.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(name)) for name in columns))
        # In a pipe, lines are as long as necessary.
        console = Console(width=None if sys.stdout.isatty() else 10_000, soft_wrap=not sys.stdout.isatty())
        with console.capture() as printed:  # rich itself would end the program with code 1 when its reader has closed
            console.print(table)
        print(printed.get(), end="")


class ProgressBars:
    """One bar for each job on standard error, so that standard output holds only results."""

    def __init__(self, names: Iterable[str]) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._bars: dict[str, TaskID] = {
            name: self._progress.add_task("", total=None, name=name, words="waiting") for name in names
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, job: BatchJob) -> None:
        """Show the current state of a job."""
        stats = job.completion_stats
        done = 0 if stats is None else stats.success + stats.failure
        total = None if stats is None else stats.total
        words = job.state.words + (f" {done} of {total}" if total else "")
        bar = self._bars.get(job.name)
        if bar is not None:
            self._progress.update(bar, total=total, completed=done, words=words)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(Text(text), soft_wrap=True)


def _job_row(job: BatchJob) -> dict[str, Any]:
    stats = job.completion_stats
    return {
        "job": job.name,
        "state": job.state.value,
        "model": job.model,
        "done": None if stats is None else stats.success,
        "failed": None if stats is None else stats.failure,
        "total": None if stats is None else stats.total,
        "created": _time(job.create_time),
        "display_name": job.display_name,
    }


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def _cell(value: Any) -> Text:
    text = "-" if value in (None, "") else str(value)
    return Text("".join(character if character.isprintable() else " " for character in text))
