"""Jobs of the Developer API's dialect: states, lists, endings, and the faults that bear on them."""

from __future__ import annotations

import gc
import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from waiting import wait_for

from airflow_provider_gemini_batch.emulator import Emulator
from emulator.calls import MODEL, Gemini

if TYPE_CHECKING:
    from pathlib import Path


def test_a_job_goes_from_pending_through_running_to_its_answers(gemini: Gemini) -> None:
    gemini.emulator.control.speed(0)
    name = gemini.create(rows=10)
    assert re.fullmatch(r"batches/[a-z0-9]{36}", name)
    assert gemini.state(name) == "PENDING"
    gemini.emulator.control.advance(2)
    running = gemini.get(name)
    assert running["metadata"]["batchStats"] == {
        "requestCount": "10",
        "successfulRequestCount": "5",
        "pendingRequestCount": "5",
    }
    assert "done" not in running
    gemini.emulator.control.advance(1.01)
    ended = gemini.get(name)
    assert ended["done"] is True
    assert ended["metadata"]["output"] == {k: v for k, v in ended["response"].items() if k != "@type"}
    assert [row["metadata"]["key"] for row in gemini.rows(name)] == [f"k{n}" for n in range(1, 11)]


def test_keys_are_checked_and_separate_projects(gemini: Gemini) -> None:
    name = gemini.create()
    url = gemini.emulator.url
    assert httpx.get(f"{url}/v1beta/{name}").status_code == 403
    assert httpx.get(f"{url}/v1beta/{name}?key=bad-one").json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert httpx.get(f"{url}/v1beta/{name}?key=other").status_code == 404
    assert httpx.get(f"{url}/v1beta/{name}?key=project:second").status_code == 200
    assert httpx.get(f"{url}/v1beta/batches?key=other").json() == {}


def test_a_body_with_unknown_members_or_no_source_creates_nothing(gemini: Gemini) -> None:
    ok: dict[str, Any] = {"requests": {"requests": [{"request": {"contents": []}}]}}
    bodies: list[dict[str, Any]] = [
        {"batch": {"src": {}}},
        {"batch": {"inputConfig": ok, "display_name": 5}},
        {"batch": {}},
        {"batch": {"inputConfig": {**ok, "fileName": "files/x"}}},
        {"batch": {"inputConfig": {"requests": {"requests": []}}}},
        {"batch": {"inputConfig": {"requests": {"requests": [{"request": {"content": {}}}]}}}},
        {"batch": {"inputConfig": {"requests": {"requests": [{"request": {"model": "models/gemini-other"}}]}}}},
    ]
    for body in bodies:
        answer = gemini.http.post(f"{MODEL}:batchGenerateContent", json=body)
        assert answer.status_code == 400, body
    assert gemini.http.post("/v1beta/models/nope:batchGenerateContent", json={}).status_code == 404
    assert gemini.http.post("/v1beta/models/gemini-embedding-001:batchGenerateContent", json={}).status_code == 404
    assert gemini.emulator.control.books()["created"] == 0


def test_an_inline_body_over_the_limit_is_refused_by_size(gemini: Gemini) -> None:
    answer = gemini.http.post(f"{MODEL}:batchGenerateContent", content=b" " * 20_971_521)
    assert answer.json()["error"]["message"] == "Request payload size exceeds the limit: 20971520 bytes."


def test_pages_hold_no_job_twice_and_name_a_next_one_only_when_there_is_one(gemini: Gemini) -> None:
    names = [gemini.create(rows=1) for _ in range(4)]
    first = gemini.http.get("/v1beta/batches", params={"pageSize": 2}).json()
    second = gemini.http.get("/v1beta/batches", params={"pageSize": 2, "pageToken": first["nextPageToken"]}).json()
    assert [job["name"] for job in first["operations"] + second["operations"]] == names[::-1]
    assert "nextPageToken" not in second
    assert gemini.http.get("/v1beta/batches?pageToken=junk").status_code == 400
    assert gemini.http.get("/v1beta/batches?pageSize=-1").status_code == 400


