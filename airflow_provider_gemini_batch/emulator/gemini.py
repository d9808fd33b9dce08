"""The Gemini Developer API's batch operations."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from airflow_provider_gemini_batch.emulator import messages, schema
from airflow_provider_gemini_batch.emulator.job_calls import (
    cancel_refusal,
    check_body,
    check_quota,
    find_job,
    page_of_jobs,
)
from airflow_provider_gemini_batch.emulator.jobs import TERMINAL, Job
from airflow_provider_gemini_batch.emulator.models import is_known
from airflow_provider_gemini_batch.emulator.row_checks import RowCheck, file_not_active
from airflow_provider_gemini_batch.emulator.wire import (
    JSON_TYPE,
    ApiError,
    answer,
    apply_mask,
    nanos,
    parse_mask,
    unknown_name,
)

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator.call import ApiCall
    from airflow_provider_gemini_batch.emulator.world import World

_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."
_TUNED = re.compile(r"tunedModels/[a-z0-9-]+")
#: Stands in a document for rows that are spliced in as bytes, so that a large answer is never parsed.
_ROWS_MARK = "\x00rows\x00"
_MEMBERS = frozenset(["name", "metadata", "done", "response", "error", "operations", "nextPageToken", "kind", "etag"])


def key_space(call: ApiCall) -> str:
    """Return the project of the caller's API key; ApiError 403 without a key, 400 for one that is not taken.

    The part of the key before its first colon stands for the project; what is kept of it is a hash. Unless the
    emulator was told which keys it takes, it takes any that does not begin with ``bad-``.
    """
    key = call.request.headers.get("x-goog-api-key") or call.request.query_params.get("key")
    if not key:
        raise ApiError(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API.",
        )
    allowed = call.world.settings.api_keys
    if key.startswith("bad-") or (allowed is not None and key not in allowed):
        text = "API key not valid. Please pass a valid API key."
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        local = {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": text}
        raise ApiError(400, text, details=[reason, local])
    return hashlib.sha256(key.partition(":")[0].encode()).hexdigest()[:16]


def _check_model(call: ApiCall, *, embeds: bool) -> str:
    model = call.path["model"]
    method = "asyncBatchEmbedContent" if embeds else "batchGenerateContent"
    name = model.removeprefix("models/")
    known = _TUNED.fullmatch(model) or (name != model and is_known(name, call.world.settings.models))
    if not known or ("embedding" in model) != embeds:
        version = call.path["version"]
        raise ApiError(
            404,
            f"{model} is not found for API version {version}, or is not supported for {method}. "
            "Call ListModels to see the list of available models and their supported methods.",
        )
    return model


async def create(call: ApiCall) -> Response:
    """Create a generation batch."""
    return await _create(call, embeds=False)


async def create_embeddings(call: ApiCall) -> Response:
    """Create an embeddings batch."""
    return await _create(call, embeds=True)


async def _create(call: ApiCall, *, embeds: bool) -> Response:
    document = await call.json()
    model = _check_model(call, embeds=embeds)
    check_body(document, messages.CREATE, strict=call.world.settings.strict)
    batch = document.get("batch")
    if not batch:
        raise ApiError(400, "* GenerateContentBatch: batch is required\n")
    check_quota(call, "gemini")
    job = Job(
        id=call.world.random_name(36),
        service="gemini",
        space=call.space,
        number=call.world.next_number(),
        model=model,
        embeds=embeds,
        display_name=schema.get(batch, "displayName") or "",
        created=call.world.now(),
        spec={"priority": str(batch["priority"])} if batch.get("priority") else {},
    )
    config = schema.get(batch, "inputConfig") or {}
    name, inline = schema.get(config, "fileName"), config.get("requests")
    if (name is None) == (inline is None):
        raise ApiError(
            400, "* BatchGenerateContentRequest.batch.input_config: exactly one of file_name or requests must be set\n"
        )
    if name is not None:
        await _take_file(call, job, str(name))
    else:
        _take_inline(call, job, (inline or {}).get("requests") or [])
    call.engine.add(job)
    return answer(_operation(call.world, job, job.created))


def _row_check(call: ApiCall, job: Job) -> RowCheck:
    unusable = call.parts.files.unusable(call.space)
    return RowCheck(embeds=job.embeds, strict=call.world.settings.strict, unusable=unusable)


async def _take_file(call: ApiCall, job: Job, name: str) -> None:
    file = call.parts.files.find(call.space, name)
    if file is None or file.generated:
        raise ApiError(
            403, f"You do not have permission to access the File {name.removeprefix('files/')} or it may not exist."
        )
    rows = _row_check(call, job)
    if file.id in rows.unusable:
        raise file_not_active(file.id)
    job.spec["inputConfig"] = {"fileName": f"files/{file.id}"}
    job.source = file.path

    def check() -> int:
        with call.world.store.path(file.path).open("rb", buffering=1 << 20) as lines:
            return rows.lines(lines)

    job.rows = await asyncio.to_thread(check)


def _take_inline(call: ApiCall, job: Job, items: list[dict[str, Any]]) -> None:
    if not items:
        raise ApiError(400, "* BatchGenerateContentRequest.batch.input_config.requests: requests must not be empty\n")
    rows = _row_check(call, job)
    for index, item in enumerate(items):
        request = item.get("request")
        place = f"batch.input_config.requests.requests[{index}].request"
        if request is None:
            raise ApiError(400, f"* {place}: request is required\n")
        try:
            rows.request(request)
        except schema.Complaint as complaint:
            if complaint.unknown:
                raise unknown_name(complaint.name, f"{place}.{complaint.place}".rstrip(".")) from None
            raise ApiError(400, f"Invalid value at '{place}': {complaint.text}") from None
        own = request.get("model")
        if own and own.removeprefix("models/") != job.model.removeprefix("models/"):
            raise ApiError(400, f"* {place}.model: must be the model of the batch\n")
        rows.files(request)
    job.rows = len(items)
    job.source = f"in-{job.id}"
    with call.world.store.open(job.source, "wb") as sink:
        sink.writelines(json.dumps(item).encode() + b"\n" for item in items)


def _counts(world: World, job: Job, now: float) -> dict[str, str]:
    if job.counts is not None:
        counts = job.counts
    elif job.tally is not None:
        counts = {"successfulRequestCount": job.tally["succeeded"], "failedRequestCount": job.tally["failed"]}
        counts["pendingRequestCount"] = (job.rows or 0) - sum(counts.values()) if job.state != "SUCCEEDED" else 0
    elif job.state == "RUNNING":
        good, bad = job.done_so_far(now, world.settings.running_seconds)
        pending = (job.rows or 0) - good - bad
        counts = {"successfulRequestCount": good, "failedRequestCount": bad, "pendingRequestCount": pending}
    else:
        counts = {"pendingRequestCount": job.rows or 0}
    named = {"requestCount": job.rows or 0, **counts}
    return {name: str(count) for name, count in named.items() if count}


def _beginning(job: Job) -> dict[str, str]:
    return {"requestCount": str(job.rows), "pendingRequestCount": str(job.rows)}


def _state_text(job: Job) -> str:
    if job.shown is not None:
        return job.shown
    if job.state == "RUNNING" and job.bound.get("unknown_state"):
        return str(job.bound["unknown_state"])
    if job.state in TERMINAL and job.bound.get("done_state"):
        return str(job.bound["done_state"])
    return f"BATCH_STATE_{job.state}"


def _output(world: World, job: Job, now: float) -> dict[str, Any] | None:
    if job.output is None or job.ended is None:
        return None
    late = float(job.bound.get("late_output") or 0)
    if now < job.ended + late and job.bound.get("late_output_kind") != "refused":
        return None
    if "inputConfig" in job.spec:
        return {"responsesFile": f"files/{job.output}"}
    if now > job.ended + float(world.faults.peek("output_retention") or 48 * 3600):
        return None
    if job.bound.get("inline_nesting") == "single":
        return {"inlinedResponses": _ROWS_MARK}
    return {"inlinedResponses": {"inlinedResponses": _ROWS_MARK}}


def _operation(world: World, job: Job, now: float, *, listed: bool = False) -> dict[str, Any]:
    kind = "EmbedContentBatch" if job.embeds else "GenerateContentBatch"
    output = _output(world, job, now)
    if listed and output and "inlinedResponses" in output:
        output = None
    metadata: dict[str, Any] = {"@type": _TYPE + kind, "model": job.model}
    if job.display_name:
        metadata["displayName"] = job.display_name
    if "inputConfig" in job.spec:
        metadata["inputConfig"] = job.spec["inputConfig"]
    if output:
        metadata["output"] = output
    metadata["createTime"] = nanos(job.created)
    if job.ended is not None:
        metadata["endTime"] = nanos(job.ended)
    metadata["updateTime"] = nanos(job.updated)
    stale = listed and world.faults.peek("stale_counters")
    metadata["batchStats"] = _beginning(job) if stale else _counts(world, job, now)
    metadata["state"] = _state_text(job)
    if "priority" in job.spec:
        metadata["priority"] = job.spec["priority"]
    metadata["name"] = f"batches/{job.id}"
    document: dict[str, Any] = {"name": f"batches/{job.id}", "metadata": metadata}
    if job.state in TERMINAL and job.shown is None:
        document["done"] = True
        if job.error:
            document["error"] = job.error
        elif output:
            document["response"] = {"@type": f"{_TYPE}{kind}{'' if job.embeds else 'Output'}", **output}
    return document


def _find(call: ApiCall) -> Job:
    return find_job(call, "gemini", "Requested entity was not found.")


def _masked(call: ApiCall, document: dict[str, Any]) -> dict[str, Any]:
    text = call.query("fields")
    if not text:
        return document
    mask = parse_mask(text)
    unknown = [name for name in mask if name not in _MEMBERS and name != "*"]
    if unknown or call.world.faults.take("refuse_fields"):
        raise ApiError(400, f"Request contains an invalid argument. Invalid field selection {text}")
    masked: dict[str, Any] = apply_mask(document, mask)
    return masked


async def get(call: ApiCall) -> Response:
    """Answer one job; inline rows are spliced in from their file."""
    with call.world.lock:
        job = _find(call)
        document = _masked(call, _operation(call.world, job, call.world.now()))
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    mark = json.dumps(_ROWS_MARK).encode()
    if mark in text:
        rows = call.world.store.path(f"out-{job.id}").read_bytes().rstrip(b"\n")
        text = text.replace(mark, b"[" + rows.replace(b"\n", b",") + b"]")
    return Response(text, media_type=JSON_TYPE)


async def list_(call: ApiCall) -> Response:
    """Answer one page of jobs, newest first."""
    now = call.world.now()
    page = page_of_jobs(
        call, "gemini", "operations", lambda job: _operation(call.world, job, now, listed=True), size=50
    )
    return answer(_masked(call, page))


async def cancel(call: ApiCall) -> Response:
    """Ask for the end of a job; ended ones stay as they are."""
    job = _find(call)
    status = call.world.faults.peek("cancel_refused")
    if status and not job.active:
        job.cancel_calls += 1
        call.world.faults.take("cancel_refused")
        raise cancel_refusal(int(status), f"Batch {job.id} has already ended.")
    call.engine.cancel(job)
    return answer({})


async def delete(call: ApiCall) -> Response:
    """Stop and remove a job."""
    call.engine.delete(_find(call))
    return answer({})
