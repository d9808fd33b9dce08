"""How many tokens a file in a request costs, by its type and its size, dimensions or duration.

Up to Gemini 2.5, a picture costs 258 tokens; if a side is longer than 384 pixels, it costs that for each tile of 768 by
768 pixels. From Gemini 3 on, it costs 1,120, which ``mediaResolution`` changes. A page of a PDF costs 258, from
Gemini 3 on 560, and is billed as a picture. Sound costs 32 a second, video 263 and its sound. Where the size or length
cannot be read from the file, the estimate says so.

Source: https://ai.google.dev/gemini-api/docs/tokens and https://ai.google.dev/gemini-api/docs/media-resolution
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

HEAD_BYTES = 65_536
"""How many of a file's first bytes are examined."""

_AUDIO, _VIDEO = 32, 263 + 32
_TILE, _TILE_SIDE, _SMALL_SIDE = 258, 768, 384
_NEWER_IMAGE, _NEWER_PAGE = 1120, 560
# For types whose tokens are not documented: text has the most per byte.
_BYTES_A_TOKEN = 2
_TEXTS = frozenset({"application/json", "application/xml", "application/rtf", "application/javascript"})
_OLDER = re.compile(r"gemini-[12](?:\.|-|$)")
_LEVELS = {
    "MEDIA_RESOLUTION_LOW": (64, 280),
    "MEDIA_RESOLUTION_MEDIUM": (256, 560),
    "MEDIA_RESOLUTION_HIGH": (258, 1120),
    "MEDIA_RESOLUTION_ULTRA_HIGH": (258, 2240),
}
# Assumed where a file does not show its duration: 128 kbit/s of sound, 1 Mbit/s of video.
_SOUND_BYTES, _VIDEO_BYTES = 16_000, 125_000
_UNSEEN_SECONDS = 10
_PAGE_BYTES = 2_000
_PAGE = re.compile(rb"/Type\s{0,4}/Page(?![a-zA-Z])")
_TILES_OF_UNSEEN = 6
# The longest that a page marker can be, including the blanks that writers put into it.
_MARK_BYTES = 16


class FileSample(NamedTuple):
    """What is known of a file: its bytes, its first bytes, and how many pages it has, where it is a PDF."""

    size: int
    head: bytes
    pages: int | None = None


class MediaTokens(NamedTuple):
    """Tokens of one file: ``image``, ``audio``, ``video`` or ``text``; ``is_known``: there cannot be more."""

    modality: str
    tokens: int
    is_known: bool


def media_tokens(mime_type: str, sample: FileSample | None, model: str, level: str | None = None) -> MediaTokens:
    """Return the tokens of a file; ``level`` is the ``mediaResolution`` of the request."""
    kind = mime_type.partition(";")[0].strip().lower()
    newer = _OLDER.match(model) is None
    if kind.startswith("audio/"):
        seconds, known = _seconds(sample, _SOUND_BYTES)
        return MediaTokens("audio", math.ceil(seconds * _AUDIO), known)
    if kind.startswith("video/"):
        seconds, _ = _seconds(sample, _VIDEO_BYTES)
        return MediaTokens("video", math.ceil(seconds * _VIDEO), is_known=False)
    size = sample.size if sample else 0
    if kind == "application/pdf":
        pages = sample.pages if sample else None
        count = pages or max(1, size // _PAGE_BYTES)
        page = _LEVELS.get(level or "", (0, _NEWER_PAGE))[1] if newer else _TILE
        return MediaTokens("image", count * page, pages is not None)
    if kind.startswith("image/"):
        return _image(sample, model, level, newer=newer)
    is_text = kind.startswith("text/") or kind in _TEXTS
    return MediaTokens("text", max(1, size // _BYTES_A_TOKEN), is_text and sample is not None)


class PageCount:
    """Counts the pages of a PDF while it is read; ``pages`` is None when they are compressed and cannot be counted."""

    def __init__(self) -> None:
        self._found = 0
        self._packed = False
        self._tail = b""

    def add(self, block: bytes) -> PageCount:
        """Count the pages in the next bytes, and return this counter."""
        text = self._tail + block
        # A page marker inside the tail was counted with the previous block.
        self._found += len(_PAGE.findall(text)) - len(_PAGE.findall(self._tail + b"."))
        self._packed = self._packed or b"/ObjStm" in text
        self._tail = text[-_MARK_BYTES:]
        return self

    @property
    def pages(self) -> int | None:
        """The number of pages."""
        return self._found if self._found and not self._packed else None


def _image(sample: FileSample | None, model: str, level: str | None, *, newer: bool) -> MediaTokens:
    if "embedding" in model:
        return MediaTokens("image", _TILE, is_known=True)
    if level in _LEVELS:
        return MediaTokens("image", _LEVELS[level][newer], is_known=True)
    if newer:
        return MediaTokens("image", _NEWER_IMAGE, is_known=True)
    width, height = image_size(sample.head) if sample else (0, 0)
    if not width:
        return MediaTokens("image", _TILE * _TILES_OF_UNSEEN, is_known=False)
    if max(width, height) <= _SMALL_SIDE:
        return MediaTokens("image", _TILE, is_known=True)
    tiles = math.ceil(width / _TILE_SIDE) * math.ceil(height / _TILE_SIDE)
    return MediaTokens("image", tiles * _TILE, is_known=True)


def image_size(head: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, GIF, JPEG or WebP by its first bytes; (0, 0) for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(b"GIF8"):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp_size(head)
    return 0, 0


def _jpeg_size(head: bytes) -> tuple[int, int]:
    """Return width and height, from the first segment that holds them."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:  # noqa: PLR2004  (each segment begins with it)
        kind = head[place + 1]
        if kind in range(0xC0, 0xD0) and kind not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[place + 7 : place + 9], "big"), int.from_bytes(
                head[place + 5 : place + 7], "big"
            )
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    form = head[12:16]
    if form == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if form == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return 0, 0


def _seconds(sample: FileSample | None, bytes_a_second: int) -> tuple[float, bool]:
    """Return the seconds of a sound or video, and whether they are exact, as in a WAV or FLAC file, or assumed."""
    if sample is None:
        return _UNSEEN_SECONDS, False
    head = sample.head
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE" and len(head) >= 44:  # noqa: PLR2004  (its header)
        rate = int.from_bytes(head[28:32], "little")
        return (sample.size / rate, True) if rate else (sample.size / bytes_a_second, False)
    if head.startswith(b"fLaC") and len(head) >= 26:  # noqa: PLR2004  (its header)
        bits = int.from_bytes(head[18:26], "big")
        rate, samples = bits >> 44, bits & 0xFFFFFFFFF
        if rate and samples:
            return max(samples / rate, sample.size / bytes_a_second), True
    return sample.size / bytes_a_second, False
