"""Pictures and sounds: those that answers hold, and what a request's own ones come to in tokens.

Tokens of input, after Google's pages on tokens and media resolution: a picture is 258 up to Gemini 2.5 (one such tile
for each 768 by 768 pixels once a side is longer than 384), 1120 from Gemini 3 on. A PDF page is 258, from Gemini 3 on
560, and counts as a picture. ``mediaResolution`` changes pictures, and from Gemini 3 on pages. Sound is 32 a second,
video 263. Length comes from the header of a WAV file, else from the size at 128 kbit/s (sound) and 1 Mbit/s (video);
what cannot be seen (a ``fileUri`` that is not ours) counts as one small picture, one page or ten seconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import random
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.schema import get

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Gives what is known of the file behind a URI, None when it cannot be seen.
    Lookup = Callable[[str], "Sample | None"]

HEAD_BYTES = 65_536
SAMPLE_RATE = 24_000
PCM_TYPE = f"audio/L16;codec=pcm;rate={SAMPLE_RATE}"
AUDIO_TOKENS_A_SECOND = 32
SPEECH_TOKENS_A_SECOND = 25
VIDEO_TOKENS_A_SECOND = 263
UNSEEN_SECONDS = 10.0
_SOUND_BYTES_A_SECOND = 16_000
_VIDEO_BYTES_A_SECOND = 125_000
_SMALL_SIDE, _TILE_SIDE, _TILE_TOKENS = 384, 768, 258
_GEMINI_3 = re.compile(r"gemini-(?:[3-9]|nano|flash-latest|flash-lite-latest|pro-latest|omni)")
_IMAGE_OF_LEVEL = {
    "MEDIA_RESOLUTION_LOW": (64, 280),
    "MEDIA_RESOLUTION_MEDIUM": (256, 560),
    "MEDIA_RESOLUTION_HIGH": (256, 1120),
    "MEDIA_RESOLUTION_ULTRA_HIGH": (256, 2240),
}
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")


@dataclass(frozen=True)
class Sample:
    """What is known of a file: its size in bytes, and its first bytes."""

    size: int
    head: bytes


def is_gemini_3(model: str) -> bool:
    """Return whether a model counts media as Gemini 3 and later do."""
    return _GEMINI_3.match(model) is not None


def tokens_of_part(part: dict[str, Any], model: str, level: str | None, look_up: Lookup | None) -> tuple[str, int]:
    """Return modality and tokens of a part that holds or names a file.

    :param level: the request's ``mediaResolution``; the part's own wins.
    """
    inline, named = get(part, "inlineData"), get(part, "fileData")
    mime = str(get(inline or named, "mimeType") or "").lower()
    sample: Sample | None = None
    if inline:
        content = _decoded(str(inline.get("data") or ""))
        sample = Sample(len(content), content[:HEAD_BYTES])
    elif look_up is not None:
        sample = look_up(str(get(named, "fileUri") or ""))
    level = get(get(part, "mediaResolution"), "level") or level
    if mime.startswith("audio/"):
        return "AUDIO", math.ceil(_seconds(sample, _SOUND_BYTES_A_SECOND) * AUDIO_TOKENS_A_SECOND)
    if mime.startswith("video/"):
        return "VIDEO", math.ceil(_seconds(sample, _VIDEO_BYTES_A_SECOND) * VIDEO_TOKENS_A_SECOND)
    if mime.startswith("text/") or mime == "application/json":
        return "TEXT", max(1, (sample.size if sample else 4) // 4)
    if mime == "application/pdf":
        pages = max(1, len(_PAGE.findall(sample.head))) if sample else 1
        page = _IMAGE_OF_LEVEL.get(level or "", (0, 560))[1] if is_gemini_3(model) else _TILE_TOKENS
        return "IMAGE", pages * page
    return "IMAGE", _image_tokens(sample, model, level)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_" if "-" in data or "_" in data else None)
    except (binascii.Error, ValueError):
        return b""


def _image_tokens(sample: Sample | None, model: str, level: str | None) -> int:
    newer = is_gemini_3(model)
    if level in _IMAGE_OF_LEVEL:
        return _IMAGE_OF_LEVEL[level][newer]
    if newer:
        return 1120
    width, height = image_size(sample.head) if sample else (0, 0)
    if max(width, height) <= _SMALL_SIDE or "embedding" in model:
        return _TILE_TOKENS
    return math.ceil(width / _TILE_SIDE) * math.ceil(height / _TILE_SIDE) * _TILE_TOKENS


def image_size(head: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, GIF or JPEG by its first bytes, (0, 0) for anything else."""
    if head.startswith(b"\x89PNG") and len(head) >= 24:  # noqa: PLR2004 - signature, length, type, width, height
        return struct.unpack(">II", head[16:24])
    if head.startswith(b"GIF8") and len(head) >= 10:  # noqa: PLR2004 - signature, width, height
        return struct.unpack("<HH", head[6:10])
    found = re.search(rb"\xff[\xc0-\xc3]..\x08(..)(..)", head, re.DOTALL) if head.startswith(b"\xff\xd8") else None
    if found:
        return int.from_bytes(found[2], "big"), int.from_bytes(found[1], "big")
    return 0, 0


def _seconds(sample: Sample | None, bytes_a_second: int) -> float:
    if sample is None:
        return UNSEEN_SECONDS
    head = sample.head
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE" and len(head) >= 44:  # noqa: PLR2004 - a WAV header
        bytes_a_second = int.from_bytes(head[28:32], "little") or bytes_a_second
    return sample.size / bytes_a_second


def image_output_tokens(model: str, size: str | None) -> int:
    """Return the tokens of a picture that a model makes; ``size`` as in ``imageConfig.imageSize``."""
    if "2.5" in model:
        return 1290
    return 2000 if str(size).upper() == "4K" else 1120


def png(seed: str, size: int = 0) -> bytes:
    """Return a PNG picture that depends on the seed alone.

    :param size: about how many bytes, 0 for a small one.
    """
    side = max(16, math.isqrt(size // 3))
    noise = random.Random(seed).randbytes(side * side * 3)  # noqa: S311 - a picture, not a secret
    rows = b"".join(b"\0" + noise[y * side * 3 : (y + 1) * side * 3] for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def pcm(seed: str, seconds: float) -> bytes:
    """Return raw sound, 16 bits, mono, 24,000 samples a second, little-endian: a tone that depends on the seed."""
    period = 40 + hashlib.sha256(seed.encode()).digest()[0]
    wave = struct.pack(f"<{period}h", *(int(8000 * math.sin(2 * math.pi * n / period)) for n in range(period)))
    samples = max(1, round(seconds * SAMPLE_RATE))
    return (wave * (samples // period + 1))[: samples * 2]


def inline_data(mime: str, content: bytes) -> dict[str, Any]:
    """Return a part that holds these bytes."""
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(content).decode()}}
