"""The command line: start-up block, options, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.emulator.__main__ import load_responder, main, read_fault
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
        assert process.wait(10) == 0


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
