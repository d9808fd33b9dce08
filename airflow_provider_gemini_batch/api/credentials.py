"""Credentials: an API key in a header, or Google access tokens, cached and renewed before they expire.

Rules of this file: a credential is in no repr, no message and no URL. google-auth is imported only when Google
credentials are used. Token requests go through a session like the transport's: same time-outs, proxies and CA.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import requests

from airflow_provider_gemini_batch.api.errors import AccessDenied, ConfigurationError, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.api.sessions import new_session, response_within
from airflow_provider_gemini_batch.api.urls import checked_base_url, is_local_url, is_secure, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LONGEST_TOKEN_RESPONSE = 1 << 20
_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata"})
# The members of a credential that name addresses to which secrets are sent.
_ADDRESSES = ("token_uri", "token_url", "token_info_url", "service_account_impersonation_url", "revoke_url")
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_IAM_PATH = "/v1/projects/-/serviceAccounts/{}:generateAccessToken"


class Credential(Protocol):
    """What the transport needs from credentials; every method may be called from several threads."""

    def headers(self, description: str) -> dict[str, str]:
        """Return the headers that authenticate a call; ``description`` names the call, for messages."""

    def renew(self, refused: str) -> bool:
        """Discard the credential of a refused ``Authorization`` header; return whether sending again may help."""

    def secrets(self) -> tuple[str, ...]:
        """Return the texts that must never show."""

    def close(self) -> None:
        """Close the credential's connections."""


