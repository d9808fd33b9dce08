"""Answers that are not one plain text: what each holds reaches its row, and media reaches a file."""

from __future__ import annotations

import base64
import io
import json
import wave
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchResult, JobKind, Usage
from airflow_provider_gemini_batch.api.responses.fast_path import PlainResult
from airflow_provider_gemini_batch.api.responses.reading import parse_result_line
from airflow_provider_gemini_batch.rows.delivery import Origin, deliver, target_of
from airflow_provider_gemini_batch.rows.expected import Expected
from airflow_provider_gemini_batch.rows.files import LocalFiles
from airflow_provider_gemini_batch.rows.landing import LandingSpec, LandingSummary
from airflow_provider_gemini_batch.rows.media import MediaFolder, decode_base64, file_ending
from airflow_provider_gemini_batch.rows.result_rows import PARTS, RowMaker

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
SIGNATURE = "Ck1hZGV1cHNpZ25hdHVyZQ=="


def image(data: bytes = PNG, mime_type: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}, **more}


def answer(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
        **more,
    }


def row_of(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return RowMaker(JobKind.GENERATION).members(BatchResult("r0", answer(*parts, **more), None, 0), "k")[1]


def land_lines(
    folder: Path, *lines: dict[str, Any], name: str = "out.jsonl", **spec: Any
) -> tuple[Any, LandingSummary]:
    """Land answers whose rows are not known, with a folder for media, and return the rows."""
    output = str(folder / name)
    media = MediaFolder(target_of(output).media, LocalFiles())
    landing = LandingSpec(**{"kind": JobKind.GENERATION, "wrapped_keys": False, "media": media, **spec})
    found = [parse_result_line(json.dumps(line).encode(), place) for place, line in enumerate(lines)]
    summary, manifest = deliver(
        target_of(output),
        LocalFiles(),
        [found.__iter__],
        landing,
        Origin(task="t", run="r", job_names=("batches/1",)),
        workdir=folder,
    )
    if name.endswith(".parquet"):
        from pyarrow import parquet

        return parquet.read_table(output).to_pylist(), summary
    assert manifest.media == media.summary()
    return [json.loads(line) for line in Path(output).read_text().split("\n") if line], summary


def test_a_picture_becomes_a_file_with_its_exact_bytes_named_by_key_and_part(tmp_path: Path) -> None:
    signed = image(thoughtSignature=SIGNATURE)
    rows, _ = land_lines(tmp_path, {"key": "img-1", "response": answer({"text": "A red dot."}, signed)})
    (file,) = rows[0]["media_files"]
    assert (rows[0]["text"], file["mime_type"], file["bytes"]) == ("A red dot.", "image/png", len(PNG))
    assert file["path"] == str(tmp_path / "_out.media" / "img-1-r0-p1.png")
    assert Path(file["path"]).read_bytes() == PNG


def test_speech_is_joined_and_becomes_a_file_that_players_read(tmp_path: Path) -> None:
    sound = "audio/L16;codec=pcm;rate=16000"
    spoken = answer(image(b"\0\1\2\3", sound), {"text": "ah"}, image(b"\4\5\6\7\10", sound))
    rows, _ = land_lines(tmp_path, {"key": "tts", "response": spoken})
    (file,) = rows[0]["media_files"]
    assert (file["mime_type"], file["path"][-4:]) == ("audio/wav", ".wav")
    with wave.open(file["path"]) as found:
        assert (found.getnchannels(), found.getsampwidth(), found.getframerate()) == (1, 2, 16000)
        # Half a sample at the end is none.
        assert found.readframes(99) == b"\0\1\2\3\4\5\6\7"


@pytest.mark.parametrize("mime_type", ["audio/L16", "audio/pcm;rate=0", "AUDIO/l16; rate=x; channels=2", "audio/raw"])
def test_raw_sound_of_any_spelling_has_a_header(mime_type: str, tmp_path: Path) -> None:
    rows, _ = land_lines(tmp_path, {"key": "a", "response": answer(image(bytes(8), mime_type))})
    with wave.open(io.BytesIO(Path(rows[0]["media_files"][0]["path"]).read_bytes())) as found:
        assert found.getframerate() == 24000
        assert found.getnchannels() == (2 if "channels" in mime_type else 1)


def test_function_calls_and_code_are_members_and_columns_of_json(tmp_path: Path) -> None:
    calls = [{"id": "c7", "name": "set_price", "args": {"price": 9.5}}, {"name": "set_stock", "args": {}}]
    ran = [
        {"executableCode": {"language": "PYTHON", "code": "print(2**10)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1024\n"}},
    ]
    parts: list[dict[str, Any]] = [
        {"functionCall": calls[0], "thoughtSignature": SIGNATURE},
        {"functionCall": calls[1]},
        *ran,
    ]
    line = {"key": "a", "response": answer(*parts)}
    rows, _ = land_lines(tmp_path, line)
    assert (rows[0]["status"], rows[0]["text"]) == ("ok", None)
    assert rows[0]["function_calls"] == calls
    assert rows[0]["executed_code"] == ran
    (row,), _ = land_lines(tmp_path, line, name="out.parquet")
    assert json.loads(row["function_calls"]) == calls
    assert json.loads(row["executed_code"]) == ran


def test_thoughts_are_kept_apart_and_further_candidates_beside(tmp_path: Path) -> None:
    thinking = {"text": "I compare.", "thought": True}
    response = answer(thinking, {"text": "Thurs"}, {"text": "day.", "thoughtSignature": SIGNATURE})
    second = {"content": {"parts": [{"text": "Friday"}, image()]}, "finishReason": "MAX_TOKENS", "index": 1}
    response["candidates"].append(second)
    rows, summary = land_lines(tmp_path, {"key": "a", "response": response})
    assert (rows[0]["text"], rows[0]["thoughts"]) == ("Thursday.", "I compare.")
    (more,) = rows[0]["more_candidates"]
    assert (more["index"], more["text"], more["finish_reason"]) == (1, "Friday", "MAX_TOKENS")
    assert Path(more["media_files"][0]["path"]).name == "a-r0-c1-p1.png"
    assert summary.succeeded == 1


@pytest.mark.parametrize(
    "parts",
    [
        [{"text": "", "thoughtSignature": SIGNATURE}],
        [{"thoughtSignature": SIGNATURE}],
        [{"text": "hm", "thought": True}],
        [image(thought=True)],
        [{"toolCall": {"id": "1"}}, {"toolResponse": {"id": "1"}}],
        [{"functionCall": None}, {"inlineData": {"data": ""}}],
        [],
    ],
)
def test_an_answer_of_nothing_but_thoughts_is_not_content_and_can_be_repaired(parts: list[dict[str, Any]]) -> None:
    status, row, _, reason = RowMaker(JobKind.GENERATION).members(BatchResult("r0", answer(*parts), None, 0), "k")
    assert (row["status"], reason) == ("invalid_output", "empty")
    assert status.word == "invalid_output"


@pytest.mark.parametrize(
    "part",
    [
        image(),
        {"fileData": {"fileUri": "gs://b/o.png", "mimeType": "image/png"}},
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": SIGNATURE},
        {"executableCode": {"code": "1"}},
        {"audioTranscription": {"text": "hello", "words": []}},
        {"somethingNew": {"x": 1}},
    ],
)
def test_any_content_makes_a_row_good(part: dict[str, Any]) -> None:
    assert row_of(part)["status"] == "ok"


def test_parts_of_an_unknown_kind_are_kept_as_they_came() -> None:
    assert row_of({"somethingNew": {"x": 1}, "thoughtSignature": SIGNATURE})["other_parts"] == (
        {"somethingNew": {"x": 1}},
    )


def test_parts_may_be_one_object_as_in_googles_own_samples() -> None:
    response = answer()
    response["candidates"][0]["content"]["parts"] = {"text": "one"}
    assert RowMaker(JobKind.GENERATION).members(BatchResult("r0", response, None, 0), "k")[1]["text"] == "one"


def test_a_file_that_the_service_keeps_is_named_by_its_address() -> None:
    row = row_of({"fileData": {"fileUri": "gs://b/o.png", "mimeType": "image/png"}})
    assert row["media_files"] == [
        {"path": None, "uri": "gs://b/o.png", "mime_type": "image/png", "bytes": None, "thought": False}
    ]
    assert "warning" not in row


def test_media_without_a_place_is_told_in_the_row_and_in_the_summary(tmp_path: Path) -> None:
    lines = [{"key": f"k{number}", "response": answer({"text": "x"}, image())} for number in range(12)]
    rows, summary = _without_place(tmp_path, lines)
    assert "media_path" in rows[0]["warning"]
    assert rows[0]["media_files"][0]["path"] is None
    assert (summary.warnings, summary.warned) == (12, tuple(f"k{number}" for number in range(10)))
    assert summary.counts["warnings"] == 12


def _without_place(folder: Path, lines: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], LandingSummary]:
    output = str(folder / "out.jsonl")
    found = [parse_result_line(json.dumps(line).encode(), place) for place, line in enumerate(lines)]
    summary, _ = deliver(
        target_of(output),
        LocalFiles(),
        [found.__iter__],
        LandingSpec(kind=JobKind.GENERATION, wrapped_keys=False),
        Origin(task="t", run="r", job_names=("b",)),
        workdir=folder,
    )
    return [json.loads(line) for line in Path(output).read_text().splitlines()], summary


