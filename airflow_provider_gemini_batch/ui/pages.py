"""The templates and what they may call. Everything that a template prints is escaped."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from airflow_provider_gemini_batch.ui import addresses, batches, charts, texts

_environment = Environment(
    loader=PackageLoader("airflow_provider_gemini_batch", "ui/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    number=texts.number,
    short_number=texts.short_number,
    money=texts.money,
    span=texts.span,
    about=texts.about,
    iso=texts.iso,
    clock=texts.clock,
    breakable=texts.breakable,
    rough=texts.rough,
    job_tone=batches.job_tone,
)
_environment.globals.update(
    addresses=addresses,
    charts=charts,
    bound=texts.bound,
    estimate=texts.estimate,
    percent=texts.percent,
    reasons=texts.reasons,
    nothing=texts.NOTHING,
    with_query=lambda values, **changed: urlencode(
        {name: value for name, value in {**values, **changed}.items() if value not in ("", None)}, quote_via=quote
    ),
)


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return _environment.get_template(template).render(**values)
