"""Deterministic answers: each proves which request it answers.

* ``digest``: the first 16 hex characters of SHA-256 over the UTF-8 bytes of the request's text parts
  (``contents[*].parts[*].text`` in order; ``content.parts[*].text`` for embeddings), joined by one newline.
* Generation text: ``[digest] gist``. The gist is the first sentence of the last paragraph that is not empty, its
  white space folded, cut to 120 characters.
* With ``generationConfig.responseSchema`` (or ``responseJsonSchema``): the smallest JSON text that satisfies the
  schema; its first STRING property holds the digest.
* Embedding: ``outputDimensionality`` (768 when absent) numbers in [-1, 1), six decimals: number ``i`` is the ``i %
  8``-th big-endian 32-bit word ``w`` of SHA-256 over ``digest:block`` with ``block = i // 8``, taken as ``w / 2**31
  - 1``.
* Usage: ``promptTokenCount = max(1, len(text) // 4)``, where text is the system instruction's parts and the
  request's, joined by newlines; ``candidatesTokenCount = max(1, len(answer) // 4)``; their sum (and thoughts, when
  the fault gives some) is the total.
* ``responseId`` is ``r`` + digest, ``modelVersion`` the model's last path segment. The same request gets the same
  ``response`` on both services.
* A request without any content (no part, or only empty texts), or with a role other than user and model, is a row
  error, code 3.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.schema import get

if TYPE_CHECKING:
    from collections.abc import Callable

    #: A user's own answers: (request, key) -> text, whole response, or {"error": {"code", "message"}}; raising makes
    #: a row error.
    Responder = Callable[[dict[str, Any], "str | None"], "str | dict[str, Any]"]

_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n")
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)")
EMPTY_REQUEST = {"code": 3, "message": "Request contains an invalid argument."}
WRONG_ROLE = {"code": 3, "message": "Please use a valid role: user, model."}
_ROLES = ("user", "model", "function", "")
GIST_LENGTH = 120
DEFAULT_DIMENSIONS = 768


def request_texts(request: dict[str, Any]) -> list[str]:
    """Return the text parts of a generation or embedding request, in order."""
    return [text for content in contents_of(request) for text in _texts(content)]


def contents_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the contents of a generation request, or the one content of an embedding request."""
    contents = request.get("contents")
    if contents is None:
        contents = [request.get("content")]
    return [content for content in contents if content]


def _texts(content: Any) -> list[str]:
    return [part["text"] for part in content.get("parts") or () if part.get("text")]


def _has_content(request: dict[str, Any]) -> bool:
    return any(
        part.get("text") or set(part) - {"text"}
        for content in contents_of(request)
        for part in content.get("parts") or ()
    )


