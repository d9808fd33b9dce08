"""What importing costs a Dag file, over what Airflow's dag-processor has loaded anyway."""

from __future__ import annotations

import json
import statistics
import subprocess
from typing import Any

from benchmarks.machine import ROOT, Claims, environment, table

RUNS = 5
# What the child of the dag-processor that parses a Dag file has loaded before it opens the file.
LOADED = ("airflow.sdk", "airflow.triggers.base", "airflow.dag_processing.processor")
OURS = tuple(
    f"airflow_provider_gemini_batch.{part}"
    for part in ("operators", "sensors", "triggers", "decorators", "links", "hooks")
    if (ROOT / "airflow_provider_gemini_batch" / f"{part}.py").exists()
)
GOOGLE = ("airflow.providers.google.cloud.operators.gen_ai",)
ANTHROPIC = ("airflow.providers.anthropic.operators.batch", "airflow.providers.anthropic.sensors.batch")

_SCRIPT = """
import importlib, json, sys, time
for name in {loaded}: importlib.import_module(name)
before, began = set(sys.modules), time.process_time()
for name in {wanted}: importlib.import_module(name)
spent = time.process_time() - began
new = sorted({{name.split(".")[0] for name in set(sys.modules) - before}})
print(json.dumps({{"ms": 1000 * spent, "modules": len(set(sys.modules) - before), "packages": new}}))
"""
_INFO = """
import json, time
from airflow_provider_gemini_batch import get_provider_info
get_provider_info(); began = time.perf_counter()
for _ in range(1000): get_provider_info()
print(json.dumps({"us": 1000 * (time.perf_counter() - began)}))
"""
_WORKER = """
import json, sys, time, urllib.request
import airflow.sdk, airflow.sdk.execution_time.task_runner
began = time.process_time(), time.perf_counter()
from airflow_provider_gemini_batch.api.client import BatchClient
imported = time.process_time(), time.perf_counter()
client = BatchClient.for_gemini("AIza-bench", base_url=sys.argv[1])
made = time.perf_counter()
client.create("gemini-2.5-flash", file_name="files/x")
first = time.perf_counter()
for _ in range(50): client.create("gemini-2.5-flash", file_name="files/x")
more = time.perf_counter()
print(json.dumps({"import_cpu_ms": 1000 * (imported[0] - began[0]), "make_ms": 1000 * (made - imported[1]),
    "first_ms": 1000 * (first - made), "next_ms": 20 * (more - first)}))
"""


def _run(python: str, home: str, script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", script, *arguments], env=environment(home), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(python: str, home: str, claims: Claims) -> str:
    """CPU time of imports, the median of a few runs with warm bytecode; one run of each in turn."""
    wanted = {"this provider, all DAG-facing modules": OURS, "google, operators.gen_ai": GOOGLE, "anthropic": ANTHROPIC}
    scripts = {name: _SCRIPT.format(loaded=LOADED, wanted=modules) for name, modules in wanted.items()}
    for script in scripts.values():
        _run(python, home, script)
    runs = {name: [] for name in wanted}  # type: dict[str, list[dict[str, Any]]]
    for turn in range(RUNS):
        print(f"  imports, run {turn + 1} of {RUNS} ...", flush=True)
        for name, script in scripts.items():
            runs[name].append(_run(python, home, script))
    cost = {name: statistics.median(each["ms"] for each in results) for name, results in runs.items()}
    ours, google, _ = cost.values()
    rows = [["imported", "CPU ms", "modules", "against ours"]]
    rows += [[name, f"{ms:.0f}", str(runs[name][0]["modules"]), f"{ms / ours:.0f}x"] for name, ms in cost.items()]
    info = _run(python, home, _INFO)["us"]
    rows.append(["get_provider_info(), one call", f"{info / 1000:.4f}", "", ""])
    claims.add("import of all DAG-facing modules", ours, 40.0, " ms of CPU")
    claims.add("import against google's", ours / google, 1 / 50)
    foreign = [
        name
        for name in runs["this provider, all DAG-facing modules"][0]["packages"]
        if name != "airflow_provider_gemini_batch"
    ]
    return (
        table(f"Imports, over {', '.join(LOADED)}", rows)
        + f"\n\nPackages that only we load: {', '.join(foreign) or 'none'}"
    )


def worker(python: str, home: str, url: str) -> str:
    """What a worker pays between its start and the answer to a create call, the service answering at once."""
    results = [_run(python, home, _WORKER, url) for _ in range(RUNS)]
    figure = {key: statistics.median(each[key] for each in results) for key in results[0]}
    rows = [
        ["step in a worker", "ms"],
        ["import of the client (CPU)", f"{figure['import_cpu_ms']:.0f}"],
        ["making a client", f"{figure['make_ms']:.1f}"],
        ["first create (opens the connection)", f"{figure['first_ms']:.1f}"],
        ["each further create (pooled connection)", f"{figure['next_ms']:.1f}"],
    ]
    return table("An operator's own part of a create", rows)
