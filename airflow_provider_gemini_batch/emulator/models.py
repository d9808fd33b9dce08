"""Which models there are: families of the service's own, and what places and sources Vertex documents for some."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable

_FAMILIES = {
    "1.0": "pro|ultra",
    "1.5": "pro|flash|flash-8b",
    "2.0": "pro|flash|flash-lite",
    "2.5": "pro|flash|flash-lite|computer-use",
    "3": "pro|flash",
    "3.1": "pro|flash|flash-lite",
    "3.5": "pro|flash|flash-lite",
    "3.6": "flash|flash-lite",
    "3.7": "flash|flash-lite",
    "3.8": "flash|flash-lite",
    "4": "argon|carbon|hydrogen|neon",
}
#: What may follow the family: a variant, a stage, a date or a version.
_TAIL = (
    r"(?:-(?:image|tts|preview|exp|experimental|latest|thinking|live|native-audio|customtools|text|vision|\d{2,4}))*"
)
_OTHERS = (
    r"gemini-(?:pro|pro-vision|flash-latest|flash-lite-latest|pro-latest)",
    r"gemini-(?:nano-banana|omni|robotics-er)-[a-z0-9.-]+",
    r"gemini-live-2\.5-flash[a-z0-9-]*",
    r"(?:gemma-[1-4][a-z0-9-]*|learnlm-[a-z0-9.-]+)",
)
_EMBEDDINGS = (
    r"gemini-embedding-(?:001|2|2-preview|exp|exp-03-07)",
    r"(?:text-embedding|embedding|text-multilingual-embedding)-\d{3}",
    r"textembedding-gecko(?:-multilingual)?(?:@\d{3})?",
)
_GENERATION = [
    *(rf"gemini-{re.escape(version)}-(?:{names}){_TAIL}" for version, names in _FAMILIES.items()),
    *_OTHERS,
]
_KNOWN = re.compile("|".join([*_GENERATION, *_EMBEDDINGS]))

_OLDER_PLACES = frozenset(
    ["us-central1", "us-east1", "us-east4", "us-west1", "us-west4", "europe-west1", "europe-west4"]
)
_NEWER_PLACES = frozenset(["global", "us", "eu"])


def is_known(name: str, more: Iterable[str] = ()) -> bool:
    """Return whether there is a model of that name (without ``models/``); ``more`` are names or patterns with ``*``."""
    return _KNOWN.fullmatch(name) is not None or any(fnmatchcase(name, pattern) for pattern in more)


def check_place(model: str, location: str, spec: dict[str, Any]) -> None:
    """Refuse a Vertex job for a model, place and source that Google's pages exclude; raises ApiError 400.

    :param model: the last segment of the model's name.
    :param spec: the job, with ``inputConfig`` and ``outputConfig`` in lowerCamel.
    """
    tables = "bigquerySource" in spec["inputConfig"] or "bigqueryDestination" in spec["outputConfig"]
    if location == "global" and tables:
        raise ApiError(400, "BigQuery is not supported as a source or destination in location global.")
    if not model.startswith("gemini-embedding"):
        if "embedding" in model and location in _NEWER_PLACES:
            raise ApiError(400, f"The model {model} is not supported in location {location}.")
        return
    if tables:
        raise ApiError(400, f"BigQuery is not supported for batch prediction with {model}.")
    older = model == "gemini-embedding-001"
    if location not in (_OLDER_PLACES if older else _NEWER_PLACES):
        raise ApiError(400, f"The model {model} is not supported in location {location}.")
