"""What an Airflow connection says, read and checked: every mistake names the connection, the field and the remedy.

Rules of this file: nothing is sent, no client library is imported, and no value of a field that may hold a secret is
ever put into a message or a repr.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.api.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Connection

GEMINI_TYPE = "gemini_batch"
GOOGLE_TYPE = "google_cloud_platform"
DEFAULT_LOCATION = "global"
DEFAULT_TIMEOUT = 60.0

# Google's own provider stored its fields under this prefix for years, and such connections still exist.
_GOOGLE_PREFIX = f"extra__{GOOGLE_TYPE}__"
_KEY_MEMBERS = ("type", "client_email", "private_key", "token_uri")
_KEY_SOURCES = ("keyfile_dict", "key_path", "credential_config_file")

# What Google's provider reads and we do not. Ignoring them would use other credentials than the author meant.
_REFUSED = {
    "key_secret_name": "a key in Secret Manager is not read; use key_path, keyfile_dict or default credentials",
    "idp_issuer_url": "client credentials of an identity provider are not supported; use credential_config_file",
    "idp_extra_parameters": "client credentials of an identity provider are not supported; use credential_config_file",
    "is_anonymous": "Vertex AI takes no anonymous calls; remove the field and give credentials",
}

# Parts of a URL's path on Vertex, so nothing that could end the path or step out of it.
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}")
_LOCATION = re.compile(r"[a-z][a-z0-9-]{0,62}")
_INVALID_NAME = "is not a valid name: lower-case letters, digits and hyphens are allowed"

# What is secret in the JSON of a Google credential, wherever in it.
_SECRET_MEMBERS = frozenset(
    {"private_key", "private_key_id", "client_secret", "refresh_token", "token", "access_token", "authorization"}
)
# Airflow masks nothing shorter, and warns of it.
_SHORTEST_SECRET = 5
# The last line of a key may be shorter, and then reveals nothing.
_SHORTEST_LINE = 8
_LINE_BREAKS = re.compile(r"(?:\\+[nr]|[\r\n])+")


@dataclass(frozen=True)
class ConnectionSettings:
    """A connection of either type in one form, after overrides and ``[gemini_batch]`` defaults.

    ``project_id`` is None when a key file on disk or the default credentials have to name it; ``timeout`` is in
    seconds; ``labels`` are the connection's own, for Vertex jobs; ``max_active_jobs`` bounds how many jobs of all tasks
    run at once. ``unsafe`` says what is wrong with a connection that collects jobs but creates none. Credentials stay
    out of the repr.
    """

    conn_id: str
    service: Service
    base_url: str | None = None
    timeout: float = DEFAULT_TIMEOUT
    project_id: str | None = None
    location: str = DEFAULT_LOCATION
    impersonation_chain: tuple[str, ...] = ()
    iam_endpoint: str | None = None
    storage_endpoint: str | None = None
    quota_project_id: str | None = None
    staging_path: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    max_active_jobs: int | None = None
    unsafe: str = ""
    api_key: str | None = field(default=None, repr=False)
    keyfile_dict: Mapping[str, Any] | None = field(default=None, repr=False)
    key_path: str | None = field(default=None, repr=False)
    credential_config_file: str | Mapping[str, Any] | None = field(default=None, repr=False)

    def check_safe(self) -> None:
        """Refuse a connection that must create no job. Raises ConfigurationError."""
        if self.unsafe:
            raise ConfigurationError(self.unsafe)


def read_connection(
    conn: Connection, *, location: str | None = None, project_id: str | None = None
) -> ConnectionSettings:
    """Return the settings in a connection of type ``gemini_batch`` or ``google_cloud_platform`` (Vertex AI).

    :param conn: the connection, already fetched.
    :param location: overrides the connection's Vertex location; the Gemini Developer API has none and ignores it.
    :param project_id: overrides the connection's Google Cloud project, likewise.
    :raises ConfigurationError: the connection cannot work; nothing has been sent.
    """
    fields = _Fields.of(conn)
    service = _service(conn, fields)
    common: dict[str, Any] = {
        "conn_id": conn.conn_id,
        "service": service,
        "base_url": _base_url(conn, fields),
        "timeout": fields.seconds("timeout", DEFAULT_TIMEOUT),
        "staging_path": fields.text("staging_path") or _configured("staging_path"),
        "labels": _labels(fields),
        "max_active_jobs": fields.count("max_active_jobs"),
    }
    if service is Service.GEMINI:
        return ConnectionSettings(**common, api_key=_api_key(conn, fields))
    credentials = _credentials(fields)
    own_project = fields.text("project_id", "project") or _project_of(credentials["keyfile_dict"])
    own_location = fields.text("location") or _configured("location")
    return ConnectionSettings(
        **common,
        **credentials,
        project_id=_overriding("project_id", project_id, _PROJECT)
        or _named(fields, "project_id", own_project, _PROJECT),
        location=_overriding("location", location, _LOCATION)
        or _named(fields, "location", own_location, _LOCATION)
        or DEFAULT_LOCATION,
        impersonation_chain=fields.names("impersonation_chain"),
        iam_endpoint=fields.url("iam_endpoint", fields.text("iam_endpoint")),
        storage_endpoint=fields.url("storage_endpoint", fields.text("storage_endpoint")),
        quota_project_id=_named(fields, "quota_project_id", fields.text("quota_project_id"), _PROJECT),
    )


@dataclass(frozen=True)
class _Fields:
    """The extra fields of a connection under their short names, and the one place where errors are worded."""

    conn_id: str
    values: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, conn: Connection) -> _Fields:
        fields = cls(conn.conn_id, {})
        try:
            raw = json.loads(conn.extra) if conn.extra else {}
        except ValueError:
            # The parser's error quotes the text, which may hold a key: it is not kept as the cause.
            raise fields.mistake("extra", 'is not valid JSON; give an object such as {"backend": "vertex"}') from None
        if not isinstance(raw, dict):
            raise fields.mistake("extra", 'is not a JSON object; give one such as {"backend": "vertex"}')
        plain = {name: value for name, value in raw.items() if not name.startswith(_GOOGLE_PREFIX)}
        prefixed = {name.removeprefix(_GOOGLE_PREFIX): value for name, value in raw.items() if name not in plain}
        return cls(conn.conn_id, {**prefixed, **{name: value for name, value in plain.items() if not _empty(value)}})

    def mistake(self, name: str, what: str) -> ConfigurationError:
        """Return an error that names the connection and the field; ``what``: what is wrong and what to do, no value."""
        return ConfigurationError(f"Connection {self.conn_id!r}, field {name!r}: {what}.")

    def text(self, *names: str) -> str | None:
        """Return the first of these fields that is set, stripped; None if none is."""
        for name in names:
            value = self.values.get(name)
            if _empty(value):
                continue
            if not isinstance(value, str):
                raise self.mistake(name, f"must be text, not {_kind(value)}")
            return value.strip()
        return None

    def seconds(self, name: str, default: float) -> float:
        """Return a number of seconds above zero, given as number or text."""
        value = self.values.get(name)
        if _empty(value):
            return default
        try:
            number = float("nan") if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = float("nan")
        if not 0 < number < float("inf"):
            raise self.mistake(name, "must be a number of seconds above zero, such as 60")
        return number

    def count(self, name: str) -> int | None:
        """Return a whole number above zero, given as number or text."""
        value = self.values.get(name)
        if _empty(value):
            return None
        text = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
            raise self.mistake(name, "must be a whole number above zero, such as 100")
        return int(text)

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """Return a JSON object, given as such or as its text."""
        value = self.values.get(name)
        if _empty(value):
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value, strict=False)
            except ValueError:
                raise self.mistake(name, "is not valid JSON; give a JSON object, whole and unchanged") from None
        if not isinstance(value, dict):
            raise self.mistake(name, f"must be a JSON object, not {_kind(value)}")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """Return a list of names, given as a list or as text with commas."""
        value = self.values.get(name)
        if _empty(value):
            return ()
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise self.mistake(name, "must be a name, or several separated by commas")
        return tuple(part.strip() for part in parts if part.strip())

    def url(self, name: str, value: str | None, *, bare_scheme: str = "https", port: int | None = None) -> str | None:
        """Return a base URL without its last slash; ``http`` only to this machine, since it is not encrypted."""
        if not value:
            return None
        try:
            parts = urlsplit(value if "://" in value else f"{bare_scheme}://{value}")
            host, own_port = parts.hostname, parts.port
        except ValueError:
            raise self.mistake(name, "is not a URL; give one such as https://proxy.example.com") from None
        if parts.username is not None or parts.password is not None:
            raise self.mistake(name, "must not hold a user name or password; the key belongs in the password field")
        if parts.scheme not in {"http", "https"} or not host or re.search(r"\s", value):
            raise self.mistake(name, "is not a URL; give one such as https://proxy.example.com")
        if parts.query or parts.fragment:
            raise self.mistake(name, "must end with the path; remove what follows '?' or '#'")
        if parts.scheme == "http" and not is_loopback(host):
            raise self.mistake(name, "is http:// to another machine, which sends the key unencrypted; use https://")
        netloc = parts.netloc if own_port or not port else f"{parts.netloc.rstrip(':')}:{port}"
        return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def _service(conn: Connection, fields: _Fields) -> Service:
    if conn.conn_type not in {GEMINI_TYPE, GOOGLE_TYPE}:
        raise fields.mistake("conn_type", f"must be {GEMINI_TYPE} or {GOOGLE_TYPE}; make a connection of that type")
    named = fields.text("backend")
    if named is None:
        return Service.VERTEX if conn.conn_type == GOOGLE_TYPE else Service.GEMINI
    if named.lower() not in {service.value for service in Service}:
        raise fields.mistake("backend", "must be gemini or vertex")
    service = Service(named.lower())
    if conn.conn_type == GOOGLE_TYPE and service is Service.GEMINI:
        raise fields.mistake("backend", f"a {GOOGLE_TYPE} connection means vertex; for gemini use type {GEMINI_TYPE}")
    return service


def _api_key(conn: Connection, fields: _Fields) -> str:
    key = (conn.password or "").strip()
    if not key:
        raise fields.mistake(
            "password", "holds no API key; put the key there or, for Vertex AI, set the field 'backend' to vertex"
        )
    # A header carries it: anything else would fail deep inside the HTTP library, which quotes the header.
    if not re.fullmatch(r"[!-~]+", key):
        raise fields.mistake("password", "is not an API key: it has blanks or letters beyond ASCII; paste it again")
    return key


def _credentials(fields: _Fields) -> dict[str, Any]:
    for name, remedy in _REFUSED.items():
        if not _empty(fields.values.get(name)) and not _is_no(fields.values[name]):
            raise fields.mistake(name, remedy)
    given = [name for name in _KEY_SOURCES if not _empty(fields.values.get(name))]
    if len(given) > 1:
        raise fields.mistake(given[1], f"is given beside {given[0]}; keep one of the two")
    return {
        "keyfile_dict": _key(fields),
        "key_path": fields.text("key_path"),
        "credential_config_file": _federation(fields),
        "unsafe": _shown_secret(fields),
    }


def _key(fields: _Fields) -> Mapping[str, Any] | None:
    key = fields.mapping("keyfile_dict")
    if key is None:
        return None
    missing = [name for name in _KEY_MEMBERS if not isinstance(key.get(name), str)]
    if missing and key.get("type", "service_account") == "service_account":
        raise fields.mistake(
            "keyfile_dict", f"is not a service-account key: it lacks {' and '.join(missing)}; paste the whole file"
        )
    # A key that went through a shell or a URI often has its line breaks doubled.
    secret = key.get("private_key")
    return {**key, "private_key": secret.replace("\\n", "\n")} if isinstance(secret, str) else key


def _project_of(key: Mapping[str, Any] | None) -> str | None:
    named = (key or {}).get("project_id")
    return named if isinstance(named, str) and named else None


def _federation(fields: _Fields) -> str | Mapping[str, Any] | None:
    value = fields.values.get("credential_config_file")
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return fields.text("credential_config_file")
    return fields.mapping("credential_config_file")


def _shown_secret(fields: _Fields) -> str:
    """Return what is wrong where Airflow shows a secret; empty where it does not.

    Jobs that are paid for are still collected: earlier versions took such a connection.
    """
    found = _federation(fields)
    if isinstance(found, str) or not isinstance(fields.values.get("credential_config_file"), str):
        return ""
    mistake = fields.mistake(
        "credential_config_file",
        "holds a secret in JSON written as text, which Airflow's form and REST API show; put the JSON into "
        "keyfile_dict, which they hide",
    )
    return str(mistake) if any(secrets_in(found)) else ""


def secrets_in(value: object) -> Iterator[str]:
    """Yield the secret texts, a key line by line, so that it is masked however its line breaks are written.

    The whole key is left out: its lines cover it, and Airflow compiles its pattern again for every text.
    """
    if isinstance(value, list):
        for member in value:
            yield from secrets_in(member)
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        if not isinstance(member, str):
            yield from secrets_in(member)
        elif str(name).lower() in _SECRET_MEMBERS:
            lines = _LINE_BREAKS.split(member.strip().removeprefix("Bearer "))
            shortest = _SHORTEST_LINE if len(lines) > 1 else _SHORTEST_SECRET
            yield from (line for line in lines if len(line) >= shortest and "-----" not in line)


def _labels(fields: _Fields) -> Mapping[str, str]:
    labels = fields.mapping("labels") or {}
    if not all(isinstance(value, str) for value in labels.values()):
        raise fields.mistake("labels", 'must map names to texts, such as {"team": "search"}')
    return labels


def _base_url(conn: Connection, fields: _Fields) -> str | None:
    # A connection written as a URI keeps http or https in its schema, as Airflow's own HTTP connections do.
    scheme = conn.schema if conn.schema in {"http", "https"} else "https"
    host = (conn.host or "").strip()
    if host.count(":") > 1 and not set(host) & set("[/"):  # an IPv6 address, of which Airflow drops the brackets
        host = f"[{host}]"
    return fields.url("host", host, bare_scheme=scheme, port=conn.port)


def _overriding(name: str, value: str | None, pattern: re.Pattern[str]) -> str | None:
    """Return what an operator, hook or command was given in place of a field."""
    if value and not pattern.fullmatch(value):
        raise ConfigurationError(f"{name} {_INVALID_NAME}.")
    return value


def _named(fields: _Fields, name: str, value: str | None, pattern: re.Pattern[str]) -> str | None:
    if value is not None and not pattern.fullmatch(value):
        raise fields.mistake(name, _INVALID_NAME)
    return value


def _configured(option: str) -> str | None:
    from airflow.sdk.configuration import conf

    return conf.get("gemini_batch", option, fallback="").strip() or None


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ({}, [])


def _is_no(value: object) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() in {"false", "0", "no"})


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}
    return names.get(type(value), "something else")
