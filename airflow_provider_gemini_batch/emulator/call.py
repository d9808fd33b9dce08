"""One HTTP call on its way to a handler: the request, the world, and what the router made of the path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.wire import ApiError, read_json

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_gemini_batch.emulator.file_store import FileStore
    from airflow_provider_gemini_batch.emulator.jobs import Engine
    from airflow_provider_gemini_batch.emulator.table_store import TableStore
    from airflow_provider_gemini_batch.emulator.token_store import TokenStore
    from airflow_provider_gemini_batch.emulator.world import World

#: The largest body of a create call with inline requests, in bytes; the service names this number in its refusal.
MAX_BODY = 20_971_520


class ConnectionCut(Exception):
    """The connection is to be closed without a whole answer."""


async def drain(request: Request) -> None:
    """Read what is left of a body, so that the caller can be answered."""
    if request.method in ("POST", "PUT", "PATCH"):
        try:
            async for _ in request.stream():
                pass
        except RuntimeError:
            pass  # the handler has read it


@dataclass
class EmulatorParts:
    """The parts of the running emulator that handlers work on."""

    world: World
    engine: Engine
    files: FileStore
    tokens: TokenStore
    tables: TableStore


@dataclass
class ApiCall:
    """A routed request.

    :param path: named parts of the path.
    :param space: the project that the caller may see: the API key up to its first colon, or the Vertex project.
    """

    request: Request
    parts: EmulatorParts
    operation: str
    path: dict[str, str] = field(default_factory=dict)
    space: str = ""
    kept_body: bytes | None = None

    @property
    def world(self) -> World:
        """The world of this emulator."""
        return self.parts.world

    @property
    def engine(self) -> Engine:
        """The jobs of this emulator."""
        return self.parts.engine

    @property
    def own_url(self) -> str:
        """The base URL under which the caller reached the emulator."""
        return f"{self.request.url.scheme}://{self.request.headers.get('host', 'localhost')}"

    def query(self, name: str) -> str | None:
        """Return a query parameter by its lowerCamel name, however it is spelt (``$fields`` is ``fields``)."""
        params = self.request.query_params
        return (
            params.get(name)
            or params.get("".join(f"_{c.lower()}" if c.isupper() else c for c in name))
            or params.get("$" + name)
        )

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """Return the whole body; ApiError 400 above the limit, after all of it was read and dropped."""
        if self.kept_body is not None:
            return self.kept_body
        chunks: list[bytes] = []
        size = 0
        async for chunk in self.request.stream():
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
        if size > limit:
            raise ApiError(400, f"Request payload size exceeds the limit: {limit} bytes.")
        return b"".join(chunks)

    async def keep_body(self) -> None:
        """Read the body now: what has arrived is acted on, also when the caller does not wait for the answer."""
        self.kept_body = await self.body()

    async def drain(self) -> None:
        """Read what is left of the body."""
        await drain(self.request)

    async def json(self) -> dict[str, Any]:
        """Return the body as a JSON object, ``{}`` for an empty one; ApiError 400 for anything else."""
        raw = await self.body()
        if not raw.strip():
            return {}
        document = read_json(raw)
        if not isinstance(document, dict):
            raise ApiError(400, "Invalid JSON payload received. The root must be an object.")
        return document
