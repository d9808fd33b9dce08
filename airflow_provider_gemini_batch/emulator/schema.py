"""The check of a parsed JSON value against a message of the service.

Strict, it refuses what a proto3 JSON parser refuses: a member that the message does not have, at every depth, and a
value of the wrong JSON type. Otherwise a member whose name no message has may be one of a later SDK, and passes; one
that belongs elsewhere is refused all the same. Names are accepted in lowerCamel and in snake_case.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from airflow_provider_gemini_batch.emulator import messages
from airflow_provider_gemini_batch.emulator.messages import ANY, BOOL, ENUM, PART, PART_DATA, STRING, STRUCT, Message


class Complaint(Exception):
    """A member that is wrong: its name (for its column in a line), and what is wrong with it."""

    def __init__(self, name: str, text: str, *, unknown: bool = False, place: str = "") -> None:
        super().__init__(text)
        self.name = name
        self.text = text
        self.unknown = unknown
        self.place = place


_BOTH: dict[int, dict[str, tuple[str, Any]]] = {}


@lru_cache(maxsize=1024)
def snake(name: str) -> str:
    """Return the snake_case spelling of a lowerCamel name."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda match: "_" + match.group().lower(), name)


def get(message: Any, name: str, default: Any = None) -> Any:
    """Return a member by its lowerCamel name, whichever way it is spelt."""
    if not isinstance(message, dict):
        return default
    return message[name] if name in message else message.get(snake(name), default)


def _members(message: Message) -> dict[str, tuple[str, Any]]:
    table = _BOTH.get(id(message))
    if table is None:
        table = {name: (name, kind) for name, kind in message.items()}
        table.update({snake(name): (name, kind) for name, kind in message.items()})
        _BOTH[id(message)] = table
    return table


@lru_cache(maxsize=1)
def _known_names() -> frozenset[str]:
    """Return every name that some message has, in both spellings."""
    names: set[str] = set()
    seen: set[int] = set()
    pending: list[Any] = [value for value in vars(messages).values() if isinstance(value, dict)]
    while pending:
        kind = pending.pop()
        if isinstance(kind, (list, tuple)):
            pending.extend(kind)
        elif isinstance(kind, dict) and id(kind) not in seen:
            seen.add(id(kind))
            names.update(name for name in kind if isinstance(name, str))
            pending.extend(kind.values())
    return frozenset(names | {snake(name) for name in names})


def check(value: Any, message: Message, name: str = "", place: str = "", *, strict: bool = True) -> None:
    """Check a JSON object against a message; raises Complaint at the first thing that is wrong.

    :param name: the member that holds the object, for the complaint.
    :param place: dotted path of the object, for the complaint.
    :param strict: whether to refuse members whose names no message has.
    """
    if not isinstance(value, dict):
        raise Complaint(name, f"unexpected character: '{_first(value)}'; expected '{{'", place=place)
    table = _members(message)
    for key, item in value.items():
        member = table.get(key)
        if member is None:
            if not strict and key not in _known_names():
                continue
            raise Complaint(key, f"no such field: '{key}'", unknown=True, place=place)
        if item is not None:
            _check_kind(item, member[1], key, f"{place}.{key}" if place else key, strict=strict)
    if message is PART and len(value) > 1:
        _check_part(value, place)


def _check_part(part: dict[str, Any], place: str) -> None:
    named = [name for name in PART_DATA if get(part, name) is not None]
    if len(named) > 1:
        raise Complaint(snake(named[1]), f"field '{named[1]}' is already set (part of a oneof)", place=place)


def _check_kind(value: Any, kind: Any, name: str, place: str, *, strict: bool) -> None:
    if kind is STRING:
        _expect(isinstance(value, str), value, '"', name, place)
    elif isinstance(kind, dict):
        check(value, kind, name, place, strict=strict)
    elif isinstance(kind, list):
        _expect(isinstance(value, list), value, "[", name, place)
        for index, item in enumerate(value):
            _check_kind(item, kind[0], name, f"{place}[{index}]", strict=strict)
    elif isinstance(kind, tuple):
        _expect(isinstance(value, dict), value, "{", name, place)
        for key, item in value.items():
            _check_kind(item, kind[1], key, f"{place}.{key}", strict=strict)
    elif isinstance(kind, frozenset):
        if isinstance(value, (list, dict)) or value not in kind:
            raise Complaint(name, f"invalid value for enum field {name}", place=place)
    elif not _scalar_fits(value, kind):
        raise Complaint(name, f"unexpected value for a field of type {kind}", place=place)


def _expect(fits: bool, value: Any, opening: str, name: str, place: str) -> None:  # noqa: FBT001 - the outcome of a look
    if not fits:
        raise Complaint(name, f"unexpected character: '{_first(value)}'; expected '{opening}'", place=place)


def _scalar_fits(value: Any, kind: str) -> bool:
    if kind == ANY:
        return True
    if kind == STRUCT:
        return isinstance(value, dict)
    if kind == BOOL:
        return isinstance(value, bool)
    if kind == ENUM:
        return isinstance(value, (str, int)) and not isinstance(value, bool)
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first(value: Any) -> str:
    if isinstance(value, dict):
        return "{"
    if isinstance(value, list):
        return "["
    if isinstance(value, str):
        return '"'
    return str(value).lower()[:1]


def conflict(request: dict[str, Any]) -> str | None:
    """Return what is wrong with a generation request whose members do not go together."""
    if get(request, "cachedContent") and any(
        get(request, name) for name in ("systemInstruction", "tools", "toolConfig")
    ):
        return (
            "CachedContent can not be used with GenerateContent request "
            "setting system_instruction, tools or tool_config"
        )
    return None
