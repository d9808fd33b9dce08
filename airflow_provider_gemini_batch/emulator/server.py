"""The emulator as an object: a server on loopback in a thread of this process."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from airflow_provider_gemini_batch.emulator.app import Application
from airflow_provider_gemini_batch.emulator.call import EmulatorParts
from airflow_provider_gemini_batch.emulator.certificate import make_certificate
from airflow_provider_gemini_batch.emulator.control import DEMO_ACCOUNT, Control, connection_json
from airflow_provider_gemini_batch.emulator.file_store import FileStore
from airflow_provider_gemini_batch.emulator.jobs import Engine
from airflow_provider_gemini_batch.emulator.table_store import TableStore
from airflow_provider_gemini_batch.emulator.token_store import TokenStore, write_federation_file
from airflow_provider_gemini_batch.emulator.vertex_work import VertexWork
from airflow_provider_gemini_batch.emulator.world import Settings, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from airflow_provider_gemini_batch.emulator.answers import Responder

LOOPBACK = ("127.0.0.1", "::1", "localhost")
STRICT_VARIABLE = "GEMINI_BATCH_EMULATOR_STRICT"
START_SECONDS = 20.0
BACKLOG = 4096


class Emulator:
    """A Gemini and Vertex batch service on this machine.

    Use it as a context manager, or call ``start`` and ``stop``.

    :param host: address to listen on; other than loopback only with ``allow_remote``.
    :param port: TCP port, 0 for a free one.
    :param state: SQLite file that keeps jobs and files over a restart; row files lie beside it. None: nothing is kept.
    :param speed: how much faster than real time its clock runs.
    :param pending_seconds: seconds of its clock that a job is PENDING.
    :param running_seconds: seconds of its clock that a job is RUNNING.
    :param queued_seconds: seconds of its clock that a Vertex job is QUEUED before that.
    :param token_seconds: life of an access token, on its clock.
    :param responder: function (request, key) -> text, whole response or {"error": ...}, in place of the
        deterministic answers.
    :param storage_endpoint: URL of a Cloud Storage JSON API; with it Vertex jobs read and write real objects.
    :param faults: faults that are set from the start, see ``faults.py``.
    :param strict: refuse members of a request that no message of the service has, as the service does; otherwise they
        pass, since they may belong to a later SDK. None: as the environment variable ``GEMINI_BATCH_EMULATOR_STRICT``.
    :param models: names, or patterns with ``*``, of models that exist besides the service's own.
    :param api_keys: the API keys that are taken, None for any that does not begin with ``bad-``.
    :param allow_remote: let other machines in.
    :param job_seconds: how long a job takes from its creation to its end, in place of the two times above; running jobs
        of both services then show how far they are.
    :param hostnames: names under which it may be called besides those of the loopback address; with ``allow_remote``
        and no names, any name will do.
    :param https: speak https, with a certificate made on the spot; ``ca_file`` is what clients have to trust.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        state: Path | None = None,
        speed: float = 1.0,
        pending_seconds: float = 1.0,
        running_seconds: float = 2.0,
        queued_seconds: float = 0.0,
        token_seconds: float = 3600.0,
        responder: Responder | None = None,
        storage_endpoint: str | None = None,
        faults: dict[str, Any] | None = None,
        strict: bool | None = None,
        models: Sequence[str] = (),
        api_keys: Sequence[str] | None = None,
        allow_remote: bool = False,
        job_seconds: float | None = None,
        hostnames: Sequence[str] = (),
        https: bool = False,
    ) -> None:
        if job_seconds is not None:
            pending_seconds, running_seconds = job_seconds / 10, job_seconds * 9 / 10
        if host not in LOOPBACK and not allow_remote:
            raise ValueError(
                f"{host} is not a loopback address: whoever reaches it could use the emulator (allow_remote)."
            )
        self._host, self._port = host, port
        settings = Settings(
            speed=speed,
            pending_seconds=pending_seconds,
            running_seconds=running_seconds,
            queued_seconds=queued_seconds,
            token_seconds=token_seconds,
            responder=responder,
            storage_endpoint=storage_endpoint,
            strict=os.environ.get(STRICT_VARIABLE, "0") not in ("", "0") if strict is None else strict,
            models=tuple(models),
            api_keys=None if api_keys is None else frozenset(api_keys),
            hosts=None if allow_remote and not hostnames else frozenset(name.lower() for name in (*hostnames, host)),
            moving_counts=job_seconds is not None,
        )
        world = World(settings, state)
        tables = TableStore(world)
        engine = Engine(world, VertexWork(world, tables))
        files = FileStore(world)
        engine.look_up = files.sample
        self._parts = EmulatorParts(world, engine, files, TokenStore(world), tables)
        self.control = Control(self._parts)
        if faults:
            self.control.faults(**faults)
        self._hostnames = list(hostnames)
        #: The authority that clients have to trust, for https.
        self.ca_file: Path | None = None
        self._temporary: Path | None = None
        server_file = self._make_certificate(state) if https else None
        config = uvicorn.Config(
            Application(self._parts),
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            date_header=False,  # answers carry the date of the emulator's clock
            timeout_keep_alive=120,
            timeout_graceful_shutdown=2,
            backlog=BACKLOG,
            ssl_certfile=server_file,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        self.url = ""

    def _make_certificate(self, state: Path | None) -> Path:
        if state is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="gemini-batch-emulator-tls-"))
        folder = self._temporary or state.with_name(state.name + ".tls")  # type: ignore[union-attr]
        self.ca_file, server_file = make_certificate(folder, [*self._hostnames, *LOOPBACK, self._host])
        return server_file

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def bind(self) -> socket.socket:
        """Take the port and fix ``url``; OSError when it is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio turns Nagle's delay off only where the protocol is named; it costs 40 ms an answer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self._port))
        # Calls made from here on wait in the backlog until they are served.
        listener.listen(BACKLOG)
        port = listener.getsockname()[1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        if self._hostnames and self._host not in LOOPBACK:
            shown = self._hostnames[0]
        self.url = f"{'http' if self.ca_file is None else 'https'}://{shown}:{port}"
        return listener

    def start(self) -> None:
        """Serve in a thread; returns when calls are answered."""
        listener = self.bind()
        self._thread = threading.Thread(target=self.serve, args=(listener,), name="gemini-batch-emulator", daemon=True)
        self._thread.start()
        until = time.monotonic() + START_SECONDS
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise RuntimeError("The emulator did not start.")
            time.sleep(0.001)

    def serve(self, listener: socket.socket) -> None:
        """Serve in this thread until ``stop`` is called or, in the main thread, a signal comes."""
        self._parts.engine.start()
        try:
            asyncio.run(self._server.serve(sockets=[listener]))
        finally:
            listener.close()
            self._close()

    def stop(self) -> None:
        """Stop serving and close the store; a second call does nothing."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def _close(self) -> None:
        self._parts.engine.close()
        with self._parts.world.lock:
            self._parts.world.advance(0)
            self._parts.world.store.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def connection(self, backend: str = "gemini", *, password: str = "any-key", **extra: Any) -> str:  # noqa: S107
        """Return an Airflow connection as JSON, for ``AIRFLOW_CONN_GEMINI_BATCH_DEFAULT``.

        :param backend: ``gemini`` or ``vertex``; the latter comes with a service-account key made on the spot.
        :param extra: members of the connection's extra.
        """
        return connection_json(self._parts, self.url, backend, password, extra)

    def service_account_info(self, email: str = DEMO_ACCOUNT) -> dict[str, str]:
        """Return a service-account key file as a dict: a key made on the spot, this emulator as its token endpoint."""
        return self._parts.tokens.account(email, f"{self.url}/token", self._parts.world.settings.project_id)

    def federation_file(self, path: Path, *, impersonate: bool = False) -> Path:
        """Write a workload identity federation file, and beside it the subject token that it names.

        :param path: where the ``external_account`` JSON goes.
        :param impersonate: give it an impersonation URL of the demo account.
        """
        return write_federation_file(
            self._parts.tokens,
            self.url,
            path,
            project_number=self._parts.world.settings.project_number,
            account=DEMO_ACCOUNT if impersonate else None,
        )

    @property
    def iam_endpoint(self) -> str:
        """The base URL of the IAM credentials API."""
        return self.url
