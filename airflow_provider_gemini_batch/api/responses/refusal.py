"""Turns an answer of the service that is no success into one of our errors; the only place that reads an error body.

An error is ``{"error": {"code", "message", "status", "details"}}``, at times wrapped in a list, at times no JSON at all
(a proxy's page). The service repeats values of a request in some of its messages; those are cut out here, so that no
row reaches a log.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ApiError,
    FileNotReady,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ServiceUnavailable,
    UnexpectedAnswer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LONGEST_MESSAGE = 500
# A day: whoever asks for a longer wait means "not for now".
_LONGEST_RETRY_AFTER = 86400.0
_LONGEST_DATE = 100
# The clock of a service may be wrong, but not by a century.
_YEARS = range(1970, 2200)
_LONGEST_WORDS = 300
_MOST_LINES = 20
_BAD_LINE = re.compile(r"Error on line (\d+): *(.*)")
_AFTER_LINE = re.compile(r"(.*?\bline\s+\d+)\b.*", re.IGNORECASE)
_INVALID_VALUE = re.compile(r"(Invalid value at '[^']*'(?: \([^)]*\))?), .*", re.DOTALL)
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_IDENTIFIER = re.compile(r"['\"][\w.$@/:{}\[\]-]{0,100}['\"]\Z")
_FOREIGN_FILE = re.compile(r"access the file .* may not exist", re.IGNORECASE | re.DOTALL)
_NOT_ACTIVE = re.compile(r"\bnot in an? ACTIVE state\b", re.IGNORECASE)
_REGION = re.compile(r"location is not supported|billing", re.IGNORECASE)
_KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED"})

_HINTS = {
    400: "Check the API key in the connection, and whether its project may use the service from here.",
    401: "Check the credentials in the connection.",
    403: "Check the credentials in the connection, and that they may use this project and service.",
}


def error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, what: str, secrets: Iterable[str] = ()
) -> GeminiBatchError:
    """Give the error for an answer that is no 2xx.

    :param what: the operation, host and job, as the beginning of the message.
    :param secrets: texts that must not show, should the service repeat them ("Consumer 'api_key:...' is suspended").
    """
    error = _error_member(body)
    message = _shown(str(error.get("message") or ""), secrets)
    canonical = str(error.get("status") or "")
    found = error.get("details")
    details = [detail for detail in found if isinstance(detail, dict)] if isinstance(found, list) else []
    reason = next((str(detail["reason"]) for detail in details if detail.get("reason")), "")
    text = f"{what}: {status}{' ' + canonical if canonical else ''}"
    text += f": {message}" if message else " and no message that can be read"
    if 300 <= status < 400:  # noqa: PLR2004  (the redirections of HTTP)
        return UnexpectedAnswer(f"{text}. A redirect is not followed, for it would carry the credentials along.")
    if status == HTTPStatus.BAD_REQUEST and _NOT_ACTIVE.search(message):
        return FileNotReady(f"{text} Nothing was made.")
    kind = _kind(status, canonical, reason, message)
    if kind is QuotaExceeded:
        wait = _retry_after(details, headers)
        return QuotaExceeded(text, http_status=status, status=canonical, reason=reason, retry_after=wait)
    if kind is AccessDenied:
        text += f" {_HINTS.get(status, '')}"
    return kind(text, http_status=status, status=canonical, reason=reason)


def _kind(status: int, canonical: str, reason: str, message: str) -> type[ApiError]:
    refused_region = canonical == "FAILED_PRECONDITION" and _REGION.search(message)
    if status == 400 and (reason in _KEY_REASONS or refused_region):  # noqa: PLR2004
        return AccessDenied
    # A file that is unknown, expired or another project's is a 403 with this text, never a 404.
    if status == 404 or (status == 403 and _FOREIGN_FILE.search(message)):  # noqa: PLR2004
        return NotFound
    if status in {401, 403}:
        return AccessDenied
    if status == 429:  # noqa: PLR2004
        return QuotaExceeded
    if status >= 500 or status == 408:  # noqa: PLR2004
        return ServiceUnavailable
    return ApiError


def _error_member(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, str):  # OAuth endpoints: {"error": "invalid_grant"}
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _shown(message: str, secrets: Iterable[str]) -> str:
    """Cut values of the request and credentials out of the service's words."""
    for secret in secrets:
        if secret:
            message = message.replace(secret, "***")
    message = _INVALID_VALUE.sub(r"\1", message)
    bad_lines = _BAD_LINE.findall(message)
    if bad_lines:
        shown = "; ".join(f"line {number}: {_unquoted(reason)[:200]}" for number, reason in bad_lines[:_MOST_LINES])
        more = len(bad_lines) - _MOST_LINES
        return shown + (f"; and {more} more lines" if more > 0 else "")
    return _unquoted(message).strip()[:_LONGEST_MESSAGE]


def job_words(message: str) -> str:
    """Give the words of a job's own error on one short line, without what may repeat a row."""
    words = _INVALID_VALUE.sub(r"\1", " ".join(message.split()))
    return _unquoted(_AFTER_LINE.sub(r"\1", words))[:_LONGEST_WORDS]


def _unquoted(message: str) -> str:
    """Keep quoted names of fields and files, drop any other quoted text: it may be a row's."""
    return _QUOTED.sub(lambda hit: hit[0] if _IDENTIFIER.match(hit[0]) else "'...'", message)


def _retry_after(details: list[dict[str, Any]], headers: Mapping[str, str]) -> float | None:
    for detail in details:
        delay = str(detail.get("retryDelay") or "")
        if delay.endswith("s"):
            return _seconds(delay[:-1])
    header = headers.get("Retry-After")
    if header is None:
        return None
    return _seconds(header) if header.strip().isdigit() else _until(header)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None


def _until(text: str) -> float | None:
    moment = http_date(text)
    return None if moment is None else _seconds(str((moment - datetime.now(timezone.utc)).total_seconds()))


def http_date(text: str | None) -> datetime | None:
    """Read an HTTP date (``Date``, ``Retry-After``), or None when there is none that can be meant."""
    if not text or len(text) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return moment if moment.year in _YEARS else None
