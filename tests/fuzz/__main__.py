"""``python -m tests.fuzz INPUTS [SEED] [TARGET]``: the long run. A fault names the seed that makes it again."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.run import MOST_BYTES, run


def main(inputs: str = "100000", seed: str = "1", only: str | None = None) -> int:
    """Run and tell; 1 when there was a fault."""
    outcome = run(int(inputs), int(seed), only)
    for fault in outcome.faults[:20]:
        print(fault, file=sys.stderr)
    for name, count in sorted(outcome.refused.items()):
        print(f"{count:8} {name}")
    print(
        f"{outcome.inputs} inputs, {len(outcome.faults)} faults, slowest {outcome.slowest:.3f} s, "
        f"memory grew by {outcome.grown / 2**20:.0f} MiB"
    )
    return 1 if outcome.faults or outcome.grown > MOST_BYTES else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
