"""Jobs of both services: their life on the emulator's clock, and the work at their end.

PENDING (Vertex: QUEUED before it) -> RUNNING -> an ending; terminal states never change, except by order of the
control. Whoever reads a job first moves it to where it should be by now; a ticker does the same for jobs that nobody
reads.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_gemini_batch.emulator.rows import AnswerPlan, Tally, write_output
from airflow_provider_gemini_batch.emulator.world import check_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator.media import Lookup
    from airflow_provider_gemini_batch.emulator.world import World

log = logging.getLogger(__name__)

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"})
#: Jobs of at most so many rows are answered by whoever finds them due.
SMALL_ROWS = 100
GEMINI_LIFE = 48 * 3600.0
VERTEX_QUEUE_LIFE = 72 * 3600.0
CANCELLED_BEFORE_START = {"code": 13, "message": "Batch was cancelled."}
EXPIRED_ERROR = {"code": 4, "message": "Batch expired before completion."}


class JobFailure(Exception):
    """The job ends FAILED: gRPC code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Job:
    """One batch job; times in seconds of the emulator's clock."""

    id: str
    service: str
    space: str
    number: int
    model: str
    embeds: bool
    display_name: str
    created: float
    #: What the create call said, in the service's own spelling, for the answers to repeat.
    spec: dict[str, Any]
    #: File name in the data folder, None when the rows are elsewhere or unknown.
    source: str | None = None
    rows: int | None = None
    state: str = "PENDING"
    started: float | None = None
    ended: float | None = None
    updated: float = 0.0
    error: dict[str, Any] | None = None
    output: str | None = None
    output_info: dict[str, Any] | None = None
    tally: dict[str, Any] | None = None
    counts: dict[str, int] | None = None
    bound: dict[str, Any] = field(default_factory=dict)
    ending: dict[str, Any] | None = None
    ending_at: float | None = None
    #: State text that the control put on, whatever the life of the job says.
    shown: str | None = None
    cancel_calls: int = 0
    deleted: bool = False

    @property
    def name(self) -> str:
        """The job's full name on the wire."""
        return f"batches/{self.id}" if self.service == "gemini" else str(self.spec.get("name"))

    @property
    def active(self) -> bool:
        """Whether the job has not ended."""
        return self.state not in TERMINAL and not self.deleted

    def done_so_far(self, now: float, running_seconds: float) -> tuple[int, int]:
        """Return how many rows a running job has answered, and how many of its rows have failed."""
        done = int((self.rows or 0) * self.progress(now, running_seconds))
        every = int(self.bound.get("row_error_every") or 0)
        failed = done // every if every else 0
        return done - failed, failed

    def progress(self, now: float, running_seconds: float) -> float:
        """Return the share of its rows that a running job has done, 0 to 1."""
        if self.started is None or running_seconds <= 0:
            return 0.0
        return min(1.0, max(0.0, (now - self.started) / running_seconds))


class VertexRows(Protocol):
    """Reads and writes the rows of Vertex jobs."""

    def __call__(self, job: Job, plan: AnswerPlan) -> tuple[Tally | None, dict[str, Any]]:
        """Answer a job's rows; return counts and output information."""
        ...

    def count(self, job: Job) -> int | None:
        """Return how many rows a job has, None when that cannot be seen."""
        ...


