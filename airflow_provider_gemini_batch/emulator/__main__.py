"""The command line: ``python -m airflow_provider_gemini_batch.emulator``, also ``gemini-batch-emulator``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.faults import JOB_SWITCHES, LIVE_SWITCHES, REQUEST_KINDS
from airflow_provider_gemini_batch.emulator.server import Emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.emulator.answers import Responder


def _fault_list() -> str:
    """Return a line for each fault, as the help shows them."""
    known = {**JOB_SWITCHES, **LIVE_SWITCHES, **dict.fromkeys(REQUEST_KINDS, "a JSON object: {operation, times, ...}")}
    width = max(map(len, known)) + 4
    lines = [
        textwrap.fill(text, 100, initial_indent=f"  {name:<{width - 2}}", subsequent_indent=" " * width)
        for name, text in known.items()
    ]
    return "faults (--fault NAME=VALUE; values are JSON):\n" + "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gemini-batch-emulator",
        description="A local server that speaks the batch APIs of Gemini and Vertex AI.",
        epilog=_fault_list(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=int, default=8787, help="TCP port, 0 for a free one (default %(default)s)")
    add("--allow-remote", action="store_true", help="let other machines in")
    add("--hostname", action="append", default=[], help="a name that it answers to besides localhost; may be repeated")
    add("--https", action="store_true", help="speak https, with a certificate made on the spot")
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="SQLite file that keeps jobs and files over a restart",
    )
    add("--speed", type=float, default=1.0, help="how much faster than real time its clock runs (default %(default)s)")
    seconds = "seconds of its clock that a job is {} (default %(default)s)"
    add("--pending-seconds", type=float, default=1.0, help=seconds.format("PENDING"))
    add("--running-seconds", type=float, default=2.0, help=seconds.format("RUNNING"))
    add("--queued-seconds", type=float, default=0.0, help="the same for QUEUED, Vertex only (default %(default)s)")
    add("--job-seconds", type=float, help="how long a job takes, in place of the above; its counts move meanwhile")
    add("--token-seconds", type=float, default=3600.0, help="life of an access token (default %(default)s)")
    add("--responder", metavar="MODULE:FUNCTION", help="function that answers in place of the built-in one")
    add("--storage-endpoint", metavar="URL", help="Cloud Storage JSON API that Vertex jobs read and write")
    add("--model", action="append", default=[], help="a model besides the service's own (* is any text)")
    add("--api-key", action="append", help="an API key that is taken (default: any); may be repeated")
    add("--strict", action="store_true", default=None, help="refuse members of requests that nobody knows")
    add(
        "--fault", type=read_fault, action="append", default=[], metavar="NAME=VALUE", help="misbehave; may be repeated"
    )
    return parser


def read_fault(text: str) -> tuple[str, Any]:
    """Return name and value of ``name=value``; the value is JSON, or else taken as text."""
    name, equals, value = text.partition("=")
    if not equals:
        return name, True
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def load_responder(text: str) -> Responder:
    """Return the function that ``module:function`` names; SystemExit with a reason when there is none."""
    module, _, name = text.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Responder = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"--responder {text}: {error}; write module:function") from error
    return found


def _greeting(emulator: Emulator) -> str:
    vertex = f"{emulator.url}/emulator/connection?backend=vertex"
    curl = "" if emulator.ca_file is None else f"--cacert {emulator.ca_file} "
    trust = (
        ""
        if emulator.ca_file is None
        else f"""
Clients have to trust its certificate:
  export REQUESTS_CA_BUNDLE={emulator.ca_file}
"""
    )
    return f"""Gemini batch emulator at {emulator.url} (Ctrl-C stops it)
{trust}
Gemini API; any key will do:
  export AIRFLOW_CONN_GEMINI_BATCH_DEFAULT='{emulator.connection()}'

Vertex AI; the connection holds a service-account key made on the spot:
  export AIRFLOW_CONN_GEMINI_BATCH_VERTEX="$(curl -s {curl}'{vertex}')"

Control: GET {emulator.url}/emulator/books | bill
         POST {emulator.url}/emulator/faults | clock | jobs/NAME | reset
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit code."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    # Options that may be repeated have the name of one in place of the parameter's.
    several = {f"{name}s": options.pop(name) for name in ("hostname", "model", "api_key")}
    if options["responder"]:
        options["responder"] = load_responder(options["responder"])
    try:
        emulator = Emulator(faults=dict(options.pop("fault")), **several, **options)
        listener = emulator.bind()
    except (ValueError, TypeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(_greeting(emulator), flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        emulator.serve(listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
