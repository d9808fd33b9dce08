"""Files that take their time or fail, and downloads that are answered by a redirect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from emulator.calls import MODEL

if TYPE_CHECKING:
    import httpx

    from emulator.calls import Gemini


def _create(gemini: Gemini, config: dict[str, Any]) -> httpx.Response:
    return gemini.http.post(f"{MODEL}:batchGenerateContent", json={"batch": {"inputConfig": config}})


def _state(gemini: Gemini, name: str) -> str:
    return str(gemini.http.get(f"/v1beta/{name}").json()["state"])


def _media(uri: str) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": "See."}, {"fileData": {"fileUri": uri, "mimeType": "image/png"}}]}]}


def _not_active(answer: httpx.Response, name: str) -> bool:
    error = answer.json()["error"]
    text = f"The File {name.removeprefix('files/')} is not in an ACTIVE state and usage is not allowed."
    return (error["code"], error["status"], error["message"]) == (400, "FAILED_PRECONDITION", text)


def test_a_file_is_processed_for_so_many_seconds_and_refused_until_then(gemini: Gemini) -> None:
    gemini.emulator.control.speed(0)
    gemini.emulator.control.faults(file_processing=5)
    name = gemini.upload(json.dumps({"key": "a", "request": _media("x")}).encode())
    assert _state(gemini, name) == "PROCESSING"
    assert _not_active(_create(gemini, {"fileName": name}), name)
    assert gemini.emulator.control.books()["created"] == 0
    gemini.emulator.control.advance(5)
    assert _state(gemini, name) == "ACTIVE"
    assert _create(gemini, {"fileName": name}).status_code == 200


def test_a_large_enough_file_is_processed_for_so_many_polls(gemini: Gemini) -> None:
    gemini.emulator.control.faults(file_processing={"looks": 2, "above": 10, "times": 1})
    small, large, later = gemini.upload(b"{}"), gemini.upload(b" " * 10), gemini.upload(b" " * 10)
    assert _state(gemini, small) == "ACTIVE"
    assert [_state(gemini, large) for _ in range(3)] == ["PROCESSING", "PROCESSING", "ACTIVE"]
    assert _state(gemini, later) == "ACTIVE"


@pytest.mark.parametrize(("value", "code"), [(True, 3), ("Too odd.", 3), ({"code": 13, "message": "Too odd."}, 13)])
def test_a_file_may_end_as_failed_with_its_reason(gemini: Gemini, value: Any, code: int) -> None:
    gemini.emulator.control.faults(file_failed=value, file_processing={"looks": 1})
    name = gemini.upload(b"{}")
    assert _state(gemini, name) == "PROCESSING"
    record = gemini.http.get(f"/v1beta/{name}").json()
    assert (record["state"], record["error"]["code"]) == ("FAILED", code)
    assert record["error"]["message"] == ("The file could not be processed." if value is True else "Too odd.")
    assert _not_active(_create(gemini, {"fileName": name}), name)


def test_media_that_rows_name_have_to_be_active_too(gemini: Gemini) -> None:
    gemini.emulator.control.faults(file_processing={"looks": 1})
    media = gemini.upload(b"png")
    gemini.emulator.control.clear_faults()
    uri = f"{gemini.emulator.url}/v1beta/{media}"
    inline = {"requests": {"requests": [{"request": _media(uri)}]}}
    rows = gemini.upload(json.dumps({"key": "a", "request": _media(uri)}).encode())
    assert _not_active(_create(gemini, inline), media)
    assert _not_active(_create(gemini, {"file_name": rows}), media)
    assert _state(gemini, media) == "PROCESSING"
    assert _create(gemini, inline).status_code == 200
    assert _create(gemini, {"file_name": rows}).status_code == 200


def test_the_short_download_path_may_redirect_to_the_long_one(gemini: Gemini) -> None:
    job = gemini.create_from_file(3)
    gemini.emulator.control.advance(60)
    file = gemini.get(job)["metadata"]["output"]["responsesFile"]
    path = f"/v1beta/{file}:download?alt=media"
    gemini.emulator.control.faults(download_redirect=True)
    short = gemini.http.get(path)
    assert (short.status_code, short.headers["location"]) == (302, f"/download{path}")
    long = gemini.http.get(short.headers["location"])
    assert (long.status_code, len(long.text.splitlines())) == (200, 3)
    keyless = {"x-goog-api-key": ""}
    assert gemini.http.get(path, headers=keyless).status_code == 403
    assert gemini.http.get(f"/download{path}", headers=keyless).status_code == 403
    gemini.emulator.control.faults(download_redirect="http://localhost:1")
    assert gemini.http.get(path).headers["location"] == f"http://localhost:1/download{path}"


def test_any_call_may_be_sent_elsewhere_or_round_in_circles(gemini: Gemini) -> None:
    name = gemini.create()
    gemini.emulator.control.faults(redirect={"operation": "get", "to": "http://localhost:1", "times": 1})
    away = gemini.http.get(f"/v1beta/{name}?fields=name")
    assert (away.status_code, away.headers["location"]) == (302, f"http://localhost:1/v1beta/{name}?fields=name")
    gemini.emulator.control.faults(redirect={"operation": "get", "status": 307})
    again = gemini.http.get(f"/v1beta/{name}")
    assert (again.status_code, again.headers["location"]) == (307, f"{gemini.emulator.url}/v1beta/{name}")
