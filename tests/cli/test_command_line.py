"""The command line against the emulator: each command, both forms of output, exit codes, pipes and interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from waiting import wait_for

from airflow_provider_gemini_batch.cli import airflow_commands
from airflow_provider_gemini_batch.cli.parser import COMMANDS, EXIT_CODES, main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

    Command = Callable[..., tuple[int, Any]]

MODEL = "gemini-2.5-flash"


@pytest.fixture
def service(gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", gemini_batch_emulator.connection(password="hidden-key"))
    return gemini_batch_emulator


@pytest.fixture
def command(service: Emulator, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command; returns its exit code and what it printed, read as JSON where it is."""
    assert service.url

    def call(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(list(words))
        out = capsys.readouterr().out
        return code, json.loads(out) if "--output" in words else out

    return call


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text("id,name\na,Ada\nb,Grace\n", encoding="utf-8")
    return path


def submitted(command: Command, rows: Path) -> str:
    words = ("--model", MODEL, "--prompt-template", "Who was {name}?", "--key-field", "id")
    code, jobs = command("submit", str(rows), *words, "--output", "json")
    assert code == 0
    name: str = jobs[0]["job"]
    return name


def test_rows_of_a_file_are_submitted_waited_for_and_read(service: Emulator, command: Command, rows: Path) -> None:
    name = submitted(command, rows)
    service.control.advance(60)
    code, jobs = command("wait", name, "--poll-interval", "0.1", "--output", "json")
    assert (code, jobs[0]["state"]) == (0, "SUCCEEDED")
    code, out = command("results", name)
    answers = {row["key"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert {key: row["status"] for key, row in answers.items()} == {"a": "ok", "b": "ok"}
    assert "Ada" in answers["a"]["text"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_results_go_into_a_file(service: Emulator, command: Command, rows: Path, tmp_path: Path, ending: str) -> None:
    name = submitted(command, rows)
    service.control.advance(60)
    target = tmp_path / "out" / f"rows.{ending}"
    code, out = command("results", name, "--to", str(target))
    assert (code, out) == (0, "")
    if ending == "parquet":
        from pyarrow import parquet

        assert sorted(parquet.read_table(target).column("key").to_pylist()) == ["a", "b"]
    else:
        assert len(target.read_text("utf-8").splitlines()) == 2


def test_results_of_a_job_that_runs_are_refused(command: Command, rows: Path, capsys: Any) -> None:
    name = submitted(command, rows)
    assert main(["results", name]) == 1
    assert f"use `gemini-batch wait {name}` first" in capsys.readouterr().err


def test_failed_rows_show_in_the_exit_code(service: Emulator, command: Command, rows: Path) -> None:
    service.control.faults(row_error_every=2)
    name = submitted(command, rows)
    service.control.advance(60)
    code, out = command("results", name)
    assert code == 3
    assert sorted(json.loads(line)["status"] for line in out.splitlines()) == ["error", "ok"]


def test_a_dry_run_counts_and_prices_and_sends_nothing(service: Emulator, command: Command, rows: Path) -> None:
    words = ("--model", MODEL, "--prompt-template", "Who was {name}?", "--generation-config", '{"maxOutputTokens": 9}')
    code, found = command("submit", str(rows), *words, "--dry-run", "--output", "json")
    assert code == 0
    assert (found[0]["rows"], found[0]["jobs"]) == (2, 1)
    assert found[0]["estimated_cost"].startswith("at most 0.0000")
    _, found = command("submit", str(rows), *words[:-2], "--dry-run", "--output", "json")
    assert found[0]["estimated_cost"].startswith("perhaps 0.00")
    assert service.control.books()["jobs"] == []


@pytest.mark.usefixtures("service")
def test_a_doubtful_csv_file_is_read_as_the_options_say(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_bytes("id|name\n1|Noëther\n".encode("cp1252"))
    words = ("--model", MODEL, "--prompt-template", "Who was {name}?", "--dry-run", "--output", "json")
    code, found = command("submit", str(path), *words, "--csv-delimiter", "|", "--encoding", "cp1252")
    assert (code, found[0]["rows"]) == (0, 1)


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("path", ["gs://bucket/rows.jsonl", "file:///rows.csv"])
def test_an_address_is_refused_where_a_file_is_meant(path: str, capsys: Any) -> None:
    assert main(["submit", path, "--model", MODEL, "--dry-run"]) == 1
    assert f"{path} is not a file on this machine" in capsys.readouterr().err


@pytest.mark.usefixtures("service")
def test_the_error_says_that_a_file_has_no_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("id,name\n", encoding="utf-8")
    assert main(["submit", str(path), "--model", MODEL, "--prompt-template", "{name}"]) == 1
    assert "has no rows; nothing was sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt-template", "{name}", "--csv-delimiter", "::"), "--csv-delimiter must be one character"),
        (("--prompt-template", "{name}", "--csv-delimiter", ""), "--csv-delimiter must be one character"),
        (("--prompt-template", "{name}", "--encoding", ""), "--encoding must be an encoding"),
        (("--prompt-template", "{name}", "--encoding", "base64"), "--encoding must be an encoding"),
        (("--prompt-template", "Who was {nobody}?"), "nobody"),
        (("--prompt-template", "{name}", "--generation-config", "[1]"), "--generation-config must be a JSON object"),
        (("--prompt-template", "{name}", "--model", "no such model"), "model"),
        (("--embeddings", "--key-field", "id", "--task-type", "query"), "--task-type must be 'RETRIEVAL_DOCUMENT' or"),
    ],
)
def test_a_bad_submission_is_refused_before_anything_is_sent(
    service: Emulator, rows: Path, capsys: Any, words: tuple[str, ...], said: str
) -> None:
    assert main(["submit", str(rows), "--model", MODEL, *words]) == 1
    assert said in capsys.readouterr().err
    assert service.control.books()["jobs"] == []


@pytest.mark.parametrize("command", ["submit", "check"])
def test_a_connection_that_shows_a_secret_is_refused_before_anything_is_sent(
    service: Emulator, rows: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    extra = {"backend": "vertex", "credential_config_file": '{"client_secret": "swordfish"}'}
    monkeypatch.setenv("AIRFLOW_CONN_SHOWN", json.dumps({"conn_type": "gemini_batch", "extra": extra}))
    words = [str(rows), "--model", MODEL, "--prompt-template", "{name}"] if command == "submit" else []
    assert main([command, *words, "--conn-id", "shown", "--staging-path", "gs://bucket/stage"]) != 0
    said = "".join(capsys.readouterr())
    assert "holds a secret in" in said.replace("\n", " ")
    assert "swordfish" not in said
    assert not service.control.books()["requests"]


@pytest.mark.parametrize("staging", [(), ("--staging-path", "staging"), ("--staging-path", "s3://bucket/staging")])
def test_rows_for_vertex_are_refused_without_a_folder_on_cloud_storage(
    service: Emulator, rows: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, staging: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", service.connection("vertex"))
    assert main(["submit", str(rows), "--model", MODEL, "--prompt-template", "{name}", *staging]) == 1
    assert "give --staging-path, a gs:// folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("list", "--location", "us-central1"), "--location"),
        (("show", "batches/abc", "--project-id", "p"), "--project-id"),
        (("check", "--staging-path", "gs://b/x"), "--staging-path"),
        (("submit", "rows.txt", "--model", MODEL, "--staging-path", "gs://b/x"), "--staging-path"),
    ],
)
@pytest.mark.usefixtures("service")
def test_an_option_that_the_service_of_the_connection_does_not_have_is_refused(
    words: tuple[str, ...], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == (3 if words[0] == "check" else 1)
    printed = capsys.readouterr()
    assert f"{option} is for Vertex AI, and connection 'gemini_batch_default' is for" in printed.out + printed.err


def test_jobs_are_listed_and_shown(service: Emulator, command: Command, rows: Path) -> None:
    names = [submitted(command, rows) for _ in range(3)]
    code, jobs = command("list", "--limit", "2", "--output", "json")
    assert (code, [job["name"] for job in jobs]) == (0, [names[2], names[1]])
    service.control.set_job(names[0], state="FAILED")
    _, jobs = command("list", "--state", "failed", "--output", "json")
    assert [job["name"] for job in jobs] == [names[0]]
    _, table = command("list")
    assert all(name in table for name in names)
    _, table = command("show", names[1])
    assert names[1] in table
    assert MODEL in table


@pytest.mark.usefixtures("service")
def test_a_table_takes_nothing_of_the_service_as_markup_or_as_a_control_sequence(command: Command, rows: Path) -> None:
    command("submit", str(rows), "--model", MODEL, "--prompt-template", "{name}", "--display-name", "[red]x[/red]")
    _, table = command("list")
    assert "[red]x" in table
    assert "\x1b" not in table


def test_jobs_are_cancelled_and_deleted_and_one_that_is_unknown_is_named(
    service: Emulator, command: Command, rows: Path
) -> None:
    name = submitted(command, rows)
    code, said = command("cancel", name, "batches/nobody", "--output", "json")
    assert code == 1
    assert said == [{"job": name, "result": "cancellation requested"}, {"job": "batches/nobody", "result": "not found"}]
    service.control.advance(60)
    _, said = command("cancel", name, "--output", "json")
    assert said[0]["result"] == "had already ended"
    _, said = command("delete", name, "--output", "json")
    assert said[0]["result"].startswith("would be deleted")
    code, said = command("delete", name, "--yes", "--output", "json")
    assert (code, said[0]["result"]) == (0, "deleted")
    assert command("show", name)[0] == 1


def test_waiting_ends_at_its_time_out_and_the_job_runs_on(service: Emulator, command: Command, rows: Path) -> None:
    service.control.faults(hold_running=True)
    name = submitted(command, rows)
    assert command("wait", name, "--poll-interval", "0.05", "--timeout", "0.2")[0] == 4
    assert "CANCEL" not in service.control.books()["jobs"][0]["state"]


def test_a_job_that_failed_shows_in_the_exit_code_of_waiting(service: Emulator, command: Command, rows: Path) -> None:
    name = submitted(command, rows)
    service.control.set_job(name, state="FAILED")
    assert command("wait", name, "--poll-interval", "0.1", "--output", "json")[0] == 3


@pytest.mark.usefixtures("service")
def test_a_file_is_uploaded(command: Command, rows: Path) -> None:
    code, files = command("upload", str(rows), "--mime-type", "text/csv", "--output", "json")
    assert code == 0
    assert files[0]["file"].startswith("files/")


def test_the_check_names_what_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, found = command("check", "--output", "json")
    assert code == 0
    assert {row["check"]: row["result"] for row in found}["list jobs"] == "ok"
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", json.dumps({"conn_type": "gemini_batch"}))
    code, found = command("check", "--output", "json")
    assert code == 3
    assert "API key" in next(row["detail"] for row in found if row["result"] == "FAILED")


@pytest.mark.usefixtures("service")
def test_a_connection_that_does_not_exist_is_named_with_the_way_to_make_it(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["list", "--conn-id", "nowhere"]) == 1
    assert "AIRFLOW_CONN_NOWHERE" in capsys.readouterr().err
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", '{"password": "hidden",')
    assert main(["list", "--conn-id", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert "AIRFLOW_CONN_NOWHERE in the environment cannot be read" in said
    assert "hidden" not in said


def test_the_key_is_in_no_output(command: Command, rows: Path, capsys: Any) -> None:
    name = submitted(command, rows)
    for words in (("list",), ("show", name), ("check",), ("show", "batches/nobody")):
        main(list(words))
    printed = capsys.readouterr()
    assert "hidden-key" not in printed.out + printed.err


def test_airflow_gets_the_same_commands() -> None:
    (group,) = airflow_commands()
    assert {command.name for command in group.subcommands} == {command.name for command in COMMANDS}  # type: ignore[union-attr]


@pytest.mark.slow
def test_airflows_parser_takes_our_commands(service: Emulator) -> None:
    environment = {**os.environ, "AIRFLOW_CONN_GEMINI_BATCH_DEFAULT": service.connection(password="hidden-key")}
    command = [sys.executable, "-m", "airflow", "gemini-batch", "list", "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_exit_code_is_documented() -> None:
    from airflow_provider_gemini_batch.cli import session

    names = ("DONE", "REFUSED", "NOT_SUCCEEDED", "TIMED_OUT", "INTERRUPTED", "PIPE_CLOSED")
    assert all(f"\n  {getattr(session, name)} " in EXIT_CODES for name in names)


def test_the_parser_loads_nothing_that_only_a_command_needs() -> None:
    script = (
        "import sys\n"
        "from airflow_provider_gemini_batch.cli.parser import build\n"
        "build()\n"
        "print([name for name in ('requests', 'google', 'rich', 'airflow', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def in_another_process(service: Emulator, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "AIRFLOW_CONN_GEMINI_BATCH_DEFAULT": service.connection(password="hidden-key")}
    module = "airflow_provider_gemini_batch.cli.parser"
    return subprocess.Popen(
        [sys.executable, "-m", module, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


@pytest.mark.slow
def test_a_closed_pipe_gives_no_traceback(service: Emulator, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"Count to {number}." for number in range(20_000)), encoding="utf-8")
    _, jobs = command("submit", str(path), "--model", MODEL, "--output", "json")
    service.control.advance(60)
    with in_another_process(service, "results", jobs[0]["job"]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 141
    assert "Traceback" not in said


@pytest.mark.slow
def test_an_interrupted_wait_leaves_the_job_alone_and_says_so(service: Emulator, command: Command, rows: Path) -> None:
    service.control.faults(hold_running=True)
    name = submitted(command, rows)

    def calls() -> int:
        return sum(service.control.books()["requests"].values())

    before = calls()
    with in_another_process(service, "wait", name, "--poll-interval", "1") as process:
        try:
            # Its second question to the service says that it waits.
            wait_for(lambda: calls() >= before + 2 or process.poll() is not None, "two calls")
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert name in said.decode()
    assert "CANCEL" not in service.control.books()["jobs"][0]["state"]


def test_waiting_prints_what_has_ended_also_when_another_job_is_unknown(
    service: Emulator, command: Command, rows: Path, capsys: Any
) -> None:
    name = submitted(command, rows)
    service.control.advance(60)
    code = main(["wait", name, "batches/unknown", "--poll-interval", "0.1", "--output", "json"])
    printed = capsys.readouterr()
    assert code == 1
    assert [job["name"] for job in json.loads(printed.out)] == [name]
    assert "batches/unknown" in printed.err


def test_a_command_that_is_stopped_while_it_loads_gives_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "airflow_provider_gemini_batch.cli.commands"

    class Stopped:
        @staticmethod
        def find_spec(wanted: str, *_: Any) -> None:
            if wanted == name:
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Stopped, *sys.meta_path])
    assert main(["list"]) == 130


def test_each_job_is_looked_up_even_if_the_one_before_failed(
    service: Emulator, command: Command, rows: Path, capsys: Any
) -> None:
    ended = submitted(command, rows)
    service.control.advance(60)
    service.control.faults(hold_running=True)
    running = submitted(command, rows)
    names = ("batches/unknown", running, ended)
    assert main(["wait", *names, "--poll-interval", "0.05", "--timeout", "0.1", "--output", "json"]) == 1
    printed = capsys.readouterr()
    assert [job["name"] for job in json.loads(printed.out)] == [ended]
    assert all(name in printed.err for name in names[:-1])
    assert main(["wait", running, "--poll-interval", "0.05", "--timeout", "0.1"]) == 4
    assert "Nothing found" not in capsys.readouterr().err


def test_one_time_out_is_for_all_jobs_together(
    service: Emulator, command: Command, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = submitted(command, rows)
    service.control.advance(60)
    service.control.faults(hold_running=True)
    running = submitted(command, rows)
    moments = iter((0.0, 0.0))
    clock = SimpleNamespace(monotonic=lambda: next(moments, 1e6))
    monkeypatch.setattr("airflow_provider_gemini_batch.cli.commands.time", clock)
    before = service.control.books()["requests"].get("get", 0)
    assert command("wait", ended, running, "--poll-interval", "0.05", "--timeout", "3")[0] == 4
    assert service.control.books()["requests"].get("get", 0) - before < 10, "the first job has used up the time"


def test_a_submission_that_is_interrupted_names_the_job_that_may_exist(
    service: Emulator, rows: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = requests.Session.request

    def interrupted(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        answer = send(session, method, url, **options)
        if "batchGenerateContent" in url:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(requests.Session, "request", interrupted)
    code = main(["submit", str(rows), "--model", MODEL, "--prompt-template", "{name}", "--output", "json"])
    printed = capsys.readouterr()
    assert code == 130
    assert json.loads(printed.out) == []
    assert len(service.control.books()["jobs"]) == 1
    assert "look for gb1-" in printed.err


@pytest.mark.usefixtures("service")
def test_streams_that_the_shell_has_closed_fail_nothing() -> None:
    words = f'"{sys.executable}" -m airflow_provider_gemini_batch.cli.parser list >&- 2>&-'
    assert subprocess.run(["sh", "-c", words], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("place", ["gs://bucket/rows.jsonl", "", "rows/", "rows.txt", "rows"])
def test_results_go_to_a_file_on_this_machine_or_nowhere(
    place: str, command: Command, rows: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rows.parent)
    before = set(rows.parent.iterdir())
    assert main(["results", submitted(command, rows), "--to", place]) == 1
    assert f"--to {place}: must be a file on this machine" in capsys.readouterr().err
    assert set(rows.parent.iterdir()) == before


@pytest.mark.parametrize("place", ["/proc/nobody/out.jsonl", "/dev/null/out.jsonl"])
def test_results_that_cannot_be_written_are_one_line(
    place: str, service: Emulator, command: Command, rows: Path, capsys: Any
) -> None:
    name = submitted(command, rows)
    service.control.advance(60)
    assert main(["results", name, "--to", place]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gemini-batch: ")
    assert error.count("\n") == 1


@pytest.mark.usefixtures("service")
def test_a_folder_is_refused_where_a_file_is_meant(rows: Path, capsys: Any) -> None:
    folder = str(rows.parent)
    assert main(["submit", folder, "--model", MODEL]) == 1
    assert f"{folder} is a folder: name one file" in capsys.readouterr().err
    for place in (folder, f"{folder}/new/"):
        assert main(["results", "batches/a", "--to", place]) == 1
        assert "must be a file on this machine" in capsys.readouterr().err


def test_a_refused_submission_does_not_say_that_nothing_was_found(service: Emulator, rows: Path, capsys: Any) -> None:
    assert service.url
    assert main(["submit", str(rows), "--model", "gemini-0.1-none", "--prompt-template", "{name}"]) == 1
    assert "Nothing found" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_whose_reader_has_gone_ends_as_documented(service: Emulator, command: Command, rows: Path) -> None:
    submitted(command, rows)
    with in_another_process(service, "list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141


@pytest.mark.usefixtures("service")
def test_a_state_that_does_not_exist_is_refused(capsys: Any) -> None:
    assert main(["list", "--state", "RUNING"]) == 1
    assert "--state RUNING: unknown; use QUEUED, PENDING, " in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("--limit", "0"), ("--limit", "many"), ("--limit", "1.5")])
def test_what_is_not_a_number_is_refused_in_words(command: Command, capsys: Any, name: str, value: str) -> None:
    with pytest.raises(SystemExit) as refused:
        command("list", name, value)
    assert refused.value.code == 2
    assert f"must be a whole number above 0, not {value}" in capsys.readouterr().err


def test_a_terminal_without_unicode_and_warnings_of_airflow_leave_json_whole(service: Emulator) -> None:
    requests.post(
        f"{service.url}/v1beta/models/{MODEL}:batchGenerateContent",
        json={
            "batch": {
                "displayName": "Gr\u00f6\u00dfe",
                "inputConfig": {"requests": {"requests": [{"request": {"contents": [{"parts": [{"text": "One."}]}]}}]}},
            }
        },
        headers={"x-goog-api-key": "k"},
        timeout=30,
        proxies={"http": ""},
    ).raise_for_status()
    # Airflow warns that a password of one character is too short to be masked.
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    environment["AIRFLOW_CONN_GEMINI_BATCH_DEFAULT"] = service.connection(password="k")
    module = "airflow_provider_gemini_batch.cli.parser"
    for form in ("json", "table"):
        done = subprocess.run(
            [sys.executable, "-m", module, "list", "--output", form], env=environment, capture_output=True, check=True
        )
        assert b"too short" in done.stderr
        if form == "json":
            assert [job["display_name"] for job in json.loads(done.stdout)] == ["Gr\u00f6\u00dfe"]
        else:
            assert b"Gr\\xf6\\xdfe" in done.stdout


@pytest.mark.parametrize("words", [("list",), ("list", "--state", "FAILED")])
def test_without_jobs_the_list_is_empty(words: tuple[str, ...], command: Command) -> None:
    assert command(*words, "--output", "json") == (0, [])
