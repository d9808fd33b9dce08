"""What is told to others once results stand: asset events, lineage, the label of a mapped task.

Rules of this file: the batch has been paid for, so nothing here can fail the task. What goes wrong is told at debug.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import BaseOperator, Context

log = logging.getLogger(__name__)

_TOLD_OF_ASSETS = ("job_name", "job_names", "counts", "usage", "output")


@contextmanager
def courtesy(what: str) -> Iterator[None]:
    """Let nothing of this block fail the task."""
    try:
        yield
    except Exception as error:
        log.debug("Could not tell %s: %s", what, type(error).__name__, exc_info=True)


def tell_assets(task: BaseOperator, context: Context, summary: Mapping[str, Any]) -> None:
    """Give the events of the declared outlets what a consumer wants to know; never rows.

    An outlet may also be something that is not an asset, such as an OpenLineage dataset: it has no event.
    """
    told = {name: summary[name] for name in _TOLD_OF_ASSETS}
    for outlet in task.outlets or ():
        with courtesy("an asset"):
            context["outlet_events"][outlet].extra.update(told)


def label_of_map_index(context: Any) -> None:
    """Make sure that ``map_index_template`` can be rendered after landing: what it names and nobody set is empty."""
    template = context.get("map_index_template")
    if not isinstance(template, str):
        return
    with courtesy("the label of a mapped task"):
        from jinja2 import Environment, meta

        names = meta.find_undeclared_variables(Environment(autoescape=True).parse(template))
        for name in names:
            context.setdefault(name, "")
