"""Connections: pooled sessions without cookies, .netrc, or their own retries and redirects, and with a time limit.

requests applies its time-out to each read, so a peer that sends a byte now and then could hold a caller for ever. So
reading a whole response has a limit: a fixed time, and more for each byte that arrived.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_gemini_batch import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

# A slower connection than this cannot be distinguished from a peer that stalls on purpose.
_LEAST_BYTES_PER_SECOND = 16 * 1024
_ALLOWANCE = 120.0


class _Pace(threading.local):
    """Per thread: how many seconds a response may take, not counting its bytes, and whether the call is ours."""

    allowance = _ALLOWANCE
    ours = False


_pace = _Pace()


@contextmanager
def response_within(seconds: float) -> Iterator[None]:
    """Limit all reads of a response that begins in this block to so many seconds, plus some for each byte."""
    before = _pace.allowance, _pace.ours
    _pace.allowance, _pace.ours = seconds, True
    try:
        yield
    finally:
        _pace.allowance, _pace.ours = before


class _WithoutQueries(logging.Filter):
    """Keeps the queries of our calls out of urllib3's log: an upload session's address gives the right to write."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _pace.ours and isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] if isinstance(arg, str) else type(arg).__name__ if _is_error(arg) else arg
                for arg in record.args
            )
            record.exc_info = None
        return True


def _is_error(value: object) -> bool:
    return isinstance(value, BaseException)


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_WithoutQueries())


class _PacedReader(io.RawIOBase):
    """The reading end of a socket; adds up the time spent waiting for bytes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, allowance: float) -> None:
        self._raw = raw
        self._sock = sock
        self._left = allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._left <= 0:
            raise TimeoutError("the response does not move on")
        usual = self._sock.gettimeout()
        began = time.monotonic()
        try:
            self._sock.settimeout(self._left if usual is None else min(usual, self._left))
            count = self._raw.readinto(buffer)
        finally:
            self._left -= time.monotonic() - began
            # Restore it: the connection goes back to the pool.
            self._sock.settimeout(usual)
        self._left += (count or 0) / _LEAST_BYTES_PER_SECOND
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_PacedReader(raw, sock, _pace.allowance))

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line. An interim one (103) passes for 100, the only one that http.client reads past."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, HTTPStatus.CONTINUE if status // 100 == 1 else status, reason


class _Http(HTTPConnection):
    response_class = _PacedResponse


class _Https(HTTPSConnection):
    response_class = _PacedResponse


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager


class _Session(requests.Session):
    """A session that leaves redirects to us: requests would read their whole body, and raise on an odd address."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, so that requests never follows a redirect."""


def new_session(*, pool_size: int = 8, loopback: bool = False) -> requests.Session:
    """Return a session that several threads may use.

    Proxies and private CAs come from the environment unless the peer is on this machine.
    """
    session = _Session()
    session.trust_env = not loopback
    session.auth = _no_netrc
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"airflow-provider-gemini-batch/{__version__}"
    session.headers["Accept-Encoding"] = "gzip"
    adapter = _Adapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from replacing our credentials by a .netrc entry."""
    return request
