"""Metrics and traces: what a task and a trigger tell, by which names, and that nothing of it can fail the task."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.observability import stats as core_stats
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from airflow.sdk.observability import stats as sdk_stats
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from task_context import task_context

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.polling.report import Reason, WaitReport, to_event
from airflow_provider_gemini_batch.runtime.telemetry import COUNTERS, GAUGES, TIMERS, WatchedJobs

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_gemini_batch.emulator import Emulator

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass
class Told:
    """Stands for Airflow's statistics."""

    counts: dict[str, int] = field(default_factory=dict)
    timings: dict[str, list[float]] = field(default_factory=dict)
    gauges: list[tuple[str, float, dict[str, str]]] = field(default_factory=list)

    def incr(self, name: str, count: int = 1, *, tags: dict[str, str]) -> None:
        assert set(tags) == {"dag_id", "task_id", "model"}
        self.counts[name] = self.counts.get(name, 0) + count

    def timing(self, name: str, dt: timedelta, **_: Any) -> None:
        self.timings.setdefault(name, []).append(dt.total_seconds())

    def gauge(self, name: str, value: float, *, tags: dict[str, str]) -> None:
        self.gauges.append((name, value, tags))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    made = Told()
    monkeypatch.setattr(sdk_stats, "Stats", made)
    monkeypatch.setattr(core_stats, "Stats", made)
    return made


@pytest.fixture
def watched_jobs(monkeypatch: pytest.MonkeyPatch) -> type[WatchedJobs]:
    """Give the sums of a process that waits for no jobs yet: other tests run in this one."""
    monkeypatch.setattr(WatchedJobs, "_jobs", {})
    monkeypatch.setattr(WatchedJobs, "_sums", {})
    return WatchedJobs


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def run_through(emulator: Emulator, *, retries: int = 0, **arguments: Any) -> dict[str, Any]:
    """Submit, let the job end, and land."""
    given = {"model": "gemini-2.5-flash", "inlined_requests": ["swordfish one", "swordfish two"], **arguments}
    task = GeminiCreateBatchJobOperator(task_id="t", **given)
    context = task_context(max_tries=retries)
    memo: str | None = None
    while True:
        try:
            with task.task_run(context) as run:
                if memo is None:
                    return run.begin()
                event = to_event(WaitReport(Reason.WAKE, memo=memo, running_since=time.time()))
                return run.resume(event, memo)
        except TaskDeferred as deferred:
            memo = (deferred.kwargs or {})["memo"]
        emulator.control.advance(3600)


def test_a_batch_counts_rows_tokens_and_jobs_and_tells_how_long_each_stage_took(told: Told, emulator: Emulator) -> None:
    emulator.control.faults(row_error_every=2)
    summary = run_through(emulator)
    names = {name.removeprefix("gemini_batch.") for name in told.counts}
    assert names == {"rows.succeeded", "rows.failed", "jobs.created", *summary["usage"]}
    assert told.counts["gemini_batch.rows.failed"] == summary["counts"]["failed"] == 1
    assert told.counts["gemini_batch.input_tokens"] == summary["usage"]["input_tokens"]
    assert set(told.timings) == {f"gemini_batch.{name}" for name in TIMERS}
    assert all(seconds >= 0 for each in told.timings.values() for seconds in each)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_task_that_fails_counts_rows_and_billed_tokens_unless_another_try_will(
    retries: int, told: Told, emulator: Emulator
) -> None:
    emulator.control.faults(row_error_every=2)
    with pytest.raises(AirflowException, match="max_failed_rows=0"):
        run_through(emulator, retries=retries, max_failed_rows=0)
    counted = {name.removeprefix("gemini_batch."): count for name, count in told.counts.items()}
    assert counted.pop("jobs.created") == 1
    if retries:
        assert not counted
        return
    billed = emulator.control.bill()["tokens"]
    assert (counted["rows.succeeded"], counted["rows.failed"]) == (1, 1)
    assert counted["input_tokens"] == billed["input_text"]
    assert set(told.timings) == {"gemini_batch.landing_duration"}


