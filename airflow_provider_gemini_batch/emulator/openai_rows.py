"""Rows in OpenAI's shape: ``{custom_id, method, url, body}`` in, ``{custom_id, response: {status_code, body}}`` out.

Token counts come in camelCase, as a live run showed them; the total includes thinking that ``completionTokens``
leaves out.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_gemini_batch.emulator.schema import Complaint

URL = "/v1/chat/completions"
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}


def is_openai(row: dict[str, Any]) -> bool:
    """Return whether an input row has OpenAI's shape."""
    return "custom_id" in row and "body" in row and "request" not in row


def check_openai(row: dict[str, Any]) -> None:
    """Check a row of OpenAI's shape; raises Complaint."""
    body = row["body"]
    if not isinstance(row["custom_id"], str):
        raise Complaint("custom_id", "the custom_id must be a string")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Complaint("body", "the body must hold messages")
    if row.get("method", "POST") != "POST" or row.get("url", URL) != URL:
        raise Complaint("url", f"only POST {URL} is supported")
    if not all(isinstance(message, dict) for message in body["messages"]):
        raise Complaint("messages", "every message must be an object")


def request_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the generation request that a row of OpenAI's shape stands for."""
    body = row["body"]
    contents: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    for message in body["messages"]:
        parts = _parts(message.get("content"))
        if message.get("role") in ("system", "developer"):
            system += parts
        else:
            contents.append({"role": "model" if message.get("role") == "assistant" else "user", "parts": parts})
    request: dict[str, Any] = {"contents": contents}
    if system:
        request["systemInstruction"] = {"parts": system}
    config = {native: body[name] for name, native in _CONFIG.items() if body.get(name) is not None}
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        config["responseJsonSchema"] = (wanted.get("json_schema") or {}).get("schema") or {}
    if config:
        request["generationConfig"] = config
    functions = [tool.get("function") or {} for tool in body.get("tools") or () if tool.get("type") == "function"]
    if functions:
        declared = [{"name": each.get("name"), "parametersJsonSchema": each.get("parameters")} for each in functions]
        request["tools"] = [{"functionDeclarations": declared}]
    return request


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [{"text": str(part.get("text"))} for part in content or () if part.get("type") == "text"]


def row_of(row: dict[str, Any], answer: dict[str, Any], created: int) -> dict[str, Any]:
    """Return the output row that an answer becomes."""
    error = answer.get("error")
    if error is not None:
        body: dict[str, Any] = {"error": error}
        return {"custom_id": row["custom_id"], "response": {"status_code": 400, "body": body}}
    response = answer["response"]
    usage = response.get("usageMetadata") or {}
    body = {
        "id": response.get("responseId"),
        "object": "chat.completion",
        "created": created,
        "model": response.get("modelVersion"),
        "choices": [_choice(candidate) for candidate in response.get("candidates") or ()],
        "usage": {
            "promptTokens": usage.get("promptTokenCount", 0),
            "completionTokens": usage.get("candidatesTokenCount", 0),
            "totalTokens": usage.get("totalTokenCount", 0),
        },
    }
    return {"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}}


def _choice(candidate: dict[str, Any]) -> dict[str, Any]:
    parts = candidate.get("content", {}).get("parts") or []
    text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    if calls:
        message["tool_calls"] = [
            {"id": call.get("id"), "type": "function", "function": {"name": call["name"], "arguments": _json(call)}}
            for call in calls
        ]
    finish = "tool_calls" if calls else _FINISH.get(str(candidate.get("finishReason")), "stop")
    return {"index": candidate.get("index", 0), "finish_reason": finish, "message": message}


def _json(call: dict[str, Any]) -> str:
    return json.dumps(call.get("args") or {})
