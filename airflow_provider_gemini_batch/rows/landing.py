"""Landing: responses of one or several jobs in any order become one row per input row, in input order.

The number in a response's key names its row. A final row that is next in line goes straight to the sink; any other goes
into a spill file. Memory holds 2 to 5 bytes a row, and 8 more where jobs may have rows in common, whatever the size of
the responses. Jobs are read in the order given; a later one may replace a failed row, never a good one.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from pydantic_core import from_json, to_json

from airflow_provider_gemini_batch.api.legacy import instance_key
from airflow_provider_gemini_batch.api.models import LONG_PROMPT, BatchResult, JobKind, LongPrompts, ServiceError, Usage
from airflow_provider_gemini_batch.api.responses.fast_path import PlainResult
from airflow_provider_gemini_batch.api.responses.usage import usage_of
from airflow_provider_gemini_batch.api.wire import key_text
from airflow_provider_gemini_batch.rows.reorder import Spill, Waiting
from airflow_provider_gemini_batch.rows.result_rows import NO_VECTOR, REPAIRABLE, RowMaker, RowStatus, json_line, unread
from airflow_provider_gemini_batch.rows.wire_keys import unwrap_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_gemini_batch.rows.media import MediaFolder
    from airflow_provider_gemini_batch.rows.schema import OutputSchema
    from airflow_provider_gemini_batch.rows.writers import Sink

_BUFFER_BYTES = 1 << 20
# Plain good responses are placed in runs of so many bytes, since each costs less so than alone.
_RUN_BYTES = 1 << 17
_OK = RowStatus.OK
# Rows with a response that is not good.
_ANSWERED = frozenset({RowStatus.INVALID_OUTPUT, RowStatus.TRUNCATED, RowStatus.BLOCKED})
_WARNED_NAMED = 10
_TOTALS = 4
_MOST_FAILED_KEYS = 20
_MOST_IN_A_BYTE = 255
# How many kinds of failure are distinguished. The service has about thirty.
_MOST_FAULTS = 1000
# A row's status, and the service's word or number for its failure.
_Fault = tuple[str, str]
_UNCOUNTED = Usage._fields.index("uncounted_answers")


class ResponseSource(NamedTuple):
    """The responses of one job. ``row_numbers``, where known, are the rows sent in it, in the order of its input.

    With them, failed rows that no later job can replace are written early, and the responses of a job that returned no
    keys at all are matched by position, if they come ``in_order``: those of Vertex AI do not.
    """

    open: Callable[[], Iterable[BatchResult]]
    row_numbers: Sequence[int] | None = None
    in_order: bool = True


@dataclass(frozen=True, kw_only=True)
class LandingSpec:
    """How to land responses.

    ``rows``: how many the input has; None when that is not known: then each response becomes a row, in the order of
    arrival. ``carried`` returns the carried columns of every row as lines of JSON objects, in order. ``author_key``
    returns the key of a row that got no response. ``wrapped_keys`` is False for jobs that others created: their keys
    are shown as they are. ``media`` is where pictures and sound are written. ``dimensions`` is the requested length of
    vectors.

    ``key_field`` and ``carry`` are only for input that is not known. They name members that the service returns beside
    a response: the first becomes the row's key, the others become columns of text.
    """

    kind: JobKind
    rows: int | None = None
    schema: OutputSchema | None = field(default=None, repr=False)
    keep_response: bool = False
    carried: Callable[[], Iterator[bytes]] | None = field(default=None, repr=False)
    author_key: Callable[[int], str | None] | None = field(default=None, repr=False)
    wrapped_keys: bool = True
    media: MediaFolder | None = field(default=None, repr=False)
    dimensions: int | None = None
    key_field: str | None = None
    carry: tuple[str, ...] = ()

    def maker(self) -> RowMaker:
        """Return the maker of the result rows."""
        return RowMaker(
            self.kind,
            schema=self.schema,
            keep_response=self.keep_response,
            media=self.media,
            dimensions=self.dimensions,
        )


@dataclass(frozen=True, kw_only=True)
class LandingSummary:
    """What landing wrote, in numbers.

    ``usage`` sums every response that was read, including failed ones and those that a later round replaced: they were
    paid for. A response that a later job's output repeats counts once.

    ``by_status`` counts rows by their status. ``extra`` responses belong to no row, ``duplicate`` ones to a row that
    already had one, and the vectors of ``unread`` ones are not as they should be; all are written to ``aside``, a file
    of JSON lines, if there are any. ``repairable`` rows may succeed when they are sent again; of unknown input, these
    are the rows for which the service has no response.

    ``reasons`` counts failed rows by status and by the service's word or number for it: ``{"blocked": {"SAFETY": 3}}``.
    ``warnings`` counts rows with a ``warning``; ``warned`` names the first of them. ``by_position`` counts rows whose
    only name is the position of their response. ``failed_keys`` names the first rows that failed, twenty at most.
    """

    rows: int
    succeeded: int
    by_status: dict[str, int]
    extra: int
    duplicate: int
    usage: Usage
    repairable: Sequence[int] = field(repr=False)
    aside: Path | None
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    warnings: int = 0
    warned: tuple[str, ...] = field(default=(), repr=False)
    by_position: int = 0
    long_prompts: LongPrompts | None = None
    failed_keys: tuple[str, ...] = field(default=(), repr=False)
    unread: int = 0

    @property
    def failed(self) -> int:
        """Rows that are not ok."""
        return self.rows - self.succeeded

    @property
    def counts(self) -> dict[str, int]:
        """Return ``total``, ``succeeded`` and ``failed``, then every bad status and other number that is not zero."""
        bad = {word: count for word, count in self.by_status.items() if word != "ok"}
        more = {name: getattr(self, name) for name in ("extra", "duplicate", "by_position", "warnings")}
        others = {name: count for name, count in more.items() if count}
        return {"total": self.rows, "succeeded": self.succeeded, "failed": self.failed, **bad, **others}


def land(
    sources: Iterable[ResponseSource | Callable[[], Iterable[BatchResult]]],
    sink: Sink,
    landing: LandingSpec,
    workdir: Path,
) -> LandingSummary:
    """Read all responses and write all rows. The caller closes the sink and removes ``workdir``.

    Errors of a source (a download that fails for good) and of the sink are raised as they are; the caller must then
    discard the output.
    """
    known = [source if isinstance(source, ResponseSource) else ResponseSource(source) for source in sources]
    made: _Known | _Unknown = (
        _Unknown(landing, sink, workdir) if landing.rows is None else _Known(landing, sink, workdir, known)
    )
    try:
        for index, source in enumerate(known):
            made.read(index, source, _final_below(known[index + 1 :]))
        return made.finish()
    finally:
        made.close()


def iter_rows(results: Iterable[BatchResult], landing: LandingSpec) -> Iterator[dict[str, Any]]:
    """Yield result rows as dictionaries, one per response, in the order of arrival, without carried columns."""
    maker = landing.maker()
    for number, result in enumerate(results):
        yield maker.members(result, _shown_key(result, landing)[0], number)[1]


def _shown_key(result: BatchResult, landing: LandingSpec) -> tuple[str, bool]:
    """Return the name of a row of unknown input, and whether it is a key rather than the response's position."""
    if landing.wrapped_keys:
        row, key = unwrap_key(result.key)
        if key is not None:
            return key, True
        if row is not None:
            return str(row), True
    elif landing.key_field is None and result.key and not _names_content(result):
        return result.key, True
    metadata = result.beside.get("metadata")
    for place in (result.beside, metadata if isinstance(metadata, dict) else {}):
        for name in (landing.key_field, "key", "custom_id", "id"):
            text = key_text(place.get(name)) if name else None
            if text:
                return text, True
    return str(result.position), False


