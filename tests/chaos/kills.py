"""Fifty tasks, each hit by SIGKILL once, at a moment around its create call: fifty succeed, fifty jobs exist."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from chaos.case import Case
from chaos.play import Theatre
from chaos.postgres import postgres
from chaos.stage import read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.stage import Stage

TASKS = 50
#: Workers that are alive together.
SLOTS = 12
#: Seconds that the service takes before it makes a job, and again before it answers.
SLOW = 0.5
#: Seconds from the start of a task, or from its create call, within which it is killed.
WINDOW = 2.0


def play_kills(seeds: Sequence[int], *, tasks: int = TASKS) -> int:
    """Play the seeds side by side in one Airflow, print what the kills hit, and count the seeds that failed."""
    failed = 0
    with (
        postgres() as url,
        Theatre([_case(seed, tasks) for seed in seeds], at_a_time=SLOTS, database_url=url) as theatre,
    ):
        for stage in theatre.stages:
            stage.patience = 1800.0
        for result in theatre.play():
            (stage,) = (stage for stage in theatre.stages if stage.case is result.case)
            kills = [line for line in read_lines(theatre.folder / "kills.jsonl") if line["dag_id"] == stage.case.name]
            problems = [*result.problems]
            if len(kills) != tasks:
                problems.append(f"{len(kills)} kills, not {tasks}")
            print(f"{stage.case.name}: {_moments(stage, kills)}")
            print(
                f"{stage.case.name}: {len(kills)} kills, {result.created} jobs, {result.deliveries} deliveries, "
                f"{'failed' if problems else 'passed'} in {result.seconds:.0f} s",
                flush=True,
            )
            for problem in problems:
                print(f"      {problem}")
            if problems:
                failed += 1
                print(result.log, file=sys.stderr)
    print(f"{len(seeds) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _case(seed: int, tasks: int) -> Case:
    slow = [{"operation": "create", "seconds": SLOW, "when": when} for when in ("before", "after")]
    return Case(
        name=f"kills_seed_{seed}",
        done=f"{tasks} workers killed at random moments, seed {seed}",
        mapped=tasks,
        retries=5,
        kill=(seed, WINDOW),
        faults={"slow": slow},
        created=tasks,
        deliveries=tasks,
    )


def _moments(stage: Stage, kills: list[dict[str, Any]]) -> str:
    """Tell how many kills came before, during and after the create call that made the task's job."""
    made = {job["name"]: job["created"] for job in stage.jobs}
    created = {line["map_index"]: made[name] for line in stage.deliveries for name in line["jobs"] if name in made}
    counts: Counter[str] = Counter()
    for kill in kills:
        at, job = kill["at"], created.get(kill["map_index"])
        if job is None or at < job - SLOW:
            counts["before the create call"] += 1
        elif at < job:
            counts["during it, job not yet made"] += 1
        elif at < job + SLOW:
            counts["during it, job made"] += 1
        else:
            counts["after it"] += 1
    whole = sum(kill["whole"] for kill in kills)
    return ", ".join(f"{count} killed {when}" for when, count in sorted(counts.items())) + f"; {whole} with supervisor"
