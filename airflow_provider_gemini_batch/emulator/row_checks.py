"""The check of a job's rows: lines of a file when the job is created, and single requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator import messages, schema
from airflow_provider_gemini_batch.emulator.openai_rows import check_openai, is_openai
from airflow_provider_gemini_batch.emulator.rows import split_line
from airflow_provider_gemini_batch.emulator.usage import contents_of
from airflow_provider_gemini_batch.emulator.wire import ApiError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_COMPLAINTS = 200


def file_not_active(name: str) -> ApiError:
    """Return the refusal of a file that is still processed or has failed."""
    text = f"The File {name} is not in an ACTIVE state and usage is not allowed."
    return ApiError(400, text, status="FAILED_PRECONDITION")


@dataclass(frozen=True)
class RowCheck:
    """What the rows of a job are checked for.

    :param embeds: whether they are embedding requests.
    :param strict: whether members that nobody knows are refused.
    :param unusable: ids of the files that are not ACTIVE.
    """

    embeds: bool
    vertex: bool = False
    strict: bool = True
    unusable: frozenset[str] = frozenset()

    def lines(self, lines: Iterable[bytes]) -> int:
        """Check every line of an input file and return how many there are.

        Raises ApiError 400 that names every bad line, ``Error on line N: ...``, one to a line; at a file that is not
        ACTIVE it names that file alone.
        """
        complaints: list[str] = []
        rows = 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            rows += 1
            wrong = self._line(line)
            if wrong is not None and len(complaints) < MAX_COMPLAINTS:
                complaints.append(f"Error on line {number}: {wrong}")
        if complaints:
            raise ApiError(400, "\n".join(complaints))
        if not rows:
            raise ApiError(400, "The input file holds no requests.")
        return rows

    def _line(self, line: bytes) -> str | None:
        try:
            row = decode(line.decode())
            self._row(row)
        except UnicodeDecodeError as error:
            return f"invalid JSON, near column {error.start + 1}: invalid UTF-8"
        except json.JSONDecodeError as error:
            return f"invalid JSON, near column {error.colno}: {error.msg}"
        except schema.Complaint as complaint:
            column = max(0, line.decode().find(f'"{complaint.name}"')) + 1
            return f"invalid JSON, near column {column}: {complaint.text}"
        except ValueError as error:
            return f"invalid JSON: {error}"
        except RecursionError:
            return "invalid JSON: nested too deeply"
        return None

    def _row(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise schema.Complaint("", f"unexpected value of type {type(row).__name__}; expected '{{'")
        if not isinstance(row.get("key", ""), str):
            raise schema.Complaint("key", "the key must be a string")
        if is_openai(row) and not self.embeds:
            check_openai(row)
            return
        request, _ = split_line(row)
        self.request(request)
        self.files(request)

    def request(self, request: Any) -> None:
        """Check one request; raises Complaint."""
        message = messages.EMBED if self.embeds else messages.VERTEX_GENERATE if self.vertex else messages.GENERATE
        schema.check(request, message, "request", strict=self.strict)
        clash = None if self.embeds else schema.conflict(request)
        if clash:
            raise schema.Complaint("cachedContent", clash)

    def files(self, request: dict[str, Any]) -> None:
        """Refuse a checked request that names a file of the Files API which is not ACTIVE; raises ApiError 400."""
        if not self.unusable:
            return
        for content in contents_of(request):
            for part in content.get("parts") or ():
                uri = schema.get(schema.get(part, "fileData"), "fileUri") or ""
                name = uri.rpartition("/")[2]
                if name in self.unusable:
                    raise file_not_active(name)