def _names_content(result: BatchResult) -> bool:
    """Return whether the key was made from the embedded content: then the author did not choose it."""
    return isinstance(result.beside.get("content"), str) and result.key == instance_key(result.beside)


def _runs(results: Iterable[BatchResult]) -> Iterator[tuple[list[PlainResult], BatchResult | None]]:
    """Yield plain good responses in lists of limited size, each with the other response that follows it, if any."""
    plain: list[PlainResult] = []
    size = 0
    for result in results:
        other: BatchResult | None = result
        if type(result) is PlainResult:
            plain.append(result)
            size += len(result.line)
            if size < _RUN_BYTES:
                continue
            other = None
        yield plain, other
        plain, size = [], 0
    yield plain, None


def _final_below(later: Sequence[ResponseSource]) -> int | None:
    """Return the number below which no row is in a later job; None: no row is."""
    lowest: int | None = None
    for source in later:
        if source.row_numbers is None:
            return 0
        if source.row_numbers:
            first = source.row_numbers[0] if isinstance(source.row_numbers, range) else min(source.row_numbers)
            lowest = first if lowest is None else min(lowest, first)
    return lowest


def _are_apart(sources: Sequence[ResponseSource]) -> bool:
    """Return whether the jobs are known to have no row in common."""
    end = 0
    for source in sources if len(sources) > 1 else ():
        numbers = source.row_numbers
        if not isinstance(numbers, range) or numbers.start < end:
            return False
        end = numbers.stop
    return True