def test_a_list_has_no_inline_rows_and_takes_a_mask(gemini: Gemini) -> None:
    name = gemini.create()
    gemini.emulator.control.advance(60)
    (entry,) = gemini.http.get("/v1beta/batches").json()["operations"]
    assert "output" not in entry["metadata"]
    mask = "operations(name,done,metadata/state),nextPageToken"
    masked = gemini.http.get("/v1beta/batches", params={"fields": mask}).json()
    assert masked == {"operations": [{"name": name, "done": True, "metadata": {"state": "BATCH_STATE_SUCCEEDED"}}]}
    gemini.emulator.control.faults(refuse_fields=True)
    assert gemini.http.get("/v1beta/batches", params={"fields": mask}).status_code == 400


@pytest.mark.parametrize(
    ("ending", "state", "answers"),
    [
        ("cancelled", "CANCELLED", None),
        ("succeeded", "SUCCEEDED", ["response"] * 5 + ["error"] * 5),
        ("cancelled_partial", "CANCELLED", ["response"] * 5),
    ],
)
def test_a_running_job_that_is_cancelled_ends_as_told(
    gemini: Gemini, ending: str, state: str, answers: list[str] | None
) -> None:
    gemini.emulator.control.faults(cancel_ending=ending)
    gemini.emulator.control.speed(0)
    name = gemini.create(rows=10)
    gemini.emulator.control.advance(2)
    assert gemini.http.post(f"/v1beta/{name}:cancel").json() == {}
    job = gemini.get(name)
    assert job["metadata"]["state"] == f"BATCH_STATE_{state}"
    output = job["metadata"].get("output")
    rows = output and [
        next(k for k in row if k != "metadata") for row in output["inlinedResponses"]["inlinedResponses"]
    ]
    assert rows == answers
    assert gemini.http.post(f"/v1beta/{name}%3Acancel").json() == {}
    assert gemini.state(name) == state


def test_a_job_that_nobody_finishes_expires_after_48_hours(gemini: Gemini) -> None:
    gemini.emulator.control.faults(hold_pending=True)
    name = gemini.create()
    gemini.emulator.control.advance(47 * 3600)
    assert gemini.state(name) == "PENDING"
    gemini.emulator.control.advance(3601)
    assert gemini.get(name)["error"]["code"] == 4
    assert gemini.state(name) == "EXPIRED"


def test_row_faults_come_out_as_told(gemini: Gemini) -> None:
    gemini.emulator.control.faults(
        row_error_every=5,
        row_error_message=None,
        missing_every=7,
        duplicate_every=6,
        extra_rows=2,
        blocked_every=4,
        truncated_every=3,
    )
    name = gemini.create(rows=10)
    gemini.emulator.control.advance(60)
    rows = gemini.rows(name)
    keys = [(row.get("metadata") or row)["key"] for row in rows]
    assert keys == ["k1", "k2", "k3", "k4", "k5", "k6", "k6", "k8", "k9", "k10", "extra-1", "extra-2"]
    assert rows[4]["error"] == {"code": 13}
    assert rows[2]["response"]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert rows[3]["response"]["promptFeedback"] == {"blockReason": "SAFETY"}
    (entry,) = gemini.emulator.control.books()["jobs"]
    assert (entry["succeeded"], entry["failed"]) == (8, 2)


def test_row_errors_of_rounds_hit_only_the_jobs_that_are_meant(gemini: Gemini) -> None:
    gemini.emulator.control.faults(row_error_every=1, row_error_rounds=r"-0\.0$")
    first, second = gemini.create(display_name="x-0.0"), gemini.create(display_name="x-0.1")
    gemini.emulator.control.advance(60)
    assert all("error" in row for row in gemini.rows(first))
    assert all("response" in row for row in gemini.rows(second))


def test_endings_may_be_ordered_for_the_next_jobs(gemini: Gemini) -> None:
    gemini.emulator.control.faults(job_ending={"state": "FAILED", "code": 8, "message": "Quota.", "times": 1})
    first, second = gemini.create(), gemini.create()
    gemini.emulator.control.advance(60)
    assert gemini.get(first)["error"] == {"code": 8, "message": "Quota."}
    assert gemini.state(second) == "SUCCEEDED"


