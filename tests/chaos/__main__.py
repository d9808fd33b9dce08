"""``python -m tests.chaos``: play the table in a real Airflow and print it; 1 when a row fails."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos.events import JOBS, play_events
from chaos.kills import TASKS, play_kills
from chaos.play import Theatre
from chaos.postgres import postgres
from chaos.table import TABLE
from chaos.triggerers import SECONDS, play_triggerers

SEEDS = (1, 2, 3)


def play_table(names: list[str]) -> int:
    """Play all cases, or those named, and print a line for each."""
    began = time.monotonic()
    cases = [case for case in TABLE if not names or case.name in names]
    failed = 0
    print("      case                         jobs     results  run", flush=True)
    with postgres() as url, Theatre(cases, database_url=url) as theatre:
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
    parser.add_argument("--case", action="append", default=[], help="play this case of the table only; may be repeated")
    parts = parser.add_subparsers(dest="part", metavar="kills | triggerers | events")
    kills = parts.add_parser("kills", help="fifty workers killed at random moments around the create call")
    kills.add_argument("--seed", type=int, action="append", default=None, help="may be repeated")
    kills.add_argument("--tasks", type=int, default=TASKS)
    shaken = parts.add_parser("triggerers", help="fifty deferred tasks, two triggerers shaken for three minutes")
    shaken.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    shaken.add_argument("--tasks", type=int, default=TASKS)
    shaken.add_argument("--seconds", type=float, default=SECONDS)
    ended = parts.add_parser("events", help="fifty jobs that a Dag is to hear of, the triggerer killed twice")
    ended.add_argument("--jobs", type=int, default=JOBS)
    options = parser.parse_args()
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.part == "kills":
        return play_kills(options.seed or SEEDS, tasks=options.tasks)
    if options.part == "triggerers":
        return play_triggerers(database=options.database, tasks=options.tasks, seconds=options.seconds)
    if options.part == "events":
        return play_events(options.jobs)
    return play_table(options.case)


if __name__ == "__main__":
    sys.exit(main())
