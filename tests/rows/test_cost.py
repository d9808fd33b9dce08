"""Prices come from the offline table or not at all; what is billed is in the sum, or the sum says that it is open."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_core import to_json

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import JobKind, LongPrompts, Usage
from airflow_provider_gemini_batch.api.responses.usage import usage_of
from airflow_provider_gemini_batch.rows.cost import Cost, cost_of, estimated_cost, refuse_above
from airflow_provider_gemini_batch.rows.expected import Expected
from airflow_provider_gemini_batch.rows.input_spec import Attachment
from airflow_provider_gemini_batch.rows.media_tokens import FileSample

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)
NEW_MODEL = pytest.mark.skipif(sys.version_info < (3, 11), reason="the newest price table for 3.10 is too old for it")
MILLION = Usage(input_tokens=1_000_000, output_tokens=500_000, thinking_tokens=500_000)
FULL = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 600,
    "toolUsePromptTokenCount": 200,
    "candidatesTokenCount": 100,
    "thoughtsTokenCount": 50,
    "totalTokenCount": 1350,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 300}, {"modality": "AUDIO", "tokenCount": 700}],
    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 600}],
    "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 200}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
}


def used(counts: Mapping[str, Any], **more: Any) -> Usage:
    usage = usage_of({"usageMetadata": counts, **more})[0]
    assert usage is not None
    return usage


def test_a_batch_costs_half_and_thinking_is_paid_as_output() -> None:
    assert cost_of(MILLION, "models/gemini-2.5-flash", rows=1000, at=NOW) == Cost(0.15 + 1.25)


def test_cached_tokens_are_cheaper_but_not_free_and_not_halved() -> None:
    cached = cost_of(MILLION._replace(cached_tokens=1_000_000), "gemini-2.5-flash", rows=1000, at=NOW)
    assert cached.usd == pytest.approx(0.03 + 1.25)


def test_a_price_that_grows_with_the_prompt_is_taken_for_an_average_row() -> None:
    assert cost_of(Usage(1_000_000), "gemini-2.5-pro", rows=1000, at=NOW).usd == pytest.approx(0.625)
    assert cost_of(Usage(1_000_000), "gemini-2.5-pro", rows=1, at=NOW).usd == pytest.approx(1.25)


def test_long_prompts_are_priced_apart_from_the_others() -> None:
    long = LongPrompts(2, Usage(600_000, 2_000))
    whole = Usage(1_000_000, 100_000)
    cost = cost_of(whole, "gemini-2.5-pro", rows=1002, at=NOW, long_prompts=long)
    # Half of 1.25 and 10 USD a million, and of 2.50 and 15 beyond 200,000 tokens.
    assert cost.usd == pytest.approx(0.4 * 0.625 + 0.098 * 5 + 0.6 * 1.25 + 0.002 * 7.5)
    assert cost_of(long.usage, "gemini-2.5-pro", rows=2, at=NOW, long_prompts=long).usd == pytest.approx(0.75 + 0.015)
    assert cost_of(whole, "gemini-99", rows=9, at=NOW, long_prompts=long).usd is None


def test_every_modality_has_its_price() -> None:
    assert cost_of(used(FULL), "gemini-2.5-flash", rows=1, at=NOW).usd == pytest.approx(0.0003725)
    assert used(FULL) == Usage(1200, 100, 50, 600, 200, input_audio_tokens=700, cached_audio_tokens=600)


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        ("gemini-3.1-flash-image", Usage(10_000, 1_290_000, output_image_tokens=1_290_000), 38.7025),
        ("gemini-3-pro-image", Usage(10_000, 1_290_000, output_image_tokens=1_290_000), 77.41),
        ("gemini-2.5-flash", Usage(1_000_000, input_audio_tokens=1_000_000), 0.50),
        ("gemini-2.5-flash", Usage(1_000_000, cached_tokens=1_000_000), 0.03),
        ("gemini-embedding-2", Usage(1_000_000, input_audio_tokens=1_000_000), 3.25),
        ("gemini-embedding-2", Usage(1_000_000, input_image_tokens=1_000_000), 0.225),
        ("gemini-embedding-2", Usage(1_000_000, input_video_tokens=1_000_000), 6.00),
        pytest.param(
            "gemini-3.8-flash-tts", Usage(1_000_000, 1_000_000, output_audio_tokens=1_000_000), 4.75, marks=NEW_MODEL
        ),
    ],
)
def test_media_is_priced_as_the_table_names_it(model: str, usage: Usage, usd: float) -> None:
    cost = cost_of(usage, model, rows=1000, at=NOW)
    assert cost.usd == pytest.approx(usd)
    assert (cost.upper_bound, cost.open_bound, cost.note) == (False, False, "")


def test_pages_count_as_pictures_one_modality_may_come_twice_and_either_spelling_is_read() -> None:
    details = [{"modality": "DOCUMENT", "tokenCount": 258}, {"modality": "IMAGE", "tokenCount": "2"}]
    for name in ("promptTokensDetails", "promptTokenDetails"):
        assert used({"promptTokenCount": 300, name: [*details, *details]}).input_image_tokens == 520
    tool = {"toolUsePromptTokenCount": 5, "toolUsePromptTokensDetails": [{"modality": "IMAGE", "tokenCount": 5}]}
    assert used({"promptTokenCount": 1, **tool}) == Usage(6, tool_tokens=5, input_image_tokens=5)


def test_a_part_that_is_larger_than_its_whole_costs_no_price() -> None:
    usage = Usage(10, 5, cached_tokens=99, input_audio_tokens=50, output_image_tokens=70, cached_audio_tokens=60)
    assert cost_of(usage, "gemini-3.1-flash-image", rows=1, at=NOW).usd is not None
    assert cost_of(usage, "gemini-2.5-flash", rows=1, at=NOW).usd is not None


def test_cached_tokens_without_a_modality_are_text_as_far_as_there_is_text() -> None:
    mixed = Usage(1_000_000, cached_tokens=600_000, input_audio_tokens=700_000)
    known = mixed._replace(cached_audio_tokens=300_000)
    assert cost_of(mixed, "gemini-2.5-flash", rows=1, at=NOW) == cost_of(known, "gemini-2.5-flash", rows=1, at=NOW)


@pytest.mark.parametrize(
    ("usage", "model", "words"),
    [
        (Usage(10, 10, searches=3), "gemini-2.5-flash", "may bill more"),
        pytest.param(Usage(10, 10, searches=3), "gemini-3.8-flash-tts", "no price", marks=NEW_MODEL),
        (Usage(10, other_tokens=4), "gemini-2.5-flash", "unknown modality"),
        (Usage(10, uncounted_answers=2), "gemini-2.5-flash", "have no count of tokens"),
        (Usage(10, 1290, output_image_tokens=1290), "gemini-2.5-pro-image", "knows only gemini-2.5-pro, not"),
        pytest.param(
            Usage(10, 1290, output_image_tokens=1290), "gemini-3.8-flash-image-preview", "as text", marks=NEW_MODEL
        ),
    ],
)
def test_what_is_billed_and_not_known_makes_an_open_bound(usage: Usage, model: str, words: str) -> None:
    cost = cost_of(usage, model, rows=1, at=NOW)
    assert cost.open_bound
    assert words in cost.note
    assert str(cost).startswith("at least")
    assert cost.plain()["open_bound"] is True
    with pytest.raises(ConfigurationError, match="cannot be checked"):
        refuse_above(cost, 1e9)


def test_searches_are_billed_by_the_query_beside_the_tokens() -> None:
    grounded = {"candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b"], "imageSearchQueries": ["c"]}}]}
    usage = used({"promptTokenCount": 10}, **grounded)
    assert usage.searches == 3
    with_tokens, alone = (
        cost_of(one, "gemini-3.8-flash", rows=1, at=NOW).usd for one in (usage, usage._replace(searches=0))
    )
    assert with_tokens is not None
    assert alone is not None
    assert with_tokens - alone == pytest.approx(3 * 14 / 1000)


def test_an_unknown_modality_is_reported() -> None:
    counts = {
        "promptTokenCount": 9,
        "promptTokensDetails": [{"modality": "SMELL", "tokenCount": 9}, {"modality": 7}, 8],
    }
    assert used(counts) == Usage(9, other_tokens=9)


def test_without_a_batch_rate_the_price_is_an_upper_bound_and_says_so() -> None:
    cost = cost_of(Usage(1_000_000), "gemini-2.0-flash", rows=10, at=NOW)
    assert cost.upper_bound
    assert str(cost).startswith("at most 0.1 USD")
    for model in ("gemini-2.5-flash-image", "gemini-3.5-flash", "gemini-3.7-flash", "gemini-embedding-001"):
        assert cost_of(MILLION, model, rows=10, at=NOW).upper_bound
    early = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert cost_of(MILLION, "gemini-2.5-flash", rows=10, at=early).upper_bound


def test_prices_change_by_date() -> None:
    before, after = (datetime(2026, *day, 12, tzinfo=timezone.utc) for day in ((11, 29), (12, 1)))
    cheap, dear = (cost_of(MILLION, "gemini-4-argon", rows=10, at=day).usd for day in (before, after))
    assert cheap is not None
    assert dear == pytest.approx(2 * cheap)
    # A job that is made today may run the day after tomorrow.
    estimate = estimated_cost(expected(bounded(), model="gemini-4-argon"), JobKind.GENERATION, at=before)
    later = estimated_cost(expected(bounded(), model="gemini-4-argon"), JobKind.GENERATION, at=after)
    assert estimate == later


@pytest.mark.parametrize("model", ["gemini-99-huge", "gemini-4-carbon", "gemma-3"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    cost = cost_of(MILLION, model, rows=1, at=NOW)
    assert cost.usd is None
    assert model in str(cost)


def test_nothing_used_costs_nothing() -> None:
    assert cost_of(Usage(), "gemini-2.5-flash", rows=0, at=NOW).usd == 0


def test_without_the_extra_there_is_a_hint_in_place_of_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert "genai-prices" in cost_of(MILLION, "gemini-2.5-flash", rows=1).note


def expected(*requests: dict[str, Any], model: str = "gemini-2.5-flash", size: int = 0) -> Expected:
    """Count requests of ``size`` bytes, or as many as they have."""
    made = Expected(model)
    for request in requests:
        made.add(request, size or len(to_json(request)))
    return made


def bounded(most: int = 10, **more: Any) -> dict[str, Any]:
    return {"generationConfig": {"maxOutputTokens": most, **more}}


def test_an_estimate_bounds_the_output_and_says_what_it_assumed() -> None:
    estimate = estimated_cost(expected(*[bounded(1000)] * 1000, size=4000), JobKind.GENERATION, at=NOW)
    assert estimate.usd == pytest.approx(0.15 + 1.25)
    assert not estimate.open_bound
    guessed = estimated_cost(expected({}), JobKind.GENERATION, at=NOW)
    assert guessed.open_bound
    assert "1024 output tokens a row" in guessed.note
    texts = expected(*[{}] * 1000, size=4000, model="gemini-embedding-001")
    assert estimated_cost(texts, JobKind.EMBEDDINGS, at=NOW).usd == pytest.approx(0.15)


def test_each_rows_own_bound_counts_and_so_do_further_candidates() -> None:
    made = expected(bounded(10), bounded(30, candidateCount=2), {"contents": []}, bounded(0))
    assert (made.output_tokens, made.unbounded_rows) == (70 + 2 * 1024, 2)
    common = Expected("gemini-2.5-flash", bounded(5))
    common.add({}, 1)
    common.add(bounded(7), 1)
    assert (common.output_tokens, common.unbounded_rows) == (12, 0)


def test_a_guessed_output_costs_what_the_same_limit_costs() -> None:
    long: tuple[dict[str, Any], int] = ({}, 1_200_000)
    short: tuple[dict[str, Any], int] = ({}, 40)
    picture = ({"generationConfig": {"responseModalities": ["IMAGE"]}}, 40)
    for rows in ([long] * 100 + [short], [long], [short], [picture, short, long]):
        for model in ("gemini-2.5-pro", "gemini-3.1-flash-image"):
            guessed, bound = Expected(model), Expected(model)
            for request, size in rows:
                guessed.add(request, size)
                bound.add(bounded(1024, **request.get("generationConfig", {})), size)
            costs = [estimated_cost(made, JobKind.GENERATION, at=NOW).usd for made in (guessed, bound)]
            assert costs[0] == pytest.approx(costs[1])


@pytest.mark.parametrize("limit", [{}, {"maxOutputTokens": 900}])
def test_the_order_of_rows_does_not_change_an_estimate(limit: dict[str, Any]) -> None:
    rows = [{"generationConfig": {**limit, **more}} for more in ({"responseModalities": ["IMAGE"]}, {}, {})]
    found = [expected(*order, model="gemini-3.8-flash", size=9) for order in (rows, rows[::-1])]
    assert found[0].usage == found[1].usage
    assert found[0].usage.output_image_tokens == 2000
    assert found[0].response_modality == found[1].response_modality == "image"


@pytest.mark.parametrize("most", ["9" * 400, "9" * 5000, 10**400, 1e300])
def test_a_limit_of_more_digits_than_a_number_can_have_still_has_a_price(most: Any) -> None:
    made = expected({"generationConfig": {"maxOutputTokens": most, "candidateCount": most}}, model="gemini-2.5-flash")
    assert made.unbounded_rows == 0
    assert (estimated_cost(made, JobKind.GENERATION, at=NOW).usd or 0) > 1000


def test_rows_of_which_only_the_number_is_known_are_answered_in_what_the_model_makes() -> None:
    for most in (10, None):
        made = Expected("gemini-3.1-flash-image", {"generationConfig": {"maxOutputTokens": most}})
        made.add_rows(3, 9)
        assert (made.usage.output_image_tokens, made.unbounded_rows) == (6000, 0 if most else 3)


def test_long_texts_of_an_embedding_have_no_output_either() -> None:
    texts = expected({}, {}, size=4_000_000, model="gemini-embedding-001")
    texts.add({}, 10)
    assert estimated_cost(texts, JobKind.EMBEDDINGS, at=NOW).usd == pytest.approx(2.0000025 * 0.15)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"tools": [{"googleSearch": {}}]}, "searches"),
        ({"tools": [{"functionDeclarations": []}, {"googleMaps": {}}]}, "searches"),
        ({"tools": [{"urlContext": {}}]}, "tools"),
        ({"tools": {"codeExecution": {}}}, "tools"),
        ({"cachedContent": "cachedContents/1"}, "cachedContent"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/x.mp4", "mimeType": "video/mp4"}}]}]}, "1 files"),
        ({"systemInstruction": {"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}]}}, "1 files"),
    ],
)
def test_what_nobody_can_tell_before_is_named_and_refused(member: dict[str, Any], words: str) -> None:
    common = Expected("gemini-2.5-flash", {**bounded(), **member})
    common.add({}, 10)
    for made in (expected({**bounded(), **member}), common if "contents" not in member else None):
        if made is None or (made is common and "systemInstruction" in member):
            continue
        cost = estimated_cost(made, JobKind.GENERATION, at=NOW)
        assert cost.open_bound
        assert words in cost.note
        with pytest.raises(ConfigurationError, match=words):
            refuse_above(cost, 1e9)


def test_files_beside_a_request_are_counted() -> None:
    part = {"fileData": {"fileUri": "files/a", "mimeType": "image/png"}}
    known, unseen = Attachment(part, "a", FileSample(9, b"GIF89a" + bytes([9, 0, 9, 0]))), Attachment(part, "b")
    made = Expected("gemini-2.5-flash")
    request = {**bounded(), "contents": [{"parts": [{"text": "x"}]}]}
    made.add(request, 100, [known, known])
    assert (made.media["image"], made.unknown) == (2 * 258, ())
    made.add(request, 100, [unseen])
    assert "1 files" in made.unknown[0]


def test_functions_of_the_author_bring_in_nothing() -> None:
    request = {**bounded(), "tools": [{"functionDeclarations": [{"name": "f"}]}]}
    assert expected(request).unknown == ()


def test_pictures_are_estimated_as_pictures_and_not_as_their_base64() -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
    request = {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": png}}, {"text": "?"}]}]}
    older, newer = expected(request), expected(request, model="gemini-3.8-flash")
    assert (older.media["image"], newer.media["image"]) == (258, 1120)
    assert older.input_tokens - 258 == (len(to_json(request)) - len(png)) // 4
    low = expected({**request, "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}})
    assert (low.media["image"], older.unknown) == (64, ())
    odd: list[Any] = [["x"], {"level": {}}, 5]
    for level in odd:
        part = {"inlineData": {"mimeType": "image/png", "data": png}, "mediaResolution": level}
        assert expected({"contents": [{"parts": [part]}]}).media["image"] == 258


def test_answers_in_pictures_are_priced_as_pictures() -> None:
    cost = estimated_cost(expected(bounded(), model="gemini-3.1-flash-image"), JobKind.GENERATION, at=NOW)
    # A picture is made whole, whatever bounds the text.
    assert cost.usd == pytest.approx(2000 * 30e-6, rel=0.01)


def test_a_limit_refuses_what_is_above_it_and_what_cannot_be_told() -> None:
    refuse_above(Cost(1.0), 1.0)
    with pytest.raises(ConfigurationError, match="above max_cost_usd=1"):
        refuse_above(Cost(1.01), 1.0)
    with pytest.raises(ConfigurationError, match="cannot be checked"):
        refuse_above(Cost(None, note="unknown"), 1.0)
    with pytest.raises(ConfigurationError, match="give generation_config with a maxOutputTokens"):
        refuse_above(estimated_cost(expected({}), JobKind.GENERATION), 1.0)
    refuse_above(estimated_cost(expected({}, model="gemini-embedding-001"), JobKind.EMBEDDINGS), 1.0)


@pytest.mark.parametrize("version", ["-001", "-002", "@default", "-preview-09-2025"])
def test_a_version_of_a_model_costs_what_the_model_costs(version: str) -> None:
    found = cost_of(Usage(10**6, 10**6), f"gemini-2.5-flash{version}", rows=1000, at=NOW)
    assert found.usd == pytest.approx(1.4)
    assert not found.open_bound


@pytest.mark.parametrize("model", ["gemini-embedding-099", "gemini-99-flash-001", "-001", "gemini-99-flash"])
def test_the_version_of_an_unknown_model_has_no_price(model: str) -> None:
    assert cost_of(Usage(10**6, 10**6), model, rows=1000, at=NOW).usd is None


@NEW_MODEL
def test_a_name_that_stands_for_another_model_in_time_says_whose_price_it_has() -> None:
    cost = cost_of(Usage(1_000_000), "gemini-flash-latest", rows=1, at=NOW)
    assert cost.usd == cost_of(Usage(1_000_000), "gemini-3.8-flash", rows=1, at=NOW).usd
    assert cost.note == "gemini-flash-latest is priced as gemini-3.8-flash, for which it stands in the price table"
