"""What the commands do. Loaded only when one of them runs, not by a parser."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, JobTimedOut, NotFound
from airflow_provider_gemini_batch.api.models import JobState
from airflow_provider_gemini_batch.cli.printing import Printer, ProgressBars
from airflow_provider_gemini_batch.cli.session import (
    DONE,
    INTERRUPTED,
    NOT_SUCCEEDED,
    PIPE_CLOSED,
    REFUSED,
    TIMED_OUT,
    connection_settings,
    open_client,
)
from airflow_provider_gemini_batch.runtime.client import client_from_settings, explain

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings


def run_in_airflow(arguments: Namespace) -> None:
    """Run a command of ``airflow gemini-batch`` and exit with its exit code."""
    keep_output_clean()
    sys.exit(run(arguments))


def run(arguments: Namespace) -> int:
    """Run one command and return its exit code; an error is one line on standard error."""
    try:
        code = _COMMANDS[arguments.subcommand](arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter would flush standard output once more at exit, and report an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("Stopped. Jobs are left as they are.", file=sys.stderr)
        return INTERRUPTED
    except GeminiBatchError as error:
        print(f"gemini-batch: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        print(f"gemini-batch: {what}", file=sys.stderr)
        return REFUSED
    return code


def keep_output_clean() -> None:
    """Send what Airflow logs to standard error, and print what a terminal cannot show as escapes.

    It changes the whole process, so only a process that runs one command may call it.
    """
    import structlog

    # None where the shell has closed them (`>&-`).
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  for as long as we run
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    factory: Any = structlog.get_config()["logger_factory"]
    if getattr(factory, "io", sys.stderr) is None:  # Airflow's own, which means standard output by this
        factory.io = sys.stderr.buffer if issubclass(factory.cls, structlog.BytesLogger) else sys.stderr
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# -- commands about jobs ---------------------------------------------------------------------------------------------


def _list(arguments: Namespace) -> int:
    wanted = {state.upper().removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_") for state in arguments.state or ()}
    if unknown := wanted - {state.value for state in JobState}:
        known = ", ".join(state.value for state in JobState)
        raise ConfigurationError(f"--state {min(unknown)}: unknown; use {known}")
    found: list[BatchJob] = []
    with open_client(arguments) as client:
        for job in client.list_all(page_size=min(arguments.limit, 100), brief=True):
            if not wanted or job.state.value in wanted:
                found.append(job)
            if len(found) == arguments.limit:
                break
    Printer(arguments.output).jobs(found)
    return DONE


def _show(arguments: Namespace) -> int:
    with open_client(arguments) as client:
        job = client.get(arguments.job_name)
    Printer(arguments.output).job(job)
    return DONE


def _wait(arguments: Namespace) -> int:
    names = list(dict.fromkeys(arguments.job_names))
    ended: list[BatchJob] = []
    errors: list[GeminiBatchError] = []
    is_interrupted = False
    until = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with open_client(arguments) as client, ProgressBars(names) as bars:
        try:
            for name in names:
                # One by one, so that ended jobs are printed even if an interruption or an error follows.
                try:
                    bars.update(client.get(name, brief=True))
                    timeout = None if until is None else max(0.0, until - time.monotonic())
                    job = client.wait(
                        name, poll_interval=arguments.poll_interval, timeout=timeout, on_progress=bars.update
                    )
                    ended.append(job)
                except GeminiBatchError as error:  # noqa: PERF203  each job is looked at
                    errors.append(error)
                    bars.say(f"gemini-batch: {error}")
        except KeyboardInterrupt:
            is_interrupted = True
    if is_interrupted:
        left = ", ".join(name for name in names if name not in {job.name for job in ended})
        print(f"Stopped waiting. Left as they are: {left}", file=sys.stderr)
    Printer(arguments.output).jobs(ended, is_all=not (errors or is_interrupted))
    if is_interrupted:
        return INTERRUPTED
    if errors:
        return TIMED_OUT if all(isinstance(error, JobTimedOut) for error in errors) else REFUSED
    return DONE if all(job.succeeded for job in ended) else NOT_SUCCEEDED


def _cancel(arguments: Namespace) -> int:
    with open_client(arguments) as client:
        return _for_each(arguments, lambda name: _cancel_one(client, name))


def _cancel_one(client: BatchClient, name: str) -> str:
    if client.get(name, brief=True).is_done:
        return "had already ended"
    client.cancel(name)
    return "cancellation requested"


def _delete(arguments: Namespace) -> int:
    with open_client(arguments) as client:
        if not arguments.yes:
            return _for_each(arguments, lambda name: f"would be deleted ({client.get(name, brief=True).state.words})")
        return _for_each(arguments, lambda name: _delete_one(client, name))


def _delete_one(client: BatchClient, name: str) -> str:
    client.delete(name)
    return "deleted"


def _for_each(arguments: Namespace, act: Callable[[str], str]) -> int:
    """Act on every job, even after an error, and return the exit code: whether all succeeded."""
    rows, code = [], DONE
    for name in dict.fromkeys(arguments.job_names):
        try:
            what = act(name)
        except NotFound:
            what, code = "not found", REFUSED
        except GeminiBatchError as error:
            what, code = str(error), REFUSED
        rows.append({"job": name, "result": what})
    Printer(arguments.output).rows(("job", "result"), rows)
    return code


def _results(arguments: Namespace) -> int:
    from airflow_provider_gemini_batch.rows.landing import ResponseSource, land
    from airflow_provider_gemini_batch.rows.writers import open_sink
    from airflow_provider_gemini_batch.runtime.responses_task import spec_of_job

    if arguments.to is not None:
        _check_target(arguments.to)
    with open_client(arguments) as client, tempfile.TemporaryDirectory(prefix="gemini-batch-") as folder:
        job = client.get(arguments.job_name)
        if not job.is_done:
            raise ConfigurationError(f"{job.name} is still {job.state.words}: use `gemini-batch wait {job.name}` first")
        spec = spec_of_job(job, keep_response=arguments.keep_response)
        with contextlib.ExitStack() as stack:
            target = _target(arguments.to, stack)
            sink = open_sink(arguments.to or "rows.jsonl", target, kind=spec.kind, response=arguments.keep_response)
            summary = land([ResponseSource(lambda: client.get_responses(job))], sink, spec, Path(folder))
            sink.close()
    print(f"{summary.rows} rows, {summary.succeeded} ok, {summary.failed} failed", file=sys.stderr)
    return DONE if job.succeeded and not summary.failed else NOT_SUCCEEDED


def _check_target(path: str) -> None:
    if "://" in path or Path(path).is_dir() or not path.lower().endswith((".jsonl", ".ndjson", ".parquet")):
        raise ConfigurationError(f"--to {path}: must be a file on this machine, ending in .jsonl, .ndjson or .parquet")


def _target(path: str | None, stack: contextlib.ExitStack) -> Any:
    """Return where to write rows: standard output, or a file that appears when it is complete."""
    if path is None:
        return sys.stdout.buffer
    from airflow_provider_gemini_batch.rows.files import LocalFiles

    return stack.enter_context(LocalFiles().write_whole(str(Path(path).absolute())))


# -- files, rows, housekeeping ----------------------------------------------------------------------------------------


def _upload(arguments: Namespace) -> int:
    path = Path(arguments.input_path)
    if not path.is_file():
        raise ConfigurationError(f"{path} is not a file")
    with open_client(arguments) as client:
        file = client.upload_file(path, display_name=arguments.display_name or path.name, mime_type=arguments.mime_type)
    expires = file.expiration_time.isoformat() if file.expiration_time else ""
    columns = ("file", "bytes", "state", "expires")
    row = {"file": file.name, "bytes": file.size_bytes, "state": file.state, "expires": expires}
    Printer(arguments.output).rows(columns, [row])
    return DONE


def _submit(arguments: Namespace) -> int:
    from airflow_provider_gemini_batch.cli.submit import submit

    return submit(arguments)


def _sweep(arguments: Namespace) -> int:
    from airflow_provider_gemini_batch.cli.sweep import sweep

    return sweep(arguments)


def _check(arguments: Namespace) -> int:
    """Check what a Dag would need and print a line for each."""
    from airflow_provider_gemini_batch.runtime.readiness import is_installed

    findings: list[dict[str, Any]] = []

    def note(what: str, *, ok: bool | None, detail: str) -> None:
        findings.append({"check": what, "result": "-" if ok is None else "ok" if ok else "FAILED", "detail": detail})

    settings: ConnectionSettings | None = None
    try:
        settings = connection_settings(arguments)
        note("connection", ok=True, detail=f"{settings.conn_id}: {settings.service.value}")
        settings.check_safe()
        with client_from_settings(settings) as client:
            client.list(page_size=1)
            note("list jobs", ok=True, detail="the service accepted the credentials")
            _check_staging(arguments.staging_path or settings.staging_path, client, note)
    except GeminiBatchError as error:
        note("connection" if settings is None else "list jobs", ok=False, detail=explain(error, settings))
    for extra, module in _EXTRAS.items():
        there = is_installed(module)
        note(f"extra {extra}", ok=True if there else None, detail="installed" if there else f"missing: {module}")
    Printer(arguments.output).rows(("check", "result", "detail"), findings)
    return NOT_SUCCEEDED if any(finding["result"] == "FAILED" for finding in findings) else DONE


_EXTRAS = {
    "vertex": "gcsfs",
    "bigquery": "google.cloud.bigquery",
    "parquet": "pyarrow",
    "genai-prices": "genai_prices",
}


def _check_staging(path: str | None, client: BatchClient, note: Callable[..., None]) -> None:
    """Write a small object to the staging folder and delete it."""
    if not path:
        note("staging_path", ok=None, detail="not set; Vertex AI needs one for rows of your own")
        return
    if not path.startswith("gs://"):
        note("staging_path", ok=None, detail="only gs:// folders are tried here")
        return
    probe = f"{path.rstrip('/')}/gemini-batch-check-{os.getpid()}.txt"
    try:
        with client.storage.write_whole(probe) as handle:
            handle.write(b"written by `gemini-batch check`\n")
        client.storage.delete(probe)
    except (GeminiBatchError, ImportError) as error:
        note("staging_path", ok=False, detail=str(error))
    else:
        note("staging_path", ok=True, detail=f"{path} can be written")


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "list": _list,
    "show": _show,
    "wait": _wait,
    "cancel": _cancel,
    "delete": _delete,
    "results": _results,
    "submit": _submit,
    "upload": _upload,
    "sweep": _sweep,
    "check": _check,
}
