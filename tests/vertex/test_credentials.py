"""Google credentials of every kind in an Airflow connection serve the worker and the triggerer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex.bench import Bench

MIDDLE, LAST = "middle@demo-project.iam.gserviceaccount.com", "last@demo-project.iam.gserviceaccount.com"


def key(bench: Bench) -> dict[str, Any]:
    return {"keyfile_dict": bench.emulator.service_account_info()}


def key_as_text(bench: Bench) -> dict[str, Any]:
    return {"keyfile_dict": json.dumps(bench.emulator.service_account_info())}


def key_file(bench: Bench) -> dict[str, Any]:
    path = bench.folder / "key.json"
    path.write_text(json.dumps(bench.emulator.service_account_info()), encoding="utf-8")
    return {"key_path": str(path)}


def federation(bench: Bench) -> dict[str, Any]:
    return {"credential_config_file": str(bench.emulator.federation_file(bench.folder / "federation.json"))}


def federation_that_impersonates(bench: Bench) -> dict[str, Any]:
    path = bench.emulator.federation_file(bench.folder / "federation.json", impersonate=True)
    return {"credential_config_file": json.loads(path.read_text(encoding="utf-8"))}


def chain(bench: Bench) -> dict[str, Any]:
    info = bench.emulator.service_account_info()
    bench.emulator.control.allow_impersonation(info["client_email"], MIDDLE)
    bench.emulator.control.allow_impersonation(MIDDLE, LAST)
    names = {"impersonation_chain": f"{MIDDLE}, {LAST}", "iam_endpoint": bench.emulator.iam_endpoint}
    return {"keyfile_dict": info, "quota_project_id": "payer", **names}


def forbidden_chain(bench: Bench) -> dict[str, Any]:
    return {**key(bench), "impersonation_chain": [LAST], "iam_endpoint": bench.emulator.iam_endpoint}


def deleted_key(bench: Bench) -> dict[str, Any]:
    return {"keyfile_dict": bench.emulator.service_account_info() | {"client_email": "gone@demo-project.example"}}


def missing_file(bench: Bench) -> dict[str, Any]:
    return {"key_path": str(bench.folder / "nowhere.json")}


def stale_subject(bench: Bench) -> dict[str, Any]:
    given = federation(bench)
    (bench.folder / "federation.json.subject").write_text("stale", encoding="utf-8")
    return given


def use(bench: Bench, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], conn_type: str = "gemini_batch") -> None:
    """Make the connection ``vertex`` one with these credentials."""
    common = {"backend": "vertex", "project_id": "demo-project", "location": "us-central1"}
    storage = {"storage_endpoint": bench.gcs, "staging_path": bench.stage}
    connection = {"conn_type": conn_type, "host": bench.emulator.url, "extra": {**common, **storage, **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps(connection))


@pytest.mark.parametrize("made", [key, key_as_text, key_file, federation, federation_that_impersonates, chain])
def test_worker_and_triggerer_get_their_tokens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, made: Callable[[Bench], dict[str, Any]]
) -> None:
    use(bench, monkeypatch, made(bench))
    result, summary = bench.go(inlined_requests=["One."])
    assert summary["counts"]["succeeded"] == 1
    (deferral,) = result.deferrals
    assert deferral.event["reason"] == "ended"
    # One process each for submitting, watching and landing: a token for each, none of them passed on.
    assert bench.emulator.control.books()["tokens_issued"] >= 3
    assert "ya29" not in json.dumps([deferral.kwargs, deferral.next_kwargs, deferral.event, summary])


def test_a_google_cloud_connection_serves_as_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "extra__google_cloud_platform__keyfile_dict": json.dumps(bench.emulator.service_account_info()),
        "extra__google_cloud_platform__project": "demo-project",
    }
    use(bench, monkeypatch, extra, conn_type="google_cloud_platform")
    _, summary = bench.go(inlined_requests=["One."])
    assert summary["counts"]["succeeded"] == 1


@pytest.mark.parametrize("given", [{"inlined_requests": ["One."]}, {"bigquery_uri": "bq://p.texts.inbox"}], ids=str)
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (forbidden_chain, "Service Account Token Creator"),
        (deleted_key, "deleted or disabled"),
        (missing_file, "cannot be read on this machine"),
        (stale_subject, "subject token"),
    ],
)
def test_wrong_ones_fail_with_words_that_help(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[[Bench], dict[str, Any]],
    words: str,
    given: dict[str, Any],
) -> None:
    use(bench, monkeypatch, made(bench))
    output = str(bench.folder / "out.jsonl")
    result = bench.run(**given, output_path=output, retries=3).attempt("batch")
    assert result.state == "failed", "no retry mends a credential"
    assert words in result.message
    assert "PRIVATE" not in result.message


def test_tokens_that_end_during_the_wait_are_renewed(bench: Bench) -> None:
    run = bench.run(inlined_requests=["One."], wait_for_completion=False)
    assert run.attempt("batch").state == "success"
    bench.emulator.control.revoke_tokens()
    _, summary = bench.go(inlined_requests=["One."])
    assert summary["counts"]["succeeded"] == 1
