"""An estimate without an open bound is never below the bill, which the emulator makes by itself."""

from __future__ import annotations

import base64
import io
import struct
import sys
import wave
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from airflow_provider_gemini_batch.api.models import JobKind
from airflow_provider_gemini_batch.emulator.answers import Answerer
from airflow_provider_gemini_batch.emulator.bill import Prices, price
from airflow_provider_gemini_batch.emulator.usage import billed_tokens
from airflow_provider_gemini_batch.rows.cost import Cost, estimated_cost
from airflow_provider_gemini_batch.rows.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the newest price table for 3.10 is too old for it")
NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)
LEVELS = (None, "MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_HIGH", "MEDIA_RESOLUTION_ULTRA_HIGH")
MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.8-flash", "gemini-3.1-pro-preview", "gemini-3.1-flash-image")


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


def wav(seconds: float) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(100)
        file.writeframes(bytes(int(seconds * 200)))
    return made.getvalue()


def pdf(pages: int) -> bytes:
    return b"%PDF-1.4\n" + b"".join(b"%d 0 obj <</Type /Page >> endobj\n" % page for page in range(pages))


def part(mime_type: str, content: bytes, *, snake: bool = False, level: str | None = None) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    names = ("inline_data", "mime_type", "media_resolution") if snake else ("inlineData", "mimeType", "mediaResolution")
    made: dict[str, Any] = {names[0]: {names[1]: mime_type, "data": data}}
    return {**made, names[2]: {"level": level}} if level else made


def request(*parts: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [*parts]}], "generationConfig": {"maxOutputTokens": 3, **config}}


def estimate_and_bill(model: str, requests: Sequence[dict[str, Any]]) -> tuple[Cost, float]:
    made, answerer = Expected(model), Answerer(model, embeds=False)
    billed: dict[str, int] = {}
    for one in requests:
        made.add(one, len(to_json(one)))
        for kind, count in billed_tokens(answerer.answer(one, "k")["response"]).items():
            billed[kind] = billed.get(kind, 0) + count
    bill = price(model, billed, Prices(NOW.timestamp()))
    assert bill is not None
    return estimated_cost(made, JobKind.GENERATION, at=NOW), bill


def assert_bounded(model: str, *requests: dict[str, Any]) -> None:
    estimate, bill = estimate_and_bill(model, requests)
    assert not estimate.open_bound
    assert estimate.usd is not None
    assert estimate.usd >= bill


FILES = st.one_of(
    st.tuples(st.just("image/png"), st.builds(png, st.integers(1, 6000), st.integers(1, 6000))),
    st.tuples(st.just("audio/wav"), st.builds(wav, st.floats(0, 60))),
    st.tuples(st.sampled_from(["text/csv", "application/json"]), st.binary(min_size=1, max_size=400)),
    st.tuples(st.just("application/pdf"), st.builds(pdf, st.integers(1, 30))),
)
PARTS = st.one_of(
    st.builds(
        lambda file, snake, level: part(*file, snake=snake, level=level), FILES, st.booleans(), st.sampled_from(LEVELS)
    ),
    st.builds(lambda text: {"text": text}, st.text(min_size=1, max_size=400)),
)
CONFIGS = st.fixed_dictionaries(
    {"maxOutputTokens": st.integers(1, 60)},
    optional={
        "candidateCount": st.integers(1, 3),
        "mediaResolution": st.sampled_from(LEVELS[1:]),
        "thinkingConfig": st.just({"includeThoughts": True}),
        "responseModalities": st.sampled_from([["TEXT"], ["IMAGE"], ["TEXT", "IMAGE"]]),
    },
)


@settings(max_examples=60)
@given(st.sampled_from(MODELS), st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=4), CONFIGS), min_size=1))
def test_no_mix_of_files_and_settings_is_billed_above_its_estimate(
    model: str, rows: list[tuple[list[dict[str, Any]], dict[str, Any]]]
) -> None:
    assert_bounded(model, *(request(*parts, **config) for parts, config in rows))


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.8-flash"])
@pytest.mark.parametrize("level", LEVELS)
def test_pages_are_billed_by_their_resolution_as_they_are_estimated(model: str, level: str | None) -> None:
    estimate, bill = estimate_and_bill(model, [request({"text": "a"}, part("application/pdf", pdf(40), level=level))])
    assert estimate.usd == pytest.approx(bill, rel=0.05)


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "gemini-3.1-pro-preview"])
def test_a_few_long_prompts_among_many_short_ones_have_their_own_price(model: str) -> None:
    short = [request({"text": "x"})] * 200
    assert_bounded(model, request({"text": "a" * 4_000_000}), *short)
    # 1,200 pages: long by its file, not by its text.
    assert_bounded(model, request({"text": "a"}, part("application/pdf", pdf(1200))), *short)


def test_each_row_is_priced_as_what_it_is_answered_in() -> None:
    picture, sound = (request({"text": "x"}, responseModalities=[kind]) for kind in ("IMAGE", "AUDIO"))
    assert_bounded("gemini-3.8-flash", picture, sound, request({"text": "x"}))
    made = Expected("gemini-3.8-flash")
    for one in (picture, sound):
        made.add(one, 10)
    assert (made.output_media["image"], made.output_media["audio"]) == (2000, 3)


@pytest.mark.parametrize(
    "file",
    [
        part("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", b"PK"),
        part("application/octet-stream", b"x" * 1000),
        {"fileData": {"fileUri": "https://www.youtube.com/watch?v=a"}},
        {"file_data": {"file_uri": "files/a", "mime_type": "application/x-javascript"}},
        {"functionResponse": {"name": "f", "parts": [part("video/mp4", b"x")]}},
        {"inlineData": {"data": "AAAA"}},
    ],
)
@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.8-flash"])
def test_a_file_of_a_kind_that_nobody_can_count_leaves_the_bound_open(model: str, file: dict[str, Any]) -> None:
    assert estimate_and_bill(model, [request(file)])[0].open_bound


@pytest.mark.parametrize("config", [{"candidate_count": 3}, {"candidateCount": "3"}, {"candidateCount": 3.0}])
def test_candidates_are_counted_however_they_are_written(config: dict[str, Any]) -> None:
    assert_bounded("gemini-2.5-flash", request({"text": "tell me"}, **config))


def test_settings_in_snake_case_bound_an_answer_too() -> None:
    made = Expected("gemini-2.5-flash")
    made.add({"contents": [], "generationConfig": {"max_output_tokens": 7, "response_modalities": ["AUDIO"]}}, 10)
    assert (made.unbounded_rows, made.output_tokens, dict(made.output_media)) == (0, 7, {"audio": 7})


def test_tools_in_snake_case_leave_the_bound_open() -> None:
    made = Expected("gemini-2.5-flash")
    made.add({**request({"text": "x"}), "tools": [{"google_search": {}}]}, 10)
    assert "searches" in " ".join(made.unknown)


def test_an_answer_ends_where_the_request_bounds_it() -> None:
    long = request({"text": "word " * 40}, maxOutputTokens=10)
    for more in (
        {},
        {"candidateCount": 2},
        {"responseModalities": ["AUDIO"]},
        {"thinkingConfig": {"includeThoughts": True}},
    ):
        one = {**long, "generationConfig": {**long["generationConfig"], **more}}
        said = Answerer("gemini-2.5-flash", embeds=False).answer(one, "k")["response"]
        assert {candidate["finishReason"] for candidate in said["candidates"]} == {"MAX_TOKENS"}
        usage = said["usageMetadata"]
        found = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
        assert found == 10 * len(said["candidates"])
