"""What a model says to a request: text, thoughts, pictures, sound, function calls, code, or nothing but a signature.

A request asks for it: ``responseModalities`` (or a model that makes pictures or speech), ``tools``,
``thinkingConfig.includeThoughts``, ``candidateCount``. The fault ``answer_kinds`` is a list of kinds that rows take in
turn, whatever they ask for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator import media
from airflow_provider_gemini_batch.emulator.schema import get

if TYPE_CHECKING:
    from collections.abc import Callable

THOUGHT_TOKENS = 90
SIGNATURE_TOKENS = 300
SEARCH_TOKENS = 150
PAGE_TOKENS = 450
CODE_TOKENS = 31
_WISHES = frozenset(
    [
        "candidateCount",
        "candidate_count",
        "responseModalities",
        "response_modalities",
        "thinkingConfig",
        "thinking_config",
    ]
)
_MEDIA_MODEL = re.compile("image|nano-banana|tts")
_URL = re.compile(r"https?://[^\s\"'<>)]+")


@dataclass
class Draft:
    """One candidate on its way, and what it costs."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    #: Modality and tokens of each part.
    counts: list[tuple[str, int]] = field(default_factory=list)
    #: Tokens of the answer by modality.
    tokens: dict[str, int] = field(default_factory=dict)
    thoughts: int = 0
    tool_tokens: int = 0
    #: Members that stand beside ``content``.
    beside: dict[str, Any] = field(default_factory=dict)

    def add(self, part: dict[str, Any], modality: str, count: int) -> None:
        """Add a part that counts so many tokens."""
        self.parts.append(part)
        self.counts.append((modality, count))
        self.tokens[modality] = self.tokens.get(modality, 0) + count

    def think(self, part: dict[str, Any], count: int) -> None:
        """Add a part of thinking, which counts apart."""
        self.parts.append(part)
        self.counts.append(("", 0))
        self.thoughts += count

    def bound(self, most: int) -> bool:
        """Cut all that comes after so many tokens, thinking among them, and return whether anything was cut.

        Pictures come whole: nothing bounds them.
        """
        left = most - min(self.thoughts, most)
        cut = self.thoughts > most
        self.thoughts = most - left
        given, counts = self.parts, self.counts
        self.parts, self.counts, self.tokens = [], [], {}
        for part, (modality, count) in zip(given, counts, strict=True):
            if modality in {"", "IMAGE"}:
                self.parts.append(part)
                self.counts.append((modality, count))
                self.tokens |= {modality: self.tokens.get(modality, 0) + count} if modality else {}
                continue
            fits = min(count, left)
            left -= fits
            cut = cut or fits < count
            if fits:
                self.add(_cut(part, fits, count), modality, fits)
        return cut


def _cut(part: dict[str, Any], fits: int, count: int) -> dict[str, Any]:
    """Return as much of a text or a sound as ``fits`` of its tokens are; other parts are whole."""
    if fits == count:
        return part
    if isinstance(part.get("text"), str):
        return {**part, "text": part["text"][: 4 * fits]}
    inline = part.get("inlineData")
    if not isinstance(inline, dict):
        return part
    # Groups of eight characters are six bytes: three whole samples.
    length = len(inline["data"]) * fits // count // 8 * 8
    return {**part, "inlineData": {**inline, "data": inline["data"][:length]}}


@dataclass
class Wish:
    """What a request asks for.

    :param image_bytes: about how large pictures are.
    :param audio_seconds: how long speech is, None: by the length of the text.
    :param most_tokens: what a candidate may have, thinking among them.
    :param may_be_cut: whether an answer with more ends there; else only its thinking does.
    """

    kinds: list[str]
    candidates: int = 1
    image_size: str | None = None
    functions: list[dict[str, Any]] = field(default_factory=list)
    image_bytes: int = 0
    audio_seconds: float | None = None
    most_tokens: int = sys.maxsize
    may_be_cut: bool = True


def wish_of(request: dict[str, Any], model: str, kind: str | None) -> Wish | None:
    """Return what a request asks for besides one text, None when that is all.

    :param kind: one of ``KINDS`` that the row has to have, None to read it from the request.
    """
    config = get(request, "generationConfig") or {}
    tools = request.get("tools") or []
    if kind is None and not tools and _WISHES.isdisjoint(config) and not _MEDIA_MODEL.search(model):
        return None
    given = {None: _kinds(request, config, tools, model), "image": ["text", "image"]}
    kinds = given.get(kind) or [str(kind)]
    candidates = 2 if kind == "candidates" else int(get(config, "candidateCount") or 1)
    if kinds == ["text"] and candidates == 1:
        return None
    functions = [each for tool in tools for each in get(tool, "functionDeclarations") or ()]
    return Wish(kinds, candidates, get(get(config, "imageConfig"), "imageSize"), functions)


def _kinds(request: dict[str, Any], config: dict[str, Any], tools: list[Any], model: str) -> list[str]:
    wanted = [str(modality).upper() for modality in get(config, "responseModalities") or ()]
    if not wanted:
        makes_images = "image" in model or "nano-banana" in model
        wanted = ["TEXT", "IMAGE"] if makes_images else ["AUDIO"] if "tts" in model else ["TEXT"]
    if _calls_a_function(request, tools):
        return ["function_call"]
    kinds = [
        kind
        for kind, names in (
            ("code", ("codeExecution",)),
            ("grounded", ("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch")),
            ("url_context", ("urlContext",)),
        )
        if any(get(tool, name) is not None for tool in tools for name in names)
    ]
    if get(get(config, "thinkingConfig"), "includeThoughts"):
        kinds.insert(0, "thoughts")
    return [*kinds, *(modality.lower() for modality in ("TEXT", "IMAGE", "AUDIO") if modality in wanted)]


