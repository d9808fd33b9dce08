"""Reading connections: every field, both types, every mistake with its words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings, read_connection

PRIVATE = "-----BEGIN PRIVATE KEY-----\nMIIhunter2\n-----END PRIVATE KEY-----\n"
KEY = {
    "type": "service_account",
    "client_email": "robot@demo.iam.gserviceaccount.com",
    "private_key": PRIVATE,
    "token_uri": "https://oauth2.googleapis.com/token",
}


def gemini(extra: Any = None, **fields: Any) -> Connection:
    text = extra if isinstance(extra, str) else json.dumps(extra or {})
    return Connection(conn_id="c", **{"conn_type": "gemini_batch", "password": "AIza-key", "extra": text, **fields})


def google(extra: Any = None, **fields: Any) -> Connection:
    return gemini(extra, conn_type="google_cloud_platform", password=None, **fields)


def vertex(**extra: Any) -> Connection:
    return gemini({"backend": "vertex", "project_id": "demo", **extra}, password=None)


def test_a_connection_with_only_a_key_means_the_gemini_developer_api() -> None:
    assert read_connection(gemini()) == ConnectionSettings(
        conn_id="c", service=Service.GEMINI, api_key="AIza-key", labels={}
    )


def test_blanks_around_a_pasted_key_do_not_matter() -> None:
    assert read_connection(gemini(password=" AIza-key\n")).api_key == "AIza-key"


def test_fields_left_empty_in_the_form_are_as_good_as_absent() -> None:
    empty = dict.fromkeys(
        (
            "backend",
            "project_id",
            "location",
            "keyfile_dict",
            "impersonation_chain",
            "labels",
            "timeout",
            "staging_path",
        )
    )
    assert read_connection(gemini(empty)) == read_connection(gemini())
    assert read_connection(gemini(dict.fromkeys(empty, ""))) == read_connection(gemini())


def test_every_vertex_field_is_read() -> None:
    settings = read_connection(
        vertex(
            location="us-central1",
            keyfile_dict=KEY,
            impersonation_chain="a@demo.iam, b@demo.iam",
            iam_endpoint="https://iam.example.com/",
            storage_endpoint="https://storage.example.com",
            quota_project_id="payer",
            staging_path="gs://bucket/stage",
            labels={"team": "search"},
            timeout="12.5",
        )
    )
    assert settings == ConnectionSettings(
        conn_id="c",
        service=Service.VERTEX,
        project_id="demo",
        location="us-central1",
        keyfile_dict=KEY,
        impersonation_chain=("a@demo.iam", "b@demo.iam"),
        iam_endpoint="https://iam.example.com",
        storage_endpoint="https://storage.example.com",
        quota_project_id="payer",
        staging_path="gs://bucket/stage",
        labels={"team": "search"},
        timeout=12.5,
    )


def test_vertex_without_a_location_is_global_and_without_a_project_leaves_it_to_the_credentials() -> None:
    settings = read_connection(gemini({"backend": "Vertex"}, password=None))
    assert (settings.location, settings.project_id) == ("global", None)


def test_the_callers_project_and_location_override_the_connections() -> None:
    settings = read_connection(vertex(location="us-central1"), location="europe-west4", project_id="other")
    assert (settings.project_id, settings.location) == ("other", "europe-west4")


@pytest.mark.parametrize("name", ["location", "project_id"])
def test_an_invalid_name_that_overrides_the_connections_is_not_said_to_be_the_connections(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is not a valid name"):
        read_connection(vertex(location="us-central1"), **{name: "US Central"})


def test_the_config_section_gives_location_and_staging_path_where_the_connection_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__GEMINI_BATCH__LOCATION", "europe-west1")
    monkeypatch.setenv("AIRFLOW__GEMINI_BATCH__STAGING_PATH", "gs://from-config")
    settings = read_connection(vertex())
    assert (settings.location, settings.staging_path) == ("europe-west1", "gs://from-config")
    own = read_connection(vertex(location="us-central1", staging_path="gs://own"))
    assert (own.location, own.staging_path) == ("us-central1", "gs://own")


@pytest.mark.parametrize("prefix", ["", "extra__google_cloud_platform__"])
def test_a_google_cloud_connection_means_vertex_in_either_of_googles_spellings(prefix: str) -> None:
    extra = {"project": "demo", "keyfile_dict": json.dumps(KEY), "scope": "https://x", "num_retries": 5}
    settings = read_connection(google({prefix + name: value for name, value in extra.items()}))
    assert settings.service is Service.VERTEX
    assert settings.project_id == "demo"
    assert settings.keyfile_dict == KEY


def test_a_plain_field_wins_over_its_old_prefixed_twin_unless_it_is_empty() -> None:
    prefixed = {"extra__google_cloud_platform__project": "old"}
    assert read_connection(google({**prefixed, "project": "new"})).project_id == "new"
    assert read_connection(google({**prefixed, "project": ""})).project_id == "old"


@pytest.mark.parametrize("value", [False, "false", "", None])
def test_a_google_field_that_is_switched_off_is_ignored(value: object) -> None:
    assert read_connection(google({"project": "demo", "is_anonymous": value})).project_id == "demo"


@pytest.mark.parametrize("name", ["key_secret_name", "idp_issuer_url", "idp_extra_parameters", "is_anonymous"])
def test_a_google_field_that_we_do_not_support_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Connection 'c', field '{name}'"):
        read_connection(google({"project": "demo", name: "hunter2"}))


def test_a_private_key_whose_line_breaks_were_doubled_on_the_way_is_mended() -> None:
    settings = read_connection(vertex(keyfile_dict={**KEY, "private_key": PRIVATE.replace("\n", "\\n")}))
    assert settings.keyfile_dict == KEY


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/etc/federation.json", "/etc/federation.json"),
        ('{"type": "external_account"}', {"type": "external_account"}),
        ({"type": "external_account"}, {"type": "external_account"}),
    ],
)
def test_a_credential_configuration_is_a_path_or_json(value: object, expected: object) -> None:
    assert read_connection(vertex(credential_config_file=value)).credential_config_file == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "https://proxy.example.com/gemini/"}, "https://proxy.example.com/gemini"),
        ({"host": "proxy.example.com"}, "https://proxy.example.com"),
        ({"host": "proxy.example.com", "port": 8443}, "https://proxy.example.com:8443"),
        ({"host": "https://proxy.example.com:1", "port": 8443}, "https://proxy.example.com:1"),
        ({"host": "http://127.0.0.1:8787"}, "http://127.0.0.1:8787"),
        ({"host": "127.0.0.1", "port": 8787, "schema": "http"}, "http://127.0.0.1:8787"),
        ({"host": "http://[::1]:8787"}, "http://[::1]:8787"),
        # As Airflow reads it from a URI.
        ({"host": "::1", "port": 8787, "schema": "http"}, "http://[::1]:8787"),
        ({"host": "http://localhost", "port": 8787}, "http://localhost:8787"),
        ({"host": ""}, None),
    ],
)
def test_the_host_becomes_the_base_url(fields: dict[str, Any], expected: str | None) -> None:
    assert read_connection(gemini(**fields)).base_url == expected


def test_a_connection_written_as_a_uri_is_also_read() -> None:
    conn = Connection.from_uri("gemini-batch://:any-key@127.0.0.1:8787/http?timeout=5", conn_id="c")
    settings = read_connection(conn)
    assert (settings.base_url, settings.api_key, settings.timeout) == ("http://127.0.0.1:8787", "any-key", 5.0)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("http://proxy.example.com", "https://"),
        ("http://10.0.0.1:8787", "https://"),
        ("http://localhost.example.com", "https://"),
        ("ftp://example.com", "is not a URL"),
        ("https://", "is not a URL"),
        ("not a url", "is not a URL"),
        ("https://host:port", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://user:hunter2@example.com", "user name or password"),
        ("https://example.com?key=hunter2", "remove what follows"),
    ],
)
def test_a_host_that_cannot_be_a_base_url_is_refused_without_repeating_it(host: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="Connection 'c', field 'host'") as caught:
        read_connection(gemini(host=host))
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


MISTAKES: list[tuple[str, Connection, str]] = [
    ("password", gemini(password=None), "backend"),
    ("password", gemini(password="  "), "backend"),
    ("password", gemini(password="hunter2 hunter2"), "paste it again"),
    ("password", gemini(password="hunter2\u200b"), "paste it again"),
    ("conn_type", gemini(conn_type="http"), "gemini_batch or google_cloud_platform"),
    ("backend", gemini({"backend": "openai"}), "gemini or vertex"),
    ("backend", google({"backend": "gemini"}), "type gemini_batch"),
    ("extra", gemini('{"a": hunter2'), "not valid JSON"),
    ("extra", gemini('["hunter2"]'), "not a JSON object"),
    ("timeout", gemini({"timeout": "soon"}), "seconds"),
    ("timeout", gemini({"timeout": 0}), "seconds"),
    ("timeout", gemini({"timeout": True}), "seconds"),
    ("timeout", gemini({"timeout": "inf"}), "seconds"),
    ("timeout", gemini({"timeout": [1]}), "seconds"),
    ("max_active_jobs", gemini({"max_active_jobs": 0}), "whole number above zero"),
    ("max_active_jobs", gemini({"max_active_jobs": "many"}), "whole number above zero"),
    ("max_active_jobs", gemini({"max_active_jobs": 1.5}), "whole number above zero"),
    ("max_active_jobs", gemini({"max_active_jobs": True}), "whole number above zero"),
    ("max_active_jobs", gemini({"max_active_jobs": -1}), "whole number above zero"),
    ("labels", gemini({"labels": "team=search"}), "not valid JSON"),
    ("labels", gemini({"labels": ["team"]}), "JSON object"),
    ("labels", gemini({"labels": {"team": 7}}), "texts"),
    ("project_id", vertex(project_id="../hunter2"), "not a valid name"),
    ("project_id", vertex(project_id=7), "must be text"),
    ("location", vertex(location="us/central1"), "not a valid name"),
    ("quota_project_id", vertex(quota_project_id="a b"), "not a valid name"),
    ("keyfile_dict", vertex(keyfile_dict="{hunter2"), "not valid JSON"),
    ("keyfile_dict", vertex(keyfile_dict=["hunter2"]), "JSON object"),
    ("keyfile_dict", vertex(keyfile_dict={"private_key": "hunter2"}), "lacks type and client_email and token_uri"),
    ("key_path", vertex(keyfile_dict=KEY, key_path="/key.json"), "keep one"),
    ("credential_config_file", vertex(key_path="/key.json", credential_config_file="/f.json"), "keep one"),
    ("credential_config_file", vertex(credential_config_file="{hunter2"), "not valid JSON"),
    ("impersonation_chain", vertex(impersonation_chain={"a": 1}), "separated by commas"),
    ("impersonation_chain", vertex(impersonation_chain=[1]), "separated by commas"),
    ("storage_endpoint", vertex(storage_endpoint="gs://bucket"), "is not a URL"),
    ("iam_endpoint", vertex(iam_endpoint="http://iam.example.com"), "https://"),
]


@pytest.mark.parametrize(("name", "conn", "words"), MISTAKES, ids=[f"{m[0]}-{m[2][:20]}" for m in MISTAKES])
def test_a_mistake_names_connection_and_field_and_remedy_and_no_secret(name: str, conn: Connection, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_connection(conn)
    said = str(caught.value)
    assert said.startswith(f"Connection 'c', field '{name}': ")
    assert words in said
    assert "hunter2" not in said
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value.__cause__)


@pytest.mark.parametrize("prefix", ["", "extra__google_cloud_platform__"])
@pytest.mark.parametrize(
    ("given", "is_unsafe"),
    [
        (json.dumps({"credential_source": {"headers": {"Authorization": "Bearer hunter2"}}}), True),
        (json.dumps(KEY), True),
        (f" {json.dumps({'client_secret': 'hunter2'})}", True),
        ({"client_secret": "hunter2"}, False),  # which Airflow hides
        (json.dumps({"credential_source": {"file": "/token"}}), False),
        ("/federation.json", False),
    ],
)
def test_a_secret_that_airflow_shows_is_read_but_no_job_is_created_with_it(
    given: Any, prefix: str, *, is_unsafe: bool
) -> None:
    settings = read_connection(vertex(**{f"{prefix}credential_config_file": given}))
    assert settings.credential_config_file
    assert "hunter2" not in settings.unsafe
    if not is_unsafe:
        assert not settings.unsafe
        settings.check_safe()
        return
    with pytest.raises(ConfigurationError) as caught:
        settings.check_safe()
    assert str(caught.value).startswith("Connection 'c', field 'credential_config_file': holds a secret")
    assert "put the JSON into keyfile_dict" in str(caught.value)


def test_settings_show_no_credential_in_their_repr() -> None:
    shown = repr(read_connection(vertex(keyfile_dict=KEY))) + repr(read_connection(gemini()))
    shown += repr(read_connection(vertex(credential_config_file={"client_secret": "hunter2"})))
    assert "hunter2" not in shown
    assert "AIza" not in shown


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
field_names = st.sampled_from(
    [
        "backend",
        "project_id",
        "project",
        "location",
        "keyfile_dict",
        "key_path",
        "credential_config_file",
        "impersonation_chain",
        "iam_endpoint",
        "quota_project_id",
        "staging_path",
        "labels",
        "timeout",
        "is_anonymous",
        "extra__google_cloud_platform__project",
    ]
)


@given(
    extra=st.dictionaries(field_names, json_values, max_size=4) | json_values,
    host=st.none() | st.text(max_size=12),
    conn_type=st.sampled_from(["gemini_batch", "google_cloud_platform"]),
    port=st.none() | st.integers(0, 70000),
)
def test_whatever_is_in_a_connection_it_is_read_or_refused_by_name(
    extra: Any, host: str | None, conn_type: str, port: int | None
) -> None:
    conn = Connection(conn_id="c", conn_type=conn_type, host=host, port=port, password="key", extra=json.dumps(extra))
    said = outcome(conn)
    assert said == "read" or said.startswith("Connection 'c', field ")


def outcome(conn: Connection) -> str:
    try:
        read_connection(conn)
    except ConfigurationError as error:
        return str(error)
    return "read"


@pytest.mark.parametrize("prefix", ["", "extra__google_cloud_platform__"])
@pytest.mark.parametrize(
    ("name", "write"), [("keyfile_dict", dict), ("keyfile_dict", json.dumps), ("credential_config_file", dict)]
)
def test_airflow_shows_no_secret_of_a_credential_that_is_taken(name: str, write: Any, prefix: str) -> None:
    from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse

    key = {**KEY, "client_secret": "hunter2", "credential_source": {"headers": {"Authorization": "Bearer hunter3"}}}
    extra = {"backend": "vertex", "project_id": "demo", prefix + name: write(key)}
    assert read_connection(gemini(extra, password=None)).project_id == "demo"
    fields = dict.fromkeys(("description", "host", "login", "schema", "port", "password", "team_name"))
    given = {**fields, "conn_id": "c", "conn_type": "gemini_batch", "extra": json.dumps(extra)}
    shown = ConnectionResponse.model_validate(given).extra or ""
    assert "demo" in shown
    assert "hunter" not in shown
