"""What waiting costs the triggerer: our trigger next to those of two other providers, and its growth to thousands."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

from benchmarks.machine import ROOT, Claims, environment, table

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 10.0
SECONDS = 25.0
GROWTH = (10, 100, 1000, 2000, 5000)
_NAMES = {"ours": "this provider", "google": "google 22.8.0", "anthropic": "anthropic 1.2.0", "empty": "nothing"}
_FIGURES = ("CPU s", "collections", "requests", "connections", "lag p99 ms", "lag max ms", "noticed after s")


@contextlib.contextmanager
def stand_in(python: str, home: str) -> Iterator[str]:
    """Run the stand-in service; gives its URL."""
    with subprocess.Popen(
        [python, str(ROOT / "benchmarks" / "standin.py")], stdout=subprocess.PIPE, text=True, env=environment(home)
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def contend(  # noqa: PLR0917  always given in this order
    python: str, home: str, url: str, what: str, kind: str, count: int
) -> dict[str, Any]:
    """Make one measurement in a process of its own."""
    command = [python, "-m", "benchmarks.contender", what, kind, str(count), str(INTERVAL), str(SECONDS), url]
    print(f"  {what} {count} of {_NAMES[kind]} ...", flush=True)
    done = subprocess.run(
        command, env=environment(home), cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def spent(python: str, home: str, url: str, kind: str, count: int) -> dict[str, Any]:
    """CPU time and garbage collections that a wait takes, in a run without the probe, which would count."""
    result = contend(python, home, url, "spend", kind, count)
    return {key: result[key] for key in ("cpu_s", "collections")}


def intervals(result: dict[str, Any]) -> float:
    return max(1.0, float(result["wall_s"]) / INTERVAL)


def weight(python: str, home: str, url: str, kind: str, count: int) -> float:
    """Memory of a waiting trigger in KB: what the process grew by, or what Python's objects take, whichever is more.

    The first leaves out what fits into room that was free already, the second what libraries in C hold.
    """
    found = (contend(python, home, url, what, kind, count)["bytes_each"] for what in ("weigh", "trace"))
    return float(max(found)) / 1024


def compare(python: str, home: str, claims: Claims, *, count: int = 100) -> str:
    """Our trigger and the others, as many of each, with the same service, interval and length of job."""
    rows = [["provider", *_FIGURES, "KB each"]]
    results: dict[str, dict[str, Any]] = {}
    with stand_in(python, home) as url:
        idle = contend(python, home, url, "measure", "empty", 0)
        for kind in ("ours", "google", "anthropic"):
            result = contend(python, home, url, "measure", kind, count)
            assert result["noticed"] == count, f"{kind}: {result['noticed']} of {count} ended"
            result |= spent(python, home, url, kind, count)
            result["kb_each"] = weight(python, home, url, kind, count)
            results[kind] = result
            rows.append([_NAMES[kind], *_figures(result), f"{result['kb_each']:.1f}"])
    others = ("google", "anthropic")
    rows += [[f"{_NAMES[kind]} / ours", *_ratios(results[kind], results["ours"])] for kind in others]
    rows.append(["(an empty loop)", *_figures({**idle, "late_s": 0.0}), ""])
    ours, google = results["ours"], results["google"]
    claims.add(f"{count} triggers, CPU against google's", ours["cpu_s"] / google["cpu_s"], 1 / 25)
    claims.add(f"{count} triggers, requests against google's", ours["requests"] / google["requests"], 1 / 10)
    claims.add(f"{count} triggers, longest block of the loop", ours["lag_max_ms"], 25.0, " ms")
    claims.add(f"{count} triggers, memory each", ours["kb_each"], 8.0, " KB")
    claims.add(f"{count} triggers, noticed after the interval", ours["late_s"] - INTERVAL, 5.0, " s")
    return table(f"{count} triggers, looks every {INTERVAL:g} s, jobs of {SECONDS:g} s", rows)


def grow(python: str, home: str, claims: Claims) -> str:
    """Our trigger, ten to five thousand at once on one connection."""
    rows = [["triggers", *_FIGURES, "requests an interval", "KB each"]]
    with stand_in(python, home) as url:
        for count in GROWTH:
            result = contend(python, home, url, "measure", "ours", count)
            assert result["noticed"] == count
            result |= spent(python, home, url, "ours", count)
            weighs = weight(python, home, url, "ours", count)
            each = result["requests"] / (intervals(result) + 1)  # the first look comes at once
            rows.append([f"{count:,}", *_figures(result), f"{each:.1f}", f"{weighs:.1f}"])
            if count == 2000:
                claims.add("2,000 triggers, requests an interval", each, 25.0)
                claims.add("2,000 triggers, loop lag p99", result["lag_p99_ms"], 5.0, " ms")
                claims.add("2,000 triggers, noticed after the interval", result["late_s"] - INTERVAL, 5.0, " s")
            if count == 5000:
                claims.add("5,000 triggers, loop lag p99", result["lag_p99_ms"], 10.0, " ms")
                claims.add("5,000 triggers, memory each", weighs, 8.0, " KB")
    return table("Growth of this provider's triggers on one connection, all due together", rows)


def _figures(result: dict[str, Any]) -> list[str]:
    return [
        f"{result['cpu_s']:.2f}",
        f"{result['collections']}",
        f"{result['requests']}",
        f"{result['connections']}",
        f"{result['lag_p99_ms']:.1f}",
        f"{result['lag_max_ms']:.1f}",
        f"{result['late_s']:.1f}",
    ]


def _ratios(other: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    def ratio(key: str) -> str:
        return f"{other[key] / ours[key]:.0f}x" if ours[key] > 0 else "-"

    return [
        ratio("cpu_s"),
        ratio("collections"),
        ratio("requests"),
        ratio("connections"),
        ratio("lag_p99_ms"),
        ratio("lag_max_ms"),
        "",
        ratio("kb_each"),
    ]
