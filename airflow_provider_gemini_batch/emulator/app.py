"""The ASGI application: routes, the API key or token of a call, and the faults around its handler."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from airflow_provider_gemini_batch.emulator import bigquery, control, files, gemini, tokens, uploads, vertex
from airflow_provider_gemini_batch.emulator.call import ApiCall, ConnectionCut, EmulatorParts, drain
from airflow_provider_gemini_batch.emulator.request_faults import apply_after, apply_before
from airflow_provider_gemini_batch.emulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from airflow_provider_gemini_batch.emulator.world import World

    Handler = Callable[[ApiCall], Awaitable[Response]]

log = logging.getLogger(__name__)


@dataclass
class Route:
    """A method and path, the operation's name in books and faults, and who may call it."""

    method: str
    path: str
    operation: str
    handler: Handler
    service: str


_V = r"/(?P<version>v1|v1beta|v1alpha)"
_MODEL = r"(?P<model>(?:models|tunedModels)/[^/:]+)"
_UPLOAD = r"/upload(?:/(?P<version>v1|v1beta|v1alpha))?/files"
_JOBS = r"/(?P<version>v1|v1beta1)/projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/batchPredictionJobs"
_ID = r"(?P<id>[^/:]+)"
_DATASETS = r"/bigquery/v2/projects/(?P<project>[^/]+)/datasets"
_TABLES = rf"{_DATASETS}/(?P<dataset>[^/]+)/tables"
_TABLE = r"(?P<table>[^/]+)"

ROUTES = [
    Route("GET", rf"{_V}/batches/{_ID}", "get", gemini.get, "gemini"),
    Route("GET", rf"{_V}/batches", "list", gemini.list_, "gemini"),
    Route("POST", rf"{_V}/{_MODEL}:batchGenerateContent", "create", gemini.create, "gemini"),
    Route("POST", rf"{_V}/{_MODEL}:asyncBatchEmbedContent", "create", gemini.create_embeddings, "gemini"),
    Route("POST", rf"{_V}/batches/{_ID}:cancel", "cancel", gemini.cancel, "gemini"),
    Route("DELETE", rf"{_V}/batches/{_ID}", "delete", gemini.delete, "gemini"),
    Route("GET", rf"{_V}/files/{_ID}:download", "download", files.download, "gemini"),
    Route("GET", rf"/download{_V}/files/{_ID}:download", "download", files.download, "gemini"),
    Route("GET", rf"{_V}/files/{_ID}", "file_get", files.get, "gemini"),
    Route("GET", rf"{_V}/files", "file_list", files.list_, "gemini"),
    Route("DELETE", rf"{_V}/files/{_ID}", "file_delete", files.delete, "gemini"),
    Route("GET", rf"{_JOBS}/{_ID}", "get", vertex.get, "vertex"),
    Route("GET", _JOBS, "list", vertex.list_, "vertex"),
    Route("POST", _JOBS, "create", vertex.create, "vertex"),
    Route("POST", rf"{_JOBS}/{_ID}:cancel", "cancel", vertex.cancel, "vertex"),
    Route("DELETE", rf"{_JOBS}/{_ID}", "delete", vertex.delete, "vertex"),
    Route("POST", "/token", "token", tokens.token, "auth"),
    Route("POST", "/sts/v1/token", "sts", tokens.exchange, "auth"),
    Route("POST", rf"/v1/projects/-/serviceAccounts/{_ID}:generateAccessToken", "iam", tokens.impersonate, "auth"),
    Route("GET", rf"{_TABLES}/{_TABLE}", "table_get", bigquery.get_table, "bigquery"),
    Route("GET", rf"{_TABLES}/{_TABLE}/data", "table_rows", bigquery.list_rows, "bigquery"),
    Route("GET", _TABLES, "table_list", bigquery.list_tables, "bigquery"),
    Route("POST", _TABLES, "table_create", bigquery.create_table, "bigquery"),
    Route("POST", rf"{_TABLES}/{_TABLE}/insertAll", "table_insert", bigquery.insert_rows, "bigquery"),
    Route("DELETE", rf"{_TABLES}/{_TABLE}", "table_delete", bigquery.delete_table, "bigquery"),
    Route("GET", rf"{_DATASETS}/(?P<dataset>[^/]+)", "dataset_get", bigquery.get_dataset, "bigquery"),
    Route("POST", _DATASETS, "dataset_create", bigquery.create_dataset, "bigquery"),
    *(Route(method, path, "control", handler, "control") for method, path, handler in control.ROUTES),
]


