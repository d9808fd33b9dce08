"""Run all measurements and print them: ``python -m benchmarks``. Takes some ten minutes, best on a machine at rest.

Ends with 1 if a promise was not kept. ``--quick`` leaves the growth to thousands out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

from benchmarks import imports, triggers
from benchmarks.machine import Claims, describe, interpreter, table


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the growth to thousands of triggers out")
    parser.add_argument("--only", choices=["imports", "triggers", "growth"], help="one part alone")
    args = parser.parse_args()
    python, claims = interpreter(), Claims()
    machine = describe()
    parts = []
    with tempfile.TemporaryDirectory(prefix="gemini-batch-bench-") as home:
        if args.only in (None, "imports"):
            parts.append(imports.measure(python, home, claims))
            with triggers.stand_in(python, home) as url:
                parts.append(imports.worker(python, home, url))
        if args.only in (None, "triggers"):
            parts.append(triggers.compare(python, home, claims))
        if args.only == "growth" or (args.only is None and not args.quick):
            parts.append(triggers.grow(python, home, claims))
    print(f"\n## {machine}")
    print("\n".join(parts))
    print(table("Promises", claims.rows))
    return 1 if claims.broken else 0


if __name__ == "__main__":
    sys.exit(main())
