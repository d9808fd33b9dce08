"""The hook: from an Airflow connection to the service and back, over HTTP to the emulator."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import socket
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ConnectionResult, GetConnection
from pydantic import BaseModel

from airflow_provider_gemini_batch.api import errors
from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.models import JobKind, JobState, Service
from airflow_provider_gemini_batch.batch.tag import Tag, display_name
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO
from airflow_provider_gemini_batch.runtime.client import (
    aget_client_connection,
    airflow_errors,
    client_from_settings,
    explain,
    with_connection,
)
from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings, read_connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

MODEL = "gemini-2.5-flash"
# Members of the client that a hook has no use for.
OWN = {name for name in vars(BatchClient) if name.startswith(("_", "for_"))} | {
    "storage",
    "cancel_now",
    "snapshots",
    "replace_by",
}


def connect(monkeypatch: pytest.MonkeyPatch, connection: str | dict[str, Any], **arguments: Any) -> GeminiBatchHook:
    text = connection if isinstance(connection, str) else json.dumps(connection)
    monkeypatch.setenv("AIRFLOW_CONN_C", text)
    return GeminiBatchHook("c", **arguments)


def changed(connection: str, **fields: Any) -> dict[str, Any]:
    return {**json.loads(connection), **fields}


def refused(reason: str, *, status: int = 403, word: str = "PERMISSION_DENIED") -> errors.AccessDenied:
    return errors.AccessDenied("said", http_status=status, status=word, reason=reason)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator) -> GeminiBatchHook:
    return connect(monkeypatch, gemini_batch_emulator.connection())


def test_a_key_that_is_rotated_during_a_wait_is_taken_from_the_connection(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator
) -> None:
    good = gemini_batch_emulator.connection()
    name = connect(monkeypatch, good).create(MODEL, inlined_requests=["One."]).name
    gemini_batch_emulator.control.advance(3600)
    hook = connect(monkeypatch, changed(good, password="bad-revoked"))
    held = hook.client  # by somebody else, such as the service of a task
    connect(monkeypatch, good)
    assert hook.wait(name, poll_interval=0.1).succeeded
    assert held.get(name).succeeded
    assert hook.settings.api_key == json.loads(good)["password"]


@pytest.mark.parametrize("now", [{"conn_type": "gemini_batch"}, {"conn_type": "http"}, None])
def test_a_connection_that_cannot_be_renewed_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator, now: dict[str, Any] | None
) -> None:
    hook = connect(monkeypatch, gemini_batch_emulator.connection())
    before = hook.settings, hook.client
    if now is None:
        monkeypatch.delenv("AIRFLOW_CONN_C")
    else:
        connect(monkeypatch, now)
    hook.renew()
    assert (hook.settings, hook.client) == before
    assert list(hook.list_all()) == []


def test_a_job_goes_from_texts_to_answers(hook: GeminiBatchHook, gemini_batch_emulator: Emulator) -> None:
    with hook:
        made = hook.create(MODEL, inlined_requests=["One.", {"contents": [{"parts": [{"text": "Two."}]}]}])
        gemini_batch_emulator.control.advance(60)
        ended = hook.wait(made.name, poll_interval=0.01)
        rows = list(hook.get_responses(ended))
    assert ended.state is JobState.SUCCEEDED
    assert len(rows) == 2
    assert all(row.error is None for row in rows)


def test_the_times_of_a_wait_may_be_spans_or_texts_and_are_refused_in_words_if_they_are_neither(
    hook: GeminiBatchHook, gemini_batch_emulator: Emulator
) -> None:
    name = hook.create(MODEL, inlined_requests=["One."]).name
    with pytest.raises(errors.JobTimedOut):
        hook.wait(name, timeout=timedelta(0))
    for wrong in ({"timeout": "soon"}, {"timeout": -1}, {"poll_interval": 0}, {"poll_interval": float("nan")}):
        with pytest.raises(errors.ConfigurationError, match=next(iter(wrong))):
            hook.wait(name, **wrong)
    gemini_batch_emulator.control.advance(60)
    assert hook.wait(name, poll_interval=timedelta(seconds=0.01), timeout="60").succeeded  # type: ignore[arg-type]


def test_a_job_stands_for_its_name_wherever_a_name_is_asked_for(
    hook: GeminiBatchHook, gemini_batch_emulator: Emulator
) -> None:
    with hook:
        made = hook.create(MODEL, inlined_requests=["One."])
        assert hook.get(made).name == made.name
        hook.cancel(made)
        gemini_batch_emulator.control.advance(60)
        assert hook.wait(made, poll_interval=0.01).is_done
        hook.delete(made)
        assert not hook.list().batch_jobs


@pytest.mark.parametrize("method", ["get", "wait", "cancel", "delete", "get_responses", "iter_results"])
@pytest.mark.parametrize("given", [None, 7, {"name": "batches/a"}, ["batches/a"]], ids=["None", "int", "dict", "list"])
def test_what_is_no_job_is_refused_in_words(hook: GeminiBatchHook, method: str, given: Any) -> None:
    with hook, pytest.raises(errors.ConfigurationError, match=f"Invalid job a value of type {type(given).__name__}"):
        getattr(hook, method)(given)


class Values:
    """Stands for an array, which is neither true nor false."""

    def __iter__(self) -> Iterator[str]:
        return iter(["One.", "Two."])

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


class Frame(Values):
    """Stands for a frame, whose elements are its columns."""

    columns = ("One.", "Two.")


def test_rows_of_other_types_are_taken_or_refused_in_words(hook: GeminiBatchHook) -> None:
    refused: Any
    with hook:
        stats = hook.create(MODEL, inlined_requests=Values()).completion_stats
        assert stats is not None
        assert stats.total == 2
        for refused in ("x", {"text": "x"}, 7, list):
            with pytest.raises(errors.InputError, match="inlined_requests must be a list"):
                hook.create(MODEL, inlined_requests=refused)
        with pytest.raises(errors.InputError, match="inlined_requests is a frame: give a list"):
            hook.create(MODEL, inlined_requests=Frame())


def test_no_connection_named_means_the_default_one() -> None:
    assert GeminiBatchHook(None).gemini_conn_id == "gemini_batch_default"


class Gist(BaseModel):
    gist: str


def test_a_jobs_rows_come_in_the_form_in_which_operators_land_them(
    hook: GeminiBatchHook, gemini_batch_emulator: Emulator
) -> None:
    schema = {"type": "OBJECT", "properties": {"gist": {"type": "STRING"}}, "required": ["gist"]}
    config = {"responseMimeType": "application/json", "responseSchema": schema}
    with hook:
        request = {"contents": [{"parts": [{"text": "One."}]}]}
        job = hook.create(MODEL, inlined_requests=[{"key": "a", "request": request}], generation_config=config)
        gemini_batch_emulator.control.advance(60)
        (row,) = hook.iter_results(job.name)
        (parsed,) = hook.iter_results(hook.get(job.name), output_schema=Gist, keep_response=True)
    assert (row["key"], row["status"], row["error"]) == ("a", "ok", None)
    assert "response" not in row
    assert parsed["parsed"] == json.loads(row["text"])
    assert parsed["response"]["candidates"]


def test_rows_of_embeddings_hold_vectors_and_keys_without_their_wrapping(
    hook: GeminiBatchHook, gemini_batch_emulator: Emulator
) -> None:
    tag = Tag(identity="abcdefghij", clear_count=0, shard=0, round=0, submission=0, fingerprint="0" * 12)
    with hook:
        job = hook.create_embeddings(
            "gemini-embedding-001",
            inlined_requests=[{"key": "r0-a", "request": {"content": {"parts": [{"text": "One."}]}}}],
            output_dimensionality=8,
            display_name=display_name("mine", tag),
        )
        gemini_batch_emulator.control.advance(60)
        (row,) = hook.iter_results(job.name)
    assert (row["key"], len(row["embedding"])) == ("a", 8)


def test_embeddings_listing_cancelling_and_deleting_reach_the_service(
    hook: GeminiBatchHook, gemini_batch_emulator: Emulator
) -> None:
    made = hook.create_embeddings("gemini-embedding-001", inlined_requests=["One."], output_dimensionality=8)
    assert hook.get(made.name).kind is JobKind.EMBEDDINGS
    assert [job.name for job in hook.list(page_size=5).batch_jobs] == [made.name]
    assert [job.name for job in hook.list_all()] == [made.name]
    hook.cancel(made.name)
    gemini_batch_emulator.control.advance(60)
    assert hook.get(made.name, brief=True).is_done
    hook.delete(made.name)
    assert not hook.list().batch_jobs
    hook.close()


def test_files_go_up_are_listed_and_removed(hook: GeminiBatchHook, gemini_batch_emulator: Emulator) -> None:
    line = b'{"key": "a", "request": {"contents": [{"parts": [{"text": "One."}]}]}}\n'
    with hook:
        sent = hook.upload_file(io.BytesIO(line), display_name="rows")
        assert hook.get_file(sent.name).display_name == "rows"
        assert [file.name for file in hook.list_files().files] == [sent.name]
        job = hook.create(MODEL, file_name=sent.name)
        gemini_batch_emulator.control.advance(60)
        dest = hook.wait(job.name, poll_interval=0.01).dest
        assert dest is not None
        assert dest.file_name is not None
        target = io.BytesIO()
        assert hook.download_file(dest.file_name, target) == len(target.getvalue())
        assert b"".join(hook.iter_download(dest.file_name)) == target.getvalue()
        hook.delete_file(sent.name)
        assert not hook.list_files().files


def test_the_client_is_made_once_and_again_after_closing(hook: GeminiBatchHook) -> None:
    first = hook.client
    assert hook.get_conn() is first
    hook.close()
    hook.close()
    assert hook.client is not first
    hook.close()


@pytest.mark.parametrize("name", sorted(set(vars(BatchClient)) - OWN))
def test_the_hook_has_every_method_of_the_client_with_the_same_arguments(name: str) -> None:
    theirs, ours = vars(BatchClient)[name], getattr(GeminiBatchHook, name)
    if inspect.isfunction(theirs):
        # The hook knows by itself how to look its connection up once more.
        told = [p for p in inspect.signature(theirs).parameters.values() if p.name != "renew"]
        wanted = [(p.kind, p.default) for p in told]
        assert [(p.kind, p.default) for p in inspect.signature(ours).parameters.values()] == wanted
        keywords = {p.name for p in told if p.kind is p.KEYWORD_ONLY}
        assert keywords <= set(inspect.signature(ours).parameters)


def test_the_hook_is_the_one_that_the_provider_announces() -> None:
    announced = PROVIDER_INFO["connection-types"][0]
    assert announced["hook-class-name"] == f"{GeminiBatchHook.__module__}.{GeminiBatchHook.__qualname__}"
    assert announced["connection-type"] == GeminiBatchHook.conn_type
    assert announced["hook-name"] == GeminiBatchHook.hook_name


@pytest.mark.usefixtures("emulator")
def test_a_triggerer_makes_a_client_from_a_connection_fetched_in_its_loop() -> None:
    conn = asyncio.run(aget_client_connection("c"))
    with client_from_settings(read_connection(conn)) as client:
        assert client.service is Service.GEMINI
        assert not client.list().batch_jobs


@pytest.fixture
def vertex(gemini_batch_emulator: Emulator) -> str:
    return gemini_batch_emulator.connection("vertex")


def with_extra(connection: str, **extra: Any) -> dict[str, Any]:
    fields = json.loads(connection)
    return {**fields, "extra": {**fields["extra"], **extra}}


def make_vertex_job(hook: GeminiBatchHook) -> str:
    return hook.create(
        MODEL, gcs_uri="gs://bucket/in.jsonl", destination="gs://bucket/out", labels={"team": "a"}, display_name="x"
    ).name


def test_the_same_methods_serve_vertex(monkeypatch: pytest.MonkeyPatch, vertex: str) -> None:
    with connect(monkeypatch, vertex) as hook:
        assert hook.service is Service.VERTEX
        name = make_vertex_job(hook)
        assert hook.get(name).labels == {"team": "a"}
        assert [job.name for job in hook.list_all(filter="labels.team=a")] == [name]
        with pytest.raises(errors.ConfigurationError, match="Files API"):
            hook.list_files()


def test_a_google_cloud_connection_reaches_vertex_with_googles_spellings(
    monkeypatch: pytest.MonkeyPatch, vertex: str
) -> None:
    theirs = json.loads(vertex)
    key = json.dumps(theirs["extra"]["keyfile_dict"])
    extra = {"project": theirs["extra"]["project_id"], "extra__google_cloud_platform__keyfile_dict": key}
    with connect(
        monkeypatch,
        {"conn_type": "google_cloud_platform", "host": theirs["host"], "extra": extra},
        location="us-central1",
    ) as hook:
        assert hook.test_connection()[0]


def test_a_project_that_the_connection_leaves_out_comes_from_the_key(
    monkeypatch: pytest.MonkeyPatch, vertex: str
) -> None:
    project = json.loads(vertex)["extra"]["project_id"]
    good, said = connect(monkeypatch, with_extra(vertex, project_id=None)).test_connection()
    assert (good, f"project {project} " in said) == (True, True)


def test_a_project_that_a_key_file_on_disk_names_is_used(
    monkeypatch: pytest.MonkeyPatch, vertex: str, tmp_path: Path
) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(json.loads(vertex)["extra"]["keyfile_dict"]))
    extra = with_extra(vertex, project_id=None, keyfile_dict=None, key_path=str(path))
    good, said = connect(monkeypatch, extra).test_connection()
    assert (good, "the credentials' own project" in said) == (True, True)


class SupervisorOfDagsTest:
    """Answers like the supervisor of ``airflow dags test``: only when it is asked synchronously."""

    def __init__(self, connection: str) -> None:
        self._fields = json.loads(connection)

    def send(self, message: Any) -> Any:
        if isinstance(message, GetConnection):
            empty = dict.fromkeys(("login", "schema", "port", "extra"))
            return ConnectionResult(conn_id=message.conn_id, **{**empty, **self._fields})
        return None


def test_a_trigger_in_dags_test_finds_a_connection_that_only_airflows_database_holds(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator
) -> None:
    comms = SupervisorOfDagsTest(gemini_batch_emulator.connection())
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    conn = asyncio.run(aget_client_connection("only_in_the_database"))
    with client_from_settings(read_connection(conn)) as client:
        assert not client.list().batch_jobs


# What the Test button says.


def test_good_google_credentials_pass_the_test_of_their_connection(
    monkeypatch: pytest.MonkeyPatch, vertex: str
) -> None:
    good, said = connect(monkeypatch, vertex).test_connection()
    assert good
    assert said.startswith("Vertex AI accepted the credentials and listed the batch jobs of project ")


def test_vertex_without_a_project_or_credentials_fails_the_test_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, vertex: str
) -> None:
    bare = {**json.loads(vertex), "extra": {"backend": "vertex"}}
    good, said = connect(monkeypatch, bare).test_connection()
    assert not good
    assert said.startswith("Connection 'c'")
    assert "project" in said


def test_a_project_that_is_not_the_accounts_fails_the_test_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator, vertex: str
) -> None:
    gemini_batch_emulator.control.faults(http={"operation": "list", "status": 403})
    good, said = connect(monkeypatch, vertex, project_id="somebody-elses").test_connection()
    assert not good
    assert "somebody-elses" in said


def test_a_token_endpoint_that_refuses_the_key_fails_the_test_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator, vertex: str
) -> None:
    key = json.loads(vertex)["extra"]["keyfile_dict"]
    stranger = {**key, "client_email": "stranger@nowhere.iam.gserviceaccount.com"}
    good, said = connect(monkeypatch, with_extra(vertex, keyfile_dict=stranger)).test_connection()
    assert not good
    assert said.startswith("The credentials were refused; check the key")
    assert "PRIVATE KEY" not in said
    assert not gemini_batch_emulator.control.books()["jobs"]


def test_a_token_endpoint_that_does_not_respond_fails_the_test_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, vertex: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/token"
    key = {**json.loads(vertex)["extra"]["keyfile_dict"], "token_uri": nowhere}
    good, said = connect(monkeypatch, with_extra(vertex, keyfile_dict=key)).test_connection()
    assert not good
    assert said.startswith("No connection; check")
    assert "token endpoint" in said


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, vertex: str) -> None:
    good, said = connect(
        monkeypatch, with_extra(vertex, keyfile_dict=None, key_path="/nowhere/key.json")
    ).test_connection()
    assert not good
    assert said.startswith("Connection 'c': key_path")


@pytest.mark.parametrize(
    ("error", "backend", "words"),
    [
        (refused("SERVICE_DISABLED"), "gemini", "Generative Language API"),
        (refused("SERVICE_DISABLED"), "vertex", "aiplatform.googleapis.com) is not enabled"),
        (refused("API_KEY_SERVICE_BLOCKED"), "gemini", "restrictions"),
        (refused("API_KEY_IP_ADDRESS_BLOCKED"), "gemini", "restrictions exclude this machine"),
        (refused("BILLING_DISABLED"), "vertex", "no billing account"),
        (refused("USER_PROJECT_DENIED"), "vertex", "Service Usage Consumer"),
        (
            refused("", status=400, word="FAILED_PRECONDITION"),
            "gemini",
            "not available to this project from here",
        ),
        (refused(""), "gemini", "right project"),
        (refused(""), "vertex", "aiplatform.batchPredictionJobs.list"),
        (refused("ACCESS_TOKEN_EXPIRED", status=401), "vertex", "credentials were refused"),
        (errors.NotFound("said", http_status=404), "vertex", "project demo or location global was not found"),
        (errors.QuotaExceeded("said", http_status=429), "gemini", "quota is used up"),
        (errors.ApiError("said", http_status=400), "vertex", "did not accept"),
        (errors.ServiceUnavailable("said", http_status=503), "vertex", "try again"),
    ],
)
def test_each_refusal_has_its_words(error: errors.GeminiBatchError, backend: str, words: str) -> None:
    said = explain(error, ConnectionSettings(conn_id="c", service=Service(backend), project_id="demo"))
    assert words in said
    assert said.endswith("(said)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("create: 403: No. Check the credentials in connection 'c', and more.", "create: 403: No."),
        ("read of gs://b/x: 403, these credentials may not", "read of gs://b/x: 403, these credentials may not"),
    ],
)
def test_a_permission_that_one_call_lacks_is_not_said_to_be_that_of_the_list(text: str, said: str) -> None:
    error = errors.AccessDenied(text, http_status=403, reason="IAM_PERMISSION_DENIED")
    vertex = ConnectionSettings(conn_id="c", service=Service.VERTEX, project_id="demo")
    assert with_connection(error, vertex) == (
        f"Connection 'c': The credentials lack a permission; give it to their account. ({said})"
    )


def test_a_key_that_google_has_blocked_is_not_said_to_belong_to_another_project() -> None:
    error = errors.AccessDenied("Your API key was reported as leaked. Please use another API key.", http_status=403)
    said = explain(error, ConnectionSettings(conn_id="c", service=Service.GEMINI))
    assert said.startswith("Google has blocked the API key, since it was published; create another")


def test_advice_of_an_error_gives_way_to_that_about_its_connection() -> None:
    text = "create: 400: No. Check the API key in connection 'c', and more."
    error = errors.AccessDenied(text, http_status=400, reason="API_KEY_INVALID")
    settings = ConnectionSettings(conn_id="c", service=Service.GEMINI)
    told = "The API key was refused; paste a valid one into the field API key. (create: 400: No.)"
    assert with_connection(error, settings) == f"Connection 'c': {told}"
    assert explain(error, settings) == told


def test_a_good_key_passes_the_test_of_its_connection(hook: GeminiBatchHook) -> None:
    good, said = hook.test_connection()
    assert good
    assert said.startswith("The Gemini Developer API accepted the key and listed its batches.")


def test_a_refused_key_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator) -> None:
    good, said = connect(monkeypatch, gemini_batch_emulator.connection(password="bad-hunter2")).test_connection()
    assert not good
    assert said.startswith("The API key was refused; paste a valid one")
    assert "hunter2" not in said


def test_a_host_where_nobody_listens_fails_the_test_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    hook = connect(monkeypatch, changed(gemini_batch_emulator.connection(), host=host))
    good, said = hook.test_connection()
    assert not good
    assert said.startswith("No connection; check Base URL")
    assert "127.0.0.1" in said


def test_a_host_that_is_not_the_service_fails_the_test_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator
) -> None:
    host = f"{gemini_batch_emulator.url}/elsewhere"
    good, said = connect(monkeypatch, changed(gemini_batch_emulator.connection(), host=host)).test_connection()
    assert not good
    assert "check Base URL" in said


def test_a_connection_without_a_key_says_where_the_key_goes(
    monkeypatch: pytest.MonkeyPatch, gemini_batch_emulator: Emulator
) -> None:
    good, said = connect(monkeypatch, changed(gemini_batch_emulator.connection(), password="")).test_connection()
    assert (good, said.startswith("Connection 'c', field 'password': holds no API key")) == (False, True)


def test_a_connection_that_does_not_exist_fails_its_test() -> None:
    good, said = GeminiBatchHook("not_there").test_connection()
    assert not good
    assert "not_there" in said


ERRORS: list[tuple[Exception, type[AirflowException]]] = [
    (errors.ConfigurationError("said"), AirflowFailException),
    (errors.InputError("said"), AirflowFailException),
    (refused("API_KEY_INVALID"), AirflowFailException),
    (errors.NotFound("said", http_status=404), AirflowFailException),
    (errors.UnexpectedResponse("said"), AirflowFailException),
    (errors.ResultsGone("said"), AirflowFailException),
    (errors.JobFailed("said"), AirflowFailException),
    (errors.TransportError("said", sent=True), AirflowException),
    (errors.QuotaExceeded("said", http_status=429), AirflowException),
    (errors.ServiceUnavailable("said", http_status=503), AirflowException),
    (errors.JobTimedOut("said"), AirflowException),
    (errors.JobGone("said"), AirflowException),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_airflow_retries_what_may_pass_and_nothing_else(error: Exception, kind: type[AirflowException]) -> None:
    with pytest.raises(AirflowException, match=r"^said$") as caught, airflow_errors():
        raise error
    assert type(caught.value) is kind
    assert caught.value.__context__ is error
    assert caught.value.__suppress_context__, "a traceback would say the same twice"


def test_an_error_that_is_not_ours_stays_what_it_is() -> None:
    with pytest.raises(KeyError), airflow_errors():
        raise KeyError


def test_importing_hook_and_links_loads_no_http_and_no_google_library() -> None:
    program = """
import sys
import airflow.sdk.bases.hook, airflow.sdk.bases.operatorlink, airflow.sdk
airflow.sdk.BaseOperatorLink
before = set(sys.modules)
import airflow_provider_gemini_batch.hooks, airflow_provider_gemini_batch.links
print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} & {'requests', 'google', 'urllib3'}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
