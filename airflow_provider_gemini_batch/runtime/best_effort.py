"""What a task reports to others once its results are landed: asset events, and the label of a mapped task.

Rules of this file: the batch has been paid for, so nothing here can fail the task. Errors are logged at debug level.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context

log = logging.getLogger(__name__)


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Log, at debug level, an error in the block instead of failing the task."""
    try:
        yield
    except Exception as error:
        log.debug("Could not report %s: %s", what, type(error).__name__, exc_info=True)


def update_asset_events(
    outlets: Sequence[Any] | None, context: Context, extra: Mapping[str, Any], *, partition_key: str | None = None
) -> None:
    """Add what a consumer wants to know to the events of the declared outlets; never rows.

    An outlet may also be something that is not an asset, such as an OpenLineage dataset: it has no event.
    """
    for outlet in outlets or ():
        with best_effort("an asset"):
            event: Any = context["outlet_events"][outlet]
            event.extra.update(extra)
            if partition_key and hasattr(event, "add_partitions"):
                event.add_partitions(partition_key)


def label_of_map_index(context: Any) -> None:
    """Let Airflow render ``map_index_template`` after landing: the names in it that nobody set become empty."""
    template = context.get("map_index_template")
    if not isinstance(template, str):
        return
    with best_effort("the label of a mapped task"):
        from jinja2 import Environment, meta

        names = meta.find_undeclared_variables(Environment(autoescape=True).parse(template))
        for name in names:
            context.setdefault(name, "")
