"""The tokens that the service counted for one response, by the kinds that it bills separately.

``totalTokenCount`` is prompt, candidates, tool results and thoughts together; cached tokens are within the prompt.
Source: https://ai.google.dev/api/generate-content#UsageMetadata
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.models import Usage
from airflow_provider_gemini_batch.api.responses.content import embedding_of, has_media

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 2**63 - 1
# Pages of a PDF are counted as pictures or, elsewhere, as documents; they are billed as pictures.
_MODALITIES = {"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}
_TEXT = frozenset({"", "TEXT", "MODALITY_UNSPECIFIED"})
# The modalities whose numbers mean the same to both services.
_NUMBERED = ("", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
_COUNTS = (
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "toolUsePromptTokenCount",
)
_LISTS = {"prompt": "input", "toolUsePrompt": "input", "cache": "cached", "candidates": "output"}
_KNOWN = frozenset({
    *_COUNTS, "totalTokenCount", *(f"{name}{word}Details" for name in _LISTS for word in ("Tokens", "Token"))
})  # fmt: skip
_QUERIES = ("webSearchQueries", "imageSearchQueries")
# Sources of searches that are billed by the query; retrieval from one's own files is not.
_SEARCHED = frozenset({"web", "image", "maps"})


def usage_of(response: Mapping[str, Any]) -> tuple[Usage | None, str]:
    """Return what a response used (None: it does not say), and what was odd about the counts (usually empty)."""
    counts = response.get("usageMetadata")
    odd: list[str] = []
    if not isinstance(counts, dict) or _KNOWN.isdisjoint(counts):
        count = _token_count(response)
        if count is None:
            return None, ""
        tokens = _count(count, "tokenCount", odd)
        return Usage(input_tokens=tokens, uncounted_answers=len(odd)), "; ".join(odd)
    prompt, answered, thought, cached, tool = (_count(counts.get(name), name, odd) for name in _COUNTS)
    prompt = prompt or _count(_token_count(response), "tokenCount", odd)
    found, listed = _by_modality(counts, odd)
    # A list may add up to more than its total, which may even be missing.
    prompt, tool = max(prompt, listed["prompt"]), max(tool, listed["toolUsePrompt"])
    cached, answered = max(cached, listed["cache"]), max(answered, listed["candidates"])
    if answered and not listed["candidates"] and has_media(response):
        # Pictures and sound cost more than text, and nothing says how many of these tokens they are.
        found["other_tokens"] = found.get("other_tokens", 0) + answered
    # Tokens that only the total includes were billed too: as an unknown kind, or of a vector as its input.
    rest = max(0, _count(counts.get("totalTokenCount"), "totalTokenCount", []) - prompt - answered - thought - tool)
    if embedding_of(response):
        prompt, rest = prompt + rest, 0
    members = {
        "input_tokens": prompt + tool,
        "output_tokens": answered + rest,
        "thinking_tokens": thought,
        "cached_tokens": cached,
        "tool_tokens": tool,
        "searches": _searches(response),
        **found,
        "other_tokens": found.get("other_tokens", 0) + rest,
    }
    if too_many := [name for name, count in members.items() if count > _MOST]:
        odd += [f"{name} is beyond 64 bits" for name in too_many]
        members.update(dict.fromkeys(too_many, 0))
    return Usage(**members, uncounted_answers=1 if odd else 0), "; ".join(odd)


def _token_count(response: Mapping[str, Any]) -> Any:
    """Return the tokens of an embedding's text; some models report them in ``statistics``."""
    embedding = embedding_of(response)
    statistics = embedding.get("statistics") if isinstance(embedding, dict) else None
    found = statistics if isinstance(statistics, dict) else {}
    return response.get("tokenCount", found.get("tokenCount", found.get("token_count")))


def _by_modality(counts: Mapping[str, Any], odd: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return sums by modality and by list: a modality may occur twice, and some tokens are in no list."""
    found: dict[str, int] = {}
    listed = dict.fromkeys(_LISTS, 0)
    for member, side in _LISTS.items():
        for spelling in (f"{member}TokensDetails", f"{member}TokenDetails"):
            details = counts.get(spelling)
            if isinstance(details, list) and details:
                for detail in details:
                    count = _count(detail.get("tokenCount"), spelling, odd) if isinstance(detail, dict) else 0
                    listed[member] += count
                    if name := _place(detail, side):
                        found[name] = found.get(name, 0) + count
                break
    return found, listed


def _place(detail: Any, side: str) -> str:
    """Return the member of :class:`.Usage` for one entry; empty for text, which is the rest of the total."""
    named = detail.get("modality") if isinstance(detail, dict) else None
    if isinstance(named, int) and 0 <= named < len(_NUMBERED):
        named = _NUMBERED[named]
    modality = str(named or "").upper()
    if modality in _TEXT:
        return ""
    kind = _MODALITIES.get(modality)
    if kind is not None:
        return f"{side}_{kind}_tokens"
    return "" if side == "cached" else "other_tokens"


def _searches(response: Mapping[str, Any]) -> int:
    """Return how many search queries the response shows; 1 if it only shows what a search found.

    Each query is billed in addition to the tokens.
    """
    found = 0
    listed = response.get("candidates")
    for candidate in listed if isinstance(listed, list) else ():
        grounding = candidate.get("groundingMetadata") if isinstance(candidate, dict) else None
        if isinstance(grounding, dict):
            shown = sum(len(grounding[name]) for name in _QUERIES if isinstance(grounding.get(name), list))
            found += shown or _has_found(grounding)
    return found


def _has_found(grounding: Mapping[str, Any]) -> bool:
    chunks = grounding.get("groundingChunks")
    sources = [chunk for chunk in chunks if isinstance(chunk, dict)] if isinstance(chunks, list) else []
    return bool(grounding.get("searchEntryPoint")) or any(not _SEARCHED.isdisjoint(source) for source in sources)


def _count(value: Any, name: str, odd: list[str]) -> int:
    """Return a token count; JSON carries int64 as text. A value that is not a number counts as 0 and is reported."""
    if type(value) is int and 0 <= value <= _MOST:
        return value
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_MOST)):
        number = int(value)
        if number <= _MOST:
            return number
    elif isinstance(value, float) and 0 <= value <= _MOST and value == int(value):
        return int(value)
    odd.append(f"{name} is not a count of tokens")
    return 0
