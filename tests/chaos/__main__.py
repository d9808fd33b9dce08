"""``python -m tests.chaos``: play the table in a real Airflow and print it; 1 when a row fails."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos.play import Theatre
from chaos.table import TABLE


def play_table(names: list[str]) -> int:
    """Play all cases, or those named, and print a line for each."""
    began = time.monotonic()
    cases = [case for case in TABLE if not names or case.name in names]
    failed = 0
    print("      case                         jobs     results  run", flush=True)
    with Theatre(cases) as theatre:
        for result in theatre.play():
            print(result.row(), flush=True)
            for problem in result.problems:
                print(f"      {problem}")
            if result.problems:
                failed += 1
                print(result.log, file=sys.stderr)
    print(f"{len(cases) - failed} passed, {failed} failed")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def main() -> int:
    """Choose what to play."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--case", action="append", default=[], help="play this case only; may be repeated")
    options = parser.parse_args()
    return play_table(options.case)


if __name__ == "__main__":
    sys.exit(main())
