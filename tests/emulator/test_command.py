"""The command line: start-up block, options, refusals."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.emulator.__main__ import load_responder, main, read_fault
from airflow_provider_gemini_batch.emulator.faults import JOB_SWITCHES, LIVE_SWITCHES, REQUEST_KINDS
from emulator.calls import Gemini

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "airflow_provider_gemini_batch.emulator"


def test_the_command_prints_connections_that_work_and_stops_on_a_signal(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        MODULE,
        "--port",
        "0",
        "--state",
        str(tmp_path / "s.sqlite"),
        "--fault",
        "thoughts=7",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            lines = [process.stdout.readline() for _ in range(3)]
            url = next(word for word in first.split() if word.startswith("http://"))
            connection = json.loads(lines[2].split("=", 1)[1].strip().strip("'"))
            assert connection == {"conn_type": "gemini_batch", "host": url, "password": "any-key"}
            assert httpx.get(f"{url}/emulator/health").json()["status"] == "ok"
            assert httpx.get(f"{url}/emulator/faults").json() == {"thoughts": 7}
            vertex = httpx.get(f"{url}/emulator/connection?backend=vertex").json()
            assert vertex["extra"]["keyfile_dict"]["token_uri"] == f"{url}/token"
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("shuffle", ("shuffle", True)),
        ("thoughts=5", ("thoughts", 5)),
        ('http={"operation":"get"}', ("http", {"operation": "get"})),
        ("unknown_state=BATCH_STATE_X", ("unknown_state", "BATCH_STATE_X")),
    ],
)
def test_faults_are_read_from_the_command_line(text: str, fault: tuple[str, Any]) -> None:
    assert read_fault(text) == fault


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0"], ["--fault", "bogus=1"]])  # noqa: S104 - refused is the point
def test_bad_options_end_with_a_reason(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--port", "0"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("gemini-batch-emulator: ")


def test_a_responder_is_found_by_name_or_refused() -> None:
    assert load_responder("json:dumps").__name__ == "dumps"
    with pytest.raises(SystemExit, match="write module:function"):
        load_responder("json:nothing")


def test_a_responder_answers_the_rows() -> None:
    with Emulator(responder=lambda _request, key: f"answer to {key}") as emulator, Gemini(emulator) as gemini:
        name = gemini.create(rows=1)
        emulator.control.advance(60)
        (row,) = gemini.rows(name)
        assert row["response"]["candidates"][0]["content"]["parts"][0]["text"] == "answer to k1"


def test_the_help_names_every_fault_and_the_default_of_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for name in (*JOB_SWITCHES, *LIVE_SWITCHES, *REQUEST_KINDS):
        assert re.search(rf"^  {name}\s", shown, re.MULTILINE), name
    folded = " ".join(shown.split())
    for text in ("PENDING (default 1.0)", "RUNNING (default 2.0)", "access token (default 3600.0)", "(default 8787)"):
        assert text in folded


def test_the_command_speaks_https_by_a_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", MODULE, "--port", "0", "--https", "--hostname", "gemini.internal"]
    command += ["--state", str(tmp_path / "s.sqlite"), "--job-seconds", "60", "--api-key", "only-this"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = next(word for word in process.stdout.readline().split() if word.startswith("https://"))
            lines = [process.stdout.readline() for _ in range(4)]
            bundle = next(line.partition("=")[2].strip() for line in lines if "REQUESTS_CA_BUNDLE" in line)
            with httpx.Client(verify=ssl.create_default_context(cafile=bundle), trust_env=False) as client:
                assert client.get(f"{url}/v1beta/batches?key=only-this").status_code == 200
                assert client.get(f"{url}/v1beta/batches?key=other").status_code == 400
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
