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
* A request with no text but media: ``digest`` is over the data or URIs of its media, joined by one newline.
* Pictures, sound, function calls and the like, for requests that ask for them: ``drafts.py``.
* Usage: ``promptTokenCount = max(1, len(text) // 4)``, where text is the system instruction's parts and the
  request's, joined by newlines; ``candidatesTokenCount = max(1, len(answer) // 4)``; their sum (and thoughts, when
  the fault gives some) is the total. Media count as ``media.py`` says.
* ``maxOutputTokens`` bounds thinking and answer of each candidate: what has more ends there, with ``MAX_TOKENS``.
* ``responseId`` is ``r`` + digest, ``modelVersion`` the model's last path segment. The same request gets the same
  ``response`` on both services.
* A request without any content (no part, or only empty texts), or with a role other than user and model, is a row
  error, code 3.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import sys
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.drafts import Wish, draft, wish_of
from airflow_provider_gemini_batch.emulator.media import SAMPLE_RATE, SPEECH_TOKENS_A_SECOND, image_output_tokens
from airflow_provider_gemini_batch.emulator.schema import get
from airflow_provider_gemini_batch.emulator.usage import (
    CACHED_CONTENT_TOKENS,
    contents_of,
    details,
    prompt_tokens,
    texts_of,
    usage_metadata,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_gemini_batch.emulator.media import Lookup

    #: A user's own answers: (request, key) -> text, {"parts": [...]} (counted by the emulator), a whole response, or
    #: {"error": {"code", "message"}}; raising makes a row error.
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
    return [text for content in contents_of(request) for text in texts_of(content)]


def _has_content(request: dict[str, Any]) -> bool:
    return any(
        part.get("text") or set(part) - {"text"}
        for content in contents_of(request)
        for part in content.get("parts") or ()
    )


def digest_of(texts: list[str]) -> str:
    """Return the 16 hex characters that stand for these text parts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def digest_of_request(request: dict[str, Any], texts: list[str]) -> str:
    """Return the digest of a request: of its texts, or of its media when it has none."""
    return digest_of(texts or _media_of(request))


def _media_of(request: dict[str, Any]) -> list[str]:
    parts = [part for content in contents_of(request) for part in content.get("parts") or ()]
    named = [get(get(part, "fileData"), "fileUri") or get(get(part, "inlineData"), "data") for part in parts]
    return [str(name) for name in named if name]


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
    return json.dumps(sample_of(schema, digest), ensure_ascii=False)


def sample_of(schema: Any, digest: str) -> Any:
    """Return the smallest JSON value that satisfies a schema; its first string is the digest."""
    return _sample(schema, [digest], 0)


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


@dataclass
class Answerer:
    """Answers the rows of one job.

    :param model: model name; its last segment becomes ``modelVersion``.
    :param embeds: whether rows are embedding requests.
    :param thoughts: thought tokens of every answer, 0 for none.
    :param cached: tokens of every prompt that come from a cache.
    :param dimensions: length of every vector, None for what the request asks for.
    :param image_bytes: about how large pictures are, 0 for small ones.
    :param audio_seconds: how long speech is, None: by the length of the text.
    :param look_up: gives what is known of a file that a request names.
    """

    model: str
    _: KW_ONLY
    embeds: bool
    thoughts: int = 0
    cached: int = 0
    dimensions: int | None = None
    image_bytes: int = 0
    audio_seconds: float | None = None
    responder: Responder | None = None
    look_up: Lookup | None = None

    def __post_init__(self) -> None:
        """Keep the last segment of the model's name."""
        self.model = self.model.rsplit("/", 1)[-1]

    def answer(self, request: dict[str, Any], key: str | None, kind: str | None = None) -> dict[str, Any]:
        """Return ``{"response": ...}`` or ``{"error": ...}`` for one request.

        :param kind: what the answer has to be, one of ``drafts.KINDS``; None: what the request asks for.
        """
        if self.responder is not None:
            return self._ask(self.responder, request, key)
        if not _has_content(request):
            return {"error": EMPTY_REQUEST}
        if not self.embeds and any(content.get("role", "user") not in _ROLES for content in request["contents"]):
            return {"error": WRONG_ROLE}
        return {"response": self.embed(request) if self.embeds else self.generate(request, kind=kind)}

    def _ask(self, responder: Responder, request: dict[str, Any], key: str | None) -> dict[str, Any]:
        try:
            said = responder(request, key)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is the row's error
            return {"error": {"code": 13, "message": str(error) or "Internal error encountered."}}
        if isinstance(said, str):
            return {"response": self.generate(request, said)}
        if set(said) == {"error"}:
            return dict(said)
        if set(said) == {"parts"}:
            return {"response": self._counted(request, said["parts"])}
        return {"response": said}

    def generate(self, request: dict[str, Any], text: str | None = None, *, kind: str | None = None) -> dict[str, Any]:
        """Return the response to a generation request, with ``text`` as its text when given."""
        texts = request_texts(request)
        digest = digest_of_request(request, texts)
        config = get(request, "generationConfig")
        schema = get(config, "responseSchema") or get(config, "responseJsonSchema")
        if text is None:
            text = answer_schema(schema, digest) if schema else f"[{digest}] {gist_of(chr(10).join(texts))}"
        wish = wish_of(request, self.model, kind)
        most = max(0, _most_tokens(request) - self.thoughts)
        if wish is None:
            tokens = max(1, len(text) // 4)
            reason = "STOP" if tokens <= most else "MAX_TOKENS"
            parts = [{"text": text if tokens <= most else text[: 4 * most]}]
            candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
            return self._response(request, digest, [candidate], {"TEXT": min(tokens, most)})
        wish.image_bytes, wish.audio_seconds = self.image_bytes, self.audio_seconds
        wish.most_tokens, wish.may_be_cut = most, kind is None
        return self._drafted(request, digest, wish, text, is_json=bool(schema))

    def _drafted(self, request: dict[str, Any], digest: str, wish: Wish, text: str, *, is_json: bool) -> dict[str, Any]:
        candidates: list[dict[str, Any]] = []
        tokens: dict[str, int] = {}
        thoughts = tool = 0
        for index in range(wish.candidates):
            own = text if is_json or not index else f"{text} #{index + 1}"
            made = draft(wish, own, digest if not index else digest_of([digest, str(index)]), self.model, sample_of)
            cut = wish.may_be_cut and made.bound(wish.most_tokens)
            made.thoughts = min(made.thoughts, wish.most_tokens)
            content: dict[str, Any] = {"role": "model"}
            if made.parts:
                content["parts"] = made.parts
            reason = "MAX_TOKENS" if cut else "STOP"
            candidates.append({"content": content, "finishReason": reason, "index": index, **made.beside})
            for modality, count in made.tokens.items():
                tokens[modality] = tokens.get(modality, 0) + count
            thoughts += made.thoughts
            tool = max(tool, made.tool_tokens)
        return self._response(request, digest, candidates, tokens, thoughts=thoughts, tool=tool)

    def _counted(self, request: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the response that holds these parts."""
        digest = digest_of_request(request, request_texts(request))
        tokens: dict[str, int] = {}
        for part in parts:
            modality, count = _tokens_of(part, self.model)
            tokens[modality] = tokens.get(modality, 0) + count
        content = {"role": "model", "parts": parts}
        return self._response(request, digest, [{"content": content, "finishReason": "STOP", "index": 0}], tokens)

    def _response(
        self,
        request: dict[str, Any],
        digest: str,
        candidates: list[dict[str, Any]],
        tokens: dict[str, int],
        *,
        thoughts: int = 0,
        tool: int = 0,
    ) -> dict[str, Any]:
        prompt = prompt_tokens(request, self.model, self.look_up)
        cached = self.cached
        if get(request, "cachedContent"):
            cached = CACHED_CONTENT_TOKENS
            prompt = {**prompt, "TEXT": prompt.get("TEXT", 0) + cached}
        thoughts += min(self.thoughts, _most_tokens(request))
        usage = usage_metadata(prompt, tokens, thoughts=thoughts, tool=tool, cached=cached)
        return {
            "candidates": candidates,
            "usageMetadata": usage,
            "modelVersion": self.model,
            "responseId": f"r{digest}",
        }

    def embed(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the response to an embedding request."""
        texts = request_texts(request)
        config = get(request, "embedContentConfig") or {}
        dimensions = get(request, "outputDimensionality") or get(config, "outputDimensionality") or DEFAULT_DIMENSIONS
        prompt = prompt_tokens(request, self.model, self.look_up)
        values = embedding_of(digest_of_request(request, texts), self.dimensions or int(dimensions))
        asked = sum(prompt.values())
        usage: dict[str, Any] = {"promptTokenCount": asked}
        if set(prompt) != {"TEXT"}:
            # Spelt in the singular for embeddings, unlike for generation.
            usage["promptTokenDetails"] = details(prompt)
        return {"embedding": {"values": values}, "tokenCount": str(asked), "usageMetadata": usage}


def _most_tokens(request: dict[str, Any]) -> int:
    bound = whole_number(get(get(request, "generationConfig"), "maxOutputTokens"))
    return bound if bound > 0 else sys.maxsize


def _tokens_of(part: dict[str, Any], model: str) -> tuple[str, int]:
    """Return modality and tokens of a part of an answer."""
    inline = get(part, "inlineData")
    if inline is None:
        text = part.get("text")
        return "TEXT", max(1, len(text if isinstance(text, str) else json.dumps(part)) // 4)
    mime, size = str(get(inline, "mimeType")), len(str(inline.get("data") or "")) * 3 // 4
    if mime.startswith("audio/"):
        return "AUDIO", max(1, math.ceil(size / (2 * SAMPLE_RATE) * SPEECH_TOKENS_A_SECOND))
    return "IMAGE", image_output_tokens(model, None)


def truncate(response: dict[str, Any]) -> None:
    """Turn an answer into one that ran out of tokens half-way."""
    for candidate in response.get("candidates") or ():
        for part in candidate.get("content", {}).get("parts") or ():
            if part.get("text"):
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
