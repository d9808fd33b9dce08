"""Access tokens of one emulator: who holds which, service accounts, subjects of federation, and who may act for whom.

The life of a token counts in real time plus what the clock was advanced; a clock that runs faster does not shorten
it, because clients compare it with their own clock.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from airflow_provider_gemini_batch.emulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator.world import World

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
IAM_SCOPE = "https://www.googleapis.com/auth/iam"
#: What opens the batch service, and what opens impersonation besides.
WIDE = frozenset({SCOPE})
IAM = frozenset({SCOPE, IAM_SCOPE})
GRANT_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GRANT_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
SUBJECT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TYPE = "urn:ietf:params:oauth:token-type:access_token"
#: How far a client's clock may be off, in seconds.
SKEW = 300


@dataclass
class Token:
    """Who holds an access token, and until when."""

    principal: str
    expires: float
    scopes: frozenset[str] = frozenset()


class TokenStore:
    """The tokens, accounts and impersonation rights of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.issued = 0
        self.subjects: dict[str, str] = dict(world.store.load("subject"))
        self._keys: dict[str, str] = dict(world.store.load("account"))
        self._allowed: set[tuple[str, str]] = {
            (caller, target) for caller, target in world.store.load("allowed").values()
        }
        self._tokens: dict[str, Token] = {}
        self._private: rsa.RSAPrivateKey | None = None

    def _now(self) -> float:
        return time.time() + self.world.advanced

    def revoke(self) -> None:
        """Make all issued tokens invalid."""
        self._tokens.clear()

    def forget(self) -> None:
        """Forget accounts, rights, tokens and counts."""
        self._tokens.clear()
        self._keys.clear()
        self._allowed.clear()
        self.subjects.clear()
        self.issued = 0

    def issue(
        self, principal: str, *, scopes: Iterable[str] = (SCOPE,), seconds: float | None = None
    ) -> tuple[str, float]:
        """Return a new access token and its life in seconds."""
        life = min(self.world.settings.token_seconds, seconds or self.world.settings.token_seconds)
        text = f"ya29.emulated-{self.world.random_name(32)}"
        with self.world.lock:
            self._tokens[text] = Token(principal, self._now() + life, frozenset(scopes))
            self.issued += 1
        return text, life

    def principal(self, authorization: str | None, *, scopes: frozenset[str] = WIDE) -> str:
        """Return who calls; ApiError 401 without a bearer token that is known and still valid, 403 without a scope."""
        kind, _, text = (authorization or "").partition(" ")
        token = self._tokens.get(text.strip()) if kind.lower() == "bearer" else None
        if token is None or self._now() >= token.expires:
            raise _unauthenticated()
        if not scopes & token.scopes:
            raise ApiError(403, "Request had insufficient authentication scopes.")
        return token.principal

    def account(self, email: str, token_uri: str, project_id: str) -> dict[str, str]:
        """Return a key file of a service account; the first call makes the RSA key."""
        if self._private is None:
            self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with self.world.lock:
            self._keys[email] = public.decode()
            self.world.store.save("account", email, public.decode())
        return {
            "type": "service_account",
            "project_id": project_id,
            "private_key_id": "emulated",
            "private_key": private.decode(),
            "client_email": email,
            "client_id": "100000000000000000000",
            "auth_uri": token_uri,
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }

    def allow(self, caller: str, target: str) -> None:
        """Let one account ask for tokens of another."""
        with self.world.lock:
            self._allowed.add((caller, target))
            self.world.store.save("allowed", f"{caller} {target}", [caller, target])

    def may(self, caller: str, target: str) -> bool:
        """Return whether an account may ask for another's tokens."""
        return (caller, target) in self._allowed

    def add_subject(self, text: str, audience: str) -> None:
        """Know a subject token of an outside identity provider, good for one audience."""
        with self.world.lock:
            self.subjects[text] = audience
            self.world.store.save("subject", text, audience)

    def check_assertion(self, assertion: str, token_uri: str) -> tuple[str, frozenset[str]]:
        """Return the account that signed a JWT assertion, and the scopes it asks for; OAuthError otherwise."""
        try:
            head, payload, signature = assertion.split(".")
            claims = json.loads(_decode(payload))
            algorithm = json.loads(_decode(head)).get("alg")
            public = self._keys.get(str(claims.get("iss")))
        except (ValueError, AttributeError, RecursionError) as error:
            raise OAuthError("invalid_grant", "Bad Request") from error
        if public is None:
            raise OAuthError("invalid_grant", "Invalid grant: account not found")
        key = serialization.load_pem_public_key(public.encode())
        if algorithm != "RS256" or not isinstance(key, rsa.RSAPublicKey):
            raise OAuthError("invalid_grant", "Invalid JWT Signature.")
        try:
            key.verify(_decode(signature), f"{head}.{payload}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature as error:
            raise OAuthError("invalid_grant", "Invalid JWT Signature.") from error
        _check_claims(claims, token_uri)
        return str(claims.get("sub") or claims["iss"]), frozenset(str(claims["scope"]).split())


class OAuthError(Exception):
    """A refusal of the token endpoints, whose errors have a shape of their own."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.status = status
        self.document = {"error": error, "error_description": description}


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _check_claims(claims: dict[str, Any], token_uri: str) -> None:
    now = time.time()
    # google-auth names Google's own endpoint here, whatever token_uri the key file gives.
    if claims.get("aud") not in (token_uri, "https://oauth2.googleapis.com/token"):
        raise OAuthError("invalid_grant", "Invalid JWT: Failed audience check.")
    issued, expires = float(claims.get("iat") or 0), float(claims.get("exp") or 0)
    if not issued - SKEW <= now <= expires + SKEW or expires - issued > 3600 + SKEW:
        raise OAuthError(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
        )
    if not IAM & set(str(claims.get("scope") or "").split()):
        raise OAuthError("invalid_scope", "Invalid OAuth scope or ID token audience provided.")


def _unauthenticated() -> ApiError:
    details = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        "domain": "googleapis.com",
        "metadata": {"service": "aiplatform.googleapis.com"},
    }
    text = (
        "Request had invalid authentication credentials. "
        "Expected OAuth 2 access token, login cookie or other valid authentication credential."
    )
    return ApiError(401, text, details=[details])


def federated_principal(audience: str) -> str:
    """Return the name under which an outside identity acts."""
    return f"principal:{audience}/subject/demo"


def write_federation_file(
    tokens: TokenStore, url: str, path: Path, *, project_number: str, account: str | None
) -> Path:
    """Write an ``external_account`` file and, beside it, the subject token that it reads; returns the former's path."""
    pool = f"//iam.googleapis.com/projects/{project_number}/locations/global/workloadIdentityPools/demo-pool"
    audience = f"{pool}/providers/demo"
    subject = f"emulated.subject.{tokens.world.random_name(24)}"
    tokens.add_subject(subject, audience)
    subject_path = path.with_name(path.name + ".subject")
    subject_path.write_text(subject, encoding="utf-8")
    document: dict[str, Any] = {
        "type": "external_account",
        "audience": audience,
        "subject_token_type": SUBJECT_TYPE,
        "token_url": f"{url}/sts/v1/token",
        "credential_source": {"file": str(subject_path)},
    }
    if account is not None:
        tokens.allow(federated_principal(audience), account)
        document["service_account_impersonation_url"] = (
            f"{url}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        )
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
