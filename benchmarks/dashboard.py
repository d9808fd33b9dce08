"""Run each query of ``docs/grafana.json`` against a real Prometheus (``apt-get install prometheus``), not in CI.

``python -m benchmarks.dashboard`` sends the provider's metrics through Airflow's own OpenTelemetry logger, and, as
statsd_exporter would spell them, from a page of text; every panel has to show something both ways. It needs
``opentelemetry-exporter-prometheus`` beside the packages of the tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from socket import socket
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from airflow_provider_gemini_batch.api.models import BatchJob, JobState, Service, Usage
from airflow_provider_gemini_batch.batch.ports import Landing
from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
from airflow_provider_gemini_batch.runtime.telemetry import COUNTERS, GAUGES, TIMERS, TaskTelemetry, WatchedJobs

DASHBOARD = Path(__file__).resolve().parents[1] / "docs" / "grafana.json"
_TAGS = 'dag_id="texts",task_id="summarise",model="gemini-2.5-flash"'


def main() -> int:
    """Print one line for each query; return 1 when one of them shows nothing."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        print("prometheus is not installed")
        return 1
    empty = 0
    for how, pages in (("OpenTelemetry", _as_opentelemetry()), ("StatsD", _as_statsd())):
        with tempfile.TemporaryDirectory() as folder:
            empty += _check(how, prometheus, Path(folder), pages)
    return 1 if empty else 0


def _check(how: str, prometheus: str, folder: Path, pages: Any) -> int:
    served = {"page": next(pages)}

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(served["page"])

        def log_message(self, *_: Any) -> None:
            pass

    target = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(
        f"scrape_configs: [{{job_name: a, scrape_interval: 1s, "
        f"static_configs: [{{targets: ['127.0.0.1:{target.server_address[1]}']}}]}}]\n",
        "utf-8",
    )
    with subprocess.Popen(
        [
            prometheus,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            for _ in range(12):
                time.sleep(1.5)
                served["page"] = next(pages)
            return _ask(how, port)
        finally:
            server.terminate()
            target.shutdown()


def _ask(how: str, port: int) -> int:
    empty = 0
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for query in panel["targets"]:
            text = query["expr"].replace("$__rate_interval", "10s")
            with urlopen(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': text})}") as answer:
                series = json.load(answer)["data"]["result"]
            values = [round(float(one["value"][1]), 3) for one in series]
            empty += not any(value > 0 for value in values)
            print(f"{how}: {panel['title']} {query['refId']}: {values or 'nothing'}")
    return empty


def _as_opentelemetry() -> Any:
    """Yield what Airflow's OpenTelemetry logger makes of the metrics, before and after some more."""
    from airflow._shared.observability.metrics.otel_logger import SafeOtelLogger
    from airflow.observability import stats as core
    from airflow.sdk.observability import stats as sdk
    from opentelemetry.sdk.metrics import MeterProvider

    # Not among the packages of the tests.
    reader = import_module("opentelemetry.exporter.prometheus").PrometheusMetricReader()
    backend: Any = SafeOtelLogger(MeterProvider(metric_readers=[reader]), "airflow")
    core.initialize(factory=lambda: backend, export_legacy_names=False)
    sdk.initialize(factory=lambda: backend, export_legacy_names=False)
    while True:
        _tell()
        yield import_module("prometheus_client").generate_latest()


def _tell() -> None:
    telemetry = TaskTelemetry(
        SimpleNamespace(dag_id="texts", task_id="summarise"), BatchArguments(model="gemini-2.5-flash"), Service.GEMINI
    )
    now = datetime.now(tz=timezone.utc)
    job = BatchJob(
        name="batches/a",
        service=Service.GEMINI,
        state=JobState.SUCCEEDED,
        create_time=now - timedelta(hours=2),
        start_time=now - timedelta(hours=1),
        end_time=now,
    )
    usage = Usage(input_tokens=9, output_tokens=7, thinking_tokens=5, cached_tokens=3)
    for created in (True, False):
        telemetry.job(job, created=created)
    telemetry.landed([job], Landing(10, 8, 2, usage=usage), between=(now.timestamp() - 3, now.timestamp()))
    WatchedJobs.report("gemini_batch_default", int(time.time()), jobs=3, tokens=900)


def _as_statsd() -> Any:
    """Yield a page as statsd_exporter writes it: counters without a suffix, timers as summaries in seconds."""
    count = 0
    while True:
        count += 10
        lines = [f"airflow_gemini_batch_{name.replace('.', '_')}{{{_TAGS}}} {count}" for name in COUNTERS]
        for name in TIMERS:
            lines += [f"airflow_gemini_batch_{name}_{part}{{{_TAGS}}} {count}" for part in ("sum", "count")]
        lines += [f'airflow_gemini_batch_{name}{{conn_id="gemini_batch_default"}} {count}' for name in GAUGES]
        yield ("\n".join(lines) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
