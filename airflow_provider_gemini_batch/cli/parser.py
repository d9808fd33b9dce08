"""The commands and their options, as data, for Airflow's parser and our own."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

EXIT_CODES = """exit codes:
  0    done
  1    refused: a mistake in the arguments or the connection, or the service said no
  2    the command line cannot be read
  3    the job did not succeed, or (check) something is missing
  4    wait: the time given with --timeout is over, the job is still running
  130  stopped with Ctrl-C; jobs are left alone
  141  whatever read the output has closed it"""


class Option(NamedTuple):
    """One option or argument, as for :meth:`argparse.ArgumentParser.add_argument`."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    help: str
    options: tuple[Option, ...]


def option(*flags: str, **settings: Any) -> Option:
    """Return an option."""
    return Option(flags, settings)


def seconds(text: str) -> float:
    """Return a positive number of seconds."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 10**9:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text}")


def whole(text: str) -> int:
    """Return a whole number above 0."""
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text}")


_CONNECTION = (
    option("--conn-id", default="gemini_batch_default", help="Airflow connection (default: %(default)s)"),
    option("--location", help="Vertex AI location, in place of the connection's"),
    option("--project-id", help="Google Cloud project, in place of the connection's"),
)
_OUTPUT = option("--output", choices=("table", "json"), default="table", help="how to print (default: %(default)s)")
_JOB = option("job_name", metavar="JOB", help="batches/... or projects/.../batchPredictionJobs/...")
_JOBS = option("job_names", metavar="JOB", nargs="+", help="batches/... or projects/.../batchPredictionJobs/...")
_YES = option("--yes", action="store_true", help="do it; without, only say what would be done")

COMMANDS = (
    Command(
        "list",
        "list jobs, newest first",
        (
            option("--state", action="append", metavar="STATE", help="only this state; may be repeated"),
            option("--limit", type=whole, default=25, help="how many jobs at most (default: %(default)s)"),
            _OUTPUT,
            *_CONNECTION,
        ),
    ),
    Command("show", "show one job", (_JOB, _OUTPUT, *_CONNECTION)),
    Command(
        "wait",
        "wait until jobs have ended; Ctrl-C leaves them running",
        (
            _JOBS,
            option("--timeout", type=seconds, help="give up after so many seconds (default: never)"),
            option("--poll-interval", type=seconds, default=30.0, help="seconds between checks (default: %(default)g)"),
            _OUTPUT,
            *_CONNECTION,
        ),
    ),
    Command("cancel", "request the cancellation of jobs", (_JOBS, _OUTPUT, *_CONNECTION)),
    Command(
        "delete",
        "remove jobs and their results from the service",
        (_JOBS, _YES, _OUTPUT, *_CONNECTION),
    ),
    Command(
        "results",
        "write the result rows of a job that has ended",
        (
            _JOB,
            option("--to", metavar="FILE", help=".jsonl or .parquet; without, JSON lines go to standard output"),
            option("--keep-response", action="store_true", help="put the whole response of the service into each row"),
            *_CONNECTION,
        ),
    ),
    Command(
        "submit",
        "check a file of rows and submit it",
        (
            option("input_path", metavar="FILE", help="JSON lines, texts, CSV or Parquet"),
            option("--model", required=True, help="such as gemini-2.5-flash"),
            option("--embeddings", action="store_true", help="embed the texts instead of generating content"),
            option("--prompt-template", metavar="TEXT", help="a prompt with {column} in it"),
            option("--key-field", metavar="COLUMN", help="column that names the row"),
            option("--csv-delimiter", metavar="CHARACTER", help="between columns of a CSV file; detected by default"),
            option("--encoding", help="of a file of text, such as cp1252 (default: UTF-8)"),
            option("--system-instruction", metavar="TEXT", help="default for every request"),
            option(
                "--generation-config",
                metavar="JSON",
                help="defaults for every request, as a JSON object",
            ),
            option("--task-type", help="embeddings: such as RETRIEVAL_DOCUMENT"),
            option("--output-dimensionality", type=whole, help="embeddings: length of each vector"),
            option("--display-name", help="name of the job for people"),
            option("--staging-path", help="Vertex AI: gs:// folder for input and output, in place of the connection's"),
            option("--dry-run", action="store_true", help="check, count and price the rows; send nothing"),
            _OUTPUT,
            *_CONNECTION,
        ),
    ),
    Command(
        "upload",
        "upload a file to the Files API, where it lives 48 hours (Gemini Developer API)",
        (
            option("input_path", metavar="FILE", help="the file"),
            option("--display-name", help="name of the file for people"),
            option("--mime-type", default="application/jsonl", help="what the file is (default: %(default)s)"),
            _OUTPUT,
            *_CONNECTION,
        ),
    ),
    Command(
        "sweep",
        "find jobs and uploads that Airflow tasks have left behind; reads Airflow's database",
        (
            option(
                "--unknown",
                action="store_true",
                help="also those of tasks that this Airflow does not know: deleted runs, or another Airflow's tasks",
            ),
            _YES,
            _OUTPUT,
            *_CONNECTION,
        ),
    ),
    Command(
        "check",
        "say what a Dag would meet: connection, permissions, staging folder, extras",
        (
            option("--staging-path", help="gs:// folder to try, in place of the connection's"),
            _OUTPUT,
            *_CONNECTION,
        ),
    ),
)


def build() -> argparse.ArgumentParser:
    """Return the parser of ``gemini-batch``."""
    parser = argparse.ArgumentParser(
        prog="gemini-batch",
        description="Gemini batch jobs from the command line, through an Airflow connection.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        for flags, settings in command.options:
            sub.add_argument(*flags, **settings)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run ``gemini-batch`` and return its exit code."""
    parsed = build().parse_args(arguments)
    try:
        # Airflow takes seconds to be imported, during which nothing has been done.
        from airflow_provider_gemini_batch.cli.commands import keep_output_clean, run

        if arguments is None:
            keep_output_clean()
    except KeyboardInterrupt:
        return 130
    return run(parsed)


if __name__ == "__main__":
    sys.exit(main())
