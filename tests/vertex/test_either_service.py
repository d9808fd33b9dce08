"""One Dag, either service: only the connection differs, and the outputs are equal byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from vertex.bench import EMBEDDING

if TYPE_CHECKING:
    from vertex.bench import Bench


class Colour(BaseModel):
    name: str
    warm: bool


ROWS = [{"key": f"k{n}", "text": f"Row {n}.", "n": n} for n in range(5)]
CASES: list[dict[str, Any]] = [
    {"inlined_requests": [row["text"] for row in ROWS], "generation_config": {"temperature": 0.1}},
    {"inlined_requests": ROWS, "carry": ["n"], "system_instruction": "Be brief.", "max_rows_per_job": 2},
    {"inlined_requests": ROWS, "output_schema": Colour, "prompt_template": "What colour is {text}", "key_field": "key"},
    {"inlined_requests": lambda: ROWS, "carry": ["n"], "repair_rounds": 1},
    {
        "inlined_requests": [{"key": f"k{n}", "text": f"Text {n}."} for n in range(5)],
        "model": EMBEDDING,
        "task_type": "CLUSTERING",
        "output_dimensionality": 8,
    },
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_same_dag_gives_the_same_bytes(bench: Bench, case: int) -> None:
    outputs, summaries = [], []
    for connection in ("gemini", "vertex"):
        path = bench.folder / connection / "rows.jsonl"
        _, summary = bench.go(gemini_conn_id=connection, output_path=str(path), **CASES[case])
        outputs.append(path.read_bytes())
        summaries.append(summary)
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b'"status":"ok"') == 5
    for member in ("counts", "usage", "model"):
        assert summaries[0][member] == summaries[1][member]
    assert {job["service"] for job in bench.jobs} == {"gemini", "vertex"}
