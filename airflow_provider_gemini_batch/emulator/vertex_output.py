"""The folder that a Vertex job writes: which objects it holds, and under which names.

The fault ``output_layout`` chooses; its value is a name of ``LAYOUTS``, or an object with ``layout`` and options:

* ``count``: how many objects, where the layout has several (default 2).
* ``missing``: a list of numbers (from 0) of objects that are not written.
* ``incremental``: also write a partial ``incremental_predictions.jsonl`` beside the final objects.
* ``litter``: also write an empty object, a ``.metadata`` and a ``.json`` object.
* ``name``: the object's name in the layout ``unknown``.
* ``packed``: gzip every object, ``"name"``: and add ``.gz`` to its name.
* ``form``: ``list`` or ``pretty``: every object is one JSON list, on one line or on many.
* ``older``: first write a shard of an earlier attempt, which had one shard fewer.
"""

from __future__ import annotations

import gzip
import json
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_gemini_batch.emulator.storage import Storage

#: Layout to what its objects are called; ``{n}`` counts from 0, ``{n1}`` from 1.
LAYOUTS = {
    "predictions": "predictions.jsonl",
    "shards": "predictions.jsonl-{n:05d}-of-{count:05d}",
    "numbered": "predictions_{n1:04d}.jsonl",
    "results": "prediction.results-{n:05d}-of-{count:05d}",
    "export": "{n:012d}.jsonl",
    "incremental": "incremental_predictions.jsonl",
    "unknown": "answers-{n:05d}.txt",
}
_SINGLE = frozenset({"predictions", "incremental", "unknown"})
#: How many lines of the answers a partial dump holds at most.
_INCREMENTAL_LINES = 1000
_UNKNOWN_ERROR = 13
_GRPC_OF_HTTP = {400: 3, 403: 7, 404: 5, 429: 8, 499: 1, 500: 13, 503: 14, 504: 4}


def read_layout(value: Any) -> dict[str, Any]:
    """Return the options of a layout; ValueError for a name that is not in ``LAYOUTS``."""
    options = dict(value) if isinstance(value, dict) else {"layout": value or "predictions"}
    if "value" in options:
        return read_layout(options["value"])
    options.setdefault("layout", "predictions")
    if options["layout"] not in LAYOUTS:
        raise ValueError(f"output_layout must be one of {', '.join(LAYOUTS)}, not {options['layout']!r}")
    return options


def write_folder(storage: Storage, folder: str, lines: Iterable[bytes], rows: int, value: Any) -> None:
    """Write the lines of a job into its folder.

    :param rows: about how many lines there are, to spread them over several objects.
    :param value: the value of ``output_layout``.
    """
    options = read_layout(value)
    layout = options["layout"]
    count = 1 if layout in _SINGLE else max(1, int(options.get("count") or 2))
    pattern = str(options.get("name") or LAYOUTS[layout]) if layout == "unknown" else LAYOUTS[layout]
    errors: list[bytes] = []
    stream = iter(lines)
    if options.get("incremental"):
        stream = _dump_half(storage, folder, stream, rows)
    if layout == "numbered":
        stream = _without_errors(stream, errors.append)
    each = max(1, -(-rows // count))
    if options.get("older"):
        first = list(islice(stream, 1))
        storage.write(f"{folder}/{pattern.format(n=0, n1=1, count=count - 1)}", first)
        stream = chain(first, stream)
    for number in range(count):
        # The last object takes what is left, so that no line is lost when there are more than was said.
        part = stream if number == count - 1 else islice(stream, each)
        name = pattern.format(n=number, n1=number + 1, count=count)
        if number in (options.get("missing") or ()):
            for _ in part:
                pass
        else:
            ending = ".gz" if options.get("packed") == "name" else ""
            storage.write(f"{folder}/{name}{ending}", _formed(part, options))
    if errors:
        storage.write(f"{folder}/errors_0001.jsonl", errors)
    if options.get("litter"):
        storage.write(f"{folder}/predictions-empty.jsonl", [])
        storage.write(f"{folder}/predictions.metadata", [b"{}"])
        storage.write(f"{folder}/job.json", [b"{}"])


def _formed(lines: Iterable[bytes], options: dict[str, Any]) -> Iterable[bytes]:
    """Return the lines of an object in its form."""
    if form := options.get("form"):
        rows = [json.loads(line) for line in lines]
        lines = [json.dumps(rows, indent=2 if form == "pretty" else None).encode()]
    return [gzip.compress(b"".join(lines))] if options.get("packed") else lines


def _dump_half(storage: Storage, folder: str, stream: Iterator[bytes], rows: int) -> Iterator[bytes]:
    first = list(islice(stream, min(_INCREMENTAL_LINES, max(1, rows // 2))))
    storage.write(f"{folder}/{LAYOUTS['incremental']}", first)
    return chain(first, stream)


def _without_errors(lines: Iterator[bytes], keep: Callable[[bytes], None]) -> Iterator[bytes]:
    for line in lines:
        row = json.loads(line)
        status = row.get("status")
        if status:
            instance = {name: value for name, value in row.items() if name not in ("status", "response")}
            keep(json.dumps({**instance, "error": _error_of(status)}).encode() + b"\n")
        else:
            yield line


def _error_of(status: str) -> dict[str, Any]:
    """Return the google.rpc.Status inside the text of a failed row."""
    try:
        error = json.loads(status[status.index("{") :])["error"]
    except (ValueError, KeyError):
        return {"code": _UNKNOWN_ERROR, "message": status}
    return {"code": _GRPC_OF_HTTP.get(error["code"], _UNKNOWN_ERROR), "message": error["message"]}
