"""A dataset at play: its tasks are run one after the other, as Airflow would, against the emulator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from airflow.sdk.exceptions import TaskDeferred
from pyarrow import parquet
from task_context import StateStore, task_context

from airflow_provider_gemini_batch.datasets import GeminiCommitPartsOperator, GeminiPlanPartsOperator
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

MODEL = "gemini-2.5-flash"
CARRY = ("id", "day", "price", "note")
SCHEMA = pa.schema(
    {"id": pa.string(), "text": pa.string(), "day": pa.date32(), "price": pa.decimal128(8, 2), "note": pa.string()}
)


class BreaksOff(BytesIO):
    """A file of a storage whose connection ends after some reads, of which some libraries say no more than this."""

    def __init__(self, content: bytes, reads: int) -> None:
        super().__init__(content)
        self._reads = reads

    def read(self, size: int | None = -1) -> bytes:
        self._reads -= 1
        if self._reads < 0:
            raise OSError("Socket is closed")
        return super().read(size)


@dataclass
class Instance:
    """What Airflow keeps of one mapped task instance."""

    store: StateStore = field(default_factory=StateStore)
    try_number: int = 1
    max_tries: int = 0
    memo: str = ""


@dataclass
class Board:
    """A dataset whose tasks are run one after the other, as Airflow would; instances are known by their map index."""

    service: Emulator
    source: Path
    target: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    instances: dict[int, Instance] = field(default_factory=dict)
    run_id: str = "r"
    task_id: str = "part"
    carry: Sequence[str] = CARRY

    def plan(self, **given: Any) -> list[dict[str, Any]]:
        options = {
            "input_path": f"{self.source}/",
            "output_path": f"{self.target}/",
            "model": MODEL,
            "carry": list(self.carry),
            "prompt_template": "{text}",
            "part_arguments": {"key_field": "id"},
            **given,
        }
        for name, value in self.arguments.items():
            if name in {"prompt_template", "output_schema"}:
                options[name] = value
            elif name not in options:
                options["part_arguments"] = {**options["part_arguments"], name: value}
        return GeminiPlanPartsOperator(task_id="plan", **options).execute(task_context())

    def run_part(self, index: int, part: dict[str, Any]) -> dict[str, Any] | None:
        """Start a mapped task instance, or go on with it after its wait; None: it waits."""
        instance = self.instances.setdefault(index, Instance())
        options = {
            "model": MODEL,
            "output_path": f"{self.target}/",
            "prompt_template": "{text}",
            "key_field": "id",
            "carry": list(self.carry),
            "lookup_timeout": 0.0,
            "skip_whole_parts": True,
            **part,
            **self.arguments,
        }
        task = GeminiCreateBatchJobOperator(task_id="part", **options)
        context: Any = task_context(
            task_id=self.task_id,
            run_id=self.run_id,
            map_index=index,
            try_number=instance.try_number,
            max_tries=instance.max_tries,
        )
        context["task_state_store"] = instance.store
        try:
            if instance.memo:
                return task.execute_complete(context, None, memo=instance.memo)
            return task.execute(context)
        except TaskDeferred as deferred:
            instance.memo = (deferred.kwargs or {})["memo"]
            return None

    def run_all(self, parts: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
        return [self.run_part(index, part) for index, part in enumerate(parts)]

    def clear(self) -> None:
        for instance in self.instances.values():
            instance.try_number, instance.max_tries = instance.try_number + 1, instance.try_number
            instance.memo = ""

    def commit(self, parts: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
        options = {"parts": parts, "output_path": f"{self.target}/", "model": MODEL, **given}
        return GeminiCommitPartsOperator(task_id="commit", **options).execute(task_context())

    def end_all(self) -> None:
        self.service.control.advance(3600)

    def states(self) -> list[str]:
        return [job["state"] for job in self.service.control.books()["jobs"]]

    def run_whole(self, **plan: Any) -> dict[str, Any]:
        """Run plan, parts and commit."""
        parts = self.plan(**plan)
        self.run_all(parts)
        self.end_all()
        self.run_all(parts)
        return self.commit(parts)

    def again(self, run_id: str, **changed: Any) -> Board:
        """Return a later run over the same folders."""
        return replace(self, run_id=run_id, instances={}, **changed)


def write_part(path: Path, count: int, *, notes: bool = True, first: int = 0, text: str = "Text") -> None:
    rows = [
        {
            "id": f"{path.stem}-{number}",
            "text": f"{text} {number} of {path.stem}.",
            "day": date(2026, 1, 1) + timedelta(days=number % 28),
            "price": Decimal(number) / 4,
            "note": f"note {number}" if notes else None,
        }
        for number in range(first, first + count)
    ]
    # A column that is all null has no type of its own in many writers' files.
    schema = SCHEMA if notes else pa.schema([*list(SCHEMA)[:-1], ("note", pa.null())])
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
