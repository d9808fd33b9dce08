"""Reads lines of results and inline items: each response of the service becomes a :class:`BatchResult`.

Everything here is lenient: an unexpected member must not make a paid response useless. What cannot be read becomes a
:class:`BatchResult` with an error, at its position.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError, Raw
from msgspec.json import decode
from pydantic_core import from_json

from airflow_provider_gemini_batch.api.legacy import instance_key
from airflow_provider_gemini_batch.api.models import BatchResult, ServiceError
from airflow_provider_gemini_batch.api.requests.fields import camel
from airflow_provider_gemini_batch.api.responses.content import candidates, parts_of
from airflow_provider_gemini_batch.api.responses.fast_path import plain_result
from airflow_provider_gemini_batch.api.responses.lines import OverlongLine
from airflow_provider_gemini_batch.api.responses.openai_shape import is_envelope, native, open_envelope
from airflow_provider_gemini_batch.api.wire import dict_at, grpc_code, key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

INLINE_RESPONSES = ("inlinedResponses", "inlinedEmbedContentResponses")
"""The member of a job that holds its responses: on the wire the first name; the SDK's types also use the second."""

_UNREADABLE = ServiceError(message="this line of the results is not a JSON object")
_NEITHER = "the service gave neither a response nor an error"
_ODD_FORM = "the response is in a form that is not known here"
_CONTENT = ("candidates", "embedding", "embeddings", "promptFeedback")
_OF_A_RESPONSE = (*_CONTENT, "choices", "usageMetadata")
# Users have seen the counts beside the response, too.
_COUNTS = ("usageMetadata", "tokenCount")
# Lists of these are several responses, not the chunks of one.
_OF_CHUNKS = frozenset({"embedding", "embeddings", "choices", "values", "response"})
# Members of a response that an SDK has written, in its spelling; and those whose own members have others' names.
_SNAKE = frozenset({"usage_metadata", "prompt_feedback", "model_version", "response_id", "token_count"})
_FOREIGN = frozenset({"args", "response"})
_SUCCESS = frozenset({"0", "200", "OK"})
_NOT_BESIDE = frozenset({"request", "response", "predictions", "prediction", "instance"})
_KEY_OF_A_HEAD = re.compile(rb'\A\s*\{\s*"(?:key|custom_id)"\s*:\s*("[^"\\]{1,200}")')
_HEAD_BYTES = 4096
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# May surround a row: byte order marks, record separators, remains of a writer that crashed.
_AROUND = "\ufeff\0\x1e\xa0 \t\r\n,"
# Between two rows of a list, its brackets are a gap as well.
_GAP = re.compile(rf"[{_AROUND}\[\]]*")
_ESCAPE = re.compile(r'\\(u[0-9a-fA-F]{4}|["\\/bfnrt]|)')
# Beyond this depth, and from so many digits on, JSON parsers and writers fail.
_DEEPEST = 100
_scan = json.JSONDecoder(strict=False).raw_decode
_LONGEST_NUMBER = 4000
# A whole string in one match would take memory for each escape in it.
_TOKEN = re.compile(r'\\.|["\[{\]}]|-?\d[\d.eE+-]*', re.DOTALL)


def parse_result_line(line: bytes | str, position: int) -> BatchResult:
    """Return the response in a line of a Gemini output file; ``position`` counts the lines from 0. Never raises."""
    if type(line) is bytes:
        plain = plain_result(line, position, _read_result)
        if plain is not None:
            return plain
    return _overlong(line, position) or _read_result(line, position)


def parse_vertex_line(line: bytes | str, position: int) -> BatchResult:
    """Return the response in a line of a Vertex ``predictions*.jsonl``, of any kind of model. Never raises."""
    if type(line) is bytes:
        plain = plain_result(line, position, _read_vertex_result)
        if plain is not None:
            return plain
    return _overlong(line, position) or _read_vertex_result(line, position)


def read_lines(lines: Iterable[bytes], parse: Callable[[bytes | str, int], BatchResult]) -> Iterator[BatchResult]:
    """Yield the responses in lines, parsed by one of the functions above. Without line feeds, a line has several."""
    position = 0
    for line in lines:
        result = parse(line, position)
        if result.error is not _UNREADABLE:
            yield result
            position += 1
            continue
        begun = position
        for row in _rows_of(line):
            yield parse(row, position)
            position += 1
        if position == begun:
            yield result
            position += 1


