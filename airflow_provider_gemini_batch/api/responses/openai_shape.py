"""Responses in the form of OpenAI's batch files, turned into the service's own form.

``{"custom_id": ..., "response": {"status_code": 200, "body": {...}}}`` comes back for input lines of that form. Tokens
are ``promptTokens`` or ``prompt_tokens``. Thinking is only part of the total, so it is the total less the other two.
Source: https://ai.google.dev/gemini-api/docs/openai#batch
"""

from __future__ import annotations

import base64
import re
import struct
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from airflow_provider_gemini_batch.api.wire import int_of

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
_DATA_URL = re.compile(r"data:([\w.+/-]{0,100})(?:;[\w=.+-]{0,100})*;base64,")
_MODALITIES = {"text": "TEXT", "audio": "AUDIO", "image": "IMAGE"}


def is_envelope(response: Any) -> bool:
    """Return whether a line's ``response`` is an HTTP response with a body in OpenAI's form."""
    return isinstance(response, dict) and "body" in response and "candidates" not in response


def open_envelope(response: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the body of an envelope in the service's own form, or None and the error that it holds."""
    body = response.get("body")
    status = int_of(response.get("status_code", response.get("statusCode", 200)))
    if isinstance(body, str):
        try:
            body = from_json(body)
        except ValueError:
            body = {"message": body}
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        body = {"body": body} if body else {}
    made = native(body)
    is_good = status is None or status in _GOOD_STATUS
    if is_good and body and not body.get("error"):
        return made, None
    fault = body.get("error") or body
    fault = dict(fault) if isinstance(fault, dict) else {"message": str(fault)}
    if not isinstance(fault.get("code"), int) and not is_good:
        fault["code"] = status
    # What came with an error was paid for.
    return None if made is body else made, fault


def native(body: dict[str, Any]) -> dict[str, Any]:
    """Return a chat completion, embeddings or pictures in the service's own form; anything else unchanged."""
    data = body.get("data")
    entries = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    if isinstance(body.get("choices"), list):
        made: dict[str, Any] = {"candidates": [_candidate(one) for one in body["choices"]]}
    elif entries and "embedding" in entries[0]:
        made = {"embedding": {"values": _vector(entries[0]["embedding"])}}
    elif pictures := [part for one in entries for part in _pictures(one)]:
        made = {"candidates": [{"content": {"role": "model", "parts": pictures}, "finishReason": "STOP"}]}
    else:
        return body
    counts = body.get("usage")
    if isinstance(counts, dict):
        made["usageMetadata"] = _usage(counts)
    for name, ours in (("model", "modelVersion"), ("id", "responseId")):
        if isinstance(body.get(name), str):
            made[ours] = body[name]
    return made


def _candidate(choice: Any) -> dict[str, Any]:
    choice = choice if isinstance(choice, dict) else {"text": choice}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": message or choice.get("text")}
    parts: list[dict[str, Any]] = []
    for name, extra in (("reasoning_content", {"thought": True}), ("content", {}), ("refusal", {})):
        parts += [{**part, **extra} for part in _parts(message.get(name))]
    parts += _parts(message.get("images"))
    sound = message.get("audio")
    if isinstance(sound, dict):
        parts += _parts(sound.get("transcript"))
        if isinstance(sound.get("data"), str):
            parts.append(_media(f"audio/{sound.get('format') or 'wav'}", sound["data"]))
    calls = message.get("tool_calls")
    alone = {"function": message.get("function_call")}
    for call in [*calls, alone] if isinstance(calls, list) else [alone]:
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


def _parts(value: Any) -> list[dict[str, Any]]:
    """Return the parts of a message's content: a text, or a list of texts and of pictures in data: URLs."""
    found: list[dict[str, Any]] = []
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            found.append({"text": one})
        elif isinstance(one, dict) and isinstance(one.get("text"), str):
            found.append({"text": one["text"]})
        elif isinstance(one, dict):
            found += _pictures(one.get("image_url") or one) or [one]
    return found


def _pictures(one: Any) -> list[dict[str, Any]]:
    """Return the part for a picture, which is base64, a data: URL or an address."""
    url = one.get("url") if isinstance(one, dict) else one
    if isinstance(one, dict) and isinstance(one.get("b64_json"), str):
        return [_media("image/png", one["b64_json"])]
    if not isinstance(url, str):
        return []
    data = _DATA_URL.match(url)
    return [_media(data[1], url[data.end() :]) if data else {"fileData": {"fileUri": url}}]


def _media(mime_type: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def _vector(values: Any) -> Any:
    """Return a vector, which may be base64 of 32-bit floats."""
    if not isinstance(values, str):
        return values
    try:
        return [value for (value,) in struct.iter_unpack("<f", base64.b64decode(values, validate=True))]
    except (ValueError, struct.error):
        return values


def _args(function: Mapping[str, Any]) -> Any:
    """Return the arguments of a call, which are sent as JSON text."""
    text = function.get("arguments")
    try:
        return from_json(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts in the service's own form. A value that is not a number is kept, to be reported as odd."""

    def first(*names: str) -> Any:
        found = next((counts[name] for name in names if counts.get(name) is not None), 0)
        number = int_of(found)
        return found if number is None else number

    def details(*groups: str) -> Mapping[str, Any]:
        names = [name for group in groups for name in (f"{group}_tokens_details", f"{group}TokensDetails")]
        found: dict[str, Any] = next((counts[name] for name in names if isinstance(counts.get(name), dict)), {})
        return {name.lower().replace("_", ""): int_of(value) or 0 for name, value in found.items()}

    prompt = first("promptTokens", "prompt_tokens", "inputTokens", "input_tokens")
    answered = first("completionTokens", "completion_tokens", "outputTokens", "output_tokens")
    total = first("totalTokens", "total_tokens")
    asked, said = details("prompt", "input"), details("completion", "output")
    thought = 0
    if all(type(count) is int for count in (prompt, answered, total)):
        thought = max(0, total - prompt - answered)
        if not thought:
            thought = min(answered, said.get("reasoningtokens", 0))
            answered -= thought
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": answered,
        "thoughtsTokenCount": thought,
        "totalTokenCount": total,
        "cachedContentTokenCount": asked.get("cachedtokens", 0),
        "promptTokensDetails": _by_modality(asked),
        "candidatesTokensDetails": _by_modality(said),
    }


def _by_modality(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"modality": modality, "tokenCount": details[f"{name}tokens"]}
        for name, modality in _MODALITIES.items()
        if details.get(f"{name}tokens")
    ]
