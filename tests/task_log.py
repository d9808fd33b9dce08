"""What a person reads in a task's log: caught from Airflow's runner, made the same in each run, compared with a file.

``REWRITE_LOGS=1 python -m pytest tests/runtime/test_logs.py`` writes the files again; read the difference as prose.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

import airflow_provider_gemini_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGS = Path(__file__).parent / "runtime" / "logs"
OURS = str(Path(airflow_provider_gemini_batch.__file__).parent)
# Lines of Airflow's that say nothing of the batch.
_NOISE = re.compile(
    r"^::|Task instance state updated|^Task started|RenderedTaskInstanceFields|^Pushing xcom|"
    "^trigger starting|^sleeping|^yielding event"
)

_WAITING = re.compile(r"INFO (batches/\w+: (pending|running)|\d+ of \d+ rows done|Pausing task)")


class TaskLog(logging.Handler):
    """The lines of a task's log, of Airflow's runner and of this package."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of a module of ours."""
        if record.name.startswith("airflow_provider_gemini_batch"):
            self._add(record.levelname, record.getMessage(), record.exc_info[1] if record.exc_info else None)

    def take(self, _logger: object, level: str, event: dict[str, Any]) -> dict[str, Any]:
        """Take a line of Airflow's runner, of an operator or of a trigger; as a processor of structlog."""
        name = str(event.get("logger_name") or event.get("logger") or "")
        text = str(event.get("event", ""))
        if level != "debug" and not _NOISE.search(text) and not name.startswith("airflow."):
            arguments = event.get("positional_args", ())
            line = (text % arguments if arguments else text).strip()
            line += f" {event['reason']}" if "reason" in event else ""
            error = event.get("exc_info")
            caught = sys.exc_info()[1] if error is True else error if isinstance(error, BaseException) else None
            self._add("ERROR" if level == "exception" else level.upper(), line, caught)
        return event

    def say(self, text: str) -> None:
        """Add a heading of the test's."""
        self.lines.append(f"-- {text}")

    def _add(self, level: str, text: str, error: BaseException | None) -> None:
        self.lines.append(f"{level} {text}")
        while error is not None:
            frames = sum(OURS in frame.filename for frame in traceback.extract_tb(error.__traceback__))
            self.lines.append(f"    {type(error).__name__}: {error}  [{frames} frames of ours]")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def text(self, *, folder: str, is_held: bool = False) -> str:
        """Return the lines without what differs from run to run.

        :param is_held: jobs were held in a state, so it is a matter of luck whether it was seen in time.
        """
        lines = [line for line in self.lines if not (is_held and _WAITING.match(line))]
        return normalised("\n".join(lines) + "\n", folder)


@contextmanager
def caught_log() -> Iterator[TaskLog]:
    """Catch what is logged meanwhile."""
    log = TaskLog()
    root = logging.getLogger()
    processors: list[Any] = structlog.get_config()["processors"]
    root.addHandler(log)
    processors.insert(0, log.take)
    try:
        yield log
    finally:
        processors.remove(log.take)
        root.removeHandler(log)


def normalised(text: str, folder: str) -> str:
    """Give jobs numbers in the order in which they come, and take times, ports and folders out."""
    names: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"batches/{len(names) + 1}")

    text = re.sub(r"batches/[a-z0-9]{8,}", number, text.replace(folder, "/out"))
    for pattern, word in (
        (r"gb1-[\w.-]+", "TAG"),
        (r"127\.0\.0\.1:\d+|on 127\.0\.0\.1(?= )", "HOST"),
        (r"until (\d{4}-\d\d-\d\d )?\d\d:\d\d UTC", "until TIME UTC"),
        (r"(within|for|in) \d+(\.\d+)? (h|min|s)\b", r"\1 TIME"),
        (r"manual__[\w:.+-]+", "RUN"),
    ):
        text = re.sub(pattern, word, text)
    return text


def check(name: str, text: str) -> None:
    """Compare a log with its file, or write it again where the environment says so."""
    path = LOGS / f"{name}.log"
    if os.environ.get("REWRITE_LOGS"):
        LOGS.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), f"read the difference as prose, then REWRITE_LOGS=1 ({path.name})"