def _rows_of(line: bytes | str) -> Iterator[str]:
    """Yield each value in a line that holds several objects or a list of them; an unreadable rest comes last.

    One at a time: a line of the greatest length may hold millions.
    """
    text = _mended(line)
    begin = _next_value(text, 0)
    if not text.startswith(("{", "null"), begin):
        return
    while begin < len(text):
        try:
            end = _scan(text, begin)[1]
        except (ValueError, RecursionError):
            end = len(text)
        yield text[begin:end]
        begin = _next_value(text, end)


def _next_value(text: str, begin: int) -> int:
    gap = _GAP.match(text, begin)
    return gap.end() if gap else begin


def _read_result(line: bytes | str, position: int) -> BatchResult:
    item = _object(line)
    return _unreadable_result(line, position) if item is None else result_of(item, position)


def _read_vertex_result(line: bytes | str, position: int) -> BatchResult:
    item = _object(line)
    return _unreadable_result(line, position) if item is None else vertex_result_of(item, position)


def _unreadable_result(line: bytes | str, position: int) -> BatchResult:
    """Return a result with an error, under the row's key if that can be read."""
    return BatchResult(_key_of_head(line), None, _UNREADABLE, position)


def _key_of_head(line: bytes | str) -> str | None:
    head = line[:_HEAD_BYTES].encode(errors="replace") if isinstance(line, str) else line[:_HEAD_BYTES]
    named = _KEY_OF_A_HEAD.match(head.removeprefix(_BYTE_ORDER_MARK))
    key = read_json(named[1]) if named else None
    return key if isinstance(key, str) else None


def inline_results(output: Mapping[str, Any]) -> Iterator[BatchResult]:
    """Yield the responses inside a job: a list, or a list in an object of the same name; a null keeps its position."""
    found: Any = output
    for _ in range(2):
        if isinstance(found, dict):
            found = next((found[name] for name in INLINE_RESPONSES if found.get(name) is not None), None)
    items = found if isinstance(found, list) else []
    return (result_of({} if item is None else item, position) for position, item in enumerate(items))


def result_of(item: Any, position: int) -> BatchResult:
    """Return one response from JSON: a line of a file, or an inline item, whose key is in ``metadata``."""
    item = _object(item) if isinstance(item, str) else item
    if not isinstance(item, dict):
        return BatchResult(None, None, _UNREADABLE, position)
    return _make_result(item, _as_object(item.get("response")), position)


def vertex_result_of(item: Any, position: int) -> BatchResult:
    """Return one response of Vertex AI: success is an empty ``status``; the key is in ``custom_id`` or ``key``."""
    if not isinstance(item, dict):
        return BatchResult(None, None, _UNREADABLE, position)
    response = _as_object(item.get("response"))
    if predictions := item.get("predictions") or item.get("prediction"):
        response = response if _has_content(response) else _read_predictions(predictions) or response
    return _make_result(item, response, position)


def _make_result(item: dict[str, Any], response: Any, position: int) -> BatchResult:
    key = _key(item)
    # In a line that repeats its request, the members beside it are the author's, except for the status.
    has_request = not item.keys().isdisjoint(("request", "instance"))
    # The REST reference lets a line be a google.rpc.Status, too.
    alone = not response and not has_request
    if alone:
        response = _unnamed_response(item)
    inner = None
    if is_envelope(response):
        response, inner = open_envelope(response)
    elif isinstance(response, dict) and not _has_content(response):
        inner = response.get("error")
        response = native(response)
        response = _inner_response(response) or response
    response = _with_counts(response, item)
    # Vertex AI's name for the error, which users of the other service have seen, too.
    status = item.get("status")
    if alone and (item.get("message") or (not status and "code" in item)):
        status = item
    places = [status, item.get("error"), inner] if has_request else [item.get("error"), inner, status]
    if _has_content(response):
        places = [] if has_request else places[:2]
    fault = next(filter(None, map(_fault, places)), None)
    beside = {name: value for name, value in item.items() if name not in _NOT_BESIDE}
    instance = item.get("instance")
    if isinstance(instance, str):
        instance = _object(instance)
    if isinstance(instance, dict):
        beside = {**instance, **beside}
        key = key or _key(instance) or instance_key(instance)
    if not isinstance(response, dict) or not response:
        fault = fault or ({"message": _ODD_FORM} if response else None)
        # It may be what was paid for.
        response = {"response": response} if response else None
    if response is not None and not fault:
        return BatchResult(key, response, None, position, beside=beside)
    return BatchResult(key, None, _service_error(fault), position, beside=beside, billed=response)