def digest_of(texts: list[str]) -> str:
    """Return the 16 hex characters that stand for these text parts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def gist_of(text: str) -> str:
    """Return the first sentence of the last paragraph, at most 120 characters."""
    folded = " ".join(_PARAGRAPHS.split(text.strip())[-1].split())
    found = _SENTENCE.match(folded)
    return (found.group() if found else folded)[:GIST_LENGTH]


def embedding_of(digest: str, dimensions: int) -> list[float]:
    """Return the vector of a digest."""
    values: list[float] = []
    for block in range((dimensions + 7) // 8):
        words = struct.unpack(">8I", hashlib.sha256(f"{digest}:{block}".encode()).digest())
        values.extend(min(round(word / 2147483648 - 1, 6), 0.999999) for word in words)
    return values[:dimensions]


def answer_schema(schema: Any, digest: str) -> str:
    """Return the smallest JSON text that satisfies a response schema."""
    pending = [digest]
    return json.dumps(_sample(schema, pending, 0), ensure_ascii=False)


def _sample(schema: Any, digest: list[str], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > 20:  # noqa: PLR2004 - a schema that refers to itself must end somewhere
        return None
    choices = get(schema, "anyOf")
    if choices:
        return _sample(choices[0], digest, depth + 1)
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        names = get(schema, "required") or list(schema.get("properties") or {})
        ordered = [name for name in schema.get("properties") or {} if name in names]
        return {name: _sample(schema["properties"][name], digest, depth + 1) for name in ordered}
    if kind == "array":
        count = int(get(schema, "minItems") or 0) or 1
        return [_sample(schema.get("items") or {}, digest, depth + 1) for _ in range(count)]
    if kind == "string":
        text = digest.pop() if digest else "text"
        return text.ljust(int(get(schema, "minLength") or 0), "x")
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return False if kind == "boolean" else None


class Answerer:
    """Answers the rows of one job.

    :param model: model name; its last segment becomes ``modelVersion``.
    :param embeds: whether rows are embedding requests.
    :param thoughts: thought tokens of every answer, 0 for none.
    :param count: ``usage``, ``token`` or None for both: how an embedding answer states its tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        embeds: bool,
        thoughts: int = 0,
        count: str | None = None,
        responder: Responder | None = None,
    ) -> None:
        self.model = model.rsplit("/", 1)[-1]
        self.embeds = embeds
        self.thoughts = thoughts
        self.count = count
        self.responder = responder

    def answer(self, request: dict[str, Any], key: str | None) -> dict[str, Any]:
        """Return ``{"response": ...}`` or ``{"error": ...}`` for one request."""
        if self.responder is not None:
            return self._ask(self.responder, request, key)
        if not _has_content(request):
            return {"error": EMPTY_REQUEST}
        if not self.embeds and any(content.get("role", "user") not in _ROLES for content in request["contents"]):
            return {"error": WRONG_ROLE}
        return {"response": self.embed(request) if self.embeds else self.generate(request)}

    def _ask(self, responder: Responder, request: dict[str, Any], key: str | None) -> dict[str, Any]:
        try:
            said = responder(request, key)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is the row's error
            return {"error": {"code": 13, "message": str(error) or "Internal error encountered."}}
        if isinstance(said, str):
            return {"response": self.generate(request, said)}
        if set(said) == {"error"}:
            return dict(said)
        return {"response": said}

    def generate(self, request: dict[str, Any], text: str | None = None) -> dict[str, Any]:
        """Return the response to a generation request, with ``text`` as its answer when given."""
        texts = request_texts(request)
        digest = digest_of(texts)
        config = get(request, "generationConfig")
        schema = get(config, "responseSchema") or get(config, "responseJsonSchema")
        if text is None:
            text = answer_schema(schema, digest) if schema else f"[{digest}] {gist_of(chr(10).join(texts))}"
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        prompt = self._prompt_tokens(request, texts)
        answered = max(1, len(text) // 4)
        usage: dict[str, Any] = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": answered,
            "totalTokenCount": prompt + answered + self.thoughts,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        }
        if self.thoughts:
            usage["thoughtsTokenCount"] = self.thoughts
        return {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": self.model,
            "responseId": f"r{digest}",
        }

    def embed(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the response to an embedding request."""
        texts = request_texts(request)
        config = get(request, "embedContentConfig") or {}
        dimensions = get(request, "outputDimensionality") or get(config, "outputDimensionality") or DEFAULT_DIMENSIONS
        prompt = self._prompt_tokens(request, texts)
        response: dict[str, Any] = {"embedding": {"values": embedding_of(digest_of(texts), int(dimensions))}}
        if self.count != "usage":
            response["tokenCount"] = str(prompt)
        if self.count != "token":
            response["usageMetadata"] = {"promptTokenCount": prompt}
        return response

    @staticmethod
    def _prompt_tokens(request: dict[str, Any], texts: list[str]) -> int:
        system = get(request, "systemInstruction")
        joined = [*_texts(system), *texts] if system else texts
        return max(1, (sum(map(len, joined)) + max(0, len(joined) - 1)) // 4)


def truncate(response: dict[str, Any]) -> None:
    """Turn an answer into one that ran out of tokens half-way."""
    for candidate in response.get("candidates") or ():
        part = candidate["content"]["parts"][0]
        part["text"] = part["text"][: len(part["text"]) // 2]
        candidate["finishReason"] = "MAX_TOKENS"


def block(response: dict[str, Any]) -> dict[str, Any]:
    """Return what the service answers for a prompt that it blocks."""
    usage = response.get("usageMetadata") or {}
    prompt = usage.get("promptTokenCount", 1)
    return {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": prompt, "totalTokenCount": prompt},
        **{name: response[name] for name in ("modelVersion", "responseId") if name in response},
    }
