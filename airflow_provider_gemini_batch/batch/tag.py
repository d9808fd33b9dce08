"""Names: which task a job belongs to, and the tag at the end of a display name that says so."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b32encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.models import BatchJob

# Vertex allows 128 characters; the Gemini API allows more, but one rule serves both.
MAX_DISPLAY_NAME: Final = 128
MAX_TAG: Final = 60
LABEL_KEY: Final = "airflow-gemini-batch"
"""The key of the Vertex label whose value is :func:`label_value`."""

_DIGEST = 10
_NUMBER = "(0|[1-9][0-9]*)"
_TAG = re.compile(rf"gb1(s?)-([a-z2-7]{{{_DIGEST}}})-{_NUMBER}-{_NUMBER}\.{_NUMBER}\.{_NUMBER}-([0-9a-f]{{12}})")
_TAG_AT_END = re.compile(rf"(?:\A|.*-){_TAG.pattern}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """One task instance over all its tries: what stays the same when Airflow runs it again.

    ``deployment`` tells Airflows that share a key apart. ``part`` is the map index, -1 for a task that is not mapped,
    or the key of a dataset's part, which stays the same when other parts come and go. ``noted`` is the digest that the
    task's jobs have, where its notes say so: the deployment may have got another name since.
    """

    deployment: str
    dag_id: str
    task_id: str
    run_id: str
    part: int | str = -1
    noted: str = ""

    @property
    def digest(self) -> str:
        """Ten lower-case base32 characters (50 bits). The parts are hashed as a list, so a/bc differs from ab/c."""
        if self.noted:
            return self.noted
        parts = json.dumps([self.deployment, self.dag_id, self.task_id, self.run_id, self.part])
        return b32encode(hashlib.sha256(parts.encode()).digest()).decode().lower()[:_DIGEST]


@dataclass(frozen=True, slots=True)
class Tag:
    """What a job's name says about it.

    ``identity`` is :attr:`TaskIdentity.digest`; ``clear_count`` grows when a person clears the task and not on a retry;
    ``shard`` counts the jobs that share the rows of a task, ``round`` the repairs, ``submission`` the jobs that were
    made for the same rows one after the other; ``fingerprint`` is 12 hexadecimal digits over what is sent. ``wrapped``
    says whether the keys of its rows are ours (see ``rows.wire_keys``): False for a source that was sent unchanged,
    whose keys may only look like ours. It does not identify the job, so tags that differ in it alone are equal.

    Raises ``ValueError`` for parts that could not be parsed back from a name.
    """

    identity: str
    clear_count: int
    shard: int
    round: int
    submission: int
    fingerprint: str
    wrapped: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for parts that could not be parsed back."""
        text = self.text
        if _TAG.fullmatch(text) is None or len(text) > MAX_TAG:
            raise ValueError(f"Not a tag: {text!r}")

    def __str__(self) -> str:
        """Lower-case letters, digits, ``-`` and ``.``, at most 60 characters; the same for all equal tags."""
        place = f"{self.shard}.{self.round}.{self.submission}"
        return f"gb1-{self.identity}-{self.clear_count}-{place}-{self.fingerprint}"

    @property
    def slot(self) -> str:
        """The job's place in the batch, whatever the input and the clear count: ``<shard>.<round>``."""
        return f"{self.shard}.{self.round}"

    @property
    def text(self) -> str:
        """The tag as a job carries it: ``gb1s-`` where the source was sent unchanged; at most 60 characters."""
        return str(self) if self.wrapped else f"gb1s{str(self)[3:]}"

    @classmethod
    def parse(cls, display_name: str) -> Tag | None:
        """Return the tag at the end of a display name; None when the name carries none of ours."""
        found = _TAG_AT_END.fullmatch(display_name)
        if found is None or len(display_name) - found.start(1) + len("gb1") > MAX_TAG:
            return None
        source, identity, clear_count, shard, round_, submission, fingerprint = found.groups()
        place = (int(clear_count), int(shard), int(round_), int(submission))
        return cls(identity, *place, fingerprint, wrapped=not source)


def display_name(author_part: str | None, tag: Tag) -> str:
    """Return the author's own words and then the tag; the words are cut so that both have at most 128 characters."""
    room = MAX_DISPLAY_NAME - len(tag.text) - 1
    printable = "".join(character if character.isprintable() else " " for character in author_part or "")
    author = " ".join(printable.split())[:room].rstrip()
    return f"{author}-{tag.text}" if author else tag.text


def label_value(tag: Tag) -> str:
    """Return the tag as the value of a Vertex label: a-z, 0-9, ``_`` and ``-`` are allowed, at most 63 characters."""
    return tag.text.replace(".", "_")


def from_label(value: str) -> Tag | None:
    """Return the tag that :func:`label_value` wrote; None for anything else."""
    return Tag.parse(value.replace("_", ".")) if value.startswith(("gb1-", "gb1s-")) else None


def tag_of(job: BatchJob) -> Tag | None:
    """Return the tag of a job, from its display name or else its label; None when it carries none of ours."""
    return Tag.parse(job.display_name) or from_label(job.labels.get(LABEL_KEY, ""))
