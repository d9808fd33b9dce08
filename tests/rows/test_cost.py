"""Prices come from the offline table or not at all."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import pytest

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import JobKind, Usage
from airflow_provider_gemini_batch.rows.cost import Cost, cost_of, estimated_cost, refuse_above

NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)
MILLION = Usage(input_tokens=1_000_000, output_tokens=500_000, thinking_tokens=500_000)


def test_a_batch_costs_half_and_thinking_is_paid_as_output() -> None:
    assert cost_of(MILLION, "models/gemini-2.5-flash", rows=1000, at=NOW) == Cost(0.15 + 1.25)


def test_cached_tokens_are_cheaper_but_not_free() -> None:
    cached = cost_of(MILLION._replace(cached_tokens=1_000_000), "gemini-2.5-flash", rows=1000, at=NOW)
    assert cached.usd == pytest.approx(0.03 + 1.25)


def test_a_price_that_grows_with_the_prompt_is_taken_for_an_average_row() -> None:
    assert cost_of(Usage(1_000_000), "gemini-2.5-pro", rows=1000, at=NOW).usd == pytest.approx(0.625)
    assert cost_of(Usage(1_000_000), "gemini-2.5-pro", rows=1, at=NOW).usd == pytest.approx(1.25)


def test_without_a_batch_rate_the_price_is_an_upper_bound_and_says_so() -> None:
    cost = cost_of(Usage(1_000_000), "gemini-2.0-flash", rows=10, at=NOW)
    assert cost.upper_bound
    assert str(cost).startswith("at most 0.1 USD")
    early = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert cost_of(MILLION, "gemini-2.5-flash", rows=10, at=early).upper_bound


def test_an_unknown_model_has_no_price() -> None:
    cost = cost_of(MILLION, "gemini-99-huge", rows=1, at=NOW)
    assert cost.usd is None
    assert "gemini-99-huge" in str(cost)


def test_nothing_used_costs_nothing() -> None:
    assert cost_of(Usage(), "gemini-2.5-flash", rows=0, at=NOW).usd == 0


def test_without_the_extra_there_is_no_price_and_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert "genai-prices" in cost_of(MILLION, "gemini-2.5-flash", rows=1).note


def test_an_estimate_bounds_the_output_and_says_what_it_assumed() -> None:
    bounded = estimated_cost(
        model="gemini-2.5-flash", kind=JobKind.GENERATION, rows=1000, input_tokens=10**6, max_output_tokens=1000, at=NOW
    )
    assert bounded == Cost(0.15 + 1.25)
    guessed = estimated_cost(model="gemini-2.5-flash", kind=JobKind.GENERATION, rows=1000, input_tokens=10**6, at=NOW)
    assert "1024 output tokens a row" in guessed.note
    vectors = estimated_cost(
        model="gemini-embedding-001", kind=JobKind.EMBEDDINGS, rows=1000, input_tokens=10**6, at=NOW
    )
    assert vectors.usd == pytest.approx(0.15)


def test_a_limit_refuses_what_is_above_it_and_what_cannot_be_told() -> None:
    refuse_above(Cost(1.0), 1.0)
    with pytest.raises(ConfigurationError, match="above max_cost_usd=1"):
        refuse_above(Cost(1.01), 1.0)
    with pytest.raises(ConfigurationError, match="cannot be checked"):
        refuse_above(Cost(None, note="unknown"), 1.0)
    with pytest.raises(ConfigurationError, match="give generation_config with a maxOutputTokens"):
        refuse_above(estimated_cost(model="gemini-2.5-flash", kind=JobKind.GENERATION, rows=1, input_tokens=1), 1.0)
    vectors = estimated_cost(model="gemini-embedding-001", kind=JobKind.EMBEDDINGS, rows=1, input_tokens=1)
    refuse_above(vectors, 1.0)
