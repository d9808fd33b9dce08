"""Faults: the ways in which the emulator misbehaves when told to.

A switch has a name and a value, set by ``--fault name=value``, ``POST /emulator/faults`` or ``control.faults()``.
Any switch may be given as ``{"value": ..., "times": n}``: it then serves n times (n jobs, n pages, n chunks).
Row and ending switches belong to the jobs that are created after they were set; holds without ``times`` act at once
on all jobs and let go when cleared. Request faults (``http``, ``reset``, ``slow``, ``garbage``, ``redirect``, ``bomb``,
``drip``) take an object or a list of objects, see ``RequestFault``; each call adds to those that are there.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.vertex_output import read_layout

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bound to a job when it is created.
JOB_SWITCHES = {
    "late_output": "seconds between the end of a job and its output being there",
    "late_output_kind": "absent (default): no output member until then; refused: named, but its download answers 403",
    "shuffle": "answer rows in another order",
    "missing_every": "leave every n-th row out of the output",
    "missing_key_every": "leave the key out of every n-th row",
    "duplicate_every": "write every n-th row twice",
    "extra_rows": "add n rows that nobody asked for",
    "row_error_every": "every n-th row is an error",
    "row_error_code": "gRPC code of those errors, default 13",
    "row_error_message": "their message; null leaves it out",
    "row_error_rounds": "row errors only in jobs whose display name matches this regular expression",
    "truncated_every": "every n-th answer ends with MAX_TOKENS",
    "blocked_every": "every n-th prompt is blocked: no candidates",
    "metadata_missing": "inline answers come back without their metadata",
    "thoughts": "thoughtsTokenCount of every answer",
    "cached_tokens": "so many tokens of every prompt come from a cache",
    "answer_kinds": "what answers are, in turn: a list of text, image, audio, function_call, code, candidates, "
    "thoughts, signature, grounded, url_context, empty",
    "odd_answers": "what is wrong with answers, in turn: a list of names of oddities.py",
    "bare_lines": "lines of the output are responses or errors by themselves, without key",
    "output_bom": "the output file begins with a byte order mark",
    "raw_controls": "control characters stand in the output as they are",
    "image_bytes": "about how large pictures in answers are",
    "audio_seconds": "how long speech in answers is",
    "dimensions": "length of every vector, whatever was asked for",
    "job_ending": "{state, code, message}: how jobs end instead of SUCCEEDED",
    "expire": "jobs end EXPIRED when their time has come",
    "unknown_state": "running jobs show this text as their state",
    "output_layout": "names of the objects that a Vertex job writes, see vertex_output.py: predictions, shards, "
    "numbered, results, export, incremental, unknown, or {layout, count, missing, incremental, litter, name}",
    "no_output_info": "an ended Vertex job does not say where its output is",
    "unfinished_rows": "what the output of a stopped Vertex job says of rows that were not done: bare (default: the "
    "row without answer or status), empty (status and response are empty), omit",
    "predictions_type": "type of the column predictions of a table of embeddings: STRING (default) or JSON",
    "done_state": "the state that an ended job of the Gemini API shows beside done: true",
    "inline_nesting": "single: inline answers come as one list, not as a list in an object",
    "null_every": "every n-th answer is null",
    "partial_rows": "share (0 to 1) of rows answered when a job is stopped on its way; default: as far as it came",
}
#: Looked up when they are needed.
LIVE_SWITCHES = {
    "hold_pending": "jobs never leave PENDING (with times: the next n jobs)",
    "hold_running": "jobs never leave RUNNING (with times: the next n jobs)",
    "stale_counters": "list shows the counters of a job's beginning",
    "list_lag": "seconds until a new job shows up in the list",
    "empty_page": "a list call answers an empty page with a token",
    "refuse_fields": "400 for a fields or readMask parameter",
    "max_page": "refuse list calls that ask for more than this page size",
    "cancel_ending": "ending of a running job that is cancelled: cancelled (default), succeeded, cancelled_partial",
    "cancel_delay": "seconds between a cancel call and its effect",
    "upload_no_status": "an upload answer without x-goog-upload-status, after taking the bytes",
    "upload_cancelled": "the upload session is cancelled by the service",
    "upload_lost": "the upload session is unknown (404)",
    "upload_partial": "only the first n bytes of a chunk are kept, then the connection is closed",
    "download_cut": "close the connection after n bytes of a download",
    "output_retention": "seconds that outputs are kept, default 48 h",
    "download_redirect": "the short download path answers 302: true to the long path of the same host, "
    "or to the origin that the text names",
    "file_processing": "uploaded files stay PROCESSING: seconds, or {seconds, looks, above}: for so many reads of "
    "their record, files of at least so many bytes",
    "file_failed": "uploaded files end FAILED: true, a message or {code, message}",
    "page_loops": "every page of a list names the same next page",
    "date": "the Date header of every answer",
    "upload_url": "the URL that an upload session is said to have",
    "create_lag": "seconds until a new job can be read, cancelled or deleted: 404 before",
    "cancel_refused": "HTTP status (400, 404, 409) that answers a cancel of an ended job",
    "no_resume": "a Vertex job whose input is another's output does all its rows",
    "refuse_mime": "refuse uploads of this MIME type",
    "max_active": "429 for a create when so many jobs are active",
    "bigquery_rows": "rows that a bq:// job is said to have, default 3",
}
REQUEST_KINDS = ("http", "reset", "slow", "garbage", "redirect", "bomb", "drip")


@dataclass
class RequestFault:
    """A fault of calls to one operation.

    Operations: create, get, list, cancel, delete, upload_start, upload_chunk, upload_query, upload_cancel, download,
    file_get, file_list, file_delete, token, sts, iam, table_get, table_rows; ``*`` is any of them.

    :param kind: ``http`` (options status, message, retry_info, retry_after, body = json | html | text | array,
        after_effect), ``reset`` (when = before | after), ``slow`` (seconds, when), ``garbage`` (body),
        ``redirect`` (to = an origin or URL, default: the very same URL; status, default 302), ``bomb`` (an answer of
        ``bytes``, default 1 GiB, in one line of JSON; gzip = false: not compressed), ``drip`` (the answer comes
        ``bytes`` at a time, default 1, ``seconds`` apart, default 1).
    :param times: how many calls are hit, None for all.
    :param skip: how many calls pass before the first hit.
    :param match: regular expression searched in ``path?query``.
    """

    kind: str
    operation: str = "*"
    times: int | None = None
    skip: int = 0
    service: str | None = None
    match: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def after(self) -> bool:
        """Whether the service acts before the fault shows."""
        if self.kind in ("garbage", "bomb", "drip"):
            return True
        return bool(self.options.get("after_effect")) or self.options.get("when") == "after"

    def hits(self, operation: str, service: str, target: str) -> bool:
        """Return whether this call is hit, and count it."""
        if self.operation not in ("*", operation) or (self.service and self.service != service):
            return False
        if self.match and not re.search(self.match, target):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            if self.times < 1:
                return False
            self.times -= 1
        return True


def check_finite(value: Any) -> None:
    """Refuse NaN and Infinity at any depth; raises ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number must be finite, not {value}")
    if isinstance(value, dict):
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        check_finite(inner)


