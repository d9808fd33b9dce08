"""Pictures, sound and other files of responses, written one by one while responses stream in and named in their rows.

A file's name consists of the row's key (only its letters, digits, ``_``, ``.`` and ``-``), the row's number and the
part's number. So no key can lead out of the folder, and no two files have the same name. The ending follows the MIME
type. Raw PCM, which speech models return, is joined into a WAV file.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_gemini_batch.api.responses.content import Media
    from airflow_provider_gemini_batch.rows.files import Files

NO_PLACE = "its media is not kept, since there is neither media_path nor output_path"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_KEY = 80
_ENDINGS = {
    "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "image/bmp": "bmp",
    "image/heic": "heic", "image/heif": "heif", "image/avif": "avif", "image/tiff": "tiff", "image/svg+xml": "svg",
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/ogg": "ogg",
    "audio/opus": "opus", "audio/flac": "flac", "audio/aac": "aac", "audio/mp4": "m4a", "video/mp4": "mp4",
    "video/webm": "webm", "video/mpeg": "mpg", "video/quicktime": "mov", "application/pdf": "pdf",
    "text/plain": "txt", "text/csv": "csv", "text/html": "html", "application/json": "json",
}  # fmt: skip
# Types that say nothing: the file's first bytes say more.
_UNSPECIFIC = frozenset({"", "application/octet-stream"})
_BEGINNINGS = {
    b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"%PDF-": "application/pdf",
    b"OggS": "audio/ogg", b"fLaC": "audio/flac", b"ID3": "audio/mpeg", b"\xff\xfb": "audio/mpeg",
    b"II*\0": "image/tiff", b"MM\0*": "image/tiff", b"\x1a\x45\xdf\xa3": "video/webm",
}  # fmt: skip
# The brands of files that begin with ``ftyp`` and are not video/mp4. Source: https://mp4ra.org/registered-types/brands
_BRANDS = {
    b"M4A ": "audio/mp4", b"M4B ": "audio/mp4", b"M4P ": "audio/mp4", b"qt  ": "video/quicktime",
    b"avif": "image/avif", b"avis": "image/avif", **dict.fromkeys((b"heic", b"heix", b"heim", b"heis"), "image/heic"),
}  # fmt: skip
_ANY_PICTURE = frozenset({b"mif1", b"msf1"})
_LONGEST_BRANDS = 256
_RAW_SOUND = frozenset({"audio/l16", "audio/pcm", "audio/raw"})
_DEFAULT_RATE = 24_000
_SAMPLE_BYTES = 2
# gemini-3-pro-image, gemini-2.5-flash-preview-tts, gemini-nano-banana-2.1, imagen ...; not gemini-pro-vision.
_MEDIA_MODEL = re.compile(r"(?:^|-)(image|tts|imagen|nano-banana|native-audio|lyria|veo|omni)(?:-|\d|$)")
_MODEL_WORDS = {
    "image": "image", "imagen": "image", "nano-banana": "image", "tts": "audio", "native-audio": "audio",
    "lyria": "audio", "veo": "video", "omni": "video",
}  # fmt: skip
# Requests for pictures, sound, further candidates or a dozen numbers for each token. A prompt may say such a word, too.
_LARGE = re.compile(rb"response_?modalities|code_?execution|candidate_?count|logprobs", re.IGNORECASE)
_INLINE_BYTES = 1 << 20
_INLINE_ROWS = 500
_URL_SAFE = str.maketrans("-_", "+/", " \t\r\n")


class MediaFolder:
    """A folder for the media of one landing. ``mark`` goes into each name where several tasks share a folder."""

    def __init__(self, path: str, to: Files, *, mark: str = "") -> None:
        self.path = path.rstrip("/")
        self.files = 0
        self.bytes = 0
        self._to = to
        self._mark = f"-{mark}" if mark else ""
        self._replaceable: dict[int, set[str]] = {}

    def save(self, key: str, row: int, candidate: int, found: Sequence[Media]) -> tuple[list[dict[str, Any]], str]:
        """Write the files of one candidate; return their entries for the row, and a warning or empty text."""
        listed: list[dict[str, Any]] = []
        odd: list[str] = []
        for pieces in join_pieces(found):
            first, mime_type = pieces[0], pieces[0].mime_type
            decoded = [_decoded(piece.data or "") for piece in pieces]
            where = f" of candidate {candidate}" if candidate else ""
            odd += [
                f"part {piece.part}{where} is not valid base64"
                for piece, content in zip(pieces, decoded, strict=True)
                if content is None
            ]
            data = [content for content in decoded if content is not None]
            if not data:
                listed.append(entry(mime_type, thought=first.thought))
                continue
            if base_type(mime_type) in _UNSPECIFIC:
                mime_type = _type_of(data[0]) or mime_type
            if base_type(mime_type) in _RAW_SOUND:
                data = list(wave_file(mime_type, data))
                mime_type = "audio/wav"
            path = f"{self.path}/{self._name(key, row, candidate, first.part)}.{file_ending(mime_type)}"
            with self._to.write_whole(path) as handle:
                size = sum(handle.write(piece) for piece in data)
            self.files += 1
            self.bytes += size
            listed.append(entry(mime_type, path=path, size=size, thought=first.thought))
        return listed + link_entries(found), "; ".join(odd)

    def settle(self, row: int, paths: Sequence[str], *, final: bool) -> None:
        """Remove the files of an earlier response to this row; remember these if the row may still be replaced."""
        for path in self._replaceable.pop(row, set()).difference(paths):
            self._to.remove(path)
            self.files -= 1
        if paths and not final:
            self._replaceable[row] = set(paths)

    def summary(self) -> dict[str, Any] | None:
        """Return the folder and the number of files and bytes that this landing wrote; None if it wrote none."""
        return {"path": self.path, "files": self.files, "bytes": self.bytes} if self.files else None

    def _name(self, key: str, row: int, candidate: int, part: int) -> str:
        safe = _UNSAFE.sub("_", key[: 4 * _LONGEST_KEY])[:_LONGEST_KEY].strip("._-")
        lead = f"{safe}-" if safe and safe != str(row) else ""
        further = f"-c{candidate}" if candidate else ""
        return f"{lead}r{row}{further}-p{part}{self._mark}"


def entry(
    mime_type: str, *, path: str | None = None, uri: str | None = None, size: int | None = None, thought: bool = False
) -> dict[str, Any]:
    """Return a row's entry for one file."""
    return {"path": path, "uri": uri, "mime_type": mime_type, "bytes": size, "thought": thought}


