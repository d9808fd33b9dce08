"""Run all measurements and print them: ``python -m benchmarks``. Takes some half an hour, best on a machine at rest.

Ends with 1 if a promise was not kept. ``--quick`` leaves out the growth to thousands and the real triggerer.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile

from benchmarks import imports, tasks, triggers
from benchmarks.machine import Claims, describe, interpreter, table


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the growth to thousands and the real triggerer")
    parser.add_argument(
        "--only", choices=["imports", "triggers", "tasks", "growth", "triggerer", "page"], help="one part alone"
    )
    parser.add_argument("--tasks", type=int, default=500, help="deferred tasks in the real triggerer")
    args = parser.parse_args()
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    claims = Claims()
    python = "" if args.only in ("tasks", "triggerer", "page") else interpreter()
    machine = describe()
    parts = []
    with tempfile.TemporaryDirectory(prefix="gemini-batch-bench-") as home:
        if args.only in (None, "imports"):
            parts.append(imports.measure(python, home, claims))
            with triggers.stand_in(python, home) as url:
                parts.append(imports.worker(python, home, url))
        if args.only in (None, "tasks"):
            parts.append(tasks.measure(claims))
        if args.only in (None, "triggers"):
            parts.append(triggers.compare(python, home, claims))
        if args.only == "growth" or (args.only is None and not args.quick):
            parts.append(triggers.grow(python, home, claims))
        if args.only in (None, "page"):
            from benchmarks import page

            parts.append(page.measure(claims))
        if args.only == "triggerer" or (args.only is None and not args.quick):
            from benchmarks import real_triggerer  # what it needs is not needed by the other parts

            parts.append(real_triggerer.measure(claims, tasks=args.tasks))
    print(f"\n## {machine}")
    print("\n".join(parts))
    print(table("Promises", claims.rows))
    return 1 if claims.broken else 0


if __name__ == "__main__":
    sys.exit(main())