def test_the_control_may_put_a_job_into_any_state(gemini: Gemini) -> None:
    name = gemini.create()
    control = gemini.emulator.control
    control.set_job(name, state="BATCH_STATE_DREAMING")
    control.advance(60)
    assert gemini.state(name) == "DREAMING"
    control.set_job(name, state=None)
    control.advance(60)
    assert gemini.state(name) == "SUCCEEDED"
    control.set_job(name, state="FAILED", error={"code": 3, "message": "no"})
    assert gemini.get(name)["error"] == {"code": 3, "message": "no"}
    control.set_job(name, gone=True)
    assert gemini.http.get(f"/v1beta/{name}").status_code == 404
    with pytest.raises(KeyError):
        control.set_job("batches/none", gone=True)


def test_a_late_output_is_absent_or_refused_until_its_time(gemini: Gemini) -> None:
    gemini.emulator.control.speed(0)
    gemini.emulator.control.faults(late_output=30)
    absent = gemini.create_from_file(3)
    gemini.emulator.control.faults(late_output_kind="refused")
    refused = gemini.create_from_file(3)
    gemini.emulator.control.advance(10)
    assert "output" not in gemini.get(absent)["metadata"]
    path = f"/v1beta/{gemini.get(refused)['metadata']['output']['responsesFile']}:download?alt=media"
    assert gemini.http.get(path).status_code == 403
    gemini.emulator.control.advance(31)
    assert "output" in gemini.get(absent)["metadata"]
    assert gemini.http.get(path).status_code == 200


def test_http_faults_hit_the_named_operation_so_many_times(gemini: Gemini) -> None:
    name = gemini.create()
    gemini.emulator.control.faults(
        http=[
            {"operation": "get", "status": 429, "times": 1, "retry_info": "19s", "retry_after": 7},
            {"operation": "list", "status": 502},
            {"operation": "cancel", "status": 503, "times": 1, "after_effect": True, "body": "array"},
        ]
    )
    limited = gemini.http.get(f"/v1beta/{name}")
    assert limited.status_code == 429
    assert limited.headers["retry-after"] == "7"
    assert limited.json()["error"]["details"][-1]["retryDelay"] == "19s"
    assert gemini.http.get(f"/v1beta/{name}").status_code == 200
    assert gemini.http.get("/v1beta/batches").text.startswith("<html>")
    assert gemini.http.post(f"/v1beta/{name}:cancel").json()[0]["error"]["code"] == 503
    assert gemini.state(name) == "CANCELLED"


def test_a_slow_service_acts_also_when_nobody_waits_for_the_answer(gemini: Gemini) -> None:
    gemini.emulator.control.faults(slow={"operation": "create", "when": "before", "seconds": 0.3, "times": 1})
    gemini.http.timeout = httpx.Timeout(0.1)
    with pytest.raises(httpx.ReadTimeout):
        gemini.create()
    wait_for(lambda: gemini.emulator.control.books()["created"], "the job")
    assert gemini.emulator.control.books()["created"] == 1


def test_a_call_that_began_before_everything_was_forgotten_does_nothing_afterwards(gemini: Gemini) -> None:
    control, slow = gemini.emulator.control, {"operation": "create", "when": "before", "seconds": 0.3, "times": 1}
    control.faults(slow=slow)
    with pytest.raises(httpx.ReadTimeout):
        gemini.http.post("/v1beta/models/gemini-2.5-flash:batchGenerateContent", json={}, timeout=0.1)
    control.reset()
    control.faults(slow=slow)
    gemini.create()  # takes as long, so that the first one has woken up before
    assert control.books()["created"] == 1


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
def test_a_reset_comes_before_or_after_the_effect(gemini: Gemini, when: str, created: int) -> None:
    gemini.emulator.control.faults(reset={"operation": "create", "when": when, "times": 1})
    with pytest.raises(httpx.TransportError):
        gemini.create()
    assert gemini.emulator.control.books()["created"] == created
    gemini.create()


def test_garbage_hides_a_create_that_was_done(gemini: Gemini) -> None:
    gemini.emulator.control.faults(garbage={"operation": "create", "times": 1})
    with pytest.raises(json.JSONDecodeError):
        gemini.create()
    assert gemini.emulator.control.books()["created"] == 1


