"""A table of real texts to checked values: the licence of every installed package, reviewed in one batch."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from airflow.sdk import Param, dag, task
from pydantic import BaseModel, Field

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108
COLUMNS = ("package", "version", "licence")


class Review(BaseModel):
    """What we want to know of a licence. Rows whose response does not fit are sent again."""

    summary: str = Field(description="What it allows and asks for, in one sentence for an engineer")
    family: Literal["permissive", "weak copyleft", "strong copyleft", "other"]
    must_keep_notice: bool
    obligations: list[str] = Field(max_length=5)


def _licence(distribution: metadata.Distribution) -> str | None:
    """Read the licence that a package ships; None when it ships none."""
    for file in distribution.files or ():
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            try:
                return file.read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
    return None


@dag(
    schedule=None,
    params={"folder": Param(FOLDER, type="string", description="Where licences.csv and reviews.jsonl go.")},
)
def reviews_to_structured() -> None:
    """Write the table, review each row, count the families."""

    @task
    def write_table(folder: str) -> str:
        """Write one row for each package that ships its licence."""
        path = Path(folder) / "licences.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {each.metadata["Name"]: each for each in metadata.distributions()}
        with path.open("w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(COLUMNS)
            for name in sorted(found):
                text = _licence(found[name])
                if text:
                    writer.writerow([name, found[name].version, text])
        return str(path)

    reviewed = GeminiCreateBatchJobOperator(
        task_id="review",
        model="gemini-2.5-flash",
        input_path=write_table("{{ params.folder }}/{{ run_id | replace(':', '-') }}"),
        prompt_template="Review the licence of {package} {version}:\n\n{licence}",
        key_field="package",
        carry=["version"],
        output_schema=Review,
        repair_rounds=2,
        max_failure_rate=0.01,
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/reviews.jsonl",
        poll_interval=5,
        retries=2,
    )

    @task
    def count_families(result: dict[str, Any]) -> dict[str, int]:
        with Path(result["output"]).open(encoding="utf-8") as lines:
            rows = map(json.loads, lines)
            return dict(Counter(row["parsed"]["family"] for row in rows if row["status"] == "ok"))

    count_families(reviewed.output)


reviews_to_structured()