@dataclass
class _Switch:
    value: Any
    times: int | None = None


class Faults:
    """The faults that are set now. Not locked: callers hold the world's lock."""

    def __init__(self) -> None:
        self._switches: dict[str, _Switch] = {}
        self._requests: list[RequestFault] = []

    def set(self, values: Mapping[str, Any]) -> None:
        """Set switches by name; None takes one back. ValueError for an unknown name, and then nothing is set."""
        for name in values:
            if name not in JOB_SWITCHES and name not in LIVE_SWITCHES and name not in REQUEST_KINDS:
                known = ", ".join(sorted([*JOB_SWITCHES, *LIVE_SWITCHES, *REQUEST_KINDS]))
                raise ValueError(f"No fault named {name!r}; there are: {known}")
            if name == "output_layout":
                read_layout(values[name])
            check_finite(values[name])
        for name, value in values.items():
            if name in REQUEST_KINDS:
                self._add(name, value)
            elif value is None and name != "row_error_message":
                self._switches.pop(name, None)
            elif isinstance(value, dict) and "value" in value:
                self._switches[name] = _Switch(value["value"], value.get("times"))
            elif isinstance(value, dict) and "times" in value:
                self._switches[name] = _Switch({k: v for k, v in value.items() if k != "times"}, value["times"])
            else:
                self._switches[name] = _Switch(value)

    def _add(self, kind: str, value: Any) -> None:
        if value is None:
            self._requests = [fault for fault in self._requests if fault.kind != kind]
            return
        for item in value if isinstance(value, list) else [value]:
            common = {k: item[k] for k in ("operation", "times", "skip", "service", "match") if k in item}
            self._requests.append(
                RequestFault(kind, options={k: v for k, v in item.items() if k not in common}, **common)
            )

    def clear(self) -> None:
        """Take every fault back."""
        self._switches.clear()
        self._requests.clear()

    def show(self) -> dict[str, Any]:
        """Return what is set, with the times that are left."""
        shown: dict[str, Any] = {
            name: switch.value if switch.times is None else {"value": switch.value, "times": switch.times}
            for name, switch in self._switches.items()
        }
        for fault in self._requests:
            item = asdict(fault)
            item.update(item.pop("options"))
            shown.setdefault(item.pop("kind"), []).append(item)
        return shown

    def peek(self, name: str, default: Any = None) -> Any:
        """Return the value of a switch without using it up; one with ``times`` counts as unset once they are gone."""
        switch = self._switches.get(name)
        return default if switch is None or switch.times == 0 else switch.value

    def lasting(self, name: str) -> Any:
        """Return the value of a switch that was set without ``times``, else None."""
        switch = self._switches.get(name)
        return switch.value if switch is not None and switch.times is None else None

    def take(self, name: str, default: Any = None) -> Any:
        """Return the value of a switch and use it up by one."""
        switch = self._switches.get(name)
        if switch is None or switch.times == 0:
            return default
        if switch.times is not None:
            switch.times -= 1
        return switch.value

    def bind(self, display_name: str) -> dict[str, Any]:
        """Return the switches that a new job takes with it."""
        bound = {
            name: self.take(name)
            for name in JOB_SWITCHES
            if name in self._switches and self.peek(name, self) is not self
        }
        for name in ("hold_pending", "hold_running"):
            if name in self._switches and self._switches[name].times is not None:
                bound[name] = self.take(name)
        rounds = bound.get("row_error_rounds")
        if rounds and not re.search(str(rounds), display_name):
            bound.pop("row_error_every", None)
        return bound

    def hitting(self, operation: str, service: str, target: str) -> list[RequestFault]:
        """Return the request faults that hit this call, and count it."""
        return [fault for fault in self._requests if fault.hits(operation, service, target)]
