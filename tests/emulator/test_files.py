"""The Files API: resumable upload with all that goes wrong, records, downloads in parts."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from emulator.calls import Gemini

CHUNK = 262_144


def test_an_upload_in_chunks_yields_a_file_with_its_hash(gemini: Gemini) -> None:
    content = bytes(range(256)) * 1024 + b"tail"
    start = gemini.start_upload(len(content), display_name="in.jsonl", name="files/my-own")
    url = start.headers["x-goog-upload-url"]
    assert start.headers["x-goog-upload-chunk-granularity"] == str(CHUNK)
    assert gemini.send(url, "upload", 0, content[:CHUNK]).headers["x-goog-upload-status"] == "active"
    final = gemini.send(url, "upload, finalize", CHUNK, content[CHUNK:])
    assert final.headers["x-goog-upload-status"] == "final"
    file = final.json()["file"]
    assert file["name"] == "files/my-own"
    assert base64.b64decode(file["sha256Hash"]).decode() == hashlib.sha256(content).hexdigest()
    assert gemini.send(url, "query").json()["file"] == file
    assert gemini.start_upload(1, name="files/my-own").status_code == 409


def test_a_chunk_must_fit_offset_and_granularity(gemini: Gemini) -> None:
    url = gemini.start_upload(None).headers["x-goog-upload-url"]
    wrong = gemini.send(url, "upload", 5, b"x" * CHUNK)
    assert wrong.status_code == 400
    assert wrong.headers["x-goog-upload-size-received"] == "0"
    assert gemini.send(url, "upload", 0, b"x" * (CHUNK + 1)).status_code == 400
    assert gemini.send(url, "query").headers["x-goog-upload-size-received"] == "0"
    assert gemini.send(url, "upload", 0, b"x" * CHUNK).status_code == 200
    assert gemini.send(url, "finalize").json()["file"]["sizeBytes"] == str(CHUNK)
    assert gemini.send(url, "upload, finalize", CHUNK, b"y").status_code == 400


def test_an_upload_shorter_than_announced_is_not_finalized(gemini: Gemini) -> None:
    url = gemini.start_upload(10).headers["x-goog-upload-url"]
    assert gemini.send(url, "upload, finalize", 0, b"12345").status_code == 400


def test_a_chunk_cut_on_its_way_is_kept_in_part_and_can_be_continued(gemini: Gemini) -> None:
    content = bytes(1_000_000)
    url = gemini.start_upload(len(content)).headers["x-goog-upload-url"]
    gemini.emulator.control.faults(upload_partial={"value": 600_000, "times": 1})
    with pytest.raises(httpx.TransportError):
        gemini.send(url, "upload, finalize", 0, content)
    received = int(gemini.send(url, "query").headers["x-goog-upload-size-received"])
    assert received % CHUNK == 0
    assert 0 < received <= 600_000
    file = gemini.send(url, "upload, finalize", received, content[received:]).json()["file"]
    assert base64.b64decode(file["sha256Hash"]).decode() == hashlib.sha256(content).hexdigest()


def test_upload_faults_hide_the_status_cancel_or_lose_the_session(gemini: Gemini) -> None:
    control = gemini.emulator.control
    control.faults(upload_no_status={"value": True, "times": 1}, upload_lost=None)
    url = gemini.start_upload(3).headers["x-goog-upload-url"]
    assert "x-goog-upload-status" not in gemini.send(url, "upload, finalize", 0, b"abc").headers
    control.faults(upload_cancelled={"value": True, "times": 1})
    url = gemini.start_upload(3).headers["x-goog-upload-url"]
    assert gemini.send(url, "upload, finalize", 0, b"abc").headers["x-goog-upload-status"] == "cancelled"
    assert gemini.send(url, "query").headers["x-goog-upload-status"] == "cancelled"
    control.faults(upload_lost={"value": True, "times": 1})
    assert gemini.send(url, "query").status_code == 404
    url = gemini.start_upload(3).headers["x-goog-upload-url"]
    assert gemini.send(url, "cancel").headers["x-goog-upload-status"] == "cancelled"


def test_files_expire_after_48_hours_and_are_refused_with_403(gemini: Gemini) -> None:
    name = gemini.upload(b"{}")
    assert gemini.http.get(f"/v1beta/{name}").json()["state"] == "ACTIVE"
    assert gemini.http.get(f"/v1beta/{name}:download?alt=media").status_code == 400
    gemini.emulator.control.advance(48 * 3600 + 1)
    assert gemini.http.get(f"/v1beta/{name}").status_code == 403
    assert gemini.http.delete(f"/v1beta/{name}").status_code == 403
    assert gemini.http.get("/v1beta/files").json() == {}


def test_bad_ids_sizes_types_and_members_are_refused(gemini: Gemini) -> None:
    assert gemini.start_upload(1, name="files/" + "a" * 41).status_code == 400
    assert gemini.start_upload(1, name="files/Upper").status_code == 400
    assert gemini.start_upload(3 * 1024**3).status_code == 400
    assert gemini.start_upload(1, bogus=1).status_code == 400
    gemini.emulator.control.faults(refuse_mime="application/jsonl")
    assert "Unsupported MIME type" in gemini.start_upload(1).json()["error"]["message"]


def test_results_download_in_parts_and_their_record_cannot_be_read(gemini: Gemini) -> None:
    job = gemini.create_from_file(50)
    gemini.emulator.control.advance(60)
    name = gemini.get(job)["metadata"]["output"]["responsesFile"]
    assert "more than 40 characters" in gemini.http.get(f"/v1beta/{name}").json()["error"]["message"]
    path = f"/v1beta/{name}:download?alt=media"
    whole = gemini.http.get(path).content
    part = gemini.http.get(path, headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, whole[100:])
    assert part.headers["content-range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    assert gemini.http.get(path, headers={"Range": "bytes=0-9"}).content == whole[:10]
    assert gemini.http.get(path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    assert gemini.http.get(f"/download{path}").content == whole
    gemini.emulator.control.faults(download_cut={"bytes": 500, "times": 1})
    got: list[bytes] = []
    with pytest.raises(httpx.TransportError), gemini.http.stream("GET", path) as answer:
        got.extend(answer.iter_raw())
    assert b"".join(got) == whole[:500]
    gemini.emulator.control.faults(output_retention=1)
    gemini.emulator.control.advance(60)
    assert gemini.http.get(path).status_code == 403
