"""Rows of a job: what each is answered, the stream of output lines with their faults, and the count of both."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.answers import Answerer, block, truncate
from airflow_provider_gemini_batch.emulator.oddities import finish_line, make_odd
from airflow_provider_gemini_batch.emulator.openai_rows import is_openai, request_of, row_of
from airflow_provider_gemini_batch.emulator.usage import billed_tokens, whole_number
from airflow_provider_gemini_batch.emulator.wire import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator.answers import Responder
    from airflow_provider_gemini_batch.emulator.media import Lookup
    from airflow_provider_gemini_batch.emulator.store import Store

SHUFFLE_WINDOW = 10_000


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False)


def dump_line(row: dict[str, Any]) -> bytes:
    """Return a row as one line of raw UTF-8, escaped only where a lone surrogate leaves no choice."""
    try:
        return _ENCODER.encode(row).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b"\n"


def split_line(row: dict[str, Any]) -> tuple[Any, str | None]:
    """Return the request and the key of an input line, keyed or bare."""
    if "request" in row:
        return row["request"], row.get("key")
    return {name: value for name, value in row.items() if name != "key"}, None


@dataclass
class Tally:
    """What a job's rows came to."""

    succeeded: int = 0
    failed: int = 0
    #: Rows among the succeeded ones that an earlier job had answered.
    reused: int = 0
    prompt_tokens: int = 0
    candidates_tokens: int = 0
    thoughts_tokens: int = 0
    #: What is billed, see ``usage.billed_tokens``.
    billed: dict[str, int] = field(default_factory=dict)

    def count(self, answer: dict[str, Any]) -> None:
        """Add one answered row."""
        response = answer.get("response")
        if not isinstance(response, dict):
            self.failed += 1
            return
        self.succeeded += 1
        for kind, count in billed_tokens(response).items():
            self.billed[kind] = self.billed.get(kind, 0) + count
        usage = response.get("usageMetadata")
        if usage is None:
            self.prompt_tokens += whole_number(response.get("tokenCount"))
            return
        self.prompt_tokens += whole_number(usage.get("promptTokenCount"))
        self.candidates_tokens += whole_number(usage.get("candidatesTokenCount"))
        self.thoughts_tokens += whole_number(usage.get("thoughtsTokenCount"))


@dataclass
class AnswerPlan:
    """How the rows of one job are answered.

    :param faults: the switches that the job took with it.
    :param limit: how many rows are answered, None for all.
    :param share: the same as a share of all rows, for jobs whose rows are not counted yet.
    :param rest: what becomes of the others: ``error`` (code 1), ``omit``, or ``bare`` (the row without an answer).
    """

    model: str
    embeds: bool
    faults: dict[str, Any]
    limit: int | None = None
    rest: str = "error"
    share: float | None = None
    responder: Responder | None = None
    look_up: Lookup | None = None
    #: Whether members that nobody knows are refused.
    strict: bool = True
    #: The emulator's time, for answers that name one.
    now: float = 0.0

    def answerer(self) -> Answerer:
        """Return the answerer of these rows."""
        return Answerer(
            self.model,
            embeds=self.embeds,
            thoughts=int(self.faults.get("thoughts") or 0),
            cached=int(self.faults.get("cached_tokens") or 0),
            dimensions=self.faults.get("dimensions"),
            image_bytes=int(self.faults.get("image_bytes") or 0),
            audio_seconds=self.faults.get("audio_seconds"),
            responder=self.responder,
            look_up=self.look_up,
        )

    def every(self, name: str, number: int) -> bool:
        """Return whether a fault of every n-th row hits this one."""
        if name not in self.faults:
            return False
        nth = int(self.faults[name] or 0)
        return nth > 0 and number % nth == 0

    def answer(
        self, answerer: Answerer, request: dict[str, Any], key: str | None, number: int
    ) -> dict[str, Any] | None:
        """Return the answer to row ``number`` (from 1), faults included; None when the row is left out."""
        if self.limit is not None and number > self.limit:
            return {"error": {"code": 1}} if self.rest == "error" else None
        if not self.faults:
            return answerer.answer(request, key)
        if self.every("row_error_every", number):
            return {"error": self._row_error()}
        kinds = self.faults.get("answer_kinds")
        answer = answerer.answer(request, key, kinds[(number - 1) % len(kinds)] if kinds else None)
        odd = self.faults.get("odd_answers")
        if odd:
            answer = make_odd(answer, odd[(number - 1) % len(odd)])
        if "response" in answer and self.every("truncated_every", number):
            truncate(answer["response"])
        if "response" in answer and self.every("blocked_every", number):
            answer["response"] = block(answer["response"])
        return answer

    def _row_error(self) -> dict[str, Any]:
        message = self.faults.get("row_error_message", "Internal error encountered.")
        error: dict[str, Any] = {"code": int(self.faults.get("row_error_code") or 13)}
        if message is not None:
            error["message"] = message
        return error


