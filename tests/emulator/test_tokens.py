"""Tokens through google-auth, unpatched: keys, federation, impersonation, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.auth import exceptions, identity_pool, impersonated_credentials
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from airflow_provider_gemini_batch.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
TARGET = "target@demo-project.iam.gserviceaccount.com"
MIDDLE = "middle@demo-project.iam.gserviceaccount.com"
DEMO = "batch@demo-project.iam.gserviceaccount.com"


def _key(info: dict[str, str]) -> Any:
    return service_account.Credentials.from_service_account_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]


def _refresh(credentials: Any) -> str:
    request = Request()
    with request.session:
        credentials.refresh(request)
    return str(credentials.token)


def test_a_key_made_on_the_spot_gets_a_token(gemini_batch_emulator: Emulator) -> None:
    assert _refresh(_key(gemini_batch_emulator.service_account_info())).startswith("ya29.")
    assert gemini_batch_emulator.control.books()["tokens_issued"] == 1


def test_a_key_of_somebody_else_is_refused(gemini_batch_emulator: Emulator) -> None:
    info = gemini_batch_emulator.service_account_info()
    with Emulator() as other:
        foreign = other.service_account_info()
    with pytest.raises(exceptions.RefreshError, match="Invalid JWT Signature"):
        _refresh(_key({**info, "private_key": foreign["private_key"]}))
    with pytest.raises(exceptions.RefreshError, match="account not found"):
        _refresh(_key({**info, "client_email": "stranger@x.iam.gserviceaccount.com"}))


@pytest.mark.parametrize("impersonate", [False, True])
def test_a_federation_file_gets_a_token(gemini_batch_emulator: Emulator, tmp_path: Path, impersonate: bool) -> None:  # noqa: FBT001 - a column
    path = gemini_batch_emulator.federation_file(tmp_path / "wif.json", impersonate=impersonate)
    credentials = identity_pool.Credentials.from_file(str(path), scopes=SCOPES)  # type: ignore[no-untyped-call]
    assert _refresh(credentials).startswith("ya29.")


def test_a_wrong_subject_token_is_refused(gemini_batch_emulator: Emulator, tmp_path: Path) -> None:
    path = gemini_batch_emulator.federation_file(tmp_path / "wif.json")
    (tmp_path / "wif.json.subject").write_text("forged", encoding="utf-8")
    credentials = identity_pool.Credentials.from_file(str(path), scopes=SCOPES)  # type: ignore[no-untyped-call]
    with pytest.raises(exceptions.OAuthError, match="subject token"):
        _refresh(credentials)


def test_an_impersonation_chain_needs_every_step(gemini_batch_emulator: Emulator) -> None:
    control = gemini_batch_emulator.control
    credentials = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
        source_credentials=_key(gemini_batch_emulator.service_account_info()),
        target_principal=TARGET,
        target_scopes=SCOPES,
        delegates=[MIDDLE],
        iam_endpoint_override=f"{gemini_batch_emulator.iam_endpoint}/v1/projects/-/serviceAccounts/{TARGET}:generateAccessToken",
    )
    control.allow_impersonation(DEMO, MIDDLE)
    with pytest.raises(exceptions.RefreshError, match=r"iam\.serviceAccounts\.getAccessToken"):
        _refresh(credentials)
    control.allow_impersonation(MIDDLE, TARGET)
    assert _refresh(credentials).startswith("ya29.")


def test_keys_and_rights_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    with Emulator(state=state) as emulator:
        info = emulator.service_account_info()
    with Emulator(state=state) as emulator:
        assert _refresh(_key({**info, "token_uri": f"{emulator.url}/token"})).startswith("ya29.")
