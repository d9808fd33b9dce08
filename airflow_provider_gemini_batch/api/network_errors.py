"""What went wrong below HTTP: whether a request may have left, and a few words on why.

Messages of libraries are never shown: they hold complete URLs.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_CONNECT = 10.0
"""Seconds that connecting may take."""

# Connecting failed; the class names are urllib3's, found in the chain of causes.
_NEVER_CONNECTED = frozenset(
    {"NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "ProxyError", "InvalidProxyURL"}
)


def may_have_been_sent(error: BaseException) -> bool:
    """Return whether a request without a body may have reached the service despite this error."""
    return not any(
        type(link).__name__ in _NEVER_CONNECTED or isinstance(link, ssl.SSLCertVerificationError)
        for link in _chain(error)
    )


def cause_of(error: BaseException, seconds: float) -> str:
    """Return in a few words what went wrong; ``seconds`` is the time-out of a read."""
    links = list(_chain(error))
    names = {type(link).__name__ for link in links}
    if "NameResolutionError" in names or "gaierror" in names:
        return "the host name is not known"
    if "ProxyError" in names:
        return "the proxy did not let it through"
    if "ConnectTimeoutError" in names:
        return f"no connection within {min(LONGEST_CONNECT, seconds):g} s"
    if any(isinstance(link, ssl.SSLError) for link in links):
        codes = [str(link.reason) for link in links if isinstance(link, ssl.SSLError) and link.reason]
        return f"TLS: {codes[0] if codes else 'handshake failed'}"
    if "ConnectionRefusedError" in names:
        return "connection refused"
    if names & {"ReadTimeoutError", "ReadTimeout", "TimeoutError"}:
        return f"no response within {seconds:g} s"
    if names & {"ConnectionResetError", "RemoteDisconnected", "BrokenPipeError", "IncompleteRead", "ProtocolError"}:
        return "the connection was cut"
    return type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, those that it wraps and those that caused it."""
    todo, seen = [error], set[int]()
    while todo:
        link = todo.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        wrapped = [part for part in (*link.args, getattr(link, "reason", None)) if isinstance(part, BaseException)]
        todo += [part for part in (*wrapped, link.__cause__, link.__context__) if part is not None]
