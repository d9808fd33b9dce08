"""The only place that sends: pooled connections, time-outs, retries of what is safe to repeat.

What "sent" means here: the service cannot act on an HTTP request with a body before it has the body. :class:`_Body`
notes when the body is first read. If sending fails before that, the service has certainly not acted.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from random import random
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from msgspec import DecodeError, Raw
from msgspec.json import decode
from urllib3.exceptions import HTTPError

from airflow_provider_gemini_batch.api.errors import (
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    ResponseTooLarge,
    ServiceUnavailable,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.network_errors import LONGEST_CONNECT, cause_of, may_have_been_sent
from airflow_provider_gemini_batch.api.responses.lines import unzipped, without_lists
from airflow_provider_gemini_batch.api.responses.reading import read_json
from airflow_provider_gemini_batch.api.responses.refusal import THE_CONNECTION, error_from_response, http_date
from airflow_provider_gemini_batch.api.sessions import new_session, response_within
from airflow_provider_gemini_batch.api.urls import is_host, origin
from airflow_provider_gemini_batch.api.wire import error_of, in_camel_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow_provider_gemini_batch.api.credentials import Credential

T = TypeVar("T")
log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_NETWORK = (requests.RequestException, HTTPError, HTTPException, OSError)
# A longer wait is up to the caller, which may prefer to free its worker.
_LONGEST_RETRY_AFTER = 30.0
_LONGEST_ERROR_BODY = 1 << 20
# More than a page of a thousand jobs, or a job with its inline responses, needs; see Call.
MAX_BYTES: Final = 32 * 2**20
MAX_VALUES: Final = 500_000
# The limit when only some fields are requested: many polls run at a time, in a process that many tasks share.
MAX_POLL_BYTES: Final = 4 * 2**20
_PIECE = 1 << 16
_TEXT = re.compile(rb'"[^"]*"')
_LONGEST_TIMEOUT = 86400.0
# Reading a whole response may take so many times the time-out of a single read.
_READS = 2.0
_REDIRECTS = frozenset({
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
})  # fmt: skip
_MOST_REDIRECTS = 5
_SUCCESS = 2  # of 2xx


class Retry(Enum):
    """When a call may be sent again."""

    SAFE = "on any retryable error"
    UNSENT = "only when it surely was not sent"
    NEVER = "never"


@dataclass(frozen=True)
class FilePart:
    """A range of a seekable binary file as the body of a request; read while it is sent."""

    file: BinaryIO
    offset: int
    length: int


@dataclass(frozen=True)
class Call:
    """One request, described.

    :param timeout_factor: multiplies the read time-out.
    :param anonymous: send no credentials.
    :param max_bytes: the most bytes of a whole response, unpacked.
    :param max_values: the most values in its JSON: each takes about a hundred bytes of memory, however short it is.
    :param without: begins lists that are left empty, whatever they hold; see :func:`.without_lists`.
    """

    operation: str
    method: str
    url: str = field(repr=False)
    subject: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart | None = field(default=None, repr=False)
    retry: Retry = Retry.SAFE
    timeout_factor: float = 1.0
    anonymous: bool = False
    max_bytes: int = MAX_BYTES
    max_values: int = MAX_VALUES
    without: re.Pattern[bytes] | None = None

    @property
    def description(self) -> str:
        """Operation, host and subject, for messages."""
        about = f" of {self.subject}" if self.subject else ""
        return f"{self.operation}{about} on {urlsplit(self.url).netloc.rpartition('@')[2]}"


def _values(body: bytes) -> int:
    """Return how many values JSON has at most, by its commas and brackets."""
    return body.count(b",") + body.count(b"{") + body.count(b"[")


def _without_texts(body: bytes) -> bytes:
    """Return JSON without its texts, which may be full of commas."""
    return _TEXT.sub(b"", body.replace(rb"\\", b"").replace(rb"\"", b""))


@dataclass(frozen=True)
class WholeResponse:
    """A response with a 2xx status, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    description: str = ""
    max_values: int = MAX_VALUES

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises :class:`UnexpectedResponse` if it is not one."""
        self._check_values()
        # The body may hold responses that were paid for, so it is read as leniently as a file of them.
        value = in_camel_case(read_json(self.body))
        if value is None:
            start = "HTML" if self.body.lstrip()[:1] == b"<" else f"{len(self.body)} bytes"
            raise UnexpectedResponse(f"{self.description}: {self.status}, but the response is not JSON ({start})")
        if not isinstance(value, dict):
            raise UnexpectedResponse(f"{self.description}: {self.status}, but the response is not a JSON object")
        if value.keys() == {"error"}:
            raise self._holds_error(value)
        return value

    def _check_values(self) -> None:
        """Count values before they are parsed: "[]," takes three bytes of text, but a hundred in memory."""
        if _values(self.body) > self.max_values and _values(_without_texts(self.body)) > self.max_values:
            raise ResponseTooLarge(f"{self.description}: the response holds more than {self.max_values} values")

    def page(self, member: str) -> tuple[Iterable[dict[str, Any]], str | None]:
        """Return the objects on a page of a list and the token of the next page; both are left out when empty.

        The objects come one by one, each parsed in its turn: a hundred jobs at once are enough objects to set off a
        garbage collection, which stops all threads of a triggerer.

        :raises UnexpectedResponse: the response is something else. It must not pass for an empty page: a job that
            exists would be created again.
        :raises ServiceUnavailable: the page may lack what the service did not reach.
        """
        self._check_values()
        try:
            page = in_camel_case(decode(self.body, type=dict[str, Raw]))
            found: Any = decode(page.pop(member), type=list[Raw])
            page = {name: read_json(bytes(value)) for name, value in page.items()}
        except (DecodeError, UnicodeDecodeError, RecursionError, KeyError):
            # A page without entries, or one that only the lenient parser can read.
            page = self.json()
            if page and not page.keys() & {member, "nextPageToken", "unreachable"}:
                raise self._no_page() from None
            found = page.get(member) or []
        token = page.get("nextPageToken") or ""
        if not isinstance(found, list) or type(token) not in {str, int}:
            raise self._no_page()
        if error_of(page.get("error")) is not None:
            raise self._holds_error(page)
        if page.get("unreachable"):
            what = f"{self.description}: {self.status}, but the page lacks what the service could not reach"
            raise ServiceUnavailable(what, http_status=self.status)
        return self._entries(found), str(token) or None

    def _entries(self, found: Iterable[Any]) -> Iterator[dict[str, Any]]:
        for item in found:
            value = read_json(bytes(item)) if isinstance(item, Raw) else item
            if isinstance(value, dict):
                yield in_camel_case(value)
            elif value is not None or (isinstance(item, Raw) and bytes(item) != b"null"):
                raise self._no_page()

    def _no_page(self) -> UnexpectedResponse:
        return UnexpectedResponse(f"{self.description}: {self.status}, but the response is not a page of a list")

    def check_accepted(self) -> None:
        """Raise UnexpectedResponse if a 2xx to a cancel or delete holds an error or is a web page, as of a gateway."""
        value = read_json(self.body)
        if isinstance(value, dict) and error_of(value.get("error")) is not None:
            raise self._holds_error(value)
        if self.body.lstrip()[:1] == b"<":
            self.json()

    def _holds_error(self, value: dict[str, Any]) -> UnexpectedResponse:
        error = error_of(value["error"])
        words = "" if error is None else f": {error.message or f'code {error.code}'}"
        return UnexpectedResponse(f"{self.description}: {self.status}, but the response is an error{words}")

    @cached_property  # used a hundred times for one page of a list
    def date(self) -> datetime | None:
        """The service's time, from the ``Date`` header."""
        return http_date(self.headers.get("Date"))


