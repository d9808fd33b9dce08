"""What one task instance must remember of its jobs between processes, and how it is written down.

The same value is kept in Airflow's task state store, where there is one, and travels as the trigger's ``memo``. It
holds names, times and numbers; never a credential, a prompt or a row. Nothing in it is needed for safety: without
it the display names in the service's list tell the rest, at the price of a look-up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

_VERSION = 1


@dataclass
class Ledger:
    """The notes of one task instance about its jobs.

    ``jobs`` are the names in use or once in use, oldest first; ``made`` those that this task created itself;
    ``cancelled`` those that it cancelled itself; ``delivered`` those whose results reached the author; ``intents`` maps
    a tag to the wall-clock time of a create call that has no readable answer; ``stalled`` counts resubmissions after
    a stall; ``shards`` says into how many jobs the rows are divided; ``taken`` are jobs of an older generation that
    this one uses; ``lost`` those that were cut short and whose finished rows are no longer kept; ``input`` is what the
    plan noted of the input, for as long as the generation lasts. The members below the line belong to one try and
    start afresh with the next: ``fresh`` are jobs that it made itself, ``troubles`` counts errors in a row.
    """

    generation: int = 0
    fingerprint: str = ""
    jobs: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    intents: dict[str, float] = field(default_factory=dict)
    stalled: int = 0
    shards: int = 0
    taken: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    input: dict[str, Any] = field(default_factory=dict)
    # -- one try
    began: float | None = None
    rounds: int | None = None
    watching: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    troubles: int = 0
    looked_up: bool = False
    quota_refusals: int = 0
    gone: dict[str, float] = field(default_factory=dict)

    def next_try(self, generation: int) -> Ledger:
        """Give the ledger for a new try: what was learnt of the jobs stays, what belongs to the waiting is dropped."""
        return Ledger(
            generation=generation,
            fingerprint=self.fingerprint,
            jobs=list(self.jobs),
            made=list(self.made),
            cancelled=list(self.cancelled),
            delivered=list(self.delivered),
            intents=dict(self.intents),
            stalled=self.stalled if generation == self.generation else 0,
            shards=self.shards,
            taken=list(self.taken) if generation == self.generation else [],
            lost=list(self.lost),
            input=dict(self.input) if generation == self.generation else {},
        )

    def to_json(self) -> str:
        """Write the ledger as a short text; members that are empty are left out."""
        kept = {name: value for name, value in vars(self).items() if value not in ({}, [], None, "", 0, False)}
        return json.dumps({"version": _VERSION, **kept}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Ledger | None:
        """Read a ledger back; None for nothing, and for what another version or somebody else wrote."""
        if not text:
            return None
        try:
            raw: Any = json.loads(text)
        except ValueError:
            return None
        if not isinstance(raw, dict) or raw.pop("version", None) != _VERSION:
            return None
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in raw.items() if name in known})

    def note_job(self, name: str, *, made: bool) -> None:
        """Remember a job that is now in use."""
        if name not in self.jobs:
            self.jobs.append(name)
        if made and name not in self.made:
            self.made.append(name)
        if made and name not in self.fresh:
            self.fresh.append(name)
