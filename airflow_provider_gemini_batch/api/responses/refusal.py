"""Turns a refusal into one of our errors; the only place that reads an error body of the service.

An error is ``{"error": {"code", "message", "status", "details"}}``, sometimes wrapped in a list, sometimes not JSON (a
proxy's page). Its words are made fit for a log by :mod:`~airflow_provider_gemini_batch.api.service_words`.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager
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
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.service_words import message_words, status_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# A day: a longer wait only means "not now".
_LONGEST_RETRY_AFTER = 86400.0
_LONGEST_DATE = 100
# The status of gRPC's CANCELLED, which Google's servers also send when they give a call up themselves.
_GIVEN_UP = 499
# Dates outside of these years cannot be right.
_YEARS = range(1970, 2200)
_PASSING = frozenset({"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"})
_NOT_ACTIVE = re.compile(r"\bnot in an? ACTIVE state\b", re.IGNORECASE)
_REGION = re.compile(r"location is not supported|billing", re.IGNORECASE)
_KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED"})

THE_CONNECTION = "the connection"
_HINTS = {
    400: "Check the API key in {owner}, and whether its project may use the service from here.",
    401: "Check the credentials in {owner}.",
    403: "Check the credentials in {owner}, and that they may use this project and service.",
}


def error_from_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    what: str,
    secrets: Iterable[str] = (),
    owner: str = THE_CONNECTION,
) -> GeminiBatchError:
    """Return the error for a response that is not a 2xx.

    :param what: the operation, host and job, as the beginning of the message.
    :param owner: what holds the credentials, for advice.
    :param secrets: texts that must not show, should the service repeat them ("Consumer 'api_key:...' is suspended").
    """
    error = _error_member(body)
    message = message_words(str(error.get("message") or ""), secrets)
    canonical = status_word(error.get("status"))
    found = error.get("details")
    details = [detail for detail in found if isinstance(detail, dict)] if isinstance(found, list) else []
    reason = next((word for detail in details if (word := status_word(detail.get("reason")))), "")
    text = f"{what}: {status}{' ' + canonical if canonical else ''}"
    text += f": {message}" if message else " and no message that can be read"
    if 300 <= status < 400:  # noqa: PLR2004  (the redirections of HTTP)
        return UnexpectedResponse(f"{text}. Redirects are not followed: they would carry the credentials along.")
    if status == HTTPStatus.BAD_REQUEST and _NOT_ACTIVE.search(message):
        return FileNotReady(f"{text} No job was created.")
    kind = _kind(status, canonical, reason, message)
    if kind is QuotaExceeded:
        wait = _retry_after(details, headers)
        return QuotaExceeded(text, http_status=status, status=canonical, reason=reason, retry_after=wait)
    if kind is AccessDenied:
        # Not all of the service's messages end as sentences do.
        text = f"{text.rstrip('.')}. {_HINTS.get(status, '').format(owner=owner)}"
    return kind(text, http_status=status, status=canonical, reason=reason)


def _kind(status: int, canonical: str, reason: str, message: str) -> type[ApiError]:
    refused_region = canonical == "FAILED_PRECONDITION" and _REGION.search(message)
    if status == HTTPStatus.BAD_REQUEST and (reason in _KEY_REASONS or refused_region):
        return AccessDenied
    # A file that is unknown, expired or another project's is a 403 with this text, never a 404.
    if status == HTTPStatus.NOT_FOUND or (status == HTTPStatus.FORBIDDEN and _is_about_a_file(message)):
        return NotFound
    # Some gateways give every error of the service a status of their own, and leave its words.
    if status == HTTPStatus.TOO_MANY_REQUESTS or canonical == "RESOURCE_EXHAUSTED":
        return QuotaExceeded
    passes = status in {HTTPStatus.REQUEST_TIMEOUT, _GIVEN_UP} or canonical in _PASSING
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or passes:
        return ServiceUnavailable
    return AccessDenied if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} else ApiError


def error_from_status(status: int, what: str) -> ApiError:
    """Return the error for a refusal that a library of Google's reports, of which only the status is known.

    :param what: the operation and the address, as the beginning of the message.
    """
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        word = "PERMISSION_DENIED" if status == HTTPStatus.FORBIDDEN else "UNAUTHENTICATED"
        return AccessDenied(f"{what}: {status}, these credentials may not", http_status=status, status=word)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return QuotaExceeded(f"{what}: {status}, too many requests", http_status=status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServiceUnavailable(f"{what}: {status}", http_status=status)
    return ApiError(f"{what}: {status}", http_status=status)


def check_is_service(error: ApiError) -> None:
    """Raise ServiceUnavailable for a refusal, such as a 404, that is not in the service's form: a job may be there."""
    if error.is_vague and not error.retryable:
        raise ServiceUnavailable(str(error), http_status=error.http_status) from error


@contextmanager
def only_the_service(refusals: type[ApiError] = NotFound) -> Iterator[None]:
    """Raise ServiceUnavailable in place of such refusals that are not in the service's form."""
    try:
        yield
    except refusals as error:
        check_is_service(error)
        raise


def _is_about_a_file(message: str) -> bool:
    return "may not exist" in message.lower().partition("access the file ")[2]


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


def _retry_after(details: list[dict[str, Any]], headers: Mapping[str, str]) -> float | None:
    for detail in details:
        delay = str(detail.get("retryDelay") or "")
        if delay.endswith("s"):
            return _seconds(delay[:-1])
    header = headers.get("Retry-After")
    if header is None:
        return None
    return _seconds(header) if header.strip().isdigit() else _until(header, headers.get("Date"))


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None


def _until(text: str, date: str | None) -> float | None:
    """Return the seconds to a moment, by the clock of whoever names it; None if that is not a time."""
    moment, now = http_date(text), http_date(date) or datetime.now(timezone.utc)
    return None if moment is None else _seconds(str((moment - now).total_seconds()))


def http_date(text: str | None) -> datetime | None:
    """Return the time of an HTTP date (``Date``, ``Retry-After``), or None if it is missing or implausible."""
    if not text or len(text) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return moment if moment.year in _YEARS else None
