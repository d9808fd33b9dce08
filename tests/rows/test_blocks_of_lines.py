"""Lines of JSON that are read many at a time become what they become one by one."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.rows import sending
from airflow_provider_gemini_batch.rows import stage as staging
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.record import RecordWriter
from airflow_provider_gemini_batch.rows.stage import open_source

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


def read(given: InputSpec, *, one_by_one: bool = False) -> tuple[Any, ...]:
    """Everything that is known of an input, its lines among it, or what is wrong with it."""
    kept = io.BytesIO()
    opened = (lambda spec: open_source(spec)._replace(blocks=None)) if one_by_one else open_source
    with (
        tempfile.TemporaryDirectory() as name,
        patch.object(staging, "open_source", opened),
        patch.object(sending, "open_source", opened),
    ):
        folder = Path(name)
        try:
            with RecordWriter(store=True, file=None, needed=True) as record:
                staged = staging.stage(given, folder, record)
        except InputError as error:
            return (str(error),)
        kept.write((record.finish().text or "").partition("\n")[2].encode())
        again = folder / "again"
        again.mkdir()
        reader = sending.ShardReader(given, staged.layout, again)
        sent = [reader.shard(shard.index).path.read_bytes() for shard in staged.layout.shards]
        reader.close()
        assert [file.path.read_bytes() for file in staged.files.values()] == sent[: len(staged.files)]
    return staged.layout, staged.expected.usage, staged.expected.rows, staged.warnings, sent, kept.getvalue()


@given(
    lines=LINES,
    end=st.sampled_from([b"", b"\n", b"\r\n"]),
    copies=st.sampled_from([1, 30]),
    files=st.integers(1, 3),
    service=st.sampled_from(list(Service)),
    config=st.sampled_from([None, {"temperature": 0.5}, {"maxOutputTokens": 7}]),
    most=st.sampled_from([None, 20, 50]),
)
def test_lines_are_the_same_rows_one_by_one_and_many_at_a_time(
    *,
    lines: list[bytes],
    end: bytes,
    copies: int,
    files: int,
    service: Service,
    config: dict[str, Any] | None,
    most: int | None,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.jsonl" for number in range(files)]
        for number, path in enumerate(paths):
            path.write_bytes(b"\n".join((lines * copies)[number::files]) + end)
        given = InputSpec(
            service=service,
            project="p",
            location="us-central1",
            model="gemini-2.5-flash",
            generation_config=config,
            max_rows_per_job=most,
            path=str(paths[0]),
        )
        assert read(given) == read(given, one_by_one=True)
        folder = replace(given, files=lambda: list(map(str, paths)))
        assert read(folder) == read(folder, one_by_one=True)