def _calls_a_function(request: dict[str, Any], tools: list[Any]) -> bool:
    """Return whether the model would call a function: there is one, calls are allowed, and none has been answered."""
    mode = get(get(get(request, "toolConfig"), "functionCallingConfig"), "mode")
    if mode == "NONE" or not any(get(tool, "functionDeclarations") for tool in tools):
        return False
    last = (request.get("contents") or [{}])[-1]
    return not any(get(part, "functionResponse") for part in last.get("parts") or ())


def draft(wish: Wish, text: str, digest: str, model: str, sample: Callable[[Any, str], Any]) -> Draft:
    """Return one candidate.

    :param text: what a text answer says.
    :param sample: gives a JSON value that fits a schema.
    """
    made = Draft()
    for kind in wish.kinds:
        _ADD[kind](made, wish, _Material(text, digest, model, sample))
    return made


@dataclass
class _Material:
    text: str
    digest: str
    model: str
    sample: Callable[[Any, str], Any]


def signature_of(digest: str) -> str:
    """Return a thought signature: base64 of bytes that mean nothing."""
    return base64.b64encode(hashlib.sha256(f"signature:{digest}".encode()).digest()).decode()


def _text(made: Draft, _: Wish, given: _Material) -> None:
    made.add({"text": given.text}, "TEXT", max(1, len(given.text) // 4))


def _image(made: Draft, wish: Wish, given: _Material) -> None:
    part = media.inline_data("image/png", media.png(given.digest, wish.image_bytes))
    if media.is_gemini_3(given.model):
        part["thoughtSignature"] = signature_of(given.digest)
    made.add(part, "IMAGE", media.image_output_tokens(given.model, wish.image_size))


def _audio(made: Draft, wish: Wish, given: _Material) -> None:
    seconds = wish.audio_seconds or max(0.2, len(given.text) / 200)
    part = media.inline_data(media.PCM_TYPE, media.pcm(given.digest, seconds))
    made.add(part, "AUDIO", math.ceil(seconds * media.SPEECH_TOKENS_A_SECOND))


def _function_call(made: Draft, wish: Wish, given: _Material) -> None:
    functions = wish.functions or [{"name": "set_price", "parameters": {"type": "OBJECT", "properties": {}}}]
    for number, function in enumerate(functions[:2]):
        schema = get(function, "parameters") or get(function, "parametersJsonSchema") or {}
        args = given.sample(schema, given.digest)
        call = {"id": f"c{given.digest[:6]}{number}", "name": function.get("name"), "args": args or {}}
        part: dict[str, Any] = {"functionCall": call}
        if number == 0:
            part["thoughtSignature"] = signature_of(given.digest)
        made.add(part, "TEXT", max(1, len(json.dumps(call)) // 4))


def _code(made: Draft, wish: Wish, given: _Material) -> None:
    code = f"print(int('{given.digest[:4]}', 16))"
    made.add({"executableCode": {"language": "PYTHON", "code": code}}, "TEXT", max(1, len(code) // 4))
    output = f"{int(given.digest[:4], 16)}\n"
    made.add({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": output}}, "TEXT", max(1, len(output) // 4))
    made.tool_tokens += CODE_TOKENS
    if "text" not in wish.kinds:
        _text(made, wish, given)


def _thoughts(made: Draft, wish: Wish, given: _Material) -> None:
    made.think({"text": f"I think about {given.digest}.", "thought": True}, THOUGHT_TOKENS)
    if "text" not in wish.kinds:
        _text(made, wish, given)
        made.parts[-1]["thoughtSignature"] = signature_of(given.digest)


def _signature(made: Draft, _: Wish, given: _Material) -> None:
    made.think({"text": "", "thoughtSignature": signature_of(given.digest)}, SIGNATURE_TOKENS)


def _grounded(made: Draft, wish: Wish, given: _Material) -> None:
    if "text" not in wish.kinds:
        _text(made, wish, given)
    query = given.text[:60]
    made.beside["groundingMetadata"] = {
        "webSearchQueries": [query, f"{query} news"],
        "searchEntryPoint": {"renderedContent": "<div></div>"},
        "groundingChunks": [{"web": {"uri": f"https://example.com/{given.digest}", "title": "example.com"}}],
        "groundingSupports": [
            {
                "segment": {"startIndex": 0, "endIndex": len(given.text.encode()), "text": given.text},
                "groundingChunkIndices": [0],
            }
        ],
    }
    made.tool_tokens += SEARCH_TOKENS


def _url_context(made: Draft, wish: Wish, given: _Material) -> None:
    if "text" not in wish.kinds:
        _text(made, wish, given)
    urls = _URL.findall(given.text) or [f"https://example.com/{given.digest}"]
    made.beside["urlContextMetadata"] = {
        "urlMetadata": [{"retrievedUrl": url, "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"} for url in urls]
    }
    made.tool_tokens += PAGE_TOKENS * len(urls)


def _empty(_made: Draft, _wish: Wish, _given: _Material) -> None:
    """Say nothing: a content without parts."""


_ADD: dict[str, Callable[[Draft, Wish, _Material], None]] = {
    "text": _text,
    "candidates": _text,
    "image": _image,
    "audio": _audio,
    "function_call": _function_call,
    "code": _code,
    "thoughts": _thoughts,
    "signature": _signature,
    "grounded": _grounded,
    "url_context": _url_context,
    "empty": _empty,
}
#: What an answer can be made to hold.
KINDS = tuple(_ADD)
