"""Rows in the form of OpenAI's batch files, ``{custom_id, method, url, body}``, as requests of the service's own form.

It is not certain that the service itself reads such lines, so they are never sent. What has no counterpart is refused
by its name, not left out. Source of the names: https://ai.google.dev/gemini-api/docs/openai
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind
from airflow_provider_gemini_batch.api.requests.fields import shown
from airflow_provider_gemini_batch.api.requests.forms import mapping_of

_URLS = {JobKind.GENERATION: "/v1/chat/completions", JobKind.EMBEDDINGS: "/v1/embeddings"}
_AROUND = frozenset({"custom_id", "method", "url", "body"})
_SETTINGS = {
    "temperature": "temperature", "top_p": "topP", "max_tokens": "maxOutputTokens", "n": "candidateCount",
    "max_completion_tokens": "maxOutputTokens", "seed": "seed", "stop": "stopSequences",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
_ROLES = {"user": "user", "assistant": "model"}
_SYSTEM = frozenset({"system", "developer"})
_FORMATS: Mapping[str, Mapping[str, str]] = {
    "text": {},
    "json_object": {"responseMimeType": "application/json"},
}


def is_openai_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row has this form."""
    return "body" in row and "custom_id" in row and "request" not in row


def native_request(row: Mapping[str, Any], kind: JobKind) -> dict[str, Any]:
    """Return the request of a row of this form. Raises InputError, which names what cannot be turned."""
    body = mapping_of(row["body"], "body")
    _refuse(row.keys() - _AROUND, "a line in OpenAI's form")
    url = row.get("url") or _URLS[kind]
    if url != _URLS[kind]:
        raise InputError(f"'url' must be {_URLS[kind]} for {kind.value}")
    given = {name: value for name, value in body.items() if value is not None and value is not False}
    request = {"model": given.pop("model")} if "model" in given else {}
    request |= _embedding(given) if kind is JobKind.EMBEDDINGS else _generation(given)
    _refuse(given, "body")
    return request


def _refuse(names: Iterable[Any], holder: str) -> None:
    for name in names:
        raise InputError(
            f"'{shown(name)}' of {holder} has no counterpart here: leave it out, or write the row as a Gemini request"
        )


def _embedding(given: dict[str, Any]) -> dict[str, Any]:
    """Return the members of an embedding request, and take what they were made from."""
    if given.get("encoding_format") == "float":
        del given["encoding_format"]
    request = {"content": given.pop("input", None)}
    return {**request, "outputDimensionality": given.pop("dimensions")} if "dimensions" in given else request


def _generation(given: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a request for generation, and take what they were made from."""
    contents: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    messages = given.pop("messages", None)
    for message in messages if isinstance(messages, list) else [messages]:
        role = str(message.get("role")) if isinstance(message, Mapping) else ""
        if role not in _SYSTEM and role not in _ROLES:
            raise InputError("'messages' must be a list of objects with the role system, developer, user or assistant")
        _refuse((name for name in message if name not in {"role", "content"} and message[name]), "a message")
        parts = _parts(message.get("content"))
        if role in _SYSTEM:
            system += parts
        else:
            contents.append({"role": _ROLES[role], "parts": parts})
    config = {_SETTINGS[name]: given.pop(name) for name in [*given] if name in _SETTINGS}
    if isinstance(config.get("stopSequences"), str):
        config["stopSequences"] = [config["stopSequences"]]
    form = given.get("response_format")
    if isinstance(form, Mapping) and str(form.get("type")) in _FORMATS:
        config |= _FORMATS[given.pop("response_format")["type"]]
    return {
        "contents": contents,
        **({"systemInstruction": {"parts": system}} if system else {}),
        **({"generationConfig": config} if config else {}),
    }


def _parts(content: Any) -> list[dict[str, Any]]:
    """Return the parts for the content of a message: a text, or a list of texts, pictures and sounds."""
    parts: list[dict[str, Any]] = []
    for one in content if isinstance(content, list) else [{"type": "text", "text": content}]:
        kind = one.get("type") if isinstance(one, Mapping) else None
        value = one.get(kind) if isinstance(kind, str) else None
        if kind == "text" and isinstance(value, str):
            parts.append({"text": value})
        elif kind == "image_url":
            url = value.get("url") if isinstance(value, Mapping) else value
            head, comma, data = url.partition(";base64,") if isinstance(url, str) else ("", "", "")
            if not comma or not head.startswith("data:"):
                raise InputError("'image_url' must be a data: URL with base64; other pictures go into media_field")
            parts.append({"inlineData": {"mimeType": head[len("data:") :], "data": data}})
        elif kind == "input_audio" and isinstance(value, Mapping):
            parts.append({"inlineData": {"mimeType": f"audio/{value.get('format')}", "data": value.get("data")}})
        else:
            raise InputError("'content' of a message must be a text, or a list of text, image_url and input_audio")
    return parts