def link_entries(found: Sequence[Media]) -> list[dict[str, Any]]:
    """Return the entries of files that stay at the service, which names their address."""
    return [entry(one.mime_type, uri=one.uri, thought=one.thought) for one in found if one.uri is not None]


def not_kept(found: Sequence[Media]) -> tuple[list[dict[str, Any]], str]:
    """Return the entries of media for which there is no folder, and the warning that says so."""
    lost = [entry(pieces[0].mime_type, thought=pieces[0].thought) for pieces in join_pieces(found)]
    return lost + link_entries(found), NO_PLACE if lost else ""


def join_pieces(found: Sequence[Media]) -> Iterator[list[Media]]:
    """Yield for each file its parts with base64, all of one MIME type; raw sound becomes one file."""
    sound: dict[str, list[Media]] = {}
    for one in found:
        if one.data is not None and base_type(one.mime_type) in _RAW_SOUND:
            sound.setdefault(f"{one.mime_type} {one.thought}", []).append(one)
    for one in found:
        if one.data is None:
            continue
        pieces = sound.get(f"{one.mime_type} {one.thought}", [one])
        if pieces[0] is one:
            yield pieces


def _decoded(data: str) -> bytes | None:
    try:
        return decode_base64(data)
    except ValueError:
        return None


def decode_base64(data: str) -> bytes:
    """Return the bytes behind base64 of either alphabet, also unpadded or in a ``data:`` URL. Raises ValueError."""
    if data.startswith("data:"):
        data = data.partition(",")[2]
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        plain = data.translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _type_of(data: bytes) -> str:
    """Return the MIME type of a file by its first bytes, or empty text."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        return _type_by_brand(data)
    return next((mime_type for begin, mime_type in _BEGINNINGS.items() if data.startswith(begin)), "")


def _type_by_brand(data: bytes) -> str:
    """Return the MIME type of a file that begins with ``ftyp``; a picture's own brand may be a further one."""
    end = min(int.from_bytes(data[:4], "big"), _LONGEST_BRANDS, len(data))
    brands = [data[at : at + 4] for at in (8, *range(16, end, 4))]
    if brands[0] not in _ANY_PICTURE:
        return _BRANDS.get(brands[0], "video/mp4")
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "image/heif")


def base_type(mime_type: str) -> str:
    """Return a MIME type without its parameters."""
    return mime_type.partition(";")[0].strip().lower()


def file_ending(mime_type: str) -> str:
    """Return the ending of a file's name, ``bin`` for an unknown type."""
    return _ENDINGS.get(base_type(mime_type), "bin")


def wave_file(mime_type: str, pieces: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a WAV file of 16-bit PCM; rate and channels are in the MIME type: ``audio/L16;codec=pcm;rate=24000``.

    The service's samples are little-endian, as in WAV, although RFC 2586 says otherwise.
    """
    size = sum(map(len, pieces))
    size -= size % _SAMPLE_BYTES
    rate, channels = _number(mime_type, "rate", _DEFAULT_RATE), _number(mime_type, "channels", 1)
    width = channels * _SAMPLE_BYTES
    yield struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * width, width, 16, b"data", size,
    )  # fmt: skip
    left = size
    for piece in pieces:
        yield piece[:left]
        left -= len(piece[:left])


def _number(mime_type: str, name: str, default: int) -> int:
    """Return a numeric parameter of a MIME type; the default when it is missing or implausible."""
    found = re.search(rf";\s*{name}\s*=\s*\"?(\d{{1,6}})\b", mime_type)
    value = int(found[1]) if found else default
    most = 64 if name == "channels" else 1_000_000
    return value if 0 < value < most else default


def response_modality(model: str) -> str | None:
    """Return the modality of a model's responses, by its name: ``image``, ``audio`` or ``video``; None for text."""
    found = _MEDIA_MODEL.search(model.rpartition("/")[2])
    return _MODEL_WORDS[found[1]] if found else None


def fits_inline(model: str, rows: int, size: int, lines: Callable[[], bytes]) -> bool:
    """Return whether requests are few and small enough to travel inside the create call.

    Their responses come back inside the job itself, in one piece, so that none may be large, as pictures are.
    """
    is_small = rows <= _INLINE_ROWS and size <= _INLINE_BYTES
    return is_small and response_modality(model) is None and _LARGE.search(lines()) is None
