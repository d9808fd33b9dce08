"""Answers that no service should give: values out of range, characters that stores refuse, bytes that are not JSON."""

from __future__ import annotations

from typing import Any

#: What the fault ``odd_answers`` may list; rows take it in turn.
ODDITIES = {
    "none": "as usual",
    "huge_counts": "token counts beyond 64 bits",
    "negative_counts": "token counts below zero",
    "text_counts": "token counts that are words",
    "huge_code": "an error whose code does not fit 32 bits",
    "bad_vector": "an embedding that is not a list of numbers",
    "nul": "a text with U+0000",
    "control": "a text with control characters",
    "surrogate": "a text with half a surrogate pair",
    "no_members": "neither response nor error",
    "error_list": "an error that is a list",
    "response_text": "a response that is a text",
    "chunks": "a response in chunks, as a call that streams gives it",
    "deep": "a response that is nested 2,000 levels deep",
}
_BEYOND = 2**70
#: Stands for lists in lists, which no encoder writes so deep.
_DEEP_MARK = "@deep@"
_DEPTH = 2000


def make_odd(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return an answer with one thing wrong."""
    replaced: dict[str, dict[str, Any]] = {
        "huge_code": {"error": {"code": _BEYOND, "message": "Out of range."}},
        "no_members": {},
        "error_list": {"error": [{"code": 13}]},
        "response_text": {"response": "a text"},
    }
    if kind in replaced:
        return replaced[kind]
    response = answer.get("response")
    if not isinstance(response, dict):
        return answer
    counts: dict[str, Any] = {"huge_counts": _BEYOND, "negative_counts": -5, "text_counts": "many"}
    if kind in counts:
        usage = response.setdefault("usageMetadata", {})
        usage.update(promptTokenCount=counts[kind], candidatesTokenCount=counts[kind], totalTokenCount=counts[kind])
    elif kind == "bad_vector" and "embedding" in response:
        response["embedding"] = {"values": ["a", None, 1.5]}
    elif kind == "deep":
        response["deep"] = _DEEP_MARK
    elif kind == "chunks" and response.get("candidates"):
        answer["response"] = _in_chunks(response)
    texts = {"nul": "\0", "control": "\t\x01\x1b", "surrogate": "\ud800"}
    for candidate in response.get("candidates") or () if kind in texts else ():
        for part in candidate.get("content", {}).get("parts") or ():
            if part.get("text"):
                part["text"] += f" {texts[kind]} end"
    return answer


def _in_chunks(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a chunk for each part of the first candidate; the last one has everything else, too."""
    first, *others = response["candidates"]
    content = first.get("content", {})
    *begin, last = [{**content, "parts": [part]} for part in content.get("parts") or ()] or [content]
    chunks = [{"candidates": [{"content": one, "index": 0}]} for one in begin]
    return [{"candidates": []}, *chunks, {**response, "candidates": [{**first, "content": last}, *others]}]


def finish_line(line: bytes, *, raw_controls: bool) -> bytes:
    """Return an encoded line with what no encoder writes.

    :param raw_controls: whether control characters stand in its texts as they are, which JSON does not allow.
    """
    line = line.replace(f'"{_DEEP_MARK}"'.encode(), b"[" * _DEPTH + b"]" * _DEPTH)
    if not raw_controls:
        return line
    for escaped, raw in ((b"\\t", b"\t"), (b"\\u0001", b"\x01"), (b"\\u001b", b"\x1b"), (b"\\u0000", b"\0")):
        line = line.replace(escaped, raw)
    return line
