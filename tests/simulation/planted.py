"""Bugs planted into a copy of the product, each of which the simulation must catch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
_PACKAGE = _TESTS.parent / "airflow_provider_gemini_batch"


@dataclass(frozen=True)
class Plant:
    """A change of one place in the product's code."""

    name: str
    file: str
    old: str
    new: str


PLANTS = (
    Plant(
        "the trigger creates the job",
        "runtime/trigger_task.py",
        "            lease.poller.join(subscription)\n",
        "            for name in self.job_names:\n"
        "                job = await lease.poller.call(lambda client, name=name: client.get(name))\n"
        "                await lease.poller.call(\n"
        "                    lambda client, job=job: client.create(job.model, display_name=job.display_name)\n"
        "                )\n"
        "            lease.poller.join(subscription)\n",
    ),
    Plant(
        "a create call is sent again blindly",
        "batch/submit.py",
        "self._send(prepared, tag) or self.look_up(str(tag))",
        "self._send(prepared, tag)",
    ),
    Plant(
        "jobs from other input are adopted",
        "batch/adoption.py",
        "    same = [one for one in ours if one.tag.fingerprint == fingerprint]\n",
        "    same = list(ours)\n",
    ),
    Plant(
        "cleanup cancels",
        "triggers.py",
        "    async def on_kill(self) -> None:\n",
        "    async def cleanup(self) -> None:\n"
        "        lease = self._task().lease()\n"
        "        for name in self.job_names:\n"
        "            await lease.poller.call(lambda client, name=name: client.cancel(name))\n"
        "\n"
        "    async def on_kill(self) -> None:\n",
    ),
    Plant(
        "any on_kill cancels",
        "runtime/trigger_task.py",
        "            if state in _ENDED_BY_A_USER:\n",
        "            if state != 'never':\n",
    ),
    Plant(
        "adoption knows no clear count",
        "batch/adoption.py",
        "older=record.tag.clear_count < slot.clear_count",
        "older=False",
    ),
)


def play_with(plant: Plant, *, schedules: int) -> subprocess.CompletedProcess[str]:
    """Play schedules with a planted bug; the exit code is 1 if it was caught.

    :raises ValueError: the place of the bug is not in the code any more.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder) / _PACKAGE.name
        shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / plant.file
        code = file.read_text()
        if code.count(plant.old) != 1:
            raise ValueError(f"{plant.name}: {plant.file} has changed; plant the bug where it belongs now")
        file.write_text(code.replace(plant.old, plant.new))
        command = [sys.executable, "-m", "simulation", "--schedules", str(schedules), "--until-broken"]
        path = os.pathsep.join([folder, str(_TESTS)])
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "SIMULATED_PACKAGE": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> int:
    """Play all planted bugs and say which are caught."""
    missed = 0
    for plant in PLANTS:
        result = play_with(plant, schedules=500)
        lines = result.stdout.splitlines()
        caught = result.returncode == 1 and any("broken" in line for line in lines)
        missed += not caught
        first = lines[0][:160] if lines else result.stderr[-300:]
        print(f"{'caught' if caught else 'MISSED'}: {plant.name}: {first}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
