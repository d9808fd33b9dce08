"""Answers in the form of OpenAI's batch files, turned into the service's own form.

``{"custom_id": ..., "response": {"status_code": 200, "body": {...}}}`` comes back for input lines of that form. Tokens
are ``promptTokens`` or ``prompt_tokens``; thinking is in the total alone, so it is what the other two leave.
Source: https://ai.google.dev/gemini-api/docs/openai#batch
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_REASONS = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "function_call": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_GOOD_STATUS = range(200, 300)


def is_envelope(response: Any) -> bool:
    """Tell whether a line's ``response`` is an HTTP answer with a body of OpenAI's."""
    return isinstance(response, dict) and "status_code" in response and "body" in response


def opened(response: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the body of an envelope in the service's own form, or None and the error that it holds."""
    body = response.get("body")
    status = response.get("status_code")
    if isinstance(body, str):
        try:
            body = from_json(body)
        except ValueError:
            body = {"message": body}
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        body = {}
    good = isinstance(status, int) and status in _GOOD_STATUS
    if good and body and "error" not in body:
        return native(body), None
    fault = body.get("error") or body
    fault = dict(fault) if isinstance(fault, dict) else {"message": str(fault)}
    if not isinstance(fault.get("code"), int):
        fault["code"] = status
    return None, fault


def native(body: dict[str, Any]) -> dict[str, Any]:
    """Return a chat completion or a list of embeddings in the service's own form; anything else as it is."""
    data = body.get("data")
    if isinstance(body.get("choices"), list):
        made: dict[str, Any] = {"candidates": [_candidate(one) for one in body["choices"] if isinstance(one, dict)]}
    elif isinstance(data, list) and data and isinstance(data[0], dict) and "embedding" in data[0]:
        made = {"embedding": {"values": data[0]["embedding"]}}
    else:
        return body
    counts = body.get("usage")
    if isinstance(counts, dict):
        made["usageMetadata"] = _usage(counts)
    for name, ours in (("model", "modelVersion"), ("id", "responseId")):
        if isinstance(body.get(name), str):
            made[ours] = body[name]
    return made


def _candidate(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    parts: list[dict[str, Any]] = []
    for name, extra in (("reasoning_content", {"thought": True}), ("content", {}), ("refusal", {})):
        parts += [{"text": text, **extra} for text in _texts(message.get(name))]
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            parts.append(
                {"functionCall": {"id": call.get("id"), "name": function.get("name"), "args": _args(function)}}
            )
    reason = choice.get("finish_reason")
    return {
        "content": {"role": "model", "parts": parts},
        "finishReason": _REASONS.get(reason, reason.upper()) if isinstance(reason, str) else None,
        "index": choice.get("index"),
    }


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value if isinstance(value, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _args(function: Mapping[str, Any]) -> Any:
    """The arguments of a call, which travel as JSON text."""
    text = function.get("arguments")
    try:
        return from_json(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    def number(*names: str) -> int:
        found = next((counts[name] for name in names if isinstance(counts.get(name), int)), 0)
        return int(found)

    def detail(group: str, name: str) -> int:
        found = counts.get(f"{group}_tokens_details") or counts.get(f"{group}TokensDetails")
        value = found.get(name) if isinstance(found, dict) else None
        return value if isinstance(value, int) else 0

    prompt = number("promptTokens", "prompt_tokens")
    answered = number("completionTokens", "completion_tokens")
    total = number("totalTokens", "total_tokens")
    thought = max(0, total - prompt - answered)
    if not thought:
        thought = detail("completion", "reasoning_tokens")
        answered = max(0, answered - thought)
    audio_in, audio_out = detail("prompt", "audio_tokens"), detail("completion", "audio_tokens")
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": answered,
        "thoughtsTokenCount": thought,
        "totalTokenCount": total,
        "cachedContentTokenCount": detail("prompt", "cached_tokens"),
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": audio_in}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": audio_out}],
    }