class Engine:
    """All jobs, and the threads that move them. Every method takes the world's lock itself."""

    def __init__(self, world: World, vertex_work: VertexRows) -> None:
        self.world = world
        #: Reads and writes the objects of a Vertex job; returns its counts and output information.
        self.vertex_work = vertex_work
        #: Gives what is known of a file that a row names.
        self.look_up: Lookup | None = None
        self.jobs: dict[tuple[str, str], Job] = {}
        self._spaces: dict[tuple[str, str], list[Job]] = {}
        self._active: dict[str, Job] = {}
        self._working: set[str] = set()
        self._counting: set[str] = set()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="emulator-work")
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick_for_ever, name="emulator-ticker", daemon=True)
        for document in sorted(world.store.load("job").values(), key=lambda doc: int(doc["number"])):
            self._keep(Job(**document))

    def start(self) -> None:
        """Start the ticker."""
        self._ticker.start()

    def close(self) -> None:
        """Stop the threads; work under way is waited for."""
        self._stop.set()
        if self._ticker.is_alive():
            self._ticker.join(5)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def forget(self) -> None:
        """Forget every job (work under way is thrown away)."""
        with self.world.lock:
            self.jobs.clear()
            self._spaces.clear()
            self._active.clear()
            self._working.clear()

    def _keep(self, job: Job) -> None:
        self.jobs[job.service, job.id] = job
        self._spaces.setdefault((job.service, job.space), []).append(job)
        if job.active:
            self._active[job.id] = job

    def save(self, job: Job) -> None:
        """Write a job down."""
        self.world.store.save("job", f"{job.service}/{job.id}", asdict(job))

    def add(self, job: Job) -> Job:
        """Take a new job in, with the faults that it carries, and count it as created."""
        with self.world.lock:
            job.bound = self.world.faults.bind(job.display_name)
            job.updated = job.created
            self.world.books.created(job.service)
            self._keep(job)
            self.save(job)
        return job

    def active_count(self, service: str, space: str) -> int:
        """Return how many jobs of a project have not ended."""
        with self.world.lock:
            return sum(
                1 for job in self._active.values() if (job.service, job.space) == (service, space) and job.active
            )

    def find(self, service: str, space: str, name: str) -> Job | None:
        """Return a job of that project as it is now, None when there is none."""
        with self.world.lock:
            job = self.jobs.get((service, name))
            if job is None or job.deleted or job.space != space:
                return None
            self._step(job, self.world.now())
            return job

    def newest(self, service: str, space: str, *, before: int | None) -> Iterator[Job]:
        """Yield the jobs of a project, newest first, of numbers below ``before``. Hold the world's lock meanwhile."""
        now = self.world.now()
        lag = float(self.world.faults.peek("list_lag") or 0)
        for job in reversed(self._spaces.get((service, space), [])):
            if (before is not None and job.number >= before) or job.deleted or job.created + lag > now:
                continue
            self._step(job, now)
            yield job

    def cancel(self, job: Job) -> None:
        """Ask for a job's end; a job that has ended stays as it is."""
        with self.world.lock:
            job.cancel_calls += 1
            now = self.world.now()
            delay = float(self.world.faults.peek("cancel_delay") or 0)
            if job.active and job.id not in self._working:
                job.ending = self._cancel_ending(job, now)
                job.ending_at = now + delay
                if job.service == "vertex":
                    job.state = "CANCELLING"
                    job.ending_at = max(job.ending_at, now + 0.2)
                job.updated = now
                self._step(job, now)
            self.save(job)

    def _cancel_ending(self, job: Job, now: float) -> dict[str, Any]:
        if job.service == "vertex":
            ending: dict[str, Any] = {"state": "CANCELLED", "code": 1, "message": "CANCELED"}
            share = self._share(job, now)
            return {**ending, "share": share, "rest": "bare"} if job.state == "RUNNING" else ending
        if job.state == "PENDING":
            return {"state": "CANCELLED", **CANCELLED_BEFORE_START}
        kind = self.world.faults.take("cancel_ending", "cancelled")
        if kind == "succeeded":
            return {"state": "SUCCEEDED", "limit": self._done(job, now), "rest": "error"}
        if kind == "cancelled_partial":
            return {"state": "CANCELLED", **CANCELLED_BEFORE_START, "limit": self._done(job, now), "rest": "omit"}
        return {"state": "CANCELLED", **CANCELLED_BEFORE_START}

    def _share(self, job: Job, now: float) -> float:
        share = job.bound.get("partial_rows")
        return job.progress(now, self.world.settings.running_seconds) if share is None else float(share)

    def _done(self, job: Job, now: float) -> int:
        return int((job.rows or 0) * self._share(job, now))

    def delete(self, job: Job) -> None:
        """Stop a job and take it out of sight; the books keep it."""
        with self.world.lock:
            job.deleted = True
            self._active.pop(job.id, None)
            self.save(job)

    def order(self, job: Job, changes: dict[str, Any]) -> None:
        """Do to a job what the control says: ``state``, ``error``, ``counts``, ``gone``, ``created``, ``release``."""
        created = check_time(float(changes.get("created", job.created)))
        counts = changes.get("counts", job.counts)
        if not isinstance(counts, dict | None):
            raise TypeError("counts must be an object")
        with self.world.lock:
            now = self.world.now()
            if changes.get("gone"):
                self.delete(job)
            job.counts = counts
            job.created = created
            if changes.get("release"):
                job.shown = None
                job.bound.pop("hold_pending", None)
                job.bound.pop("hold_running", None)
            if "state" in changes:
                self._order_state(job, changes, now)
            elif "error" in changes:
                job.error = changes["error"]
            job.updated = now
            self.save(job)

    def _order_state(self, job: Job, changes: dict[str, Any], now: float) -> None:
        text = changes["state"]
        state = str(text or "").removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        job.shown = None
        if text is None:
            return
        if state in TERMINAL:
            error = changes.get("error") or self._usual_error(job, state)
            limit = (
                {}
                if state == "SUCCEEDED" or not changes.get("rows")
                else {"limit": int(changes["rows"]), "rest": "bare" if job.service == "vertex" else "omit"}
            )
            job.ending = {"state": state, **(error or {}), **limit}
            job.started = job.started or now
            job.state = "RUNNING" if job.state in TERMINAL else job.state
            self._active[job.id] = job
            self._begin(job, job.ending, now)
        elif state in ("PENDING", "RUNNING"):
            job.state, job.ending, job.ended, job.error = state, None, None, None
            job.started = now if state == "RUNNING" else None
            job.bound[f"hold_{state.lower()}"] = True
            self._active[job.id] = job
        else:
            job.shown = str(text)

    @staticmethod
    def _usual_error(job: Job, state: str) -> dict[str, Any] | None:
        if state == "EXPIRED":
            return dict(EXPIRED_ERROR)
        if state == "CANCELLED":
            return {"code": 1, "message": "CANCELED"} if job.service == "vertex" else dict(CANCELLED_BEFORE_START)
        return {"code": 13, "message": "Internal error occurred."} if state == "FAILED" else None

    def settle(self, timeout: float = 600.0) -> None:
        """Move every job to where it should be by now, and wait until no output is being written."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            self.tick()
            with self.world.lock:
                if not self._working and not self._counting:
                    return
            time.sleep(0.002)

    def tick(self) -> None:
        """Move every active job."""
        with self.world.lock:
            now = self.world.now()
            for job in list(self._active.values()):
                self._step(job, now)

    def _tick_for_ever(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self.tick()
            except Exception:  # noqa: PERF203  the next round may succeed
                log.exception("The emulator could not move its jobs on")

    def _step(self, job: Job, now: float) -> None:
        if not job.active or job.id in self._working:
            return
        settings, faults = self.world.settings, self.world.faults
        if job.ending_at is not None and job.ending is not None:
            if now >= job.ending_at:
                self._begin(job, job.ending, now)
            return
        if job.shown is not None or self._expire(job, now):
            return
        if job.state == "QUEUED" and now >= job.created + settings.queued_seconds:
            job.state = "PENDING"
            self.save(job)
        if job.state == "PENDING" and not (job.bound.get("hold_pending") or faults.lasting("hold_pending")):
            self._start_running(job, now)
        if job.state == "RUNNING" and not (job.bound.get("hold_running") or faults.lasting("hold_running")):
            due = (job.started or now) + settings.running_seconds
            if now >= due:
                self._begin(job, self._due_ending(job), now)

    def _start_running(self, job: Job, now: float) -> None:
        settings = self.world.settings
        due = job.created + settings.pending_seconds + (settings.queued_seconds if job.service == "vertex" else 0)
        if now < due:
            return
        held = job.bound.get("hold_running") or self.world.faults.lasting("hold_running")
        job.state, job.started, job.updated = "RUNNING", now if held else due, now
        self.save(job)
        if job.service == "vertex" and settings.moving_counts:
            self._counting.add(job.id)
            self._pool.submit(self._count_rows, job)

    def _expire(self, job: Job, now: float) -> bool:
        life = VERTEX_QUEUE_LIFE if job.service == "vertex" else GEMINI_LIFE
        if job.service == "vertex" and job.state not in ("QUEUED", "PENDING"):
            return False
        settings = self.world.settings
        normal = job.created + settings.queued_seconds + settings.pending_seconds + settings.running_seconds
        held = any(job.bound.get(name) or self.world.faults.lasting(name) for name in ("hold_pending", "hold_running"))
        if now < job.created + life or (normal < job.created + life and not held):
            return False
        self._begin(job, {"state": "EXPIRED", **EXPIRED_ERROR}, now)
        return True

    def _due_ending(self, job: Job) -> dict[str, Any]:
        part: dict[str, Any] = {}
        if "partial_rows" in job.bound:
            rest = "bare" if job.service == "vertex" else "omit"
            part = {"share": float(job.bound["partial_rows"]), "rest": rest}
        if job.bound.get("expire"):
            return {"state": "EXPIRED", **EXPIRED_ERROR, **part}
        ending = job.bound.get("job_ending")
        ending = dict(ending) if isinstance(ending, dict) else {"state": ending or "SUCCEEDED"}
        stopped = ending["state"] in ("FAILED", "CANCELLED", "EXPIRED")
        return {**part, **ending} if stopped and job.service == "vertex" else ending

    def _begin(self, job: Job, ending: dict[str, Any], now: float) -> None:
        writes = ending["state"] in ("SUCCEEDED", "PARTIALLY_SUCCEEDED") or ending.keys() & {"limit", "share"}
        if not writes:
            self._finish(job, ending, None, now)
            return
        job.ending = ending
        small = job.service == "gemini" and (job.rows or 0) <= SMALL_ROWS and self.world.settings.responder is None
        self._working.add(job.id)
        if small:
            self._work(job, ending)
        else:
            self._pool.submit(self._work, job, ending)

    def _count_rows(self, job: Job) -> None:
        try:
            job.rows = self.vertex_work.count(job)
        except Exception as error:  # noqa: BLE001 - what is wrong with the input, the job finds at its end
            log.debug("The rows of %s could not be counted: %s", job.id, error)
        finally:
            self._counting.discard(job.id)

    def _work(self, job: Job, ending: dict[str, Any]) -> None:
        tally: Tally | None = None
        try:
            tally = self._write(job, ending)
        except JobFailure as failure:
            ending = {"state": "FAILED", "code": failure.code, "message": str(failure)}
        except Exception:
            log.exception("The emulator could not write the output of %s", job.id)
            ending = {"state": "FAILED", "code": 13, "message": "Internal error occurred."}
        with self.world.lock:
            if job.id in self._working:
                self._working.discard(job.id)
                self._finish(job, ending, tally, self.world.now())

    def _write(self, job: Job, ending: dict[str, Any]) -> Tally | None:
        share = ending.get("share")
        limit = int((job.rows or 0) * share) if share is not None else ending.get("limit")
        plan = AnswerPlan(
            model=job.model,
            embeds=job.embeds,
            faults=job.bound,
            limit=limit,
            share=share,
            rest=ending.get("rest", "error"),
            responder=self.world.settings.responder,
            look_up=self.look_up,
            strict=self.world.settings.strict,
            now=self.world.now(),
        )
        if job.service == "vertex":
            tally, job.output_info = self.vertex_work(job, plan)
            return tally
        if job.source is None:
            return None
        store = self.world.store
        tally = write_output(store.path(job.source), store, f"out-{job.id}", plan, job.id)
        job.output = f"batch-{job.id}"
        return tally

    def _finish(self, job: Job, ending: dict[str, Any], tally: Tally | None, now: float) -> None:
        job.state, job.ended, job.updated = ending["state"], now, now
        job.ending, job.ending_at = None, None
        if ending.get("code") is not None:
            job.error = {"code": ending["code"], "message": ending.get("message", "")}
        elif "error" in ending:
            job.error = ending["error"]
        if tally is not None:
            job.tally = asdict(tally)
        self._active.pop(job.id, None)
        self.save(job)
