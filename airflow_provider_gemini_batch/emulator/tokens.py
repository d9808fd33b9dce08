"""The OAuth endpoint of service-account keys, the token exchange of federation, and impersonation."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from airflow_provider_gemini_batch.emulator.token_store import (
    ACCESS_TYPE,
    GRANT_EXCHANGE,
    GRANT_JWT,
    IAM,
    SUBJECT_TYPE,
    OAuthError,
    federated_principal,
)
from airflow_provider_gemini_batch.emulator.wire import ApiError, answer

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_gemini_batch.emulator.call import ApiCall


async def _form(call: ApiCall) -> dict[str, str]:
    await call.keep_body()
    raw = await call.body()
    if raw.lstrip().startswith(b"{"):
        return {name: str(value) for name, value in (await call.json()).items()}
    return {name: values[0] for name, values in parse_qs(raw.decode(errors="replace")).items()}


async def token(call: ApiCall) -> Response:
    """Exchange a service account's signed assertion for an access token."""
    form = await _form(call)
    try:
        principal, scopes = _signer(call, form)
    except OAuthError as error:
        return answer(error.document, status=error.status)
    text, life = call.parts.tokens.issue(principal, scopes=scopes)
    return answer({"access_token": text, "expires_in": int(life), "token_type": "Bearer"})


def _signer(call: ApiCall, form: dict[str, str]) -> tuple[str, frozenset[str]]:
    if form.get("grant_type") != GRANT_JWT:
        raise OAuthError("unsupported_grant_type", "Invalid grant_type: " + form.get("grant_type", ""))
    return call.parts.tokens.check_assertion(form.get("assertion", ""), f"{call.own_url}/token")


async def exchange(call: ApiCall) -> Response:
    """Exchange the token of an outside identity provider for an access token."""
    form = await _form(call)
    try:
        audience = _subject_audience(call, form)
    except OAuthError as error:
        return answer(error.document, status=error.status)
    text, life = call.parts.tokens.issue(federated_principal(audience), scopes=form.get("scope", "").split())
    document = {"access_token": text, "issued_token_type": ACCESS_TYPE, "token_type": "Bearer", "expires_in": int(life)}
    return answer(document)


def _subject_audience(call: ApiCall, form: dict[str, str]) -> str:
    if form.get("grant_type") != GRANT_EXCHANGE or form.get("subject_token_type") != SUBJECT_TYPE:
        raise OAuthError("invalid_request", "Invalid grant or subject token type.")
    audience = call.parts.tokens.subjects.get(form.get("subject_token", "").strip())
    if audience is None:
        raise OAuthError("invalid_grant", "The subject token is not valid.")
    if audience != form.get("audience"):
        raise OAuthError("invalid_target", "The target service indicated by the audience is invalid.")
    return audience


async def impersonate(call: ApiCall) -> Response:
    """Answer a token of the target account, when every step of the delegation chain is allowed."""
    tokens = call.parts.tokens
    caller = tokens.principal(call.request.headers.get("authorization"), scopes=IAM)
    order = await call.json()
    chain = [str(name).rsplit("/", 1)[-1] for name in order.get("delegates") or []]
    for target in [*chain, call.path["id"]]:
        if not tokens.may(caller, target):
            raise ApiError(
                403, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
            )
        caller = target
    if not order.get("scope"):
        raise ApiError(400, "Request contains an invalid argument: scope is required.")
    lifetime = re.fullmatch(r"(\d{1,5})s", str(order.get("lifetime") or "3600s"))
    if lifetime is None:
        raise ApiError(400, "Request contains an invalid argument: lifetime.")
    text, life = tokens.issue(caller, scopes=order["scope"], seconds=float(lifetime[1]))
    # The client compares this time with its own clock.
    until = datetime.fromtimestamp(time.time() + life, tz=timezone.utc)
    return answer({"accessToken": text, "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")})
