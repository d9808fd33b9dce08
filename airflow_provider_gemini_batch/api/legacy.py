"""The older embedding models of Vertex AI (``text-embedding-*`` and the like), whose lines have no key.

Their input line is ``{"content": ..., "task_type": ..., "title": ...}``. Responses come in any order and repeat the
input as ``instance``. So the embedded content leads to the row: two rows of the same content have the same vector.
Source: Vertex AI's guide to batch text embeddings.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_gemini_batch.api.models import BatchResult

_NAMES = ("text-embedding-", "textembedding-", "text-multilingual-embedding-")
INSTANCE = ("content", "task_type", "title")
"""What identifies a response where the row has no key."""


def is_legacy(model: str) -> bool:
    """Return whether a model of Vertex AI reads the older lines."""
    return model.rpartition("/")[2].startswith(_NAMES)


def instance_key(instance: Mapping[str, Any]) -> str:
    """Return a key made from the embedded content, for responses that have no other."""
    parts = [instance.get(name) for name in INSTANCE]
    return f"instance-{hashlib.sha256(to_json(parts)).hexdigest()[:20]}"


def instance_of(line: bytes) -> dict[str, Any]:
    """Return the instance for one of our embedding lines.

    :raises InputError: it holds more than text, or uses an option that these models do not have in a batch.
    """
    request = from_json(line)["request"]
    parts = request["content"]["parts"]
    if not all(isinstance(part.get("text"), str) and len(part) == 1 for part in parts):
        raise InputError("this embedding model takes texts only; gemini-embedding models take more")
    config = request.get("embed_content_config") or {}
    if more := sorted(config.keys() - set(INSTANCE)):
        raise InputError(
            f"this embedding model takes no {', '.join(more)} in a batch; gemini-embedding-001 and later models do"
        )
    return {"content": "".join(part["text"] for part in parts), **config}


def legacy_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield our embedding lines in the form that the service reads."""
    for line in lines:
        yield to_json(instance_of(line)) + b"\n"


def with_keys(results: Iterable[BatchResult], keys: Mapping[str, list[str]]) -> Iterator[BatchResult]:
    """Yield the responses with their rows' keys; rows of the same content take turns."""
    used: dict[str, int] = {}
    for result in results:
        rows = keys.get(result.key or "")
        if rows:
            turn = used[result.key or ""] = used.get(result.key or "", -1) + 1
            yield result.with_key(rows[turn % len(rows)])
        else:
            yield result
