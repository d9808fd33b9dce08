"""Answers that are not one text: what requests ask for, what rows can be told to be, and what a responder makes."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.emulator import Emulator, media
from airflow_provider_gemini_batch.emulator.answers import Answerer
from airflow_provider_gemini_batch.emulator.drafts import KINDS
from airflow_provider_gemini_batch.emulator.media import Sample, image_size, pcm, png, tokens_of_part
from emulator.calls import Gemini

if TYPE_CHECKING:
    from collections.abc import Callable


def _request(text: str = "Paint a dot.", **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def _answer(request: dict[str, Any], model: str = "gemini-2.5-flash", **options: Any) -> dict[str, Any]:
    response: dict[str, Any] = Answerer(model, embeds=False, **options).answer(request, "k")["response"]
    return response


def _parts(response: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = response["candidates"][0]["content"]["parts"]
    return found


def _adds_up(usage: dict[str, Any]) -> bool:
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    return bool(usage["totalTokenCount"] == sum(usage.get(name, 0) for name in names))


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("gemini-2.5-flash-image", None, 1290),
        ("gemini-3-pro-image", "1K", 1120),
        ("gemini-3-pro-image", "4K", 2000),
        ("gemini-3.1-flash-image", None, 1120),
    ],
)
def test_a_picture_is_a_real_png_beside_text_and_counts_as_image(model: str, size: str | None, tokens: int) -> None:
    config: dict[str, Any] = {"response_modalities": ["TEXT", "IMAGE"]}
    if size:
        config["imageConfig"] = {"image_size": size}
    response = _answer(_request(generation_config=config), model)
    text, image = _parts(response)
    content = base64.b64decode(image["inlineData"]["data"])
    assert image["inlineData"]["mimeType"] == "image/png"
    assert image_size(content) == (16, 16)
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    assert len(zlib.decompress(content[start : start + length])) == 16 * (16 * 3 + 1)
    assert ("thoughtSignature" in image) is ("2.5" not in model)
    usage = response["usageMetadata"]
    assert usage["candidatesTokensDetails"] == [{"modality": "IMAGE", "tokenCount": tokens}]
    assert usage["candidatesTokenCount"] == tokens + max(1, len(text["text"]) // 4)
    assert _adds_up(usage)
    assert _answer(_request(generation_config=config), model) == response


def test_image_and_speech_models_need_not_be_asked() -> None:
    assert "inlineData" in _parts(_answer(_request(), "gemini-2.5-flash-image"))[1]
    (sound,) = _parts(_answer(_request(), "gemini-2.5-flash-preview-tts"))
    assert sound["inlineData"]["mimeType"] == "audio/L16;codec=pcm;rate=24000"
    assert "inlineData" not in _parts(_answer(_request()))[0]


def test_pictures_and_speech_have_the_size_they_are_told() -> None:
    modalities: dict[str, Any] = {"generationConfig": {"responseModalities": ["IMAGE", "AUDIO"]}}
    image, sound = _parts(_answer(_request(**modalities), image_bytes=30_000, audio_seconds=0.5))
    assert 25_000 < len(base64.b64decode(image["inlineData"]["data"])) < 35_000
    assert len(base64.b64decode(sound["inlineData"]["data"])) == 24_000
    assert pcm("a", 0.1) != pcm("b", 0.1)
    assert png("a") != png("b")


TOOL = {
    "functionDeclarations": [
        {
            "name": "set_price",
            "parameters": {
                "type": "OBJECT",
                "properties": {"sku": {"type": "STRING"}, "price": {"type": "NUMBER"}},
            },
        },
        {"name": "set_stock", "parametersJsonSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    ]
}


def test_functions_are_called_with_arguments_that_fit() -> None:
    first, second = _parts(_answer(_request(tools=[TOOL])))
    assert first["functionCall"]["name"] == "set_price"
    assert set(first["functionCall"]["args"]) == {"sku", "price"}
    assert "thoughtSignature" in first
    assert second["functionCall"]["args"] == {"n": 0}
    none: dict[str, Any] = {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}
    assert "text" in _parts(_answer(_request(tools=[TOOL], **none)))[0]
    answered = _request(tools=[TOOL])
    answered["contents"].append(
        {"role": "user", "parts": [{"functionResponse": {"name": "set_price", "response": {}}}]}
    )
    assert "text" in _parts(_answer(answered))[0]


def test_tools_leave_their_traces_and_their_tokens() -> None:
    code = _answer(_request(tools=[{"code_execution": {}}]))
    assert [next(iter(part)) for part in _parts(code)] == ["executableCode", "codeExecutionResult", "text"]
    assert code["usageMetadata"]["toolUsePromptTokenCount"] == 31
    search = _answer(_request(tools=[{"googleSearch": {}}]))
    assert len(search["candidates"][0]["groundingMetadata"]["webSearchQueries"]) == 2
    page = _answer(_request("Read https://example.com/fair please.", tools=[{"urlContext": {}}]))
    (read,) = page["candidates"][0]["urlContextMetadata"]["urlMetadata"]
    assert read["retrievedUrl"] == "https://example.com/fair"
    assert all(_adds_up(response["usageMetadata"]) for response in (code, search, page))


def test_thoughts_and_several_candidates_are_given_when_asked_for() -> None:
    thought = _answer(_request(generationConfig={"thinkingConfig": {"include_thoughts": True}}))
    assert _parts(thought)[0]["thought"] is True
    assert thought["usageMetadata"]["thoughtsTokenCount"] == 90
    several = _answer(_request(generationConfig={"candidateCount": 3}))
    assert [candidate["index"] for candidate in several["candidates"]] == [0, 1, 2]
    assert len({candidate["content"]["parts"][0]["text"] for candidate in several["candidates"]}) == 3
    assert _adds_up(thought["usageMetadata"])
    assert _adds_up(several["usageMetadata"])


def test_rows_take_the_kinds_of_a_list_in_turn(gemini: Gemini) -> None:
    gemini.emulator.control.faults(answer_kinds=list(KINDS))
    name = gemini.create(rows=len(KINDS))
    gemini.emulator.control.advance(60)
    rows = gemini.rows(name)
    found = {kind: row["response"]["candidates"] for kind, row in zip(KINDS, rows, strict=True)}
    first = {kind: [set(part) for part in (c[0]["content"].get("parts") or [])] for kind, c in found.items()}
    assert first["text"] == first["grounded"] == [{"text"}]
    assert first["image"] == [{"text"}, {"inlineData"}]
    assert first["audio"] == [{"inlineData"}]
    assert first["signature"] == [{"text", "thoughtSignature"}]
    assert found["signature"][0]["content"]["parts"][0]["text"] == ""
    assert first["empty"] == []
    assert len(found["candidates"]) == 2
    assert all(_adds_up(row["response"]["usageMetadata"]) for row in rows)
    assert "candidatesTokenCount" not in rows[KINDS.index("signature")]["response"]["usageMetadata"]


def test_a_responder_may_give_parts_which_are_counted() -> None:
    parts = [
        {"text": "A red dot."},
        media.inline_data("image/png", png("dot")),
        media.inline_data("audio/L16", b"\0" * 48_000),
    ]
    with Emulator(responder=lambda _request, _key: {"parts": parts}) as emulator, Gemini(emulator) as gemini:
        name = gemini.create(rows=1)
        emulator.control.advance(60)
        (row,) = gemini.rows(name)
    assert _parts(row["response"]) == parts
    assert row["response"]["usageMetadata"]["candidatesTokensDetails"] == [
        {"modality": "IMAGE", "tokenCount": 1290},
        {"modality": "AUDIO", "tokenCount": 25},
    ]


def test_cached_tokens_lie_inside_the_prompt() -> None:
    implicit = _answer(_request("x" * 400), cached=60)["usageMetadata"]
    assert (implicit["promptTokenCount"], implicit["cachedContentTokenCount"]) == (100, 60)
    assert implicit["cacheTokensDetails"] == [{"modality": "TEXT", "tokenCount": 60}]
    named = _answer(_request("x" * 400, cachedContent="cachedContents/1"))["usageMetadata"]
    assert named["promptTokenCount"] == 100 + named["cachedContentTokenCount"]


def _inline(mime: str, content: bytes) -> dict[str, Any]:
    return media.inline_data(mime, content)


def _large_png(width: int, height: int) -> bytes:
    return png("x")[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png("x")[24:]


WAV = b"RIFF\0\0\0\0WAVEfmt " + b"\0" * 12 + (32_000).to_bytes(4, "little") + b"\0" * 12
JPEG = b"\xff\xd8\xff\xe0\0\x04JF" + b"\xff\xc0\0\x11\x08" + (1000).to_bytes(2, "big") + (700).to_bytes(2, "big")
GIF = b"GIF89a" + (40).to_bytes(2, "little") + (20).to_bytes(2, "little")


@pytest.mark.parametrize(
    ("part", "model", "tokens"),
    [
        (lambda: _inline("image/png", png("x")), "gemini-2.5-flash", ("IMAGE", 258)),
        (lambda: _inline("image/png", png("x")), "gemini-3.8-flash", ("IMAGE", 1120)),
        (lambda: _inline("image/png", _large_png(1000, 700)), "gemini-2.5-flash", ("IMAGE", 516)),
        (lambda: _inline("image/jpeg", JPEG), "gemini-2.5-flash", ("IMAGE", 516)),
        (lambda: _inline("image/gif", GIF), "gemini-2.5-flash", ("IMAGE", 258)),
        (lambda: _inline("audio/wav", WAV + b"\0" * (64_000 - len(WAV))), "gemini-2.5-flash", ("AUDIO", 64)),
        (lambda: _inline("audio/mpeg", b"\0" * 16_000), "gemini-2.5-flash", ("AUDIO", 32)),
        (lambda: _inline("video/mp4", b"\0" * 125_000), "gemini-2.5-flash", ("VIDEO", 263)),
        (lambda: _inline("application/pdf", b"/Type /Page /Type/Page /Type /Pages"), "gemini-2.5-pro", ("IMAGE", 516)),
        (lambda: _inline("text/plain", b"x" * 40), "gemini-2.5-flash", ("TEXT", 10)),
        (
            lambda: {"file_data": {"file_uri": "gs://b/x.mp3", "mime_type": "audio/mpeg"}},
            "gemini-2.5-flash",
            ("AUDIO", 320),
        ),
        (
            lambda: {**_inline("image/png", b""), "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"}},
            "gemini-3.8-flash",
            ("IMAGE", 280),
        ),
    ],
)
def test_media_of_a_request_are_counted_by_kind_and_size(
    part: Callable[[], dict[str, Any]], model: str, tokens: tuple[str, int]
) -> None:
    assert tokens_of_part(part(), model, None, None) == tokens


def test_named_files_are_looked_up(gemini: Gemini) -> None:
    name = gemini.upload(b"\0" * 32_000)
    part = {"fileData": {"fileUri": f"https://x/v1beta/{name}", "mimeType": "audio/mpeg"}}
    look_up = gemini.emulator._parts.files.sample
    assert tokens_of_part(part, "gemini-2.5-flash", None, look_up) == ("AUDIO", 64)
    assert look_up("https://x/v1beta/files/other") is None
    assert look_up(f"files/{name[6:]}") == Sample(32_000, b"\0" * 32_000)


def test_requests_of_media_alone_have_different_answers() -> None:
    answerer = Answerer("gemini-embedding-2", embeds=True)
    vectors = []
    for uri in ("gs://b/1.png", "gs://b/2.png"):
        request = {"content": {"parts": [{"fileData": {"fileUri": uri, "mimeType": "image/png"}}]}}
        response = answerer.answer(request, None)["response"]
        assert response["usageMetadata"]["promptTokenDetails"] == [{"modality": "IMAGE", "tokenCount": 258}]
        vectors.append(response["embedding"]["values"])
    assert vectors[0] != vectors[1]


OPENAI = {
    "custom_id": "r1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "gemini-2.5-flash",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}],
        "max_tokens": 500,
    },
}


def _run_lines(gemini: Gemini, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    file = gemini.upload("\n".join(json.dumps(row) for row in rows).encode())
    body = {"batch": {"inputConfig": {"fileName": file}}}
    name = gemini.http.post("/v1beta/models/gemini-2.5-flash:batchGenerateContent", json=body).json()["name"]
    gemini.emulator.control.advance(60)
    output = gemini.get(name)["metadata"]["output"]["responsesFile"]
    return [json.loads(line) for line in gemini.http.get(f"/v1beta/{output}:download?alt=media").text.splitlines()]


def test_rows_in_the_shape_of_openai_come_back_in_it(gemini: Gemini) -> None:
    gemini.emulator.control.faults(row_error_every=2, row_error_code=8, thoughts=40)
    good, bad, native = _run_lines(
        gemini, OPENAI, {**OPENAI, "custom_id": "r2"}, {"key": "k", "request": _request("Native.")}
    )
    assert (good["custom_id"], good["response"]["status_code"]) == ("r1", 200)
    body = good["response"]["body"]
    assert body["choices"][0]["message"]["content"].endswith("] Name a colour.")
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["totalTokens"] == usage["promptTokens"] + usage["completionTokens"] + 40
    assert (bad["custom_id"], bad["response"]["status_code"], bad["response"]["body"]["error"]["code"]) == (
        "r2",
        400,
        8,
    )
    assert native["response"]["candidates"]


def test_tools_of_openai_are_called(gemini: Gemini) -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    body = {**OPENAI["body"], "tools": [{"type": "function", "function": function}]}  # type: ignore[dict-item]
    (row,) = _run_lines(gemini, {**OPENAI, "body": body})
    choice = row["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert set(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])) == {"a"}


@pytest.mark.parametrize("change", [{"body": {}}, {"url": "/v1/responses"}, {"custom_id": 5}, {"method": "GET"}])
def test_bad_rows_of_openai_are_refused_at_create(gemini: Gemini, change: dict[str, Any]) -> None:
    file = gemini.upload(json.dumps({**OPENAI, **change}).encode())
    body = {"batch": {"inputConfig": {"fileName": file}}}
    answer = gemini.http.post("/v1beta/models/gemini-2.5-flash:batchGenerateContent", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Error on line 1: ")