def test_spans_have_the_names_of_the_conventions_and_nothing_of_the_content(
    spans: InMemorySpanExporter, emulator: Emulator
) -> None:
    emulator.control.faults(row_error_every=2, row_error_rounds=r"-[0-9]\.0\.0-")
    summary = run_through(emulator, repair_rounds=1)
    found = spans.get_finished_spans()
    assert sorted(span.name for span in found) == [
        "gemini_batch.land",
        "gemini_batch.repair",
        "gemini_batch.submit",
        "gemini_batch.submit",
        "gemini_batch.wait",
    ]
    for span in found:
        attributes = dict(span.attributes or {})
        assert attributes["gen_ai.request.model"] == "gemini-2.5-flash"
        assert attributes["gen_ai.provider.name"] == "gcp.gemini"
        assert attributes["gen_ai.operation.name"] == "generate_content"
        assert (span.start_time or 0) <= (span.end_time or 0)
        assert "swordfish" not in span.to_json()
    (land,) = [dict(span.attributes or {}) for span in found if span.name == "gemini_batch.land"]
    assert land["gen_ai.usage.input_tokens"] == summary["usage"]["input_tokens"]
    waits = [dict(span.attributes or {}) for span in found if span.name in ("gemini_batch.wait", "gemini_batch.repair")]
    assert {wait["gen_ai.response.id"] for wait in waits} == set(summary["job_names"])


def test_our_attributes_are_those_of_the_installed_conventions(spans: InMemorySpanExporter, emulator: Emulator) -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as conventions

    emulator.control.faults(thoughts=3, cached_tokens=1)
    run_through(emulator)
    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
    used = {name for span in spans.get_finished_spans() for name in span.attributes or {} if name.startswith("gen_ai")}
    assert used <= known
    assert {"gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.cache_read.input_tokens"} <= used


@pytest.mark.parametrize("what", ["incr", "timing", "tracer"])
def test_telemetry_that_fails_cost_no_paid_task(
    what: str, told: Told, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(trace if what == "tracer" else told, "get_tracer" if what == "tracer" else what, fail)
    assert run_through(emulator)["counts"]["succeeded"] == 2


def test_gauges_sum_up_the_jobs_that_the_triggers_of_a_connection_wait_for(
    told: Told, watched_jobs: type[WatchedJobs]
) -> None:
    watched_jobs.report("mine", 1, jobs=2, tokens=100)
    watched_jobs.report("mine", 2, jobs=1, tokens=50)
    watched_jobs.report("yours", 3, jobs=1, tokens=7)
    watched_jobs.report("mine", 1, jobs=1, tokens=50)
    watched_jobs.report("mine", 1, jobs=0, tokens=0)
    of = {
        name: [value for told_name, value, tags in told.gauges if told_name == name and tags["conn_id"] == "mine"]
        for name in ("gemini_batch.active_jobs", "gemini_batch.queued_tokens")
    }
    assert of["gemini_batch.active_jobs"] == [2, 3, 2, 1]
    assert of["gemini_batch.queued_tokens"] == [100, 150, 100, 50]
    told.gauges.clear()
    watched_jobs.report("mine", 2, jobs=1, tokens=50)
    assert told.gauges == [], "nothing has changed"


def test_the_page_on_monitoring_and_the_dashboard_name_each_metric_and_no_other() -> None:
    ours = {f"gemini_batch.{name}" for name in (*COUNTERS, *TIMERS, *GAUGES)}
    page = (DOCS / "how-to" / "monitoring.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if re.search(r"\| (counter|timer|gauge) \|", line)]
    assert {name for row in rows for name in re.findall(r"`(gemini_batch\.[\w.]+)`", row)} == ours
    dashboard = json.loads((DOCS / "grafana.json").read_text("utf-8"))
    suffix = r"(_total|_milliseconds)?(_sum|_count)?$"
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    shown = {name for query in queries for name in re.findall(r"airflow_(gemini_batch_\w+)", query)}
    spelled = {name.replace(".", "_") for name in ours}
    assert {re.sub(suffix, "", name) for name in shown} == spelled
