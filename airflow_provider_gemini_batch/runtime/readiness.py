"""What a task needs after the wait, tried before a job is paid for: libraries, file systems, places to write to.

A small object is written to each place and removed again. Whether responses can be read where the service writes them
is checked by :meth:`.ClientJobService.prepare`.
"""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError, GeminiBatchError, TransportError
from airflow_provider_gemini_batch.runtime.file_lists import plain_address, reads
from airflow_provider_gemini_batch.runtime.paths import is_lasting, reason_of
from airflow_provider_gemini_batch.staging.places import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
    from airflow_provider_gemini_batch.runtime.outputs import Output
    from airflow_provider_gemini_batch.runtime.paths import Paths


def check_readiness(arguments: BatchArguments, output: Output, paths: Paths) -> None:
    """Try everything that the landing will need.

    :raises ConfigurationError: names the argument, and the library or permission that is missing.
    :raises TransportError: a place could not be reached just now.
    """
    if arguments.wait_for_completion and arguments.output_path is not None:
        target = output.landing_path
        if target.endswith((".parquet", ".pq")) and find_spec("pyarrow") is None:
            raise ConfigurationError(
                "output_path: Parquet needs pyarrow: pip install 'airflow-provider-gemini-batch[parquet]', or let "
                "output_path end in .jsonl"
            )
        if arguments.input_path is not None:
            check_apart(paths, arguments.input_path, target, arguments.output_conn_id)
        if arguments.gcs_uri is not None:
            uris = [arguments.gcs_uri] if isinstance(arguments.gcs_uri, str) else arguments.gcs_uri
            _refuse_both("gcs_uri", source_of(plain_address(target), uris))
        folder, _, name = target.rpartition("/")
        _try_to_write("output_path", folder, paths, arguments.output_conn_id, name)
    if arguments.wait_for_completion and arguments.media_path is not None:
        _try_to_write("media_path", arguments.media_path, paths, arguments.output_conn_id)
    if arguments.staging_path is not None:
        _try_to_write("staging_path", arguments.staging_path, paths, None)


def check_apart(paths: Paths, input_path: str | Sequence[str], target: str, conn_id: str | None) -> None:
    """Refuse an ``input_path`` that means the file which is written over ``conn_id``.

    :raises ConfigurationError: says so. :raises TransportError: the storage cannot be asked just now.
    """
    _refuse_both("input_path", reads(paths, input_path, target, conn_id=conn_id))


def _refuse_both(argument: str, found: str | None) -> None:
    if found is not None:
        raise ConfigurationError(
            f"output_path: {argument} also reads it ({found}), so results would replace rows of the input, or be read "
            "as rows in the next run: give another path"
        )


def _try_to_write(argument: str, folder: str, paths: Paths, conn_id: str | None, name: str = "") -> None:
    """Write and remove a file whose name is longer than those that the landing derives from ``name``."""
    path = f"{folder.rstrip('/')}/.gemini-batch-check-{secrets.token_hex(4)}{name}"
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
        reason = reason_of(error)
        if is_lasting(error):
            raise ConfigurationError(f"{argument}: nothing can be written to {folder}: {reason}") from error
        raise TransportError(
            f"{argument}: nothing can be written to {folder} just now: {reason}", sent=False
        ) from error
