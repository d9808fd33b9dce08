"""Wire habits that both dialects share: errors, times, page tokens, field masks, JSON answers."""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import datetime, timezone
from typing import Any

from starlette.responses import Response

#: What a parser of Google's goes down to.
MAX_DEPTH = 100
JSON_TYPE = "application/json; charset=UTF-8"

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_HELP = {
    "@type": "type.googleapis.com/google.rpc.Help",
    "links": [
        {
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
        }
    ],
}


class ApiError(Exception):
    """An answer that refuses the call, in Google's error model."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        status: str | None = None,
        details: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or STATUS_NAMES.get(code, "UNKNOWN")
        self.details = details
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return {"error": error}

    def response(self) -> Response:
        """Return the HTTP answer."""
        return answer(self.body(), status=self.code, headers=self.headers)


def _no_constant(name: str) -> Any:
    raise ValueError(f"unexpected token: {name}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number out of range: {text[:20]}")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def decode(text: str) -> Any:
    """Return the value of a JSON text; NaN, Infinity and numbers out of range are a ValueError, as at the service."""
    return _DECODER.decode(text)


def read_json(raw: bytes) -> Any:
    """Return the value of a body; ApiError 400 when it is not JSON, or nested deeper than a hundred levels."""
    try:
        document = decode(raw.decode())
    except (ValueError, RecursionError) as error:
        said = "It is nested too deeply." if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"Invalid JSON payload received. {said}") from error
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ApiError(400, "Invalid JSON payload received. It is nested too deeply.")
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return document


def answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer in the shape of Google's front end."""
    return Response(
        json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"), status, headers, media_type=JSON_TYPE
    )


def unknown_name(name: str, place: str = "") -> ApiError:
    """Return the refusal of a body member that the message does not have."""
    where = f" at '{place}'" if place else ""
    text = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
    violation: dict[str, str] = {"description": text}
    if place:
        violation["field"] = place
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}]
    return ApiError(400, text, details=details)


def quota_error(message: str | None = None, *, retry_info: str | None = None) -> ApiError:
    """Return a 429: with links only, or with the violated quota and a delay when ``retry_info`` (``19s``) is given."""
    details: list[dict[str, Any]] = [_HELP]
    if retry_info:
        violation = {
            "quotaMetric": "generativelanguage.googleapis.com/emulated_metric",
            "quotaId": "EmulatedQuotaPerMinutePerProjectPerModel",
            "quotaDimensions": {"location": "global"},
            "quotaValue": "10",
        }
        details = [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
            _HELP,
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_info},
        ]
    text = message or "You exceeded your current quota, please check your plan and billing details."
    return ApiError(429, text, details=details)


def nanos(moment: float) -> str:
    """Return an RFC 3339 time with nine decimals, as the Developer API writes it."""
    return f"{_seconds(moment)}.{int(moment % 1 * 1e6):06d}789Z"


def micros(moment: float) -> str:
    """Return an RFC 3339 time with six decimals, as Vertex writes it."""
    return f"{_seconds(moment)}.{int(moment % 1 * 1e6):06d}Z"


def _seconds(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time(text: str) -> float:
    """Return the epoch seconds of an RFC 3339 time; ValueError when it is none."""
    head, dot, rest = text.strip().replace("Z", "+00:00").partition(".")
    if dot:
        digits = rest[: next((i for i, c in enumerate(rest) if not c.isdigit()), len(rest))]
        head = f"{head}.{digits[:6]:0<6}{rest[len(digits) :]}"
    return datetime.fromisoformat(head).timestamp()


def page_token(number: int) -> str:
    """Return an opaque page token that has to be URL-encoded, as Google's often must."""
    return base64.b64encode(f"\x0a?>{number}".encode()).decode()


def read_page_token(token: str | None) -> int | None:
    """Return the number inside a page token, None without one; ApiError 400 for any other text."""
    if not token:
        return None
    try:
        text = base64.b64decode(token.replace(" ", "+"), validate=True).decode()
        return int(text.removeprefix("\x0a?>"))
    except ValueError as error:
        raise ApiError(400, "Invalid page token.") from error


def read_page_size(text: str | None, *, default: int, cap: int) -> int:
    """Return the page size to use; ApiError 400 when the text is not a whole number from 0 up."""
    if not text:
        return default
    if not text.isdigit():
        raise ApiError(400, f"Invalid value at 'page_size' (TYPE_INT32), \"{text}\"")
    return min(int(text) or default, cap)


Mask = dict[str, "Mask"]


def parse_mask(text: str) -> Mask:
    """Return the tree of a partial-response mask such as ``operations(name,metadata/state),nextPageToken``.

    An empty tree below a name means everything below it. Raises ApiError 400 for a mask that cannot be read.
    """
    pieces = re.findall(r"[,/()]|[^,/()]+", text.replace(" ", ""))[::-1]
    try:
        tree = _take_fields(pieces)
    except (IndexError, ValueError):
        tree = {}
    if pieces or not tree:
        raise ApiError(400, f"Request contains an invalid argument. Invalid field selection {text}")
    return tree


def _take_fields(pieces: list[str]) -> Mask:
    """Take ``a,b(c),d/e`` off the end of the pieces. Raises IndexError or ValueError where no field follows."""
    tree: Mask = {}
    while True:
        _join(tree, _take_field(pieces))
        if pieces[-1:] != [","]:
            return tree
        pieces.pop()


def _take_field(pieces: list[str]) -> Mask:
    name = pieces.pop()
    if name in {",", "/", "(", ")"}:
        raise ValueError(name)
    below: Mask = {}
    if pieces[-1:] == ["/"]:
        pieces.pop()
        below = _take_field(pieces)
    elif pieces[-1:] == ["("]:
        pieces.pop()
        below = _take_fields(pieces)
        if pieces.pop() != ")":
            raise ValueError(name)
    return {name: below}


def _join(tree: Mask, other: Mask) -> None:
    for name, below in other.items():
        if name in tree and tree[name] and below:
            _join(tree[name], below)
        else:
            tree[name] = {} if name in tree else below


def apply_mask(document: Any, mask: Mask) -> Any:
    """Return the part of a document that a mask names; lists are walked through, ``*`` names all members."""
    if not mask or not isinstance(document, (dict, list)):
        return document
    if isinstance(document, list):
        return [apply_mask(item, mask) for item in document]
    every = mask.get("*")
    return {
        name: apply_mask(value, mask.get(name, every or {}))
        for name, value in document.items()
        if name in mask or every is not None
    }