def _with_counts(response: Any, item: dict[str, Any]) -> Any:
    """Return a response with its counts of tokens, which may stand beside it; not in a table, whose request is null."""
    if item.get("request", item) is None:
        return response
    beside = {name: item[name] for name in _COUNTS if item.get(name)}
    return {**beside, **response} if beside and response is not item and _has_content(response) else response


def _fault(value: Any) -> Any:
    """Return an error, read if it is JSON text; None for one that says nothing, or whose word or code means success."""
    if isinstance(value, str):
        value = value.strip()
        found = None if value == "null" else _json_of(value)
        value = found if found is not None or value == "null" else value
    if isinstance(value, dict) and not any(value.values()):
        return None
    word = value.get("code") if isinstance(value, dict) else value
    return None if str(word).upper() in _SUCCESS else value


def _as_object(value: Any) -> Any:
    """Return the value of JSON text, which a table's columns may hold, and chunks as one; anything else unchanged."""
    found = _json_of(value) if isinstance(value, str) else value
    if found is None and value != "null":
        return value
    whole = _joined(found) if isinstance(found, list) else found
    return _in_camel_case(whole) if isinstance(whole, dict) and _is_of_sdk(whole) else whole


def _is_of_sdk(response: Mapping[str, Any]) -> bool:
    holders = (*candidates(response), dict_at(response, "usageMetadata"))
    return not _SNAKE.isdisjoint(response) or any("_" in name for one in holders for name in one)


