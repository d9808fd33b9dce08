"""The control of a running emulator, in Python and over HTTP under ``/emulator``: books, faults, clock, jobs, reset."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_gemini_batch.emulator.bill import bill_of
from airflow_provider_gemini_batch.emulator.faults import check_finite
from airflow_provider_gemini_batch.emulator.wire import ApiError, answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response

    from airflow_provider_gemini_batch.emulator.call import ApiCall, EmulatorParts
    from airflow_provider_gemini_batch.emulator.jobs import Job


DEMO_ACCOUNT = "batch@demo-project.iam.gserviceaccount.com"


def connection_json(parts: EmulatorParts, url: str, backend: str, password: str, extra: dict[str, Any]) -> str:
    """Return an Airflow connection to this emulator as JSON."""
    document: dict[str, Any] = {"conn_type": "gemini_batch", "host": url}
    if backend == "gemini":
        document["password"] = password
    elif backend == "vertex":
        project = parts.world.settings.project_id
        key = parts.tokens.account(DEMO_ACCOUNT, f"{url}/token", project)
        extra = {"backend": "vertex", "project_id": project, "location": "us-central1", "keyfile_dict": key, **extra}
    else:
        raise ValueError(f"backend must be gemini or vertex, not {backend!r}")
    if extra:
        document["extra"] = extra
    return json.dumps(document)


class Control:
    """Orders to a running emulator; safe from any thread."""

    def __init__(self, parts: EmulatorParts) -> None:
        self._parts = parts
        self._world = parts.world

    def health(self) -> dict[str, Any]:
        """Return that the emulator is there, and its clock."""
        return {"status": "ok", **self._world.show_clock()}

    def books(self) -> dict[str, Any]:
        """Return what has happened.

        ``created``: jobs ever created, also before a restart; ``created_by_service``; ``jobs``: each job, oldest
        first; ``requests``: calls by operation; ``files``: live uploads; ``file_bytes``: their size.
        """
        engine, stored = self._parts.engine, self._parts.files
        engine.tick()
        with self._world.lock:
            files = stored.live()
            return {
                "created": sum(self._world.books.jobs.values()),
                "created_by_service": dict(self._world.books.jobs),
                "jobs": [_job_entry(job) for job in engine.jobs.values()],
                "requests": dict(self._world.books.requests),
                "files": [
                    {
                        "name": f"files/{file.id}",
                        "display_name": file.display_name,
                        "bytes": file.size,
                        "mime_type": file.mime,
                    }
                    for file in files
                ],
                "file_bytes": sum(file.size for file in files),
                "quota_projects": dict(self._world.books.quota_projects),
                "tokens_issued": self._parts.tokens.issued,
            }

    def bill(self) -> dict[str, Any]:
        """Return what the service would charge, see ``bill.py``.

        ``jobs``: name, model, tokens by kind and US dollars of each, oldest first; ``tokens`` and ``usd``: of all.
        """
        self._parts.engine.tick()
        with self._world.lock:
            return bill_of(list(self._parts.engine.jobs.values()), self._world.now())

    def faults(self, **values: Any) -> dict[str, Any]:
        """Set faults (see ``faults.py``) and return all that are set; ValueError for an unknown name."""
        with self._world.lock:
            self._world.faults.set(values)
            return self._world.faults.show()

    def clear_faults(self) -> dict[str, Any]:
        """Take all faults back, and let go of jobs that were held."""
        with self._world.lock:
            self._world.faults.clear()
            for job in self._parts.engine.jobs.values():
                job.bound.pop("hold_pending", None)
                job.bound.pop("hold_running", None)
            return {}

    def advance(self, seconds: float) -> dict[str, Any]:
        """Move the clock forward; jobs that are due have ended, and their output is written, when this returns."""
        # In steps, so that a job due at once to start and to end does both at its own time.
        self._parts.engine.settle()
        self._world.advance(seconds)
        self._parts.engine.settle()
        return self._world.show_clock()

    def speed(self, speed: float) -> dict[str, Any]:
        """Change how fast the clock runs; 0 stops it."""
        self._world.set_speed(speed)
        return self._world.show_clock()

    def set_job(self, name: str, **changes: Any) -> dict[str, Any]:
        """Change a job, whatever its life says, and return its entry; KeyError for an unknown one.

        :param name: full name or id.
        :param changes: ``state`` (with or without prefix; any other text is shown as it is and ends when set to
            None), ``error`` ({code, message}), ``rows`` (how many are answered, for endings other than success),
            ``counts`` (wire names of the counters), ``created`` (seconds),
            ``release`` (True: let go of a held job), ``gone`` (True: it vanishes).
        """
        short = name.rsplit("/", 1)[-1]
        with self._world.lock:
            job = next((job for (_, number), job in self._parts.engine.jobs.items() if number == short), None)
        if job is None:
            raise KeyError(name)
        check_finite(changes)
        self._parts.engine.order(job, changes)
        self._parts.engine.settle()
        return _job_entry(job)

    def put_table(self, name: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
        """Write a BigQuery table that jobs can read; ValueError for a bad name, type or column.

        :param name: ``project.dataset.table``.
        :param columns: BigQuery types by column.
        :param rows: values by column; a JSON column takes a value or a JSON text.
        """
        self._parts.tables.put(name, columns, rows)

    def table(self, name: str) -> dict[str, Any]:
        """Return ``columns`` and ``rows`` of a table; KeyError for an unknown one."""
        tables = self._parts.tables
        columns = tables.columns(name)
        if columns is None:
            raise KeyError(name)
        return {"columns": columns, "rows": list(tables.rows(name))}

    def revoke_tokens(self) -> None:
        """Make every access token invalid that was issued so far."""
        self._parts.tokens.revoke()

    def allow_impersonation(self, caller: str, target: str) -> None:
        """Let one account ask for access tokens of another (each step of a delegation chain needs it)."""
        self._parts.tokens.allow(caller, target)

    def reset(self) -> None:
        """Forget jobs, files, faults and counts, and go back to the settings of the start."""
        with self._world.lock:
            self._parts.engine.forget()
            self._parts.files.forget()
            self._parts.tokens.forget()
            self._parts.tables.forget()
            self._world.reset()


def _job_entry(job: Job) -> dict[str, Any]:
    tally = job.tally or {}
    return {
        "name": job.name,
        "display_name": job.display_name,
        "service": job.service,
        "project": job.space.partition("/")[0] if job.service == "vertex" else None,
        "state": job.shown or job.state,
        "model": job.model,
        "rows": job.rows,
        "succeeded": tally.get("succeeded", 0),
        "failed": tally.get("failed", 0),
        "reused": tally.get("reused", 0),
        "prompt_tokens": tally.get("prompt_tokens", 0),
        "candidates_tokens": tally.get("candidates_tokens", 0),
        "thoughts_tokens": tally.get("thoughts_tokens", 0),
        "created": job.created,
        "ended": job.ended,
        "error": job.error,
        "labels": job.spec.get("labels") or {},
        "input": job.spec.get("inputConfig"),
        "output": job.output_info,
        "cancel_calls": job.cancel_calls,
        "deleted": job.deleted,
    }


def _control(call: ApiCall) -> Control:
    return Control(call.parts)


def _plain(order: Callable[[Control], dict[str, Any] | None]) -> Callable[[ApiCall], Awaitable[Response]]:
    """Return the handler of an order without arguments."""

    async def handler(call: ApiCall) -> Response:
        return answer(order(_control(call)) or {})

    return handler


async def _show_faults(call: ApiCall) -> Response:
    with call.world.lock:
        return answer(call.world.faults.show())


async def _set_faults(call: ApiCall) -> Response:
    values = await call.json()
    try:
        return answer(_control(call).faults(**values))
    except (ValueError, TypeError) as error:
        raise ApiError(400, str(error)) from error


async def _clock(call: ApiCall) -> Response:
    order = await call.json()
    if "speed" in order:
        _control(call).speed(float(order["speed"]))
    if "advance" in order:
        await asyncio.to_thread(_control(call).advance, float(order["advance"]))
    return answer(call.world.show_clock())


async def _set_job(call: ApiCall) -> Response:
    changes = await call.json()
    try:
        return answer(await asyncio.to_thread(lambda: _control(call).set_job(call.path["name"], **changes)))
    except KeyError as error:
        raise ApiError(404, "No such job.") from error


async def _put_table(call: ApiCall) -> Response:
    order = await call.json()
    try:
        _control(call).put_table(call.path["name"], order["columns"], order.get("rows") or [])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ApiError(400, f"A table is {{columns: {{name: type}}, rows: [...]}}: {error}") from error
    return answer({})


async def _table(call: ApiCall) -> Response:
    try:
        return answer(_control(call).table(call.path["name"]))
    except KeyError as error:
        raise ApiError(404, "No such table.") from error


async def _connection(call: ApiCall) -> Response:
    backend = call.request.query_params.get("backend", "gemini")
    try:
        return answer(json.loads(connection_json(call.parts, call.own_url, backend, "any-key", {})))
    except ValueError as error:
        raise ApiError(400, str(error)) from error


async def _allow(call: ApiCall) -> Response:
    order = await call.json()
    _control(call).allow_impersonation(str(order.get("caller")), str(order.get("target")))
    return answer({})


ROUTES = [
    ("GET", "/emulator/connection", _connection),
    ("POST", "/emulator/impersonation", _allow),
    ("GET", "/emulator/health", _plain(Control.health)),
    ("GET", "/emulator/books", _plain(Control.books)),
    ("GET", "/emulator/bill", _plain(Control.bill)),
    ("GET", "/emulator/faults", _show_faults),
    ("POST", "/emulator/faults", _set_faults),
    ("DELETE", "/emulator/faults", _plain(Control.clear_faults)),
    ("POST", "/emulator/clock", _clock),
    ("POST", "/emulator/jobs/(?P<name>.+)", _set_job),
    ("GET", "/emulator/tables/(?P<name>.+)", _table),
    ("POST", "/emulator/tables/(?P<name>.+)", _put_table),
    ("POST", "/emulator/tokens/revoke", _plain(Control.revoke_tokens)),
    ("POST", "/emulator/reset", _plain(Control.reset)),
]
