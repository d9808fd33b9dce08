"""Answers in any order become one row per input row, in input order; what does not fit is counted and kept."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import to_json

from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, ServiceError, Usage
from airflow_provider_gemini_batch.api.responses.fast_path import PlainResult
from airflow_provider_gemini_batch.api.responses.reading import parse_result_line, parse_vertex_line
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary, ResponseSource, iter_rows, land
from airflow_provider_gemini_batch.rows.result_rows import RowMaker
from airflow_provider_gemini_batch.rows.schema import OutputSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Lines:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lines = 0

    def write(self, line: bytes) -> None:
        self.data += line
        self.lines += line.count(b"\n")

    def close(self) -> None:
        pass

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]


def response(text: str, reason: str = "STOP", **counts: int) -> dict[str, Any]:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, **counts}
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": reason}], "usageMetadata": usage}


def good(row: int, text: str | None = None, key: str | None = None) -> BatchResult:
    wire = f"r{row}" if key is None else f"r{row}-{key}"
    return BatchResult(wire, response(f"answer {row}" if text is None else text), None, 0)


def bad(row: int, code: int | None = 13) -> BatchResult:
    return BatchResult(f"r{row}", None, ServiceError(code=code, message="went wrong"), 0)


def landed(
    folder: Path, *jobs: Sequence[BatchResult] | ResponseSource, **given: Any
) -> tuple[list[dict[str, Any]], LandingSummary]:
    sink = Lines()
    sources = [job if isinstance(job, ResponseSource) else ResponseSource(job.__iter__) for job in jobs]
    summary = land(sources, sink, LandingSpec(**{"kind": JobKind.GENERATION, **given}), folder)
    return sink.rows, summary


def test_a_row_has_its_members_in_the_order_that_is_promised(tmp_path: Path) -> None:
    rows, summary = landed(tmp_path, [good(0, "hello", "k")], rows=1)
    assert list(rows[0].items()) == [
        ("key", "k"),
        ("status", "ok"),
        ("text", "hello"),
        ("finish_reason", "STOP"),
        ("usage", {"input_tokens": 5, "output_tokens": 2, "thinking_tokens": 0, "cached_tokens": 0}),
        ("error", None),
    ]
    assert summary.counts == {"total": 1, "succeeded": 1, "failed": 0}
    assert summary.usage == Usage(5, 2, 0, 0)
    assert summary.aside is None


def test_carried_columns_come_before_the_response_and_both_are_last(tmp_path: Path) -> None:
    rows, _ = landed(
        tmp_path, [good(1), good(0)], rows=2, carried=lambda: iter([b'{"id":1}\n', b'{"id":2}\n']), keep_response=True
    )
    assert [row["id"] for row in rows] == [1, 2]
    assert list(rows[0])[-3:] == ["error", "id", "response"]
    assert rows[0]["response"] == response("answer 0")


@pytest.mark.parametrize("keep_response", [False, True])
def test_carried_columns_reach_missing_rows_too(keep_response: bool, tmp_path: Path) -> None:  # noqa: FBT001
    carried = [b'{"id":1}\n', b'{"id":2}\n', b'{"id":3}\n']
    rows, _ = landed(tmp_path, [good(2), bad(0)], rows=3, carried=lambda: iter(carried), keep_response=keep_response)
    assert [(row["id"], row["status"]) for row in rows] == [(1, "error"), (2, "missing"), (3, "ok")]


def test_a_missing_row_gets_the_authors_key_back(tmp_path: Path) -> None:
    rows, summary = landed(tmp_path, [good(1)], rows=3, author_key=lambda row: "k0" if row == 0 else None)
    assert [(row["key"], row["status"]) for row in rows] == [("k0", "missing"), ("1", "ok"), ("2", "missing")]
    assert list(summary.repairable) == [0, 2]
    assert summary.by_status == {"missing": 2, "ok": 1}


def test_extra_and_duplicate_answers_are_counted_and_kept_aside(tmp_path: Path) -> None:
    stray = BatchResult("theirs", response("x"), None, 0)
    nameless = BatchResult(None, None, ServiceError(message="unreadable"), 3)
    rows, summary = landed(tmp_path, [good(0), good(0, "again"), good(5), stray, nameless, good(1)], rows=2)
    assert [row["text"] for row in rows] == ["answer 0", "answer 1"]
    assert (summary.extra, summary.duplicate) == (3, 1)
    assert summary.counts["extra"] == 3
    assert summary.aside is not None
    aside = [json.loads(line) for line in summary.aside.read_bytes().splitlines()]
    assert [(line["why"], line["key"]) for line in aside] == [
        ("duplicate", "r0"),
        ("extra", "r5"),
        ("extra", "theirs"),
        ("extra", None),
    ]
    assert aside[0]["response"] == response("again")


def test_a_later_job_mends_what_failed_and_leaves_what_is_good(tmp_path: Path) -> None:
    first = [good(0), bad(1), bad(2, 3), good(3)]
    second = [good(1, "mended"), good(3, "not wanted"), bad(2, 8)]
    rows, summary = landed(tmp_path, first, second, rows=5)
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "ok", "missing"]
    assert [row["text"] for row in rows[:2]] == ["answer 0", "mended"]
    assert rows[3]["text"] == "answer 3"
    assert rows[2]["error"] == {"code": 8, "message": "went wrong"}
    assert list(summary.repairable) == [2, 4]
    assert summary.reasons["error"] == {"8": 1}
    assert summary.duplicate == 1
    assert summary.usage == Usage(5 * 4, 2 * 4)


@pytest.mark.parametrize("is_known_apart", [True, False])
def test_an_error_of_a_later_job_does_not_replace_a_response_that_was_paid_for(
    is_known_apart: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    first = [BatchResult("r0", response("half of", "MAX_TOKENS"), None, 0), bad(1, 13)]
    second = [bad(0, 8), bad(1, 8)]
    third = [BatchResult("r1", response("half again", "MAX_TOKENS"), None, 0), good(0, "whole")]
    jobs = [ResponseSource(job.__iter__, [0, 1] if is_known_apart else None) for job in (first, second, third)]
    rows, summary = landed(tmp_path, *jobs[:2], rows=2)
    assert [(row["status"], row["text"]) for row in rows] == [("truncated", "half of"), ("error", None)]
    assert (summary.reasons, list(summary.repairable)) == ({"truncated": {"MAX_TOKENS": 1}, "error": {"8": 1}}, [0, 1])
    assert (summary.usage, summary.aside) == (Usage(5, 2), None)
    rows, summary = landed(tmp_path, *jobs, rows=2)
    assert [(row["status"], row["text"]) for row in rows] == [("ok", "whole"), ("truncated", "half again")]
    assert summary.usage == Usage(15, 6)


def test_the_first_rows_that_failed_are_named_and_those_that_a_later_job_mended_are_not(tmp_path: Path) -> None:
    first = [bad(row) if row % 2 else good(row) for row in range(99)]
    mended = [good(row) for row in (1, 3)]
    _, summary = landed(tmp_path, first, mended, rows=100, author_key=lambda row: f"key {row}")
    assert summary.failed_keys[:2] == ("5", "7")
    assert len(summary.failed_keys) == 20
    _, missing = landed(tmp_path, [good(0)], rows=2, author_key=lambda row: f"key {row}")
    assert missing.failed_keys == ("key 1",)
    _, unknown = landed(tmp_path, [good(0), bad(4)])
    assert unknown.failed_keys == ("4",)


def test_codes_that_a_second_try_can_mend_are_told_from_others(tmp_path: Path) -> None:
    codes = [None, 1, 2, 4, 8, 10, 13, 14, 3, 5, 7, 9, 11, 12, 16]
    _, summary = landed(tmp_path, [bad(row, code) for row, code in enumerate(codes)], rows=len(codes))
    assert list(summary.repairable) == list(range(8))


def test_answers_without_any_key_are_matched_by_position_when_all_are_there(tmp_path: Path) -> None:
    answers = [BatchResult(None, response(text), None, place) for place, text in enumerate("abc")]
    source = ResponseSource(answers.__iter__, range(3))
    rows, _ = landed(tmp_path, source, rows=3, author_key=lambda row: f"k{row}")
    assert [(row["key"], row["text"]) for row in rows] == [("k0", "a"), ("k1", "b"), ("k2", "c")]
    rows, summary = landed(tmp_path, ResponseSource(answers[:2].__iter__, range(3)), rows=3)
    assert [row["status"] for row in rows] == ["missing"] * 3
    assert summary.extra == 2
    mixed = [good(0), *answers[1:]]
    _, summary = landed(tmp_path, ResponseSource(mixed.__iter__, range(3)), rows=3)
    assert (summary.extra, summary.succeeded) == (2, 1)


def test_two_jobs_without_keys_do_not_mix(tmp_path: Path) -> None:
    sources = [
        ResponseSource([BatchResult(None, response(text), None, 0) for text in texts].__iter__, numbers)
        for texts, numbers in (("ab", range(2)), ("cd", range(2, 4)))
    ]
    rows, _ = landed(tmp_path, *sources, rows=4)
    assert [row["text"] for row in rows] == list("abcd")


def test_failed_rows_of_shards_go_straight_out_when_no_later_job_has_them(tmp_path: Path) -> None:
    shards = [
        ResponseSource([bad(0), good(1)].__iter__, range(2)),
        ResponseSource([good(2), bad(3)].__iter__, range(2, 4)),
    ]
    rows, _ = landed(tmp_path, *shards, rows=4)
    assert [row["status"] for row in rows] == ["error", "ok", "ok", "error"]
    assert not (tmp_path / "spill.jsonl").exists()


def test_an_answer_that_a_job_had_no_business_to_give_does_not_write_a_row_twice(tmp_path: Path) -> None:
    shards = [
        ResponseSource([bad(0), good(1)].__iter__, range(2)),
        ResponseSource([good(2), good(0)].__iter__, range(2, 3)),
    ]
    rows, summary = landed(tmp_path, *shards, rows=3)
    assert [row["key"] for row in rows] == ["0", "1", "2"]
    assert summary.duplicate == 1


def test_with_an_unknown_input_there_is_a_row_for_each_answer_as_it_comes(tmp_path: Path) -> None:
    rows, summary = landed(tmp_path, [good(7, key="x"), bad(2), good(7)], rows=None)
    assert [(row["key"], row["status"]) for row in rows] == [("x", "ok"), ("2", "error"), ("7", "ok")]
    assert summary.counts == {"total": 3, "succeeded": 2, "failed": 1, "error": 1}


def test_keys_of_other_peoples_jobs_are_theirs() -> None:
    results = [BatchResult("r7-x", response("a"), None, 0), BatchResult(None, response("b"), None, 1)]
    rows = list(iter_rows(results, LandingSpec(kind=JobKind.GENERATION, wrapped_keys=False)))
    assert [row["key"] for row in rows] == ["r7-x", "1"]


CASES: list[tuple[dict[str, Any], str]] = [
    (response("x"), "ok"),
    (response("x", "MAX_TOKENS"), "truncated"),
    (response("x", "SAFETY"), "blocked"),
    (response("", "RECITATION"), "blocked"),
    (response("x", "MALFORMED_FUNCTION_CALL"), "invalid_output"),
    (response("x", "SOMETHING_NEW"), "invalid_output"),
    (response(""), "invalid_output"),
    ({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 1}}, "blocked"),
    ({"candidates": []}, "invalid_output"),
    ({"candidates": [{"finishReason": "STOP", "content": {"parts": [{"functionCall": {"name": "f"}}]}}]}, "ok"),
    ({"candidates": [{"content": {"parts": [{"text": "no reason told"}]}}]}, "ok"),
    (
        {"candidates": [{"content": {"parts": [{"text": "t", "thought": True}]}, "finishReason": "STOP"}]},
        "invalid_output",
    ),
]


@pytest.mark.parametrize(("answer", "status"), CASES)
def test_the_status_follows_from_how_the_answer_ended(answer: dict[str, Any], status: str) -> None:
    row = RowMaker(JobKind.GENERATION).members(BatchResult("r0", answer, None, 0), "k")[1]
    assert row["status"] == status
    assert (row["error"] is None) == (status == "ok")


@pytest.mark.parametrize("parse", [parse_result_line, parse_vertex_line])
@pytest.mark.parametrize(("answer", "status"), [*CASES, (response("x", cachedContentTokenCount=3), "ok")])
def test_the_short_way_writes_the_same_row_as_the_long_one(
    parse: Callable[[bytes, int], BatchResult], answer: dict[str, Any], status: str
) -> None:
    result = parse(json.dumps({"key": "r0", "response": answer, "status": ""}).encode(), 0)
    maker = RowMaker(JobKind.GENERATION)
    made = maker.line(result, "kä")
    assert made[0].word == status
    long = maker.members(BatchResult("r0", answer, None, 0), "kä")
    assert json.loads(made[1]) == json.loads(to_json(long[1]))
    assert list(json.loads(made[1])) == list(long[1])
    assert Usage(*(made[2] or ())) == (long[2] or Usage())


def test_the_short_way_is_taken_by_plain_answers_and_reads_the_rest_when_asked() -> None:
    line = b'{"key":"r0","response":' + to_json(response("x")) + b',"shop":7}\n'
    result = parse_result_line(line, 3)
    assert isinstance(result, PlainResult)
    assert (result.key, result.response, result.beside["shop"], result.position) == ("r0", response("x"), 7, 3)
    vector = parse_vertex_line(b'{"key":"r1","response":{"embedding":{"values":[0.5, -1]},"tokenCount":"3"}}', 0)
    assert isinstance(vector, PlainResult)
    made = RowMaker(JobKind.EMBEDDINGS).line(vector, "r1")
    assert json.loads(made[1])["embedding"] == [0.5, -1]
    assert made[2] == (3, 0, 0, 0)
    usage = {"promptTokenCount": 3, "totalTokenCount": 3, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 3}]}
    embedded = {"key": "r2", "response": {"embedding": {"values": [1]}, "usageMetadata": usage}}
    assert isinstance(parse_result_line(json.dumps(embedded).encode(), 0), PlainResult)


def answers_of(*lines: dict[str, Any], short: bool) -> list[BatchResult]:
    """Parse lines the short way, if they are plain, or all of them the long way, as text goes."""
    told = [json.dumps(line) for line in lines]
    return [parse_result_line(line.encode() if short else line, place) for place, line in enumerate(told)]


VECTOR = {"embedding": {"values": [0.5, 1.0]}, "usageMetadata": {"promptTokenCount": 3}}


@pytest.mark.parametrize("kind", list(JobKind))
@pytest.mark.parametrize("order", [range(6), (3, 1, 0, 2, 5, 4)])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"key": "r9", "response": response("beyond the last row")}, id="a row that is not of the input"),
        pytest.param({"key": "theirs", "response": response("a stray")}, id="a key that is not ours"),
        pytest.param({"key": "r2", "response": response("again")}, id="a row that comes twice"),
        pytest.param({"key": "r4", "response": response("x", promptTokenCount=300_000)}, id="a long prompt"),
        pytest.param({"key": "r4", "response": VECTOR}, id="a vector"),
        pytest.param({"key": "r4", "response": {**VECTOR, "embedding": {"values": [1.0]}}}, id="a vector too short"),
        pytest.param({"key": "r4", "response": response("x", "MAX_TOKENS")}, id="a row that failed"),
    ],
)
def test_plain_answers_land_together_as_they_land_one_by_one(
    kind: JobKind, order: Sequence[int], odd: dict[str, Any], tmp_path: Path
) -> None:
    plain = VECTOR if kind is JobKind.EMBEDDINGS else response("fine")
    keys = [f"r{row}-k{row}" for row in order]
    later = [key for key in keys[3:] if not key.startswith(odd["key"])]
    lines = [*({"key": key, "response": plain} for key in keys[:3]), odd]
    lines += [{"key": key, "response": plain} for key in later]
    found = []
    for short in (True, False):
        folder = tmp_path / str(short)
        folder.mkdir()
        given = {"rows": 6, "kind": kind, "dimensions": 2 if kind is JobKind.EMBEDDINGS else None}
        rows, summary = landed(folder, answers_of(*lines, short=short), **given)
        aside = [] if summary.aside is None else [json.loads(line) for line in summary.aside.read_bytes().splitlines()]
        told = {**vars(summary), "aside": aside, "repairable": list(summary.repairable)}
        found.append((rows, told))
    assert found[0] == found[1]
    assert [row["key"] for row in found[0][0] if row["status"] == "ok"]


class Verdict(BaseModel):
    label: str
    score: int


def test_structured_answers_are_parsed_and_their_text_is_kept(tmp_path: Path) -> None:
    texts = ['{"label": "a", "score": 1}', '{"label": "a"}', "no json"]
    rows, summary = landed(
        tmp_path, [good(row, text) for row, text in enumerate(texts)], rows=3, schema=OutputSchema(Verdict)
    )
    assert [row["status"] for row in rows] == ["ok", "invalid_output", "invalid_output"]
    assert rows[0]["parsed"] == {"label": "a", "score": 1}
    assert [row["text"] for row in rows] == texts
    assert "score" in rows[1]["error"]["message"]
    assert list(summary.repairable) == [1, 2]


def test_embeddings_have_a_vector_in_place_of_a_text(tmp_path: Path) -> None:
    answers = [
        BatchResult("r0", {"embedding": {"values": [0.5, 1]}, "usageMetadata": {"promptTokenCount": 1}}, None, 0),
        BatchResult("r1", {"embedding": {}}, None, 1),
        BatchResult("r2", {"embedding": {"values": [0.25]}, "tokenCount": "3"}, None, 2),
    ]
    rows, summary = landed(tmp_path, answers, rows=3, kind=JobKind.EMBEDDINGS)
    assert [row["embedding"] for row in rows] == [[0.5, 1], None, [0.25]]
    assert "text" not in rows[0]
    assert [row["status"] for row in rows] == ["ok", "invalid_output", "ok"]
    assert summary.usage == Usage(4, uncounted_answers=1)


def test_a_download_that_breaks_for_good_breaks_the_landing_and_leaves_no_spill(tmp_path: Path) -> None:
    def breaks() -> Any:
        yield good(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        land([breaks], Lines(), LandingSpec(kind=JobKind.GENERATION, rows=2), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_repr_of_a_summary_shows_counts_only(tmp_path: Path) -> None:
    _, summary = landed(tmp_path, [good(0, "secret")], rows=2)
    assert "secret" not in repr(summary)


@pytest.mark.parametrize("plain", [False, True], ids=["one by one", "in runs"])
@pytest.mark.parametrize("disorder", [0, 1, 30, 500])
def test_rows_wait_only_as_far_as_they_are_out_of_order(disorder: int, plain: bool, tmp_path: Path) -> None:  # noqa: FBT001
    count = 1500
    dice = random.Random(disorder)
    order = sorted(range(count), key=lambda row: row + dice.randint(0, disorder))
    sink = Lines()
    waiting: list[int] = []

    def answers() -> Iterator[BatchResult]:
        for number, row in enumerate(order):
            waiting.append(number - sink.lines)
            line = {"key": f"r{row}", "response": response("x" * 2000)}
            yield parse_result_line(json.dumps(line).encode(), number) if plain else good(row)

    land([answers], sink, LandingSpec(kind=JobKind.GENERATION, rows=count), tmp_path)
    # A bucket has some 500th of the rows, and a run of plain ones less than 70.
    assert max(waiting) <= 2 * disorder + 8 + 70 * plain
    assert [row["key"] for row in sink.rows] == [str(row) for row in range(count)]


def test_a_row_that_failed_in_an_early_job_holds_up_only_the_rows_behind_it(tmp_path: Path) -> None:
    sink = Lines()
    written: list[int] = []
    rows = 2000

    def repaired() -> Iterator[BatchResult]:
        written.append(sink.lines)
        yield good(700)

    def more() -> Iterator[BatchResult]:
        written.append(sink.lines)
        yield from ()

    first = [bad(row) if row in {3, 700, 1500} else good(row) for row in reversed(range(rows))]
    sources = [ResponseSource(first.__iter__), ResponseSource(repaired, [700]), ResponseSource(more, [1500])]
    land(sources, sink, LandingSpec(kind=JobKind.GENERATION, rows=rows), tmp_path)
    assert written[0] <= 700
    assert 1400 <= written[1] <= 1500
    assert [row["key"] for row in sink.rows] == [str(row) for row in range(rows)]


@pytest.mark.parametrize("rows", [1200, None])
def test_kinds_of_failure_are_bounded_and_all_their_rows_are_still_counted(rows: int | None, tmp_path: Path) -> None:
    answers = [BatchResult(f"r{row}", response("x", f"ODD_{row}"), None, 0) for row in range(1200)]
    _, summary = landed(tmp_path, answers, rows=rows)
    assert len(summary.reasons["invalid_output"]) == 1000
    assert summary.reasons["invalid_output"]["other"] == 201
    _, summary = landed(tmp_path, [bad(row, 100 + row) for row in range(1200)], rows=rows)
    assert summary.reasons["error"]["other"] == 201
    assert sum(summary.reasons["error"].values()) == 1200


HALF = "\ud83d"


@pytest.mark.parametrize(
    ("jobs", "has_aside"),
    [
        ([[BatchResult(f"stray{HALF}", response(HALF), None, 0), good(0)]], True),
        ([[good(0), BatchResult("r0", response(HALF), None, 0)]], True),
        ([ResponseSource([BatchResult(None, response(HALF), None, 0)].__iter__, [0])], False),
        ([[BatchResult("r0", response(HALF, "ODD"), None, 0)], [BatchResult("r0", response(HALF), None, 0)]], False),
        ([[BatchResult("r0", None, ServiceError(message=HALF), 0, billed={HALF: 1})], [bad(0)]], False),
    ],
    ids=["a stray", "a duplicate", "without a key", "the same row in two jobs", "an error"],
)
def test_half_a_character_in_a_response_stops_no_landing(jobs: list[Any], *, has_aside: bool, tmp_path: Path) -> None:
    rows, summary = landed(tmp_path, *jobs, rows=1)
    assert [row["key"] for row in rows] == ["0"]
    aside = b"" if summary.aside is None else summary.aside.read_bytes()
    assert (b'"text":"?"' in aside) == has_aside


def test_half_a_character_in_a_column_of_unknown_input_stops_no_landing(tmp_path: Path) -> None:
    answer = BatchResult("k", response("fine"), None, 0, beside={"tags": [HALF]})
    rows, _ = landed(tmp_path, [answer], rows=None, carry=("tags",))
    assert rows[0]["tags"] == '["?"]'


def test_columns_of_unknown_input_are_found_in_the_metadata_too(tmp_path: Path) -> None:
    beside = {"metadata": {"sku": "s1", "size": 4}, "size": 5}
    answer = BatchResult("k", response("fine"), None, 0, beside=beside)
    rows, _ = landed(tmp_path, [answer], rows=None, wrapped_keys=False, key_field="sku", carry=("sku", "size"))
    assert (rows[0]["key"], rows[0]["sku"], rows[0]["size"]) == ("s1", "s1", "5")


def test_a_response_without_a_key_waits_on_disk_once(tmp_path: Path) -> None:
    sizes = []

    def answers() -> Iterator[BatchResult]:
        yield BatchResult(None, response("x" * (3 << 20)), None, 0)
        sizes.append((tmp_path / "keyless.jsonl").stat().st_size)

    rows, summary = landed(tmp_path, ResponseSource(answers, [0]), rows=1)
    assert 3 << 20 <= sizes[0] < 4 << 20
    assert (rows[0]["status"], summary.usage) == ("ok", Usage(5, 2, 0, 0))


OUTCOMES = st.sampled_from(["good", "bad", "fatal", "absent"])


@settings(max_examples=60)
@given(
    rounds=st.lists(st.lists(OUTCOMES, min_size=12, max_size=12), min_size=1, max_size=3),
    times=st.sampled_from([1, 1, 100]),
    disorder=st.sampled_from([0, 2, 40, 10_000]),
    order=st.randoms(use_true_random=False),
    told=st.sampled_from(["which rows were asked", "nothing"]),
)
def test_whatever_comes_every_row_comes_out_once_and_in_order(  # noqa: PLR0917
    rounds: list[list[str]],
    times: int,
    disorder: int,
    order: Any,
    told: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sources = []
    count = 12 * times
    rounds = [outcomes * times for outcomes in rounds]
    best = ["absent"] * count
    wanted: dict[int, str] = {}
    for number, outcomes in enumerate(rounds):
        answers = [answer(number, row, outcome) for row, outcome in enumerate(outcomes) if outcome != "absent"]
        places = {id(answer): place + order.randint(0, disorder) for place, answer in enumerate(answers)}
        answers.sort(key=lambda answer: places[id(answer)])
        asked = [row for row in range(count) if number == 0 or best[row] != "good"]
        sources.append(ResponseSource(answers.__iter__, None if told == "nothing" else asked))
        best = [old if old == "good" or new == "absent" else new for old, new in zip(best, outcomes, strict=True)]
        wanted = {row: f"{number}/{row}" for row in range(count) if outcomes[row] == "good"} | wanted
    rows, summary = landed(tmp_path_factory.mktemp("land"), *sources, rows=count)
    assert [row["key"] for row in rows] == [str(row) for row in range(count)]
    words = {"good": "ok", "bad": "error", "fatal": "error", "absent": "missing"}
    assert [row["status"] for row in rows] == [words[outcome] for outcome in best]
    assert list(summary.repairable) == [row for row, outcome in enumerate(best) if outcome in ("bad", "absent")]
    assert {row: rows[row]["text"] for row in wanted} == wanted


def answer(job: int, row: int, outcome: str) -> BatchResult:
    return good(row, f"{job}/{row}") if outcome == "good" else bad(row, 3 if outcome == "fatal" else 13)


def test_answers_without_any_key_in_no_known_order_find_no_row_unless_there_is_only_one(tmp_path: Path) -> None:
    answers = [BatchResult(None, response(text), None, place) for place, text in enumerate("ab")]
    rows, summary = landed(tmp_path, ResponseSource(answers.__iter__, range(2), in_order=False), rows=2)
    assert ([row["status"] for row in rows], summary.extra) == (["missing"] * 2, 2)
    rows, _ = landed(tmp_path, ResponseSource(answers[:1].__iter__, range(1), in_order=False), rows=1)
    assert rows[0]["text"] == "a"
