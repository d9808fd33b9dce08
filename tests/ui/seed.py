"""Fills a metadata database with convincing batches in all states, for tests, pictures and the benchmark.

Run as a script it fills the database of the Airflow that is configured: ``python -m ui.seed [finished] [active]``, in
the folder of the tests.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import insert, select

from airflow_provider_gemini_batch.batch.overview import OVERVIEW_KEY, JobOverview, Overview
from airflow_provider_gemini_batch.polling.progress import PROGRESS_KEY

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

BUNDLE = "seeded"


class Kind(NamedTuple):
    """A task that is run again and again."""

    dag_id: str
    task_id: str
    model: str
    rows: int
    tokens_in: int
    tokens_out: int
    usd_per_million_in: float | None
    usd_per_million_out: float
    output: str
    mapped: int = 0


KINDS = (
    Kind("nightly_reviews", "summarise", "gemini-3.5-flash", 200_000, 205, 34, 0.15, 1.25, "gs://acme-reviews/summaries/{ds}.parquet"),
    Kind("corpus", "embed", "gemini-embedding-001", 50_000, 900, 0, 0.075, 0, "bq://acme-data.corpus.vectors", 5),
    Kind("catalogue", "describe_pictures", "gemini-3.1-flash-image", 1_000, 1300, 220, 0.25, 15.0, "s3://acme-catalogue/{ds}/"),
    Kind("support", "classify", "gemini-3.5-flash-lite", 10_000, 350, 12, 0.05, 0.2, "/data/support/{ds}.jsonl"),
    Kind("translations", "translate", "gemini-3-pro", 4_000, 700, 640, 1.0, 6.0, "gs://acme-i18n/out/{ds}.jsonl"),
    Kind("experiments", "grade_answers", "tuned-7781", 300, 1900, 90, None, 0, ""),
)  # fmt: skip


class Seeder:
    """Writes runs, task instances and XComs; what it makes is the same for the same seed and moment."""

    def __init__(self, session: Session, now: datetime, seed: int = 7) -> None:
        from airflow.models.dag import DagModel
        from airflow.models.dagbundle import DagBundleModel
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel

        self.session = session
        self.now = now
        self.random = random.Random(seed)
        self._dag, self._bundle = DagModel.__table__, DagBundleModel.__table__
        self._run, self._ti, self._xcom = DagRun.__table__, TaskInstance.__table__, XComModel.__table__
        self._runs: dict[tuple[str, str], int] = {}
        self._next_run = (session.scalar(select(self._run.c.id).order_by(self._run.c.id.desc()).limit(1)) or 0) + 1
        self._waiting: dict[Any, list[dict[str, Any]]] = {}

    def dag(self, dag_id: str) -> None:
        """Add a Dag, unless it is there."""
        if self.session.scalar(select(self._bundle.c.name).where(self._bundle.c.name == BUNDLE)) is None:
            self.session.execute(insert(self._bundle).values(name=BUNDLE, active=True))
        if self.session.scalar(select(self._dag.c.dag_id).where(self._dag.c.dag_id == dag_id)) is None:
            self.session.execute(
                insert(self._dag).values(
                    dag_id=dag_id,
                    bundle_name=BUNDLE,
                    max_active_tasks=16,
                    max_consecutive_failed_dag_runs=0,
                    has_task_concurrency_limits=False,
                    is_paused=True,
                    is_stale=False,
                    timetable_summary="",
                    timetable_description="",
                )
            )

    def task(
        self,
        dag_id: str,
        task_id: str,
        run_id: str,
        *,
        state: str | None,
        began: datetime | None,
        ended: datetime | None = None,
        map_index: int = -1,
        try_number: int = 1,
        max_tries: int = 1,
        operator: str = "GeminiCreateBatchJobOperator",
        xcoms: dict[str, Any] | None = None,
    ) -> None:
        """Add a task instance with its XComs; its run, too, unless it is there."""
        moment = began or self.now
        if (dag_id, run_id) not in self._runs:
            self._runs[dag_id, run_id] = self._next_run
            self._add(
                self._run,
                id=self._next_run,
                dag_id=dag_id,
                run_id=run_id,
                run_type="scheduled",
                state="running" if ended is None else "success",
                logical_date=moment.replace(second=0, microsecond=self._next_run % 1_000_000),
                run_after=moment,
                start_date=moment,
                clear_number=0,
                span_status="not_started",
            )
            self._next_run += 1
        run = self._runs[dag_id, run_id]
        self._add(
            self._ti,
            id=UUID(int=self.random.getrandbits(128)),
            dag_id=dag_id,
            task_id=task_id,
            run_id=run_id,
            map_index=map_index,
            state=state,
            start_date=began,
            end_date=ended,
            try_number=try_number,
            max_tries=max_tries,
            pool="default_pool",
            pool_slots=1,
            operator=operator,
            span_status="not_started",
            executor_config={},
        )
        for key, value in (xcoms or {}).items():
            self._add(
                self._xcom,
                dag_run_id=run,
                dag_id=dag_id,
                task_id=task_id,
                run_id=run_id,
                map_index=map_index,
                key=key,
                value=value,
                timestamp=ended or self.now,
            )

    def write(self) -> None:
        """Send what was added to the database."""
        for table in (self._run, self._ti, self._xcom):
            rows = self._waiting.pop(table, [])
            for start in range(0, len(rows), 2000):
                self.session.execute(insert(table), rows[start : start + 2000])
        self.session.commit()

    def _add(self, table: Any, **values: Any) -> None:
        self._waiting.setdefault(table, []).append(values)

    # -- batches

    def batches(self, finished: int, active: int) -> None:
        """Add batches of all kinds: the finished ones over the last weeks, the active ones in every state."""
        for kind in KINDS:
            self.dag(kind.dag_id)
        for number in range(finished):
            kind = KINDS[self._choose((8, 5, 3, 9, 4, 2))]
            age = timedelta(hours=2 + number * 24 * 80 / max(finished, 1) + self.random.random() * 3)
            self._finished(kind, number, self.now - age)
        for number in range(active):
            self._active(KINDS[number % len(KINDS)], number)
        self.write()

    def _choose(self, weights: tuple[int, ...]) -> int:
        return self.random.choices(range(len(weights)), weights)[0]

    def _job_name(self, kind: Kind) -> str:
        if kind.dag_id == "corpus":
            return f"projects/acme-data/locations/europe-west4/batchPredictionJobs/{self.random.randrange(10**18)}"
        return "batches/" + "".join(self.random.choices("abcdefghijkmnpqrstuvwxyz23456789", k=22))

    def _plan(self, kind: Kind, began: float) -> Overview:
        rows = round(kind.rows * self.random.uniform(0.9, 1.1))
        source = "gs://acme-in/rows.jsonl" if kind.dag_id == "corpus" else "reviews-2026-11-26.parquet"
        overview = Overview(
            model=kind.model,
            service="vertex" if kind.dag_id == "corpus" else "gemini",
            display_name=f"{kind.dag_id}-{kind.task_id}",
            total=rows,
            output=kind.output.format(ds=datetime.fromtimestamp(began, tz=timezone.utc).date()),
        )
        jobs = 2 if rows > 100_000 else 1
        overview = overview.with_event(began + 2, f"Read {rows:,} rows from {source}; {jobs} job{'s'[: jobs - 1]}.")
        for shard in range(jobs):
            job = JobOverview(
                self._job_name(kind), shard=shard, submitted_at=round(began + 6 + shard), total=rows // jobs
            )
            overview = overview.with_job(job)
            overview = overview.with_event(began + 7 + shard, f"Submitted {job.name} ({rows // jobs:,} rows).")
        return overview

    def _finished(self, kind: Kind, number: int, began: datetime) -> None:
        start = began.timestamp()
        queue, work = self.random.lognormvariate(5.6, 0.7), self.random.lognormvariate(8.3, 0.7)
        ended = start + min(queue + work, 90_000)
        overview = self._plan(kind, start)
        fate = self._choose((86, 5, 4, 3, 2))
        rows = overview.total or 0
        bad = (self.random.randrange(rows // 200 + 1), rows, 0, rows * 6 // 10, 0)[fate]
        by_status, reasons = self._reasons(bad)
        landed = fate in (0, 3)
        jobs = tuple(
            replace(
                job,
                state=("SUCCEEDED", "FAILED", "EXPIRED", "SUCCEEDED", "CANCELLED")[fate],
                started_at=round(start + queue),
                ended_at=round(ended - 20),
                done=(job.total or 0) if landed else 0,
                failed=bad // len(overview.jobs) if landed else 0,
            )
            for job in overview.jobs
        )
        for job in jobs:
            overview = overview.with_job(job)
        why = (
            "",
            "the service's quota is used up (code 8)",
            "expired after 48 h",
            f"too many rows failed: {bad:,} of {rows:,}",
            "cancelled by somebody else",
        )[fate]
        tokens_in, tokens_out = (kind.tokens_in * rows, kind.tokens_out * rows) if landed else (0, 0)
        usd = kind.usd_per_million_in
        overview = replace(
            overview,
            phase="failed" if why else "succeeded",
            why=why,
            succeeded=rows - bad if landed else None,
            failed=bad if landed else None,
            by_status={"ok": rows - bad, **by_status} if landed else {},
            reasons=reasons if landed else {},
            failed_keys=tuple(f"r-{1000 + 37 * each}" for each in range(min(bad, 20))) if landed else (),
            ended_at=round(ended),
            input_tokens=tokens_in if landed else None,
            output_tokens=tokens_out if landed else None,
            usd=(tokens_in * usd + tokens_out * kind.usd_per_million_out) / 1e6 if landed and usd is not None else None,
            is_upper_bound=kind.model.startswith("gemini-3.1") and landed,
        )
        text = f"Landed {rows:,} rows: {rows - bad:,} ok, {bad:,} failed." if landed else f"Failed: {why}."
        overview = overview.with_event(ended, text)
        share = 1.0 if landed else self.random.uniform(0.2, 0.7)
        samples = self._samples(start + queue, ended - 20, rows, bad if landed else 0, share)
        done = round(rows * share)
        progress = {"jobs": len(jobs), "jobs_ended": len(jobs), "total": rows, "done": done, "failed": 0, "at": ended}
        self.task(
            kind.dag_id,
            kind.task_id,
            f"scheduled__{began.isoformat()}",
            state="failed" if why else "success",
            began=began,
            ended=datetime.fromtimestamp(ended, tz=timezone.utc),
            map_index=number % kind.mapped if kind.mapped else -1,
            try_number=2 if number % 17 == 0 else 1,
            xcoms={
                OVERVIEW_KEY: _json(overview.to_value()),
                PROGRESS_KEY: progress | {"samples": samples},
                "return_value": {"responses": ["the response of a row, which no page may show"] * 20},
            },
        )

    def _reasons(self, bad: int) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        blocked, truncated = bad // 12, bad // 4
        errors = bad - blocked - truncated
        found = {"blocked": blocked, "truncated": truncated, "error": errors}
        words = {"blocked": "SAFETY", "truncated": "MAX_TOKENS", "error": "8"}
        by_status = {kind: rows for kind, rows in found.items() if rows}
        return by_status, {kind: {words[kind]: rows} for kind, rows in by_status.items()}

    @staticmethod
    def _samples(begin: float, end: float, rows: int, bad: int, share: float) -> list[list[int]]:
        found = []
        for number in range(41):
            part = number / 40
            grown = share * (3 * part**2 - 2 * part**3) if share == 1.0 else share * part
            found.append([round(begin + (end - begin) * part), round(rows * grown), round(bad * grown)])
        return found

    def _active(self, kind: Kind, number: int) -> None:
        step = number % 7
        age = self.random.uniform(400, 9000)
        began = self.now.timestamp() - age
        overview = self._plan(kind, began)
        rows = overview.total or 0
        progress: dict[str, Any] = {}
        state = "deferred"
        phase, why = "running", ""
        started = began + self.random.uniform(60, age / 2)
        if step == 0:  # in the middle of it
            share = self.random.uniform(0.1, 0.9)
            done, bad = round(rows * share), round(rows * share * 0.004)
            jobs = self._running_jobs(overview, done, bad)
            progress = {
                "at": self.now.timestamp() - 20,
                "started_at": started,
                "total": rows,
                "done": done,
                "failed": bad,
                "seconds_left": (self.now.timestamp() - started) / share * (1 - share),
                "samples": self._samples(started, self.now.timestamp() - 20, rows, round(rows * 0.004), share),
                "jobs": len(jobs),
                "jobs_ended": 0,
                "state": "RUNNING" if len(jobs) == 1 else None,
                "each": jobs,
            }
        elif step == 1:  # queued
            progress = {"at": self.now.timestamp() - 20, "total": rows, "done": 0, "failed": 0, "state": "PENDING"}
            overview = replace(overview, jobs=tuple(replace(job, state="PENDING") for job in overview.jobs))
        elif step == 2:
            phase, why = "waiting for quota", "the service's quota is used up: asking again in 5 min"
            overview = replace(overview, jobs=(), jobs_total=0, submitted_at=None)
            overview = overview.with_event(began + 9, "Waiting for quota: 429, asking again in 5 min.")
        elif step == 3:  # repairing
            phase = "repairing"
            first = overview.jobs[0]
            overview = overview.with_job(
                replace(
                    first,
                    state="SUCCEEDED",
                    started_at=round(started),
                    ended_at=round(started + 60),
                    done=first.total,
                    failed=310,
                )
            )
            repair = JobOverview(
                self._job_name(kind), round=1, state="RUNNING", submitted_at=round(started + 70), total=310
            )
            overview = overview.with_job(repair).with_event(started + 70, "Repair round 1: 310 rows are sent again.")
            progress = {
                "at": self.now.timestamp() - 9,
                "total": rows,
                "done": rows - 100,
                "failed": 12,
                "started_at": started,
            }
        elif step == 4:
            state, phase = "running", "submitting"
            overview = replace(overview, jobs=(), jobs_total=0, submitted_at=None)
        elif step == 5:
            state, phase = "running", "landing"
            progress = {"at": self.now.timestamp(), "total": rows, "done": rows, "failed": 40, "started_at": started}
        else:
            state, phase, why = "up_for_retry", "failed", "the service was unavailable"
        overview = replace(overview, phase=phase, why=why)
        self.task(
            kind.dag_id,
            kind.task_id,
            f"scheduled__{datetime.fromtimestamp(began, tz=timezone.utc).isoformat()}-{number}",
            state=state,
            began=datetime.fromtimestamp(began, tz=timezone.utc),
            map_index=number % kind.mapped if kind.mapped else -1,
            try_number=2 if step == 3 else 1,
            max_tries=2,
            xcoms={OVERVIEW_KEY: _json(overview.to_value())} | ({PROGRESS_KEY: progress} if progress else {}),
        )

    @staticmethod
    def _running_jobs(overview: Overview, done: int, bad: int) -> dict[str, list[Any]]:
        each = len(overview.jobs)
        return {
            job.name: ["RUNNING", job.total, min(job.total or 0, done // each), bad // each] for job in overview.jobs
        }


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def main() -> None:
    """Fill the configured database."""
    from airflow.utils.session import create_session

    finished, active = (int(each) for each in (*sys.argv[1:3], *("60", "14")[len(sys.argv) - 1 :]))
    with create_session() as session:
        Seeder(session, datetime.now(tz=timezone.utc)).batches(finished, active)


if __name__ == "__main__":
    main()
