"""The batch adapter for ``apache-airflow-providers-common-ai``: ``LLMBatchOperator`` and ``@task.llm_batch`` on Gemini.

common.ai finds this module through the entry point group ``airflow.providers.common.ai.batch_adapters`` and imports it
only for a ``model_id`` such as ``google:gemini-2.5-flash``. It hands over a connection's password and host, so only the
Gemini Developer API is within reach. Written against common.ai 1.0.0, whose contract is marked experimental.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.ai.batch.base import (
    BatchAdapter,
    BatchState,
    ExtractedOutput,
    RawResultItem,
    SubmitResult,
)
from airflow.providers.common.ai.exceptions import LLMBatchLimitExceededError, LLMBatchModelMismatchError

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import (
    ApiError,
    ConfigurationError,
    GeminiBatchError,
    InputError,
    NotFound,
)
from airflow_provider_gemini_batch.api.models import JobKind, JobState
from airflow_provider_gemini_batch.api.names import gemini_model
from airflow_provider_gemini_batch.api.requests.fields import camel
from airflow_provider_gemini_batch.api.requests.forms import mapping_of
from airflow_provider_gemini_batch.api.requests.request import normalise
from airflow_provider_gemini_batch.api.responses.refusal import only_the_service
from airflow_provider_gemini_batch.api.wire import json_bytes
from airflow_provider_gemini_batch.rows.media import fits_inline
from airflow_provider_gemini_batch.rows.result_rows import RowMaker, RowStatus
from airflow_provider_gemini_batch.rows.schema import response_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.providers.common.ai.batch.base import BatchRequest, BatchStatus
    from airflow.providers.common.ai.batch.output_schema import OutputSpec

    from airflow_provider_gemini_batch.api.models import BatchJob, BatchResult

log = logging.getLogger(__name__)

_ALIASES = frozenset({"google", "google-gla", "gemini"})
_STATES: dict[JobState, BatchStatus] = {
    JobState.SUCCEEDED: "completed",
    JobState.PARTIALLY_SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
    JobState.CANCELLED: "cancelled",
}
_ITEM_STATES = {JobState.EXPIRED: "expired", JobState.CANCELLED: "cancelled"}
_ANSWERED = frozenset({RowStatus.OK, RowStatus.TRUNCATED, RowStatus.INVALID_OUTPUT})
# How far the service's clock and Airflow's may differ when the age of an orphan is checked.
_CLOCK_SLACK = timedelta(minutes=5)


class BatchNotFound(NotFound):
    """The service does not know the batch. ``status_code`` is where common.ai looks for that."""

    status_code = int(HTTPStatus.NOT_FOUND)


class GeminiBatchAdapter(BatchAdapter):
    """Run common.ai's batches as jobs of the Gemini Developer API.

    :param api_key: the connection's password.
    :param base_url: the connection's host; None: Google's own.
    :param client: a :class:`BatchClient` in place of one that is made from the other two.
    :raises ConfigurationError: no key, or a base URL that cannot be used.
    """

    name: ClassVar[str] = "google"
    conn_types: ClassVar[frozenset[str]] = frozenset({"pydanticai", "gemini_batch"})
    # The service has no limit of rows; common.ai keeps the whole input in memory.
    max_requests: ClassVar[int] = 1_000_000
    # Limit of a file in the Files API. Source: https://ai.google.dev/gemini-api/docs/files
    max_payload_bytes: ClassVar[int] = 2_000_000_000
    allows_per_request_model: ClassVar[bool] = False
    #: Seconds within which a job that was created appears in the service's list, and the pause between two searches.
    lookup_seconds: ClassVar[float] = 120.0
    lookup_pause: ClassVar[float] = 10.0
    #: Seconds between two "not found" before a job is given up, since common.ai then pays for another one.
    gone_after: ClassVar[float] = 60.0

    def __init__(self, *, api_key: str | None = None, base_url: str | None = None, client: Any | None = None) -> None:
        super().__init__(client=client or BatchClient.for_gemini(api_key or "", base_url=base_url))

    def resolve_request_model(self, request_model: str | None, *, default_bare_model: str, request_index: int) -> str:
        """Return the model of one request, with any of the prefixes that select this adapter."""
        prefix, _, bare = (request_model or "").partition(":")
        if prefix in _ALIASES and bare:
            request_model = f"{self.name}:{bare}"
        found: str = super().resolve_request_model(
            request_model, default_bare_model=default_bare_model, request_index=request_index
        )
        return found

    def validate_requests(
        self,
        requests: list[BatchRequest],
        *,
        model: str,
        output_spec: OutputSpec,
        idempotency_key: str,
        **kwargs: Any,
    ) -> None:
        """Raise for what the service would refuse, before anything is sent."""
        self.check_custom_id_length(idempotency_key, len(requests))
        gemini_model(model)
        if len(requests) > self.max_requests:
            raise LLMBatchLimitExceededError(
                f"A Gemini batch takes at most {self.max_requests} requests here; got {len(requests)}. Split the input "
                "with .expand(), or use GeminiCreateBatchJobOperator, which streams and splits input of any size."
            )
        models = {
            self.resolve_request_model(request.get("model"), default_bare_model=model, request_index=index)
            for index, request in enumerate(requests)
        }
        if models - {model}:
            raise LLMBatchModelMismatchError(
                f"Every request of a Gemini batch uses the same model; got {sorted(models | {model})}."
            )
        size = 0
        for line in self._lines(requests, idempotency_key, self.build_output_directive(output_spec), **kwargs):
            size += len(line)
            if size > self.max_payload_bytes:
                raise LLMBatchLimitExceededError(
                    f"A Gemini batch takes at most {self.max_payload_bytes} bytes. Split the input with .expand(), or "
                    "use GeminiCreateBatchJobOperator, which splits it by itself."
                )

    def submit(
        self,
        requests: list[BatchRequest],
        *,
        model: str,
        idempotency_key: str,
        input_fingerprint: str,
        output_spec: OutputSpec,
        **kwargs: Any,
    ) -> SubmitResult:
        """Create the job, once, with a display name by which :meth:`find_orphaned_batch` finds it again.

        :raises TransportError: no usable answer; when it says ``sent``, the job may exist.
        """
        lines = list(self._lines(requests, idempotency_key, self.build_output_directive(output_spec), **kwargs))
        name = _display_name(idempotency_key, input_fingerprint)
        if fits_inline(model, len(lines), sum(map(len, lines)), lambda: b"".join(lines)):
            job = self._client.create(model, inlined_requests=[json.loads(line) for line in lines], display_name=name)
            return SubmitResult(batch_id=job.name, provider_input_ref=None)
        with tempfile.NamedTemporaryFile(prefix="gemini-batch-", suffix=".jsonl") as handle:
            handle.writelines(lines)
            handle.flush()
            file = self._client.upload_file(Path(handle.name), display_name=name)
        job = self._client.create(model, file_name=file.name, display_name=name)
        return SubmitResult(batch_id=job.name, provider_input_ref=file.name)

    def _lines(
        self,
        requests: Iterable[BatchRequest],
        idempotency_key: str,
        directive: dict[str, Any],
        *,
        system_prompt: str = "",
        max_tokens: int | None = None,
        request_params: dict[str, Any] | None = None,
        **_: Any,
    ) -> Iterator[bytes]:
        """Yield the requests in the service's form, one line each.

        ``request_params`` and a request's ``params`` hold members of ``generationConfig`` in either spelling; what the
        operator manages itself (output tokens, schema) wins.
        """
        for index, request in enumerate(requests):
            given = {**_camel(request_params), **_camel(request.get("params"))}
            tokens = request.get("max_tokens") or max_tokens
            config = {**given, **directive, **({"maxOutputTokens": tokens} if tokens else {})}
            body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": request["prompt"]}]}]}
            instruction = request.get("system_prompt") or system_prompt
            if instruction:
                body["systemInstruction"] = {"parts": [{"text": instruction}]}
            if config:
                body["generationConfig"] = config
            item = {"key": f"{idempotency_key}-{index}", "request": body}
            try:
                # What the create call would refuse is refused while common.ai has not noted that it sends one.
                normalise(item)
                line = json_bytes(item)
            except InputError as error:
                raise InputError(f"requests[{index}]: {error}") from None
            yield line + b"\n"

    def get_batch(self, batch_id: str) -> BatchState:
        """Return the state of a job; raise :class:`BatchNotFound` when the service does not know it."""
        job = self._job(batch_id)
        error = None if job.error is None else f"{job.error.code or 'error'}: {job.error.message}"
        return BatchState(status=_STATES.get(job.state, "in_progress"), counts=_counts(job), error_message=error)

    def _job(self, batch_id: str, *, brief: bool = True) -> BatchJob:
        job: BatchJob
        try:
            job = self._client.get(batch_id, brief=brief)
        except NotFound:
            time.sleep(self.gone_after)
            try:
                with only_the_service():
                    job = self._client.get(batch_id, brief=brief)
            except NotFound as error:
                raise BatchNotFound(
                    str(error), http_status=error.http_status, status=error.status, reason=error.reason
                ) from error
        return job

    def cancel_batch(self, batch_id: str) -> None:
        """Request the cancellation of a job; do nothing for one that has ended or is gone."""
        try:
            with only_the_service():
                if not self._client.get(batch_id, brief=True).is_done:
                    self._client.cancel(batch_id)
        except NotFound:
            log.info("%s is gone already.", batch_id)
        except ApiError:
            # A job may end between the two calls, and a cancel that comes too late is refused.
            if not self._client.get(batch_id, brief=True).is_done:
                raise

    def iter_results(self, batch_id: str) -> Iterator[RawResultItem]:
        """Return the results as they stream; errors about the job are raised at once."""
        job = self._job(batch_id, brief=False)
        return self._items(job, self._client.get_responses(job))

    @staticmethod
    def _items(job: BatchJob, results: Iterable[BatchResult]) -> Iterator[RawResultItem]:
        maker = RowMaker(JobKind.GENERATION)
        for result in results:
            prefix, _, number = (result.key or "").rpartition("-")
            if not prefix or not number.isdecimal():
                log.warning("%s: a result names no request of this task and is passed over", job.name)
                continue
            status, row, usage, _ = maker.members(result, result.key or "")
            answered = status in _ANSWERED
            yield RawResultItem(
                custom_id=result.key or "",
                index=int(number),
                provider_status="success" if answered else _ITEM_STATES.get(job.state, "errored"),
                model=job.model or None,
                usage=None
                if usage is None
                # Thinking counts as output, as in the other adapters and on Google's bill.
                else {
                    "input_tokens": usage.input_tokens,
                    "output_tokens": usage.output_tokens + usage.thinking_tokens,
                },
                finish_reason=row.get("finish_reason"),
                error=None if answered else _error(status, row),
                raw=row.get("text") if answered else None,
            )

    def build_output_directive(self, spec: OutputSpec) -> dict[str, Any]:
        """Return the members of ``generationConfig`` that ask for structured output.

        :raises ConfigurationError: Gemini cannot express this schema; the message names the place in it.
        """
        if not spec.is_structured:
            return {}
        return {"responseMimeType": "application/json", "responseSchema": response_schema(_with_definitions(spec))}

    def extract_output(self, raw: RawResultItem, spec: OutputSpec) -> ExtractedOutput:
        """Return the text of a result; ``absent`` when the model wrote none."""
        if not raw.raw:
            return ExtractedOutput(kind="absent")
        return ExtractedOutput(kind="json_text" if spec.is_structured else "text", text=raw.raw)

    def find_orphaned_batch(self, idempotency_key: str, input_fingerprint: str, not_before: str) -> str | None:
        """Return the newest job with this task's display name that is not older than ``not_before``.

        ``not_before`` is when the create call was about to be sent. A job may take ``lookup_seconds`` to be listed, so
        the list is read again until then; otherwise common.ai would submit, and pay, a second time.
        """
        name = _display_name(idempotency_key, input_fingerprint)
        sent = datetime.fromisoformat(not_before) if not_before else None
        left = 0.0 if sent is None else self.lookup_seconds - (datetime.now(tz=timezone.utc) - sent).total_seconds()
        until = time.monotonic() + min(left, self.lookup_seconds)
        while True:
            found = self._find(name, None if sent is None else sent - _CLOCK_SLACK)
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            time.sleep(min(left, self.lookup_pause))

    def _find(self, name: str, oldest: datetime | None) -> str | None:
        for job in self._client.list_all(brief=True):
            if oldest is not None and job.create_time is not None and job.create_time < oldest:
                return None
            if job.display_name == name:
                found: str = job.name
                return found
        return None


def _camel(params: dict[str, Any] | None) -> dict[str, Any]:
    return {camel(name): value for name, value in mapping_of(params or {}, "params").items()}


def _display_name(idempotency_key: str, input_fingerprint: str) -> str:
    return f"airflow-llm-batch-{idempotency_key}-{input_fingerprint[:16]}"


def _counts(job: BatchJob) -> dict[str, int] | None:
    stats = job.completion_stats
    if stats is None or stats.total is None:
        return None
    left = max(stats.total - stats.success - stats.failure, 0)
    return {
        "succeeded": stats.success,
        "errored": stats.failure,
        "expired": left if job.state is JobState.EXPIRED else 0,
        "cancelled": left if job.state is JobState.CANCELLED else 0,
    }


def _error(status: RowStatus, row: dict[str, Any]) -> dict[str, Any]:
    error = row.get("error") or {}
    return {
        "type": "provider_error" if status is RowStatus.ERROR else status.word,
        "message": error.get("message") or status.word,
        "provider_code": None if error.get("code") is None else str(error["code"]),
        "stage": "provider",
    }


def _with_definitions(spec: OutputSpec) -> dict[str, Any]:
    """Return the schema with its ``$defs`` at the top; common.ai leaves them inside when it wraps a schema."""
    schema = dict(spec.json_schema)
    inner = schema.get("properties", {}).get("response") if spec.wrapped else None
    if isinstance(inner, dict) and "$defs" in inner:
        schema["$defs"] = inner["$defs"]
    return schema


__all__ = ["BatchNotFound", "ConfigurationError", "GeminiBatchAdapter", "GeminiBatchError"]
