"""Answers that are far too large, too slow or too odd, for clients to be tried with."""

from __future__ import annotations

import json
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from airflow_provider_gemini_batch.emulator.oddities import ODDITIES

if TYPE_CHECKING:
    from emulator.calls import Gemini

GIB = 1 << 30


def test_a_small_answer_may_unpack_to_a_huge_one(gemini: Gemini) -> None:
    gemini.emulator.control.faults(bomb={"operation": "list", "bytes": GIB, "times": 1})
    unpacker, size, packed, first = zlib.decompressobj(31), 0, 0, b""
    with gemini.http.stream("GET", "/v1beta/batches") as answer:
        assert answer.headers["content-encoding"] == "gzip"
        for chunk in answer.iter_raw():
            packed += len(chunk)
            text = unpacker.decompress(chunk)
            first = first or text
            size += len(text)
    assert unpacker.eof
    assert packed < 2_000_000
    assert GIB < size < GIB + 1000
    assert first.startswith(b'{"key": "k1"')
    assert gemini.http.get("/v1beta/batches").json() == {}


@pytest.mark.parametrize("gzip", [True, False])
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_bomb_is_valid_json_in_one_line(gemini: Gemini, size: int, gzip: bool) -> None:  # noqa: FBT001 - a column
    name = gemini.create()
    gemini.emulator.control.faults(bomb={"operation": "get", "bytes": size, "gzip": gzip})
    text = gemini.http.get(f"/v1beta/{name}").text
    assert text.count("\n") == 1
    row = json.loads(text)
    assert row["response"]["candidates"][0]["content"]["parts"][0]["text"] == "a" * size
    own = {"operation": "list", "bytes": 2, "prefix": '{"error": "', "suffix": '"}', "status": 500}
    gemini.emulator.control.faults(bomb=None)
    gemini.emulator.control.faults(bomb=own)
    answer = gemini.http.get("/v1beta/batches")
    assert (answer.status_code, answer.json()) == (500, {"error": "aa"})


def test_an_answer_may_come_in_drips(gemini: Gemini) -> None:
    job = gemini.create_from_file(2)
    gemini.emulator.control.advance(60)
    file = gemini.get(job)["metadata"]["output"]["responsesFile"]
    whole = gemini.http.get(f"/v1beta/{file}:download?alt=media").content
    gemini.emulator.control.faults(drip={"operation": "*", "bytes": 100, "seconds": 0.001})
    began = time.monotonic()
    assert gemini.http.get(f"/v1beta/{file}:download?alt=media").content == whole
    assert time.monotonic() - began >= 0.001 * len(whole) / 100
    assert gemini.http.get(f"/v1beta/{job}").json()["name"] == job


def test_answers_may_be_odd_in_turn(gemini: Gemini) -> None:
    gemini.emulator.control.faults(odd_answers=[kind for kind in ODDITIES if kind != "deep"])
    name = gemini.create(rows=len(ODDITIES) - 1)
    gemini.emulator.control.advance(60)
    rows = dict(zip([kind for kind in ODDITIES if kind != "deep"], gemini.rows(name), strict=True))
    assert rows["huge_counts"]["response"]["usageMetadata"]["promptTokenCount"] == 2**70
    assert rows["huge_code"]["error"]["code"] == 2**70
    assert set(rows["no_members"]) == {"metadata"}
    texts = {
        kind: rows[kind]["response"]["candidates"][0]["content"]["parts"][0]["text"] for kind in ("nul", "control")
    }
    assert texts["nul"].endswith("\0 end")
    assert "\x01" in texts["control"]
    surrogate = rows["surrogate"]["response"]["candidates"][0]["content"]["parts"][0]["text"]
    assert surrogate.encode("utf-8", "surrogatepass").endswith(b"\xed\xa0\x80 end")
    (entry,) = gemini.emulator.control.books()["jobs"]
    assert entry["succeeded"] + entry["failed"] == len(rows)


def test_a_vector_may_hold_no_numbers_and_an_answer_no_bottom(gemini: Gemini) -> None:
    gemini.emulator.control.faults(odd_answers=["bad_vector", "deep"])
    lines = [json.dumps({"key": f"k{n}", "request": {"content": {"parts": [{"text": "x"}]}}}) for n in range(2)]
    body = {"batch": {"inputConfig": {"fileName": gemini.upload("\n".join(lines).encode())}}}
    name = gemini.http.post("/v1beta/models/gemini-embedding-001:asyncBatchEmbedContent", json=body).json()["name"]
    gemini.emulator.control.advance(60)
    file = gemini.get(name)["metadata"]["output"]["responsesFile"]
    first, second = gemini.http.get(f"/v1beta/{file}:download?alt=media").text.splitlines()
    assert json.loads(first)["response"]["embedding"]["values"] == ["a", None, 1.5]
    assert second.count("[") > 2000


def test_output_may_begin_with_a_mark_and_hold_raw_control_characters(gemini: Gemini) -> None:
    gemini.emulator.control.faults(output_bom=True, raw_controls=True, odd_answers=["control"])
    job = gemini.create_from_file(1)
    gemini.emulator.control.advance(60)
    file = gemini.get(job)["metadata"]["output"]["responsesFile"]
    content = gemini.http.get(f"/v1beta/{file}:download?alt=media").content
    assert content.startswith(b"\xef\xbb\xbf{")
    assert b"\t\x01\x1b end" in content
    with pytest.raises(json.JSONDecodeError):
        json.loads(content.decode("utf-8-sig"))
    assert json.loads(content.decode("utf-8-sig"), strict=False)["key"] == "k1"


def test_dates_page_tokens_and_upload_urls_may_be_wrong(gemini: Gemini) -> None:
    gemini.create()
    gemini.emulator.control.faults(
        date="Fri, 31 Dec 9999 23:59:59 GMT", page_loops={"value": True, "times": 2}, upload_url="ftp://nowhere/x"
    )
    first = gemini.http.get("/v1beta/batches")
    assert first.headers["date"] == "Fri, 31 Dec 9999 23:59:59 GMT"
    token = first.json()["nextPageToken"]
    again = gemini.http.get("/v1beta/batches", params={"pageToken": token}).json()
    assert again["nextPageToken"] == token
    assert gemini.start_upload(3).headers["x-goog-upload-url"] == "ftp://nowhere/x"
