"""The ASGI application: routes, the API key or token of a call, and the faults around its handler."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_gemini_batch.emulator import bigquery, control, files, gemini, tokens, uploads, vertex
from airflow_provider_gemini_batch.emulator.call import Call, ConnectionCut, Service
from airflow_provider_gemini_batch.emulator.wire import ApiError, quota_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from airflow_provider_gemini_batch.emulator.faults import RequestFault
    from airflow_provider_gemini_batch.emulator.world import World

    Handler = Callable[[Call], Awaitable[Response]]

log = logging.getLogger(__name__)

_MESSAGES = {
    500: "An internal error has occurred.",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}


@dataclass
class Route:
    """A method and path, the operation's name in books and faults, and who may call it."""

    method: str
    path: re.Pattern[str]
    operation: str
    handler: Handler
    service: str


def _route(method: str, path: str, operation: str, handler: Handler, service: str) -> Route:
    return Route(method, re.compile(path), operation, handler, service)


_V = r"/(?P<version>v1|v1beta|v1alpha)"
_UPLOAD = r"/upload(?:/(?P<version>v1|v1beta|v1alpha))?/files"
_JOBS = r"/(?P<version>v1|v1beta1)/projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/batchPredictionJobs"
_ID = r"(?P<id>[^/:]+)"
_DATASETS = r"/bigquery/v2/projects/(?P<project>[^/]+)/datasets"
_TABLES = rf"{_DATASETS}/(?P<dataset>[^/]+)/tables"
_TABLE = r"(?P<table>[^/]+)"

ROUTES = [
    _route("GET", rf"{_V}/batches/{_ID}", "get", gemini.get, "gemini"),
    _route("GET", rf"{_V}/batches", "list", gemini.list_, "gemini"),
    _route(
        "POST",
        rf"{_V}/(?P<model>(?:models|tunedModels)/[^/:]+):batchGenerateContent",
        "create",
        gemini.create,
        "gemini",
    ),
    _route(
        "POST",
        rf"{_V}/(?P<model>(?:models|tunedModels)/[^/:]+):asyncBatchEmbedContent",
        "create",
        gemini.create_embeddings,
        "gemini",
    ),
    _route("POST", rf"{_V}/batches/{_ID}:cancel", "cancel", gemini.cancel, "gemini"),
    _route("DELETE", rf"{_V}/batches/{_ID}", "delete", gemini.delete, "gemini"),
    _route("GET", rf"{_V}/files/{_ID}:download", "download", files.download, "gemini"),
    _route("GET", rf"/download{_V}/files/{_ID}:download", "download", files.download, "gemini"),
    _route("GET", rf"{_V}/files/{_ID}", "file_get", files.get, "gemini"),
    _route("GET", rf"{_V}/files", "file_list", files.list_, "gemini"),
    _route("DELETE", rf"{_V}/files/{_ID}", "file_delete", files.delete, "gemini"),
    _route("GET", rf"{_JOBS}/{_ID}", "get", vertex.get, "vertex"),
    _route("GET", _JOBS, "list", vertex.list_, "vertex"),
    _route("POST", _JOBS, "create", vertex.create, "vertex"),
    _route("POST", rf"{_JOBS}/{_ID}:cancel", "cancel", vertex.cancel, "vertex"),
    _route("DELETE", rf"{_JOBS}/{_ID}", "delete", vertex.delete, "vertex"),
    _route("POST", "/token", "token", tokens.token, "auth"),
    _route("POST", "/sts/v1/token", "sts", tokens.exchange, "auth"),
    _route("POST", rf"/v1/projects/-/serviceAccounts/{_ID}:generateAccessToken", "iam", tokens.impersonate, "auth"),
    _route("GET", rf"{_TABLES}/{_TABLE}", "table_get", bigquery.get_table, "bigquery"),
    _route("GET", rf"{_TABLES}/{_TABLE}/data", "table_rows", bigquery.list_rows, "bigquery"),
    _route("GET", _TABLES, "table_list", bigquery.list_tables, "bigquery"),
    _route("POST", _TABLES, "table_create", bigquery.create_table, "bigquery"),
    _route("POST", rf"{_TABLES}/{_TABLE}/insertAll", "table_insert", bigquery.insert_rows, "bigquery"),
    _route("DELETE", rf"{_TABLES}/{_TABLE}", "table_delete", bigquery.delete_table, "bigquery"),
    _route("GET", rf"{_DATASETS}/(?P<dataset>[^/]+)", "dataset_get", bigquery.get_dataset, "bigquery"),
    _route("POST", _DATASETS, "dataset_create", bigquery.create_dataset, "bigquery"),
    *(_route(method, path, "control", handler, "control") for method, path, handler in control.ROUTES),
]
_SESSION = re.compile(_UPLOAD)


def find_route(request: Request) -> tuple[Route, dict[str, str]]:
    """Return the route of a request and the named parts of its path; ApiError 404 when there is none."""
    path = request.url.path.replace("%3A", ":").replace("%3a", ":")
    upload = _SESSION.fullmatch(path)
    if upload and request.method in ("POST", "PUT"):
        return _upload_route(request), {k: v for k, v in upload.groupdict().items() if v}
    for route in ROUTES:
        if route.method == request.method:
            match = route.path.fullmatch(path)
            if match:
                return route, {k: v for k, v in match.groupdict().items() if v is not None}
    raise ApiError(404, f"The requested URL {path} was not found on this server.")


