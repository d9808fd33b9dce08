"""Where on Google Cloud a job of ours reads and writes, when its author does not say.

Rules of this file: addresses in, addresses out; nothing is asked or sent. Every address that we choose for a job has
the job's tag in it, so that two jobs never share a folder, and our folders can be recognised.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_gemini_batch.batch.tag import Tag

# bq://project.dataset.table
_DOTS_OF_A_TABLE = 2


def staged_input(staging_path: str, tag: Tag) -> str:
    """Return the address of the object that holds the rows of a job."""
    return f"{_folder(staging_path, tag)}/input.jsonl"


def staged_output(staging_path: str, tag: Tag) -> str:
    """Return the folder for the responses of a job: beside its input, never inside it."""
    return f"{_folder(staging_path, tag)}/output"


def own_destination(destination: str, tag: Tag) -> str:
    """Return a job's own folder under the author's, for one of several jobs.

    The service names its folders by the time: two jobs that start in the same moment would write to the same one.
    """
    return f"{destination.rstrip('/')}/{tag}"


def response_table(bigquery_uri: str, tag: Tag) -> str:
    """Return the table for the responses of a job that reads a table: beside it, in the same dataset."""
    return f"{bigquery_uri}_{re.sub('[^a-z0-9]', '_', str(tag))}"


def next_destination(destination: str, tag: Tag) -> str:
    """Return where a job writes that continues from another job's output: a table of its own if the author named one.

    Otherwise the author's own address will do: the service itself creates folders, and tables in a dataset.
    """
    dots = destination.removeprefix("bq://").replace(":", ".").count(".")
    is_table = destination.startswith("bq://") and dots >= _DOTS_OF_A_TABLE
    return response_table(destination, tag) if is_table else destination


def is_inside(destination: str, sources: Iterable[str]) -> str | None:
    """Return the source that would include responses written to ``destination``; None if there is none.

    Such responses would be read as rows the next time.
    """
    return source_of(f"{destination.rstrip('/')}/prediction-model/predictions.jsonl", sources)


def source_of(uri: str, sources: Iterable[str]) -> str | None:
    """Return the source for which Vertex AI reads an object; None if there is none.

    A ``*`` also matches slashes, and an address that ends in a slash means everything below it.
    """
    for source in sources:
        pattern = source + "*" if source.endswith("/") else source
        if re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), uri):
            return source
    return None


def _folder(staging_path: str, tag: Tag) -> str:
    return f"{staging_path.rstrip('/')}/{tag}"