def check_names(request: Request, hosts: frozenset[str] | None) -> None:
    """Refuse a call that reached us under a foreign name, or that a page of another site makes; ApiError 403.

    A page in a browser of this machine may point a name of its own at the loopback address, or call us across sites.

    :param hosts: the names that we answer to besides those of the loopback address, None for any.
    """
    name = host_name(", ".join(request.headers.getlist("host")))
    if hosts is not None and not (is_loopback(name) or name in hosts):
        raise ApiError(403, f"This emulator does not answer to the name {name[:100]!r}; start it with --hostname.")
    for origin in request.headers.getlist("origin"):
        site = host_name(origin.partition("://")[2])
        if site != name and not (hosts is not None and (is_loopback(site) or site in hosts)):
            raise ApiError(403, "This emulator does not serve pages of other sites.")


def host_name(text: str) -> str:
    """Return the name in ``name:port``, lower-case and without brackets; another text as it is."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:@\[\]]*))(?::\d*)?", text.strip().lower())
    return (found[1] or found[2]) if found else text


def is_loopback(name: str) -> bool:
    """Return whether a name or address stands for this machine alone."""
    return name in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", name) is not None


def find_route(request: Request) -> tuple[Route, dict[str, str]]:
    """Return the route of a request and the named parts of its path; ApiError 404 when there is none."""
    path = request.url.path.replace("%3A", ":").replace("%3a", ":")
    upload = re.fullmatch(_UPLOAD, path)
    if upload and request.method in ("POST", "PUT"):
        return _upload_route(request), {k: v for k, v in upload.groupdict().items() if v}
    for route in ROUTES:
        if route.method == request.method:
            match = re.fullmatch(route.path, path)
            if match:
                return route, {k: v for k, v in match.groupdict().items() if v is not None}
    raise ApiError(404, f"The requested URL {path} was not found on this server.")


def _upload_route(request: Request) -> Route:
    if not request.query_params.get("upload_id"):
        return Route("POST", "", "upload_start", uploads.upload_start, "gemini")
    command = request.headers.get("x-goog-upload-command", "").strip().lower()
    operation = f"upload_{command}" if command in ("query", "cancel") else "upload_chunk"
    return Route("POST", "", operation, uploads.upload_bytes, "session")


class Application:
    """What uvicorn calls."""

    def __init__(self, parts: EmulatorParts) -> None:
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call; a ConnectionCut closes it without an answer."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        sent = _Sent(send, self.parts.world)
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
            check_names(request, self.parts.world.settings.hosts)
            route, path = find_route(request)
            call = ApiCall(request, self.parts, route.operation, path)
            if route.service == "control":
                return await self._plain(route, call)
            return await self._serve(route, call)
        except ApiError as error:
            await drain(request)
            return error.response()

    @staticmethod
    async def _plain(route: Route, call: ApiCall) -> Response:
        """Act on an order, or a call for a token or a table; ApiError 400 for a body of another shape."""
        try:
            return await route.handler(call)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ApiError(400, f"This call cannot be read: {error}") from error

    async def _serve(self, route: Route, call: ApiCall) -> Response:
        world = self.parts.world
        target = f"{call.request.url.path}?{call.request.url.query}"
        with world.lock:
            resets = world.resets
            world.books.requests[route.operation] += 1
            faults = world.faults.hitting(
                route.operation, "gemini" if route.service == "session" else route.service, target
            )
        for fault in faults:
            if not fault.after and (early := await apply_before(fault, call)) is not None:
                return early
        if world.resets != resets:
            raise ConnectionCut
        response = await self._act(route, call)
        for fault in faults:
            if fault.after:
                response = await apply_after(fault, call, response)
        return response

    async def _act(self, route: Route, call: ApiCall) -> Response:
        if route.service == "gemini":
            call.space = gemini.key_space(call)
        elif route.service == "vertex":
            call.space = vertex.authorize(call)
        elif route.service != "session":
            return await self._plain(route, call)
        return await route.handler(call)


class _Sent:
    """Passes messages on, remembers whether an answer has begun, and dates it by the emulator's own clock."""

    def __init__(self, send: Send, world: World) -> None:
        self._send = send
        self._world = world
        self.started = False

    async def __call__(self, message: Any) -> None:
        if not self.started:
            given = self._world.faults.peek("date")
            date = (str(given) if given else formatdate(self._world.now(), usegmt=True)).encode()
            message = {**message, "headers": [*message.get("headers", ()), (b"date", date)]}
        self.started = True
        await self._send(message)


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
