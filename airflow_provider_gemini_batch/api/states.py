"""The enums of services, kinds of jobs and states of jobs, apart from the models so that importing them is cheap."""

from __future__ import annotations

from enum import Enum


class Service(str, Enum):
    """Which of Google's two batch services is meant."""

    GEMINI = "gemini"
    VERTEX = "vertex"

    @classmethod
    def of_job(cls, name: str) -> Service:
        """Return the service that gave a job this name."""
        return cls.VERTEX if name.startswith("projects/") else cls.GEMINI


class JobKind(str, Enum):
    """What a job makes of each request."""

    GENERATION = "generation"
    EMBEDDINGS = "embeddings"


class JobState(str, Enum):
    """The state of a job, in one vocabulary for both services."""

    QUEUED = "QUEUED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    UPDATING = "UPDATING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    PARTIALLY_SUCCEEDED = "PARTIALLY_SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"

    @property
    def words(self) -> str:
        """The state in words, as the log, the page and the command line show it."""
        return self.value.replace("_", " ").lower()

    @property
    def is_terminal(self) -> bool:
        """True when the job will never change again. UNKNOWN is not: waiting goes on until the deadline."""
        return self in _TERMINAL

    @property
    def ended_well(self) -> bool:
        """True when the job ended with all its responses, or with those that it could get."""
        return self in _ENDED_WELL


_ENDED_WELL = frozenset({JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED})
_TERMINAL = _ENDED_WELL | {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
NEVER_STARTED = frozenset({JobState.QUEUED, JobState.PENDING})