@pytest.mark.parametrize("data", ["!!!", "a", "iVBORw0KGgo=xx"])
def test_media_that_is_not_base64_costs_nothing_but_itself(data: str, tmp_path: Path) -> None:
    broken = {"inlineData": {"mimeType": "image/png", "data": data}}
    rows, _ = land_lines(tmp_path, {"key": "a", "response": answer({"text": "t"}, broken, image())})
    assert "part 1 is not valid base64" in rows[0]["warning"]
    assert [file["path"] is None for file in rows[0]["media_files"]] == [True, False]


@pytest.mark.parametrize("odd", [None, 5, [], "text"])
def test_a_file_and_a_warning_name_the_part_by_its_place_in_the_response(odd: Any, tmp_path: Path) -> None:
    broken = {"inlineData": {"mimeType": "image/png", "data": "!"}}
    rows, _ = land_lines(tmp_path, {"key": "a", "response": answer(odd, broken, odd, image())})
    assert rows[0]["warning"] == "part 1 is not valid base64"
    assert rows[0]["media_files"][1]["path"].endswith("r0-p3.png")


def test_one_broken_piece_of_a_sound_costs_the_others_nothing(tmp_path: Path) -> None:
    broken = {"inlineData": {"mimeType": "audio/L16", "data": "!"}}
    rows, _ = land_lines(
        tmp_path, {"key": "a", "response": answer(broken, image(b"\0\1", "audio/L16"), image(b"\2\3", "audio/L16"))}
    )
    assert rows[0]["warning"] == "part 0 is not valid base64"
    with wave.open(rows[0]["media_files"][0]["path"]) as found:
        assert found.readframes(99) == b"\0\1\2\3"


