"""Fifty tasks, each hit by SIGKILL once, at a moment around its create call: fifty succeed, fifty jobs exist."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from chaos.case import Case
from chaos.play import Theatre
from chaos.stage import read_lines

if TYPE_CHECKING:
    from chaos.stage import Stage

TASKS = 50
#: Seconds that the service takes before it makes a job, and again before it answers.
SLOW = 0.5
#: Seconds after the start of a task within which it is killed: reading rows, the call, what follows.
WINDOW = 4.0


def play_kills(seed: int, *, tasks: int = TASKS) -> int:
    """Play one seed, print what the kills hit, and return 1 if a task failed or a job was made twice."""
    slow = [{"operation": "create", "seconds": SLOW, "when": when} for when in ("before", "after")]
    case = Case(
        name="kills",
        done=f"{tasks} workers killed at random moments, seed {seed}",
        mapped=tasks,
        retries=5,
        kill=(seed, WINDOW),
        faults={"slow": slow},
        created=tasks,
        deliveries=tasks,
    )
    began = time.monotonic()
    with Theatre([case], at_a_time=8) as theatre:
        (stage,) = theatre.stages
        stage.patience = 1200.0
        (result,) = theatre.play()
        kills = read_lines(theatre.folder / "kills.jsonl")
        problems = [*result.problems]
        if len(kills) != tasks:
            problems.append(f"{len(kills)} kills, not {tasks}")
        print(f"seed {seed}: {_moments(stage, kills)}")
        print(f"seed {seed}: {result.created} jobs, {result.deliveries} deliveries, {time.monotonic() - began:.0f} s")
        for problem in problems:
            print(f"      {problem}")
        if problems:
            print(result.log)
    return 1 if problems else 0


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
