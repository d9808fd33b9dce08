"""Seeded nonsense for both parsers: no crash, no lost row, no doubled row.

A case is one small file of lines. ``GEMINI_BATCH_FUZZ_CASES`` sets how many of each kind, ``GEMINI_BATCH_FUZZ_SEED``
where to begin; or run ``python tests/rows/test_row_fuzz.py CASES [SEED]``. A failure names the seed that makes it
again.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fuzz.nonsense import spoiled
from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, Service
from airflow_provider_gemini_batch.api.responses.reading import parse_result_line, parse_vertex_line
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.landing import LandingSpec, ResponseSource, land
from airflow_provider_gemini_batch.rows.record import InputRecord, RecordWriter
from airflow_provider_gemini_batch.rows.result_rows import RowMaker
from airflow_provider_gemini_batch.rows.sending import ShardReader
from airflow_provider_gemini_batch.rows.stage import stage
from airflow_provider_gemini_batch.rows.wire_keys import unwrap_key

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = int(os.environ.get("GEMINI_BATCH_FUZZ_CASES", "300"))
SEED = int(os.environ.get("GEMINI_BATCH_FUZZ_SEED", "20"))
WORDS = ["x", "", " ", "é", "\u2028", "\U0001f600", '"', "\\", "\n", "\x00", "r0", "r1-a", "{a}", "null", "-", "\u017f"]


def word(dice: random.Random) -> str:
    return "".join(dice.choices(WORDS, k=dice.randrange(4)))


def torn(dice: random.Random, line: bytes) -> bytes:
    """The line with bytes exchanged, cut or doubled, but still one line."""
    place = dice.randrange(len(line) + 1)
    made = dice.choice(
        [
            line[:place],
            line[place:],
            line[:place] + bytes([dice.randrange(256)]) + line[place + 1 :],
            line[:place] + line[:place],
            line[:place] + b"\xff" + line[place:],
            b"[" * 300 + line,
        ]
    )
    return made.replace(b"\n", b" ").replace(b"\r", b" ")


def as_line(dice: random.Random, value: Any) -> bytes:
    separators = dice.choice([(",", ":"), (", ", ": "), (" , ", " : ")])
    return json.dumps(value, ensure_ascii=dice.random() < 0.5, separators=separators).encode("utf-8", "surrogatepass")


def input_row(dice: random.Random, mark: str) -> tuple[Any, str | None]:
    """A good row that asks ``mark``, and its key."""
    key = dice.choice([None, None, f"{word(dice)}k{mark}"])
    parts = [{"text": mark}]
    request: dict[str, Any] = {"contents": [{"parts": parts, **dice.choice([{}, {"role": "user"}])}]}
    settings: list[dict[str, Any]] = [
        {},
        {"generationConfig": {"topK": 1}},
        {"generation_config": {"top_k": 1}},
        {"temperature": 1},
    ]
    request |= dice.choice(settings)
    forms: list[Any] = [{"request": request}, request, {"text": mark}, {"contents": mark}]
    row = dict(dice.choice(forms))
    if key is not None:
        row[dice.choice(["key", "custom_id"]) if "request" in row else "key"] = key
        if dice.random() < 0.3:
            row = dict(reversed(row.items()))
        return row, key
    return (mark if dice.random() < 0.2 else row), None


def input_case(seed: int, folder: Path) -> None:
    """Good rows come through in order with their keys; with bad ones the whole is refused, in words of ours."""
    dice = random.Random(seed)
    lines: list[bytes] = []
    wanted: list[tuple[str, str | None]] = []
    harmed = False
    for row in range(dice.randrange(6)):
        mark = f"mark {row} {word(dice)}."
        value, key = input_row(dice, mark)
        line = as_line(dice, value)
        fate = dice.random()
        if fate < 0.1:
            harmed, line = True, as_line(dice, spoiled(dice, value))
        elif fate < 0.2:
            harmed, line = True, torn(dice, line)
        lines += [line] + [b" "] * dice.choice([0, 0, 1])
        wanted.append((mark, key))
    (folder / "in.jsonl").write_bytes(b"\n".join(lines))
    spec = InputSpec(
        service=dice.choice(list(Service)),
        model="gemini-2.5-flash",
        path=str(folder / "in.jsonl"),
        generation_config=dice.choice([None, {"maxOutputTokens": 9}, {"topK": 5}]),
        max_rows_per_job=dice.choice([None, 1, 2]),
    )
    try:
        with RecordWriter(store=True, file=None, needed=True) as writer:
            staged = stage(spec, folder, writer)
    except ConfigurationError as refused:
        if harmed or not wanted:
            return
        raise AssertionError("a good input was refused") from refused
    reader = ShardReader(spec, staged.layout, folder, staged.files)
    files = (reader.shard(shard.index) for shard in staged.layout.shards)
    items = [json.loads(line) for file in files for line in file.path.read_bytes().splitlines()]
    reader.close()
    assert staged.layout.rows == len(items)
    keys = [item.get("key", item.get("custom_id")) for item in items]
    assert [key.partition("-")[0] for key in keys] == [f"r{row}" for row in range(len(items))]
    if not harmed:
        found = [item["request"]["contents"][0]["parts"][0]["text"] for item in items]
        assert found == [mark for mark, _ in wanted]
        kept = writer.finish()
        record = InputRecord(kept.name, lambda: io.BytesIO((kept.text or "").encode()))
        if kept.text is None:
            assert not any(key for _, key in wanted)
        else:
            assert [record.key(row) for row in range(staged.layout.rows)] == [key for _, key in wanted]
        assert all(("generationConfig" in item["request"]) >= (spec.generation_config is not None) for item in items)


def answer_of(dice: random.Random, row: int, mark: str, service: Service) -> dict[str, Any]:
    response: dict[str, Any] = {
        "candidates": [{"content": {"parts": [{"text": mark}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
    }
    key = f"r{row}" + dice.choice(["", f"-k{row}"])
    if service is Service.VERTEX:
        return {"status": "", "request": {}, "response": response, "custom_id": key}
    return dice.choice([{"key": key, "response": response}, {"response": response, "metadata": {"key": key}}])


class Lines:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, line: bytes) -> None:
        self.data += line

    def close(self) -> None:
        pass


def result_case(seed: int, folder: Path) -> None:
    """Whole lines are read as they are, others never raise, and landing agrees with a plain model in memory."""
    dice = random.Random(seed)
    service = dice.choice(list(Service))
    parse = parse_result_line if service is Service.GEMINI else parse_vertex_line
    rows = dice.randrange(1, 6)
    jobs: list[list[bytes]] = []
    for job in range(dice.randrange(1, 4)):
        lines = []
        for row in dice.sample(range(rows), rows):
            for _ in range(dice.choice([0, 1, 1, 1, 1, 2])):
                answer = answer_of(dice, row, f"mark {row} {job}", service)
                line = as_line(dice, answer)
                fate = dice.random()
                if fate < 0.2:
                    line = as_line(dice, spoiled(dice, answer))
                elif fate < 0.3:
                    line = torn(dice, line)
                else:
                    result = parse(line, 0)
                    assert result.response == answer["response"]
                    assert unwrap_key(result.key)[0] == row
                lines.append(line)
        jobs.append(lines)
    sources = [ResponseSource(_reader(lines, parse), dice.choice([None, range(rows)])) for lines in jobs]
    sink = Lines()
    keep = dice.random() < 0.2
    summary = land(sources, sink, LandingSpec(kind=JobKind.GENERATION, rows=rows, keep_response=keep), folder)
    landed = [json.loads(line) for line in sink.data.splitlines()]
    wanted, strays = model_landing([[parse(line, 0) for line in lines] for lines in jobs], sources, rows, keep=keep)
    assert landed == wanted
    assert summary.extra + summary.duplicate == strays
    assert len(summary.aside.read_bytes().splitlines() if summary.aside else []) == strays
    assert summary.succeeded == sum(row["status"] == "ok" for row in wanted)


def model_landing(
    jobs: list[list[BatchResult]], sources: list[ResponseSource], rows: int, *, keep: bool
) -> tuple[list[Any], int]:
    """What landing should make: the first answer of each job for a row, a later job only where none was good.

    An error alone takes the place of an error or of nothing.
    """
    maker = RowMaker(JobKind.GENERATION, keep_response=keep)
    landed: dict[int, Any] = {}
    strays = 0
    for results, source in zip(jobs, sources, strict=True):
        numbers: Any = source.row_numbers
        if numbers is not None and len(results) == rows and all(result.key is None for result in results):
            placed = [(number, str(number), result) for number, result in zip(numbers, results, strict=True)]
        else:
            placed = []
            for result in results:
                row, key = unwrap_key(result.key)
                if row is None or row >= rows:
                    strays += 1
                else:
                    placed.append((row, key or str(row), result))
        seen: set[int] = set()
        for row, key, result in placed:
            if row in seen or (row in landed and landed[row]["status"] == "ok"):
                strays += 1
            elif not result.billed and landed.get(row, {}).get("status") in {"invalid_output", "truncated", "blocked"}:
                continue
            else:
                landed[row] = json.loads(to_json(maker.members(result, key)[1], inf_nan_mode="null"))
            seen.add(row)
    return [landed.get(row) or json.loads(maker.missing(str(row))) for row in range(rows)], strays


def _reader(lines: list[bytes], parse: Callable[[bytes, int], Any]) -> Callable[[], Any]:
    return lambda: (parse(line, place) for place, line in enumerate(lines))


def run(case: Callable[[int, Path], None], count: int, first: int) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        for seed in range(first, first + count):
            case(seed, folder)
    except Exception as error:
        raise AssertionError(f"{case.__name__} with seed {seed}: {error!r}") from error
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("case", [input_case, result_case])
def test_no_nonsense_crashes_a_parser_or_loses_a_row(case: Callable[[int, Path], None]) -> None:
    run(case, CASES, SEED)


if __name__ == "__main__":
    many, start = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    for one in (input_case, result_case):
        run(one, many, start)
        print(f"{one.__name__}: {many} cases from seed {start}, all well")