def _upload_route(request: Request) -> Route:
    if not request.query_params.get("upload_id"):
        return _route("POST", "", "upload_start", uploads.upload_start, "gemini")
    command = request.headers.get("x-goog-upload-command", "").strip().lower()
    operation = f"upload_{command}" if command in ("query", "cancel") else "upload_chunk"
    return _route("POST", "", operation, uploads.upload_bytes, "session")


class Application:
    """What uvicorn calls."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call; a ConnectionCut closes it without an answer."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        sent = _Sent(send, self.service.world)
        try:
            response = await self._respond(request)
            await response(scope, receive, sent)
        except ConnectionCut:
            await _hang_up(receive)
        except Exception:
            log.exception("The emulator failed at %s %s", request.method, request.url.path)
            if not sent.started:
                await ApiError(500, "The emulator itself failed; see its log.").response()(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            route, path = find_route(request)
            call = Call(request, self.service, route.operation, path)
            if route.service == "control":
                return await route.handler(call)
            return await self._serve(route, call)
        except ApiError as error:
            await _drain(request)
            return error.response()

    async def _serve(self, route: Route, call: Call) -> Response:
        world = self.service.world
        target = f"{call.request.url.path}?{call.request.url.query}"
        kind = "vertex" if route.service == "vertex" else route.service
        with world.lock:
            resets = world.resets
            world.books.requests[route.operation] += 1
            faults = world.faults.hitting(route.operation, "gemini" if kind == "session" else kind, target)
        for fault in faults:
            if not fault.after and (early := await _apply(fault, call)) is not None:
                return early
        if world.resets != resets:
            raise ConnectionCut
        response = await self._act(route, call)
        for fault in faults:
            if fault.after:
                response = await _apply(fault, call) or response
        return response

    async def _act(self, route: Route, call: Call) -> Response:
        if route.service == "gemini":
            call.space = gemini.key_space(call)
        elif route.service == "vertex":
            call.space = vertex.authorize(call)
        return await route.handler(call)


class _Sent:
    """Passes messages on, remembers whether an answer has begun, and dates it by the emulator's own clock."""

    def __init__(self, send: Send, world: World) -> None:
        self._send = send
        self._world = world
        self.started = False

    async def __call__(self, message: Any) -> None:
        if not self.started:
            date = formatdate(self._world.now(), usegmt=True).encode()
            message = {**message, "headers": [*message.get("headers", ()), (b"date", date)]}
        self.started = True
        await self._send(message)


async def _drain(request: Request) -> None:
    if request.method in ("POST", "PUT", "PATCH"):
        try:
            async for _ in request.stream():
                pass
        except RuntimeError:
            pass  # the handler has read it


async def _apply(fault: RequestFault, call: Call) -> Response | None:
    options = fault.options
    if fault.kind == "slow":
        if call.operation == "create" and not fault.after:
            await call.keep_body()
        await asyncio.sleep(float(options.get("seconds", 1)))
        return None
    if fault.kind == "reset":
        raise ConnectionCut
    if fault.kind == "garbage":
        return Response(str(options.get("body", "<<<")).encode(), 200, media_type="application/json")
    if not fault.after:
        await _drain(call.request)
    if fault.kind == "redirect":
        return redirect_to(call, str(options.get("to") or call.own_url), int(options.get("status", 302)))
    return _error_answer(options)


def redirect_to(call: Call, target: str, status: int = 302) -> Response:
    """Send the caller to a URL; an origin without a path keeps the path and query of the call."""
    if "/" not in target.partition("://")[2]:
        url = call.request.url
        target += f"{url.path}?{url.query}" if url.query else url.path
    return Response(status_code=status, headers={"location": target})


def _error_answer(options: dict[str, Any]) -> Response:
    status = int(options.get("status", 503))
    headers = {"retry-after": str(options["retry_after"])} if options.get("retry_after") is not None else {}
    body = options.get("body", "html" if status == 502 else "json")  # noqa: PLR2004 - gateways answer 502 in HTML
    if body == "html":
        page = f"<html><head><title>{status}</title></head><body>Bad gateway</body></html>"
        return Response(page, status, headers, media_type="text/html")
    if body == "text":
        return Response(str(options.get("message", "upstream error")), status, headers, media_type="text/plain")
    if status == 429:  # noqa: PLR2004 - quota
        error = quota_error(options.get("message"), retry_info=options.get("retry_info"))
    else:
        error = ApiError(
            status, options.get("message") or _MESSAGES.get(status, "The emulator was told to refuse this call.")
        )
    error.status = options.get("error_status") or error.status
    document: Any = [error.body()] if body == "array" else error.body()
    return Response(json.dumps(document), status, headers, media_type="application/json; charset=UTF-8")


async def _hang_up(receive: Receive) -> None:
    """Close the socket without an answer.

    ASGI has no word for it, so this reaches for the transport behind uvicorn's ``receive``.
    """
    cycle = getattr(receive, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:
        raise RuntimeError("This server does not let the emulator close connections.")
    transport.abort()
    for _ in range(100):
        # uvicorn hears of it in one of the next turns of the loop; until then it would answer 500.
        if getattr(cycle, "disconnected", True):
            return
        await asyncio.sleep(0)
