"""URLs: their parts, and which ones credentials may be sent to.

Credentials, upload sessions and rows are sent over https, or over http to this machine only.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from airflow_provider_gemini_batch.api.errors import ConfigurationError

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}\Z|\[[0-9A-Fa-f:.]{2,45}\]\Z")
_PORTS = {"https": 443, "http": 80}


def checked_base_url(value: str) -> str:
    """Return a base URL without its trailing slash.

    :raises ConfigurationError: not an http(s) URL, or one with user, query or fragment, or http:// to a host that is
        not loopback: the credentials would be sent unencrypted.
    """
    shape = "https://host[:port][/path] (http:// only to this machine)"
    try:
        parts = urlsplit(value.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"The base URL must look like {shape}") from None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"The base URL must look like {shape}")
    if not is_host(host):
        raise ConfigurationError(f"The base URL must look like {shape}; its host name is not valid")
    if parts.scheme == "http" and not is_loopback(host):
        where = f"{host}:{port}" if port else host
        raise ConfigurationError(
            f"http:// to {where} would send the credentials unencrypted: use https:// "
            "(http:// is for this machine only)"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def is_secure(url: str) -> bool:
    """Return whether secrets may be sent to a URL: it is valid, and https, or http to this machine."""
    try:
        scheme, host, _ = origin(url)
    except ValueError:
        return False
    return is_host(host) and (scheme == "https" or is_loopback(host))


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL.

    :raises ValueError: they cannot be read, or the URL names a user.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def is_host(host: str) -> bool:
    """Return whether this is a valid host name or address."""
    return _HOST.match(host if ":" not in host else f"[{host}]") is not None


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_url(url: str) -> bool:
    """Return whether a URL leads to this machine over http, where proxies and private CAs do not apply."""
    try:
        scheme, host, _ = origin(url)
    except ValueError:
        return False
    return scheme == "http" and is_loopback(host)
