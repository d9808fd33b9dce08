"""Tokens: how a request and its answer are counted, and what of an answer is billed.

The emulator counts a token for each four characters of text, at least one. ``promptTokenCount`` holds all input, cached
tokens included; ``toolUsePromptTokenCount``, ``candidatesTokenCount`` and ``thoughtsTokenCount`` stand beside it, and
the total is their sum. Lists by modality may leave out text: what they do not name is text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.media import tokens_of_part
from airflow_provider_gemini_batch.emulator.schema import get

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_gemini_batch.emulator.media import Lookup

#: Prompts of more tokens than this have prices of their own on some models.
LONG_PROMPT = 200_000
_PLAIN = frozenset(["promptTokenCount", "candidatesTokenCount", "totalTokenCount", "promptTokensDetails"])
_PLAIN_CANDIDATE = frozenset(["content", "finishReason", "index"])
#: Tokens of content that a request names in ``cachedContent``.
CACHED_CONTENT_TOKENS = 2048


def contents_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the contents of a generation request, or the one content of an embedding request."""
    contents = request.get("contents")
    if contents is None:
        contents = [request.get("content")]
    return [content for content in contents if content]


def texts_of(content: dict[str, Any]) -> list[str]:
    """Return the texts of a content."""
    return [part["text"] for part in content.get("parts") or () if part.get("text")]


def text_tokens(texts: list[str]) -> int:
    """Return the tokens of texts that are joined by newlines."""
    return max(1, (sum(map(len, texts)) + max(0, len(texts) - 1)) // 4)


def prompt_tokens(request: dict[str, Any], model: str, look_up: Lookup | None) -> dict[str, int]:
    """Return the input tokens of a request by modality."""
    system = get(request, "systemInstruction")
    texts = texts_of(system) if system else []
    tokens: dict[str, int] = {}
    for content in contents_of(request):
        for part in content.get("parts") or ():
            if part.get("text"):
                texts.append(part["text"])
            elif get(part, "inlineData") or get(part, "fileData"):
                level = get(get(request, "generationConfig"), "mediaResolution")
                modality, count = tokens_of_part(part, model, level, look_up)
                tokens[modality] = tokens.get(modality, 0) + count
    if texts or not tokens:
        tokens = {"TEXT": tokens.pop("TEXT", 0) + text_tokens(texts), **tokens}
    return tokens


def details(tokens: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a list of ``{modality, tokenCount}``."""
    return [{"modality": modality, "tokenCount": count} for modality, count in tokens.items() if count]


def usage_metadata(
    prompt: Mapping[str, int],
    answered: Mapping[str, int],
    *,
    thoughts: int = 0,
    tool: int = 0,
    cached: int = 0,
) -> dict[str, Any]:
    """Return ``usageMetadata``; ``cached`` is a part of the prompt, the others are not."""
    asked, said = sum(prompt.values()), sum(answered.values())
    usage: dict[str, Any] = {"promptTokenCount": asked}
    if cached:
        usage["cachedContentTokenCount"] = min(cached, asked)
    if tool:
        usage["toolUsePromptTokenCount"] = tool
    if said:
        usage["candidatesTokenCount"] = said
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    usage["totalTokenCount"] = asked + tool + said + thoughts
    usage["promptTokensDetails"] = details(prompt)
    if cached:
        usage["cacheTokensDetails"] = details(_first(prompt, cached))
    if tool:
        usage["toolUsePromptTokensDetails"] = details({"TEXT": tool})
    media = {modality: count for modality, count in answered.items() if modality != "TEXT"}
    if media:
        usage["candidatesTokensDetails"] = details(media)
    return usage


def _first(tokens: Mapping[str, int], count: int) -> dict[str, int]:
    taken: dict[str, int] = {}
    for modality, there in tokens.items():
        taken[modality] = min(count, there)
        count -= taken[modality]
    return taken


def billed_tokens(response: dict[str, Any]) -> dict[str, int]:
    """Return what an answer costs, in tokens by kind: ``input_text``, ``cache_audio``, ``tool_text``, ``output_image``.

    ``thoughts`` are thinking, ``searches`` the queries that were put to Google Search. Input excludes what was cached.
    Kinds of a prompt that is longer than ``LONG_PROMPT`` begin with ``long_``.
    """
    usage = response.get("usageMetadata") or {}
    if usage.keys() == _PLAIN and usage["promptTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": usage["promptTokenCount"]}
    ]:
        plain = _plain(response, usage)
        if plain:
            return plain
    asked = whole_number(usage.get("promptTokenCount"), response.get("tokenCount"))
    billed: dict[str, int] = {}
    cached = _split(whole_number(usage.get("cachedContentTokenCount")), usage.get("cacheTokensDetails"))
    prompt = _split(asked, usage.get("promptTokensDetails") or usage.get("promptTokenDetails"))
    for modality, count in prompt.items():
        billed[f"input_{modality}"] = max(0, count - cached.get(modality, 0))
    for modality, count in cached.items():
        billed[f"cache_{modality}"] = count
    tool = _split(whole_number(usage.get("toolUsePromptTokenCount")), usage.get("toolUsePromptTokensDetails"))
    for modality, count in tool.items():
        billed[f"tool_{modality}"] = count
    said = _split(whole_number(usage.get("candidatesTokenCount")), usage.get("candidatesTokensDetails"))
    for modality, count in said.items():
        billed[f"output_{modality}"] = count
    billed["thoughts"] = whole_number(usage.get("thoughtsTokenCount"))
    if asked > LONG_PROMPT:
        billed = {f"long_{kind}": count for kind, count in billed.items()}
    billed["searches"] = sum(
        len((candidate.get("groundingMetadata") or {}).get("webSearchQueries") or ())
        for candidate in response.get("candidates") or ()
        if isinstance(candidate, dict)
    )
    return {kind: count for kind, count in billed.items() if count}


def _plain(response: dict[str, Any], usage: dict[str, Any]) -> dict[str, int] | None:
    """Return the bill of text that is answered by text, as nearly all rows are; None for anything else."""
    asked, said = usage["promptTokenCount"], usage["candidatesTokenCount"]
    if type(asked) is int and type(said) is int and 0 < asked <= LONG_PROMPT and said > 0:
        candidates = response.get("candidates") or []
        if len(candidates) == 1 and candidates[0].keys() == _PLAIN_CANDIDATE:
            return {"input_text": asked, "output_text": said}
    return None


def whole_number(*values: Any) -> int:
    """Return the first value that is a whole number; what a responder makes up may be anything."""
    for value in values:
        if isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit()):
            return int(value)
    return 0


def _split(total: int, listed: Any) -> dict[str, int]:
    """Return tokens by modality, in lower case: what the list does not name is text, a page counts as a picture."""
    tokens: dict[str, int] = {}
    for item in listed if isinstance(listed, list) else ():
        modality = str(item.get("modality", "TEXT")).lower().replace("document", "image")
        tokens[modality] = tokens.get(modality, 0) + whole_number(item.get("tokenCount"))
    rest = total - sum(tokens.values())
    if rest > 0:
        tokens["text"] = tokens.get("text", 0) + rest
    return tokens