def test_lists_can_lag_be_stale_have_empty_pages_and_bound_the_page_size(gemini: Gemini) -> None:
    control = gemini.emulator.control
    control.faults(list_lag=3600, stale_counters=True, max_page=100)
    name = gemini.create()
    assert gemini.http.get("/v1beta/batches").json() == {}
    assert gemini.get(name)["name"] == name
    control.advance(3601)
    (entry,) = gemini.http.get("/v1beta/batches").json()["operations"]
    assert entry["metadata"]["batchStats"] == {"requestCount": "3", "pendingRequestCount": "3"}
    assert gemini.http.get("/v1beta/batches?pageSize=101").status_code == 400
    control.faults(empty_page={"value": True, "times": 1})
    empty = gemini.http.get("/v1beta/batches").json()
    assert list(empty) == ["nextPageToken"]
    follow = gemini.http.get("/v1beta/batches", params={"pageToken": empty["nextPageToken"]}).json()
    assert follow["operations"][0]["name"] == name


def test_faults_are_shown_cleared_and_refused_by_name_over_http(gemini: Gemini) -> None:
    answer = gemini.http.post("/emulator/faults", json={"shuffle": True, "http": {"operation": "get", "status": 500}})
    assert answer.json()["http"][0]["status"] == 500
    assert "No fault named" in gemini.http.post("/emulator/faults", json={"bogus": 1}).json()["error"]["message"]
    gemini.http.delete("/emulator/faults")
    assert gemini.http.get("/emulator/faults").json() == {}


def test_jobs_files_and_counts_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    with Emulator(state=state, running_seconds=3600) as emulator, Gemini(emulator) as gemini:
        gone = gemini.create()
        gemini.http.delete(f"/v1beta/{gone}")
        name = gemini.create_from_file(300)
        session = gemini.start_upload(524_288 + 5).headers["x-goog-upload-url"]
        gemini.send(session, "upload", 0, b"a" * 524_288)
        before = emulator.control.health()["now"]
    with Emulator(state=state, running_seconds=3600) as emulator, Gemini(emulator) as gemini:
        assert emulator.control.health()["now"] >= before
        assert emulator.control.books()["created"] == 2
        assert gemini.http.get(f"/v1beta/{gone}").status_code == 404
        emulator.control.advance(4000)
        file = gemini.get(name)["metadata"]["output"]["responsesFile"]
        assert len(gemini.http.get(f"/download/v1beta/{file}:download?alt=media").text.splitlines()) == 300
        session = emulator.url + session[session.index("/upload") :]
        assert gemini.send(session, "query").headers["x-goog-upload-size-received"] == "524288"
        final = gemini.send(session, "upload, finalize", 524_288, b"abcde")
        assert final.json()["file"]["sizeBytes"] == str(524_288 + 5)


def test_a_host_that_is_not_loopback_has_to_be_allowed() -> None:
    with pytest.raises(ValueError, match="loopback"):
        Emulator(host="0.0.0.0")  # noqa: S104 - refused is what we want to see


def test_an_emulator_that_never_serves_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="No fault named"):
        Emulator(port=0, faults={"bogus": 1})
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_held_jobs_stay_until_the_faults_are_cleared(gemini: Gemini) -> None:
    control = gemini.emulator.control
    control.faults(hold_pending={"value": True, "times": 1})
    held, free = gemini.create(), gemini.create()
    control.advance(3600)
    assert (gemini.state(held), gemini.state(free)) == ("PENDING", "SUCCEEDED")
    control.clear_faults()
    control.advance(0)
    assert gemini.state(held) == "SUCCEEDED"


def test_jobs_may_expire_early_or_run_under_an_unknown_state(gemini: Gemini) -> None:
    control = gemini.emulator.control
    control.speed(0)
    control.faults(expire=True)
    expired = gemini.create()
    control.faults(expire=None, unknown_state="BATCH_STATE_REHEARSING")
    unknown = gemini.create()
    control.advance(2)
    assert gemini.state(unknown) == "REHEARSING"
    control.advance(60)
    assert (gemini.state(expired), gemini.state(unknown)) == ("EXPIRED", "SUCCEEDED")
    assert "output" not in gemini.get(expired)["metadata"]


def test_inline_answers_go_when_their_retention_is_over(gemini: Gemini) -> None:
    name = gemini.create()
    gemini.emulator.control.advance(60)
    gemini.emulator.control.advance(48 * 3600)
    assert gemini.state(name) == "SUCCEEDED"
    assert "response" not in gemini.get(name)


