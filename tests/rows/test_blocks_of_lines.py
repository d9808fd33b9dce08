"""Lines of JSON that are read many at a time become what they become one by one."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.record import RecordWriter
from airflow_provider_gemini_batch.rows.stage import stage

REQUEST = {
    "contents": [{"role": "user", "parts": [{"text": "Say hello. " * 300}]}],
    "generationConfig": {"temperature": 0.5},
}
TEXT = json.dumps(REQUEST)
# Two values in a line and none in the next are as many values as lines; so are three values in four lines.
ODD = [
    b"",
    b" ",
    TEXT.encode() * 2,
    f"{TEXT} {TEXT}".encode(),
    TEXT[:40].encode(),
    TEXT[40:].encode(),
    f'{{"key": "a", "request": {TEXT}, "request": {TEXT}}}'.encode(),
    f'{{"key": "a", "request": {TEXT}, "key": "b"}}'.encode(),
    f'{{"key": "", "request": {TEXT}}}'.encode(),
    f'{{"key": "b", "request":  {TEXT}}}'.encode(),
    f'{{"key": "c", "request": {TEXT}}} '.encode(),
    f'{{"key": "d", "request": {TEXT}]'.encode(),
    f'{{"key": "d{{"key": "e", "request": {TEXT}}}'.encode(),
    f'{{"kex": "f", "request": {TEXT}}}'.encode(),
    f'{{"key": "e", "x": "y", "request": {TEXT}}}'.encode(),
    f'{{"key": "f", "request": {TEXT}{TEXT}}}'.encode(),
    f'{{"key": "\\u00e4", "request": {TEXT}}}'.encode(),
    f'{{"key": "g\\/h", "request": {TEXT}}}'.encode(),
    f'{{"key": "i\\"j", "request": {TEXT}}}'.encode(),
    f'{{"key": "k\tl", "request": {TEXT}}}'.encode(),
    f'{{"request": {TEXT}, "key": "m"}}'.encode(),
    b'{"key": "\xff", "request": ' + TEXT.encode() + b"}",
    b'{"text": "Say hello."}',
    b'"Say hello."',
    b'{"contents": [{"parts": [{"text": "x"}]}]}',
    b'{"contents": []}',
    b"null",
    b'\xef\xbb\xbf{"key": "n", "request": ' + TEXT.encode() + b"}",
]
PLAIN = st.builds(
    lambda key, layout: json.dumps({"key": key, "request": REQUEST}, **layout).encode(),
    st.text(min_size=1, max_size=4),
    st.sampled_from([{}, {"separators": (",", ":")}, {"ensure_ascii": False}]),
)
LINES = st.lists(PLAIN | st.just(TEXT.encode()) | st.sampled_from(ODD), min_size=1, max_size=6)


def read(given: InputSpec, folder: Path) -> tuple[Any, ...]:
    """Everything that is known of an input, its lines among it; what is wrong with it, without the name of the file."""
    kept = io.BytesIO()
    try:
        with RecordWriter(store=True, file=None, needed=True) as record:
            staged = stage(given, folder, record)
    except InputError as error:
        # Where a key was used first is said in other words if there may be several files.
        return (
            "a key was used before" if "was used before" in str(error) else str(error).replace(f"{given.path}, ", ""),
        )
    kept.write((record.finish().text or "").partition("\n")[2].encode())
    sent = [file.path.read_bytes() for file in staged.files.values()]
    return staged.layout, staged.expected.usage, staged.expected.rows, staged.warnings, sent, kept.getvalue()


@given(
    lines=LINES,
    end=st.sampled_from([b"", b"\n", b"\r\n"]),
    copies=st.sampled_from([1, 30]),
    service=st.sampled_from(list(Service)),
    config=st.sampled_from([None, {"temperature": 0.5}, {"maxOutputTokens": 7}]),
    most=st.sampled_from([None, 2]),
)
def test_lines_are_the_same_rows_one_by_one_and_many_at_a_time(
    *,
    lines: list[bytes],
    end: bytes,
    copies: int,
    service: Service,
    config: dict[str, Any] | None,
    most: int | None,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "in.jsonl"
        path.write_bytes(b"\n".join(lines * copies) + end)
        same: dict[str, Any] = {
            "service": service,
            "project": "p",
            "location": "us-central1",
            "model": "gemini-2.5-flash",
            "generation_config": config,
            "max_rows_per_job": most,
        }
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        together = read(InputSpec(path=str(path), **same), folder / "a")
        one_by_one = read(InputSpec(path=str(path), files=lambda: [str(path)], **same), folder / "b")
        assert together == one_by_one
