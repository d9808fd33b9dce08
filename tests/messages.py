"""The messages that the provider can raise, read from its source; `python tests/messages.py` prints them by module."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parents[1] / "airflow_provider_gemini_batch"
# Errors that a user of Airflow meets. The emulator's answers are Google's words; the page has no errors of its own.
KINDS = frozenset({
    "ConfigurationError", "InputError", "TransportError", "ApiError", "AccessDenied", "NotFound", "QuotaExceeded",
    "ServiceUnavailable", "UnexpectedResponse", "UnknownOutput", "ResultsGone", "JobFailed", "JobTimedOut", "JobGone",
    "FileNotReady", "FileFailed",
})  # fmt: skip
# Who puts the message together from its second argument: the first one names a field of the connection.
SECOND = frozenset({"mistake"})
ROOMS = ("api", "rows", "staging", "batch", "polling", "runtime", "cli")
SHORTEST = 16


class Message(NamedTuple):
    """One message: where it is raised, and its longest part that is always the same."""

    module: str
    line: int
    text: str
    """The message with ``...`` for what differs."""
    fixed: str


def messages() -> Iterator[Message]:
    """Yield every message that is written where it is raised."""
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args and _name(node.func) in KINDS | SECOND:
                    parts = _parts(node.args[1 if _name(node.func) in SECOND else 0])
                    fixed = max(parts, key=len, default="").strip(" :;,.'\"(")
                    if len(fixed) >= SHORTEST:
                        where = path.relative_to(PACKAGE).with_suffix("").as_posix()
                        yield Message(where, node.lineno, "...".join(parts), fixed)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _parts(node: ast.expr) -> list[str]:
    """Return the fixed parts of a text, in order, split where something is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [""]
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts[-1] += str(value.value)
            else:
                parts.append("")
        return parts
    return []


if __name__ == "__main__":
    for message in messages():
        print(f"{message.module}:{message.line}\t{message.text}")