def test_of_a_sound_in_pieces_and_of_several_candidates_the_broken_piece_is_named(tmp_path: Path) -> None:
    broken = {"inlineData": {"mimeType": "audio/L16", "data": "!"}}
    whole = image(b"\0\1", "audio/L16")
    said = answer({"text": "t"}, whole, broken, broken)
    said["candidates"].append({"content": {"parts": [whole, broken]}})
    rows, _ = land_lines(tmp_path, {"key": "a", "response": said})
    assert rows[0]["warning"] == (
        "part 2 is not valid base64; part 3 is not valid base64; part 1 of candidate 1 is not valid base64"
    )


@pytest.mark.parametrize("told", [{}, {"mimeType": None}, {"mimeType": "application/octet-stream"}])
@pytest.mark.parametrize(
    ("begin", "mime_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", "audio/wav"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"\0\0\0\x1cftypM4V \0\0\0\0M4A ", "video/mp4"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0isom", "audio/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1", "image/avif"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"\0\0\0\x18ftypheix", "image/heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0miafavif", "image/avif"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0miafavif", "image/heif"),
        (b"\0\0\0\x18ftyp", "video/mp4"),
        (b"\xff\xfb\x90\0", "audio/mpeg"),
        (b"II*\0\x08", "image/tiff"),
        (b"\x1a\x45\xdf\xa3\x9f", "video/webm"),
        (b"what is this?", None),
    ],
)
def test_media_without_a_type_is_named_by_its_first_bytes(
    told: dict[str, Any], begin: bytes, mime_type: str | None, tmp_path: Path
) -> None:
    part = {"inlineData": {"data": base64.b64encode(begin).decode(), **told}}
    rows, _ = land_lines(tmp_path, {"key": "a", "response": answer(part)})
    (file,) = rows[0]["media_files"]
    assert file["mime_type"] == (mime_type or told.get("mimeType") or "")
    assert Path(file["path"]).suffix == f".{file_ending(file['mime_type'])}"
    assert Path(file["path"]).read_bytes() == begin


def test_base64_of_either_alphabet_is_read() -> None:
    plain = bytes(range(256))
    assert decode_base64(f"data:image/png;base64,{base64.b64encode(plain).decode()}") == plain
    assert decode_base64(base64.b64encode(plain).decode()) == plain
    assert decode_base64(base64.urlsafe_b64encode(plain).decode().rstrip("=")) == plain
    assert decode_base64(base64.encodebytes(plain).decode()) == plain


KEYS = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a_b",
    "..",
    ".",
    "",
    "a\0b",
    "A" * 5000,
    "наименование",
    "a-r1-p0",
    "con:x",
]


