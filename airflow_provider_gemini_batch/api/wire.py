"""Small parsers for what both services write in the same form: times, 64-bit numbers, states, errors."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time, timezone
from decimal import Decimal
from numbers import Integral
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobState, ServiceError
from airflow_provider_gemini_batch.api.requests.fields import camel
from airflow_provider_gemini_batch.api.service_words import job_words

if TYPE_CHECKING:
    from collections.abc import Mapping

_GRPC_NUMBERS = {
    "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9, "ABORTED": 10, "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}  # fmt: skip
_GRPC_FROM_HTTP = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 409: 10, 416: 11, 429: 8, 499: 1, 500: 13, 501: 12, 504: 4}
_UNAVAILABLE = 14
_MOST_CODE = 2**31 - 1
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?\Z")

# The Developer API says BATCH_STATE_*, Vertex AI says JOB_STATE_*, Google's guide mixes them: both prefixes are read.
_STATES = {state.value: state for state in JobState if state is not JobState.UNKNOWN}


def state_of(raw: str) -> JobState:
    """Return the state with this name, in upper or lower case; UNKNOWN for any other name."""
    # An SDK may have written JobState.JOB_STATE_PENDING.
    return _STATES.get(
        raw.upper().rpartition(".")[2].removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_"), JobState.UNKNOWN
    )


def time_of(value: object) -> datetime | None:
    """Return an RFC 3339 time, with nanoseconds cut to microseconds; None for anything else."""
    found = _TIME.match(value) if isinstance(value, str) else None
    if found is None:
        return None
    seconds, fraction, zone = found.groups()
    if not 1900 <= int(seconds[:4]) <= 9000:  # noqa: PLR2004  (near the ends of the calendar, adding a zone fails)
        return None
    micro = int((fraction or "0")[:6].ljust(6, "0"))
    try:
        moment = datetime.fromisoformat(seconds + ("+00:00" if zone in {None, "Z"} else zone))
        return moment.astimezone(timezone.utc).replace(microsecond=micro)
    except (ValueError, OverflowError):  # e.g. 32 May, or the year 1 in a zone east of Greenwich
        return None


def int_of(value: object) -> int | None:
    """Return a 64-bit number, which JSON carries as text or as a number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str, float)):
        return None
    try:
        number = int(value)
        return number if number == value or isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def error_of(value: object) -> ServiceError | None:
    """Return a job's error, with anything removed from its message that may repeat a row."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        value = {"message": value}
    # Of a job without an error, the code is 0.
    if not isinstance(value, dict) or not any(value.values()):
        return None
    code, odd = grpc_code(value)
    return ServiceError(code=code, message=job_words(str(value.get("message") or "")) + odd)


def grpc_code(fault: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return an error's gRPC number, given as such, by name or as HTTP status; and words for one beyond 32 bits."""
    number = fault.get("code")
    for name in (fault.get("status"), number):
        if isinstance(name, str) and name.upper() in _GRPC_NUMBERS:
            return _GRPC_NUMBERS[name.upper()], ""
    code = int_of(number)
    if code is None:
        return None, ""
    if abs(code) > _MOST_CODE:
        return None, f" (the code {str(code)[:40]} is beyond 32 bits)"
    # Any other 5xx, such as those of gateways, means that the service is not available.
    return _GRPC_FROM_HTTP.get(code, _UNAVAILABLE if code in range(500, 600) else code), ""


def json_bytes(value: Any) -> bytes:
    """Return JSON as raw UTF-8, without a byte order mark or escapes, which batches reportedly corrupt.

    A surrogate pair becomes the character that it stands for.

    :raises InputError: there is a lone surrogate, a number that is not finite, or a value without a form in JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return whole_characters(text).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # The cause may show a value of a row.
        raise InputError(f"this cannot be written as JSON in UTF-8: it holds {what_json_lacks(error)}") from None


def what_json_lacks(error: Exception) -> str:
    """Return what kept a value from being written as JSON, in words that show nothing of it."""
    said = str(error)
    if isinstance(error, UnicodeError) or "surrogates not allowed" in said:
        return "half of a surrogate pair (broken characters)"
    if isinstance(error, RecursionError) or "depth" in said or "recursion" in said or "ircular" in said:
        return "lists or objects that are nested too deeply, or in themselves"
    if "not JSON compliant" in said:
        return "a number that is not finite (NaN or Infinity)"
    return f"a value that JSON does not have ({type(error).__name__})"


def whole_characters(text: str) -> str:
    """Return text with surrogate pairs joined. Raises ValueError for a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    return text


def shown_text(value: object) -> str:
    """Return foreign text with what databases refuse (U+0000, lone surrogates) replaced; empty for anything else."""
    text = value if isinstance(value, str) else ""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def key_text(value: object) -> str | None:
    """Return a scalar value as the text of a key, a date or time in ISO 8601; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Integral, float, Decimal, UUID)):
        return str(value)
    return value.isoformat() if isinstance(value, (date, time)) else None


# The names within these are the author's.
_OF_AUTHORS = frozenset({"labels", "userMetadata", "user_metadata"})


def in_camel_case(value: Any) -> Any:
    """Return an object with names in lowerCamel, as the services write them; some gateways write snake_case.

    Lists stay as they are: those of a job hold responses, whose names are read elsewhere.
    """
    if not isinstance(value, dict):
        return value
    made = {name: inner if name in _OF_AUTHORS else in_camel_case(inner) for name, inner in value.items()}
    for name in [name for name in made if "_" in name]:
        made.setdefault(camel(name), made.pop(name))
    return made


def dict_at(value: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Return the object at a path of members, or an empty one."""
    here: Any = value
    for step in path:
        here = here.get(step) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else {}


def text_at(value: Mapping[str, Any], *path: str) -> str | None:
    """Return the text at a path of members; None if it is missing or empty."""
    here = dict_at(value, *path[:-1]).get(path[-1])
    return here if isinstance(here, str) and here else None