class ApiKey:
    """An API key of the Gemini Developer API, sent as a header."""

    def __init__(self, key: str) -> None:
        """Check the key's form: with a character that HTTP forbids, the key would show in the error message."""
        key = key.strip()
        if not key:
            raise ConfigurationError("No API key: put it into the connection's password field")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigurationError("The API key holds blanks or characters that no key has: paste it again")
        self._key = key

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def headers(self, description: str) -> dict[str, str]:  # noqa: ARG002  (nothing can go wrong here)
        """Return the key's header."""
        return {"x-goog-api-key": self._key}

    def renew(self, refused: str) -> bool:  # noqa: ARG002
        """Return False: a refused key stays refused."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """Return the key itself."""
        return (self._key,)

    def close(self) -> None:
        """Do nothing: a key has no connections."""


class GoogleCredential:
    """Google credentials of any kind, loaded on first use. One thread refreshes the token; the others wait or go on.

    :param load: makes the google-auth credentials.
    :param timeout: seconds for each token request.
    :param owner: what holds the credentials, for advice.
    """

    def __init__(self, load: Callable[[Any], Any], *, timeout: float = 60.0, owner: str = "the connection") -> None:
        self._load = load
        self._owner = owner
        self._request = _TokenRequest(timeout)
        self._lock = threading.Lock()
        self._credentials: Any = None

    def __repr__(self) -> str:
        return "GoogleCredential(***)"

    @property
    def google(self) -> Any:
        """The google-auth object, for libraries that want one (gcsfs)."""
        with self._lock:
            return self._load_once()

    def headers(self, description: str) -> dict[str, str]:
        """Return the headers of the bearer token, valid for some minutes at least, and of the quota project."""
        with self._lock:
            try:
                credentials = self._load_once()
                self._refresh_if_needed(credentials)
            except GeminiBatchError:
                raise
            except Exception as error:  # noqa: BLE001  (it is raised as one of ours)
                # Not as the cause: google-auth's errors hold the whole response of the token endpoint.
                raise google_failure(error, description, self._owner) from None
            headers = {"Authorization": f"Bearer {credentials.token}"}
            quota_project = getattr(credentials, "quota_project_id", None)
            return {**headers, "x-goog-user-project": quota_project} if quota_project else headers

    def renew(self, refused: str) -> bool:
        """Drop the token that was refused, unless another thread already has a newer one."""
        with self._lock:
            credentials = self._credentials
            if credentials is None:
                return False
            if refused == f"Bearer {credentials.token}":
                credentials.token = None
            return True

    def secrets(self) -> tuple[str, ...]:
        """Return the current token."""
        token = getattr(self._credentials, "token", None)
        return (str(token),) if token else ()

    def close(self) -> None:
        """Close the connections to token endpoints."""
        self._request.close()

    def _load_once(self) -> Any:
        if self._credentials is None:
            self._credentials = self._load(self._request)
        return self._credentials

    def _refresh_if_needed(self, credentials: Any) -> None:
        from google.auth.credentials import TokenState
        from google.auth.exceptions import GoogleAuthError

        state = credentials.token_state
        if state is TokenState.FRESH:
            return
        try:
            credentials.refresh(self._request)
        except GoogleAuthError:
            # A stale token is still valid for some minutes, so a short outage of the token endpoint does no harm.
            if state is not TokenState.STALE:
                raise


class _TokenRequest:
    """Sends google-auth's requests through our sessions."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._remote = new_session(pool_size=2)
        self._local = new_session(pool_size=2, loopback=True)

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> SimpleNamespace:
        from google.auth.exceptions import TransportError as GoogleTransportError

        if not (is_secure(url) or _is_metadata_server(url)):
            raise GoogleTransportError("a token endpoint must be https://, or http:// on this machine")
        session = self._local if is_local_url(url) else self._remote
        seconds = min(timeout or self._timeout, self._timeout)
        try:
            with (
                response_within(2 * seconds),
                session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=(min(10.0, seconds), seconds),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                content = _beginning(response)
        except (requests.RequestException, OSError, ValueError) as error:
            raise GoogleTransportError(type(error).__name__) from None
        # google-auth takes the first two for a refusal by some endpoints, and stumbles over the third.
        status = response.status_code
        is_passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
        if method == "POST" and (is_passing or (response.ok and not _is_json_object(content))):
            raise GoogleTransportError("the token endpoint is out of order")
        return SimpleNamespace(status=status, headers=response.headers, data=content)

    def close(self) -> None:
        """Close both sessions."""
        self._remote.close()
        self._local.close()


def _beginning(response: requests.Response) -> bytes:
    """Return the body, or not much more than its longest allowed beginning; it may come in many chunks."""
    content = b""
    for piece in response.iter_content(_LONGEST_TOKEN_RESPONSE):
        content += piece
        if len(content) >= _LONGEST_TOKEN_RESPONSE:
            break
    return content


def _is_json_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _is_metadata_server(url: str) -> bool:
    """Return whether this is a metadata server of Google, Amazon or Microsoft: these speak only http."""
    try:
        _, host, _ = origin(url)
        return host in _METADATA_HOSTS or ip_address(host).is_link_local
    except ValueError:
        return False


def google_failure(error: Exception, description: str, owner: str) -> GeminiBatchError:
    """Return our error for a refusal by a token endpoint or google-auth."""
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.exceptions import TransportError as GoogleTransportError

    if isinstance(error, DefaultCredentialsError):
        return ConfigurationError(
            f"{description}: there are no Google credentials. Give {owner} keyfile_dict, key_path or "
            "credential_config_file, or set up Application Default Credentials on workers and triggerers"
        )
    if isinstance(error, GoogleTransportError) or (isinstance(error, GoogleAuthError) and error.retryable):
        text = f"{description}: the token endpoint gave no usable response ({type(error).__name__}); nothing was sent"
        return TransportError(text, sent=False)
    if isinstance(error, GoogleAuthError):
        reason = _oauth_reason(error)
        hint = _OAUTH_HINTS.get(reason.partition(":")[0], f"Check the credentials in {owner}.")
        text = f"{description}: Google gave no access token ({reason or type(error).__name__}). {hint}"
        return AccessDenied(text, http_status=401, status="UNAUTHENTICATED", reason=reason.partition(":")[0])
    return ConfigurationError(f"{description}: the Google credentials cannot be used ({type(error).__name__})")


_OAUTH_HINTS = {
    "invalid_grant": "The key was deleted or disabled, the clock of this machine is wrong, or the subject token is "
    "not accepted by the pool.",
    "invalid_target": "The audience does not name a known workload identity pool provider.",
    "invalid_client": "The key's client is not known.",
    "unauthorized_client": "The service account may not be used this way.",
    "PERMISSION_DENIED": "The caller needs the role Service Account Token Creator on the next account of the "
    "impersonation chain.",
    "NOT_FOUND": "An account of the impersonation chain does not exist.",
}


def _oauth_reason(error: Exception) -> str:
    """Return error name and description only: google-auth's error also holds the endpoint's raw response."""
    for part in error.args:
        value = part
        if isinstance(part, (str, bytes)):
            text = part if isinstance(part, str) else part.decode("utf-8", "replace")
            start = text.find("{")
            try:
                value = json.loads(text[start:]) if start >= 0 else None
            except ValueError:
                value = None
        if isinstance(value, dict) and "error" in value:
            return _reason_of(value)
    return ""


def _reason_of(body: dict[str, Any]) -> str:
    problem = body["error"]
    if isinstance(problem, dict):
        return f"{problem.get('status') or problem.get('code')}: {problem.get('message') or ''}"[:300]
    return f"{problem}: {body.get('error_description') or ''}"[:300]


def google_loader(
    *,
    credentials: Any = None,
    keyfile_dict: Mapping[str, Any] | None = None,
    key_path: str | None = None,
    credential_config_file: str | Mapping[str, Any] | None = None,
    impersonation_chain: str | Sequence[str] | None = None,
    iam_endpoint: str | None = None,
    quota_project_id: str | None = None,
) -> tuple[Callable[[Any], Any], str | None]:
    """Return a function that makes the google-auth credentials, and the project that a key file names.

    :param credentials: ready google-auth credentials.
    :param keyfile_dict: the content of a key file; :param key_path: its path. :param credential_config_file: a workload
        identity federation file, or its content. At most one of these four; none means Application Default Credentials.
    :param impersonation_chain: service accounts, the one to become last; a text may hold several, with commas.
    :param iam_endpoint: base URL of the IAM Credentials API, or the whole URL of ``generateAccessToken``.
    :param quota_project_id: the project that pays for and limits the calls.
    :raises ConfigurationError: two sources, a file that cannot be read, or content that is not a credential.
    """
    given = {
        "credentials": credentials,
        "keyfile_dict": keyfile_dict,
        "key_path": key_path,
        "credential_config_file": credential_config_file,
    }
    named = [name for name, value in given.items() if value]
    if len(named) > 1:
        raise ConfigurationError(f"Only one of {', '.join(named)} can be used: remove the others")
    info: Mapping[str, Any] | None = None
    where = named[0] if named else ""
    if keyfile_dict:
        info = keyfile_dict
    elif key_path or credential_config_file:
        source = key_path or credential_config_file
        info = _read_json(str(source), where) if isinstance(source, str) else source
    kind = str(info.get("type") or "") if info is not None else ""
    if info is not None and kind not in _KINDS:
        raise ConfigurationError(
            f"{where}: credentials of type {kind[:40]!r} are not supported; give one of {sorted(_KINDS)}"
        )
    for member in _ADDRESSES:
        address = (info or {}).get(member)
        if address and not is_secure(str(address)):
            raise ConfigurationError(
                f"{where}: its {member} must be https:// (http:// is for this machine only): secrets are sent there"
            )
    chain = _chain_of(impersonation_chain)
    endpoint = _iam_url(iam_endpoint)

    def load(request: Any) -> Any:
        base = credentials if credentials is not None else _from_info(info, where) if info else _default(request)
        return _add_access(base, chain, endpoint, quota_project_id)

    project = (info or {}).get("project_id") or getattr(credentials, "project_id", None)
    return load, str(project) if project else None


def default_project() -> str | None:
    """Return the project of Application Default Credentials; None without credentials or project."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        _, project = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError:
        return None
    return str(project) if project else None


def _read_json(path: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{where}: the file cannot be read on this machine ({error.strerror})") from error
    except (ValueError, RecursionError):
        # The cause would show the file's content.
        raise ConfigurationError(f"{where}: the file is not JSON") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: the file is not a JSON object")
    return value


def _chain_of(chain: str | Sequence[str] | None) -> tuple[str, ...]:
    names = chain.split(",") if isinstance(chain, str) else chain or ()
    accounts = tuple(name.strip() for name in names if name.strip())
    wrong = [account for account in accounts if "@" not in account or "/" in account]
    if wrong:
        raise ConfigurationError(f"impersonation_chain: {wrong[0]!r} is not the e-mail address of a service account")
    return accounts


def _iam_url(endpoint: str | None) -> str | None:
    if not endpoint:
        return None
    base, _, verb = endpoint.partition("/v1/")
    checked_base_url(base)
    return endpoint if verb else base.rstrip("/") + _IAM_PATH


def _service_account(info: Mapping[str, Any]) -> Any:
    from google.oauth2 import service_account

    return service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])


def _authorized_user(info: Mapping[str, Any]) -> Any:
    from google.oauth2.credentials import Credentials

    return Credentials.from_authorized_user_info(info, scopes=[SCOPE])


def _external_account(info: Mapping[str, Any]) -> Any:
    source = info.get("credential_source") or {}
    if str(info.get("subject_token_type", "")) == "urn:ietf:params:aws:token-type:aws4_request":
        from google.auth import aws

        return aws.Credentials.from_info(info, scopes=[SCOPE])
    if isinstance(source, dict) and source.get("executable") is not None:
        from google.auth import pluggable

        return pluggable.Credentials.from_info(info, scopes=[SCOPE])
    from google.auth import identity_pool

    return identity_pool.Credentials.from_info(info, scopes=[SCOPE])


# Explicit classes instead of google-auth's generic loader, which is deprecated.
_KINDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "service_account": _service_account,
    "authorized_user": _authorized_user,
    "external_account": _external_account,
}


def _from_info(info: Mapping[str, Any], where: str) -> Any:
    try:
        return _KINDS[str(info["type"])](info)
    except Exception as error:  # noqa: BLE001  (google-auth and cryptography raise many kinds)
        text = f"{where}: no usable credentials in it ({type(error).__name__}): take the file as Google made it"
        raise ConfigurationError(text) from None  # the cause may show parts of the key


def _default(request: Any) -> Any:
    import google.auth

    credentials, _ = google.auth.default(scopes=[SCOPE], request=request)
    return credentials


def _add_access(base: Any, chain: tuple[str, ...], endpoint: str | None, quota_project_id: str | None) -> Any:
    """Return credentials with scopes, impersonation and quota project added."""
    from google.auth.credentials import with_scopes_if_required

    credentials = with_scopes_if_required(base, [SCOPE])
    if chain:
        from google.auth import impersonated_credentials

        credentials = impersonated_credentials.Credentials(
            source_credentials=credentials,
            target_principal=chain[-1],
            target_scopes=[SCOPE],
            delegates=list(chain[:-1]),
            iam_endpoint_override=endpoint.format(chain[-1]) if endpoint else None,
        )
    if quota_project_id:
        if not hasattr(credentials, "with_quota_project"):
            raise ConfigurationError("quota_project_id: these Google credentials take no quota project")
        credentials = credentials.with_quota_project(quota_project_id)
    return credentials
