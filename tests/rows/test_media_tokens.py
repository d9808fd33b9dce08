"""Files of requests are counted by what they are, before they are sent; what cannot be seen is told."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.rows.media import wave_file
from airflow_provider_gemini_batch.rows.media_tokens import FileSample, PageCount, image_size, media_tokens

OLDER, NEWER = "gemini-2.5-flash", "gemini-3.8-flash"
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1000, 700)
GIF = b"GIF89a" + struct.pack("<HH", 100, 50)
JPEG = (
    b"\xff\xd8\xff\xe0"
    + struct.pack(">H", 16)
    + bytes(14)
    + b"\xff\xc0"
    + struct.pack(">HBHH", 17, 8, 800, 1600)
    + bytes(20)
)
WEBP = b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (1199).to_bytes(3, "little") + (299).to_bytes(3, "little")
WEBP_LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L" + bytes(5) + ((99) | (49 << 14)).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (PNG, (1000, 700)),
        (GIF, (100, 50)),
        (JPEG, (1600, 800)),
        (WEBP, (1200, 300)),
        (WEBP_LOSSLESS, (100, 50)),
        (b"BM", (0, 0)),
        (b"\xff\xd8\xff\xda", (0, 0)),
        (b"", (0, 0)),
    ],
)
def test_the_size_of_a_picture_is_in_its_first_bytes(head: bytes, size: tuple[int, int]) -> None:
    assert image_size(head) == size


@given(
    st.sampled_from([PNG, GIF, JPEG, WEBP, WEBP_LOSSLESS, b"fLaC", b"%PDF"]), st.integers(0, 60), st.binary(max_size=60)
)
def test_no_file_is_so_odd_that_it_cannot_be_counted(head: bytes, cut: int, rest: bytes) -> None:
    sample = FileSample(len(head), head[:cut] + rest)
    for mime_type in ("image/png", "audio/flac", "video/mp4", "application/pdf", "text/csv", "x", ""):
        assert media_tokens(mime_type, sample, OLDER).tokens >= 0


@pytest.mark.parametrize(
    ("head", "model", "level", "tokens", "known"),
    [
        (GIF, OLDER, None, 258, True),
        (PNG, OLDER, None, 2 * 258, True),
        (JPEG, OLDER, None, 3 * 2 * 258, True),
        (b"?", OLDER, None, 6 * 258, False),
        (b"?", NEWER, None, 1120, True),
        (PNG, "gemini-9-new", None, 1120, True),
        (PNG, NEWER, "MEDIA_RESOLUTION_LOW", 280, True),
        (PNG, NEWER, "MEDIA_RESOLUTION_ULTRA_HIGH", 2240, True),
        (PNG, "gemini-embedding-2", None, 258, True),
    ],
)
def test_pictures_are_counted_by_size_and_model(
    head: bytes, model: str, level: str | None, tokens: int, *, known: bool
) -> None:
    assert media_tokens("image/png", FileSample(9, head), model, level) == ("image", tokens, known)


def test_sound_has_the_length_of_its_header() -> None:
    wav = b"".join(wave_file("audio/L16;rate=16000", [bytes(32_000 * 10)]))
    found = media_tokens("audio/wav", FileSample(len(wav), wav[:100]), OLDER)
    assert (found.modality, found.is_known) == ("audio", True)
    assert 320 <= found.tokens <= 322
    flac = b"fLaC" + bytes(14) + ((44_100 << 44) | 441_000).to_bytes(8, "big")
    assert media_tokens("audio/flac", FileSample(1000, flac), OLDER) == ("audio", 320, True)
    assert media_tokens("audio/mpeg", FileSample(160_000, b"ID3"), OLDER) == ("audio", 320, False)
    assert media_tokens("audio/mpeg", None, OLDER) == ("audio", 320, False)


def test_videos_and_texts_are_counted_by_their_bytes() -> None:
    assert media_tokens("video/mp4", FileSample(1_250_000, b""), NEWER) == ("video", 2950, False)
    assert media_tokens("text/csv", FileSample(4000, b""), NEWER) == ("text", 2000, True)


@given(st.integers(1, 40), st.integers(1, 9))
def test_pages_are_counted_however_the_file_is_cut(pages: int, piece: int) -> None:
    whole = b"%PDF /Type /Pages" + b"".join(b"/Type%b/Page\n/x" % (b" " * (page % 4)) for page in range(pages))
    counter = PageCount()
    for start in range(0, len(whole), piece):
        counter.add(whole[start : start + piece])
    assert counter.pages == pages
    assert media_tokens("application/pdf", FileSample(9, b"", counter.pages), OLDER).tokens == pages * 258
    assert media_tokens("application/pdf", FileSample(9, b"", counter.pages), NEWER).tokens == pages * 560


def test_packed_pages_cannot_be_seen() -> None:
    assert PageCount().add(b"/Type/Page /ObjStm").pages is None
    found = media_tokens("application/pdf", FileSample(100_000, b"", None), OLDER)
    assert (found.tokens, found.is_known) == (50 * 258, False)
