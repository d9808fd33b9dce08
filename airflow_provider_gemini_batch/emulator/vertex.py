"""Vertex AI's batchPredictionJobs: create, get, list, cancel, delete."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator import messages, schema
from airflow_provider_gemini_batch.emulator.filters import compile_filter
from airflow_provider_gemini_batch.emulator.job_calls import (
    cancel_refusal,
    check_body,
    check_quota,
    find_job,
    page_of_jobs,
)
from airflow_provider_gemini_batch.emulator.jobs import Job
from airflow_provider_gemini_batch.emulator.models import check_place, is_known
from airflow_provider_gemini_batch.emulator.wire import ApiError, answer, micros

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_gemini_batch.emulator.call import ApiCall
    from airflow_provider_gemini_batch.emulator.world import World

_PUBLISHER = re.compile(r"publishers/([a-z0-9-]+)/models/([A-Za-z0-9._-]+)(@[a-z0-9.-]+)?")
_TUNED = re.compile(r"projects/([^/]+)/locations/([^/]+)/models/[0-9]+(@[0-9]+)?")
_LOCATION = re.compile(r"global|us|eu|[a-z]+-[a-z]+[0-9]+")
_SOURCES = {"jsonl": "gcsSource", "bigquery": "bigquerySource", "vertex-dataset": "vertexMultimodalDatasetSource"}
_SINKS = {
    "jsonl": "gcsDestination",
    "bigquery": "bigqueryDestination",
    "vertex-dataset": "vertexMultimodalDatasetDestination",
}
#: The members of a job that a mask may name: those of a create call, and what the service adds.
_MEMBERS = frozenset(messages.VERTEX_JOB) | {
    "completionStats",
    "outputInfo",
    "error",
    "partialFailures",
    "modelMonitoringStatus",
}


def project_number(world: World, project: str) -> str:
    """Return the number of a project, given its id or number; ids that are not configured have a made-up one."""
    if project.isdigit():
        return project
    if project == world.settings.project_id:
        return world.settings.project_number
    return str(10**11 + int(hashlib.sha256(project.encode()).hexdigest()[:10], 16) % (9 * 10**11))


def authorize(call: ApiCall) -> str:
    """Return the job space, number and location; ApiError 401 without a token, 403 for projects named ``denied...``."""
    call.parts.tokens.principal(call.request.headers.get("authorization"))
    project, location = call.path["project"], call.path["location"]
    if project.startswith("denied"):
        raise ApiError(
            403,
            f"Permission 'aiplatform.batchPredictionJobs.{call.operation}' denied on resource "
            f"'//aiplatform.googleapis.com/projects/{project}/locations/{location}' (or it may not exist).",
        )
    if not _LOCATION.fullmatch(location):
        raise ApiError(400, f"Invalid location: {location}.")
    quota = call.request.headers.get("x-goog-user-project")
    if quota:
        call.world.books.quota_projects[quota] += 1
    return f"{project_number(call.world, project)}/{location}"


def _check_model(call: ApiCall, model: str) -> None:
    publisher = _PUBLISHER.fullmatch(model)
    if publisher is None:
        tuned = _TUNED.fullmatch(model)
        if tuned is None:
            raise ApiError(400, f"Invalid resource name: {model}.")
        if tuned.group(2) != call.path["location"] or tuned.group(2) == "global":
            raise ApiError(400, f"The model {model} is not served in {call.path['location']}.")
        return
    if publisher.group(1) != "google":
        raise ApiError(400, f"Do not support publisher model {publisher.group(2)}")
    if not is_known(publisher.group(2), call.world.settings.models):
        raise ApiError(404, f"The PublisherModel {publisher.group(2)} does not exist.")


def _required(value: Any, name: str) -> Any:
    if not value:
        raise ApiError(400, f"Required field is not set: {name}.")
    return value


def _uris(source: Any) -> list[str]:
    uris = (source or {}).get("uris")
    return [uris] if isinstance(uris, str) else list(uris or [])


def _check_ends(spec: dict[str, Any]) -> None:
    """Check source and destination, and bring both into lowerCamel spelling."""
    config = _required(schema.get(spec, "inputConfig"), "input_config")
    kind = _required(schema.get(config, "instancesFormat"), "input_config.instances_format")
    if kind not in _SOURCES:
        raise ApiError(400, f"Unsupported instances format: {kind}.")
    source = _required(schema.get(config, _SOURCES[kind]), f"input_config.{schema.snake(_SOURCES[kind])}")
    if kind == "jsonl":
        uris = _required(_uris(source), "input_config.gcs_source.uris")
        if not all(isinstance(uri, str) and re.fullmatch(r"gs://[^/]+/.+", uri) for uri in uris):
            raise ApiError(400, "Invalid Cloud Storage URI in input_config.gcs_source.uris.")
        source = {"uris": uris}
    elif kind == "bigquery":
        source = {"inputUri": _table(schema.get(source, "inputUri"), parts=(3,))}
    else:
        source = {"datasetName": _required(schema.get(source, "datasetName"), "dataset_name")}
    spec["inputConfig"] = {"instancesFormat": kind, _SOURCES[kind]: source}
    spec.pop("input_config", None)
    _check_destination(spec)


def _check_destination(spec: dict[str, Any]) -> None:
    config = _required(schema.get(spec, "outputConfig"), "output_config")
    kind = _required(schema.get(config, "predictionsFormat"), "output_config.predictions_format")
    if kind not in _SINKS:
        raise ApiError(400, f"Unsupported predictions format: {kind}.")
    sink = _required(schema.get(config, _SINKS[kind]), f"output_config.{schema.snake(_SINKS[kind])}")
    if kind == "jsonl":
        prefix = str(schema.get(sink, "outputUriPrefix") or "")
        if not re.fullmatch(r"gs://[^/]+(/.*)?", prefix):
            raise ApiError(400, "Invalid Cloud Storage URI in output_config.gcs_destination.output_uri_prefix.")
        sink = {"outputUriPrefix": prefix}
    elif kind == "bigquery":
        sink = {"outputUri": _table(schema.get(sink, "outputUri"), parts=(1, 2, 3))}
    spec["outputConfig"] = {"predictionsFormat": kind, _SINKS[kind]: sink}
    spec.pop("output_config", None)


def _table(uri: Any, *, parts: tuple[int, ...]) -> str:
    text = str(uri or "")
    names = text.removeprefix("bq://").split(".")
    if not text.startswith("bq://") or len(names) not in parts or not all(names):
        raise ApiError(400, f"Invalid BigQuery URI: {text}.")
    return text


def _check_labels(labels: dict[str, str]) -> None:
    for name, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise ApiError(
                400, f"Invalid label {name}: keys and values hold lower-case letters, digits, _ and -, at most 63."
            )
    if len(labels) > 64:  # noqa: PLR2004 - Google's limit on labels of a resource
        raise ApiError(400, "A resource can have at most 64 labels.")


async def create(call: ApiCall) -> Response:
    """Create a job. Neither bucket nor object is looked at: what is wrong with them fails the job later."""
    spec = await call.json()
    check_body(spec, messages.VERTEX_JOB, strict=call.world.settings.strict)
    spec["displayName"] = _required(schema.get(spec, "displayName"), "display_name")
    spec.pop("display_name", None)
    if len(spec["displayName"]) > 128:  # noqa: PLR2004 - Google's limit
        raise ApiError(400, "The display name can be at most 128 characters long.")
    model = _required(spec.get("model"), "model")
    _check_model(call, model)
    _check_labels(spec.get("labels") or {})
    _check_ends(spec)
    check_place(model.rpartition("/")[2], call.path["location"], spec)
    check_quota(call, "vertex")
    number = call.world.next_number()
    identifier = str(
        10**18
        + int(hashlib.sha256(f"{number}{call.world.random_name(8)}".encode()).hexdigest()[:15], 16) % (8 * 10**18)
    )
    project, location = call.space.split("/")
    spec["name"] = f"projects/{project}/locations/{location}/batchPredictionJobs/{identifier}"
    job = Job(
        id=identifier,
        service="vertex",
        space=call.space,
        number=number,
        model=model,
        embeds="embedding" in model,
        display_name=spec["displayName"],
        created=call.world.now(),
        spec=spec,
        state="QUEUED" if call.world.settings.queued_seconds else "PENDING",
    )
    call.engine.add(job)
    return answer(document_of(call.world, job))


def _stats(world: World, job: Job) -> dict[str, str] | None:
    if job.counts is not None:
        return {name: str(count) for name, count in job.counts.items()}
    if job.state == "RUNNING":
        if not (world.settings.moving_counts and job.rows):
            return {"incompleteCount": "-1"}
        good, bad = job.done_so_far(world.now(), world.settings.running_seconds)
        counts = {"successfulCount": good, "failedCount": bad, "incompleteCount": job.rows - good - bad}
        return {name: str(count) for name, count in counts.items() if count}
    if job.tally is None or job.state == "CANCELLED":
        return None
    counts = {"successfulCount": job.tally["succeeded"], "failedCount": job.tally["failed"]}
    if job.rows:
        counts["incompleteCount"] = job.rows - sum(counts.values())
    return {name: str(count) for name, count in counts.items() if count}


def _state_text(job: Job) -> str:
    if job.shown is not None:
        return job.shown if job.shown.startswith("JOB_STATE_") else f"JOB_STATE_{job.shown}"
    if job.state == "RUNNING" and job.bound.get("unknown_state"):
        return str(job.bound["unknown_state"])
    return f"JOB_STATE_{job.state}"


def document_of(world: World, job: Job) -> dict[str, Any]:
    """Return a job as Vertex shows it."""
    document = {name: job.spec[name] for name in ("name", "displayName", "model", "inputConfig", "outputConfig")}
    document["state"] = _state_text(job)
    document["createTime"] = micros(job.created)
    document["updateTime"] = micros(job.updated or job.created)
    document["modelVersionId"] = "1"
    document["modelMonitoringStatus"] = {}
    if job.spec.get("labels"):
        document["labels"] = job.spec["labels"]
    if job.started is not None:
        document["startTime"] = micros(job.started)
    if job.ended is not None:
        document["endTime"] = micros(job.ended)
    stats = _stats(world, job)
    if stats is not None:
        document["completionStats"] = stats
    if job.output_info and not job.bound.get("no_output_info"):
        document["outputInfo"] = job.output_info
    if job.error:
        document["error"] = job.error
    return document


def _find(call: ApiCall) -> Job:
    return find_job(call, "vertex", f"The BatchPredictionJob {call.path['id']} was not found.")


def _mask(call: ApiCall) -> set[str] | None:
    text = call.query("readMask")
    if not text or text == "*":
        return None
    if call.world.faults.take("refuse_fields"):
        raise ApiError(400, "Invalid field mask.")
    camel = {
        re.sub(r"_([a-z])", lambda match: match.group(1).upper(), path.strip().split(".")[0])
        for path in text.split(",")
    }
    if camel - _MEMBERS:
        raise ApiError(400, f"Invalid field mask: {', '.join(sorted(camel - _MEMBERS))}.")
    return camel


async def get(call: ApiCall) -> Response:
    """Answer one job."""
    with call.world.lock:
        return answer(document_of(call.world, _find(call)))


async def list_(call: ApiCall) -> Response:
    """Answer one page of jobs that pass the filter, newest first."""
    wanted = compile_filter(call.query("filter") or "")
    mask = _mask(call)

    def show(job: Job) -> dict[str, Any] | None:
        document = document_of(call.world, job)
        if not wanted(document):
            return None
        return document if mask is None else {name: document[name] for name in document if name in mask}

    return answer(page_of_jobs(call, "vertex", "batchPredictionJobs", show, size=100))


async def cancel(call: ApiCall) -> Response:
    """Ask for the end of a job; ApiError 400 FAILED_PRECONDITION when it has ended."""
    job = _find(call)
    if not job.active:
        job.cancel_calls += 1
        text = f"The BatchPredictionJob is in state JOB_STATE_{job.state} and can not be cancelled."
        raise cancel_refusal(int(call.world.faults.take("cancel_refused", 400)), text)
    call.engine.cancel(job)
    return answer({})


async def delete(call: ApiCall) -> Response:
    """Delete an ended job; answers a finished long-running operation."""
    job = _find(call)
    if job.active:
        text = f"The BatchPredictionJob is in state JOB_STATE_{job.state}. Cancel it before it is deleted."
        raise ApiError(400, text, status="FAILED_PRECONDITION")
    call.engine.delete(job)
    now = micros(call.world.now())
    project, location = call.space.split("/")
    return answer(
        {
            "name": f"projects/{project}/locations/{location}/operations/{call.world.next_number() + 7_000_000_000}",
            "metadata": {
                "@type": "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata",
                "genericMetadata": {"createTime": now, "updateTime": now},
            },
            "done": True,
            "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
        }
    )