def answer_lines(lines: Iterable[bytes], plan: AnswerPlan, tally: Tally) -> Iterator[bytes]:
    """Yield the output lines of a Developer API job, file or inline, and count them."""
    answerer = plan.answerer()
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        row = decode(line.decode())
        openai = is_openai(row)
        request, key = (request_of(row), None) if openai else split_line(row)
        metadata = row.get("metadata") if "request" in row else None
        known = row["custom_id"] if openai else key if key is not None else (metadata or {}).get("key")
        answer = plan.answer(answerer, request, known, number)
        if answer is None:
            continue
        tally.count(answer)
        if not plan.faults and not openai:
            yield dump_line(_named(answer, key, metadata, plan, number))
            continue
        if plan.every("missing_every", number):
            continue
        if plan.every("null_every", number):
            yield b"null\n"
            continue
        encoded = dump_line(
            row_of(row, answer, int(plan.now)) if openai else _named(answer, key, metadata, plan, number)
        )
        if plan.faults.get("raw_controls") or plan.faults.get("odd_answers"):
            encoded = finish_line(encoded, raw_controls=bool(plan.faults.get("raw_controls")))
        yield encoded
        if plan.every("duplicate_every", number):
            yield encoded
    for extra in range(int(plan.faults.get("extra_rows") or 0)):
        name = f"extra-{extra + 1}"
        asked: dict[str, Any] = (
            {"content": {"parts": [{"text": name}]}} if plan.embeds else {"contents": [{"parts": [{"text": name}]}]}
        )
        yield dump_line({"key": name, **answerer.answer(asked, name)})


def _named(answer: dict[str, Any], key: str | None, metadata: Any, plan: AnswerPlan, number: int) -> dict[str, Any]:
    if plan.faults.get("bare_lines"):
        return dict(answer.get("response") or answer.get("error") or {})
    if plan.every("missing_key_every", number):
        return answer
    names: dict[str, Any] = {}
    if key is not None:
        names["key"] = key
    if metadata is not None and not plan.faults.get("metadata_missing"):
        names["metadata"] = metadata
    # Member order varies on the real service too.
    return {**names, **answer} if number % 2 else {**answer, **names}


def shuffled(lines: Iterable[bytes], seed: str) -> Iterator[bytes]:
    """Yield the lines in another order, holding at most a window of them."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    window: list[bytes] = []
    for line in lines:
        window.append(line)
        if len(window) >= SHUFFLE_WINDOW:
            place = chance.randrange(len(window))
            window[place], window[-1] = window[-1], window[place]
            yield window.pop()
    before = list(window)
    chance.shuffle(window)
    if window == before:
        window.reverse()
    yield from window


def write_output(source: Path, store: Store, name: str, plan: AnswerPlan, seed: str) -> Tally:
    """Answer a whole input file into an output file, in constant memory; the file appears when it is whole."""
    tally = Tally()
    part = f"{name}.part"
    with source.open("rb", buffering=1 << 20) as lines, store.open(part, "wb") as sink:
        answered = answer_lines(lines, plan, tally)
        if plan.faults.get("output_bom"):
            sink.write(b"\xef\xbb\xbf")
        sink.writelines(shuffled(answered, seed) if plan.faults.get("shuffle") else answered)
    store.path(part).replace(store.path(name))
    return tally