class _Body:
    """The body of one attempt; remembers whether any of it was read."""

    def __init__(self, source: bytes | FilePart) -> None:
        self._source = source
        self._length = len(source) if isinstance(source, bytes) else source.length
        self._done = 0
        self.touched = False
        if isinstance(source, FilePart):
            source.file.seek(source.offset)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(1 << 16):
            yield chunk

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        self.touched = True
        left = self._length - self._done
        size = left if size < 0 else min(size, left)
        if isinstance(self._source, bytes):
            chunk = self._source[self._done : self._done + size]
        else:
            chunk = self._source.file.read(size)
        self._done += len(chunk)
        return chunk


class Transport:
    """Sends calls with one credential over a pool of connections; safe for use from several threads.

    :param timeout: seconds to wait for the next bytes of a response; at most 10 for connecting.
    :param attempts: how often a call is sent at most.
    :param loopback: the peer is on this machine: use no proxy, nor anything else from the environment.
    :param owner: what holds the credentials, for advice: ``connection 'x'``.
    """

    def __init__(
        self,
        credential: Credential,
        *,
        timeout: float = 60.0,
        attempts: int = 4,
        loopback: bool = False,
        owner: str = THE_CONNECTION,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < timeout <= _LONGEST_TIMEOUT:  # a socket takes no number of seconds that is far beyond
            raise ConfigurationError(f"timeout must be above 0 and at most 86400 seconds, not {timeout:g}")
        self.attempts = attempts
        self.sleep = sleep
        self._credential = credential
        self._timeout = timeout
        self._owner = owner
        self._session = new_session(loopback=loopback)
        self._closing = threading.Lock()
        self._takes_masks = True

    def close(self) -> None:
        """Close the pooled connections."""
        with self._closing:
            self._session.close()
            self._credential.close()

    def send(self, call: Call) -> WholeResponse:
        """Send a call and return its 2xx response; anything else is raised as one of our errors."""
        errors: list[GeminiBatchError] = []
        try:
            return self.repeat(lambda: self._once(call), retry=call.retry, errors=errors)
        except NotFound:
            if call.method == "DELETE" and any(error.may_have_acted for error in errors):
                return WholeResponse(200, {}, b"{}", call.description)  # an earlier attempt had deleted it
            raise

    def send_partial(self, call: Call, **mask: str) -> WholeResponse:
        """Send a GET that asks for some fields of the response only: ``mask`` is the parameter that names them.

        Not all that the services do with it is documented, so after a 400 the whole response is asked for from then on.
        """
        if not self._takes_masks:
            return self.send(call)
        try:
            return self.send(replace(call, params={**call.params, **mask}, max_bytes=MAX_POLL_BYTES))
        except ApiError as error:
            if type(error) is not ApiError or error.http_status != HTTPStatus.BAD_REQUEST:
                raise
        response = self.send(call)
        self._takes_masks = False
        log.info("The service refused a partial response; whole ones are asked for from now on.")
        return response

    def repeat(
        self, action: Callable[[], T], *, retry: Retry = Retry.SAFE, errors: list[GeminiBatchError] | None = None
    ) -> T:
        """Return what ``action`` returns, repeating it after errors while that may help; ``errors`` collects them."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return action()
            except GeminiBatchError as error:
                if attempt >= self.attempts or not may_repeat(retry, error):
                    raise
                if errors is not None:
                    errors.append(error)
                pause = self.pause(attempt - 1, error)
            self.sleep(pause)

    def pause(self, attempt: int, error: GeminiBatchError | None = None) -> float:
        """Return the seconds to wait after a failed attempt (from 0): growing, with jitter, or as the service asks."""
        wanted = error.retry_after if isinstance(error, QuotaExceeded) else None
        grown: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
        return max(wanted or 0.0, grown * (0.5 + random() / 2))  # noqa: S311  no secret

    def _once(self, call: Call) -> WholeResponse:
        with self.open_response(call) as response:
            body = self._read(call, response)
        return WholeResponse(response.status_code, response.headers, body, call.description, call.max_values)

    def open_response(self, call: Call) -> requests.Response:
        """Return the 2xx response to one call, with its body still to be read; the caller closes it.

        For a GET, redirects within the same origin are followed, as Google's downloads need. Other redirects are
        refused, since the credentials are sent along.
        """
        response = self._send_authenticated(call)
        for _ in range(_MOST_REDIRECTS):
            if not _is_redirect(call, response):
                break
            response.close()
            url = _same_origin(call, response)
            response = self._send_authenticated(replace(call, url=url, params={}))
        if response.status_code // 100 == _SUCCESS:
            return response
        with response:
            if _is_redirect(call, response):
                raise UnexpectedResponse(f"{call.description} was redirected more than {_MOST_REDIRECTS} times.")
            body = self._read(call, response, start=_LONGEST_ERROR_BODY)
        what = f"{call.description} was refused"
        raise error_from_response(
            response.status_code,
            response.headers,
            body,
            what=what,
            secrets=self._credential.secrets(),
            owner=self._owner,
        ) from None

    def _send_authenticated(self, call: Call) -> requests.Response:
        """Return the response to one call; if the credentials are refused, send it again with fresh ones."""
        response = self._dispatch(call)
        if (
            response.status_code == HTTPStatus.UNAUTHORIZED
            and not call.anonymous
            and self._credential.renew(str(response.request.headers.get("Authorization", "")))
        ):
            response.close()
            response = self._dispatch(call)
        return response

    def _dispatch(self, call: Call) -> requests.Response:
        """Send once and return the response; errors of requests, urllib3 and token endpoints become ours."""
        headers = (
            dict(call.headers) if call.anonymous else {**call.headers, **self._credential.headers(call.description)}
        )
        body = None if call.body is None else _Body(call.body)
        # requests treats a body of length 0 as one of unknown length.
        data = body if body is not None and len(body) else None
        seconds = self._timeout * call.timeout_factor
        try:
            with response_within(seconds * _READS):
                return self._session.request(
                    call.method,
                    call.url,
                    params=dict(call.params),
                    data=data,
                    headers=headers,
                    timeout=(min(LONGEST_CONNECT, self._timeout), seconds),
                    allow_redirects=False,
                    stream=True,
                )
        except (*_NETWORK, ValueError) as error:  # ValueError: an address or a header that a library cannot read
            sent = data.touched if data is not None else may_have_been_sent(error)
            raise self._failure(call, error, sent=sent) from (None if call.anonymous else error)

    def _read(self, call: Call, response: requests.Response, start: int | None = None) -> bytes:
        """Return the whole body, or its first ``start`` bytes."""
        pieces: list[bytes] = []
        content: Iterable[bytes] = response.iter_content(_PIECE)
        if call.without is not None:
            content = without_lists(content, call.without)
        size = 0
        try:
            for piece in content:
                pieces.append(piece)
                size += len(piece)
                if start is not None and size >= start:
                    break
                if start is None and size > call.max_bytes:
                    raise ResponseTooLarge(
                        f"{call.description}: the response is larger than {call.max_bytes / 2**20:g} MiB; "
                        "it was not read"
                    )
        except (*_NETWORK, ValueError) as error:
            raise self._failure(call, error, sent=True) from (None if call.anonymous else error)
        return b"".join(pieces)[:start]

    def chunks(self, call: Call, response: requests.Response, size: int) -> Iterator[bytes]:
        """Yield the body of an open response in pieces up to this size. If it breaks off, TransportError is raised."""
        try:
            if response.headers.get("Content-Encoding", "").lower() == "gzip":
                yield from unzipped(response.raw.stream(size, decode_content=False))
                return
            if response.headers.get("Content-Encoding") or not hasattr(response.raw, "read1"):
                yield from response.iter_content(size)
                return
            # read1 returns what has arrived; read would discard a partial piece when the connection breaks.
            while piece := response.raw.read1(size):
                yield piece
        except UnexpectedResponse:  # packed data ended early, which urllib3 would not notice
            raise TransportError(f"{call.description}: the download ended early", sent=True) from None
        except (*_NETWORK, ValueError) as error:
            raise self._failure(call, error, sent=True) from error

    def _failure(self, call: Call, error: Exception, *, sent: bool) -> TransportError:
        acted = "the service may have received it" if sent else "nothing was sent"
        return TransportError(
            f"{call.description} failed: {cause_of(error, self._timeout * call.timeout_factor)}; {acted}", sent=sent
        )


def may_repeat(retry: Retry, error: GeminiBatchError) -> bool:
    """Return whether a call may be sent again, here and soon, after an error."""
    if retry is Retry.UNSENT:
        return isinstance(error, TransportError) and not error.sent
    if isinstance(error, QuotaExceeded) and (error.retry_after or 0.0) > _LONGEST_RETRY_AFTER:
        return False
    return retry is Retry.SAFE and error.retryable


def _is_redirect(call: Call, response: requests.Response) -> bool:
    """Return whether a response redirects a GET. The 308 of a resumable upload does not: it names no address."""
    return call.method == "GET" and response.status_code in _REDIRECTS and "Location" in response.headers


def _same_origin(call: Call, response: requests.Response) -> str:
    """Return where a redirect leads. Raises UnexpectedResponse, naming only the host, if it leaves the origin."""
    try:
        to = urlsplit(urljoin(call.url, response.headers["Location"]))
        there = origin(to.geturl())
    except ValueError:
        raise UnexpectedResponse(f"{call.description} was redirected to an address that cannot be read.") from None
    if there != origin(call.url):
        host = there[1] if is_host(there[1]) else "another host"
        raise UnexpectedResponse(
            f"{call.description} was redirected to {host} ({there[0]}, port {there[2]}), which would get the "
            "credentials: redirects are followed to the same scheme, host and port only."
        )
    here = urlsplit(call.url)
    return urlunsplit((here.scheme, here.netloc, to.path, to.query, ""))