def test_no_key_leads_out_of_the_folder_or_to_anothers_file(tmp_path: Path) -> None:
    lines = [{"key": key, "response": answer(image(PNG + bytes([place])))} for place, key in enumerate(KEYS)]
    rows, _ = land_lines(tmp_path, *lines)
    paths = [Path(row["media_files"][0]["path"]) for row in rows]
    assert {path.parent for path in paths} == {tmp_path / "_out.media"}
    assert [path.read_bytes()[-1] for path in paths] == list(range(len(KEYS)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_out.jsonl.manifest.json", "_out.media", "out.jsonl"]


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_names_of_media_are_safe_and_each_is_its_own(keys: list[str]) -> None:
    folder = MediaFolder("/m", LocalFiles())
    names = [
        folder._name(key, row, candidate, part)
        for row, key in enumerate(keys)
        for candidate in (0, 1)
        for part in (0, 1)
    ]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert len(name) < 200
        assert name.isascii()
        assert not set(name) & set("/\\:\0 ")
        assert name[0] not in ".-"


@pytest.mark.parametrize(
    ("mime_type", "suffix"),
    [("image/jpeg", "jpg"), ("IMAGE/PNG; x=1", "png"), ("../../x", "bin"), ("", "bin"), ("video/mp4", "mp4")],
)
def test_the_ending_follows_the_type_and_nothing_else(mime_type: str, suffix: str) -> None:
    assert file_ending(mime_type) == suffix


def test_a_second_answer_takes_the_place_of_the_firsts_files(tmp_path: Path) -> None:
    from airflow_provider_gemini_batch.rows.landing import land
    from airflow_provider_gemini_batch.rows.writers import JsonlSink

    media = MediaFolder(str(tmp_path / "m"), LocalFiles())
    cut = answer(image(), image())
    cut["candidates"][0]["finishReason"] = "MAX_TOKENS"
    jobs = [[BatchResult("r0", cut, None, 0)], [BatchResult("r0", answer(image(b"new")), None, 0)]]
    jobs.append([BatchResult("r0", answer(image(b"late")), None, 0)])
    handle = io.BytesIO()
    sink = JsonlSink(handle)
    spec = LandingSpec(kind=JobKind.GENERATION, rows=1, media=media)
    summary = land([job.__iter__ for job in jobs], sink, spec, tmp_path)
    sink.close()
    (file,) = json.loads(handle.getvalue())["media_files"]
    assert Path(file["path"]).read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["r0-p0.png"]
    # All three were paid for; the last is put aside.
    assert (summary.usage, summary.duplicate) == (Usage(30, 15, other_tokens=15), 1)


def test_a_text_that_takes_the_place_of_a_picture_removes_its_file(tmp_path: Path) -> None:
    from airflow_provider_gemini_batch.rows.landing import land
    from airflow_provider_gemini_batch.rows.writers import JsonlSink

    media = MediaFolder(str(tmp_path / "m"), LocalFiles())
    cut = answer(image())
    cut["candidates"][0]["finishReason"] = "MAX_TOKENS"
    whole = parse_result_line(json.dumps({"key": "r0", "response": answer({"text": "fine"})}).encode(), 0)
    assert isinstance(whole, PlainResult)
    jobs: list[list[BatchResult]] = [[BatchResult("r0", cut, None, 0)], [whole]]
    spec = LandingSpec(kind=JobKind.GENERATION, rows=1, media=media)
    land([job.__iter__ for job in jobs], JsonlSink(io.BytesIO()), spec, tmp_path)
    assert list((tmp_path / "m").iterdir()) == []
    assert media.summary() is None


@pytest.mark.parametrize(
    ("model", "config", "wanted"),
    [
        ("gemini-3-pro-image", None, "image"),
        ("models/gemini-2.5-flash-image-preview", {}, "image"),
        ("gemini-2.5-flash-preview-tts", {}, "audio"),
        ("gemini-nano-banana-2.1", {}, "image"),
        ("gemini-2.5-flash", {"responseModalities": 7}, None),
        ("gemini-3.8-flash", {"responseModalities": ["TEXT"]}, None),
        ("gemini-3.8-flash", {"responseModalities": ["TEXT", "Image"]}, "image"),
        ("gemini-3.8-flash", {"responseModalities": "AUDIO"}, "audio"),
        ("my-imagenet-classifier", {}, None),
    ],
)
def test_a_request_for_media_is_known_before_it_is_sent(model: str, config: Any, wanted: str | None) -> None:
    expected = Expected(model)
    expected.add({"generationConfig": config}, 1)
    assert expected.response_modality == wanted


def test_every_column_is_there_whatever_the_rows_hold(tmp_path: Path) -> None:
    (row,), _ = land_lines(tmp_path, {"key": "a", "response": answer({"text": "t"})}, name="out.parquet")
    assert set(PARTS) <= row.keys()
    assert all(row[name] is None for name in PARTS)
    assert row["usage"]["output_image_tokens"] == 0
