"""The one place that sends: requests over pooled connections, time-outs, retries of what is safe to repeat.

What "sent" means here: an HTTP request with a body cannot be acted on before its body has gone out, so the body is
handed over through :class:`_Body`, which notes its first read. When sending fails and no byte of the body was asked
for, the service has surely not acted, whatever the reason was.
"""

from __future__ import annotations

import json
import random as random_module
import re
import ssl
import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from airflow_provider_gemini_batch import __version__
from airflow_provider_gemini_batch.api.errors import (
    ConfigurationError,
    GeminiBatchError,
    NotFound,
    QuotaExceeded,
    TransportError,
    UnexpectedAnswer,
)
from airflow_provider_gemini_batch.api.responses.refusal import http_date, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from airflow_provider_gemini_batch.api.credentials import Credential

T = TypeVar("T")

_LONGEST_CONNECT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
# A longer wait is the caller's business: a worker may rather be given back.
_LONGEST_RETRY_AFTER = 30.0
_LONGEST_ERROR_BODY = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_PORTS = {"https": 443, "http": 80}
# Connecting failed; the class names are urllib3's, found in the chain of causes.
_NEVER_CONNECTED = frozenset(
    {"NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "ProxyError", "InvalidProxyURL"}
)


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
    """One request, described. ``patience`` multiplies the read time-out; ``anonymous`` sends no credentials."""

    operation: str
    method: str
    url: str = field(repr=False)
    subject: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart | None = field(default=None, repr=False)
    retry: Retry = Retry.SAFE
    patience: float = 1.0
    anonymous: bool = False

    @property
    def words(self) -> str:
        """Name operation, host and subject, for messages."""
        about = f" of {self.subject}" if self.subject else ""
        return f"{self.operation}{about} on {urlsplit(self.url).netloc.rpartition('@')[2]}"


@dataclass(frozen=True)
class Answer:
    """What came back with a 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    words: str = ""

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object; :class:`UnexpectedAnswer` when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            start = "HTML" if self.body.lstrip()[:1] == b"<" else f"{len(self.body)} bytes"
            # The cause would show the body, which may hold answers.
            text = f"{self.words}: {self.status}, but the answer is no JSON ({start}, {type(error).__name__})"
            raise UnexpectedAnswer(text) from None
        if not isinstance(value, dict):
            raise UnexpectedAnswer(f"{self.words}: {self.status}, but the answer is no JSON object")
        return value

    @cached_property  # one page of a list asks for it a hundred times
    def date(self) -> datetime | None:
        """Give the service's clock."""
        return http_date(self.headers.get("Date"))


class _Body:
    """The body of one attempt; remembers whether any of it was asked for."""

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
        """Give the next bytes."""
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

    :param timeout: seconds to wait for an answer's next bytes; connecting waits at most 10 s of them.
    :param attempts: how often a call is sent at most.
    :param loopback: no proxy and nothing else from the environment: the peer is on this machine.
    """

    def __init__(
        self,
        credential: Credential,
        *,
        timeout: float = 60.0,
        pool_size: int = 8,
        attempts: int = 4,
        loopback: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        if timeout <= 0:
            raise ConfigurationError(f"timeout must be above 0 seconds, not {timeout:g}")
        self.attempts = attempts
        self.sleep = sleep
        self._credential = credential
        self._timeout = timeout
        self._random = random
        self._session = new_session(pool_size=pool_size, loopback=loopback)
        self._closing = threading.Lock()

    def close(self) -> None:
        """Close the pooled connections."""
        with self._closing:
            self._session.close()
            self._credential.close()

    def send(self, call: Call) -> Answer:
        """Send a call and give its 2xx; anything else is raised as one of our errors."""
        troubles: list[GeminiBatchError] = []
        try:
            return self.repeated(lambda: self._once(call), retry=call.retry, troubles=troubles)
        except NotFound:
            if call.method == "DELETE" and any(trouble.maybe_acted for trouble in troubles):
                return Answer(200, {}, b"{}", call.words)  # an earlier attempt had deleted it
            raise

    def repeated(
        self, action: Callable[[], T], *, retry: Retry = Retry.SAFE, troubles: list[GeminiBatchError] | None = None
    ) -> T:
        """Do something, and do it again after an error while that may help; ``troubles`` collects those errors."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return action()
            except GeminiBatchError as error:
                if attempt >= self.attempts or not _may_repeat(retry, error):
                    raise
                if troubles is not None:
                    troubles.append(error)
                pause = self.pause(attempt - 1, error)
            self.sleep(pause)

    def pause(self, attempt: int, error: GeminiBatchError | None = None) -> float:
        """Seconds to wait after a failed attempt (numbered from 0): growing, with jitter, or what the service asks."""
        wanted = error.retry_after if isinstance(error, QuotaExceeded) else None
        grown: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
        return max(wanted or 0.0, grown * (0.5 + self._random() / 2))

    def _once(self, call: Call) -> Answer:
        with self.opened(call) as response:
            body = self._read(call, response)
        return Answer(response.status_code, response.headers, body, call.words)

    def opened(self, call: Call) -> requests.Response:
        """Return the 2xx answer to one call, with its body still to be read; the caller closes it.

        A GET is followed to other addresses of the same origin, as Google's downloads ask for, and to no other origin:
        the credentials go along.
        """
        response = self._answered(call)
        for _ in range(_MOST_REDIRECTS):
            if not _leads_on(call, response):
                break
            response.close()
            url = _same_origin(call, response)
            response = self._answered(replace(call, url=url, params={}))
        if 200 <= response.status_code < 300:  # noqa: PLR2004
            return response
        with response:
            if _leads_on(call, response):
                raise UnexpectedAnswer(f"{call.words} was redirected more than {_MOST_REDIRECTS} times.")
            body = self._read(call, response, limit=_LONGEST_ERROR_BODY)
        what = f"{call.words} was refused"
        raise refusal(
            response.status_code, response.headers, body, what=what, secrets=self._credential.secrets()
        ) from None

    def _answered(self, call: Call) -> requests.Response:
        """Return the answer to one call, sent again with fresh credentials when those were refused."""
        response = self._dispatch(call)
        if response.status_code == 401 and not call.anonymous and self._credential.renew(_sent_with(response)):  # noqa: PLR2004
            response.close()
            response = self._dispatch(call)
        return response

    def _dispatch(self, call: Call) -> requests.Response:
        """Send once; whatever requests, urllib3 and the token endpoint can raise leaves as one of our errors."""
        headers = dict(call.headers) if call.anonymous else {**call.headers, **self._credential.headers(call.words)}
        body = None if call.body is None else _Body(call.body)
        # requests takes a body of length 0 for one of unknown length.
        data = body if body is not None and len(body) else None
        try:
            return self._session.request(
                call.method,
                call.url,
                params=dict(call.params),
                data=data,
                headers=headers,
                timeout=(min(_LONGEST_CONNECT, self._timeout), self._timeout * call.patience),
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, OSError) as error:
            raise self._failure(call, error, sent=_sent(error, data)) from (None if call.anonymous else error)

    def _read(self, call: Call, response: requests.Response, limit: int | None = None) -> bytes:
        try:
            if limit is None:
                return response.content
            return next(response.iter_content(limit), b"")
        except (requests.RequestException, OSError) as error:
            raise self._failure(call, error, sent=True) from (None if call.anonymous else error)

    def chunks(self, call: Call, response: requests.Response, size: int) -> Iterator[bytes]:
        """Give the body of an opened response as it comes, in pieces up to this size; a cut is a TransportError."""
        try:
            if response.headers.get("Content-Encoding") or not hasattr(response.raw, "read1"):
                yield from response.iter_content(size)
                return
            # read1 hands over what has come; read would throw away the part of a piece that came before a cut.
            while piece := response.raw.read1(size):
                yield piece
        except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
            raise self._failure(call, error, sent=True) from error

    def _failure(self, call: Call, error: Exception, *, sent: bool) -> TransportError:
        acted = "the service may have received it" if sent else "nothing was sent"
        return TransportError(
            f"{call.words} failed: {_cause(error, self._timeout * call.patience)}; {acted}", sent=sent
        )


class _Session(requests.Session):
    """A session that leaves redirects to us: requests reads their whole body, and raises on an odd address."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: no answer leads anywhere by itself."""


def new_session(*, pool_size: int = 8, loopback: bool = False) -> requests.Session:
    """Make a session that several threads may use: no cookies, no .netrc, no retries of its own.

    Proxies and private CAs come from the environment unless the peer is on this machine.
    """
    session = _Session()
    session.trust_env = not loopback
    session.auth = _no_netrc
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"airflow-provider-gemini-batch/{__version__}"
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting a .netrc entry in the place of our credentials."""
    return request


def _may_repeat(retry: Retry, error: GeminiBatchError) -> bool:
    if retry is Retry.UNSENT:
        return isinstance(error, TransportError) and not error.sent
    if isinstance(error, QuotaExceeded) and (error.retry_after or 0.0) > _LONGEST_RETRY_AFTER:
        return False
    return retry is Retry.SAFE and error.retryable


def _leads_on(call: Call, response: requests.Response) -> bool:
    """Return whether an answer sends us elsewhere. The 308 of a resumable upload names no place, and is no GET's."""
    return call.method == "GET" and response.status_code in _REDIRECTS and "Location" in response.headers


def _same_origin(call: Call, response: requests.Response) -> str:
    """Return where a redirect leads; UnexpectedAnswer, which names the host alone, when it leaves the origin."""
    try:
        to = urlsplit(urljoin(call.url, response.headers["Location"]))
        there = origin(to.geturl())
    except ValueError:
        raise UnexpectedAnswer(f"{call.words} was redirected to an address that cannot be read.") from None
    if there != origin(call.url):
        host = there[1] if _HOST.match(there[1]) else "another host"
        raise UnexpectedAnswer(
            f"{call.words} was redirected to {host} ({there[0]}, port {there[2]}), which would get the credentials: "
            "redirects are followed to the same scheme, host and port only."
        )
    here = urlsplit(call.url)
    return urlunsplit((here.scheme, here.netloc, to.path, to.query, ""))


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL; ValueError when it has none that can be read, or names a user."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _sent_with(response: requests.Response) -> str:
    return str(response.request.headers.get("Authorization", ""))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk an exception, what it wraps and what caused it."""
    todo, seen = [error], set[int]()
    while todo:
        link = todo.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        wrapped = [part for part in (*link.args, getattr(link, "reason", None)) if isinstance(part, BaseException)]
        todo += [part for part in (*wrapped, link.__cause__, link.__context__) if part is not None]


def _sent(error: BaseException, body: _Body | None) -> bool:
    """Tell whether the service may have acted on a request that failed this way."""
    if body is not None:
        return body.touched
    return not any(
        type(link).__name__ in _NEVER_CONNECTED or isinstance(link, ssl.SSLCertVerificationError)
        for link in _chain(error)
    )


def _cause(error: BaseException, seconds: float) -> str:
    """Say in a few words what went wrong. Library texts are not used: they show whole addresses."""
    links = list(_chain(error))
    names = {type(link).__name__ for link in links}
    if "NameResolutionError" in names or "gaierror" in names:
        return "the host name is not known"
    if "ProxyError" in names:
        return "the proxy did not let it through"
    if "ConnectTimeoutError" in names:
        return f"no connection within {min(_LONGEST_CONNECT, seconds):g} s"
    if any(isinstance(link, ssl.SSLError) for link in links):
        codes = [str(link.reason) for link in links if isinstance(link, ssl.SSLError) and link.reason]
        return f"TLS: {codes[0] if codes else 'handshake failed'}"
    if "ConnectionRefusedError" in names:
        return "connection refused"
    if names & {"ReadTimeoutError", "ReadTimeout", "TimeoutError"}:
        return f"no answer within {seconds:g} s"
    if names & {"ConnectionResetError", "RemoteDisconnected", "BrokenPipeError", "IncompleteRead", "ProtocolError"}:
        return "the connection was cut"
    return type(error).__name__


_HOST = re.compile(r"[A-Za-z0-9.-]+\Z|\[[0-9A-Fa-f:.]+\]\Z")


def checked_base_url(value: str) -> str:
    """Give a base URL without trailing slash, or say what is wrong with it.

    :raises ConfigurationError: no http(s) URL, with user, query or fragment, or http:// to a host that is not loopback:
        the credentials would travel bare.
    """
    try:
        parts = urlsplit(value.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    shape = "https://host[:port][/path] (http:// only to this machine)"
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"The base URL must look like {shape}")
    if not _HOST.match(host if ":" not in host else f"[{host}]"):
        raise ConfigurationError(f"The base URL must look like {shape}; its host name is not valid")
    if parts.scheme == "http" and not is_loopback(host):
        where = f"{host}:{port}" if port else host
        raise ConfigurationError(
            f"http:// to {where} would send the credentials bare over the network: use https:// "
            "(http:// is for this machine only)"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_url(url: str) -> bool:
    """Tell whether a URL leads to this machine over http, where neither proxy nor private CA has a say."""
    parts = urlsplit(url)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


def segment(value: str) -> str:
    """Quote one segment of a path."""
    return quote(value, safe="")


__all__ = [
    "Answer",
    "Call",
    "FilePart",
    "Retry",
    "Transport",
    "checked_base_url",
    "is_local_url",
    "is_loopback",
    "new_session",
    "segment",
]
