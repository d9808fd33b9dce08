"""What a batch is expected to use, counted from the requests as sent: tokens by modality, and what is not known.

The estimate errs on the high side, since it is compared with ``max_cost_usd``. What cannot be known in advance
(searches, output of tools, files that only the service can read) is named, and makes the estimate an open bound.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET

from airflow_provider_gemini_batch.api.models import LONG_PROMPT, LongPrompts, Usage
from airflow_provider_gemini_batch.api.requests.fast_path import TextRequest
from airflow_provider_gemini_batch.api.requests.fields import either, tools_of
from airflow_provider_gemini_batch.api.wire import int_of
from airflow_provider_gemini_batch.rows.media import decode_base64, response_modality
from airflow_provider_gemini_batch.rows.media_tokens import HEAD_BYTES, FileSample, PageCount, media_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_gemini_batch.rows.input_spec import Attachment

BYTES_PER_TOKEN = 4
"""Text is estimated as the UTF-8 bytes of a request's JSON divided by this; short rows are overestimated."""
OUTPUT_TOKENS_GUESSED = 1024
"""Output tokens per candidate that an estimate assumes where ``maxOutputTokens`` is not set."""

_LONG_BYTES = LONG_PROMPT * BYTES_PER_TOKEN
_NO_CONFIG: Mapping[str, Any] = {}
_NO_MEDIA: Mapping[str, int] = {}
_SEARCHES = frozenset({"googlesearch", "googlesearchretrieval", "googlemaps", "enterprisewebsearch"})
_MEDIA = frozenset({"IMAGE", "AUDIO", "VIDEO"})
# No service takes a larger number, and a sum of such numbers has a price.
_MOST = 2**31 - 1
_DIGITS = 20
# The largest picture that a model makes, in tokens (4K).
_PICTURE_TOKENS = 2000
_OF_SEARCHES = "searches are billed by the query, and nothing bounds how many there will be"
_OF_TOOLS = "what tools bring in (pages, code, files) is billed as input"
_OF_CACHE = "the size of cachedContent is not known"
_OF_FILES = "the size or length of {} files is not known"


class _Config(NamedTuple):
    """What a ``generationConfig`` says about the cost of a row."""

    most: int | None
    several: int
    level: str | None
    response_modality: str | None