def _in_camel_case(value: Any) -> Any:
    """Return a response with the service's own names; the arguments of function calls keep theirs."""
    if isinstance(value, list):
        return [_in_camel_case(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {camel(name): one if name in _FOREIGN else _in_camel_case(one) for name, one in value.items()}


def _joined(chunks: list[Any]) -> Any:
    """Return a response that came in chunks, as a call that streams gives it, as one; another list unchanged.

    Parts follow each other; of anything else the last word counts, as it does for the tokens, which each chunk sums up.
    """
    if len(chunks) == 1:
        return chunks[0]
    if not all(chunk is None or (isinstance(chunk, dict) and _OF_CHUNKS.isdisjoint(chunk)) for chunk in chunks):
        return chunks
    made: dict[str, Any] = {}
    begun: dict[str, dict[str, Any]] = {}
    for chunk in filter(None, chunks):
        for name, value in chunk.items():
            before = made.get(name)
            made[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        for one in candidates(chunk):
            whole = begun.setdefault(str(one.get("index") or 0), {"content": {"parts": []}})
            whole |= {**one, "content": {"parts": [*whole["content"]["parts"], *parts_of(one)]}}
    if begun:
        made["candidates"] = list(begun.values())
    if made.get("error"):
        for whole in begun.values():
            whole.setdefault("finishReason", "OTHER")
    return made


def _unnamed_response(item: dict[str, Any]) -> Any:
    """Return the response of a line without a member of that name: the line itself, or what another name holds."""
    if any(map(item.get, _OF_A_RESPONSE)):  # so says the REST reference
        return item
    # A table always has a status, and its other columns are the author's.
    return None if "status" in item or item.get("error") else _inner_response(item)


def _inner_response(holder: Mapping[str, Any]) -> Any:
    """Return the response in a member of any name, or None."""
    return next(filter(_has_content, map(_as_object, holder.values())), None)


def _json_of(text: bytes | str) -> Any:
    """Return the value of JSON text, even if that is JSON text again; None if it is not JSON."""
    found = read_json(text)
    return read_json(found) if isinstance(found, str) else found


def _has_content(response: Any) -> bool:
    """Return whether a response has content, whatever is beside it."""
    return isinstance(response, dict) and any(response.get(name) for name in _CONTENT)


def _object(line: bytes | str) -> Any:
    """Return the JSON object in a line, or None."""
    found = _json_of(line)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, dict) and any(type(value) is float for value in found.values()):
        _keep_digits(found, line)
    return found if isinstance(found, dict) else None


def _keep_digits(found: dict[str, Any], line: bytes | str) -> None:
    """Restore decimal numbers, which may be keys, as written: 1.10 is not 1.1, and a float has only 17 digits."""
    try:
        raw = decode(line, type=dict[str, Raw])
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return
    found.update({name: bytes(raw[name]).decode() for name, value in found.items() if type(value) is float})


def read_json(text: bytes | str) -> Any:
    """Return the value of JSON; None if it is not JSON. A lenient parser reads what the strict one refuses.

    The lenient one accepts a byte order mark, control characters, invalid UTF-8 and unknown escapes, and replaces lone
    surrogates. Values that are nested too deeply, and numbers that are too long, become text.
    """
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        pass
    try:
        whole = json.dumps(json.loads(_mended(text), strict=False), ensure_ascii=False)
        return from_json(whole.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _mended(text: bytes | str) -> str:
    """Return JSON without what surrounds it, tamed, and with each backslash that begins no escape doubled."""
    loose = text if isinstance(text, str) else _characters(text)
    return _ESCAPE.sub(lambda one: one[0] if one[1] else r"\\", _with_strings_for_extremes(loose.strip(_AROUND)))


def _characters(data: bytes) -> str:
    """Return UTF-8 as text. Surrogate pairs whose halves are encoded apart are joined, what is invalid is replaced."""
    try:
        halves = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
    return halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _with_strings_for_extremes(text: str) -> str:
    """Return JSON in which objects and lists that are too deep, and numbers that are too long, are strings."""
    pieces: list[str] = []
    depth = at = begun = 0
    in_string = False
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first == '"':
            in_string = not in_string
        elif in_string or first == "\\":
            continue
        elif first in "[{":
            depth += 1
            if depth == _DEEPEST + 1:
                begun = token.start()
        elif first in "]}":
            if depth == _DEEPEST + 1:
                pieces += (text[at:begun], json.dumps(text[begun : token.end()]))
                at = token.end()
            depth -= 1
        elif len(token[0]) >= _LONGEST_NUMBER and depth <= _DEEPEST:
            pieces += (text[at : token.start()], json.dumps(token[0]))
            at = token.end()
    return "".join([*pieces, text[at:]]) if pieces else text


def _overlong(line: bytes | str, position: int) -> BatchResult | None:
    if not isinstance(line, OverlongLine):
        return None
    words = f"the response has {line.size} bytes, and at most {line.limit} are read of one row"
    return BatchResult(_key_of_head(line), None, ServiceError(code=11, message=words), position)


def _key(item: Mapping[str, Any]) -> str | None:
    plain = item["key"] if "key" in item else item.get("custom_id")
    if type(plain) is str:
        return plain
    metadata = _as_object(item.get("metadata"))
    places = (
        item.get("key"),
        item.get("custom_id"),
        item.get("customId"),
        metadata.get("key") if isinstance(metadata, dict) else None,
    )
    return next((text for text in map(key_text, places) if text is not None), None)


def _service_error(fault: Any) -> ServiceError:
    """Return an error. Vertex AI writes free text that usually ends in JSON: ``Bad Request: {"error": {...}}``."""
    if isinstance(fault, str) and fault:
        start = fault.find("{")
        inner = _object(fault[start:]) if start >= 0 else None
        if inner:
            error = _service_error(inner)
            return error if error.message else ServiceError(code=error.code, message=fault[:start].strip(" :"))
        return ServiceError(code=grpc_code({"code": fault})[0], message=fault)
    if isinstance(fault, list) and fault:
        fault = fault[0]
    if not isinstance(fault, dict) or not fault:
        code = grpc_code({"code": fault})[0]
        return ServiceError(code=code, message=_NEITHER if not fault else str(fault)[:500])
    inner = fault.get("error")
    if isinstance(inner, dict) and inner:
        fault = inner
    code, odd = grpc_code(fault)
    said = fault.get("message")
    message = (said if isinstance(said, str) else "") + odd
    return ServiceError(code=code, message=message if message or code is not None else str(fault)[:500])


def _read_predictions(predictions: Any) -> Any:
    """Return the first prediction, which may be JSON text; that of a legacy embedding model in the newer form."""
    if isinstance(predictions, str):
        predictions = _json_of(predictions)
    whole = _joined(predictions) if isinstance(predictions, list) and predictions else predictions
    if isinstance(whole, dict) and whole.get("candidates"):
        return whole
    first = next(filter(None, predictions), None) if isinstance(predictions, list) else predictions
    if isinstance(first, str):
        first = _object(first)
    if isinstance(first, dict) and isinstance(first.get("content"), str):
        return {"candidates": [first]}
    found = first.get("embeddings") if isinstance(first, dict) else None
    if not isinstance(found, dict):
        values = first.get("values") if isinstance(first, dict) else first
        return {"embedding": {"values": values}} if isinstance(values, list) else first
    statistics = found.get("statistics")
    counts = statistics if isinstance(statistics, dict) else {}
    count = counts.get("token_count", counts.get("tokenCount"))
    reported = {"tokenCount": count, "truncated": counts.get("truncated")}
    values = found.get("values", found.get("Values"))  # the guide to tables prints the second
    if values is None:
        return first
    return {"embedding": {"values": values}, **{name: one for name, one in reported.items() if one}}