class _Base:
    """What both ways of landing share: making rows, summing usage, setting stray responses aside."""

    def __init__(self, landing: LandingSpec, sink: Sink, workdir: Path) -> None:
        self._landing = landing
        self._sink = sink
        self._workdir = workdir
        self._maker = landing.maker()
        self._used = [0] * len(Usage._fields)
        self._long = LongPrompts(0, Usage())
        self._warnings = 0
        self._warned: list[str] = []
        self._failed_names: dict[int, str] = {}
        self._by_position = 0
        self._aside_path = workdir / "aside.jsonl"
        self._aside: BinaryIO | None = None
        self._strays = {"extra": 0, "duplicate": 0, "unread": 0}

    def _count_usage(self, usage: tuple[int, ...] | None, result: BatchResult) -> None:
        used = self._used
        if usage is not None and len(usage) == _TOTALS:
            used[0] += usage[0]
            used[1] += usage[1]
            used[2] += usage[2]
            used[3] += usage[3]
        elif usage is not None:
            for place, count in enumerate(usage):
                used[place] += count
        elif result.error is None or result.billed:
            used[_UNCOUNTED] += 1
        if usage is not None and usage[0] > LONG_PROMPT:
            self._long = LongPrompts(self._long.rows + 1, self._long.usage.plus(Usage(*usage)))

    def _note_warning(self, key: str) -> None:
        """Count a row with a warning and keep the first names."""
        self._warnings += 1
        if len(self._warned) < _WARNED_NAMED:
            self._warned.append(key)

    def _note_failed(self, row: int, name: str) -> None:
        # More than are shown, since a later job may replace some of them.
        if len(self._failed_names) < 10 * _MOST_FAILED_KEYS:
            self._failed_names[row] = name

    def _keep_unread(self, result: BatchResult, reason: str) -> None:
        """Set aside a response whose vector is not in its row: it was paid for, and may be right in a newer form."""
        failed = result.error is not None and self._landing.kind is JobKind.EMBEDDINGS and unread(result.billed or {})
        if (failed or reason == NO_VECTOR) and not self._landing.keep_response:
            self._put_aside(result, "unread")

    def _put_aside(self, result: BatchResult, why: str) -> None:
        self._strays[why] += 1
        if self._aside is None:
            self._aside = self._aside_path.open("wb", buffering=_BUFFER_BYTES)
        error = None if result.error is None else result.error.model_dump()
        self._aside.write(json_line({"why": why, "key": result.key, "response": result.billed, "error": error}))

    def _summary(
        self, by_status: dict[str, int], repairable: Sequence[int], faults: Mapping[_Fault, int]
    ) -> LandingSummary:
        reasons: dict[str, dict[str, int]] = {}
        for (word, reason), count in sorted(faults.items()):
            reasons.setdefault(word, {})[reason] = count
        return LandingSummary(
            rows=sum(by_status.values()),
            succeeded=by_status.get("ok", 0),
            by_status=by_status,
            extra=self._strays["extra"],
            duplicate=self._strays["duplicate"],
            unread=self._strays["unread"],
            usage=Usage(*self._used),
            repairable=repairable,
            aside=None if self._aside is None else self._aside_path,
            reasons=reasons,
            warnings=self._warnings,
            warned=tuple(self._warned),
            by_position=self._by_position,
            long_prompts=self._long if self._long.rows else None,
            failed_keys=tuple(name for _, name in sorted(self._failed_names.items()))[:_MOST_FAILED_KEYS],
        )

    def read(self, index: int, source: ResponseSource, final_below: int | None) -> None:
        """Read all responses of a job."""
        raise NotImplementedError

    def finish(self) -> LandingSummary:
        """Write the remaining rows and return the summary."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the landing's own files."""
        if self._aside is not None:
            self._aside.close()