class Expected:
    """Sums over the rows of one input.

    :param defaults: members that every request gets unless it has its own, in the service's form.
    """

    def __init__(self, model: str, defaults: Mapping[str, Any] = _NO_CONFIG) -> None:
        self.model = model.rpartition("/")[2]
        self.rows = 0
        self.media: Counter[str] = Counter()
        self.output_tokens = 0
        # Those of them that are not text, by modality.
        self.output_media: Counter[str] = Counter()
        self.unbounded_rows = 0
        self._long = LongPrompts(0, Usage())
        self._modality = response_modality(model)
        self._text_bytes = 0
        self._unseen_files = 0
        self._unknown: set[str] = set()
        self._config: Any = defaults.get("generationConfig")
        self._common = _config(self._config)
        self._makes_text = self._modality is None and self._common.response_modality is None
        self._note(defaults)

    @property
    def response_modality(self) -> str | None:
        """What responses hold besides text, by the model's name or by a row's ``responseModalities``; None for text."""
        return self._modality or next(iter(self.output_media), None)

    @property
    def input_tokens(self) -> int:
        """All tokens of the input, those of media among them."""
        return self._text_bytes // BYTES_PER_TOKEN + sum(self.media.values())

    @property
    def usage(self) -> Usage:
        """What all rows will use at most; the output of ``unbounded_rows`` is a guess."""
        return _usage(self.input_tokens, self.output_tokens, self.media, self.output_media)

    @property
    def long_prompts(self) -> LongPrompts | None:
        """Rows whose prompts are so long that they have prices of their own, on some models."""
        return self._long if self._long.rows else None

    @property
    def unknown(self) -> tuple[str, ...]:
        """What will be billed but cannot be estimated, in words."""
        files = (_OF_FILES.format(self._unseen_files),) if self._unseen_files else ()
        return (*sorted(self._unknown), *files)

    def add(self, request: TextRequest | Mapping[str, Any], size: int, attachments: Sequence[Attachment] = ()) -> None:
        """Count one request, which has ``size`` bytes on the wire, and the files that go with it."""
        self.rows += 1
        self._text_bytes += size
        if isinstance(request, TextRequest):
            if self._makes_text and size <= _LONG_BYTES:
                self._add_outputs((request,))
                return
            request = request.costs
        own = request.get("generationConfig", self._config)
        config = self._common if own is self._config else _config(own)
        if "tools" in request or "cachedContent" in request:
            self._note(request)
        files = list(_files(request))
        media = self.media.copy() if files or attachments else self.media
        begun = self._text_bytes - size
        for part in files:
            self._count_part(part, config.level)
        for attachment in attachments:
            self._count_file(str(attachment.part["fileData"]["mimeType"]), attachment.sample, config.level)
        output, written = self._add_output(config)
        own_media = self.media - media if media is not self.media else _NO_MEDIA
        prompt = (self._text_bytes - begun) // BYTES_PER_TOKEN + sum(own_media.values())
        if prompt > LONG_PROMPT:
            usage = _usage(prompt, output, own_media, written)
            self._long = LongPrompts(self._long.rows + 1, self._long.usage.plus(usage))

    def add_texts(self, requests: Sequence[TextRequest], sizes: Sequence[int]) -> None:
        """Count requests of text, each of which has a size in bytes on the wire."""
        if not self._makes_text or max(sizes) > _LONG_BYTES:
            for request, size in zip(requests, sizes, strict=True):
                self.add(request, size)
            return
        self.rows += len(requests)
        self._text_bytes += sum(sizes)
        self._add_outputs(requests)

    def add_rows(self, rows: int, text_bytes: int, *, files: int = 0) -> None:
        """Count rows of which only the number and the size are known, and the ``files`` that go with them."""
        self.rows += rows
        self._text_bytes += text_bytes
        self._unseen_files += files
        self._add_output(self._common, rows)

    def _add_outputs(self, requests: Sequence[TextRequest]) -> None:
        """Count the output of requests of text."""
        unbounded = tokens = 0
        for request in requests:
            own = request.generationConfig
            most, several = (self._common.most, self._common.several) if own is UNSET else (own.maxOutputTokens, 1)
            if most is None:
                unbounded += 1
            tokens += (most or OUTPUT_TOKENS_GUESSED) * several
        self.unbounded_rows += unbounded
        self.output_tokens += tokens

    def _add_output(self, config: _Config, rows: int = 1) -> tuple[int, Mapping[str, int]]:
        """Count the output of rows; return its tokens, and those that are not text by their modality."""
        kind = config.response_modality or self._modality
        most = config.most or OUTPUT_TOKENS_GUESSED
        output = (max(most, _PICTURE_TOKENS) if kind == "image" else most) * config.several * rows
        self.unbounded_rows += rows if config.most is None else 0
        self.output_tokens += output
        if kind is None:
            return output, {}
        self.output_media[kind] += output
        return output, {kind: output}

    def _note(self, request: Mapping[str, Any]) -> None:
        """Note what has no limit: tools, and content in a cache."""
        if request.get("cachedContent"):
            self._unknown.add(_OF_CACHE)
        for tool in tools_of(request):
            names = {name.replace("_", "").lower() for name in tool} if isinstance(tool, dict) else set()
            names.discard("functiondeclarations")
            if names & _SEARCHES:
                self._unknown.add(_OF_SEARCHES)
            if names:
                self._unknown.add(_OF_TOOLS)

    def _count_part(self, part: Mapping[str, Any], level: str | None) -> None:
        inline, named, own = (either(part, name) for name in ("inlineData", "fileData", "mediaResolution"))
        own = own.get("level") if isinstance(own, dict) else own
        level = own if isinstance(own, str) and own else level
        if isinstance(inline, dict) and isinstance(inline.get("data"), str):
            self._text_bytes -= len(inline["data"])
            self._count_file(str(either(inline, "mimeType") or ""), _sample(inline["data"]), level)
        elif isinstance(named, dict):
            self._count_file(str(either(named, "mimeType") or ""), None, level)

    def _count_file(self, mime_type: str, sample: FileSample | None, level: str | None) -> None:
        modality, tokens, known = media_tokens(mime_type, sample, self.model, level)
        if modality == "text":
            self._text_bytes += tokens * BYTES_PER_TOKEN
        else:
            self.media[modality] += tokens
        self._unseen_files += not known


def _usage(prompt: int, output: int, media: Mapping[str, int], written: Mapping[str, int]) -> Usage:
    kinds = {f"input_{kind}_tokens": count for kind, count in media.items()}
    kinds |= {f"output_{kind}_tokens": count for kind, count in written.items()}
    return Usage(input_tokens=prompt, output_tokens=output, **kinds)


def _config(given: Any) -> _Config:
    config = given if isinstance(given, dict) else _NO_CONFIG
    modalities = either(config, "responseModalities")
    words = modalities if isinstance(modalities, list) else [modalities]
    asked = [word.upper() for word in words if isinstance(word, str) and word.upper() in _MEDIA]
    level = either(config, "mediaResolution")
    return _Config(
        _number(either(config, "maxOutputTokens")),
        _number(either(config, "candidateCount")) or 1,
        level if isinstance(level, str) else None,
        asked[0].lower() if asked else None,
    )


def _number(value: Any) -> int | None:
    number = int_of(value[:_DIGITS] if isinstance(value, str) else value)
    return min(number, _MOST) if number is not None and number > 0 else None


def _files(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a request that hold more than text, including those in the results of functions."""
    contents = request.get("contents")
    found = contents if isinstance(contents, list) else [contents]
    for content in (*found, request.get("content"), request.get("systemInstruction")):
        for part in _parts(content):
            if len(part) > 1 or "text" not in part:
                yield part
                yield from _parts(either(part, "functionResponse"))


def _parts(holder: Any) -> list[Mapping[str, Any]]:
    parts = holder.get("parts") if isinstance(holder, dict) else None
    return [part for part in (parts if isinstance(parts, list) else [parts]) if isinstance(part, dict)]


def _sample(data: str) -> FileSample | None:
    try:
        content = decode_base64(data)
    except ValueError:
        return None
    return FileSample(len(content), content[:HEAD_BYTES], PageCount().add(content).pages)
