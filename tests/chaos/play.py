"""Cases at play: one Airflow, a service for each case, many at a time where they do not disturb each other."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.board import Board
from chaos.case import ROWS
from chaos.stage import Stage
from emulator.storage_server import storage_server
from stack.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from chaos.case import Case

HERE = Path(__file__).parent
AT_A_TIME = 6
#: Short enough that a lost process is soon noticed, long enough for a machine with more to do than it can.
SETTINGS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
}


@dataclass(frozen=True)
class Result:
    """What came of a case."""

    case: Case
    created: int
    deliveries: int
    seconds: float
    problems: tuple[str, ...]
    log: str = ""

    def row(self) -> str:
        """One line of the printed table."""
        mark = "FAIL" if self.problems else "pass"
        numbers = f"{self.created} of {self.case.created:<3} {self.deliveries} of {self.case.deliveries:<3}"
        return f"{mark}  {self.case.name:<28} {numbers} {self.case.end:<8} {self.seconds:4.0f} s  {self.case.done}"


class Theatre:
    """An Airflow with a Dag and a service for each case.

    :param at_a_time: worker slots, and how many cases are played side by side.
    :param triggerers: how many there are from the beginning.
    :param database_url: of an empty PostgreSQL; SQLite otherwise.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        at_a_time: int = AT_A_TIME,
        triggerers: int = 1,
        database_url: str | None = None,
    ) -> None:
        self._at_a_time, self._triggerers, self._database_url = at_a_time, triggerers, database_url
        self.folder = Path(tempfile.mkdtemp(prefix="gemini-batch-chaos-"))
        cases = [_placed(case, self.folder) for case in cases]
        self._stack = ExitStack()
        needs_storage = any(case.service == "vertex" for case in cases)
        self._storage = self._stack.enter_context(storage_server("my-bucket")) if needs_storage else None
        self.stages = [Stage(case, self.folder, self._storage) for case in cases]

    def __enter__(self) -> Self:
        (self.folder / "dags.json").write_text(json.dumps([stage.plan() for stage in self.stages]), "utf-8")
        # Too much for the create call itself: these rows are uploaded.
        for name in ("upload", "cut"):
            lines = [json.dumps({"key": str(row), "text": f"Row {row}. " + 400_000 * "x"}) for row in range(3)]
            (self.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        (self.folder / "host-a").mkdir()
        lines = [json.dumps({"id": f"r{row}", "size": row, "text": f"Row {row}."}) for row in range(ROWS)]
        (self.folder / "host-a" / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        # A copy: nobody who edits the file changes what is being played.
        shutil.copytree(HERE / "dags", self.folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        settings = {**SETTINGS, "CHAOS_FOLDER": str(self.folder)}
        if self._storage is not None:
            settings["STORAGE_EMULATOR_HOST"] = self._storage
        connections: Mapping[str, object] = {stage.case.conn_id: stage.connection() for stage in self.stages}
        self.airflow = LocalAirflow(
            [self.folder / "dags"],
            connections=connections,
            triggerers=self._triggerers,
            parallelism=self._at_a_time,
            database_url=self._database_url,
            settings=settings,
        )
        self._stack.enter_context(self.airflow)
        self.board = Board(self.airflow.base_url)
        self.board.start()
        self._stack.callback(self.board.stop)
        for stage in self.stages:
            stage.enter(self.airflow, self.board)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stage in self.stages:
            stage.close()
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def play(self) -> Iterator[Result]:
        """Play the cases that get along side by side, then those that shake everything, one after the other."""
        together = [stage for stage in self.stages if not stage.case.alone]
        pool = ThreadPoolExecutor(self._at_a_time)
        try:
            for done in as_completed([pool.submit(self._play, stage) for stage in together]):
                yield done.result()
        finally:
            # Whoever breaks off does not wait for the cases: the Airflow that they play in goes first.
            pool.shutdown(wait=False, cancel_futures=True)
        for stage in self.stages:
            if stage.case.alone:
                self._one_triggerer()
                yield self._play(stage)

    def _one_triggerer(self) -> None:
        for name in self.airflow.triggerers()[1:]:
            self.airflow.stop_triggerer(name)
        if not self.airflow.triggerers():
            self.airflow.start_triggerer()
        self.airflow.wait_healthy()

    def _play(self, stage: Stage) -> Result:
        began = time.monotonic()
        problems: list[str] = []
        try:
            stage.begin()
            for word, *arguments in stage.case.steps:
                getattr(stage, word)(*arguments)
            stage.until_over()
            problems += stage.problems()
        except Exception as error:  # noqa: BLE001  a case that breaks is a row that failed, and the others go on
            where = traceback.extract_tb(error.__traceback__)[1].line
            problems.append(f"{type(error).__name__}: {error} (at {where})")
        return Result(
            stage.case,
            created=len(stage.jobs),
            deliveries=len(stage.deliveries),
            seconds=time.monotonic() - began,
            problems=tuple(problems),
            log=stage.events() if problems else "",
        )


def _placed(case: Case, folder: Path) -> Case:
    """Put the folder of this run into the paths of a case."""
    arguments = {
        name: value.replace("{folder}", str(folder)) if isinstance(value, str) else value
        for name, value in case.arguments.items()
    }
    return replace(case, arguments=arguments)