def _splice(line: bytes, carried: bytes, *, keep_response: bool) -> bytes:
    """Return a row with carried columns added: last, or before the service's own JSON."""
    if not keep_response:
        return line[:-2] + b"," + carried[1:]
    row = from_json(line)
    response = row.pop("response")
    return to_json({**row, **from_json(carried), "response": response}) + b"\n"


def _fault(status: RowStatus, reason: str, known: Collection[_Fault]) -> _Fault:
    """Return why a row failed, or ``other`` when so many kinds of failure are ``known`` already."""
    fault = (status.word, reason)
    return fault if len(known) + 1 < _MOST_FAULTS or fault in known else (status.word, "other")


def _usage(result: BatchResult) -> tuple[int, ...] | None:
    if isinstance(result, PlainResult):
        return result.counts
    return usage_of(result.billed)[0] if result.billed else None


def _identity(result: BatchResult) -> int:
    """Return a number that is the same for the same response, wherever it is read."""
    if isinstance(result, PlainResult):
        return hash(result.response_id or (result.text, result.vector, result.counts))
    billed = result.billed or {}
    name = billed.get("responseId")
    return hash(name if isinstance(name, str) and name else json_line(billed))


class _Unknown(_Base):
    """Landing without known input: one row per response, in the order of arrival."""

    def __init__(self, landing: LandingSpec, sink: Sink, workdir: Path) -> None:
        super().__init__(landing, sink, workdir)
        self._by_status: Counter[str] = Counter()
        self._faults: Counter[_Fault] = Counter()
        self._transient = array("q")

    def read(self, index: int, source: ResponseSource, final_below: int | None) -> None:  # noqa: ARG002
        """Write a row for every response."""
        for result in source.open():
            key, named = _shown_key(result, self._landing)
            number = self._by_status.total()
            status, line, usage, reason, warned = self._maker.line(result, key, number)
            self._by_position += not named
            self._count_usage(usage, result)
            self._by_status[status.word] += 1
            if status is not _OK:
                self._faults[_fault(status, reason, self._faults)] += 1
                self._note_failed(number, key)
                self._keep_unread(result, reason)
            if status is RowStatus.TRANSIENT_ERROR:
                self._transient.append(number)
            if warned:
                self._note_warning(key)
            self._sink.write(self._with_members_beside(line, result))

    def _with_members_beside(self, line: bytes, result: BatchResult) -> bytes:
        if not self._landing.carry:
            return line
        metadata = result.beside.get("metadata")
        beside = {**(metadata if isinstance(metadata, dict) else {}), **result.beside}
        carried = {name: _as_text(beside.get(name)) for name in self._landing.carry}
        return _splice(line, to_json(carried) + b"\n", keep_response=self._landing.keep_response)

    def finish(self) -> LandingSummary:
        """Return the summary."""
        return self._summary(dict(self._by_status), self._transient, self._faults)


def _as_text(value: Any) -> str | None:
    """Return a member of any type as text: columns of unknown input have no types."""
    if value is None or isinstance(value, str):
        return value and value.encode("utf-8", "replace").decode()
    return key_text(value) or json_line(value)[:-1].decode()