def test_answers_can_be_shuffled_or_without_keys(gemini: Gemini) -> None:
    gemini.emulator.control.faults(shuffle=True)
    shuffled = gemini.create(rows=20)
    gemini.emulator.control.faults(shuffle=None, metadata_missing=True)
    unnamed = gemini.create(rows=2)
    gemini.emulator.control.advance(60)
    keys = [row["metadata"]["key"] for row in gemini.rows(shuffled)]
    assert keys != [f"k{n}" for n in range(1, 21)]
    assert sorted(keys) == sorted(f"k{n}" for n in range(1, 21))
    assert [set(row) for row in gemini.rows(unnamed)] == [{"response"}] * 2


def test_the_control_works_over_http_too(gemini: Gemini) -> None:
    name = gemini.create()
    assert gemini.http.post("/emulator/clock", json={"speed": 0, "advance": 60}).json()["speed"] == 0
    assert gemini.state(name) == "SUCCEEDED"
    entry = gemini.http.post(f"/emulator/jobs/{name}", json={"state": "FAILED"}).json()
    assert entry["state"] == "FAILED"
    assert gemini.http.post("/emulator/jobs/none", json={}).status_code == 404
    books = gemini.http.get("/emulator/books").json()
    assert books["created"] == 1
    assert books["requests"]["create"] == 1
    gemini.http.post("/emulator/reset")
    assert gemini.http.get("/emulator/books").json()["jobs"] == []


def test_an_ended_job_may_show_any_state_beside_done(gemini: Gemini) -> None:
    gemini.emulator.control.faults(done_state="BATCH_STATE_PARTIALLY_SUCCEEDED")
    name = gemini.create_from_file(3)
    assert gemini.state(name) == "PENDING"
    gemini.emulator.control.advance(60)
    job = gemini.get(name)
    assert (job["done"], job["metadata"]["state"]) == (True, "BATCH_STATE_PARTIALLY_SUCCEEDED")
    assert job["response"]["responsesFile"] == job["metadata"]["output"]["responsesFile"]


def test_inline_answers_may_be_nested_once_only_and_be_null(gemini: Gemini) -> None:
    gemini.emulator.control.faults(inline_nesting="single", null_every=2)
    name = gemini.create(rows=3)
    gemini.emulator.control.advance(60)
    answers = gemini.get(name)["response"]["inlinedResponses"]
    assert [answer and answer["metadata"]["key"] for answer in answers] == ["k1", None, "k3"]


def test_a_new_job_may_not_be_known_yet(gemini: Gemini) -> None:
    gemini.emulator.control.speed(0)
    gemini.emulator.control.faults(create_lag=30)
    name = gemini.create()
    assert gemini.http.get(f"/v1beta/{name}").status_code == 404
    assert gemini.http.post(f"/v1beta/{name}:cancel").status_code == 404
    gemini.emulator.control.advance(30)
    assert gemini.http.get(f"/v1beta/{name}").status_code == 200


@pytest.mark.parametrize(("status", "word"), [(400, "FAILED_PRECONDITION"), (409, "ABORTED"), (404, "NOT_FOUND")])
def test_a_cancel_that_comes_too_late_may_be_refused(gemini: Gemini, status: int, word: str) -> None:
    name = gemini.create()
    gemini.emulator.control.faults(cancel_refused=status, hold_running=True)
    assert gemini.http.post(f"/v1beta/{name}:cancel").status_code == 200
    gemini.emulator.control.advance(60)
    late = gemini.http.post(f"/v1beta/{name}:cancel")
    assert (late.status_code, late.json()["error"]["status"]) == (status, word)


def test_jobs_may_take_long_while_their_counts_move() -> None:
    with Emulator(job_seconds=100) as emulator, Gemini(emulator) as gemini:
        emulator.control.speed(0)
        emulator.control.faults(row_error_every=4)
        name = gemini.create(rows=20)
        emulator.control.advance(9)
        assert gemini.state(name) == "PENDING"
        emulator.control.advance(46)
        stats = gemini.get(name)["metadata"]["batchStats"]
        assert stats == {
            "requestCount": "20",
            "successfulRequestCount": "8",
            "failedRequestCount": "2",
            "pendingRequestCount": "10",
        }
        emulator.control.advance(46)
        assert gemini.state(name) == "SUCCEEDED"
