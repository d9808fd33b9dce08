"""Files with prompts: each row names a picture, which is uploaded once and asked about. PDF and sound work alike."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

from airflow.sdk import Param, dag, task

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

FOLDER = os.environ.get("GEMINI_BATCH_DEMO_FOLDER", "/tmp/gemini-batch")  # noqa: S108
WIDTH, HEIGHT = 90, 60
BLACK, WHITE, RED, BLUE, GREEN, YELLOW = "000000", "ffffff", "cc0022", "0033a0", "009246", "ffd500"
UPRIGHT = {
    "France": (BLUE, WHITE, RED),
    "Italy": (GREEN, WHITE, RED),
    "Belgium": (BLACK, YELLOW, RED),
    "Romania": (BLUE, YELLOW, RED),
}
FLAT = {
    "Germany": (BLACK, RED, YELLOW),
    "Austria": (RED, WHITE, RED),
    "Ukraine": (BLUE, YELLOW),
    "Poland": (WHITE, RED),
}


def png(pixel_rows: list[bytes]) -> bytes:
    """Encode rows of red, green and blue bytes as a PNG image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", len(pixel_rows[0]) // 3, len(pixel_rows), 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in pixel_rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def flag(stripes: tuple[str, ...], *, upright: bool) -> bytes:
    """Draw a flag of equal stripes."""
    colours = [bytes.fromhex(colour) for colour in stripes]
    if upright:
        return png([b"".join(colour * (WIDTH // len(colours)) for colour in colours)] * HEIGHT)
    return png([colour * WIDTH for colour in colours for _ in range(HEIGHT // len(colours))])


@dag(
    schedule=None,
    params={"folder": Param(FOLDER, type="string", description="Where pictures, rows and responses go.")},
)
def pictures_or_pdfs() -> None:
    """Draw flags, ask whose they are, land the guesses beside the truth."""

    @task
    def draw(folder: str) -> str:
        """Write the pictures, and one row for each."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        path = place / "pictures.jsonl"
        with path.open("w", encoding="utf-8") as lines:
            for number, (country, stripes) in enumerate({**UPRIGHT, **FLAT}.items()):
                picture = place / f"flag-{number}.png"
                picture.write_bytes(flag(stripes, upright=country in UPRIGHT))
                lines.write(json.dumps({"number": number, "country": country, "picture": str(picture)}) + "\n")
        return str(path)

    GeminiCreateBatchJobOperator(
        task_id="guess",
        model="gemini-2.5-flash",
        input_path=draw("{{ params.folder }}/{{ run_id | replace(':', '-') }}"),
        prompt_template="Picture {number}: which country has this flag? Answer with its name.",
        key_field="number",
        media_field="picture",
        carry=["country"],
        output_path="{{ params.folder }}/{{ run_id | replace(':', '-') }}/guesses.jsonl",
        poll_interval=5,
        retries=2,
    )


pictures_or_pdfs()
