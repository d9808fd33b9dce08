"""What a task needs after the wait, tried before a job is paid for: libraries, file systems, places to write to.

A small object is written to each place and removed again. Whether responses can be read where the service writes them
is checked by :meth:`.ClientJobService.prepare`.
"""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.rows.writers import is_parquet
from airflow_provider_gemini_batch.runtime.argument_readers import listed
from airflow_provider_gemini_batch.runtime.file_lists import plain_address, reads
from airflow_provider_gemini_batch.runtime.paths import path_error
from airflow_provider_gemini_batch.staging.places import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.outputs import Output
    from airflow_provider_gemini_batch.runtime.paths import Paths


# Names of files that are written into a folder beside the results, as far as the patterns of an input tell them apart.
_MEDIA = ("key-0.png",)
_KEPT = ("task-0.record",)
_STAGED = (*_KEPT, "media/0.png", "job/input.jsonl", "job/output/prediction-model/predictions.jsonl")
_WRITTEN_BY_VERTEX = ("prediction-model/predictions.jsonl", "job/prediction-model/predictions.jsonl")


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def check_readiness(arguments: BatchArguments, output: Output, paths: Paths, staging: str | None) -> None:
    """Try everything that the landing will need.

    :param staging: the folder for what must outlive the wait, the connection's or the task's own.
    :raises ConfigurationError: names the argument, and the library or permission that is missing.
    :raises TransportError: a place could not be reached just now.
    """
    if arguments.wait_for_completion and arguments.output_path is not None:
        target = output.landing_path
        if is_parquet(target) and not is_installed("pyarrow"):
            raise ConfigurationError(
                "output_path: Parquet needs pyarrow: pip install 'airflow-provider-gemini-batch[parquet]', or let "
                "output_path end in .jsonl"
            )
        if (found := _reading(arguments, paths, target, arguments.output_conn_id)) is not None:
            raise ConfigurationError(_result_is_input(*found))
        folder, _, name = target.rpartition("/")
        _try_to_write("output_path", folder, paths, arguments.output_conn_id, name)
    check_folders(arguments, paths, staging)
    if arguments.wait_for_completion and arguments.media_path is not None:
        _try_to_write("media_path", arguments.media_path, paths, arguments.output_conn_id)
    if arguments.staging_path is not None:
        _try_to_write("staging_path", arguments.staging_path, paths, None)


def check_apart(paths: Paths, input_path: str | Sequence[str], target: str, conn_id: str | None) -> None:
    """Refuse an ``input_path`` that means the file which is written over ``conn_id``.

    :raises ConfigurationError: says so. :raises TransportError: the storage cannot be asked just now.
    """
    if (address := reads(paths, input_path, target, conn_id=conn_id)) is not None:
        raise ConfigurationError(_result_is_input("input_path", address))


def check_folders(arguments: BatchArguments, paths: Paths, staging: str | None) -> None:
    """Refuse a folder whose files a retry, or the next run, would take for rows.

    :param staging: the folder for what must outlive the wait, the connection's or the task's own.
    :raises ConfigurationError: names the argument.
    """
    staged = _STAGED if (staging or "").startswith("gs://") else _KEPT
    media = arguments.media_path if arguments.wait_for_completion else None
    for argument, folder, conn_id, names in (
        ("media_path", media, arguments.output_conn_id, _MEDIA),
        ("staging_path", staging, None, staged),
        ("destination", arguments.destination, None, _WRITTEN_BY_VERTEX),
    ):
        files = [f"{folder.rstrip('/')}/{name}" for name in names] if folder else []
        found = next(filter(None, (_reading(arguments, paths, file, conn_id) for file in files)), None)
        if found is not None:
            raise ConfigurationError(
                f"{argument}: {found[0]} also reads what is written to {folder} ({found[1]}), so a retry or the next "
                "run would take it for rows: give another folder"
            )


def _reading(arguments: BatchArguments, paths: Paths, path: str, conn_id: str | None) -> tuple[str, str] | None:
    """Return the argument, and the address in it, that means a file which the task writes."""
    if arguments.input_path is not None:
        address = reads(paths, arguments.input_path, path, conn_id=conn_id)
        return None if address is None else ("input_path", address)
    uris = listed(arguments.gcs_uri)
    uri = source_of(plain_address(path), uris) if uris else None
    return None if uri is None else ("gcs_uri", uri)


def _result_is_input(argument: str, address: str) -> str:
    return (
        f"output_path: {argument} also reads it ({address}), so results would replace rows of the input, or be read "
        "as rows in the next run: give another path"
    )


def _try_to_write(argument: str, folder: str, paths: Paths, conn_id: str | None, name: str = "") -> None:
    """Write and remove a file whose name is longer than those that the landing derives from ``name``.

    It does not end as ``name`` does: some readers take ``*.parquet`` for any such name, a hidden one too.
    """
    lead = f".{name}." if name else "."
    path = f"{folder.rstrip('/')}/{lead}gemini-batch-check-{secrets.token_hex(4)}"
    try:
        files = paths.files_of(path, conn_id)
        with files.write_whole(path) as handle:
            handle.write(b"written before a job is made, and removed again\n")
        files.remove(path)
    except GeminiBatchError as error:
        message = f"{argument}: nothing can be written to {folder}: {error}"
        if error.retryable:
            raise TransportError(message, sent=False) from error
        raise ConfigurationError(message) from error
    except (OSError, ImportError, ValueError) as error:
        raise path_error(f"{argument}: nothing can be written to {folder}", error) from error
