"""``python -m simulation``: play many schedules, or one with everything that happened in it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import airflow_provider_gemini_batch

CHUNK = 100


def main() -> int:
    """Play, print, and return 1 if a schedule broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--trace", action="store_true", help="print everything that happens; with --seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until-broken", action="store_true", help="stop at the first broken schedule")
    parser.add_argument("--most", type=int, default=20, help="stop printing after so many broken schedules")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, trace=arguments.trace)
    package = os.environ.get("SIMULATED_PACKAGE")
    if package and not (airflow_provider_gemini_batch.__file__ or "").startswith(package):
        print(f"Another package is played than {package}", file=sys.stderr)
        return 2
    began = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.schedules)
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    broken: dict[int, list[str]] = {}
    tally: Counter[str] = Counter()
    with ProcessPoolExecutor(max_workers=arguments.processes) as pool:
        for found, counted in pool.map(play_chunk, chunks):
            broken.update(found)
            tally.update(counted)
            if broken and arguments.until_broken:
                pool.shutdown(cancel_futures=True)
                break
    for seed, violations in list(broken.items())[: arguments.most]:
        print(f"seed {seed}: " + "\n    ".join(violations[:3]))
    seconds = time.monotonic() - began
    print(", ".join(f"{count} {what}" for what, count in sorted(tally.items())))
    print(f"{len(seeds)} schedules in {seconds:.1f} s, {len(broken)} broken")
    if broken:
        print(f"Replay: python -m simulation --seed {next(iter(broken))} --trace")
    return 1 if broken else 0


def play_chunk(seeds: range) -> tuple[dict[int, list[str]], Counter[str]]:
    """Play schedules one after the other, in a process of their own."""
    from simulation.play import play

    silence()
    broken: dict[int, list[str]] = {}
    tally: Counter[str] = Counter()
    for seed in seeds:
        result = play(seed)
        tally.update(result.tally)
        if result.violations:
            broken[seed] = result.violations
    return broken, tally


def silence() -> None:
    """Keep the product's log to itself: it is not what is looked at here."""
    logging.disable(logging.CRITICAL)


def _one(seed: int, *, trace: bool) -> int:
    from simulation.play import play

    silence()
    result = play(seed, tracing=trace)
    print("\n".join(result.trace))
    print("\n".join(result.violations) or "nothing broken")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
