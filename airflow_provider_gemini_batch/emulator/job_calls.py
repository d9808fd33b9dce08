"""What the calls about jobs share in both dialects: check of a body, quota, look-up, list, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator import schema
from airflow_provider_gemini_batch.emulator.wire import (
    ApiError,
    page_token,
    quota_error,
    read_page_size,
    read_page_token,
    unknown_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_gemini_batch.emulator.call import ApiCall
    from airflow_provider_gemini_batch.emulator.jobs import Job
    from airflow_provider_gemini_batch.emulator.messages import Message


def check_body(document: dict[str, Any], message: Message, *, strict: bool) -> None:
    """Check a create body; ApiError 400 in the words of Google's front end."""
    try:
        schema.check(document, message, strict=strict)
    except schema.Complaint as complaint:
        if complaint.unknown:
            raise unknown_name(complaint.name, complaint.place) from None
        raise ApiError(400, f"Invalid value at '{complaint.place}': {complaint.text}") from None


def check_quota(call: ApiCall, service: str) -> None:
    """Refuse a create call when the fault ``max_active`` allows no more jobs; ApiError 429."""
    limit = call.world.faults.peek("max_active")
    if limit is not None and call.engine.active_count(service, call.space) >= int(limit):
        raise quota_error()


def find_job(call: ApiCall, service: str, refusal: str) -> Job:
    """Return the job that the path names; ApiError 404 with these words when there is none, or not yet."""
    job = call.engine.find(service, call.space, call.path["id"])
    if job is None or call.world.now() < job.created + float(call.world.faults.peek("create_lag") or 0):
        raise ApiError(404, refusal)
    return job


def page_of_jobs(
    call: ApiCall, service: str, member: str, show: Callable[[Job], dict[str, Any] | None], *, size: int
) -> dict[str, Any]:
    """Return one page of a project's jobs, newest first.

    :param member: the member of the page that holds the jobs.
    :param show: returns a job as the page has it, None for one that the page leaves out.
    :param size: how many jobs a page has when the call names no size.
    """
    size = read_page_size(call.query("pageSize"), default=size, cap=1000)
    before = read_page_token(call.query("pageToken"))
    faults = call.world.faults
    with call.world.lock:
        most = faults.peek("max_page")
        if most is not None and size > int(most):
            raise ApiError(400, f"page_size must not be above {most}.")
        if faults.take("empty_page"):
            return {"nextPageToken": page_token(before if before is not None else 2**53)}
        page: dict[str, Any] = {}
        last = 0
        for job in call.engine.newest(service, call.space, before=before):
            shown = show(job)
            if shown is None:
                continue
            if len(page.get(member, ())) == size:
                page["nextPageToken"] = page_token(last)
                break
            page.setdefault(member, []).append(shown)
            last = job.number
        if faults.take("page_loops"):
            page["nextPageToken"] = page_token(2**53)
        return page


def cancel_refusal(status: int, text: str) -> ApiError:
    """Return the refusal of a cancel that comes too late."""
    names = {400: "FAILED_PRECONDITION", 409: "ABORTED"}
    return ApiError(status, text, status=names.get(status))