class _Known(_Base):
    """Landing with known input: one row per input row, in its order."""

    def __init__(self, landing: LandingSpec, sink: Sink, workdir: Path, sources: Sequence[ResponseSource]) -> None:
        super().__init__(landing, sink, workdir)
        rows = landing.rows or 0
        self._rows = rows
        self._next = 0
        self._final_below = 0
        self._status = bytearray(rows)
        self._by = array("B" if len(sources) <= _MOST_IN_A_BYTE else "H", [0]) * rows
        # The kinds of failure, and for each row the number of its kind, once a row has failed; 0: none.
        self._faults: list[_Fault] = [("", "")]
        self._fault_numbers: dict[_Fault, int] = {}
        self._fault_of = array("H")
        self._several = not _are_apart(sources)
        # A hash of each row's response, to recognise one that a later job's output repeats.
        self._identities = array("q", [0]) * (rows if self._several else 0)
        self._spill = Spill(workdir / "spill.jsonl", rows)
        self._keyless = Waiting(workdir / "keyless.jsonl")
        self._carried = None if landing.carried is None else landing.carried()

    def read(self, index: int, source: ResponseSource, final_below: int | None) -> None:
        """Put every response in its row; those without a key wait until it is clear that none has one."""
        job, limit = index + 1, self._rows if final_below is None else final_below
        keyed = keyless = 0
        wait_for_position = source.row_numbers is not None
        for plain, other in _runs(source.open()):
            if plain:
                keyed += len(plain)
                self._place_plain(plain, job, limit)
            if other is None:
                continue
            if other.key is None and wait_for_position:
                keyless += 1
                error = None if other.error is None else other.error.model_dump()
                billed = None if other.billed is other.response else other.billed
                self._keyless.add(json_line([other.response, error, other.position, billed]))
            else:
                keyed += 1
                self._place(other, *unwrap_key(other.key), job, limit)
        if keyless:
            is_told = (source.in_order or keyless == 1) and keyed == 0
            numbers = source.row_numbers if is_told and keyless == len(source.row_numbers or ()) else None
            self._place_keyless(numbers, job, limit)
        self._settle(job, limit)

    def _place_keyless(self, numbers: Sequence[int] | None, job: int, limit: int) -> None:
        for position, line in enumerate(self._keyless.take()):
            response, error, place, billed = from_json(line)
            result = BatchResult(None, response, None if error is None else ServiceError(**error), place, billed=billed)
            row = None if numbers is None else numbers[position]
            self._place(result, row, None if row is None else self._author_key(row), job, limit)

    def _place_plain(self, results: list[PlainResult], job: int, limit: int) -> None:
        """Place plain good responses: all at once if their rows have no other response, else one by one."""
        named = [unwrap_key(result.key) for result in results]
        rows = [row for row, _ in named if row is not None and row < self._rows]
        lines = b""
        if len(set(rows)) == len(results) and not any(map(self._by.__getitem__, rows)):
            lines = self._maker.plain_lines(results, [key or str(row) for row, key in named])
        if lines:
            self._place_at_once(results, rows, lines, job)
            return
        for result, (row, key) in zip(results, named, strict=True):
            self._place(result, row, key, job, limit)

    def _place_at_once(self, results: list[PlainResult], rows: list[int], lines: bytes, job: int) -> None:
        self._count_plain_usage(results)
        first, end = rows[0], rows[0] + len(rows)
        if first == self._next and rows == list(range(first, end)):
            self._by[first:end] = array(self._by.typecode, (job,)) * len(rows)
            self._status[first:end] = bytes((_OK,)) * len(rows)
            self._write_out([(first, end, lines)])
            self._drain()
        else:
            for row in rows:
                self._by[row] = job
                self._status[row] = _OK
            self._spill.add(rows, BytesIO(lines), is_final=True)  # BytesIO yields lines
            self._drain()
        if self._several:
            for row, result in zip(rows, results, strict=True):
                self._identities[row] = _identity(result)

    def _count_plain_usage(self, results: Sequence[PlainResult]) -> None:
        columns = list(zip(*(result.counts for result in results), strict=True))
        if max(columns[0]) > LONG_PROMPT:
            for result in results:
                self._count_usage(result.counts, result)
        else:
            for place, column in enumerate(columns):
                self._used[place] += sum(column)

    def _place(self, result: BatchResult, row: int | None, key: str | None, job: int, limit: int) -> None:
        """Place a response in its row, or set it aside."""
        if row is None or row >= self._rows:
            self._set_stray_aside(result, "extra")
            return
        by = self._by[row]
        repeated = bool(by) and (by == job or (self._several and self._identities[row] == _identity(result)))
        if by and (by == job or row < self._next or self._status[row] == _OK):
            self._set_stray_aside(result, "duplicate", counted=repeated)
            return
        if by and not result.billed and self._status[row] in _ANSWERED:
            return  # An error says less than a response that was paid for.
        name = key or str(row)
        status, line, usage, reason, warned = self._maker.line(result, name, row)
        if not repeated:
            self._count_usage(usage, result)
        if warned:
            self._note_warning(name)
        self._by[row] = job
        self._status[row] = status
        if self._several:
            self._identities[row] = _identity(result)
        if status is not _OK:
            self._note_fault(row, _fault(status, reason, self._fault_numbers))
            self._note_failed(row, name)
            self._keep_unread(result, reason)
        elif self._fault_of and self._fault_of[row]:
            self._fault_of[row] = 0
            self._failed_names.pop(row, None)
        # A failed row that no later job holds was final, yet this job responded to it.
        was_final = by and row < self._final_below
        self._put(row, line, is_final=not was_final and (status is _OK or row < limit))

    def _put(self, row: int, line: bytes, *, is_final: bool) -> None:
        """Write the line of a row if it is next, or let it wait."""
        spill = self._spill
        if is_final and row == self._next:
            self._emit(line)
        else:
            spill.add((row,), (line,), is_final=is_final)
            if row >> spill.shift > self._next >> spill.shift:
                return
        if spill.waiting:
            self._drain()

    def _note_fault(self, row: int, fault: _Fault) -> None:
        if not self._fault_of:
            self._fault_of = array("H", [0]) * self._rows
        number = self._fault_numbers.setdefault(fault, len(self._faults))
        if number == len(self._faults):
            self._faults.append(fault)
        self._fault_of[row] = number

    def _set_stray_aside(self, result: BatchResult, why: str, *, counted: bool = False) -> None:
        """Set aside a response that has no row. It was paid for: count its usage, unless it was ``counted`` before."""
        if not counted:
            self._count_usage(_usage(result), result)
        self._put_aside(result, why)

    def _author_key(self, row: int) -> str | None:
        return None if self._landing.author_key is None else self._landing.author_key(row)

    def _emit(self, line: bytes) -> None:
        """Write the row that is next in line."""
        self._next += 1
        self._sink.write(line if self._carried is None else self._with_carried(line))

    def _with_carried(self, line: bytes) -> bytes:
        assert self._carried is not None  # noqa: S101  (the only caller has checked)
        carried = next(self._carried, None)
        if carried is None or len(carried) <= len(b"{}\n"):
            return line
        return _splice(line, carried, keep_response=self._landing.keep_response)

    def _settle(self, job: int, limit: int) -> None:
        """After a job, mark failed rows of earlier jobs as final where no later job holds them."""
        if self._fault_of:
            for row in range(self._final_below, limit):
                if 0 < self._by[row] < job and self._status[row] != _OK and row >= self._next:
                    self._spill.settle(row)
        self._final_below = limit
        self._drain()

    def _drain(self) -> None:
        """Write the waiting rows up to the first one that is missing."""
        while self._spill.is_whole(self._next):
            self._write_out(self._spill.take(self._next))

    def finish(self) -> LandingSummary:
        """Write the waiting rows and those without a response, in order, and return the summary."""
        self._write_out(self._spill.pieces(self._next))
        return self._sum_up()

    def _write_out(self, pieces: Iterable[tuple[int, int, bytes]]) -> None:
        for row, last, lines in pieces:
            if not lines:
                name = self._author_key(row) or str(row)
                self._note_failed(row, name)
                self._emit(self._maker.missing(name))
            elif self._carried is None:
                self._next = last
                self._sink.write(lines)
            else:
                for line in BytesIO(lines):
                    self._emit(line)

    def _sum_up(self) -> LandingSummary:
        faults = {self._faults[number]: count for number, count in Counter(self._fault_of).items() if number}
        by_status: Counter[str] = Counter()
        for state in RowStatus:
            by_status[state.word] += self._status.count(state)
        bad = array("q")
        if by_status["ok"] < self._rows:
            bad.extend(row for row, state in enumerate(self._status) if state in REPAIRABLE)
        return self._summary({word: count for word, count in by_status.items() if count}, bad, faults)

    def close(self) -> None:
        """Close all files."""
        super().close()
        self._spill.close()
        self._keyless.close()
