"""Where on Google Cloud a job of ours reads and writes, when its author does not say.

Rules of this file: addresses in, addresses out; nothing is asked or sent. Everything that a job is given has the job's
tag in its address, so that two jobs never share a folder, and so that what is ours can be told from what is not.
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
    """Give the object that holds the rows of a job."""
    return f"{_folder(staging_path, tag)}/input.jsonl"


def made_destination(staging_path: str, tag: Tag) -> str:
    """Give the folder for the answers of a job: beside its input, never inside it."""
    return f"{_folder(staging_path, tag)}/output"


def own_destination(destination: str, tag: Tag) -> str:
    """Give one job of several its own folder under the author's.

    The service names its folders by the time: two jobs that start in the same moment would write to the same one.
    """
    return f"{destination.rstrip('/')}/{tag}"


def answers_table(bigquery_uri: str, tag: Tag) -> str:
    """Give the table for the answers of a job that reads a table: beside it, in the same dataset."""
    return f"{bigquery_uri}_{re.sub('[^a-z0-9]', '_', str(tag))}"


def next_destination(destination: str, tag: Tag) -> str:
    """Give a job that goes on from another's output a place of its own, if the author named a table for both.

    The service makes folders by itself, and tables in a dataset.
    """
    dots = destination.removeprefix("bq://").replace(":", ".").count(".")
    is_table = destination.startswith("bq://") and dots >= _DOTS_OF_A_TABLE
    return answers_table(destination, tag) if is_table else destination


def is_inside(destination: str, sources: Iterable[str]) -> str | None:
    """Give the source that would match answers written to ``destination``, if any does: it would be read next time.

    A ``*`` reaches over slashes, and an address that ends in a slash is everything below it.
    """
    sample = f"{destination.rstrip('/')}/prediction-model/predictions.jsonl"
    for source in sources:
        pattern = source + "*" if source.endswith("/") else source
        if re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), sample):
            return source
    return None


def _folder(staging_path: str, tag: Tag) -> str:
    return f"{staging_path.rstrip('/')}/{tag}"
