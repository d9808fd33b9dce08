"""The bill: what is charged for, and what it comes to."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.emulator.bill import Prices, price
from airflow_provider_gemini_batch.emulator.usage import billed_tokens
from emulator.calls import vertex_row

if TYPE_CHECKING:
    from emulator.calls import Gemini, Vertex

#: A time at which the price table has batch prices.
AT = datetime(2026, 11, 26, tzinfo=timezone.utc).timestamp()
FULL: dict[str, Any] = {
    "usageMetadata": {
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
}


@pytest.fixture
def prices() -> Prices:
    calc = pytest.importorskip("genai_prices")
    usage = calc.Usage(input_tokens=10**6)
    at = datetime.fromtimestamp(AT, tz=timezone.utc)
    options: dict[str, Any] = {"provider_id": "google", "genai_request_timestamp": at}
    try:
        known = calc.calc_price(usage, "gemini-2.5-flash", price_context={"processing": "batch"}, **options)
    except TypeError:
        pytest.skip("the newest genai-prices for Python 3.10 has no batch prices to compare with")
    assert float(known.total_price) == pytest.approx(0.15)
    return Prices(AT)


def test_tokens_are_told_apart_by_kind_and_modality() -> None:
    assert billed_tokens(FULL) == {
        "input_text": 300,
        "input_audio": 100,
        "cache_audio": 600,
        "tool_text": 200,
        "output_text": 100,
        "thoughts": 50,
    }
    assert billed_tokens({"tokenCount": "7"}) == {"input_text": 7}
    assert billed_tokens({"usageMetadata": {"promptTokenCount": 200_001}}) == {"long_input_text": 200_001}
    assert billed_tokens({"usageMetadata": {"promptTokenCount": 5, "promptTokensDetails": "odd"}}) == {"input_text": 5}
    twice = [{"modality": "IMAGE", "tokenCount": 2}, {"modality": "DOCUMENT", "tokenCount": 3}]
    assert billed_tokens({"usageMetadata": {"promptTokenCount": 6, "promptTokensDetails": twice}}) == {
        "input_image": 5,
        "input_text": 1,
    }


def test_a_full_usage_costs_what_the_price_table_says_of_it(prices: Prices) -> None:
    assert price("models/gemini-2.5-flash", billed_tokens(FULL), prices) == pytest.approx(0.0003725)


@pytest.mark.parametrize(
    ("model", "tokens", "usd"),
    [
        ("gemini-2.5-flash", {"input_text": 10**6, "output_text": 10**6}, 1.40),
        ("gemini-2.5-flash", {"input_audio": 10**6}, 0.50),
        ("gemini-2.5-flash", {"cache_text": 10**6}, 0.03),
        ("gemini-2.5-flash", {"cache_audio": 10**6}, 0.10),
        ("gemini-3.1-flash-image", {"input_text": 10_000, "output_image": 1_290_000}, 38.7025),
        ("gemini-3-pro-image", {"input_text": 10_000, "output_image": 1_290_000}, 77.41),
        ("gemini-embedding-2", {"input_image": 10**6, "input_video": 10**6}, 6.225),
        ("gemini-3.8-flash", {"searches": 1000}, 14.0),
        ("gemini-2.5-pro", {"input_text": 1_000_000}, 0.625),
        ("gemini-2.5-pro", {"long_input_text": 1_000_000}, 1.25),
        ("gemini-2.5-pro", {"long_output_text": 1_000_000}, 7.5),
    ],
)
def test_each_kind_has_its_own_price(prices: Prices, model: str, tokens: dict[str, int], usd: float) -> None:
    assert price(model, tokens, prices) == pytest.approx(usd)


def test_a_model_without_a_price_has_no_sum(prices: Prices) -> None:
    assert price("gemini-4-carbon", {"input_text": 1}, prices) is None
    assert price("gemini-4-carbon", {}, prices) == 0


def test_the_bill_holds_every_answered_row_and_no_failed_one(gemini: Gemini) -> None:
    gemini.emulator.control.faults(row_error_every=3)
    name = gemini.create(rows=6)
    gemini.emulator.control.advance(60)
    rows = [row["response"]["usageMetadata"] for row in gemini.rows(name) if "response" in row]
    bill = gemini.emulator.control.bill()
    assert bill["tokens"] == {
        "input_text": sum(usage["promptTokenCount"] for usage in rows),
        "output_text": sum(usage["candidatesTokenCount"] for usage in rows),
    }
    assert [(job["name"], job["model"]) for job in bill["jobs"]] == [(name, "models/gemini-2.5-flash")]
    assert gemini.http.get("/emulator/bill").json()["tokens"] == bill["tokens"]
    assert len(rows) == 4


def test_a_stopped_job_is_billed_for_its_finished_rows_and_its_successor_for_the_rest(stored: Vertex) -> None:
    stored.put("in.jsonl", *[vertex_row("x" * 40, key=f"k{n}") for n in range(10)])
    stored.emulator.control.faults(expire=True, partial_rows=0.4)
    first = stored.run(uri="gs://in/in.jsonl")
    stored.emulator.control.clear_faults()
    stored.run(uri=first["outputInfo"]["gcsOutputDirectory"] + "/predictions.jsonl")
    assert [job["tokens"]["input_text"] for job in stored.emulator.control.bill()["jobs"]] == [40, 60]


def test_searches_stand_beside_the_tokens(gemini: Gemini) -> None:
    gemini.emulator.control.faults(answer_kinds=["grounded", "text"])
    gemini.create(rows=4)
    gemini.emulator.control.advance(60)
    assert gemini.emulator.control.bill()["tokens"]["searches"] == 4
