"""Values that nobody expects, from dice: JSON, texts, bytes, headers. The same seed gives the same values."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

KEY = "AIzaSyFuzzKeyThatMustNeverShow0123456789"
PROMPT = "a prompt, that must never show"

_TEXTS = [
    "", " ", "x", "é", "\u2028", "\U0001f600", "\ud83d", "\ude04", '"', "\\", "\n", "\r", "\x00", "\ufeff", "'", "%",
    "{}", "null", "-1", "1e400", "9" * 400, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999999Z", "Infinity",
    "NaN",
    "batches/a", "files/a", "projects/1/locations/l/batchPredictionJobs/2", "JOB_STATE_RUNNING",
    "BATCH_STATE_SUCCEEDED", "JOB_STATE_EXPIRED", "gs://b/o", "bq://p.d.t", "http://127.0.0.1:9/x", "https://[::1",
    "//x",
    "../..", "application/json",
    "line 1", "Invalid value at 'x', \"", "Error on line 3: ", "a" * 5000, "'" * 300, "(" * 300, "../" * 50,
]  # fmt: skip
_NUMBERS = [0, 1, -1, 2**31, 2**63, 2**64, 10**30, -(2**63), 1.5, -0.0, 1e308, True, False, None]
_NAMES = [
    "name", "done", "error", "metadata", "response", "state", "batchStats", "requestCount", "createTime", "endTime",
    "model", "displayName", "output", "responsesFile", "inlinedResponses", "operations", "nextPageToken", "files",
    "file", "uri",
    "sizeBytes", "sha256Hash", "status", "code", "message", "details", "reason", "retryDelay", "key", "custom_id",
    "request",
    "contents", "content", "parts", "text", "role", "config", "generationConfig", "systemInstruction", "tools", "title",
    "candidates", "usageMetadata", "promptTokenCount", "embedding", "values", "predictions", "instance", "outputInfo",
    "gcsOutputDirectory", "inputConfig", "outputConfig", "batchPredictionJobs", "completionStats", "labels", "version",
    "jobs", "stalled", "memo", "$defs", "a b", "", "é",
]  # fmt: skip


def text(dice: random.Random) -> str:
    """A text, mostly short."""
    return "".join(dice.choices(_TEXTS, k=dice.choice((1, 1, 1, 2, 3))))


def anything(dice: random.Random, depth: int = 0) -> Any:
    """A value of JSON, or nearly."""
    kind = dice.randrange(10 if depth < 5 else 6)
    if kind < 3:
        return text(dice)
    if kind < 6:
        return dice.choice(_NUMBERS)
    if kind < 7:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {name(dice): anything(dice, depth + 1) for _ in range(dice.randrange(6))}


def name(dice: random.Random) -> str:
    """A member's name, mostly one that means something."""
    return dice.choice(_NAMES) if dice.random() < 0.9 else text(dice)


def spoiled(dice: random.Random, value: Any) -> Any:
    """The value with one thing in it exchanged, dropped or added."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        member = dice.choice(list(value))
        choice = dice.randrange(5)
        if choice == 0:
            return {other: inner for other, inner in value.items() if other != member}
        if choice == 1:
            return {**value, name(dice): anything(dice)}
        return {**value, member: spoiled(dice, value[member])}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], spoiled(dice, value[place]), *value[place + 1 :]]
    return anything(dice)


def written(dice: random.Random, value: Any) -> bytes:
    """The value as bytes on a wire: JSON, torn JSON, deep JSON, or none at all."""
    choice = dice.randrange(20)
    if choice == 0:
        return dice.randbytes(dice.randrange(200))
    if choice == 1:
        return b"[" * dice.choice((10, 1000, 100_000))
    if choice == 2:
        return b'{"a":' * 2000 + b"1" + b"}" * 2000
    if choice == 3:
        return b"<html>" + text(dice).encode("utf-8", "replace")
    body = json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    if choice == 4 and body:
        place = dice.randrange(len(body))
        return body[:place] + dice.randbytes(3) + body[place:]
    if choice == 5:
        return body[: dice.randrange(len(body) + 1)]
    return b"\xef\xbb\xbf" + body if choice == 6 else body


def packed(dice: random.Random, body: bytes) -> tuple[dict[str, str], bytes]:
    """The body as it travels, with the header that says so, which may lie."""
    choice = dice.randrange(12)
    if choice == 0:
        return {"Content-Encoding": "gzip"}, gzip.compress(body, 1)
    if choice == 1:
        return {"Content-Encoding": "gzip"}, body
    if choice == 2:
        return {"Content-Encoding": dice.choice(("br", "deflate", "gzip, gzip", "nonsense", ""))}, body
    return {}, body


def headers(dice: random.Random) -> dict[str, str]:
    """Headers that mean something to us, with values that mean nothing."""
    names = [
        "Date", "Retry-After", "Location", "Content-Length", "Content-Range", "Content-Type", "x-goog-upload-url",
        "x-goog-upload-status", "x-goog-upload-size-received", "x-goog-upload-chunk-granularity",
    ]  # fmt: skip
    values = [
        *_TEXTS,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "active",
        "final",
        "cancelled",
        "-5",
        "0",
        "262144",
        "http://x/",
    ]
    found = {dice.choice(names): dice.choice(values) for _ in range(dice.randrange(4))}
    return {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in found.items()}
